//! From a path to its route's name.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use monitor::{
    event::ServiceId,
    route::{Mode, Router, Rules},
};

fn routes(criterion: &mut Criterion) {
    let service = ServiceId(1);
    let mut name = |id: &str, mode, patterns: &[&str], path: &str| {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let rules = Rules::new(mode, &patterns, &[]).expect("the patterns are right");
        let mut router = Router::new(rules, 4_000);
        router.name(service, path);
        router.answered(service, path);
        criterion.bench_function(id, |bencher| bencher.iter(|| router.name(service, black_box(path)).route));
    };
    name("routes/plain", Mode::Auto, &[], "/shop/basket");
    name("routes/number", Mode::Auto, &[], "/items/7");
    name("routes/uuid", Mode::Auto, &[], "/items/8c1f0d6e-37c5-4ad6-8a4e-0d2a5c3b9e11/parts/12");
    name("routes/path", Mode::Path, &[], "/items/7");
    let patterns =
        ["/users/{id}", "/users/{id}/orders", "/orders/{id}", "/items/{id}", "/items/{id}/parts/{part}"];
    name("routes/pattern", Mode::Auto, &patterns, "/items/7/parts/12");
}

criterion_group!(benches, routes);
criterion_main!(benches);
