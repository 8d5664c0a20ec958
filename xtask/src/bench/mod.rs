//! `cargo xtask bench`: what httpmon costs, side by side in one run, beside what else there is. It prints Markdown, and
//! judges nothing.
//!
//! The servers have one core; the load, httpmon and what peers report to share another.

mod comparisons;
mod growth;
mod hold;
mod load;
mod pairs;
mod peers;
mod programs;
mod replay;
mod servers;
mod sink;
mod statistics;
mod sustained;
mod watch;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum as _;
use end_to_end::Agent;

pub(crate) use self::hold::Hold;
use crate::{
    machine, needs,
    report::{self, Report},
    run, signals,
    vm::instructions::{Purpose, instructions},
};

/// What is measured, and how.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line, each of its own")]
pub(crate) struct Settings {
    /// What is measured; everything but `sustained` where nothing is named
    parts: Vec<Part>,
    /// How often each variant is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// How long each time
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Also have nginx answer 100 000 requests a second, or as many as it can, for 60 s
    #[arg(long)]
    sustained: bool,
    /// Count the instructions of a request instead, in a virtual machine: the same each time
    #[arg(long, conflicts_with_all = ["parts", "rounds", "seconds", "sustained"])]
    instructions: bool,
    /// With --instructions: only if the kernel object isn't that of the reference
    #[arg(long, requires = "instructions", conflicts_with = "write")]
    if_changed: bool,
    /// Put the results into monitor/docs/cost.md, or make them the reference of --instructions
    #[arg(long)]
    write: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Gunicorn and Flask, beside in-process instrumentation
    Flask,
    /// nginx, beside system-call tracepoints
    Nginx,
    /// uvicorn and Go's net/http
    Servers,
    /// TLS and HTTP/2, beside plain HTTP/1.1
    Protocols,
    /// A server that isn't watched, while another is
    Unselected,
    /// More connections, routes, requests, services and processes
    Growth,
    /// `httpmon replay`
    Replay,
    /// Where the agent's time goes, in instructions by function
    Profile,
    /// Each kernel program's time, by the kernel's own account
    Programs,
    /// A minute of as much as nginx can answer
    Sustained,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn measure(self, settings: &Settings, report: &mut Report) -> Result<()> {
        match self {
            Self::Flask => comparisons::flask(settings, report),
            Self::Nginx => comparisons::nginx(settings, report),
            Self::Servers => comparisons::servers(settings, report),
            Self::Protocols => comparisons::protocols(settings, report),
            Self::Unselected => comparisons::unselected(settings, report),
            Self::Growth => growth::growth(settings, report),
            Self::Replay => replay::replay(settings, report),
            Self::Profile => replay::profile(report),
            Self::Programs => programs::programs(settings, report),
            Self::Sustained => sustained::sustained(report),
        }
    }
}

impl Settings {
    fn parts(&self) -> Vec<Part> {
        let chosen = |part: &Part| match part {
            Part::Sustained => self.sustained || self.parts.contains(part),
            _ => self.parts.contains(part) || self.parts.is_empty(),
        };
        Part::value_variants().iter().copied().filter(chosen).collect()
    }
}

/// Measures part after part; where one fails, the others are measured nevertheless.
pub(crate) fn bench(settings: &Settings) -> Result<()> {
    if settings.instructions {
        return instructions(match (settings.write, settings.if_changed) {
            (true, _) => Purpose::Write,
            (false, true) => Purpose::CompareIfChanged,
            (false, false) => Purpose::Compare,
        });
    }
    signals::note()?;
    needs::benchmark();
    run::build()?;
    Agent::possible().map_err(|reason| anyhow!("the bench can't run here: {reason}"))?;
    let _tracing = needs::Tracing::mount();
    let machine = machine::describe()?;
    machine::raise_descriptors()?;
    // What peers report to is part of this process.
    machine::pin(std::process::id(), machine::OTHERS)?;
    let mut failed = Vec::new();
    for part in settings.parts() {
        let (name, begun) = (part.name(), Instant::now());
        println!("## {name}\n");
        let mut report = Report::default();
        report.say(&machine);
        // What a server or an agent that doesn't start has to say, it says by a panic.
        let measured = catch_unwind(AssertUnwindSafe(|| part.measure(settings, &mut report)))
            .unwrap_or_else(|_| Err(anyhow!("it failed, see above")));
        match measured {
            Ok(()) => {
                println!("({name} took {:.0} s)\n", begun.elapsed().as_secs_f64());
                if settings.write {
                    report::write("cost.md", &name, report.text())?;
                }
            }
            Err(error) => {
                eprintln!("{name}: {error:#}\n");
                failed.push(name);
            }
        }
        signals::go_on()?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}
