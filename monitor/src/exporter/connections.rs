//! Who is connected: a limited number, of whom those that only wait give way to those who come.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// How long one may wait before it can be sent away for another's sake: longer than a request takes to come.
const GRACE: Duration = Duration::from_secs(2);

/// All connections.
pub(super) struct Connections {
    seats: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    last: u64,
    all: BTreeMap<u64, Connection>,
}

struct Connection {
    /// Since when it isn't being answered.
    idle: Option<Instant>,
    task: Option<AbortHandle>,
}

/// A place among them, given back when dropped.
pub(super) struct Seat {
    connections: Arc<Connections>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { seats: Arc::new(Semaphore::new(most)), taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. Who has waited the longest for nothing loses its own.
    pub(super) async fn seat(self: &Arc<Self>) -> Seat {
        let permit = loop {
            let oldest = {
                let taken = self.taken();
                taken.all.values().filter_map(|one| one.idle).min()
            };
            let tired = async {
                match oldest {
                    Some(since) => sleep_until(since + GRACE).await,
                    // Whoever is being answered will be idle in a moment.
                    None => tokio::time::sleep(GRACE).await,
                }
            };
            tokio::select! {
                biased;
                permit = Arc::clone(&self.seats).acquire_owned() => match permit {
                    Ok(permit) => break permit,
                    // The semaphore is never closed.
                    Err(_) => std::future::pending().await,
                },
                () = tired => self.send_away(),
            }
        };
        let number = {
            let mut taken = self.taken();
            taken.last += 1;
            let number = taken.last;
            taken.all.insert(number, Connection { idle: None, task: None });
            number
        };
        Seat { connections: Arc::clone(self), number, _permit: permit }
    }

    fn send_away(&self) {
        let mut taken = self.taken();
        let tired =
            taken.all.values_mut().filter(|one| one.idle.is_some_and(|since| since.elapsed() >= GRACE));
        if let Some(one) = tired.min_by_key(|one| one.idle) {
            tracing::debug!("the exporter has no place left: a connection that only waits is closed");
            one.idle = None;
            if let Some(task) = &one.task {
                task.abort();
            }
        }
    }

    /// What can be ended when others need the place.
    pub(super) fn runs(&self, number: u64, task: AbortHandle) {
        if let Some(one) = self.taken().all.get_mut(&number) {
            one.task = Some(task);
        }
    }
}

impl Seat {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A request came: nobody sends it away now.
    pub(super) fn is_answered(&self) {
        self.idle(None);
    }

    /// It waits for a request: the connection is new, or its last answer is made.
    pub(super) fn waits(&self) {
        self.idle(Some(Instant::now()));
    }

    fn idle(&self, since: Option<Instant>) {
        if let Some(one) = self.connections.taken().all.get_mut(&self.number) {
            one.idle = since;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.taken().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a place for as long as its task runs.
    async fn occupy(connections: &Arc<Connections>, is_answered: bool) -> tokio::task::JoinHandle<()> {
        let seat = connections.seat().await;
        let number = seat.number();
        let task = tokio::spawn(async move {
            if is_answered {
                seat.is_answered();
            } else {
                seat.waits();
            }
            std::future::pending::<()>().await;
        });
        connections.runs(number, task.abort_handle());
        task
    }

    #[test]
    fn who_only_waits_gives_way_and_who_is_answered_does_not() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let connections = Connections::new(3);
            let answered = occupy(&connections, true).await;
            let waiting = occupy(&connections, false).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let younger = occupy(&connections, false).await;
            let begun = Instant::now();
            let newcomer = occupy(&connections, false).await;
            assert!(waiting.await.unwrap_err().is_cancelled());
            assert!(begun.elapsed() < GRACE);
            assert!(!answered.is_finished() && !younger.is_finished() && !newcomer.is_finished());
        });
    }
}
