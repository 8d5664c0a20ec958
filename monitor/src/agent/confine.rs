//! What the agent gives up once its probes are attached: capabilities, other programs, and most system calls; and what its
//! exporter gives up beyond that: files, processes, and the network but for what is open.
//!
//! Threads have these for themselves, and hand them on to those that they start: this is called before there are any
//! others. There is no way back.

use std::collections::BTreeMap;

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope,
};
use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What following processes that start later needs: reading other users' `/proc/PID/exe`, `fd` and `ns/net`, and
/// `pidfd_getfd`; and reading configuration and keys that are root's.
const KEPT: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// What putting probes into libraries of processes that start later needs; or, where the kernel wants more for that
/// (CVE-2025-38466, since Linux 5.10.240, 6.1.146, 6.6.99, 6.12.39 and 6.15.7), the second. Without the system calls that
/// are refused, that one is good for little else.
const KEPT_FOR_TLS: [Capability; 2] = [Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN];

/// What is still to be done with what is kept.
pub(super) trait Needs {
    /// Whether probes are still to be put into libraries.
    fn libraries(&self) -> bool;
    /// Whether that can be done.
    fn libraries_work(&mut self) -> bool;
    /// Whether the probes' tables can be used.
    fn tables_work(&self) -> bool;
}

/// Gives up what isn't needed any more, as far as the kernel lets it.
pub(super) fn confine(needs: &mut impl Needs) {
    let tls = needs.libraries();
    match drop_capabilities(needs) {
        Ok(kept) if kept.is_empty() => tracing::info!("no capability is held any more"),
        Ok(kept) => tracing::info!("capabilities still held: {}", kept.join(", ")),
        Err(error) => tracing::warn!("capabilities that aren't needed any more are kept: {error}"),
    }
    if let Err(error) = nix::sys::prctl::set_no_new_privs() {
        tracing::debug!("no_new_privs can't be set: {error}");
    }
    let refused =
        filter(tls).and_then(|filter| seccompiler::apply_filter(&filter).map_err(|error| error.to_string()));
    if let Err(error) = refused {
        tracing::debug!("system calls can't be restricted: {error}");
    }
}

/// Gives up what talking with clients doesn't need, on this thread and those that it will start, as far as the kernel lets it.
pub(super) fn confine_exporter() {
    let dropped = [CapSet::Effective, CapSet::Permitted].map(|set| caps::clear(None, set));
    if let Some(error) = dropped.into_iter().find_map(Result::err) {
        tracing::warn!("the exporter keeps its capabilities: {error}");
    }
    match deny_files() {
        Ok(RulesetStatus::NotEnforced) => {
            tracing::debug!("this kernel has no Landlock, which came with Linux 5.13");
        }
        Ok(_) => {}
        Err(error) => tracing::debug!("the exporter's files can't be restricted: {error}"),
    }
}

/// Denies all that Landlock can, up to what Linux 6.12 has: files, also of /proc; binding and connecting; abstract unix
/// sockets of others; signals. Who is restricted so may look into no process that isn't.
fn deny_files() -> Result<RulesetStatus, RulesetError> {
    const LATEST: ABI = ABI::V6;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LATEST))?
        .handle_access(AccessNet::from_all(LATEST))?
        .scope(Scope::from_all(LATEST))?
        .create()?;
    // That is set already, and refused from then on.
    Ok(ruleset.no_new_privs(false).restrict_self()?.ruleset)
}

/// The names of those that stay.
fn drop_capabilities(needs: &mut impl Needs) -> Result<Vec<String>, caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let mut kept: CapsHashSet = held.iter().copied().filter(|one| KEPT.contains(one)).collect();
    // Needs CAP_SETPCAP, which root has; without other programs to run, it matters little.
    for one in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        let _ = caps::drop(None, CapSet::Bounding, *one);
    }
    caps::set(None, CapSet::Effective, &kept)?;
    // Up to Linux 5.18, `kernel.unprivileged_bpf_disabled` has it needed for each access (kernel/bpf/syscall.c).
    if held.contains(&Capability::CAP_BPF) && !needs.tables_work() {
        kept.insert(Capability::CAP_BPF);
        caps::set(None, CapSet::Effective, &kept)?;
    }
    for one in KEPT_FOR_TLS {
        if needs.libraries() && held.contains(&one) && !needs.libraries_work() {
            kept.insert(one);
            caps::set(None, CapSet::Effective, &kept)?;
        }
    }
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    let mut names: Vec<_> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

/// System calls that are let through whatever their arguments are.
const PLAIN: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads and signals of its own.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // Time, chance, and what it is.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_nanosleep,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Files, once they are open; and looking.
    libc::SYS_close,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
    // The exporter's connections, systemd's notifications, and the kernel's events.
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Listening sockets of processes that start later.
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    // Giving up more.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
];

/// Older forms of some of them, which newer architectures don't have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// `BPF_MAP_LOOKUP_ELEM` to `BPF_MAP_GET_NEXT_KEY` (include/uapi/linux/bpf.h): the probes' tables, no programs.
const TABLES: [u64; 4] = [1, 2, 3, 4];
/// `BPF_LINK_CREATE`: puts a program, which there is, in its place.
const LINK: u64 = 28;
/// `PERF_EVENT_IOC_DISABLE` (`include/uapi/linux/perf_event.h`): classic hooks are taken off with it.
const TAKE_OFF: u64 = 0x2401;
/// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_SET_BPF`: what stands for [`LINK`] before Linux 5.15.
const PUT_ON: [u64; 2] = [0x2400, 0x4004_2408];
/// `PR_SET_VMA` (include/uapi/linux/prctl.h): the C library names its memory.
const NAME_MEMORY: u64 = 0x5356_4d41;
/// Flags that have openat(2) write, or make a file.
const WRITES: libc::c_int =
    libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);

/// System calls that are let through with some arguments: their number, which argument, and the values that it may have.
fn particular(tls: bool) -> Vec<(libc::c_long, u8, Vec<Value>)> {
    let for_tls = |values: &[u64]| if tls { values.to_vec() } else { Vec::new() };
    let only = |values: &[u64]| values.iter().map(|value| Value::Is(*value)).collect::<Vec<_>>();
    let without = |flags: libc::c_int| vec![Value::Masked(flags.cast_unsigned().into(), 0)];
    let own = u64::from(std::process::id());
    vec![
        (libc::SYS_bpf, 0, only(&[&TABLES[..], &for_tls(&[LINK])].concat())),
        // Threads, not processes. Its newer form passes flags where they can't be seen.
        (libc::SYS_clone, 0, vec![Value::Masked(libc::CLONE_THREAD as u64, libc::CLONE_THREAD as u64)]),
        (
            libc::SYS_fcntl,
            1,
            only(&[
                libc::F_DUPFD_CLOEXEC as u64,
                libc::F_GETFD as u64,
                libc::F_GETFL as u64,
                libc::F_SETFD as u64,
                libc::F_SETFL as u64,
            ]),
        ),
        (
            libc::SYS_ioctl,
            1,
            only(
                &[&[libc::FIONBIO, libc::TCGETS, libc::TIOCGWINSZ, TAKE_OFF][..], &for_tls(&PUT_ON)].concat(),
            ),
        ),
        (libc::SYS_mmap, 2, without(libc::PROT_EXEC)),
        (libc::SYS_mprotect, 2, without(libc::PROT_EXEC)),
        (libc::SYS_openat, 2, without(WRITES)),
        (libc::SYS_prctl, 0, only(&[libc::PR_SET_NAME as u64, NAME_MEMORY])),
        // Asking for limits, not setting them.
        (libc::SYS_prlimit64, 2, only(&[0])),
        (libc::SYS_socket, 0, only(&[libc::AF_UNIX as u64])),
        // abort(3) ends by a signal to itself.
        (libc::SYS_tgkill, 0, only(&[own])),
    ]
}

/// How an argument is compared.
enum Value {
    Is(u64),
    Masked(u64, u64),
}

/// Lets through what is listed; to the rest the kernel says that it doesn't have it, so that the C library takes an older
/// way where there is one.
fn filter(tls: bool) -> Result<BpfProgram, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        PLAIN.iter().chain(OLDER).map(|number| (*number, Vec::new())).collect();
    if tls {
        rules.insert(libc::SYS_perf_event_open, Vec::new());
    }
    for (number, argument, accepted) in particular(tls) {
        let rules = rules.entry(number).or_default();
        for value in accepted {
            let (how, value) = match value {
                Value::Is(value) => (Op::Eq, value),
                Value::Masked(mask, value) => (Op::MaskedEq(mask), value),
            };
            // None of these arguments has more than 32 bits that matter, but for the pointer of prlimit64.
            let len = if number == libc::SYS_prlimit64 { Len::Qword } else { Len::Dword };
            let condition = SeccompCondition::new(argument, len, how, value).map_err(|error| said(&error))?;
            rules.push(SeccompRule::new(vec![condition]).map_err(|error| said(&error))?);
        }
    }
    let refusal = SeccompAction::Errno(Errno::ENOSYS as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| said(&error))?;
    let filter =
        SeccompFilter::new(rules, refusal, SeccompAction::Allow, arch).map_err(|error| said(&error))?;
    filter.try_into().map_err(|error: seccompiler::BackendError| said(&error))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind, net::TcpListener, process::Command};

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    use super::*;

    struct Nothing;

    impl Needs for Nothing {
        fn libraries(&self) -> bool {
            false
        }

        fn libraries_work(&mut self) -> bool {
            false
        }

        fn tables_work(&self) -> bool {
            true
        }
    }

    /// In a thread of its own: others are not confined with it.
    fn confined(what: impl FnOnce() + Send + 'static) {
        std::thread::spawn(|| {
            confine(&mut Nothing);
            what();
        })
        .join()
        .unwrap();
    }

    fn status(key: &str) -> String {
        let text = fs::read_to_string("/proc/thread-self/status").unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).unwrap();
        value.to_owned()
    }

    #[test]
    fn little_is_left() {
        let held = u64::from_str_radix(&status("CapPrm"), 16).unwrap();
        confined(move || {
            let kept = held & KEPT.iter().fold(0, |mask, one| mask | one.bitmask());
            for set in ["CapEff", "CapPrm"] {
                assert_eq!(u64::from_str_radix(&status(set), 16).unwrap(), kept, "{set}");
            }
            assert_eq!(
                (status("CapInh"), status("NoNewPrivs"), status("Seccomp")),
                ("0".repeat(16), "1".into(), "2".into())
            );
        });
    }

    #[test]
    fn the_exporter_has_no_capabilities_and_no_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Who is confined could not remove it.
        let path = file.path().to_owned();
        confined(move || {
            confine_exporter();
            for set in [CapSet::Effective, CapSet::Permitted] {
                assert_eq!(caps::read(None, set).unwrap(), CapsHashSet::new(), "{set:?}");
            }
            if deny_files().unwrap() == RulesetStatus::NotEnforced {
                eprintln!("skipped in part: this kernel has no Landlock");
                return;
            }
            for path in [path.as_path(), "/proc/self/status".as_ref(), "/proc".as_ref()] {
                let error = fs::File::open(path).expect_err("it is refused");
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", path.display());
            }
            // And of threads that it starts.
            let other = std::thread::spawn(|| fs::read_dir("/").map(drop)).join().unwrap();
            assert_eq!(other.expect_err("it is refused").kind(), ErrorKind::PermissionDenied);
        });
    }

    #[test]
    #[expect(unsafe_code, reason = "mapping memory")]
    fn programs_writing_networks_and_executable_memory_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "old").unwrap();
        confined(move || {
            let refused = |result: std::io::Result<()>| {
                let error = result.expect_err("it is refused");
                assert!(
                    error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(libc::ENOSYS),
                    "{error}"
                );
            };
            refused(fs::write(&file, "new"));
            refused(fs::write(file.with_extension("new"), "new"));
            refused(fs::remove_file(&file));
            refused(fs::rename(&file, file.with_extension("x")));
            refused(TcpListener::bind("127.0.0.1:0").map(drop));
            refused(Command::new("/bin/true").spawn().map(drop));
            assert_eq!(fs::read(&file).unwrap(), b"old");
            let page = std::num::NonZeroUsize::new(4096).unwrap();
            // SAFETY: new memory that nobody else uses.
            let map = |protection| unsafe { mmap_anonymous(None, page, protection, MapFlags::MAP_PRIVATE) };
            assert!(map(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).is_ok());
            assert_eq!(map(ProtFlags::PROT_READ | ProtFlags::PROT_EXEC), Err(Errno::ENOSYS));
            let other = nix::unistd::getppid();
            assert_eq!(nix::sys::signal::kill(other, None), Err(Errno::ENOSYS));
            // Threads and other processes' entries are as before.
            std::thread::spawn(|| assert!(!fs::read_to_string("/proc/1/stat").unwrap().is_empty()))
                .join()
                .unwrap();
        });
    }
}
