//! `cargo xtask audit`: what the program is built from. cargo-deny checks licences, sources, and what is banned by
//! `.cargo/deny.toml`; and the advisories of the `RustSec` database, where that can be had.

use anyhow::{Result, bail};

use crate::run::{self, Command};

const VERSION: &str = "0.20.2";

/// Whether advisories have to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advisories {
    /// Without them it fails.
    Required,
    /// Without them it says so.
    WherePossible,
}

/// Checks everything.
pub(crate) fn audit(advisories: Advisories) -> Result<()> {
    let there = run::output(Command::new("cargo").args(["deny", "--version"]));
    if !there.is_ok_and(|text| text.trim().ends_with(VERSION)) {
        run::check(Command::new("cargo").args(["install", "cargo-deny", "--locked", "--version", VERSION]))?;
    }
    run::check(deny().args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    match (run::output(deny().args(["fetch", "db"])), advisories) {
        (Ok(_), _) => run::check(deny().args(["check", "--hide-inclusion-graph", "advisories"])),
        (Err(error), Advisories::Required) => bail!("advisories can't be checked: {error:#}"),
        (Err(error), Advisories::WherePossible) => {
            println!("ADVISORIES WERE NOT CHECKED: their database can't be fetched: {error:#}");
            Ok(())
        }
    }
}

fn deny() -> Command {
    let mut command = Command::new("cargo");
    command.args(["deny", "--workspace", "--config", ".cargo/deny.toml"]).current_dir(run::root());
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Files below a directory, relative to the repository.
    fn sources(folder: &str) -> Vec<String> {
        let names = format!("{folder}/**.rs");
        let listed =
            run::output(Command::new("git").args(["ls-files", &names]).current_dir(run::root())).unwrap();
        listed.lines().map(str::to_owned).collect()
    }

    #[test]
    fn unsafe_code_stands_where_the_threat_model_says() {
        let text = fs::read_to_string(run::root().join(".github/SECURITY.md")).unwrap();
        let sources = sources("monitor/src");
        assert!(sources.len() > 50, "{sources:?}");
        for name in sources {
            let source = fs::read_to_string(run::root().join(&name)).unwrap();
            let has = source.lines().any(|line| line.starts_with("#![expect(unsafe_code"));
            assert_eq!(has, text.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
