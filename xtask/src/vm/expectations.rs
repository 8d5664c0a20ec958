//! What is expected of each kernel, by backend and form of the hooks. All of it is checked, refusals too.

use anyhow::Result;

use super::kernels::Series;
use crate::run::{self, Command};

/// What a way of hooking into the kernel comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Counts are equal to the client's.
    Equal,
    /// The agent ends with exit code 3, and says why.
    Refused,
    /// The kernel skips runs while others are preempted: the agent counts them as lost.
    Loses,
}

/// Where the agent sees bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Socket,
    Syscall,
}

/// The form of the hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hooks {
    Typed,
    Classic,
}

/// How the agent hooks into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As it chooses itself.
    Automatic,
    /// As it is told.
    Told(Backend, Hooks),
}

const WAYS: [Way; 5] = [
    Way::Automatic,
    Way::Told(Backend::Socket, Hooks::Typed),
    Way::Told(Backend::Socket, Hooks::Classic),
    Way::Told(Backend::Syscall, Hooks::Typed),
    Way::Told(Backend::Syscall, Hooks::Classic),
];

/// What the agent can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The backend, and the form of the hooks.
    BackendAndHooks,
    /// The form of the hooks: it has the socket backend alone.
    Hooks,
}

impl Choice {
    /// That of a built agent.
    pub(super) fn of(agent: &str) -> Result<Self> {
        let help = run::output(Command::new(agent).args(["run", "--help"]))?;
        Ok(if help.contains("--backend") { Self::BackendAndHooks } else { Self::Hooks })
    }

    /// All ways that the agent has.
    pub(super) fn ways(self) -> impl Iterator<Item = Way> {
        let has =
            move |way: &Way| self == Self::BackendAndHooks || !matches!(way, Way::Told(Backend::Syscall, _));
        WAYS.into_iter().filter(has)
    }

    /// What is expected of a way on such a kernel.
    pub(super) fn expected(self, way: Way, series: Series) -> Expected {
        let before_6_3 = matches!(series, Series::V5_10 | Series::V6_1);
        match way {
            // The socket tracepoints came with Linux 6.3.
            Way::Told(Backend::Socket, _) if before_6_3 => Expected::Refused,
            Way::Automatic if before_6_3 && self == Self::Hooks => Expected::Refused,
            // The classic form needs `bpf_task_pt_regs`, which came with Linux 5.15.
            Way::Told(Backend::Syscall, Hooks::Classic) if series == Series::V5_10 => Expected::Refused,
            // From Linux 7.1 typed programs are skipped.
            Way::Told(_, Hooks::Typed) if series == Series::V7 => Expected::Loses,
            _ => Expected::Equal,
        }
    }

    /// The agent's options, joined by commas.
    pub(super) fn options(self, way: Way) -> String {
        match (way, self) {
            (Way::Automatic, _) => String::new(),
            (Way::Told(backend, hooks), Self::BackendAndHooks) => {
                format!("--backend={},--hooks={}", backend.name(), hooks.name())
            }
            (Way::Told(_, hooks), Self::Hooks) => format!("--hooks={}", hooks.name()),
        }
    }
}

impl Backend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Syscall => "syscall",
        }
    }
}

impl Hooks {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Typed => "tp-btf",
            Self::Classic => "tracepoint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_with_one_backend_refuses_old_kernels() {
        assert_eq!(Choice::Hooks.ways().count(), 3);
        assert_eq!(Choice::Hooks.expected(Way::Automatic, Series::V6_1), Expected::Refused);
        assert_eq!(Choice::BackendAndHooks.expected(Way::Automatic, Series::V5_10), Expected::Equal);
        let way = Way::Told(Backend::Socket, Hooks::Typed);
        assert_eq!(Choice::Hooks.options(way), "--hooks=tp-btf");
        assert_eq!(Choice::BackendAndHooks.options(way), "--backend=socket,--hooks=tp-btf");
    }
}
