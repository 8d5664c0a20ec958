//! A minute of as much as one core of nginx can answer: whether all of it is counted.

use anyhow::Result;

use super::{
    load::{self, Amount},
    machine,
    report::{Report, Table},
    servers, watch,
};
use crate::signals;

/// How many requests a second are wanted.
const RATE: f64 = 100_000.0;
/// For how long.
const SECONDS: u64 = 60;

/// wrk for a minute, then half as many requests as it got, each of which is waited for: h2load is slower.
pub(super) fn sustained(report: &mut Report) -> Result<()> {
    let subject = servers::nginx()?;
    let mut table = Table::new(&[
        "client",
        "seconds",
        "requests/s",
        "the client's count",
        "nginx's own",
        "httpmon's",
        "events lost",
        "requests lost",
        "agent's CPU, µs a request",
        "its memory, MiB",
    ]);
    let mut amount = 0;
    for client in ["wrk", "h2load"] {
        signals::go_on()?;
        let own_before = subject.own_count()?;
        let agent = watch::httpmon(&["--pid", &subject.pid().to_string()])?;
        let cpu_before = machine::cpu(agent.pid())?;
        let load = match client {
            "wrk" => load::wrk(&subject.url(), 16, SECONDS, None)?,
            _ => load::h2load(&subject.url(), 16, Amount::Requests(amount))?,
        };
        amount = load.requests / 2;
        let metrics = watch::settled(&agent, load.requests);
        let cpu = machine::cpu(agent.pid())? - cpu_before;
        let seen = metrics.count("httpmon_requests_seen_total", &[]);
        let finished = metrics.count("http_server_request_duration_seconds_count", &[]);
        let unanswered = metrics.count("http_server_requests_unanswered_total", &[]);
        let counted = if unanswered == 0 {
            finished.to_string()
        } else {
            format!("{seen} ({finished} finished, {unanswered} unanswered)")
        };
        // The question before and this one are no part of the load.
        let own = subject.own_count()? - own_before - 1;
        table.row(&[
            &client,
            &format!("{:.1}", load.seconds),
            &format!("{:.0}", load.rate()),
            &load.requests,
            &own,
            &counted,
            &metrics.count("httpmon_events_lost_total", &[]),
            &metrics.count("httpmon_requests_lost_total", &[]),
            &format!("{:.2}", load.microseconds_each(cpu)),
            &format!("{:.1}", machine::resident(agent.pid())? / f64::from(1 << 20)),
        ]);
    }
    report.say(&format!(
        "As fast as answers come, {RATE:.0} requests/s wanted; 16 keep-alive connections, one nginx worker. wrk leaves \
         with requests under way, which nginx and httpmon have seen; h2load waits for each answer."
    ));
    report.say(table.text());
    Ok(())
}
