//! Which labels there are. Some can be dropped: what they told apart is then counted together.

use crate::event::Address;

/// The labels that can be dropped.
pub const DROPPABLE: [&str; 7] = [
    "server_address",
    "server_port",
    "http_request_method",
    "http_route",
    "http_response_status_code",
    "network_protocol_version",
    "url_scheme",
];

/// What tells requests apart before their status is known.
const REQUEST: [&str; 7] = [
    "service_name",
    "server_address",
    "server_port",
    "http_request_method",
    "http_route",
    "network_protocol_version",
    "url_scheme",
];

/// The labels that were not dropped.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    dropped: Vec<&'static str>,
}

impl Labels {
    /// Without these. The first that can't be dropped is the error.
    pub fn without<'a>(dropped: &'a [String]) -> Result<Self, &'a str> {
        let known = |name: &'a String| DROPPABLE.into_iter().find(|label| label == name).ok_or(name.as_str());
        Ok(Self { dropped: dropped.iter().map(known).collect::<Result<_, _>>()? })
    }

    fn has(&self, name: &str) -> bool {
        !self.dropped.contains(&name)
    }

    /// The names of what tells requests that are answered apart, and what comes after.
    pub(super) fn server(&self, more: &[&'static str]) -> Vec<&'static str> {
        REQUEST.iter().chain(more).copied().filter(|name| self.has(name)).collect()
    }

    /// The same for requests that the monitored processes make: theirs have no route.
    pub(super) fn client(&self, more: &[&'static str]) -> Vec<&'static str> {
        let names = REQUEST.iter().filter(|name| **name != "http_route");
        names.chain(more).copied().filter(|name| self.has(name)).collect()
    }

    /// The values for [`Labels::server`], or for [`Labels::client`] where there is no route.
    pub(super) fn values(
        &self,
        service: &str,
        address: Option<&Address>,
        [method, version, scheme]: [&str; 3],
        route: Option<&str>,
    ) -> Vec<String> {
        let (address, port) = place(address);
        let values =
            [Some(service), Some(&*address), Some(&*port), Some(method), route, Some(version), Some(scheme)];
        REQUEST
            .into_iter()
            .zip(values)
            .filter(|(name, _)| self.has(name))
            .filter_map(|(_, value)| value.map(str::to_owned))
            .collect()
    }

    /// Whether statuses are told apart.
    pub(super) fn has_status(&self) -> bool {
        self.has("http_response_status_code")
    }

    /// The names of what tells places apart.
    pub(super) fn places(&self) -> Vec<&'static str> {
        REQUEST[..3].iter().copied().filter(|name| self.has(name)).collect()
    }

    /// The values for [`Labels::places`].
    pub(super) fn place(&self, service: &str, address: Option<&Address>) -> Vec<String> {
        let (address, port) = place(address);
        let values = REQUEST[..3].iter().zip([service.to_owned(), address, port]);
        values.filter(|(name, _)| self.has(name)).map(|(_, value)| value).collect()
    }
}

/// IP and port, or `unix:PATH` and nothing.
fn place(address: Option<&Address>) -> (String, String) {
    match address {
        Some(Address::Inet(inet)) => (inet.ip().to_string(), inet.port().to_string()),
        Some(Address::Unix(path)) => (format!("unix:{path}"), String::new()),
        None => (String::new(), String::new()),
    }
}
