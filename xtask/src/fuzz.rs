//! `cargo xtask fuzz`: the fuzz targets, each for a while.

use anyhow::{Result, ensure};

use crate::{
    ebpf,
    run::{self, Command},
};

const TARGETS: [&str; 4] = ["record", "http1", "http2", "connection"];
const VERSION: &str = "0.13.2";

/// Runs every target for so many seconds.
pub(crate) fn fuzz(seconds: u64) -> Result<()> {
    let there = run::output(Command::new("cargo").args(["fuzz", "--version"]));
    if !there.is_ok_and(|text| text.contains(VERSION)) {
        run::check(Command::new("cargo").args(["install", "cargo-fuzz", "--locked", "--version", VERSION]))?;
    }
    let toolchain = ebpf::compiler()?;
    for target in TARGETS {
        println!("{target}: {seconds} s");
        let mut command = Command::new("cargo");
        command
            .args([&toolchain, "fuzz", "run", "--fuzz-dir"])
            .arg(run::root().join("tests/fuzz"))
            .arg(target);
        command.args([
            "--",
            &format!("-max_total_time={seconds}"),
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ]);
        command.env_remove("RUSTFLAGS").env_remove("CARGO").env_remove("RUSTC").env("RUST_BACKTRACE", "1");
        let status = command.current_dir(run::root()).status()?;
        ensure!(status.success(), "{target} found something: tests/fuzz/artifacts/{target} holds the input");
    }
    Ok(())
}
