//! A thread that takes records out of the ring buffer while those who read them do what may take long: looking through
//! `/proc`, telling a scrape. Without it, what comes meanwhile would find no room.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::kernel::Reader;

/// How often the buffer is looked at; and how long one may be busy before it is.
const LOOK: Duration = Duration::from_millis(5);

/// The thread. It sleeps while nobody is busy.
pub(super) struct StandIn {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many do what may take long.
    busy: usize,
    ends: bool,
}

/// Somebody is busy until this is dropped.
pub(super) struct Busy(Arc<Shared>);

impl StandIn {
    pub(super) fn start(reader: Arc<Mutex<Reader>>) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("stand-in".to_owned()).spawn(move || shared.stand_in(&reader))?
        };
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stands in until what this returns is dropped.
    pub(super) fn busy(&self) -> Busy {
        let mut state = self.shared.state();
        state.busy += 1;
        if state.busy == 1 {
            self.shared.changed.notify_one();
        }
        Busy(Arc::clone(&self.shared))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand_in(&self, reader: &Mutex<Reader>) {
        let mut state = self.state();
        while !state.ends {
            let wait = self.changed.wait_while(state, |state| state.busy == 0 && !state.ends);
            state = wait.unwrap_or_else(PoisonError::into_inner);
            let wait = self.changed.wait_timeout_while(state, LOOK, |state| state.busy > 0 && !state.ends);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
            if state.busy > 0 {
                drop(state);
                reader.lock().unwrap_or_else(PoisonError::into_inner).set_aside();
                state = self.state();
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.state().ends = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
