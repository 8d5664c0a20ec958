//! Processes' lives: a selected one's children are selected before they run.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;
use monitor_ebpf::{
    config::{Choices, Limits, Selected, loss},
    record::{Header, KIND_PROCESS, PROCESS_EXECUTED, PROCESS_EXITED, PROCESS_FORKED, Process},
};

use crate::{
    kernel::{child_known_as, current_process, current_untyped, group_of, load, now, read},
    maps::{PLACES, PROCESSES, UNSELECTED, lost, offset, setting},
    output::{self, Wake},
    user,
};

// kernel/fork.c: TRACE_EVENT(sched_process_fork, TP_PROTO(struct task_struct *parent, struct task_struct *child))
#[btf_tracepoint(function = "sched_process_fork")]
pub fn httpmon_fork(context: BtfTracePointContext) -> i32 {
    let child: *const c_void = context.arg(1);
    // SAFETY: the hook's second argument is a task.
    let (process, thread) = unsafe { (group_of(child), load::<u32>(child, offset!(task_pid))) };
    if process == thread {
        take(process);
        debug!(&context, "process {} was forked", process);
    }
    0
}

// events/sched/sched_process_fork/format: child_pid, which may be a thread's, after names that later kernels have elsewhere.
#[tracepoint]
pub fn httpmon_fork_c(context: TracePointContext) -> u32 {
    if !user::makes_thread() {
        take(read(context.as_ptr(), offset!(fork_child_pid)));
    }
    0
}

// fs/exec.c: TRACE_EVENT(sched_process_exec, TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm))
#[btf_tracepoint(function = "sched_process_exec")]
pub fn httpmon_exec(_context: BtfTracePointContext) -> i32 {
    report_exec();
    0
}

#[tracepoint]
pub fn httpmon_exec_c(_context: TracePointContext) -> u32 {
    report_exec();
    0
}

// kernel/exit.c: TRACE_EVENT(sched_process_exit, TP_PROTO(struct task_struct *p, ...))
#[btf_tracepoint(function = "sched_process_exit")]
pub fn httpmon_exit(_context: BtfTracePointContext) -> i32 {
    leave();
    0
}

#[tracepoint]
pub fn httpmon_exit_c(_context: TracePointContext) -> u32 {
    leave();
    0
}

/// What [`UNSELECTED`] says of a process that is not selected, and where.
#[inline(always)]
fn unselected(on_host: u32, epoch: u32) -> (*mut u64, u64) {
    let place = UNSELECTED.get().cast::<u64>().wrapping_add(on_host as usize % PLACES);
    (place, (u64::from(epoch) << 32) | u64::from(on_host))
}

/// What is remembered of who is selected is good as long as this stays.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    setting!(LIMITS: Limits, epoch)
}

/// Whether a process was looked up at this [`Limits::epoch`] already, and was not selected: most of those that run are
/// told by this, without hashing. By its number on the host, as the kernel has that at hand.
///
/// [`Limits::epoch`]: monitor_ebpf::config::Limits::epoch
#[inline(always)]
pub(crate) fn is_unselected(on_host: u32, epoch: u32) -> bool {
    let (place, value) = unselected(on_host, epoch);
    // SAFETY: places are words that live as long as the programs; each is read and written whole.
    unsafe { place.read_volatile() == value }
}

/// Looks a process up by the number that it has for the agent, and remembers one that is not selected, with the epoch that was read before. One that is selected
/// later has another epoch; one that is forked, a place where nothing is remembered.
#[inline(always)]
pub(crate) fn selected(pid: u32, on_host: u32, epoch: u32) -> Option<*mut Selected> {
    let selected = PROCESSES.get_ptr_mut(pid);
    if selected.is_none() {
        let (place, value) = unselected(on_host, epoch);
        // SAFETY: as above.
        unsafe { place.write_volatile(value) };
    }
    selected
}

/// The running process forked, and the child has this number on the host: a selected one's child is selected too.
#[inline(always)]
fn take(on_host: u32) {
    let parent = current_process();
    // SAFETY: entries are only ever replaced whole.
    let Some(service) = (unsafe { PROCESSES.get(parent) }).map(|selected| selected.service) else { return };
    let child = child_known_as(on_host);
    if child == 0 || PROCESSES.insert(child, Selected { service, told: 0 }, 0).is_err() {
        lost(loss::MAP_FULL);
    }
    let (place, _) = unselected(on_host, 0);
    // An unselected process may have had this number before.
    // SAFETY: as above; nobody has written the child's number since it got it, for it hasn't run.
    unsafe { place.write_volatile(0) };
    // TLS in the child is read once the agent has put probes there.
    let wake = if setting!(CHOICES: Choices, tls) == 0 { Wake::Later } else { Wake::Now };
    report(PROCESS_FORKED, parent, service, Detail { other: child, ..Detail::default() }, wake);
}

/// The running process has a new program: the agent judges it, whoever it is.
#[inline(always)]
fn report_exec() {
    let pid = current_process();
    if pid == 0 {
        return;
    }
    // SAFETY: entries are only ever replaced whole.
    let service = unsafe { PROCESSES.get(pid) }.map_or(0, |selected| selected.service);
    report(PROCESS_EXECUTED, pid, service, Detail::default(), Wake::Now);
}

/// A thread of the running process ends, and with the last one the process.
#[inline(always)]
fn leave() {
    let pid = current_process();
    // SAFETY: entries are only ever replaced whole.
    let Some(service) = (unsafe { PROCESSES.get(pid) }).map(|selected| selected.service) else { return };
    let task = current_untyped();
    let signal = read::<*const c_void>(task, offset!(task_signal));
    if signal.is_null() {
        return;
    }
    let ended_threads = read::<u64>(signal, offset!(signal_sum_sched_runtime));
    let this_thread = read::<u64>(task, offset!(task_se) + offset!(sched_entity_sum_exec_runtime));
    let live = read::<i32>(signal, offset!(signal_live));
    if live > 0 {
        return;
    }
    let (exit_code, cpu) = (read::<u32>(task, offset!(task_exit_code)), ended_threads + this_thread);
    let _ = PROCESSES.remove(pid);
    report(PROCESS_EXITED, pid, service, Detail { exit_code, cpu, ..Detail::default() }, Wake::Later);
}

/// What a record says besides who and what.
#[derive(Default)]
pub(crate) struct Detail {
    other: u32,
    exit_code: u32,
    cpu: u64,
}

#[inline(always)]
pub(crate) fn report(detail: u8, pid: u32, service: u32, more: Detail, wake: Wake) {
    let header =
        Header { kind: KIND_PROCESS, detail, flags: 0, service, at: now(), connection: 0, pid, fd: -1 };
    let Detail { other, exit_code, cpu } = more;
    output::send(&Process { header, other, exit_code, cpu }, wake);
}
