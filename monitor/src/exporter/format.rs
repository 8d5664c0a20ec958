//! Prometheus' text format, and OpenMetrics.

use std::{collections::HashMap, fmt::Write as _};

use prometheus::{TextEncoder, proto::MetricFamily};

use crate::metrics::{Bounds, Exemplar, Gathered, Observation, Told};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header (RFC 9110, section 12.5.1) prefers; the text format where it doesn't say.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let weight = |kind: &str| {
            accept
                .split(',')
                .filter(|range| range.split(';').next().is_some_and(|range| range.trim() == kind))
                .map(|range| {
                    let weight = range.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
                    weight.and_then(|weight| weight.trim().parse().ok()).unwrap_or(1.0_f64)
                })
                .fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes all metrics, a piece at a time.
    #[must_use]
    pub fn write(self, gathered: Gathered) -> Pieces {
        let Gathered { families, histograms } = gathered;
        let families = families.into_iter().map(Family::Kept);
        let mut families: Vec<_> = families.chain(histograms.into_iter().map(Family::Counted)).collect();
        // From the end on.
        families.sort_by(|one, other| other.name().cmp(one.name()));
        Pieces { format: self, families, written: 0, exemplars: HashMap::new(), over: false }
    }

    /// Writes some families.
    pub fn encode(self, families: &[MetricFamily]) -> Result<String, String> {
        let text = TextEncoder::new().encode_to_string(families).map_err(|error| error.to_string())?;
        Ok(match self {
            Self::Text => text,
            Self::OpenMetrics => openmetrics(&text),
        })
    }
}

/// A family to be written.
enum Family {
    Kept(MetricFamily),
    Counted(Told),
}

impl Family {
    fn name(&self) -> &str {
        match self {
            Self::Kept(family) => family.name(),
            Self::Counted(told) => told.name(),
        }
    }
}

/// All metrics as text. However many there are, a piece is small.
pub struct Pieces {
    format: Format,
    /// Those that are to come, the next one last.
    families: Vec<Family>,
    /// How many label sets of the next one are written.
    written: usize,
    /// Those that wait for their histogram's bucket.
    exemplars: HashMap<String, Observation>,
    over: bool,
}

impl Pieces {
    /// The same, with exemplars of histograms, whose times are since the Unix epoch: OpenMetrics has such.
    #[must_use]
    pub fn with(mut self, exemplars: &[Exemplar]) -> Self {
        if self.format == Format::OpenMetrics {
            self.exemplars = exemplars.iter().map(|one| (series(one), one.observation)).collect();
        }
        self
    }
}

impl Iterator for Pieces {
    type Item = Result<String, String>;

    fn next(&mut self) -> Option<Self::Item> {
        /// Label sets of histograms, each of a few kilobytes.
        const SETS: usize = 32;
        match self.families.last() {
            Some(Family::Kept(family)) => {
                let text = self.format.encode(std::slice::from_ref(family));
                self.families.pop();
                Some(text)
            }
            Some(Family::Counted(told)) => {
                let mut text = String::new();
                if self.written == 0 {
                    let help = match self.format {
                        Format::Text => told.help().to_owned(),
                        Format::OpenMetrics => told.help().replace('"', "\\\""),
                    };
                    text.extend([
                        "# HELP ",
                        told.name(),
                        " ",
                        &help,
                        "\n# TYPE ",
                        told.name(),
                        " histogram\n",
                    ]);
                }
                let sets = self.written..(self.written + SETS).min(told.len());
                self.written = sets.end;
                let bounds = match self.format {
                    Format::Text => Bounds::Plain,
                    Format::OpenMetrics => Bounds::Floats,
                };
                told.write(&mut text, sets, bounds);
                if !self.exemplars.is_empty() {
                    text = with_exemplars(&text, &mut self.exemplars);
                }
                if self.written == told.len() {
                    self.written = 0;
                    self.families.pop();
                }
                Some(Ok(text))
            }
            None if self.format == Format::OpenMetrics && !self.over => {
                self.over = true;
                Some(Ok("# EOF\n".to_owned()))
            }
            None => None,
        }
    }
}

/// What differs: a counter's family is named without `_total`.
fn openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(help) = line.strip_prefix("# HELP ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let (name, help) = help.split_once(' ').unwrap_or((help, ""));
        let kind = lines.next().and_then(|line| line.rsplit(' ').next()).unwrap_or("unknown");
        let family = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
        let help = help.replace('"', "\\\"");
        out.extend(["# HELP ", family, " ", &help, "\n# TYPE ", family, " ", kind, "\n"]);
    }
    floats(&out)
}

/// Adds to each histogram that has an exemplar waiting that exemplar, at the bucket that counted it.
fn with_exemplars(text: &str, waiting: &mut HashMap<String, Observation>) -> String {
    let mut out = String::with_capacity(text.len() + waiting.len().min(32) * 128);
    for line in text.lines() {
        out.push_str(line);
        if let Some((series, bound)) = line.split_once(",le=\"")
            && let Some(bound) = bound.split('"').next().and_then(|bound| bound.parse::<f64>().ok())
            && waiting.get(series).is_some_and(|observation| observation.seconds <= bound)
            && let Some(Observation { trace, seconds, at }) = waiting.remove(series)
        {
            let (trace_id, span_id) = (trace.trace_id(), trace.span_id());
            let time = at.0 as f64 / 1e9;
            let _ = write!(out, " # {{span_id=\"{span_id}\",trace_id=\"{trace_id}\"}} {seconds} {time:.3}");
        }
        out.push('\n');
    }
    out
}

/// What a line of the histogram's buckets begins with, up to the bound.
fn series(exemplar: &Exemplar) -> String {
    format!("{}_bucket{{{}", exemplar.family, exemplar.labels)
}

/// Whole bounds of histograms as floats, `1.0` for `1`: as OpenMetrics has them, and the Python client.
#[must_use]
pub(super) fn floats(text: &str) -> String {
    const BOUND: &str = "le=\"";
    let mut out = String::with_capacity(text.len() + text.len() / 64);
    let mut rest = text;
    while let Some(at) = rest.find(BOUND) {
        let (before, after) = rest.split_at(at + BOUND.len());
        let end = after.find('"').unwrap_or(after.len());
        out.push_str(before);
        out.push_str(&after[..end]);
        let is_label = before[..at].ends_with(['{', ',']);
        if is_label && end > 0 && after[..end].bytes().all(|byte| byte.is_ascii_digit()) {
            out.push_str(".0");
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Instant, exchange::Trace};

    #[test]
    fn what_is_accepted_is_given() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text; version=0.0.1; q=0.1, text/plain; q=0.9", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn an_exemplar_stands_at_the_bucket_that_counted_it() {
        let trace = Trace::read(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let exemplar = Exemplar {
            family: "h",
            labels: r#"b="x",route="/\"a\\""#.into(),
            observation: Observation { trace, seconds: 0.5, at: Instant(1_795_320_245_500_000_000) },
        };
        let mut waiting = HashMap::from([(series(&exemplar), exemplar.observation)]);
        let line = |bound: &str| format!("h_bucket{{b=\"x\",route=\"/\\\"a\\\\\",le=\"{bound}\"}} 1\n");
        let other = "h_bucket{b=\"x\",route=\"/other\",le=\"1.0\"} 1\n";
        let text = [other, &line("0.1"), &line("1.0"), &line("+Inf")].concat();
        let marked = " 1 # {span_id=\"00f067aa0ba902b7\",trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} 0.5 1795320245.500\n";
        let with = line("1.0").replace(" 1\n", marked);
        let expected = [other, &line("0.1"), &with, &line("+Inf")].concat();
        assert_eq!(with_exemplars(&text, &mut waiting), expected);
        assert!(waiting.is_empty());
    }

    #[test]
    fn openmetrics_names_families_without_total() {
        let text = "# HELP a_total \"A\" things.\n# TYPE a_total counter\na_total{x=\"le=\\\"1\\\"\"} 1\n\
                    # HELP b B.\n# TYPE b histogram\nb_bucket{x=\"y\",le=\"1\"} 2\nb_bucket{le=\"0.5\"} 2\n";
        assert_eq!(
            openmetrics(text),
            "# HELP a \\\"A\\\" things.\n# TYPE a counter\na_total{x=\"le=\\\"1\\\"\"} 1\n\
             # HELP b B.\n# TYPE b histogram\nb_bucket{x=\"y\",le=\"1.0\"} 2\nb_bucket{le=\"0.5\"} 2\n"
        );
    }
}
