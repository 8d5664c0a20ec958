//! Running other programs.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

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

/// Builds httpmon as users do, but that the program doesn't tell where: the same sources and compiler make the same bytes,
/// wherever they lie.
pub(crate) fn build() -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    check(
        Command::new("cargo")
            .args(["build", "--release", "--locked", "--package=monitor"])
            .env("CARGO_ENCODED_RUSTFLAGS", remap(Path::new(sysroot.trim()))?.join("\x1f"))
            .env_remove("RUSTFLAGS")
            .current_dir(root()),
    )?;
    Ok(root().join("target/release/httpmon"))
}

/// Flags that have the compiler write the same paths wherever the sources lie.
pub(crate) fn remap(sysroot: &Path) -> Result<Vec<String>> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let flag = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec![flag(&root(), "/httpmon"), flag(sysroot, "/rust")];
    // Where a crate came from shows in its directory's name; of flags that match, the last one counts.
    let registries =
        fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten().filter_map(Result::ok);
    let mut registries: Vec<_> = registries.map(|registry| registry.path()).collect();
    registries.sort();
    flags.extend(registries.iter().map(|registry| flag(registry, "/crates")));
    Ok(flags)
}
