//! What is checked on each kernel, and what was found.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    Programs,
    expectations::{Expected, WAYS, Way},
    kernels::{Kernel, Series},
    machine::{Clock, Machine},
};

const LIMIT: Duration = Duration::from_secs(15 * 60);
const CPUS: u8 = 2;

/// What is asked of the agent on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// What is expected of a way.
    Counts(Way, Expected),
    /// Counts equal to the client's where it speaks TLS.
    Tls,
    /// Nothing left behind when it is stopped or killed, and everything counted afterwards.
    Restart,
    /// Counts equal to the client's where more threads are busy than there are processors, so that programs are preempted.
    Crowd,
    /// Times as they should be when the time of day is set.
    Clock,
    /// Counts equal to the client's while processors come and go.
    Processors,
    /// A refusal where the kernel has no type information.
    NoBtf,
    /// A refusal where the kernel is locked down.
    Lockdown,
}

impl Check {
    /// As the program inside reads it.
    fn argument(self) -> String {
        let (name, way) = match self {
            Self::Counts(way, Expected::Equal) => ("equal", way),
            Self::Counts(way, Expected::Refused) => ("refused", way),
            Self::Counts(way, Expected::Loses) => ("loses", way),
            Self::Tls => ("tls", Way::Automatic),
            Self::Restart => ("restart", Way::Automatic),
            Self::Crowd => ("crowd", Way::Automatic),
            Self::Clock => ("clock", Way::Automatic),
            Self::Processors => ("processors", Way::Automatic),
            Self::NoBtf => ("no-btf", Way::Automatic),
            Self::Lockdown => ("lockdown", Way::Automatic),
        };
        format!("{name}:{}", way.options())
    }
}

/// What holds on a kernel.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) release: String,
    /// The checks that held.
    pub(super) found: Vec<Found>,
    /// Whether all held.
    pub(super) complete: bool,
}

/// A check that held.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) check: Check,
    /// What the kernel was told when it was booted.
    pub(super) word: Option<&'static str>,
    /// What the check says of it.
    pub(super) text: String,
}

/// Boots a kernel, and checks that all programs load and count right; or everything, for which it is booted once more to be
/// preempted anywhere, and once more locked down.
pub(super) fn smoke(series: Series, programs: &Programs, brief: bool) -> Result<Outcome> {
    let kernel = series.fetch()?;
    let mut checks: Vec<Check> =
        WAYS.into_iter().map(|way| Check::Counts(way, way.expected(series))).collect();
    checks.push(Check::Tls);
    if !brief {
        checks.extend([Check::Restart, Check::Crowd, Check::Clock, Check::Processors, Check::NoBtf]);
    }
    let mut outcome = Outcome { release: kernel.release.clone(), found: Vec::new(), complete: true };
    outcome.boot(&kernel, None, &checks, programs)?;
    if brief {
        return Ok(outcome);
    }
    if series != Series::V5_10 {
        // Linux 5.12
        outcome.boot(&kernel, Some("preempt=full"), &[Check::Tls, Check::Crowd], programs)?;
    }
    outcome.boot(&kernel, Some("lockdown=confidentiality"), &[Check::Lockdown], programs)?;
    Ok(outcome)
}

impl Outcome {
    fn boot(
        &mut self,
        kernel: &Kernel,
        word: Option<&'static str>,
        checks: &[Check],
        programs: &Programs,
    ) -> Result<()> {
        println!("\nLinux {} {}", kernel.release, word.unwrap_or_default());
        let words = word.as_slice();
        let machine = Machine { kernel, cpus: CPUS, words, clock: Clock::Wall, limit: LIMIT };
        let arguments: Vec<String> = checks.iter().map(|check| check.argument()).collect();
        let mut command = vec![programs.guest.as_str(), "smoke"];
        command.extend(arguments.iter().map(String::as_str));
        let left = machine.run(&command, &programs.variables())?;
        let held = left.read("held").context("the program inside failed early, see above")?;
        for (check, argument) in checks.iter().zip(&arguments) {
            let found = held.lines().find_map(|line| line.strip_prefix(argument)?.strip_prefix(' '));
            match found {
                Some(text) => self.found.push(Found { check: *check, word, text: text.to_owned() }),
                None => self.complete = false,
            }
        }
        self.complete &= left.status == 0;
        Ok(())
    }
}
