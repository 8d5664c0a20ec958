//! Virtual machines with stock kernels: what holds on each of them, and what httpmon costs in instructions.

mod debian;
mod initramfs;
pub(crate) mod instructions;
mod kernels;
mod machine;

use anyhow::Result;

use crate::run::{self, Command};

/// What programs inside know of where they run: everything takes longer than on the host.
const VARIABLES: [(&str, &str); 2] = [("HTTPMON_TEST_PATIENCE", "600"), ("PYTHONDONTWRITEBYTECODE", "1")];

/// Builds the program that runs inside; its path.
fn guest() -> Result<String> {
    let arguments = ["build", "--release", "--package=end-to-end", "--bin=guest"];
    run::check(Command::new("cargo").args(arguments).current_dir(run::root()))?;
    Ok(run::root().join("target/release/guest").display().to_string())
}
