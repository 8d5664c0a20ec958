//! Ctrl-C ends what runs in order: what was started goes with it.
#![expect(unsafe_code, reason = "a signal handler may do little: this one stores a flag")]

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Notes SIGINT and SIGTERM from now on.
pub(crate) fn note() -> Result<()> {
    extern "C" fn note(_: i32) {
        STOPPED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether one has come.
pub(crate) fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// An error where one has come.
pub(crate) fn go_on() -> Result<()> {
    ensure!(!stopped(), "it was interrupted");
    Ok(())
}
