//! httpmon's developer commands.

#![deny(unsafe_code)]

mod audit;
mod bench;
mod demo;
mod dist;
mod ebpf;
mod fuzz;
mod machine;
mod needs;
mod report;
mod run;
mod signals;
mod soak;
mod test;
mod vm;

use std::os::unix::process::CommandExt as _;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::audit::Advisories;

/// httpmon's developer commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a real Gunicorn with a Flask application and some traffic, and httpmon on it
    Demo {
        /// Stop after so many seconds
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
    },
    /// Install what the tests need, and run all of them
    Test,
    /// Build httpmon and run it, with the arguments after --
    Run {
        /// httpmon's own
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Rebuild the kernel object from its sources; fetches the toolchain that it needs
    Ebpf {
        /// Only tell whether the committed object matches its sources, byte for byte
        #[arg(long)]
        check: bool,
    },
    /// Make what is released, in target/dist: a tarball, a Debian package, and what they contain
    Dist,
    /// Run the fuzz targets, each for a while
    Fuzz {
        /// How long each
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// Put the figures into monitor/docs/robustness.md
        #[arg(long)]
        write: bool,
    },
    /// Keep httpmon on busy servers whose workers and connections come and go, and compare every count
    Soak {
        /// For how long
        #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// Put the figures into monitor/docs/robustness.md
        #[arg(long)]
        write: bool,
    },
    /// Check licences, sources and advisories of what the program is built from
    Audit {
        /// Fail where the database of advisories can't be fetched
        #[arg(long)]
        advisories: bool,
    },
    /// Check httpmon on stock kernels, in virtual machines
    Vm {
        /// Which; all by default
        #[arg(value_enum)]
        kernels: Vec<vm::Series>,
        /// Only whether all programs load and count right, which takes a third of the time
        #[arg(long)]
        brief: bool,
    },
    /// Measure what httpmon costs, side by side without and with it, and beside others
    Bench(bench::Settings),
    /// Hold connections open, for `bench`
    #[command(hide = true)]
    Hold(bench::Hold),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Demo { seconds } => demo::demo(seconds),
        Command::Test => test::test(),
        Command::Run { arguments } => {
            let program = run::build()?;
            let root = nix::unistd::geteuid().is_root();
            let mut command = if root { run::Command::new(program) } else { sudo(&program) };
            Err(command.args(arguments).exec().into())
        }
        Command::Ebpf { check } => ebpf::ebpf(check),
        Command::Dist => dist::dist(),
        Command::Fuzz { seconds, write } => fuzz::fuzz(seconds, write),
        Command::Soak { minutes, write } => soak::soak(minutes, write),
        Command::Audit { advisories: true } => audit::audit(Advisories::Required),
        Command::Audit { advisories: false } => audit::audit(Advisories::WherePossible),
        Command::Vm { kernels, brief } => vm::vm(&kernels, brief),
        Command::Bench(settings) => bench::bench(&settings),
        Command::Hold(hold) => hold.hold(),
    }
}

fn sudo(program: &std::path::Path) -> run::Command {
    let mut command = run::Command::new("sudo");
    command.arg(program);
    command
}
