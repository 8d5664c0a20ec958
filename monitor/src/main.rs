//! The `httpmon` binary.

#![forbid(unsafe_code)]

use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use monitor::{
    agent, check,
    cli::{Cli, KernelArgs, LogArgs, LogFormat, LogLevel, ReplayArgs, RoleArg, RunArgs, SelectArgs, Task},
    config,
    exit::Failure,
    exporter::Format,
    kernel::pid_namespace,
    manual, replay,
    select::{self, ProcFs},
    setup::{self, selectors, settings},
    top::top,
};
use terminal_size::terminal_size_of;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    let typed: Vec<_> = std::env::args_os().collect();
    let outcome = match config::resolve(&typed, |name| std::env::var_os(name)) {
        Ok(cli) => obey(&cli, &typed),
        Err(config::Error::Clap(error)) => error.exit(),
        Err(config::Error::Wrong(message)) => Err(Failure::Usage(message)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let message = failure.to_string();
            if !message.is_empty() {
                let _ = writeln!(std::io::stderr(), "error: {message}");
            }
            (&failure).into()
        }
    }
}

fn obey(cli: &Cli, typed: &[OsString]) -> Result<(), Failure> {
    match &cli.command {
        None => run(&cli.run, typed),
        Some(Task::Run(args)) => run(args, typed),
        Some(Task::Check(args)) => check(args),
        Some(Task::Processes(args)) => processes(args),
        Some(Task::Top(args)) => top(args),
        Some(Task::Replay(args)) => replay(args),
        Some(Task::Dashboard) => print(manual::DASHBOARD),
        Some(Task::Alerts) => print(manual::RULES),
        Some(Task::Completions { shell }) => print(&manual::completions(*shell)),
        Some(Task::Man { directory: Some(directory) }) => manual::pages(directory),
        Some(Task::Man { directory: None }) => {
            print(&manual::page().map_err(|error| Failure::Run(error.to_string()))?)
        }
    }
}

fn run(args: &RunArgs, typed: &[OsString]) -> Result<(), Failure> {
    selectors(&args.select)?;
    if args.check_config {
        setup::engine(&args.metrics, false)?;
        agent::web(args)?;
        return print("the configuration is right\n");
    }
    log(&args.log);
    agent::run(args, &|| config::resolve_run(typed, |name| std::env::var_os(name)))
}

fn check(args: &KernelArgs) -> Result<(), Failure> {
    let findings = check::findings(&settings(args, RoleArg::All, false));
    print(&check::report(&findings))?;
    if findings.iter().any(|finding| finding.fix.is_some()) {
        // The report has said it.
        return Err(Failure::Host(String::new()));
    }
    Ok(())
}

fn processes(args: &SelectArgs) -> Result<(), Failure> {
    let selected =
        selectors(args)?.select(&ProcFs::default()).map_err(|error| Failure::Host(error.to_string()))?;
    // Cut to a terminal's width; whole lines elsewhere.
    let width = terminal_size_of(std::io::stdout()).map_or(usize::MAX, |(width, _)| width.0.into());
    print(&select::report(&selected, pid_namespace::current().hides(), width))
}

fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    log(&LogArgs { level: LogLevel::Warn, format: LogFormat::Text });
    let mut engine = setup::engine(&args.metrics, false)?;
    if let Some(format) = args.metrics.print {
        // A recording has the host's clock since its start, not the time of day.
        setup::print_to(&mut engine, format, || 0, std::io::stdout());
    }
    let progress = progress(args);
    let outcome = replay::replay(&args.file, &mut engine, &progress);
    progress.finish_and_clear();
    outcome.map_err(|error| Failure::Run(error.to_string()))?;
    if args.metrics.print.is_none() {
        for piece in Format::Text.write(engine.metrics.told()) {
            print(&piece.map_err(Failure::Run)?)?;
        }
    }
    Ok(())
}

/// How far a replay is, on stderr; shown in a terminal alone, where no lines are printed.
fn progress(args: &ReplayArgs) -> ProgressBar {
    const DRAWN: Duration = Duration::from_millis(250);
    if args.metrics.print.is_some() && std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("replaying {msg}: {bytes} of {total_bytes}, {elapsed}");
    let bar = ProgressBar::no_length().with_message(args.file.display().to_string());
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(DRAWN);
    bar
}

fn log(args: &LogArgs) {
    let level = match args.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    // Libraries say what is wrong, httpmon itself as much as was asked for.
    let targets = Targets::new()
        .with_default(tracing::Level::WARN.min(level))
        .with_targets(["httpmon", "monitor", "monitor_ebpf"].map(|target| (target, level)));
    let registry = tracing_subscriber::registry().with(targets);
    let to_stderr = fmt::layer().with_writer(std::io::stderr);
    match args.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(to_stderr.with_target(false).with_ansi(colours)).init();
        }
        LogFormat::Json => registry.with(to_stderr.json()).init(),
    }
}

/// To stdout; a reader that has gone is no error.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Run(format!("stdout can't be written: {error}")))
        }
        _ => Ok(()),
    }
}
