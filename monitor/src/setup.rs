//! From what was typed to what it means: shared by the commands.

use std::io::Write;

use crate::{
    cli::{
        BackendArg, Hooks, KernelArgs, MetricSet, MetricsArgs, PrintFormat, RoleArg, RouteModeArg,
        SelectArgs, TlsArg,
    },
    engine::Engine,
    exchange::Roles,
    exit::Failure,
    kernel::{Backend, Flavour, Settings, Tls},
    metrics::{DROPPABLE, Labels, Metrics, Options, Sets},
    print::{Format, Printer},
    route::{Mode, Rules},
    select::{Criteria, Selectors},
};

/// Which processes, as asked for; none is bad usage.
pub fn selectors(args: &SelectArgs) -> Result<Selectors, Failure> {
    let services = args.services.iter();
    let criteria = Criteria {
        services: services.map(|service| (service.name.clone(), criteria(&service.select))).collect(),
        ..criteria(args)
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

fn criteria(args: &SelectArgs) -> Criteria {
    Criteria {
        process_names: args.process_name.clone(),
        pids: args.pid.clone(),
        ports: args.port.clone(),
        systemd_units: args.systemd_unit.clone(),
        excluded_names: args.exclude_process_name.clone(),
        services: Vec::new(),
    }
}

/// How the probes are loaded, as asked for.
#[must_use]
pub fn settings(args: &KernelArgs, role: RoleArg, debug: bool) -> Settings {
    let backend = match args.backend {
        BackendArg::Auto => None,
        BackendArg::Socket => Some(Backend::Socket),
        BackendArg::Syscall => Some(Backend::Syscall),
    };
    let flavour = match args.hooks {
        Hooks::Auto => None,
        Hooks::TpBtf => Some(Flavour::Typed),
        Hooks::Tracepoint => Some(Flavour::Classic),
    };
    let tls = match args.tls {
        TlsArg::Auto => Tls::Own,
        TlsArg::Shared => Tls::Shared,
        TlsArg::Off => Tls::Off,
    };
    Settings {
        backend,
        flavour,
        btf: args.btf.clone(),
        outgoing: role != RoleArg::Server,
        rooms: args.room.clone(),
        tls,
        debug,
    }
}

/// What counts, as asked for. The program's own metrics are among those of a running agent alone.
pub fn engine(args: &MetricsArgs, own_process: bool) -> Result<Engine, Failure> {
    let roles = match args.role {
        RoleArg::Server => Roles { server: true, client: false },
        RoleArg::Client => Roles { server: false, client: true },
        RoleArg::All => Roles { server: true, client: true },
    };
    let labels = Labels::without(&args.drop_label).map_err(|label| {
        Failure::Usage(format!(
            "--drop-label {label}: it can't be dropped; those that can are {}",
            DROPPABLE.join(", ")
        ))
    })?;
    let metrics = Metrics::new(Options {
        buckets: args.buckets.clone().unwrap_or_default(),
        max_series: args.max_series as usize,
        rules: rules(args)?,
        labels,
        sets: Sets {
            otel: args.metrics.contains(&MetricSet::Otel),
            flask: args.metrics.contains(&MetricSet::Flask),
        },
        own_process,
    })
    .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Engine::new(metrics, roles))
}

/// How routes are named, as asked for.
pub fn rules(args: &MetricsArgs) -> Result<Rules, Failure> {
    let mode = match args.route_mode {
        RouteModeArg::Auto => Mode::Auto,
        RouteModeArg::Path => Mode::Path,
        RouteModeArg::Off => Mode::Off,
    };
    Rules::new(mode, &args.route, &args.ignore_path).map_err(|error| Failure::Usage(error.to_string()))
}

/// Prints each request that ends. `epoch` tells what the real-time clock is ahead of the events', in nanoseconds.
pub fn print_to(
    engine: &mut Engine,
    format: PrintFormat,
    epoch: impl Fn() -> u64 + Send + 'static,
    out: impl Write + Send + 'static,
) {
    let format = match format {
        PrintFormat::Text => Format::Text,
        PrintFormat::Json => Format::Json,
    };
    let mut printer = Printer::new(format, epoch, out);
    engine.metrics.listen(Box::new(move |request| printer.print(request)));
}
