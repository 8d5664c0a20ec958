//! Loads the kernel object with the running kernel's offsets, attaches its programs, and holds them: they go when
//! this is dropped or the process ends, however it ends.
#![expect(unsafe_code, reason = "the tables hold plain numbers; malloc_trim")]

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, SkStorage},
    programs::{BtfTracePoint, Program, ProgramError, TracePoint},
};
use monitor_ebpf::config::{self, Abi, Choices, Connection, Limits, Offsets, Port, SOCKET_LISTENS, Selected};
use nix::sys::{
    mman::ProtFlags,
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    socket::{SockaddrStorage, getsockname},
};

use super::{
    TRACEFS, abi,
    btf::BtfError,
    features::{Availability, Feature, Features},
    functions::{Functions, Injector, locked},
    hooks::{Backend, Flavour, Hook},
    lockdown,
    mapped::{Mapping, page_size},
    namespace::Identity,
    pid_namespace::{self, Namespace},
    reader::Reader,
    ring::Ring,
    room::{Room, Table},
    statistics::{self, Losses, ProgramStatistics},
};
use crate::event::ServiceId;

/// What the probes are loaded with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where bytes are seen; `None` takes the socket backend where it can be loaded.
    pub backend: Option<Backend>,
    /// Which form of the hooks; `None` lets the kernel's version decide, and what can be loaded.
    pub flavour: Option<Flavour>,
    /// Where the kernel's type information is.
    pub btf: PathBuf,
    /// Whether the connections that selected processes open themselves are followed.
    pub outgoing: bool,
    /// Whether TLS is to be read, and how.
    pub tls: Tls,
    /// How much tables hold, where that is not what they hold by default; the last word on a table counts.
    pub rooms: Vec<Room>,
    /// Whether the kernel side's debug messages are wanted.
    pub debug: bool,
}

/// Whether TLS is read, by probes in the libraries of selected processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Each process has its own.
    Own,
    /// All processes share them that have mapped the same file.
    Shared,
    /// It is not.
    Off,
}

/// Why the probes can't run here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No type information.
    #[error(
        "the kernel's type information can't be read from {path}: {source}; a kernel built with CONFIG_DEBUG_INFO_BTF=y has it"
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it can't be read.
        source: std::io::Error,
    },
    /// Type information that lacks what the probes read.
    #[error("{path}: {source}; please report this kernel's version")]
    Offsets {
        /// Where it came from.
        path: PathBuf,
        /// What is missing.
        source: BtfError,
    },
    /// The caller may not load programs.
    #[error("the kernel refuses to load eBPF programs: {0}; run as root, or with CAP_BPF and CAP_PERFMON")]
    Privileges(String),
    /// No program may read memory.
    #[error(
        "kernel lockdown is at \"confidentiality\", where no probe can read memory; boot with lockdown=integrity or none"
    )]
    Lockdown,
    /// Processes have other numbers in `/proc` than for system calls.
    #[error(
        "/proc has the processes of another PID namespace than httpmon runs in, by other numbers; mount httpmon's own \
         (unshare --mount-proc), or give it that namespace (docker run --pid=host, hostPID: true in Kubernetes)"
    )]
    Namespace,
    /// An old kernel.
    #[error("the kernel has no tracepoint {0}")]
    NoTracepoint(&'static str),
    /// A program was refused.
    #[error("the probe {program} can't be used on this kernel: {reason}")]
    Program {
        /// Which.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// Whatever was tried.
    #[error("no probes can be used on this kernel: {0}")]
    Nothing(String),
    /// The object could not be loaded.
    #[error("the kernel object can't be loaded: {0}")]
    Object(String),
    /// An architecture whose system calls the probes don't know.
    #[error("httpmon's probes run on x86-64 and aarch64, this is {0}")]
    Architecture(&'static str),
}

/// Why a listening socket can't be prepared; its connections are known from their first message on.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The kernel side's table refused.
    #[error(transparent)]
    Table(#[from] MapError),
    /// The socket said nothing of itself.
    #[error(transparent)]
    Socket(#[from] nix::Error),
    /// Its network namespace isn't known.
    #[error("its network namespace: {0}")]
    Namespace(#[from] std::io::Error),
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T: Copy>(T);

// SAFETY: the kernel's and the agent's shared types are `repr(C)` numbers without uninitialised padding.
unsafe impl Pod for Plain<Offsets> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Abi> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Choices> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Limits> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Selected> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Connection> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Port> {}

/// Where the state of listening sockets is kept.
enum Listeners {
    /// In the sockets.
    Sockets(SkStorage<MapData, Plain<Connection>>),
    /// By port.
    Ports(HashMap<MapData, Plain<Port>, Plain<Connection>>, Identity),
}

/// The attached probes.
pub struct Probes {
    ebpf: Arc<Mutex<Ebpf>>,
    backend: Backend,
    flavour: Flavour,
    why: String,
    features: Features,
    hooks: Vec<&'static Hook>,
    injector: Option<Injector>,
    shares_functions: bool,
    reader: Arc<Mutex<Reader>>,
    processes: HashMap<MapData, u32, Plain<Selected>>,
    limits: Array<MapData, Plain<Limits>>,
    losses: Mapping,
    listeners: Listeners,
}

impl Probes {
    /// Loads the programs, by the first way of those wanted that this kernel allows. Nothing is attached, and nothing
    /// selected, yet.
    pub fn load(settings: &Settings) -> Result<Self, LoadError> {
        let architecture = std::env::consts::ARCH;
        let abi = abi::of(architecture).ok_or(LoadError::Architecture(architecture))?;
        if lockdown::forbids_reading(&lockdown::state()) {
            return Err(LoadError::Lockdown);
        }
        let pid_namespace = match pid_namespace::current() {
            Namespace::Host => 0,
            Namespace::Own(inode) => inode,
            Namespace::Foreign => return Err(LoadError::Namespace),
        };
        let (offsets, btf) = type_information(&settings.btf)?;
        unlimit_memory();
        let mut refused: Vec<(Backend, LoadError)> = Vec::new();
        for (backend, flavour) in candidates(settings, kernel_version()) {
            match Self::load_as(backend, flavour, (offsets, abi, pid_namespace), &btf, settings) {
                Ok(mut probes) => {
                    probes.explain(settings, &refused);
                    drop(btf);
                    release_memory();
                    return Ok(probes);
                }
                Err(error @ LoadError::Privileges(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!("the {} backend with {flavour}: {error}", backend.name());
                    refused.push((backend, error));
                }
            }
        }
        if refused.len() == 1 {
            return Err(refused.remove(0).1);
        }
        let reasons: Vec<String> =
            refused.iter().map(|(backend, error)| format!("{} backend: {error}", backend.name())).collect();
        Err(LoadError::Nothing(reasons.join("; ")))
    }

    fn load_as(
        backend: Backend,
        flavour: Flavour,
        (offsets, abi, pid_namespace): (Offsets, Abi, u32),
        btf: &Btf,
        settings: &Settings,
    ) -> Result<Self, LoadError> {
        let in_sockets = backend == Backend::Socket && flavour == Flavour::Typed;
        let identity = Identity::probe();
        let choices = Choices {
            ignore_outgoing: u32::from(!settings.outgoing),
            namespaces_by_inode: u32::from(identity == Identity::Inode),
            tls: u32::from(settings.tls != Tls::Off),
            pid_namespace,
        };
        let (offsets, abi, choices) = (Plain(offsets), Plain(abi), Plain(choices));
        let level = if settings.debug { 4_u8 } else { 0 };
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(btf))
            .override_global("OFFSETS", &offsets, true)
            .override_global("ABI", &abi, true)
            .override_global("CHOICES", &choices, true)
            .override_global("AYA_LOG_LEVEL", &level, false);
        for room in &settings.rooms {
            loader.map_max_entries(room.table.map(), room.size);
        }
        if settings.tls == Tls::Off {
            loader.map_max_entries("THREADS", 1);
        }
        if in_sockets {
            loader.map_max_entries(Table::Connections.map(), 1);
        }
        let mut ebpf = loader.load(monitor_ebpf::OBJECT).map_err(|error| object_error(&error))?;
        let mut features = Features::all();
        let mut hooks = Vec::new();
        for hook in backend.hooks() {
            match (load_program(&mut ebpf, hook, backend, flavour, btf), hook.serves) {
                (Ok(()), _) => hooks.push(hook),
                (Err(error @ (LoadError::Program { .. } | LoadError::NoTracepoint(_))), Some(feature)) => {
                    features.set(feature, Availability::Missing(error.to_string()));
                }
                (Err(error), _) => return Err(error),
            }
        }
        let functions = if settings.tls == Tls::Off {
            features.set(Feature::Tls, Availability::Unused("--tls off was asked for".to_owned()));
            None
        } else {
            let loaded = Functions::load(&mut ebpf);
            loaded.map_err(|reason| features.set(Feature::Tls, Availability::Missing(reason))).ok()
        };
        let map = |ebpf: &mut Ebpf, name: &str| {
            ebpf.take_map(name).ok_or_else(|| LoadError::Object(format!("it has no map {name}")))
        };
        let broken = |error: MapError| LoadError::Object(error.to_string());
        // The section in which the programs have them, and nothing else.
        let limits = Array::try_from(map(&mut ebpf, ".data")?).map_err(broken)?;
        let listeners = if in_sockets {
            Listeners::Sockets(SkStorage::try_from(map(&mut ebpf, "STORAGE")?).map_err(broken)?)
        } else {
            let ports = HashMap::try_from(map(&mut ebpf, "PORTS")?).map_err(broken)?;
            Listeners::Ports(ports, identity)
        };
        let Map::RingBuf(events) = map(&mut ebpf, "EVENTS")? else {
            return Err(LoadError::Object("EVENTS is no ring buffer".to_owned()));
        };
        let ring = Ring::of(&events).map_err(broken)?;
        let processes = HashMap::try_from(map(&mut ebpf, "PROCESSES")?).map_err(broken)?;
        let Map::Array(losses) = map(&mut ebpf, "LOSSES")? else {
            return Err(LoadError::Object("LOSSES is no array".to_owned()));
        };
        let losses = Mapping::new(losses.fd(), 0, page_size(), ProtFlags::PROT_READ)
            .map_err(|error| LoadError::Object(format!("the table of losses can't be mapped: {error}")))?;
        let ebpf = Arc::new(Mutex::new(ebpf));
        Ok(Self {
            reader: Arc::new(Mutex::new(Reader::new(ring))),
            processes,
            losses,
            limits,
            listeners,
            shares_functions: settings.tls == Tls::Shared,
            injector: functions.map(|functions| Injector::new(functions, &ebpf)),
            ebpf,
            backend,
            flavour,
            why: String::new(),
            features,
            hooks,
        })
    }

    /// Says why it came to be loaded like this, and what goes without.
    fn explain(&mut self, settings: &Settings, refused: &[(Backend, LoadError)]) {
        let refusal = |backend| refused.iter().find(|(tried, _)| *tried == backend).map(|(_, error)| error);
        let asked_for = |what: &str| Availability::Unused(format!("{what} was asked for"));
        self.why = match (settings.backend, refusal(Backend::Socket)) {
            (Some(_), _) => "as asked for".to_owned(),
            (None, Some(error)) if self.backend == Backend::Syscall => {
                let reason = format!("the socket backend can't be used: {error}");
                self.features.set(Feature::SocketBackend, Availability::Missing(error.to_string()));
                reason
            }
            (None, _) => "this kernel has what it needs".to_owned(),
        };
        if self.backend == Backend::Syscall {
            if settings.backend.is_some() {
                self.features.set(Feature::SocketBackend, asked_for("--backend syscall"));
            }
            let reason = "the syscall backend sees system calls alone".to_owned();
            self.features.set(Feature::IoUring, Availability::Missing(reason));
        }
        if self.flavour == Flavour::Classic {
            let state = match (settings.flavour, refusal(self.backend)) {
                (Some(_), _) => asked_for("--hooks tracepoint"),
                (None, Some(error)) => Availability::Missing(error.to_string()),
                (None, None) => Availability::Unused("from Linux 7.1 their runs can be skipped".to_owned()),
            };
            self.features.set(Feature::TypedHooks, state);
        }
        if self.programs().iter().any(|program| program.missed.is_none()) {
            let reason = "no recursion_misses in the programs' fdinfo".to_owned();
            self.features.set(Feature::SkippedRuns, Availability::Missing(reason));
        }
    }

    /// Attaches every program.
    pub fn attach(&self) -> Result<(), LoadError> {
        let mut ebpf = locked(&self.ebpf);
        for hook in &self.hooks {
            let name = hook.program(self.backend, self.flavour);
            let attached = match ebpf.program_mut(name) {
                Some(Program::BtfTracePoint(program)) => program.attach().map(|_| ()),
                Some(Program::TracePoint(program)) => {
                    program.attach(hook.category, hook.tracepoint).map(|_| ())
                }
                _ => Err(ProgramError::UnexpectedProgramType),
            };
            attached.map_err(|error| LoadError::Program { program: name, reason: chain(&error) })?;
        }
        Ok(())
    }

    /// Whether processes share the probes in their libraries.
    #[must_use]
    pub fn shares_functions(&self) -> bool {
        self.shares_functions
    }

    /// What puts probes into libraries, where TLS is read.
    #[must_use]
    pub fn injector(&self) -> Option<&Injector> {
        self.injector.as_ref()
    }

    /// Where bytes are seen.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Why they are seen there.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What there is and what there isn't.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Which form of the hooks is in use.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The object, for the kernel side's log.
    pub fn ebpf(&self) -> MutexGuard<'_, Ebpf> {
        locked(&self.ebpf)
    }

    /// Passes the waiting records on, `most` at most; how many there were.
    pub fn drain(&mut self, most: usize, handle: impl FnMut(&[u8])) -> usize {
        locked(&self.reader).drain(most, handle)
    }

    /// For those who take records out while nobody drains.
    #[must_use]
    pub fn reader(&self) -> Arc<Mutex<Reader>> {
        Arc::clone(&self.reader)
    }

    /// Readable when the kernel side wants the agent to look.
    pub fn readiness(&self) -> std::io::Result<OwnedFd> {
        locked(&self.reader).as_fd().try_clone_to_owned()
    }

    /// Selects a process, or names it anew.
    pub fn select(&mut self, pid: u32, service: ServiceId) -> Result<(), MapError> {
        self.processes.insert(pid, Plain(Selected { service: service.0, told: 0 }), 0)?;
        self.forget_remembered()
    }

    /// Selects a process no more.
    pub fn deselect(&mut self, pid: u32) -> Result<(), MapError> {
        // It may have ended just now, and its entry with it.
        let _ = self.processes.remove(&pid);
        self.forget_remembered()
    }

    /// Lets the kernel side look every process up again.
    fn forget_remembered(&mut self) -> Result<(), MapError> {
        let Plain(limits) = self.limits.get(&0, 0)?;
        self.limits.set(0, Plain(Limits { epoch: limits.epoch.wrapping_add(1), ..limits }), 0)
    }

    /// The processes that the kernel side has selected now, and what for.
    pub fn selected(&self) -> impl Iterator<Item = (u32, ServiceId)> {
        let entries = self.processes.iter().filter_map(Result::ok);
        entries.map(|(pid, Plain(selected))| (pid, ServiceId(selected.service)))
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has_selected(&self, pid: u32) -> bool {
        self.processes.get(&pid, 0).is_ok()
    }

    /// Prepares a listening TCP socket: the connections that it takes are known from their birth.
    pub fn prepare_listener(
        &mut self,
        socket: BorrowedFd<'_>,
        pid: u32,
        service: ServiceId,
    ) -> Result<(), ListenerError> {
        let listener = Connection { pid, service: service.0, kind: SOCKET_LISTENS, ..Connection::default() };
        match &mut self.listeners {
            Listeners::Sockets(storage) => storage.insert(&socket, Plain(listener), 0)?,
            Listeners::Ports(ports, identity) => {
                let local = getsockname::<SockaddrStorage>(socket.as_raw_fd())?;
                let inet = local.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::port);
                let port = inet.or_else(|| local.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port));
                let Some(port) = port else { return Ok(()) };
                let place = Port { namespace: identity.of(socket, pid)?, port: port.into() };
                ports.insert(Plain(place), Plain(listener), 0)?;
            }
        }
        Ok(())
    }

    /// Lets the kernel side copy more of each burst; whether it could be raised further.
    pub fn raise_limits(&mut self) -> Result<bool, MapError> {
        let Plain(now) = self.limits.get(&0, 0)?;
        let raised = Limits {
            received: (now.received * 2).min(Limits::MOST * 4),
            sent: (now.sent * 2).min(Limits::MOST * 4),
            ..now
        };
        self.limits.set(0, Plain(raised), 0)?;
        Ok(raised != now)
    }

    /// What never reached the agent.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let total = |which: u32| self.losses.u64(which as usize * size_of::<u64>()).load(Ordering::Relaxed);
        Losses {
            ring_full: total(config::loss::RING_FULL),
            map_full: total(config::loss::MAP_FULL),
            requests: total(config::loss::REQUESTS),
            preempted: self.programs().iter().filter_map(|program| program.missed).sum(),
        }
    }

    /// Whether the kernel lets this process use the tables.
    #[must_use]
    pub fn tables_work(&self) -> bool {
        self.limits.get(&0, 0).is_ok()
    }

    /// The kernel's own figures of each program.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramStatistics> {
        let ebpf = locked(&self.ebpf);
        self.hooks
            .iter()
            .filter_map(|hook| {
                let name = hook.program(self.backend, self.flavour);
                let fd = match ebpf.program(name)? {
                    Program::BtfTracePoint(program) => program.fd().ok()?,
                    Program::TracePoint(program) => program.fd().ok()?,
                    _ => return None,
                };
                statistics::of(name, fd.as_fd())
            })
            .chain(self.injector.iter().flat_map(|injector| injector.statistics(&ebpf)))
            .collect()
    }
}

fn load_program(
    ebpf: &mut Ebpf,
    hook: &Hook,
    backend: Backend,
    flavour: Flavour,
    btf: &Btf,
) -> Result<(), LoadError> {
    let name = hook.program(backend, flavour);
    let no_tracepoint = || LoadError::NoTracepoint(hook.tracepoint);
    let loaded = match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => BtfTracePoint::load(program, hook.tracepoint, btf),
        Some(Program::TracePoint(_)) if is_absent(hook) => return Err(no_tracepoint()),
        Some(Program::TracePoint(program)) => TracePoint::load(program),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|error| match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            if io_error.kind() == std::io::ErrorKind::PermissionDenied
                && verifier_log.to_string().trim().is_empty()
            {
                LoadError::Privileges(io_error.to_string())
            } else {
                LoadError::Program { program: name, reason: refusal(name, io_error, verifier_log) }
            }
        }
        ProgramError::Btf(aya::BtfError::UnknownBtfTypeName { .. }) => no_tracepoint(),
        other => LoadError::Program { program: name, reason: chain(other) },
    })
}

/// What the verifier says of a program, in a line.
pub(super) fn refusal(name: &str, io_error: &std::io::Error, log: &dyn std::fmt::Display) -> String {
    tracing::debug!("verifier on {name}: {log}");
    let log = log.to_string();
    let said = |line: &&str| {
        let ending =
            ["processed ", "verification time ", "stack depth "].iter().any(|end| line.starts_with(end));
        !line.trim().is_empty() && !ending
    };
    let last = log.lines().rev().find(said);
    format!("{io_error}: {}", last.unwrap_or_default())
}

/// Whether the tracing file system, where it can be read, lacks a tracepoint: a program for it loads all the same.
fn is_absent(hook: &Hook) -> bool {
    TRACEFS.iter().map(|place| Path::new(place).join("events")).any(|events| {
        events.join("sched").exists() && !events.join(hook.category).join(hook.tracepoint).exists()
    })
}

/// Lifts the limit of locked memory where that is allowed: before Linux 5.11 maps counted against it
/// (kernel/bpf/syscall.c).
fn unlimit_memory() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!("the limit of locked memory can't be lifted: {error}");
    }
}

/// Whether memory can be locked without limit, or the limit be lifted.
#[must_use]
pub fn is_memory_unlimited() -> bool {
    unlimit_memory();
    getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY)
}

/// The kernel's type information took megabytes that the allocator would keep for later.
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and gives free memory back to the kernel.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn type_information(path: &Path) -> Result<(Offsets, Btf), LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::NoBtf { path: path.to_owned(), source })?;
    let offsets = super::resolve_offsets(&bytes)
        .map_err(|source| LoadError::Offsets { path: path.to_owned(), source })?;
    let btf = Btf::parse(&bytes, Endianness::default()).map_err(|error| LoadError::Object(chain(&error)))?;
    Ok((offsets, btf))
}

fn object_error(error: &aya::EbpfError) -> LoadError {
    let text = chain(error);
    if text.contains("Operation not permitted") || text.contains("Permission denied") {
        LoadError::Privileges(text)
    } else {
        LoadError::Object(text)
    }
}

/// An error with its causes, in a line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// What is tried, the first that can be loaded being taken: the socket backend in either form, then the other one; but
/// where the kernel skips runs of typed programs, no typed one before all classic ones.
fn candidates(settings: &Settings, version: (u32, u32)) -> Vec<(Backend, Flavour)> {
    let by_version = Flavour::by_version(version);
    let backends = settings.backend.map_or(vec![Backend::Socket, Backend::Syscall], |wanted| vec![wanted]);
    let flavours = settings.flavour.map_or(vec![by_version, by_version.other()], |wanted| vec![wanted]);
    let mut all: Vec<_> = backends
        .iter()
        .flat_map(|&backend| flavours.iter().map(move |&flavour| (backend, flavour)))
        .collect();
    if by_version == Flavour::Classic {
        all.sort_by_key(|&(_, flavour)| flavour == Flavour::Typed);
    }
    all
}

/// The running kernel's version, as far as it decides anything.
fn kernel_version() -> (u32, u32) {
    parse_version(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

/// Major and minor of a kernel release such as `6.12.107+deb13-cloud-amd64`; zeroes where they are missing.
#[must_use]
pub fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_hooks_come_last_where_their_runs_are_skipped() {
        use Backend::{Socket, Syscall};
        use Flavour::{Classic, Typed};
        let mut settings = Settings {
            backend: None,
            flavour: None,
            btf: PathBuf::new(),
            outgoing: false,
            tls: Tls::Own,
            rooms: Vec::new(),
            debug: false,
        };
        let before = [(Socket, Typed), (Socket, Classic), (Syscall, Typed), (Syscall, Classic)];
        assert_eq!(candidates(&settings, (7, 0)), before);
        let since = [(Socket, Classic), (Syscall, Classic), (Socket, Typed), (Syscall, Typed)];
        assert_eq!(candidates(&settings, (7, 1)), since);
        settings.backend = Some(Socket);
        assert_eq!(candidates(&settings, (7, 1)), [(Socket, Classic), (Socket, Typed)]);
        settings.flavour = Some(Typed);
        assert_eq!(candidates(&settings, (7, 1)), [(Socket, Typed)]);
    }
}
