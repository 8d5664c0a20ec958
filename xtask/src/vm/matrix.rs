//! What was found on all kernels, as a page of the documentation.

use std::fmt::Write as _;

use super::{
    expectations::{Expected, Way},
    smoke::{Check, Outcome},
};

/// The page.
pub(super) fn page(outcomes: &[Outcome]) -> String {
    let (mut ways, mut others) = (String::new(), String::new());
    for Outcome { release, found, complete: _ } in outcomes {
        for (check, found) in found {
            // Every refusal ends with the same advice.
            let found =
                found.trim_end_matches("; `httpmon check` tells all that is needed").replace('|', r"\|");
            let other = match check {
                Check::Counts(way, expected) => {
                    let (backend, hooks) = match way {
                        Way::Automatic => ("auto", "auto"),
                        Way::Told(backend, hooks) => (backend.name(), hooks.name()),
                    };
                    let result = match expected {
                        Expected::Equal => "counts equal",
                        Expected::Refused => "exit code 3",
                        Expected::Loses => "loses, and counts it",
                    };
                    let _ = writeln!(ways, "| {release} | {backend} | {hooks} | {result} | {found} |");
                    continue;
                }
                Check::Tls => "TLS: Gunicorn (gthread, uvicorn), nginx".to_owned(),
                Check::Preempted => "the same with `preempt=full`".to_owned(),
                Check::Restart => "stopped; killed under load".to_owned(),
                Check::Crowd => "more busy threads than processors".to_owned(),
                Check::Clock => "the time of day is set".to_owned(),
                Check::Processors => "processors come and go".to_owned(),
                Check::NoBtf => "no type information (BTF)".to_owned(),
                Check::Lockdown => "`lockdown=confidentiality`".to_owned(),
            };
            let _ = writeln!(others, "| {release} | {other} | {found} |");
        }
    }
    format!("{HEAD}{ways}{MIDDLE}{others}")
}

const HEAD: &str = "# Kernels

Written by `cargo xtask vm`, which boots Debian's stock kernels in virtual machines and checks on each what stands here.
*Counts equal* means that a client's requests to Gunicorn (two workers; over TCP on connections that are kept and on others
that aren't, and over a unix socket) were counted by method, route and status exactly as the client knows them, that no
event was lost, and that `bpftool` shows none of the agent's programs, maps and links once it has ended. Where a kernel
lacks what a combination needs, the agent must end with exit code 3 and say why; where the kernel skips runs of typed
programs while others are preempted (from 7.1; the agent chooses the other form there), it must count what it missed. That
is checked as well.

| kernel | backend | hooks | result | found |
|---|---|---|---|---|
";

const MIDDLE: &str = "
With the backend and the hooks that the agent chooses, where nothing else is said:

| kernel | check | found |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::expectations::{Backend, Hooks};

    #[test]
    fn the_page_tells_counts_reasons_and_the_other_checks() {
        let told = Way::Told(Backend::Socket, Hooks::Classic);
        let found = vec![
            (Check::Counts(Way::Automatic, Expected::Equal), "9 of 9".to_owned()),
            (Check::Counts(told, Expected::Refused), "no a|b here".to_owned()),
            (Check::Restart, "nothing is left".to_owned()),
        ];
        let page = page(&[Outcome { release: "7.2".to_owned(), found, complete: true }]);
        for row in [
            "| 7.2 | auto | auto | counts equal | 9 of 9 |\n",
            "| 7.2 | socket | tracepoint | exit code 3 | no a\\|b here |\n",
            "| 7.2 | stopped; killed under load | nothing is left |\n",
        ] {
            assert!(page.contains(row), "{page}");
        }
    }
}
