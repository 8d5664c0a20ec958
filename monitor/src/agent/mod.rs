//! The running agent: loads the probes, follows the selected processes, and serves what was found until it is told to stop.

mod pipeline;
mod printing;
mod recorder;
mod workers;

use std::{
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aya_log::EbpfLogger;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use prometheus::TextEncoder;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use self::{pipeline::Pipeline, recorder::Recorder};
use crate::{
    cli::RunArgs,
    engine::Engine,
    exit::Failure,
    exporter,
    kernel::{Probes, Settings},
    select::Selectors,
    setup::{engine, print_to},
};

/// How long records may wait while there are few: what is printed is never older.
const TICK: Duration = Duration::from_millis(50);

/// Runs until SIGINT or SIGTERM.
pub fn run(args: &RunArgs, selectors: Selectors, settings: &Settings) -> Result<(), Failure> {
    let engine = engine(&args.metrics, true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .map_err(|error| Failure::Run(format!("the agent can't start its event loop: {error}")))?;
    runtime.block_on(async {
        let listener =
            exporter::listen(args.listen).await.map_err(|error| Failure::Run(error.to_string()))?;
        start(args, selectors, settings, engine, listener).await
    })
}

async fn start(
    args: &RunArgs,
    selectors: Selectors,
    settings: &Settings,
    mut engine: Engine,
    listener: TcpListener,
) -> Result<(), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::Run(format!("{what}: {error}"));
    let mut interrupted =
        signal(SignalKind::interrupt()).map_err(|error| failed("SIGINT can't be caught", &error))?;
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|error| failed("SIGTERM can't be caught", &error))?;

    let mut writer = None;
    if let Some(format) = args.metrics.print {
        let (queue, lines) =
            printing::start(std::io::stdout()).map_err(|error| failed("the printing can't start", &error))?;
        print_to(&mut engine, format, epoch(), queue);
        writer = Some(lines);
    }
    let recorder = args.record.as_deref().map(|path| {
        Recorder::create(path).map_err(|error| {
            Failure::Run(format!(
                "--record {}: {error}; name a file in a directory that can be written",
                path.display()
            ))
        })
    });
    let recorder = recorder.transpose()?;

    let host = |error: &dyn std::fmt::Display| {
        Failure::Host(format!("{error}; `httpmon check` tells all that is needed"))
    };
    let mut probes = Probes::load(settings).map_err(|error| host(&error))?;
    let log = if settings.debug { EbpfLogger::init(probes.ebpf()).ok() } else { None };
    probes.attach().map_err(|error| host(&error))?;
    let flavour = probes.flavour();
    let mut pipeline = Pipeline::new(probes, engine, selectors, recorder);
    // The probes are attached: whatever the taken processes fork from here on is taken by the kernel side.
    let taken = pipeline.take_running().map_err(|error| host(&error))?;
    let address = listener.local_addr().unwrap_or(args.listen);
    tracing::info!(processes = taken, "attached with {flavour}; metrics on http://{address}/metrics");
    if taken == 0 {
        tracing::warn!(
            "no process matches yet: waiting for one to start (`httpmon processes` with the same selection explains)"
        );
    }

    let pipeline = Arc::new(Mutex::new(pipeline));
    let stop = Arc::new(AtomicBool::new(false));
    let (broken, mut breaks) = oneshot::channel();
    let events = {
        let (pipeline, stop) = (Arc::clone(&pipeline), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                if let Err(error) = follow(&pipeline, &stop, log) {
                    let _ = broken.send(error);
                }
            })
            .map_err(|error| failed("the agent can't start a thread", &error))?
    };
    let scraped = Arc::clone(&pipeline);
    let render = move || {
        let families = lock(&scraped).gather();
        TextEncoder::new().encode_to_string(&families).map_err(|error| error.to_string())
    };
    let outcome = tokio::select! {
        () = exporter::serve(listener, Arc::new(render)) => Ok(()),
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
        Ok(error) = &mut breaks => Err(failed("the kernel's events can't be waited for", &error)),
    };
    stop.store(true, Ordering::Relaxed);
    if events.join().is_err() {
        return Err(Failure::Run("the event thread failed; please report this".to_owned()));
    }
    tracing::info!("stopped");
    // The probes go, and the printed lines' queue.
    lock(&pipeline).stop();
    if let Some(writer) = writer {
        writer.finish();
    }
    outcome
}

/// Reads events as they come, until told to stop.
fn follow(
    pipeline: &Mutex<Pipeline>,
    stop: &AtomicBool,
    mut log: Option<EbpfLogger<&'static dyn log::Log>>,
) -> Result<(), nix::Error> {
    let ready = lock(pipeline).probes().readiness().as_raw_fd();
    // SAFETY: the pipeline outlives this function, and its probes with it.
    let ready = unsafe { std::os::fd::BorrowedFd::borrow_raw(ready) };
    let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
    while !stop.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(ready, PollFlags::POLLIN)], tick) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        while lock(pipeline).drain() {}
        lock(pipeline).sweep();
        if let Some(log) = &mut log {
            log.flush();
        }
    }
    Ok(())
}

/// What is counted stays true even if a thread died while it held the lock.
fn lock(pipeline: &Mutex<Pipeline>) -> MutexGuard<'_, Pipeline> {
    pipeline.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the real-time clock is ahead of the monotonic one, in nanoseconds.
fn epoch() -> u64 {
    let nanoseconds = |clock| {
        clock_gettime(clock)
            .map_or(0, |time| time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned())
    };
    nanoseconds(ClockId::CLOCK_REALTIME).saturating_sub(nanoseconds(ClockId::CLOCK_MONOTONIC))
}
