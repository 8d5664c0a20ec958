//! What httpmon can do on this kernel, and what it can't: found out by trying, told in the log, by `httpmon check` and
//! as `httpmon_feature_enabled`.

/// Something that some kernels, or some choices, go without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The socket backend.
    SocketBackend,
    /// The typed form of the hooks.
    TypedHooks,
    /// When bytes arrived.
    QueueTime,
    /// The bytes that `io_uring` moves.
    IoUring,
    /// The kernel's account of runs that it skipped.
    SkippedRuns,
    /// What TLS carries.
    Tls,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::SocketBackend, Self::TypedHooks, Self::QueueTime, Self::IoUring, Self::SkippedRuns, Self::Tls];

    /// Its name, as a label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SocketBackend => "socket_backend",
            Self::TypedHooks => "typed_hooks",
            Self::QueueTime => "queue_time",
            Self::IoUring => "io_uring",
            Self::SkippedRuns => "skipped_runs",
            Self::Tls => "tls",
        }
    }

    /// What one has with it.
    #[must_use]
    pub fn with(self) -> &'static str {
        match self {
            Self::SocketBackend => {
                "operations are seen at the sockets: programs that aren't selected run as fast as ever"
            }
            Self::TypedHooks => "hooks of the cheapest form",
            Self::QueueTime => "http_server_request_queue_duration_seconds tells the wait for a free worker",
            Self::IoUring => "bytes that io_uring moves are counted, with reason=\"io_uring\"",
            Self::SkippedRuns => "probe runs that the kernel skips are counted, with reason=\"preempted\"",
            Self::Tls => "TLS is read where a process's library has functions that are known",
        }
    }

    /// What one has without it.
    #[must_use]
    pub fn without(self) -> &'static str {
        match self {
            Self::SocketBackend => {
                "operations are seen at the end of system calls: those of all programs take a little longer"
            }
            Self::TypedHooks => "hooks of a form that is a little dearer",
            Self::QueueTime => "http_server_request_queue_duration_seconds stays empty",
            Self::IoUring => {
                "bytes that io_uring moves are seen and counted nowhere; the log names the processes that use it"
            }
            Self::SkippedRuns => "were probe runs skipped, httpmon_events_lost_total would not tell",
            Self::Tls => "TLS isn't read: its bytes are counted, with reason=\"tls\"",
        }
    }
}

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It is.
    Enabled,
    /// It was not wanted, or has no use here: why.
    Unused(String),
    /// The kernel lacks what it needs: what.
    Missing(String),
}

/// What there is of all of them.
#[derive(Clone, Debug)]
pub struct Features(Vec<(Feature, Availability)>);

impl Features {
    /// All there.
    pub(super) fn all() -> Self {
        Self(Feature::ALL.map(|feature| (feature, Availability::Enabled)).to_vec())
    }

    /// Says how it is with one.
    pub(super) fn set(&mut self, feature: Feature, availability: Availability) {
        if let Some((_, state)) = self.0.iter_mut().find(|(known, _)| *known == feature) {
            *state = availability;
        }
    }

    /// Each, and how it is with it.
    pub fn iter(&self) -> impl Iterator<Item = &(Feature, Availability)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_documented() {
        let page = include_str!("../../docs/metrics.md");
        for feature in Feature::ALL {
            assert!(page.contains(&format!("\n| `{}` |", feature.name())), "{feature:?}");
        }
    }

    #[test]
    fn what_is_missing_is_remembered_with_its_reason() {
        let mut features = Features::all();
        assert!(features.iter().all(|(_, state)| *state == Availability::Enabled));
        let reason = Availability::Missing("no tracepoint".to_owned());
        features.set(Feature::QueueTime, reason.clone());
        let states: Vec<_> = features.iter().filter(|(_, state)| *state != Availability::Enabled).collect();
        assert_eq!(states, [&(Feature::QueueTime, reason)]);
    }
}
