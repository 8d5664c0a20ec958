//! What was measured, as Markdown: printed as it comes, and kept in the documentation between marks.

use std::{fmt::Display, fs};

use anyhow::{Context as _, Result};

use crate::run;

/// A part's account: printed as it comes.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
}

impl Report {
    /// Adds a paragraph, a heading or a table.
    pub(crate) fn say(&mut self, text: &str) {
        let text = text.trim();
        println!("{text}\n");
        self.text.extend([text, "\n\n"]);
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// A Markdown table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: usize,
    text: String,
}

impl Table {
    /// With these columns.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let text = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
        Self { columns: columns.len(), text }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: &[&dyn Display]) {
        assert_eq!(cells.len(), self.columns, "a row has a cell for each column");
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        self.text.extend(["| ", &cells.join(" | "), " |\n"]);
    }

    /// As Markdown.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Puts a part's result into a page of the documentation.
pub(crate) fn write(page: &str, part: &str, text: &str) -> Result<()> {
    let path = run::root().join("monitor/docs").join(page);
    let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let new = between_marks(&old, part, text)
        .with_context(|| format!("{} has no marks for the part {part:?}", path.display()))?;
    fs::write(&path, new).with_context(|| path.display().to_string())
}

/// A page with what is between a part's marks replaced.
fn between_marks(page: &str, part: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- measured {part} -->\n"), format!("<!-- end of {part} -->\n"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_a_parts_marks_is_replaced() {
        let page =
            "# A\n<!-- measured x -->\nold\n<!-- end of x -->\nB\n<!-- bench y -->\n<!-- end of y -->\n";
        let expected =
            "# A\n<!-- measured x -->\n\nnew\n\n<!-- end of x -->\nB\n<!-- bench y -->\n<!-- end of y -->\n";
        assert_eq!(between_marks(page, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(between_marks(expected, "x", "new").as_deref(), Some(expected));
        assert_eq!(between_marks(page, "z", "new"), None);
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&[&1, &"x"]);
        assert_eq!(table.text(), "| a | b |\n|---|---|\n| 1 | x |\n");
    }
}
