//! Calls of gRPC, under the names of OpenTelemetry's conventions for them (1.37).

use std::collections::HashMap;

use prometheus::Histogram;

use super::families::Families;
use crate::{
    event::ServiceId,
    exchange::{Grpc, Peer, Role},
    route::OTHER,
};

/// Stands for the service and the method of a path that isn't known, or that is none of gRPC's.
const UNKNOWN: &str = "unknown";

/// The series, by whose calls and what came of them, and by path.
#[derive(Default)]
pub(super) struct Calls {
    series: HashMap<(Role, ServiceId, Grpc), HashMap<Box<str>, Histogram>>,
    count: usize,
}

impl Calls {
    /// The series of a call; over the cap, that of the service and the method "other".
    pub(super) fn of(
        &mut self,
        families: &Families,
        most: usize,
        peer: &Peer,
        (service, path, grpc): (&str, &str, Grpc),
    ) -> &Histogram {
        let series = self.series.entry((peer.role, peer.service, grpc)).or_default();
        let path = if series.contains_key(path) || self.count < most { path } else { OTHER };
        if !series.contains_key(path) {
            let family = match peer.role {
                Role::Server => &families.rpc_server,
                Role::Client => &families.rpc_client,
            };
            let (rpc_service, rpc_method) = if path == OTHER { (OTHER, OTHER) } else { names(path) };
            let histogram = family.with_label_values(&[service, rpc_service, rpc_method, &grpc.name()]);
            series.insert(path.into(), histogram);
            self.count += 1;
        }
        &series[path]
    }
}

/// `/package.Service/Method`.
fn names(path: &str) -> (&str, &str) {
    let named = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    named.filter(|(service, method)| !service.is_empty() && !method.is_empty()).unwrap_or((UNKNOWN, UNKNOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_services_and_methods() {
        assert_eq!(names("/shop.v1.Cart/Add"), ("shop.v1.Cart", "Add"));
        for path in ["", "/", "/Cart", "/Cart/", "//Add", "unknown", "*"] {
            assert_eq!(names(path), (UNKNOWN, UNKNOWN), "{path}");
        }
    }
}
