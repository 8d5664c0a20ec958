//! Counts what the connections find out, for Prometheus.
//!
//! In: the calls of [`Sink`]. Out: [`Metrics::gather`]. A request's labels are resolved once, when its head is
//! recognised, to owned handles.

mod exemplar;
mod families;
mod flask;
mod flights;
mod histograms;
mod labels;
mod recent;
mod register;
mod repeats;
mod rpc;
mod series;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use prometheus::{IntCounter, proto::MetricFamily};
use rustc_hash::{FxHashMap, FxHashSet};

use self::{
    families::{Families, LOST, UNPARSED, place},
    flask::Flask,
    flights::Flights,
    recent::Recent,
    register::Register,
    repeats::{Found, Repeats},
    rpc::Calls,
    series::{Answered, Key, Series},
};
use crate::{
    event::{Address, ServiceId},
    exchange::{
        Answer, Course, Peer, Request, Role, Scheme, Session, Sink, Status, Ticket, Trace, Unanswered,
        Unparsed, Version,
    },
    route::{self, RouteId, Router, Rules},
};

pub use exemplar::{Exemplar, Observation};
pub use families::SECONDS;
pub use histograms::{Bounds, Told};
pub use labels::{DROPPABLE, Labels};
pub use register::{Explained, page};

/// Which metrics are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    /// OpenTelemetry's names.
    pub otel: bool,
    /// Those of the in-process exporter for Flask.
    pub flask: bool,
}

impl Default for Sets {
    fn default() -> Self {
        Self { otel: true, flask: false }
    }
}

/// What is counted, and how.
#[derive(Debug, Default)]
pub struct Options {
    /// The histograms' bounds, in seconds; empty for [`SECONDS`].
    pub buckets: Vec<f64>,
    /// How many label sets there may be.
    pub max_series: usize,
    /// How routes are named, and what isn't counted.
    pub rules: Rules,
    /// Which labels there are.
    pub labels: Labels,
    /// Which metrics are told.
    pub sets: Sets,
    /// Whether the agent's own process is measured.
    pub own_process: bool,
}

/// Why the metrics can't be as asked for.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
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

/// What became of a request: the answer's status, or why there was none.
pub type Outcome = Result<Status, Unanswered>;

/// The route of a request whose path could not be read, and what stands for that path.
const UNKNOWN: &str = "unknown";
/// The session of a WebSocket that is counted nowhere.
const NO_SESSION: Session = Session(u32::MAX);

/// All metrics at one moment.
#[derive(Default)]
pub struct Gathered {
    /// What the metrics library keeps, by name.
    pub families: Vec<MetricFamily>,
    /// The histograms of requests.
    pub histograms: Vec<Told>,
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
    /// How its bytes went.
    pub scheme: Scheme,
    /// The trace that it belongs to.
    pub trace: Option<Trace>,
    /// The name of its path.
    pub route: &'a str,
    /// Its status, or why it has none.
    pub outcome: Outcome,
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

/// What a service does that isn't counted as requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unread {
    /// It moves bytes that can't be read.
    Bytes(Unparsed),
    /// It offers HTTP/3.
    Http3,
}

/// Something that a service does beyond reading, seen for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The service.
    pub service: ServiceId,
    /// The process that did it.
    pub pid: u32,
    /// What.
    pub what: Unread,
}

/// Hears of each request that ended.
pub type Listener = Box<dyn FnMut(&Finished<'_>) + Send>;

/// All metrics.
pub struct Metrics {
    register: Register,
    families: Families,
    flask: Option<Flask>,
    sets: Sets,
    router: Router,
    max_series: usize,
    services: FxHashMap<ServiceId, String>,
    addresses: HashMap<Address, u32, RandomState>,
    by_key: FxHashMap<Key, usize>,
    series: Vec<Series>,
    /// How many label sets there are with a status.
    answered: usize,
    flights: Flights,
    calls: Calls,
    recent: Recent,
    repeats: Repeats,
    events: IntCounter,
    listener: Option<Listener>,
    noticed: FxHashSet<(ServiceId, Unread)>,
    notices: Vec<Notice>,
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
        let register = Register::default();
        let families = Families::new(&register, &buckets, &options.labels)?;
        let flask = if options.sets.flask { Some(Flask::new()?) } else { None };
        let max_series = options.max_series.max(1);
        if options.own_process {
            register
                .registry
                .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
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
            register,
            families,
            flask,
            sets: options.sets,
            router: Router::new(options.rules, max_series.saturating_mul(2)),
            max_series,
            services: FxHashMap::default(),
            addresses: HashMap::default(),
            by_key: FxHashMap::default(),
            series: Vec::new(),
            answered: 0,
            flights: Flights::default(),
            calls: Calls::default(),
            recent: Recent::default(),
            repeats: Repeats::default(),
            events,
            listener: None,
            noticed: FxHashSet::default(),
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

    /// Names routes by other rules from now on; what was counted stays.
    pub fn rules(&mut self, rules: Rules) {
        self.router.replace(rules);
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

    /// Says whether the probes have something.
    pub fn feature(&self, name: &str, enabled: bool) {
        self.families.feature_enabled.with_label_values(&[name]).set(enabled.into());
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
            let labels = self.families.labels.place(self.service_name(service), address);
            // Labels that were dropped leave several places one series.
            self.families.open_connections.with_label_values(&labels).add(count.cast_signed());
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

    fn notice(&mut self, peer: &Peer, what: Unread) {
        if self.noticed.insert((peer.service, what)) {
            self.notices.push(Notice { service: peer.service, pid: peer.pid, what });
        }
    }

    /// What is beyond reading, seen for the first time: of which service and process, and what.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Everything, as it is now, of the metric sets that are told, to be written.
    #[must_use]
    pub fn told(&self) -> Gathered {
        let Families { served, asked, .. } = &self.families;
        let histograms =
            if self.sets.otel { served.tell().into_iter().chain(asked.tell()).collect() } else { Vec::new() };
        Gathered { families: self.gathered(), histograms }
    }

    /// Everything, as it is now, of the metric sets that are told.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.gathered();
        if self.sets.otel {
            families.extend(self.histograms());
        }
        families.sort_by(|one, other| one.name().cmp(other.name()));
        families
    }

    /// Everything, as it is now, whatever is told.
    #[must_use]
    pub fn gather_all(&self) -> Vec<MetricFamily> {
        let mut families = self.register.registry.gather();
        families.extend(self.histograms());
        families
    }

    /// What the metrics library keeps.
    fn gathered(&self) -> Vec<MetricFamily> {
        let mut families = self.register.registry.gather();
        if !self.sets.otel {
            families.retain(|family| !families::is_otel(family.name()));
        }
        families.extend(self.flask.iter().flat_map(|flask| flask.gather(None)));
        families
    }

    fn histograms(&self) -> impl Iterator<Item = MetricFamily> {
        let Families { served, asked, .. } = &self.families;
        served.collect().into_iter().chain(asked.collect())
    }

    /// What the in-process exporter would have told of a service; none where that set isn't kept.
    #[must_use]
    pub fn gather_flask(&self, service: &str) -> Option<Vec<MetricFamily>> {
        let mut families = self.flask.as_ref()?.gather(Some(service));
        families.extend(flask::process(
            self.families.cpu.with_label_values(&[service]).get(),
            self.families.resident.with_label_values(&[service]).get() as f64,
        ));
        Some(families)
    }

    /// The last request of a trace in each series.
    #[must_use]
    pub fn exemplars(&self) -> Vec<Exemplar> {
        self.series.iter().flat_map(Series::exemplars).collect()
    }

    /// What each metric means.
    #[must_use]
    pub fn explained(&self) -> Vec<Explained> {
        let mut all = self.register.explained.borrow().clone();
        all.extend(self.flask.iter().flat_map(Flask::explained));
        all
    }

    /// The services' names, in order.
    #[must_use]
    pub fn service_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.services.values().cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Tells the last requests that ended, the latest first.
    pub fn recent(&self, most: usize, mut tell: impl FnMut(&Finished<'_>)) {
        for request in self.recent.latest(most) {
            tell(&Finished {
                service: self.service_name(request.service),
                pid: request.flight.pid,
                role: request.role,
                server: request.server.as_ref(),
                method: &request.flight.method,
                path: &request.flight.path,
                version: request.flight.version,
                scheme: request.scheme,
                trace: request.flight.trace,
                route: self.router.name_of(request.route),
                outcome: request.outcome,
                course: &request.course,
            });
        }
    }

    /// A service's name.
    #[must_use]
    pub fn service_name(&self, id: ServiceId) -> &str {
        self.services.get(&id).map_or("unknown", String::as_str)
    }

    fn address(&mut self, address: Option<&Address>) -> Option<u32> {
        let address = address?;
        if let Some(&known) = self.addresses.get(address) {
            return Some(known);
        }
        let next = self.addresses.len() as u32;
        self.addresses.insert(address.clone(), next);
        Some(next)
    }

    /// What a request is counted in.
    fn find(&mut self, peer: &Peer, request: &Request<'_>, path: &str) -> Found {
        if let Some(found) = self.repeats.find(peer, request)
            && (peer.role == Role::Client || self.router.again(&found.named))
        {
            return found;
        }
        let named = match peer.role {
            Role::Server if request.target.is_none() => self.router.unknown(UNKNOWN),
            Role::Server => self.router.name(peer.service, path),
            Role::Client => self.router.elsewhere(),
        };
        let found = Found { series: self.resolve(peer, request, named.route), named };
        self.repeats.keep(peer, request, found);
        found
    }

    /// The series of a request's labels; over the cap, that of the route "other".
    fn resolve(&mut self, peer: &Peer, request: &Request<'_>, route: RouteId) -> usize {
        let address = self.address(peer.server());
        let method = series::method(request.method);
        let mut key = Key {
            role: peer.role,
            service: peer.service,
            address,
            method,
            version: request.version,
            scheme: peer.scheme,
            route,
        };
        let known = self.by_key.get(&key).copied();
        if known.is_none() && self.by_key.len().max(self.answered) >= self.max_series {
            key.route = Router::OTHER;
            if peer.role == Role::Client {
                // Whom a process asks is for others to say.
                key.address = None;
            }
        }
        if let Some(known) = known.or_else(|| self.by_key.get(&key).copied()) {
            return known;
        }
        let series = Series::new(
            &self.families,
            self.service_name(peer.service),
            key.address.and(peer.server()),
            &key,
            self.router.name_of(key.route),
        );
        self.series.push(series);
        self.by_key.insert(key, self.series.len() - 1);
        self.series.len() - 1
    }

    /// A request ended: those who listen are told, and it is among the recent ones.
    fn tell(&mut self, peer: &Peer, ticket: Ticket, series: usize, outcome: Outcome, course: &Course) {
        let Some(flight) = self.flights.end(ticket) else { return };
        let route = self.series[series].route();
        if let Some(listener) = &mut self.listener {
            listener(&Finished {
                service: self.services.get(&peer.service).map_or("unknown", String::as_str),
                pid: flight.pid,
                role: peer.role,
                server: peer.server(),
                method: &flight.method,
                path: &flight.path,
                version: flight.version,
                scheme: peer.scheme,
                trace: flight.trace,
                route: self.router.name_of(route),
                outcome,
                course,
            });
        }
        self.recent.add(peer, flight, route, outcome, course);
    }
}

/// Whether an answer shows that there is something at the path: errors of the client don't.
fn proves(status: Status) -> bool {
    status.code().is_some_and(|code| !(400..500).contains(&code))
}

impl Sink for Metrics {
    fn request(&mut self, peer: &Peer, request: &Request<'_>) -> Ticket {
        let path = request.target.map_or(UNKNOWN, route::path);
        let Found { series, named } = self.find(peer, request, path);
        let counters = &mut self.series[series];
        counters.seen.inc();
        if let Some(folded) = &counters.folded {
            folded.inc();
        }
        if named.ignored {
            counters.ignored(&self.families).inc();
            return self.flights.begin(None, path, request, false);
        }
        counters.active.inc();
        self.flights.begin(Some(series), path, request, named.unproven)
    }

    fn finished(&mut self, peer: &Peer, ticket: Ticket, answer: Answer, course: &Course) {
        let Answer { status, grpc } = answer;
        let Some(flight) = self.flights.get(ticket) else { return };
        let Some(index) = flight.series else {
            self.flights.end(ticket);
            return;
        };
        let series = &mut self.series[index];
        series.active.dec();
        let last = course.last_sent.unwrap_or(course.read);
        let first = course.first_sent.unwrap_or(last);
        let (duration, role) = (last.nanoseconds_since(course.read), series.role());
        let seconds = last.seconds_since(course.read);
        let route = series.route();
        self.answered += usize::from(series.is_new(status));
        let Answered { exemplar, observations, flask } =
            series.answered(&mut self.families, self.flask.as_ref(), status, || self.router.name_of(route));
        observations.observe(place::DURATION, duration);
        if let Some(trace) = flight.trace {
            *exemplar = Some(Observation { trace, seconds, at: last });
        }
        if role == Role::Server {
            if let Some(arrived) = course.arrived {
                observations.observe(place::QUEUE, course.read.nanoseconds_since(arrived));
            }
            observations.observe(place::FIRST_BYTE, first.nanoseconds_since(course.read));
            observations.observe(place::SEND, last.nanoseconds_since(first));
            observations.observe(place::REQUEST_BODY, course.request_body);
            observations.observe(place::RESPONSE_BODY, course.response_body);
            if let Some(flask) = flask {
                flask.observe(seconds);
            }
            series.busy.inc_by(seconds);
        }
        if let Some(grpc) = grpc {
            let service = self.services.get(&peer.service).map_or("unknown", String::as_str);
            let call = (service, flight.path.as_str(), grpc);
            self.calls.of(&self.families, self.max_series, peer, call).observe(seconds);
        }
        if flight.unproven && proves(status) {
            self.router.answered(peer.service, &flight.path);
        }
        self.tell(peer, ticket, index, Ok(status), course);
    }

    fn unanswered(&mut self, peer: &Peer, ticket: Ticket, reason: Unanswered, course: &Course) {
        let Some(flight) = self.flights.get(ticket) else { return };
        let Some(index) = flight.series else {
            self.flights.end(ticket);
            return;
        };
        let series = &mut self.series[index];
        series.active.dec();
        series.unanswered(&self.families, reason.name()).inc();
        self.tell(peer, ticket, index, Err(reason), course);
    }

    fn websocket(&mut self, _: &Peer, ticket: Ticket) -> Session {
        let Some(index) = self.flights.get(ticket).and_then(|flight| flight.series) else {
            return NO_SESSION;
        };
        let series = &mut self.series[index];
        if series.role() == Role::Client {
            return NO_SESSION;
        }
        series.websockets(&self.families).open.inc();
        Session(index as u32)
    }

    fn websocket_ended(&mut self, session: Session, seconds: f64) {
        let Some(series) = self.series.get_mut(session.0 as usize) else { return };
        let websockets = series.websockets(&self.families);
        websockets.open.dec();
        websockets.duration.observe(seconds);
    }

    fn offers_http3(&mut self, peer: &Peer) {
        // What a client is offered, it need not take.
        if peer.role == Role::Server {
            self.notice(peer, Unread::Http3);
        }
    }

    fn unparsed(&mut self, peer: &Peer, reason: Unparsed, bytes: u64) {
        self.notice(peer, Unread::Bytes(reason));
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

#[cfg(test)]
mod tests;
