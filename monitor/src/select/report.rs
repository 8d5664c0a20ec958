//! What `httpmon processes` says.

use std::fmt::Write as _;

use super::Selected;

/// A table of the taken processes; where there is none a sentence, and what the PID namespace is where it hides some.
#[must_use]
pub fn report(selected: &[Selected], hidden: Option<&str>, width: usize) -> String {
    if selected.is_empty() {
        let mut text = "No process matches now. The agent would wait for one to start. Names are those of \
                        `ps -eo pid,comm,args`; globs such as 'gunicorn*' are accepted.\n"
            .to_owned();
        if let Some(hidden) = hidden {
            text.extend(["The PID namespace is ", hidden, ".\n"]);
        }
        return text;
    }
    let rows: Vec<[String; 4]> = selected
        .iter()
        .map(|process| {
            [
                process.pid.to_string(),
                process.service.clone(),
                process.reason.to_string(),
                process.command.clone(),
            ]
        })
        .collect();
    let head = ["PID", "SERVICE", "WHY", "COMMAND"].map(str::to_owned);
    let wide = |column: usize| {
        rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let (pid, service, why) = (wide(0), wide(1), wide(2));
    let mut text = String::new();
    for [a, b, c, d] in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        let _ = write!(line, "{a:>pid$}  {b:service$}  {c:why$}  {d}");
        text.extend(line.chars().filter(|c| !c.is_control()).take(width));
        text.push('\n');
    }
    text
}
