//! What is printed for other programs: the dashboard, the rules, completions and manual pages.

use std::{io, path::Path};

use clap_complete::Shell;

use crate::{cli, exit::Failure};

/// The Grafana dashboard.
pub const DASHBOARD: &str = include_str!("../../deploy/grafana/httpmon.json");
/// Prometheus' recording and alerting rules.
pub const RULES: &str = include_str!("../../deploy/prometheus/httpmon.rules.yml");

/// A completion script.
#[must_use]
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "httpmon", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page.
pub fn page() -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(cli::command()).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Writes a page for each command.
pub fn pages(directory: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(cli::command(), directory).map_err(|error| {
        Failure::Run(format!("{}: {error}; name a directory that can be written", directory.display()))
    })
}
