//! The series of one set of request labels, as handles that are ready to count.

use prometheus::{Counter, Histogram, IntCounter, IntGauge};

use super::{
    exemplar::{Exemplar, Observation},
    families::{Families, place},
    flask::{Flask, Observed},
    histograms::Observations,
};
use crate::{
    event::{Address, ServiceId},
    exchange::{Role, Scheme, Status, Version},
    route::{RouteId, Router},
};

/// A set of request labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) role: Role,
    pub(super) service: ServiceId,
    pub(super) address: Option<u32>,
    pub(super) method: &'static str,
    pub(super) version: Version,
    pub(super) scheme: Scheme,
    pub(super) route: RouteId,
}

/// What is observed of a response.
pub(super) struct Answered {
    /// The last request of a trace.
    pub(super) exemplar: Option<Observation>,
    pub(super) observations: Observations,
    /// The same under the names of the exporter for Flask, where they are wanted.
    pub(super) flask: Option<Observed>,
}

/// The handles.
pub(super) struct Series {
    key: Key,
    service: Box<str>,
    labels: Vec<String>,
    pub(super) seen: IntCounter,
    pub(super) active: IntGauge,
    pub(super) busy: Counter,
    /// Counted besides where it stands for those over the cap.
    pub(super) folded: Option<IntCounter>,
    ignored: Option<IntCounter>,
    unanswered: Vec<(&'static str, IntCounter)>,
    answered: Vec<(Status, Answered)>,
    websockets: Option<WebSockets>,
}

/// What is observed of connections of RFC 6455.
pub(super) struct WebSockets {
    pub(super) open: IntGauge,
    pub(super) duration: Histogram,
}

impl Series {
    pub(super) fn new(
        families: &Families,
        service: &str,
        address: Option<&Address>,
        key: &Key,
        route: &str,
    ) -> Self {
        let (seen, active, route) = match key.role {
            Role::Server => (&families.seen, &families.active, Some(route)),
            Role::Client => (&families.client_seen, &families.client_active, None),
        };
        let words = [key.method, key.version.name(), key.scheme.name()];
        let labels = families.labels.values(service, address, words, route);
        Self {
            key: *key,
            service: service.into(),
            seen: seen.with_label_values(&labels),
            active: active.with_label_values(&labels),
            busy: families.busy.with_label_values(&[service]),
            folded: (key.route == Router::OTHER).then(|| families.folded.with_label_values(&[service])),
            ignored: None,
            unanswered: Vec::new(),
            answered: Vec::new(),
            websockets: None,
            labels,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.key.role
    }

    pub(super) fn route(&self) -> RouteId {
        self.key.route
    }

    pub(super) fn ignored(&mut self, families: &Families) -> &IntCounter {
        self.ignored.get_or_insert_with(|| families.ignored.with_label_values(&self.labels))
    }

    pub(super) fn unanswered(&mut self, families: &Families, reason: &'static str) -> &IntCounter {
        let known = self.unanswered.iter().position(|(known, _)| *known == reason);
        let index = known.unwrap_or_else(|| {
            let family = match self.key.role {
                Role::Server => &families.unanswered,
                Role::Client => &families.client_unanswered,
            };
            let counter = family.with_label_values(&self.with(reason));
            self.unanswered.push((reason, counter));
            self.unanswered.len() - 1
        });
        &self.unanswered[index].1
    }

    pub(super) fn is_new(&self, status: Status) -> bool {
        self.answered.iter().all(|(known, _)| *known != status)
    }

    pub(super) fn answered<'a>(
        &mut self,
        families: &mut Families,
        flask: Option<&Flask>,
        status: Status,
        route: impl FnOnce() -> &'a str,
    ) -> &mut Answered {
        let known = self.answered.iter().position(|(known, _)| *known == status);
        let index = known.unwrap_or_else(|| {
            let code = status.name();
            let labels = if families.labels.has_status() { self.with(&code) } else { self.without() };
            let (family, flask) = match self.key.role {
                Role::Server => (&mut families.served, flask),
                Role::Client => (&mut families.asked, None),
            };
            let answered = Answered {
                exemplar: None,
                observations: family.of(&labels),
                flask: flask.map(|flask| flask.observed(&self.service, self.key.method, route(), status)),
            };
            self.answered.push((status, answered));
            self.answered.len() - 1
        });
        &mut self.answered[index].1
    }

    pub(super) fn websockets(&mut self, families: &Families) -> &WebSockets {
        let Self { websockets, labels, .. } = self;
        websockets.get_or_insert_with(|| WebSockets {
            open: families.websockets_open.with_label_values(labels),
            duration: families.websocket_duration.with_label_values(labels),
        })
    }

    /// What was observed last of requests that belong to a trace, with the labels that it was counted under.
    pub(super) fn exemplars(&self) -> impl Iterator<Item = Exemplar> {
        self.answered.iter().filter_map(|(_, Answered { exemplar, observations, .. })| {
            let (family, labels) = (observations.name(place::DURATION), observations.labels());
            exemplar.map(|observation| Exemplar { family, labels, observation })
        })
    }

    fn without(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }

    fn with<'a>(&'a self, more: &'a str) -> Vec<&'a str> {
        self.labels.iter().map(String::as_str).chain([more]).collect()
    }
}

/// The methods of RFC 9110 and PATCH (RFC 5789); any other is `_OTHER`, as OpenTelemetry has it.
pub(super) fn method(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}
