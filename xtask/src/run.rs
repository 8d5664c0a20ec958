//! Running other programs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

pub(crate) use std::process::Command;

/// The repository's top level.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Runs a command to its end, and says what failed.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// Runs a command for what it prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("can't run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Builds httpmon as users do.
pub(crate) fn build() -> Result<PathBuf> {
    check(Command::new("cargo").args(["build", "--release", "--package=monitor"]).current_dir(root()))?;
    Ok(root().join("target/release/httpmon"))
}
