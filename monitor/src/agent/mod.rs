//! The running agent: loads the probes, follows the selected processes, and serves what was found until it is told to stop.

mod confine;
mod epoch;
mod exporting;
mod libraries;
mod owed;
mod pipeline;
mod printing;
mod recorder;
mod resident;
mod running;
mod stand_in;
mod workers;

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use self::running::Running;
use self::{epoch::Epoch, exporting::Listening, recorder::Recorder};
use crate::{
    cli::RunArgs,
    engine::Engine,
    exit::Failure,
    exporter::{Address, Listener, Web},
    kernel::pid_namespace,
    setup::{engine, print_to, rules, selectors, settings},
};

/// Reads the configuration again.
pub type Reread<'a> = dyn Fn() -> Result<RunArgs, Failure> + 'a;

/// Runs until SIGINT or SIGTERM. SIGHUP has the configuration read again.
pub fn run(args: &RunArgs, reread: &Reread<'_>) -> Result<(), Failure> {
    raise_open_files();
    let engine = engine(&args.metrics, true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .map_err(|error| Failure::Run(format!("the agent can't start its event loop: {error}")))?;
    let web = web(args)?.map(Arc::new);
    let listening = Listening::on(&args.listen)?;
    runtime.block_on(serve(args, engine, listening, web, reread))
}

/// Has as many files open as it is allowed to: the soft limit is for programs that can't have many.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!("the limit of open files can't be raised: {error}");
    }
}

/// Who may ask the exporter, and how.
pub fn web(args: &RunArgs) -> Result<Option<Web>, Failure> {
    let open = |path| Web::open(path).map_err(|error| Failure::Usage(error.to_string()));
    args.web_config.as_deref().map(open).transpose()
}

/// Where the metrics are, for people.
fn addresses(listeners: &[Listener], web: Option<&Web>) -> String {
    let scheme = if web.is_some_and(Web::has_tls) { "https" } else { "http" };
    let address = |listener: &Listener| match listener.address() {
        Some(Address::Tcp(address)) => format!("{scheme}://{address}/metrics"),
        Some(unix) => format!("{scheme}+{unix}"),
        None => "a socket without a name".to_owned(),
    };
    listeners.iter().map(address).collect::<Vec<_>>().join(", ")
}

async fn serve(
    args: &RunArgs,
    mut engine: Engine,
    listening: Listening,
    web: Option<Arc<Web>>,
    reread: &Reread<'_>,
) -> Result<(), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::Run(format!("{what}: {error}"));
    let caught = |kind, name: &str| -> Result<Signal, Failure> {
        signal(kind).map_err(|error| failed(&format!("{name} can't be caught"), &error))
    };
    let mut interrupted = caught(SignalKind::interrupt(), "SIGINT")?;
    let mut terminated = caught(SignalKind::terminate(), "SIGTERM")?;
    let mut hung_up = caught(SignalKind::hangup(), "SIGHUP")?;

    let mut writer = None;
    if let Some(format) = args.metrics.print {
        let (queue, lines) = printing::queue(std::io::stdout());
        let epoch = Epoch::new();
        print_to(&mut engine, format, move || epoch.now(), queue);
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
    let mut running = Running::attach_recorded(
        engine,
        selectors(&args.select)?,
        &settings(&args.kernel, args.metrics.role, args.log.is_debug()),
        recorder.transpose()?,
        args.confine,
    )?;
    // Whatever starts from here on is confined as the agent is.
    let writer = writer
        .map(printing::Unstarted::start)
        .transpose()
        .map_err(|error| failed("the printing can't start", &error))?;
    let addresses = addresses(listening.listeners(), web.as_deref());
    tracing::info!(processes = running.taken, "attached with {}; metrics on {addresses}", running.probes);
    if running.taken == 0 {
        tracing::warn!(
            "no process matches yet: waiting for one to start (`httpmon processes` with the same selection explains)"
        );
        if let Some(hidden) = pid_namespace::current().hides() {
            tracing::warn!("httpmon's PID namespace is {hidden}");
        }
    }
    let mut exporting = listening.serve(web, running.source(), args.confine)?;
    resident::let_code_go();
    notify(&[NotifyState::Ready, NotifyState::Status(&format!("metrics on {addresses}"))]);

    let mut current = args.clone();
    let outcome = loop {
        tokio::select! {
            () = exporting.broken() => {
                break Err(Failure::Run("the exporter's thread failed; please report this".to_owned()));
            }
            _ = interrupted.recv() => break Ok(()),
            _ = terminated.recv() => break Ok(()),
            error = running.broken() => break Err(failed("the kernel's events can't be waited for", &error)),
            _ = hung_up.recv() => {
                let now = NotifyState::monotonic_usec_now().ok();
                notify(&[&[NotifyState::Reloading][..], now.as_slice()].concat());
                reload(&running, &mut current, reread);
                notify(&[NotifyState::Ready]);
            }
        }
    };
    notify(&[NotifyState::Stopping]);
    exporting.stop();
    running.stop()?;
    tracing::info!("stopped");
    if let Some(writer) = writer {
        writer.finish();
    }
    outcome
}

/// Takes up what can be changed while running. A configuration that is wrong changes nothing.
fn reload(running: &Running, current: &mut RunArgs, reread: &Reread<'_>) {
    let taken_up = reread().and_then(|next| {
        running.reload(selectors(&next.select)?, rules(&next.metrics)?);
        Ok(next)
    });
    match taken_up {
        Ok(next) => {
            tracing::info!(
                "read the configuration again: selectors, routes and ignored paths are those of now"
            );
            let mut same = next.clone();
            same.select.clone_from(&current.select);
            let (metrics, before) = (&mut same.metrics, &current.metrics);
            metrics.route.clone_from(&before.route);
            metrics.route_mode = before.route_mode;
            metrics.ignore_path.clone_from(&before.ignore_path);
            if same != *current {
                tracing::warn!("other options changed too: they need a restart");
            }
            current.select = next.select;
            current.metrics.route = next.metrics.route;
            current.metrics.route_mode = next.metrics.route_mode;
            current.metrics.ignore_path = next.metrics.ignore_path;
        }
        Err(error) => tracing::error!("the configuration stays as it was: {error}"),
    }
}

/// Tells systemd, where it started the agent.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd can't be notified: {error}");
    }
}
