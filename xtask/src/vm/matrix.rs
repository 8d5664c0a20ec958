//! What was found on all kernels, as a page of the documentation.

use std::fmt::Write as _;

use super::{
    expectations::{Expected, Way},
    smoke::{Check, Found, Outcome},
};

/// The page.
pub(super) fn page(outcomes: &[Outcome]) -> String {
    let (mut ways, mut others) = (String::new(), String::new());
    for Outcome { release, found, complete: _ } in outcomes {
        for Found { check, word, text } in found {
            // Every refusal ends with the same advice.
            let text =
                text.trim_end_matches("; `httpmon check` tells all that is needed").replace('|', r"\|");
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
                    let _ = writeln!(ways, "| {release} | {backend} | {hooks} | {result} | {text} |");
                    continue;
                }
                Check::Tls => "TLS: Gunicorn (gthread, uvicorn), nginx, Go, rustls",
                Check::Restart => "stopped; killed under load",
                Check::Crowd => "more busy threads than processors",
                Check::Clock => "the time of day is set",
                Check::Processors => "processors come and go",
                Check::NoBtf => "no type information (BTF)",
                Check::Lockdown => "lockdown",
            };
            let word = word.map(|word| format!("; booted with `{word}`")).unwrap_or_default();
            let _ = writeln!(others, "| {release} | {other}{word} | {text} |");
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
        let found = |check, word, text: &str| Found { check, word, text: text.to_owned() };
        let found = vec![
            found(Check::Counts(Way::Automatic, Expected::Equal), None, "9 of 9"),
            found(Check::Counts(told, Expected::Refused), None, "no a|b here"),
            found(Check::Restart, None, "nothing is left"),
            found(Check::Tls, Some("preempt=full"), "9 of 9"),
        ];
        let page = page(&[Outcome { release: "7.2".to_owned(), found, complete: true }]);
        for row in [
            "| 7.2 | auto | auto | counts equal | 9 of 9 |\n",
            "| 7.2 | socket | tracepoint | exit code 3 | no a\\|b here |\n",
            "| 7.2 | stopped; killed under load | nothing is left |\n",
            "| 7.2 | TLS: Gunicorn (gthread, uvicorn), nginx, Go, rustls; booted with `preempt=full` | 9 of 9 |\n",
        ] {
            assert!(page.contains(row), "{page}");
        }
    }
}
