//! Probes at functions of programs and libraries, each in one process: by one link for many of them where the kernel has
//! that, else one by one.

use std::{
    ffi::CString,
    fs::File,
    num::NonZeroU32,
    os::fd::AsRawFd as _,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    programs::{
        Program, ProgramError,
        uprobe::{UProbeLink, UProbeScope},
    },
};
use monitor_ebpf::config::{
    FUNCTION_FREES, FUNCTION_GO_DID_READ, FUNCTION_GO_DID_SHAKE_HANDS, FUNCTION_GO_DID_WRITE,
    FUNCTION_GO_FREES, FUNCTION_GO_GIVES, FUNCTION_GO_READS, FUNCTION_GO_SHAKES_HANDS, FUNCTION_GO_WRITES,
    FUNCTION_GO_WROTE, FUNCTION_MAPPED, FUNCTION_READS, FUNCTION_RUST_DECRYPTED, FUNCTION_RUST_DECRYPTS,
    FUNCTION_RUST_ENCRYPTS, FUNCTION_SHAKES_HANDS, FUNCTION_TELLS_COUNT, FUNCTION_TELLS_SUCCESS,
    FUNCTION_WILL_TELL_COUNT, FUNCTION_WRITES, FUNCTION_WRITES_FILE,
};

use super::{
    multi::{Multi, Place},
    probes::{chain, refusal},
    statistics::{self, ProgramStatistics},
};
use crate::tls::{self, Point, Role};

/// For functions that begin, and for those that have returned.
const PAIR: [&str; 2] = ["httpmon_tls_enter", "httpmon_tls_leave"];

/// Puts probes into libraries.
#[derive(Clone)]
pub struct Injector {
    functions: Arc<Functions>,
    ebpf: Arc<Mutex<Ebpf>>,
}

impl Injector {
    pub(super) fn new(functions: Functions, ebpf: &Arc<Mutex<Ebpf>>) -> Self {
        Self { functions: Arc::new(functions), ebpf: Arc::clone(ebpf) }
    }

    /// Whether that can be done with what is held now.
    pub fn try_out(&self) -> Result<(), String> {
        self.functions.try_out(&mut locked(&self.ebpf))
    }

    /// Puts probes at places of a file, where one process has mapped it or will; or all.
    pub fn attach(&self, points: &[Point], file: &File, pid: Option<u32>) -> Result<Vec<Attached>, String> {
        match &*self.functions {
            Functions::Together(pair) => attach_together(pair, points, file, pid),
            Functions::Apart => attach_apart(&mut locked(&self.ebpf), points, file, pid),
        }
    }

    /// The kernel's own figures of each program.
    pub(super) fn statistics(&self, ebpf: &Ebpf) -> Vec<ProgramStatistics> {
        self.functions.statistics(ebpf)
    }
}

/// What is in it is as it was, whoever held it when a thread died.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The programs that stand at functions.
pub(super) enum Functions {
    /// The two of [`PAIR`].
    Together([Multi; 2]),
    /// One for each [`Role`].
    Apart,
}

/// Probes in a process's library: they go when this is dropped.
#[derive(Debug)]
pub enum Attached {
    /// Many.
    Together(OwnedFd),
    /// One.
    Apart(UProbeLink),
}

impl Functions {
    /// Loads the programs in the first way that the kernel allows.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self, String> {
        let together = Multi::load(ebpf, PAIR).map(Self::Together).and_then(|functions| {
            functions.try_out(ebpf)?;
            Ok(functions)
        });
        let refused = match together {
            Ok(functions) => return Ok(functions),
            Err(error) => error,
        };
        tracing::debug!("no probe at many functions at once: {refused}");
        for role in Role::ALL {
            let name = program_of(role);
            let Some(Program::UProbe(program)) = ebpf.program_mut(name) else {
                return Err(format!("there is no program {name}"));
            };
            program.load().map_err(|error| match &error {
                ProgramError::LoadError { io_error, verifier_log } => refusal(name, io_error, verifier_log),
                other => chain(other),
            })?;
        }
        Self::Apart
            .try_out(ebpf)
            .map_err(|error| format!("{error}; before Linux 6.6 most kernels want CAP_SYS_ADMIN for it"))?;
        Ok(Self::Apart)
    }

    /// Whether probes can be put on with what is held now: tried where httpmon itself began, which never runs again.
    fn try_out(&self, ebpf: &mut Ebpf) -> Result<(), String> {
        let file = File::open("/proc/self/exe").map_err(|error| format!("/proc/self/exe: {error}"))?;
        let begin = tls::begin(&file).ok_or("httpmon's own program has no beginning")?;
        let (points, own) = ([begin], Some(std::process::id()));
        match self {
            Self::Together(pair) => attach_together(pair, &points, &file, own),
            Self::Apart => attach_apart(ebpf, &points, &file, own),
        }
        .map(drop)
    }

    /// The kernel's own figures of each program.
    fn statistics(&self, ebpf: &Ebpf) -> Vec<ProgramStatistics> {
        match self {
            Self::Together(pair) => PAIR
                .iter()
                .zip(pair)
                .filter_map(|(name, program)| statistics::of(name, program.fd()))
                .collect(),
            Self::Apart => {
                let of = |role| {
                    let name = program_of(role);
                    let Program::UProbe(program) = ebpf.program(name)? else { return None };
                    statistics::of(name, program.fd().ok()?.as_fd())
                };
                Role::ALL.into_iter().filter_map(of).collect()
            }
        }
    }
}

/// The file by a path that leads to it even where its name is another's now.
fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn attach_together(
    [enter, leave]: &[Multi; 2],
    points: &[Point],
    file: &File,
    pid: Option<u32>,
) -> Result<Vec<Attached>, String> {
    let path = CString::new(path_of(file)).map_err(|error| error.to_string())?;
    let mut attached = Vec::new();
    for (program, on_return) in [(leave, true), (enter, false)] {
        let places: Vec<Place> = points
            .iter()
            .filter(|point| point.role.is_on_return() == on_return)
            .map(|point| Place { offset: point.offset, cookie: cookie_of(point.role) })
            .collect();
        if !places.is_empty() {
            let link = program.attach(&path, &places, on_return, pid);
            attached.push(Attached::Together(link.map_err(|error| error.to_string())?));
        }
    }
    Ok(attached)
}

fn attach_apart(
    ebpf: &mut Ebpf,
    points: &[Point],
    file: &File,
    pid: Option<u32>,
) -> Result<Vec<Attached>, String> {
    let path = path_of(file);
    points.iter().map(|point| attach_one(ebpf, *point, path.as_ref(), pid)).collect()
}

fn attach_one(ebpf: &mut Ebpf, point: Point, path: &Path, pid: Option<u32>) -> Result<Attached, String> {
    let Some(Program::UProbe(program)) = ebpf.program_mut(program_of(point.role)) else {
        return Err(format!("there is no program {}", program_of(point.role)));
    };
    let scope = match pid {
        Some(pid) => UProbeScope::OneProcess(NonZeroU32::new(pid).ok_or("there is no process 0")?),
        None => UProbeScope::AllProcesses,
    };
    program
        .attach(point.offset, path, scope)
        .and_then(|id| program.take_link(id))
        .map(Attached::Apart)
        .map_err(|error| chain(&error))
}

/// The program for a role alone, and what tells the programs for many roles which it is.
fn means_of(role: Role) -> (&'static str, u64) {
    match role {
        Role::TellsCount => ("httpmon_tls_done", FUNCTION_TELLS_COUNT),
        Role::TellsSuccess => ("httpmon_tls_done_ex", FUNCTION_TELLS_SUCCESS),
        Role::WillTellCount => ("httpmon_tls_will", FUNCTION_WILL_TELL_COUNT),
        Role::GoDidRead => ("httpmon_go_did_read", FUNCTION_GO_DID_READ),
        Role::GoGives => ("httpmon_go_give", FUNCTION_GO_GIVES),
        Role::GoDidWrite => ("httpmon_go_did_write", FUNCTION_GO_DID_WRITE),
        Role::GoWrote => ("httpmon_go_wrote", FUNCTION_GO_WROTE),
        Role::GoDidShakeHands => ("httpmon_go_did_shake", FUNCTION_GO_DID_SHAKE_HANDS),
        Role::Reads => ("httpmon_tls_read", FUNCTION_READS),
        Role::Writes => ("httpmon_tls_write", FUNCTION_WRITES),
        Role::WritesFile => ("httpmon_tls_file", FUNCTION_WRITES_FILE),
        Role::ShakesHands => ("httpmon_tls_shake", FUNCTION_SHAKES_HANDS),
        Role::Frees => ("httpmon_tls_free", FUNCTION_FREES),
        Role::GoReads => ("httpmon_go_read", FUNCTION_GO_READS),
        Role::GoWrites => ("httpmon_go_write", FUNCTION_GO_WRITES),
        Role::GoShakesHands => ("httpmon_go_shake", FUNCTION_GO_SHAKES_HANDS),
        Role::GoFrees => ("httpmon_go_free", FUNCTION_GO_FREES),
        Role::RustDecrypted => ("httpmon_rust_decrypted", FUNCTION_RUST_DECRYPTED),
        Role::RustDecrypts => ("httpmon_rust_decrypt", FUNCTION_RUST_DECRYPTS),
        Role::RustEncrypts => ("httpmon_rust_encrypt", FUNCTION_RUST_ENCRYPTS),
        Role::Mapped => ("httpmon_tls_mapped", FUNCTION_MAPPED),
    }
}

fn program_of(role: Role) -> &'static str {
    means_of(role).0
}

fn cookie_of(role: Role) -> u64 {
    means_of(role).1
}
