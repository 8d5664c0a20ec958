//! What is expected of each kernel, by backend and form of the hooks. All of it is checked, refusals too.

use super::kernels::Series;

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

/// All of them.
pub(super) const WAYS: [Way; 5] = [
    Way::Automatic,
    Way::Told(Backend::Socket, Hooks::Typed),
    Way::Told(Backend::Socket, Hooks::Classic),
    Way::Told(Backend::Syscall, Hooks::Typed),
    Way::Told(Backend::Syscall, Hooks::Classic),
];

impl Way {
    /// What is expected of it on such a kernel.
    pub(super) fn expected(self, series: Series) -> Expected {
        let before_6_3 = matches!(series, Series::V5_10 | Series::V6_1);
        match self {
            // The socket tracepoints came with Linux 6.3.
            Self::Told(Backend::Socket, _) if before_6_3 => Expected::Refused,
            // The classic form needs `bpf_task_pt_regs`, which came with Linux 5.15.
            Self::Told(Backend::Syscall, Hooks::Classic) if series == Series::V5_10 => Expected::Refused,
            // From Linux 7.1 typed programs are skipped.
            Self::Told(_, Hooks::Typed) if series == Series::V7 => Expected::Loses,
            _ => Expected::Equal,
        }
    }

    /// The agent's options, joined by commas.
    pub(super) fn options(self) -> String {
        match self {
            Self::Automatic => String::new(),
            Self::Told(backend, hooks) => format!("--backend={},--hooks={}", backend.name(), hooks.name()),
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
    fn old_kernels_have_the_syscall_backend_alone() {
        assert_eq!(Way::Automatic.expected(Series::V5_10), Expected::Equal);
        let way = Way::Told(Backend::Socket, Hooks::Typed);
        assert_eq!(way.expected(Series::V6_1), Expected::Refused);
        assert_eq!(way.options(), "--backend=socket,--hooks=tp-btf");
    }
}
