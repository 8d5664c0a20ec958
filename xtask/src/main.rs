//! httpmon's developer commands.

mod ebpf;
mod run;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// httpmon's developer commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rebuild the kernel object from its sources; fetches the toolchain that it needs
    Ebpf {
        /// Only tell whether the committed object matches its sources, byte for byte
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Ebpf { check } => ebpf::ebpf(check),
    }
}
