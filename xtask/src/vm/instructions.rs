//! `cargo xtask bench --instructions`: what a request costs, in instructions of a machine that counts them. The reference that it
//! is held against is a page of the documentation, which also says of which kernel object the figures are.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Programs,
    expectations::{WAYS, Way},
    kernels::{Kernel, Series},
    machine::{Clock, Machine},
};
use crate::run::{self, Command};

const LIMIT: Duration = Duration::from_secs(20 * 60);
const BARE: &str = "nothing";

const ANOTHER: &str = "httpmon, which watches another process";

const CALLS: &str = "both ends of 8 system calls (bpftrace)";

/// What is measured: its name in the table, and what the program inside calls it.
fn watchers() -> Vec<(String, String)> {
    let told = WAYS.into_iter().filter_map(|way| match way {
        Way::Automatic => None,
        Way::Told(backend, hooks) => {
            Some((format!("httpmon, {}, {}", backend.name(), hooks.name()), way.options()))
        }
    });
    let plain = |name: &str, watcher: &str| (name.to_owned(), watcher.to_owned());
    [plain(BARE, "none"), plain(ANOTHER, "another")]
        .into_iter()
        .chain(told)
        .chain([plain(CALLS, "calls")])
        .collect()
}

/// Instructions of a request, on average over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cost {
    /// Of client, server and kernel, the probes included.
    serving: f64,
    /// Of the watching program.
    watching: f64,
}

impl Cost {
    fn total(self) -> f64 {
        self.serving + self.watching
    }
}

/// What becomes of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// They are held against the reference.
    Compare,
    /// The same, and only if the kernel object isn't the reference's.
    CompareIfChanged,
    /// They are the reference from now on.
    Write,
}

/// Measures, and prints.
pub(crate) fn instructions(purpose: Purpose) -> Result<()> {
    let object = run::output(Command::new("sha256sum").arg(run::root().join("monitor-ebpf/httpmon.bpf.o")))?;
    let object = object.split(' ').next().context("sha256sum prints a sum")?.to_owned();
    let page = fs::read_to_string(page()).unwrap_or_default();
    if purpose == Purpose::CompareIfChanged && page.contains(&object) {
        println!("the kernel object is that of {}", self::page().display());
        return Ok(());
    }
    let programs = Programs::prepare()?;
    let kernel = Series::V6_12.fetch()?;
    let costs = measure(&kernel, &programs)?;
    let table = table(&costs);
    println!("Linux {}, instructions of an nginx `return 200` request:\n\n{table}", kernel.release);
    print!("{}", differences(&reference(&page), &costs));
    if purpose == Purpose::Write {
        fs::write(self::page(), document(&kernel.release, &table, &object))?;
        println!("{} is written", self::page().display());
    }
    Ok(())
}

fn page() -> PathBuf {
    run::root().join("monitor/docs/instructions.md")
}

fn measure(kernel: &Kernel, programs: &Programs) -> Result<Vec<(String, Cost)>> {
    let watchers = watchers();
    let words = ["nokaslr", "norandmaps"];
    let machine = Machine { kernel, cpus: 1, words: &words, clock: Clock::Instructions, limit: LIMIT };
    let mut command = vec![programs.guest.as_str(), "instructions"];
    command.extend(watchers.iter().map(|(_, watcher)| watcher.as_str()));
    let left = machine.run(&command, &programs.variables())?;
    ensure!(left.status == 0, "the program inside failed, see above");
    let text = left.read("instructions")?;
    watchers.into_iter().map(|(name, watcher)| Ok((name, average(&text, &watcher)?))).collect()
}

/// The average of a watcher's lines: its name, requests, and what serving and watching them took.
fn average(text: &str, watcher: &str) -> Result<Cost> {
    let (mut requests, mut sum) = (0.0, Cost::default());
    for line in text.lines().filter_map(|line| line.strip_prefix(watcher)?.strip_prefix(' ')) {
        let figures: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let &[of, serving, watching] = figures.as_slice() else {
            anyhow::bail!("unexpected figures: {line}")
        };
        requests += of;
        sum = Cost { serving: sum.serving + serving, watching: sum.watching + watching };
    }
    ensure!(requests > 0.0, "nothing was measured with {watcher}");
    Ok(Cost { serving: sum.serving / requests, watching: sum.watching / requests })
}

const HEAD: &str = "| watched by | client, server, kernel | watching program | sum | added | % |\n|---|---|---|---|---|---|\n";

fn table(costs: &[(String, Cost)]) -> String {
    let bare = costs.iter().find(|(name, _)| name == BARE).map_or(f64::NAN, |(_, cost)| cost.total());
    let mut text = HEAD.to_owned();
    for (name, cost) in costs {
        let (total, added) = (cost.total(), cost.total() - bare);
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.0} | {total:.0} | {added:+.0} | {:+.1} |",
            cost.serving,
            cost.watching,
            added / bare * 100.0
        );
    }
    text
}

/// The costs in a page's table.
fn reference(page: &str) -> BTreeMap<String, Cost> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let number = |cell: usize| cells.get(cell)?.parse().ok();
        let name = (*cells.get(1)?).to_owned();
        Some((name, Cost { serving: number(2)?, watching: number(3)? }))
    };
    page.lines().filter_map(row).collect()
}

fn differences(reference: &BTreeMap<String, Cost>, costs: &[(String, Cost)]) -> String {
    let mut text = String::new();
    for (name, cost) in costs {
        let Some(before) = reference.get(name) else {
            let _ = writeln!(text, "{name}: not in the reference");
            continue;
        };
        let _ = writeln!(
            text,
            "{name}: {:+.0} against the reference ({:+.2} %): {:+.0} serving, {:+.0} watching",
            cost.total() - before.total(),
            (cost.total() / before.total() - 1.0) * 100.0,
            cost.serving - before.serving,
            cost.watching - before.watching,
        );
    }
    text
}

fn document(release: &str, table: &str, object: &str) -> String {
    format!(
        "# Cost in instructions

Written by `cargo xtask bench --instructions --write`. A virtual machine with one processor, whose clock counts
instructions (`qemu -icount shift=0`), gives the same figures each time, to some 0.2 %, wherever it runs. They tell what a
change costs; they are not nanoseconds of a real machine, where instructions differ.

nginx answers `return 200` to 5 times 2000 requests of one keep-alive client, one after the other, on Linux
{release}. Client, server, kernel, probes and the agent share the processor. The figures
are instructions of one request.

{table}
- The agent works in batches. Its share is what its threads ran until it had caught up, and holds what it does anyway in
  that time; what waking it takes is in the first column.
- Where httpmon watches another process, its programs run as often, at each of the 6 times that bytes arrive at, are received
  from or are sent to a socket of client or server, and only find that they have nothing to do: that is the least that any
  program at these hooks costs.
- *Both ends of 8 system calls* is a bpftrace script on the beginning and the end of `read`, `readv`, `recvfrom`, `recvmsg`,
  `write`, `writev`, `sendto` and `sendmsg`: it keeps the buffer's address, looks it up again, reads 8 bytes and adds them to
  a sum. It copies no data and sends nothing to user space.
- The probes see the client's operations too, and pass over them: the client isn't selected.

The kernel object measured has the SHA-256 sum
`{object}`.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back() {
        let costs = [
            (BARE.to_owned(), Cost { serving: 40_000.0, watching: 0.0 }),
            ("httpmon".to_owned(), Cost { serving: 42_000.0, watching: 800.0 }),
        ];
        let read = reference(&document("6.12", &table(&costs), "0"));
        assert_eq!(read.len(), costs.len());
        assert!(costs.iter().all(|(name, cost)| read[name] == *cost));
        let changed = [("httpmon".to_owned(), Cost { serving: 42_000.0, watching: 1228.0 })];
        let expected = "httpmon: +428 against the reference (+1.00 %): +0 serving, +428 watching\n";
        assert_eq!(differences(&read, &changed), expected);
    }

    #[test]
    fn runs_are_averaged() {
        let text = "none 10 1000 0\n--hooks=x 10 1100 50\n--hooks=x 10 1300 70\n";
        assert_eq!(average(text, "--hooks=x").unwrap(), Cost { serving: 120.0, watching: 6.0 });
        assert!(average(text, "calls").is_err());
    }
}
