//! The command line: what can be typed, and what it means.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Command, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::{exporter::Address, kernel::Room};

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "httpmon",
    version,
    about = "HTTP metrics of running services, from eBPF probes: no code change, no restart",
    args_conflicts_with_subcommands = true,
    after_help = "Without a command it runs the agent, with the options of `run` (httpmon run --help).\nExample: sudo httpmon --process-name gunicorn, then curl http://127.0.0.1:9464/metrics",
    max_term_width = 120
)]
pub struct Cli {
    /// What to do; without one, run the agent.
    #[command(subcommand)]
    pub command: Option<Task>,
    /// The agent's options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The definition. Every `--help` is the short one, which fits a screen; that of httpmon itself lists the commands, since
/// the options are those of `run`.
#[must_use]
pub fn command() -> Command {
    let short_help = || {
        let help = Arg::new("help").short('h').long("help").help("Print help");
        help.action(ArgAction::HelpShort).help_heading("Other")
    };
    Cli::command()
        .mut_args(|option| option.hide(true))
        .disable_help_flag(true)
        .arg(short_help())
        .mut_subcommands(|command| command.disable_help_flag(true).arg(short_help()))
}

/// What httpmon can do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Run the agent: attach the probes and serve the metrics (the default)
    #[command(after_help = "Example: httpmon run --process-name gunicorn --route '/users/{id}'")]
    Run(Box<RunArgs>),
    /// Tell whether httpmon can run here, a line for each thing it needs
    #[command(after_help = "Example: sudo httpmon check")]
    Check(KernelArgs),
    /// Tell which processes a selection matches now, and why; attaches nothing
    #[command(after_help = "Example: httpmon processes --process-name 'gunicorn*'")]
    Processes(SelectArgs),
    /// Show a live table of a running agent or, with selectors, of probes of its own
    #[command(after_help = "Example: httpmon top, or sudo httpmon top --process-name gunicorn")]
    Top(Box<TopArgs>),
    /// Print a Grafana dashboard for the metrics, as JSON
    #[command(after_help = "Example: httpmon dashboard > httpmon.json, then import it into Grafana")]
    Dashboard,
    /// Print recording and alerting rules for Prometheus
    #[command(after_help = "Example: httpmon alerts > /etc/prometheus/httpmon.rules.yml")]
    Alerts,
    /// Print a completion script for a shell
    #[command(after_help = "Example: httpmon completions bash > /etc/bash_completion.d/httpmon")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands
    #[command(after_help = "Example: httpmon man | man -l -")]
    Man {
        /// Where to write a page for each command
        #[arg(value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
    /// Count a recording's events as the agent would have, and print the metrics; needs no privileges
    #[command(after_help = "Example: httpmon replay events.httpmon --route '/users/{id}'")]
    Replay(Box<ReplayArgs>),
}

/// Which processes.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct SelectArgs {
    /// Processes of this name (a glob)
    #[arg(short = 'n', long = "process-name", value_name = "GLOB", help_heading = "Selection")]
    pub process_name: Vec<String>,
    /// This process and its children
    #[arg(long, value_name = "PID", help_heading = "Selection")]
    pub pid: Vec<u32>,
    /// Processes that listen on this TCP port
    #[arg(long, value_name = "PORT", help_heading = "Selection", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Processes of this systemd unit (a glob)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub systemd_unit: Vec<String>,
    /// Never processes of this name (a glob)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub exclude_process_name: Vec<String>,
    /// Processes that are counted under a name of their own; from a configuration file.
    #[arg(skip)]
    pub services: Vec<NamedService>,
}

impl SelectArgs {
    /// Whether nothing is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { process_name, pid, port, systemd_unit, exclude_process_name: _, services } = self;
        process_name.is_empty()
            && pid.is_empty()
            && port.is_empty()
            && systemd_unit.is_empty()
            && services.is_empty()
    }
}

/// Processes under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedService {
    /// The name.
    pub name: String,
    /// Which they are.
    pub select: SelectArgs,
}

/// How the probes are loaded.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct KernelArgs {
    /// Where the kernel sees bytes
    #[arg(long, value_enum, default_value_t, value_name = "BACKEND", help_heading = "Other")]
    pub backend: BackendArg,
    /// The form of the kernel hooks
    #[arg(long, value_enum, default_value_t, value_name = "FORM", help_heading = "Other")]
    pub hooks: Hooks,
    /// TLS is read
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = "Other")]
    pub tls: TlsArg,
    /// Where the kernel's type information (BTF) is
    #[arg(long, value_name = "FILE", default_value = crate::kernel::BTF_PATH, hide = true)]
    pub btf: PathBuf,
    /// How much a kernel table holds, like events=16777216
    #[arg(long, value_name = "TABLE=N", hide = true)]
    pub room: Vec<Room>,
}

/// Where bytes are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// At the sockets where the kernel can, else at system calls
    #[default]
    Auto,
    /// At the sockets: from Linux 6.3
    Socket,
    /// At the end of system calls: dearer
    Syscall,
}

/// The form of the hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Hooks {
    /// By the kernel's version
    #[default]
    Auto,
    /// BTF-typed tracepoints: the cheapest; from Linux 7.1 they can miss runs
    TpBtf,
    /// Classic tracepoints: a little dearer
    Tracepoint,
}

/// How routes are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RouteModeArg {
    /// Patterns first, then ids folded
    #[default]
    Auto,
    /// The raw path
    Path,
    /// One route for all
    Off,
}

/// Which side of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// The requests that the processes answer
    #[default]
    Server,
    /// The requests that they make
    Client,
    /// Both
    All,
}

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrintFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Names that metrics are told under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricSet {
    /// OpenTelemetry's
    Otel,
    /// prometheus-flask-exporter's
    Flask,
}

/// Whether TLS is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TlsArg {
    /// Where a process's library is known, by probes in that process alone
    #[default]
    Auto,
    /// The same by probes for all processes that have mapped the library: children have them from their birth
    Shared,
    /// It is counted as bytes
    Off,
}

/// Whether the agent gives up what it no longer needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Confine {
    /// Capabilities, other programs, writing files, most system calls
    #[default]
    Auto,
    /// It keeps what it has
    Off,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// What stops the agent
    Error,
    /// What needs attention
    Warn,
    /// What happens
    #[default]
    Info,
    /// Why it happens, and the kernel side's messages
    Debug,
    /// Everything
    Trace,
}

/// What is counted, and how.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct MetricsArgs {
    /// Which side of their connections
    #[arg(long, value_enum, default_value_t, value_name = "ROLE", help_heading = "Selection")]
    pub role: RoleArg,
    /// A line for each request
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Output")]
    pub print: Option<PrintFormat>,
    /// Whose names
    #[arg(
        long,
        value_enum,
        value_name = "SETS",
        default_value = "otel",
        value_delimiter = ',',
        help_heading = "Metrics"
    )]
    pub metrics: Vec<MetricSet>,
    /// Label sets of a metric; more are counted as "other"
    #[arg(long, value_name = "LABEL", help_heading = "Metrics")]
    pub drop_label: Vec<String>,
    /// A route, like /users/{id}
    #[arg(long, value_name = "PATTERN", help_heading = "Metrics")]
    pub route: Vec<String>,
    /// How routes are made
    #[arg(long, value_enum, default_value_t, value_name = "MODE", help_heading = "Metrics")]
    pub route_mode: RouteModeArg,
    /// Paths that aren't counted but as ignored (a glob)
    #[arg(long, value_name = "GLOB", help_heading = "Metrics")]
    pub ignore_path: Vec<String>,
    /// The histograms' bounds in seconds, like 0.01,0.1,1
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Metrics")]
    pub buckets: Option<Vec<f64>>,
    /// How many label sets a metric may have; the rest is counted under `http_route="other`"
    #[arg(long, value_name = "N", default_value_t = 2000, help_heading = "Metrics",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_series: u32,
}

/// A recording, and what to make of it.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct ReplayArgs {
    /// A recording that --record made
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What is counted, and how.
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

/// A live table.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// The agent's exporter
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9464/metrics")]
    pub url: String,
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    pub interval: f64,
    /// What the table is sorted by
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "rate")]
    pub sort: crate::top::Column,
    /// Print one table as text; so it does where there is no terminal
    #[arg(long)]
    pub once: bool,
    /// Which processes, for probes of its own.
    #[command(flatten)]
    pub select: SelectArgs,
    /// A route, like /users/{id}; repeatable; for probes of its own
    #[arg(long, value_name = "PATTERN", help_heading = "Metrics")]
    pub route: Vec<String>,
    /// How the probes are loaded.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

impl TopArgs {
    /// What probes of its own count.
    #[must_use]
    pub fn metrics(&self) -> MetricsArgs {
        MetricsArgs { route: self.route.clone(), ..Cli::parse_from(["httpmon"]).run.metrics }
    }
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 3600 seconds".to_owned()) }
}

/// The agent's options.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct RunArgs {
    /// Which processes.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Where the metrics are served; or `unix:/PATH`
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9464", help_heading = "Output")]
    pub listen: Address,
    /// TLS and users of the exporter, as Prometheus' exporters have them
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub web_config: Option<PathBuf>,
    /// What is counted, and how.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Write events here, redacted, for `httpmon replay`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,
    /// How the probes are loaded.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
    /// Privileges are given up once attached
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = "Other")]
    pub confine: Confine,
    /// Options from a TOML file; HTTPMON_* and the command line beat it
    #[arg(long, value_name = "FILE", help_heading = "Other")]
    pub config: Option<PathBuf>,
    /// Say whether the options are right, no more
    #[arg(long, help_heading = "Other")]
    pub check_config: bool,
}

/// What is logged.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct LogArgs {
    /// How much is logged
    #[arg(long = "log-level", value_enum, default_value_t, value_name = "LEVEL", help_heading = "Other")]
    pub level: LogLevel,
    /// How log lines look
    #[arg(long = "log-format", value_enum, default_value_t, value_name = "FORMAT", help_heading = "Other")]
    pub format: LogFormat,
}

impl LogArgs {
    /// Whether the kernel side's messages are wanted.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.level >= LogLevel::Debug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_help_fits_a_screen_and_has_an_example() {
        let mut all = command().term_width(100);
        all.build();
        let names: Vec<String> = all.get_subcommands().map(|one| one.get_name().to_owned()).collect();
        for name in names.into_iter().filter(|name| name != "help") {
            let one = all.find_subcommand_mut(&name).unwrap();
            let help = one.render_help().to_string();
            assert!(help.lines().count() <= 45, "{help}");
            assert!(help.lines().all(|line| line.len() <= 100), "{help}");
            assert!(help.contains("Example: "), "{help}");
        }
        let help = all.render_help().to_string();
        assert!(help.lines().count() <= 45 && help.contains("Example: "), "{help}");
    }

    #[test]
    fn run_is_the_default_command() {
        let bare = Cli::parse_from(["httpmon", "-n", "gunicorn"]);
        assert!(bare.command.is_none());
        assert_eq!(bare.run.select.process_name, ["gunicorn"]);
        let named = Cli::parse_from(["httpmon", "run", "-n", "gunicorn"]);
        let Some(Task::Run(run)) = named.command else { panic!("{named:?}") };
        assert_eq!(run.select.process_name, ["gunicorn"]);
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let run = Cli::parse_from(["httpmon"]).run;
        assert_eq!(run.listen.to_string(), "127.0.0.1:9464");
        assert_eq!(run.metrics.max_series, 2000);
    }
}
