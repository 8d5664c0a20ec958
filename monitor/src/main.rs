//! The `httpmon` binary.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use monitor::{
    agent, check,
    cli::{Cli, Command, Hooks, KernelArgs, LogFormat, LogLevel, ReplayArgs, RunArgs, SelectArgs},
    exit::Failure,
    kernel::{Flavour, Settings},
    replay,
    select::{self, Criteria, ProcFs, Selectors},
    setup,
};
use prometheus::TextEncoder;
use terminal_size::terminal_size_of;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        None => run(&cli.run),
        Some(Command::Run(args)) => run(args),
        Some(Command::Check(args)) => check(args),
        Some(Command::Processes(args)) => processes(args),
        Some(Command::Replay(args)) => replay(args),
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

fn run(args: &RunArgs) -> Result<(), Failure> {
    let selectors = selectors(&args.select)?;
    log(args.log_level, args.log_format);
    agent::run(args, selectors, &settings(&args.kernel, args.log_level >= LogLevel::Debug))
}

fn check(args: &KernelArgs) -> Result<(), Failure> {
    let findings = check::findings(&settings(args, false));
    print(&check::report(&findings));
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
    print(&select::report(&selected, width));
    Ok(())
}

fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    log(LogLevel::Warn, LogFormat::Text);
    let mut engine = setup::engine(&args.metrics, false)?;
    if let Some(format) = args.metrics.print {
        // A recording has the host's clock since its start, not the time of day.
        setup::print_to(&mut engine, format, 0, std::io::stdout());
    }
    replay::replay(&args.file, &mut engine).map_err(|error| Failure::Run(error.to_string()))?;
    if args.metrics.print.is_none() {
        let text = TextEncoder::new().encode_to_string(&engine.metrics.gather());
        print(&text.map_err(|error| Failure::Run(error.to_string()))?);
    }
    Ok(())
}

fn selectors(args: &SelectArgs) -> Result<Selectors, Failure> {
    let criteria = Criteria {
        process_names: args.process_name.clone(),
        pids: args.pid.clone(),
        ports: args.port.clone(),
        systemd_units: args.systemd_unit.clone(),
        excluded_names: args.exclude_process_name.clone(),
    };
    let selectors = Selectors::new(&criteria).map_err(|error| Failure::Usage(error.to_string()))?;
    if selectors.is_empty() {
        return Err(Failure::Usage(
            "no process is selected: give at least one of --process-name, --pid, --port or --systemd-unit, \
             such as --process-name gunicorn"
                .to_owned(),
        ));
    }
    Ok(selectors)
}

fn settings(args: &KernelArgs, debug: bool) -> Settings {
    let flavour = match args.hooks {
        Hooks::Auto => None,
        Hooks::TpBtf => Some(Flavour::Typed),
        Hooks::Tracepoint => Some(Flavour::Classic),
    };
    Settings { flavour, btf: args.btf.clone(), debug }
}

fn log(level: LogLevel, format: LogFormat) {
    let level = match level {
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
    match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(to_stderr.with_target(false).with_ansi(colours)).init();
        }
        LogFormat::Json => registry.with(to_stderr.json()).init(),
    }
}

/// To stdout; a reader that has gone is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
