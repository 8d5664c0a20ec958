//! The load: wrk where the rate or the latency is asked for, h2load where each request that is begun must end.

use anyhow::{Context as _, Result, ensure};

use super::machine::{self, OTHERS};
use crate::run;

/// What a load came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Responses.
    pub(super) requests: u64,
    /// How long it took.
    pub(super) seconds: f64,
    /// The median latency, in seconds, where it was measured.
    pub(super) p50: Option<f64>,
    /// The latency that one in a hundred exceeds, in seconds, where it was measured.
    pub(super) p99: Option<f64>,
}

impl Load {
    pub(super) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Microseconds for each request, of so many seconds for all.
    pub(super) fn microseconds_each(&self, seconds: f64) -> f64 {
        seconds / self.requests as f64 * 1e6
    }
}

/// Asks as fast as answers come, on keep-alive connections, for so many seconds. `script` is a Lua program and its
/// argument.
pub(super) fn wrk(
    url: &str,
    connections: usize,
    seconds: u64,
    script: Option<(&str, usize)>,
) -> Result<Load> {
    let mut command = machine::on_core(OTHERS, "wrk");
    command.args(["--threads=1", "--latency", &format!("--connections={connections}")]);
    command.arg(format!("--duration={seconds}s"));
    if let Some((script, _)) = script {
        command.arg(format!("--script={}", run::root().join("xtask/servers").join(script).display()));
    }
    command.arg(url);
    if let Some((_, argument)) = script {
        command.arg("--").arg(argument.to_string());
    }
    wrk_said(&run::output(&mut command)?)
}

fn wrk_said(output: &str) -> Result<Load> {
    let missing = |what: &str| format!("no {what:?} in wrk's output: {output}");
    let after = |label: &str| {
        let found = output.lines().find_map(|line| line.trim().strip_prefix(label));
        found.map(str::trim).with_context(|| missing(label))
    };
    let total =
        output.lines().find(|line| line.contains(" requests in ")).with_context(|| missing("requests"))?;
    let requests: u64 = total.split_ascii_whitespace().next().unwrap_or_default().parse()?;
    let rate: f64 = after("Requests/sec:")?.parse()?;
    ensure!(rate > 0.0, "wrk got no answer: {output}");
    Ok(Load {
        requests,
        seconds: requests as f64 / rate,
        p50: Some(duration(after("50%")?).with_context(|| missing("50%"))?),
        p99: Some(duration(after("99%")?).with_context(|| missing("99%"))?),
    })
}

/// Seconds of a time with its unit, as wrk writes it.
fn duration(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

/// A load that takes longer, in seconds, has come to a stop.
const LONGEST: &str = "300";

/// How much h2load sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// So many requests, as fast as answers come.
    Requests(u64),
    /// So many a second on each connection, for so many seconds.
    Rate(u64, u64),
}

/// As many HTTP/2 requests as are answered in so many seconds, so many at a time on each connection.
pub(super) fn streams(url: &str, connections: usize, streams: usize, seconds: u64) -> Result<Load> {
    let mut command = machine::on_core(OTHERS, "h2load");
    command.args(["--clients", &connections.to_string(), "--max-concurrent-streams", &streams.to_string()]);
    command.args(["--duration", &seconds.to_string(), url]);
    h2load_said(&run::output(&mut command)?)
}

/// Sends requests on keep-alive connections, and waits for the answer to each; answers that are no success are an error.
pub(super) fn h2load(url: &str, connections: u64, amount: Amount) -> Result<Load> {
    let mut command = machine::on_core(OTHERS, "timeout");
    command.args(["--foreground", LONGEST, "h2load", "--h1", "--clients", &connections.to_string()]);
    match amount {
        Amount::Requests(requests) => command.arg("--requests").arg(requests.to_string()),
        Amount::Rate(rate, seconds) => command
            .args(["--rps", &rate.to_string()])
            .args(["--requests", &(rate * seconds * connections).to_string()]),
    };
    h2load_said(&run::output(command.arg(url))?)
}

fn h2load_said(output: &str) -> Result<Load> {
    let missing = || format!("h2load said something else: {output}");
    let line = |label: &str| output.lines().find_map(|line| line.strip_prefix(label)).with_context(missing);
    let seconds = line("finished in ")?.split(',').next().and_then(duration).with_context(missing)?;
    let requests = line("requests: ")?;
    let count = |word: &str| {
        let part = requests.split(", ").find_map(|part| part.strip_suffix(word));
        part.and_then(|count| count.trim().parse::<u64>().ok()).with_context(missing)
    };
    let (total, succeeded) = (count(" total")?, count(" succeeded")?);
    ensure!(total == succeeded, "not every request was answered: {output}");
    Ok(Load { requests: succeeded, seconds, ..Load::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let output = "Running 3s test @ http://127.0.0.1:8000/\n  1 threads and 16 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   208.13us  176.66us   6.66ms   97.91%\n    Req/Sec    80.17k     9.71k   97.02k    76.67%\n  Latency Distribution\n     50%  178.00us\n     75%  219.00us\n     90%  280.00us\n     99%    1.50ms\n  239407 requests in 3.00s, 38.58MB read\nRequests/sec:  79802.33\nTransfer/sec:     12.86MB\n";
        let load = wrk_said(output).unwrap();
        assert_eq!((load.requests, format!("{:.0}", load.rate())), (239_407, "79802".to_owned()));
        let near = |figure: Option<f64>, expected: f64| (figure.unwrap() - expected).abs() < 1e-12;
        assert!(near(load.p50, 178e-6) && near(load.p99, 1.5e-3), "{load:?}");
    }

    #[test]
    fn h2load_is_understood() {
        let output = "starting benchmark...\n\nfinished in 1.50s, 66666.67 req/s, 9.92MB/s\nrequests: 100000 total, 100000 started, 100000 done, 100000 succeeded, 0 failed, 0 errored, 0 timeout\n";
        let expected = Load { requests: 100_000, seconds: 1.5, ..Load::default() };
        assert_eq!(h2load_said(output).unwrap(), expected);
        assert!(h2load_said(&output.replace("100000 succeeded", "99999 succeeded")).is_err());
    }
}
