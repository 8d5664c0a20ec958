//! From what was typed to what counts: shared by `run` and `replay`.

use std::io::Write;

use crate::{
    cli::{MetricsArgs, PrintFormat, RoleArg, RouteModeArg},
    engine::Engine,
    exchange::Roles,
    exit::Failure,
    metrics::{Metrics, Options},
    print::{Format, Printer},
    route::{Mode, Router},
};

/// What counts, as asked for. The program's own metrics are among those of a running agent alone.
pub fn engine(args: &MetricsArgs, own_process: bool) -> Result<Engine, Failure> {
    let mode = match args.route_mode {
        RouteModeArg::Auto => Mode::Auto,
        RouteModeArg::Path => Mode::Path,
        RouteModeArg::Off => Mode::Off,
    };
    let roles = match args.role {
        RoleArg::Server => Roles { server: true, client: false },
        RoleArg::Client => Roles { server: false, client: true },
        RoleArg::All => Roles { server: true, client: true },
    };
    let router = Router::new(mode, &args.route).map_err(|error| Failure::Usage(error.to_string()))?;
    let metrics = Metrics::new(Options {
        buckets: args.buckets.clone().unwrap_or_default(),
        max_series: args.max_series as usize,
        router,
        ignore_paths: args.ignore_path.clone(),
        own_process,
    })
    .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Engine::new(metrics, roles))
}

/// Prints each request that ends. `epoch` is what the real-time clock is ahead of the events', in nanoseconds.
pub fn print_to(engine: &mut Engine, format: PrintFormat, epoch: u64, out: impl Write + Send + 'static) {
    let format = match format {
        PrintFormat::Text => Format::Text,
        PrintFormat::Json => Format::Json,
    };
    let mut printer = Printer::new(format, epoch, out);
    engine.metrics.listen(Box::new(move |request| printer.print(request)));
}
