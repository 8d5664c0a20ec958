//! Counts what the connections find out, for Prometheus.
//!
//! In: the calls of [`Sink`]. Out: [`Metrics::gather`]. A request's labels are resolved once, when its head is
//! recognised, to owned handles.

mod families;
mod series;

use std::collections::{HashMap, HashSet};

use globset::{Glob, GlobSet, GlobSetBuilder};
use prometheus::{IntCounter, Registry, proto::MetricFamily};

use self::{
    families::{Families, LOST, UNPARSED},
    series::{Answered, Key, Series},
};
use crate::{
    event::{Address, ServiceId},
    exchange::{Course, Peer, Request, Role, Sink, Ticket, Unanswered, Unparsed, Version},
    route::{self, Router},
};

pub use families::SECONDS;

/// How many raw paths' routes are remembered.
const REMEMBERED_PATHS: usize = 4096;

/// What is counted, and how.
#[derive(Debug, Default)]
pub struct Options {
    /// The histograms' bounds, in seconds; empty for [`SECONDS`].
    pub buckets: Vec<f64>,
    /// How many label sets there may be.
    pub max_series: usize,
    /// Names routes.
    pub router: Router,
    /// Paths that aren't counted, as globs.
    pub ignore_paths: Vec<String>,
    /// Whether the agent's own process is measured.
    pub own_process: bool,
}

/// Why the metrics can't be as asked for.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A glob that is none.
    #[error("--ignore-path {glob:?}: {reason}; a glob is a path with * and ?, such as /health*")]
    IgnorePath {
        /// As given.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bounds that are none.
    #[error(
        "--buckets {given:?}: bounds are positive numbers of seconds, each larger than the one before, such as 0.01,0.1,1"
    )]
    Buckets {
        /// As given.
        given: Vec<f64>,
    },
    /// The metrics library refused.
    #[error("metrics can't be set up: {0}")]
    Library(#[from] prometheus::Error),
}

/// A request that ended, for those who print it.
#[derive(Debug)]
pub struct Finished<'a> {
    /// The service's name.
    pub service: &'a str,
    /// The process that read it.
    pub pid: u32,
    /// Whether the process answered it, or made it.
    pub role: Role,
    /// Where it was served.
    pub server: Option<&'a Address>,
    /// As sent.
    pub method: &'a str,
    /// Without query.
    pub path: &'a str,
    /// Of the request line.
    pub version: Version,
    /// The name of its path.
    pub route: &'a str,
    /// Its status, or why it has none.
    pub outcome: Result<u16, Unanswered>,
    /// When what happened.
    pub course: &'a Course,
}

/// What a service's processes use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// How many there are.
    pub processes: u64,
    /// The CPU time that they used, and those before them.
    pub cpu_seconds: f64,
    /// Their resident memory.
    pub resident_bytes: u64,
}

/// Something that a service does beyond reading, seen for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The service.
    pub service: ServiceId,
    /// The process that did it.
    pub pid: u32,
    /// What.
    pub reason: Unparsed,
}

/// Hears of each request that ended.
pub type Listener = Box<dyn FnMut(&Finished<'_>) + Send>;

/// A request in flight.
struct Flight {
    series: Option<usize>,
    told: Option<Told>,
}

/// What a listener will want to know.
struct Told {
    method: String,
    path: String,
    version: Version,
    pid: u32,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    families: Families,
    router: Router,
    ignored: GlobSet,
    max_series: usize,
    services: HashMap<ServiceId, String>,
    paths: HashMap<Box<str>, Path>,
    routes: HashMap<Box<str>, u32>,
    route_names: Vec<Box<str>>,
    addresses: HashMap<Option<Address>, u32>,
    by_key: HashMap<Key, usize>,
    series: Vec<Series>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    events: IntCounter,
    listener: Option<Listener>,
    noticed: HashSet<(ServiceId, Unparsed)>,
    notices: Vec<Notice>,
}

/// What is known of a raw path.
#[derive(Clone, Copy)]
struct Path {
    route: u32,
    ignored: bool,
}

impl Metrics {
    /// With all that is there from the start at 0.
    pub fn new(options: Options) -> Result<Self, MetricsError> {
        let buckets = if options.buckets.is_empty() { SECONDS.to_vec() } else { options.buckets };
        if !buckets.windows(2).all(|pair| pair[0] < pair[1])
            || buckets.iter().any(|bound| !(*bound > 0.0 && bound.is_finite()))
        {
            return Err(MetricsError::Buckets { given: buckets });
        }
        let registry = Registry::new();
        let families = Families::new(&registry, &buckets)?;
        if options.own_process {
            registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        }
        families.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let events = families.events.with_label_values::<&str>(&[]);
        families.requests_lost.with_label_values::<&str>(&[]);
        for reason in LOST {
            families.events_lost.with_label_values(&[reason]);
        }
        for reason in UNPARSED {
            families.unparsed.with_label_values(&[reason]);
        }
        Ok(Self {
            registry,
            families,
            router: options.router,
            ignored: globs(&options.ignore_paths)?,
            max_series: options.max_series.max(1),
            services: HashMap::new(),
            paths: HashMap::new(),
            routes: HashMap::new(),
            route_names: Vec::new(),
            addresses: HashMap::new(),
            by_key: HashMap::new(),
            series: Vec::new(),
            flights: Vec::new(),
            free: Vec::new(),
            events,
            listener: None,
            noticed: HashSet::new(),
            notices: Vec::new(),
        })
    }

    /// Names a service.
    pub fn service(&mut self, id: ServiceId, name: &str) {
        self.families.folded.with_label_values(&[name]);
        self.families.busy.with_label_values(&[name]);
        self.families.births.with_label_values(&[name]);
        self.families.cpu.with_label_values(&[name]);
        self.services.insert(id, name.to_owned());
    }

    /// Tells each request that ends.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// Tells nobody any more.
    pub fn hush(&mut self) {
        self.listener = None;
    }

    /// Counts events from the kernel.
    pub fn events(&self, count: u64) {
        self.events.inc_by(count);
    }

    /// Counts a record that could not be read.
    pub fn undecodable(&self) {
        self.families.events_lost.with_label_values(&["undecodable"]).inc();
    }

    /// Sets how many events were lost for a reason, in all.
    pub fn lost(&self, reason: &str, total: u64) {
        let counter = self.families.events_lost.with_label_values(&[reason]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// Sets how long a probe has run, in all.
    pub fn probe_ran(&self, program: &str, seconds: f64) {
        let counter = self.families.probe_seconds.with_label_values(&[program]);
        counter.inc_by((seconds - counter.get()).max(0.0));
    }

    /// Sets the open connections.
    pub fn open_connections<'a>(&self, open: impl Iterator<Item = (ServiceId, Option<&'a Address>, u64)>) {
        self.families.open_connections.reset();
        for (service, address, count) in open {
            let (address, port) = series::place(address);
            self.families
                .open_connections
                .with_label_values(&[self.service_name(service), &address, &port])
                .set(count.cast_signed());
        }
    }

    /// Sets what each service's processes use.
    pub fn workers(&self, workers: &HashMap<ServiceId, Usage>) {
        for (id, name) in &self.services {
            let usage = workers.get(id).copied().unwrap_or_default();
            self.families.workers.with_label_values(&[name]).set(usage.processes.cast_signed());
            self.families.resident.with_label_values(&[name]).set(usage.resident_bytes.cast_signed());
            let cpu = self.families.cpu.with_label_values(&[name]);
            cpu.inc_by((usage.cpu_seconds - cpu.get()).max(0.0));
        }
    }

    /// A process of a service began.
    pub fn born(&self, service: ServiceId) {
        self.families.births.with_label_values(&[self.service_name(service)]).inc();
    }

    /// A process of a service ended, with the code as `wait(2)` gives it.
    pub fn died(&self, service: ServiceId, code: u32) {
        let (cause, code) = match code & 0x7f {
            0 => ("exit", (code >> 8 & 0xff).to_string()),
            number => {
                let signal = nix::sys::signal::Signal::try_from(number.cast_signed());
                ("signal", signal.map_or_else(|_| number.to_string(), |signal| signal.to_string()))
            }
        };
        self.families.deaths.with_label_values(&[self.service_name(service), cause, &code]).inc();
    }

    /// Sets how many requests began in lost records, in all.
    pub fn requests_lost(&self, total: u64) {
        let counter = self.families.requests_lost.with_label_values::<&str>(&[]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// What could not be read for the first time: of which service and process, and why.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Everything, as it is now.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// A service's name.
    #[must_use]
    pub fn service_name(&self, id: ServiceId) -> &str {
        self.services.get(&id).map_or("unknown", String::as_str)
    }

    /// What a raw path is called, remembered for a bounded number of them.
    fn path(&mut self, path: &str) -> Path {
        if let Some(&known) = self.paths.get(path) {
            return known;
        }
        let route = self.router.route(path);
        let found = Path { route: self.route(&route), ignored: self.ignored.is_match(path) };
        if self.paths.len() >= REMEMBERED_PATHS {
            self.paths.clear();
        }
        self.paths.insert(path.into(), found);
        found
    }

    fn route(&mut self, name: &str) -> u32 {
        if let Some(&known) = self.routes.get(name) {
            return known;
        }
        if self.route_names.len() >= self.max_series.saturating_mul(2) && name != series::OTHER {
            return self.route(series::OTHER);
        }
        let id = self.route_names.len() as u32;
        self.route_names.push(name.into());
        self.routes.insert(name.into(), id);
        id
    }

    fn address(&mut self, address: Option<&Address>) -> u32 {
        // The common case costs one look-up and no copy.
        let key = address.cloned();
        let next = self.addresses.len() as u32;
        *self.addresses.entry(key).or_insert(next)
    }

    /// The series of a request's labels; over the cap, that of the route "other".
    fn resolve(&mut self, peer: &Peer, request: &Request<'_>, route: u32) -> usize {
        let address = self.address(peer.server());
        let method = series::method(request.method);
        let mut key =
            Key { role: peer.role, service: peer.service, address, method, version: request.version, route };
        let known = self.by_key.get(&key).copied();
        if known.is_none() && self.by_key.len() >= self.max_series {
            key.route = self.route(series::OTHER);
        }
        if self.route_names[key.route as usize].as_ref() == series::OTHER {
            self.families.folded.with_label_values(&[self.service_name(peer.service)]).inc();
        }
        if let Some(known) = known.or_else(|| self.by_key.get(&key).copied()) {
            return known;
        }
        let route = self.route_names[key.route as usize].clone();
        let series =
            Series::new(&self.families, self.service_name(peer.service), peer.server(), &key, &route);
        self.series.push(series);
        self.by_key.insert(key, self.series.len() - 1);
        self.series.len() - 1
    }

    fn take_off(&mut self, flight: Flight) -> Ticket {
        if let Some(slot) = self.free.pop() {
            self.flights[slot as usize] = Some(flight);
            Ticket(slot)
        } else {
            self.flights.push(Some(flight));
            Ticket(self.flights.len() as u32 - 1)
        }
    }

    fn land(&mut self, ticket: Ticket) -> Option<Flight> {
        let flight = self.flights.get_mut(ticket.0 as usize)?.take()?;
        self.free.push(ticket.0);
        Some(flight)
    }

    fn tell(
        &mut self,
        peer: &Peer,
        flight: &Flight,
        series: usize,
        outcome: Result<u16, Unanswered>,
        course: &Course,
    ) {
        let (Some(listener), Some(told)) = (&mut self.listener, &flight.told) else { return };
        listener(&Finished {
            service: self.services.get(&peer.service).map_or("unknown", String::as_str),
            pid: told.pid,
            role: peer.role,
            server: peer.server(),
            method: &told.method,
            path: &told.path,
            version: told.version,
            route: self.series[series].route(),
            outcome,
            course,
        });
    }
}

impl Sink for Metrics {
    fn request(&mut self, peer: &Peer, request: &Request<'_>) -> Ticket {
        let raw = route::path(request.target);
        let path = match peer.role {
            Role::Server => self.path(raw),
            // What processes ask others for has no route of theirs.
            Role::Client => Path { route: self.route("*"), ignored: false },
        };
        let series = self.resolve(peer, request, path.route);
        self.series[series].seen.inc();
        if path.ignored {
            self.series[series].ignored(&self.families).inc();
            return self.take_off(Flight { series: None, told: None });
        }
        self.series[series].active.inc();
        let told = self.listener.is_some().then(|| Told {
            method: request.method.to_owned(),
            path: raw.to_owned(),
            version: request.version,
            pid: request.pid,
        });
        self.take_off(Flight { series: Some(series), told })
    }

    fn finished(&mut self, peer: &Peer, ticket: Ticket, status: u16, course: &Course) {
        let Some(flight) = self.land(ticket) else { return };
        let Some(index) = flight.series else { return };
        let series = &mut self.series[index];
        series.active.dec();
        let last = course.last_sent.unwrap_or(course.read);
        let first = course.first_sent.unwrap_or(last);
        let Answered { duration, served } = series.answered(&self.families, status);
        duration.observe(last.seconds_since(course.read));
        if let Some(served) = served {
            if let Some(arrived) = course.arrived {
                served.queue.observe(course.read.seconds_since(arrived));
            }
            served.first_byte.observe(first.seconds_since(course.read));
            served.send.observe(last.seconds_since(first));
            served.request_body.observe(course.request_body as f64);
            served.response_body.observe(course.response_body as f64);
            series.busy.inc_by(last.seconds_since(course.read));
        }
        self.tell(peer, &flight, index, Ok(status), course);
    }

    fn unanswered(&mut self, peer: &Peer, ticket: Ticket, reason: Unanswered, course: &Course) {
        let Some(flight) = self.land(ticket) else { return };
        let Some(index) = flight.series else { return };
        let series = &mut self.series[index];
        series.active.dec();
        series.unanswered(&self.families, reason.name()).inc();
        self.tell(peer, &flight, index, Err(reason), course);
    }

    fn unparsed(&mut self, peer: &Peer, reason: Unparsed, bytes: u64) {
        if self.noticed.insert((peer.service, reason)) {
            self.notices.push(Notice { service: peer.service, pid: peer.pid, reason });
        }
        let reason = match reason {
            Unparsed::NotHttp => UNPARSED[0],
            Unparsed::Tls => UNPARSED[1],
            Unparsed::Http2 => UNPARSED[2],
            Unparsed::IoUring => UNPARSED[3],
            Unparsed::Desync => UNPARSED[4],
        };
        self.families.unparsed.with_label_values(&[reason]).inc_by(bytes);
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, MetricsError> {
    let mut set = GlobSetBuilder::new();
    let error = |glob: &str, error: &globset::Error| MetricsError::IgnorePath {
        glob: glob.to_owned(),
        reason: error.kind().to_string(),
    };
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|problem| error(pattern, &problem))?);
    }
    set.build().map_err(|problem| error("", &problem))
}

#[cfg(test)]
mod tests;
