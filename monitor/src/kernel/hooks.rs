//! Which program stands at which tracepoint: two backends, and two forms of each hook.

use super::features::Feature;

/// Where the bytes that go through sockets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// At the socket, after each operation: tracepoints that came with Linux 6.3. Other programs aren't slowed.
    Socket,
    /// At the end of every system call of the host, of which those of selected processes are looked at.
    Syscall,
}

impl Backend {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Syscall => "syscall",
        }
    }

    /// Its hooks; first those that tell best why it can't be used.
    pub(super) fn hooks(self) -> impl Iterator<Item = &'static Hook> {
        let own: &[Hook] = match self {
            Self::Socket => &SOCKET,
            Self::Syscall => &SYSCALL,
        };
        own.iter().chain(&COMMON)
    }
}

/// Which of a hook's two forms is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `tp_btf`: typed pointers; the cheapest. Kernels from 7.1 skip its runs while another one is preempted on the
    /// same CPU.
    Typed,
    /// Classic tracepoints: never skipped, a little dearer.
    Classic,
}

impl Flavour {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Typed => Self::Classic,
            Self::Classic => Self::Typed,
        }
    }

    /// From 7.1 the kernel skips runs of a typed program while another is preempted. That shows only under load, when
    /// it is too late: the version decides.
    pub(super) fn by_version(version: (u32, u32)) -> Self {
        if version >= (7, 1) { Self::Classic } else { Self::Typed }
    }
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Typed => "BTF-typed tracepoints (tp_btf)",
            Self::Classic => "classic tracepoints",
        })
    }
}

/// One hook: its names as a tracepoint, and the programs for its forms.
pub(super) struct Hook {
    pub(super) category: &'static str,
    pub(super) tracepoint: &'static str,
    typed: &'static str,
    /// The typed form where sockets are known by number; `typed` where that makes no difference.
    numbered: &'static str,
    classic: &'static str,
    /// What is missing without it; none where nothing goes without it.
    pub(super) serves: Option<Feature>,
}

impl Hook {
    /// The program.
    pub(super) fn program(&self, backend: Backend, flavour: Flavour) -> &'static str {
        match (flavour, backend) {
            (Flavour::Typed, Backend::Socket) => self.typed,
            (Flavour::Typed, Backend::Syscall) => self.numbered,
            (Flavour::Classic, _) => self.classic,
        }
    }
}

const COMMON: [Hook; 5] = [
    Hook {
        category: "sched",
        tracepoint: "sched_process_fork",
        typed: "httpmon_fork",
        numbered: "httpmon_fork",
        classic: "httpmon_fork_c",
        serves: None,
    },
    Hook {
        category: "sched",
        tracepoint: "sched_process_exec",
        typed: "httpmon_exec",
        numbered: "httpmon_exec",
        classic: "httpmon_exec_c",
        serves: None,
    },
    Hook {
        category: "sched",
        tracepoint: "sched_process_exit",
        typed: "httpmon_exit",
        numbered: "httpmon_exit",
        classic: "httpmon_exit_c",
        serves: None,
    },
    Hook {
        category: "sock",
        tracepoint: "inet_sock_set_state",
        typed: "httpmon_state",
        numbered: "httpmon_state_n",
        classic: "httpmon_state_c",
        serves: None,
    },
    Hook {
        category: "sock",
        tracepoint: "sk_data_ready",
        typed: "httpmon_data",
        numbered: "httpmon_data_n",
        classic: "httpmon_data_c",
        serves: Some(Feature::QueueTime),
    },
];

const SOCKET: [Hook; 2] = [
    Hook {
        category: "sock",
        tracepoint: "sock_recv_length",
        typed: "httpmon_recv",
        numbered: "httpmon_recv",
        classic: "httpmon_recv_c",
        serves: None,
    },
    Hook {
        category: "sock",
        tracepoint: "sock_send_length",
        typed: "httpmon_send",
        numbered: "httpmon_send",
        classic: "httpmon_send_c",
        serves: None,
    },
];

const SYSCALL: [Hook; 1] = [Hook {
    category: "raw_syscalls",
    tracepoint: "sys_exit",
    typed: "httpmon_sysexit",
    numbered: "httpmon_sysexit",
    classic: "httpmon_sysexit_c",
    serves: None,
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_skip_preempted_programs_get_the_classic_form() {
        assert_eq!(Flavour::by_version((6, 18)), Flavour::Typed);
        assert_eq!(Flavour::by_version((7, 0)), Flavour::Typed);
        assert_eq!(Flavour::by_version((7, 1)), Flavour::Classic);
        assert_eq!(Flavour::by_version((8, 0)), Flavour::Classic);
    }

    #[test]
    fn programs_of_one_backend_and_form_know_sockets_in_one_way() {
        for (backend, flavour, states) in [
            (Backend::Socket, Flavour::Typed, ["httpmon_state", "httpmon_data"]),
            (Backend::Socket, Flavour::Classic, ["httpmon_state_c", "httpmon_data_c"]),
            (Backend::Syscall, Flavour::Typed, ["httpmon_state_n", "httpmon_data_n"]),
            (Backend::Syscall, Flavour::Classic, ["httpmon_state_c", "httpmon_data_c"]),
        ] {
            let programs: Vec<_> = backend.hooks().map(|hook| hook.program(backend, flavour)).collect();
            assert_eq!(programs[programs.len() - 2..], states);
        }
    }
}
