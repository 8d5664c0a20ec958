//! A running agent: the probes are attached, and a thread follows what they tell.

use std::{
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;

use super::{confine, epoch::Epoch, pipeline::Pipeline, recorder::Recorder};
use crate::{
    cli::Confine,
    engine::Engine,
    exit::Failure,
    exporter::{NoFlask, Source},
    kernel::{Availability, Feature, Probes, Settings},
    metrics::{Exemplar, Gathered},
    print,
    route::Rules,
    select::Selectors,
    summary::Summary,
};

/// How long records may wait while there are few: what is told is never older.
const TICK: Duration = Duration::from_millis(50);

/// A running agent.
pub struct Running {
    watched: Arc<Watched>,
    stop: Arc<AtomicBool>,
    events: JoinHandle<()>,
    broken: oneshot::Receiver<nix::Error>,
    /// The probes that are attached, and why those.
    pub probes: String,
    /// How many processes were taken at the start.
    pub taken: usize,
}

impl Running {
    /// Attaches the probes, takes the selected processes and follows them; gives nothing up.
    pub fn attach(engine: Engine, selectors: Selectors, settings: &Settings) -> Result<Self, Failure> {
        Self::attach_recorded(engine, selectors, settings, None, Confine::Off)
    }

    pub(super) fn attach_recorded(
        engine: Engine,
        selectors: Selectors,
        settings: &Settings,
        recorder: Option<Recorder>,
        confinement: Confine,
    ) -> Result<Self, Failure> {
        let host = |error: &dyn std::fmt::Display| {
            Failure::Host(format!("{error}; `httpmon check` tells all that is needed"))
        };
        let probes = Probes::load(settings).map_err(|error| host(&error))?;
        let log = if settings.debug { EbpfLogger::init(&mut probes.ebpf()).ok() } else { None };
        probes.attach().map_err(|error| host(&error))?;
        let attached = describe(&probes);
        let mut pipeline = Pipeline::new(probes, engine, selectors, recorder);
        if confinement == Confine::Auto {
            confine::confine(&mut pipeline);
        }
        pipeline.stand_in();
        // The probes are attached: whatever the taken processes fork from here on is taken by the kernel side.
        let taken = pipeline.take_running().map_err(|error| host(&error))?;
        pipeline.watch_libraries();
        let watched = Arc::new(Watched { pipeline: Mutex::new(pipeline), epoch: Epoch::new() });
        let stop = Arc::new(AtomicBool::new(false));
        let (breaks, broken) = oneshot::channel();
        let events = {
            let (watched, stop) = (Arc::clone(&watched), Arc::clone(&stop));
            std::thread::Builder::new()
                .name("events".to_owned())
                .spawn(move || {
                    if let Err(error) = watched.follow(&stop, log) {
                        let _ = breaks.send(error);
                    }
                })
                .map_err(|error| Failure::Run(format!("the agent can't start a thread: {error}")))?
        };
        Ok(Self { watched, stop, events, broken, probes: attached, taken })
    }

    /// What can be told of it at any time.
    #[must_use]
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.watched) as Arc<dyn Source>
    }

    /// Other processes, routes and ignored paths from now on. What was counted stays.
    pub fn reload(&self, selectors: Selectors, rules: Rules) {
        self.watched.pipeline().reload(selectors, rules);
    }

    /// Waits until the kernel's events can be had no more.
    pub async fn broken(&mut self) -> nix::Error {
        match (&mut self.broken).await {
            Ok(error) => error,
            // The thread ends without a word only when it is told to.
            Err(_) => std::future::pending().await,
        }
    }

    /// Counts what is left, and detaches the probes.
    pub fn stop(self) -> Result<(), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        if self.events.join().is_err() {
            return Err(Failure::Run("the event thread failed; please report this".to_owned()));
        }
        self.watched.pipeline().stop();
        Ok(())
    }
}

/// Says which probes are attached, and warns of what goes without on this kernel.
fn describe(probes: &Probes) -> String {
    for (feature, availability) in probes.features().iter() {
        if let Availability::Missing(reason) = availability
            && *feature != Feature::SocketBackend
        {
            tracing::warn!("{}: {} ({reason})", feature.name(), feature.without());
        }
    }
    format!("the {} backend ({}), {}", probes.backend().name(), probes.why(), probes.flavour())
}

/// What the event thread and those who ask share.
struct Watched {
    pipeline: Mutex<Pipeline>,
    epoch: Epoch,
}

impl Watched {
    /// What is counted stays true even if a thread died while it held the lock.
    fn pipeline(&self) -> MutexGuard<'_, Pipeline> {
        self.pipeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads events as they come, until told to stop.
    fn follow(
        &self,
        stop: &AtomicBool,
        mut log: Option<EbpfLogger<&'static dyn log::Log>>,
    ) -> Result<(), nix::Error> {
        // One of its own: the pipeline is somebody else's while this one waits.
        let ready = self.pipeline().probes().readiness().map_err(nix::Error::try_from);
        let ready = ready.map_err(|error| error.unwrap_or(nix::Error::EMFILE))?;
        let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        while !stop.load(Ordering::Relaxed) {
            match poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], tick) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error),
            }
            while self.pipeline().drain() {}
            self.pipeline().sweep();
            if let Some(log) = &mut log {
                log.flush();
            }
        }
        Ok(())
    }
}

impl Source for Watched {
    fn metrics(&self) -> Gathered {
        let mut pipeline = self.pipeline();
        let _busy = pipeline.busy();
        pipeline.refresh();
        pipeline.metrics().told()
    }

    fn exemplars(&self) -> Vec<Exemplar> {
        let mut exemplars = self.pipeline().metrics().exemplars();
        let epoch = self.epoch.now();
        for Exemplar { observation, .. } in &mut exemplars {
            observation.at.0 = observation.at.0.saturating_add(epoch);
        }
        exemplars
    }

    fn flask(&self, service: Option<&str>) -> Result<Vec<MetricFamily>, NoFlask> {
        let mut pipeline = self.pipeline();
        let _busy = pipeline.busy();
        pipeline.refresh();
        let metrics = pipeline.metrics();
        let services = metrics.service_names();
        let name = match (service, &services[..]) {
            (Some(name), _) if services.iter().any(|service| service == name) => name,
            (Some(name), _) => return Err(NoFlask::Unknown { name: name.to_owned(), services }),
            (None, [only]) => only,
            (None, _) => return Err(NoFlask::Which(services)),
        };
        metrics.gather_flask(name).ok_or(NoFlask::Off)
    }

    fn summary(&self) -> Summary {
        let mut pipeline = self.pipeline();
        let _busy = pipeline.busy();
        pipeline.refresh();
        let families = pipeline.metrics().gather_all();
        drop(pipeline);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Summary::new(&families, now.as_secs_f64())
    }

    fn requests(&self, most: usize) -> Vec<serde_json::Value> {
        let mut pipeline = self.pipeline();
        while pipeline.drain() {}
        let (epoch, mut requests) = (self.epoch.now(), Vec::new());
        pipeline.metrics().recent(most, |request| requests.push(print::object(request, epoch)));
        requests
    }
}
