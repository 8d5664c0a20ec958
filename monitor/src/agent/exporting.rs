//! The exporter's thread. It talks with whoever reaches it, so there is nothing else that it may do.

use std::{
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
};

use tokio::{runtime::Runtime, sync::oneshot};

use super::confine;
use crate::{
    cli::Confine,
    exit::Failure,
    exporter::{self, Address, Elsewhere, Listener, Source, Web},
};

/// The thread's name, and that of those that it starts.
const NAME: &str = "exporter";

/// It listens, and answers nobody yet.
pub(super) struct Listening {
    /// There until it serves.
    runtime: Option<Runtime>,
    listeners: Vec<Listener>,
}

impl Listening {
    pub(super) fn on(address: &Address) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name(NAME)
            .max_blocking_threads(1)
            .build()
            .map_err(|error| Failure::Run(format!("the exporter can't start its event loop: {error}")))?;
        let listeners = {
            let _within = runtime.enter();
            exporter::listen(address).map_err(|error| Failure::Run(error.to_string()))?
        };
        Ok(Self { runtime: Some(runtime), listeners })
    }

    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Answers from here on, by a thread that may do nothing else by then. Files and processes are looked at on the event
    /// loop that this is called on.
    pub(super) fn serve(
        mut self,
        web: Option<Arc<Web>>,
        source: Arc<dyn Source>,
        confinement: Confine,
    ) -> Result<Exporting, Failure> {
        let (elsewhere, places) = (Elsewhere::here(), exporter::places());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ends, ended) = oneshot::channel::<()>();
        // It is waited for, so that the code that its start takes is let go with the rest.
        let (begins, begun) = mpsc::channel::<()>();
        let thread = Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                // Dropped as the thread ends.
                let _ends = ends;
                if confinement == Confine::Auto {
                    confine::confine_exporter();
                }
                let Some(runtime) = self.runtime.take() else { return };
                let listeners = std::mem::take(&mut self.listeners);
                let told = async {
                    let _ = begins.send(());
                    let _ = stopped.await;
                };
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = exporter::serve(listeners, web, source, elsewhere, places) => {}
                        () = told => {}
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(|error| Failure::Run(format!("the exporter can't start its thread: {error}")))?;
        // Where it fails before, `broken` tells.
        let _ = begun.recv();
        Ok(Exporting { thread, stop, ended })
    }
}

impl Drop for Listening {
    /// On an event loop, another can't be waited for.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// It answers.
pub(super) struct Exporting {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Exporting {
    /// Waits until it fails.
    pub(super) async fn broken(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Closes its connections.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
