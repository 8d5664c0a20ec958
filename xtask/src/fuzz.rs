//! `cargo xtask fuzz`: the fuzz targets, each for a while.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    ebpf, machine,
    report::{self, Report, Table},
    run::{self, Command},
};

const TARGETS: [&str; 4] = ["record", "http1", "http2", "connection"];
const VERSION: &str = "0.13.2";

/// Runs every target for so many seconds; `write` puts the figures into the documentation.
pub(crate) fn fuzz(seconds: u64, write: bool) -> Result<()> {
    let there = run::output(Command::new("cargo").args(["fuzz", "--version"]));
    if !there.is_ok_and(|text| text.contains(VERSION)) {
        run::check(Command::new("cargo").args(["install", "cargo-fuzz", "--locked", "--version", VERSION]))?;
    }
    let toolchain = ebpf::compiler()?;
    let mut table =
        Table::new(&["target", "seconds", "inputs", "crashes, hangs, and inputs that took too much memory"]);
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
        let mut running = command.current_dir(run::root()).stderr(Stdio::piped()).spawn()?;
        let mut inputs = None;
        for line in BufReader::new(running.stderr.take().context("its output is read")?).lines() {
            let line = line?;
            eprintln!("{line}");
            inputs = line
                .strip_prefix("stat::number_of_executed_units:")
                .map_or(inputs, |n| n.trim().parse().ok());
        }
        let status = running.wait()?;
        ensure!(status.success(), "{target} found something: tests/fuzz/artifacts/{target} holds the input");
        let inputs: u64 = inputs.context("libFuzzer doesn't say how many inputs it tried")?;
        table.row(&[&format!("`{target}`"), &seconds, &inputs, &0]);
    }
    let mut report = Report::default();
    report.say(&machine::describe()?);
    report.say(table.text());
    if write { report::write("robustness.md", "fuzz", report.text()) } else { Ok(()) }
}
