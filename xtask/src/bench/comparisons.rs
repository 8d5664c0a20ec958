//! The loads that are measured without httpmon, with it, and with others.

use anyhow::Result;
use end_to_end::tls::Certificate;

use super::{
    Settings,
    pairs::{self, Variant},
    peers::{self, Peer, Python},
    report::Report,
    servers::{self, Subject},
    watch::Watch,
};

/// What each table below is.
fn method(settings: &Settings) -> String {
    format!(
        "{} rounds of {} s each, all variants in turn; wrk with 16 keep-alive connections, as fast as answers come. \
         Medians (lowest to highest); ratio and addition are to the first row of the same round.",
        settings.rounds, settings.seconds
    )
}

/// Gunicorn with Flask: nothing, httpmon, and what else people take.
pub(super) fn flask(settings: &Settings, report: &mut Report) -> Result<()> {
    let python = Python::install()?;
    let subjects = [
        ("prometheus-flask-exporter", peers::flask(&python, Peer::Exporter)?),
        ("opentelemetry-instrument", peers::flask(&python, Peer::OpenTelemetry)?),
        ("Elastic APM's agent", peers::flask(&python, Peer::ElasticApm)?),
    ];
    let bare = peers::flask(&python, Peer::None)?;
    let mut variants = vec![Variant::bare("bare", &bare), Variant::httpmon("httpmon", &bare, &[])];
    variants.extend(subjects.iter().map(|(name, subject)| Variant::bare(name, subject)));
    report.say(&method(settings));
    report.say(&pairs::compare(&variants, settings)?);
    let reported = subjects.iter().filter_map(|(name, subject)| {
        let bytes = subject.sink.as_ref()?.bytes();
        Some(format!("{name} sent {:.1} MiB to its collector", bytes as f64 / f64::from(1 << 20)))
    });
    let reported: Vec<String> = reported.collect();
    report.say(&format!("{}.", reported.join(", ")));
    Ok(())
}

/// The forms of httpmon's hooks.
const FORMS: [(&str, &[&str]); 3] = [
    ("httpmon, BTF-typed tracepoints", &["--hooks", "tp-btf"]),
    ("httpmon, classic tracepoints", &["--hooks", "tracepoint"]),
    ("httpmon, system calls", &["--backend", "syscall"]),
];

/// nginx: nothing, httpmon's hooks, and those that are usual.
pub(super) fn nginx(settings: &Settings, report: &mut Report) -> Result<()> {
    let subject = servers::nginx()?;
    let mut variants = vec![Variant::bare("bare", &subject)];
    for (name, options) in FORMS {
        variants.push(Variant::httpmon(name, &subject, options));
    }
    for pid in subject.processes().into_iter().filter(|&pid| pid != subject.pid()) {
        let name = "enter and exit of 8 system calls (bpftrace)".to_owned();
        variants.push(Variant { name, subject: &subject, watch: Watch::Classic(pid), counts: false });
    }
    report.say(&method(settings));
    report.say(&pairs::compare(&variants, settings)?);
    Ok(())
}

/// Other servers.
pub(super) fn servers(settings: &Settings, report: &mut Report) -> Result<()> {
    let python = Python::install()?;
    report.say(&method(settings));
    for (name, subject) in [("uvicorn", servers::uvicorn(&python, None)), ("Go net/http", servers::go(None)?)]
    {
        with_and_without(name, &subject, settings, report)?;
    }
    Ok(())
}

/// A server without httpmon and with it.
fn with_and_without(name: &str, subject: &Subject, settings: &Settings, report: &mut Report) -> Result<()> {
    let variants =
        [Variant::bare(&format!("{name}, bare"), subject), Variant::httpmon("httpmon", subject, &[])];
    report.say(&pairs::compare(&variants, settings)?);
    Ok(())
}

/// The same servers with TLS and HTTP/2, beside themselves without.
pub(super) fn protocols(settings: &Settings, report: &mut Report) -> Result<()> {
    const STREAMS: usize = 10;
    let python = Python::install()?;
    let certificate = Certificate::by("/usr/bin/openssl".as_ref());
    report.say(&format!(
        "{} HTTP/2 by h2load, {STREAMS} requests at a time on each connection.",
        method(settings)
    ));
    for (name, subject) in [
        ("nginx, HTTP/1.1", servers::nginx()?),
        ("nginx, HTTP/1.1, TLS", servers::nginx_tls(&certificate)?),
        ("nginx, HTTP/2", servers::nginx_http2()?.with_streams(STREAMS)),
        ("nginx, HTTP/2, TLS", servers::nginx_tls(&certificate)?.with_streams(STREAMS)),
        ("uvicorn, TLS", servers::uvicorn(&python, Some(&certificate))),
        ("Go net/http, HTTP/1.1", servers::go(None)?),
        ("Go net/http, HTTP/1.1, TLS", servers::go(Some(&certificate))?),
        ("Go net/http, HTTP/2, TLS", servers::go(Some(&certificate))?.with_streams(STREAMS)),
        ("hyper with rustls, HTTP/1.1, TLS", servers::rustls(&certificate, "1")),
        ("hyper with rustls, HTTP/2, TLS", servers::rustls(&certificate, "2").with_streams(STREAMS)),
    ] {
        with_and_without(name, &subject, settings, report)?;
    }
    Ok(())
}

/// A server that isn't selected, while httpmon watches another, which idles.
pub(super) fn unselected(settings: &Settings, report: &mut Report) -> Result<()> {
    let (loaded, watched) = (servers::nginx()?, servers::nginx()?);
    let mut variants = vec![Variant::bare("bare", &loaded)];
    for (name, options) in FORMS {
        variants.push(beside(name, &loaded, &watched, options));
    }
    report.say(&format!("{} httpmon watches another nginx, which idles.", method(settings)));
    report.say(&pairs::compare(&variants, settings)?);
    Ok(())
}

fn beside<'a>(name: &str, loaded: &'a Subject, watched: &Subject, options: &[&str]) -> Variant<'a> {
    let watch = Watch::httpmon(watched.pid(), options);
    Variant { name: name.to_owned(), subject: loaded, watch, counts: false }
}
