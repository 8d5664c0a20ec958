//! A line for each finished request (`--print`).

use std::{fmt::Write as _, io::Write};

use crate::{
    event::{Address, Instant},
    exchange::{Role, Status, Trace, Unanswered},
    metrics::Finished,
};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: a JSON object.
    Json,
}

/// Writes lines until nobody reads them.
pub struct Printer<W, E> {
    format: Format,
    /// Nanoseconds from the Unix epoch to the monotonic clock's zero.
    epoch: E,
    out: Option<W>,
    line: String,
}

impl<W: Write, E: Fn() -> u64> Printer<W, E> {
    /// `epoch` tells what the real-time clock is ahead of the monotonic one, in nanoseconds.
    pub fn new(format: Format, epoch: E, out: W) -> Self {
        Self { format, epoch, out: Some(out), line: String::new() }
    }

    /// Prints one request.
    pub fn print(&mut self, request: &Finished<'_>) {
        let Some(out) = &mut self.out else { return };
        self.line.clear();
        let epoch = (self.epoch)();
        match self.format {
            Format::Text => text(&mut self.line, request, epoch),
            Format::Json => {
                let _ = write!(self.line, "{}", object(request, epoch));
            }
        }
        self.line.push('\n');
        // A reader that has gone stops the printing, not the agent.
        if out.write_all(self.line.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.out = None;
        }
    }
}

fn text(line: &mut String, request: &Finished<'_>, epoch: u64) {
    let course = request.course;
    let _ = write!(
        line,
        "{} {}[{}] {} \"{} ",
        timestamp(course.read, epoch),
        request.service,
        request.pid,
        place(request.server),
        request.method
    );
    line.extend(request.path.chars().flat_map(char::escape_debug));
    let _ = write!(line, " HTTP/{}\" ", request.version.name());
    match request.outcome {
        Ok(status) => line.push_str(&status.name()),
        Err(_) => line.push('-'),
    }
    let milliseconds = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
        (Some(from), Some(to)) => format!("{:.3}ms", to.seconds_since(from) * 1e3),
        _ => "-".to_owned(),
    };
    let _ = write!(
        line,
        " route={} dur={} queue={} ttfb={} in={}B out={}B",
        request.route,
        milliseconds(Some(course.read), course.last_sent),
        milliseconds(course.arrived, Some(course.read)),
        milliseconds(Some(course.read), course.first_sent),
        course.request_body,
        course.response_body
    );
    if request.role == Role::Client {
        line.push_str(" role=client");
    }
    if let Err(reason) = request.outcome {
        let _ = write!(line, " unanswered={}", reason.name());
    }
}

/// A request as a JSON object. `epoch` is what the real-time clock is ahead of the monotonic one, in nanoseconds.
#[must_use]
pub fn object(request: &Finished<'_>, epoch: u64) -> serde_json::Value {
    let course = request.course;
    let seconds = |from: Option<Instant>, to: Option<Instant>| Some(to?.seconds_since(from?));
    let (address, port) = match request.server {
        Some(Address::Inet(inet)) => (inet.ip().to_string(), Some(inet.port())),
        Some(Address::Unix(path)) => (format!("unix:{path}"), None),
        None => (String::new(), None),
    };
    serde_json::json!({
        "timestamp": timestamp(course.read, epoch),
        "service.name": request.service,
        "process.pid": request.pid,
        "role": match request.role {
            Role::Server => "server",
            Role::Client => "client",
        },
        "server.address": address,
        "server.port": port,
        "http.request.method": request.method,
        "url.path": request.path,
        "network.protocol.version": request.version.name(),
        "url.scheme": request.scheme.name(),
        "http.route": request.route,
        "http.response.status_code": request.outcome.ok().and_then(Status::code),
        "unanswered": request.outcome.err().map(Unanswered::name),
        "trace_id": request.trace.as_ref().map(Trace::trace_id),
        "span_id": request.trace.as_ref().map(Trace::span_id),
        "duration": seconds(Some(course.read), course.last_sent),
        "queue": seconds(course.arrived, Some(course.read)),
        "first_byte": seconds(Some(course.read), course.first_sent),
        "http.request.body.size": course.request_body,
        "http.response.body.size": course.response_body,
    })
}

fn place(address: Option<&Address>) -> String {
    match address {
        Some(Address::Inet(inet)) => inet.to_string(),
        Some(Address::Unix(path)) => format!("unix:{path}"),
        None => "-".to_owned(),
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(at: Instant, epoch: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(at.0.saturating_add(epoch));
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exchange::{Course, Scheme, Version},
        metrics::Outcome,
    };

    const EPOCH: u64 = 1_795_320_245_000_000_000;

    fn printed(format: Format, outcome: Outcome, path: &str) -> String {
        let course = Course {
            arrived: Some(Instant(788_958_000)),
            read: Instant(789_000_000),
            first_sent: Some(Instant(790_790_000)),
            last_sent: Some(Instant(790_834_000)),
            request_body: 0,
            response_body: 9,
        };
        let request = Finished {
            service: "gunicorn",
            pid: 4242,
            role: Role::Server,
            server: Some(&Address::Inet(([127, 0, 0, 1], 8000).into())),
            method: "GET",
            path,
            version: Version::Http11,
            scheme: Scheme::Http,
            trace: Trace::read(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            route: "/users/{id}",
            outcome,
            course: &course,
        };
        let mut out = Vec::new();
        Printer::new(format, || EPOCH, &mut out).print(&request);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_text_line_is_the_documented_one() {
        assert_eq!(
            printed(Format::Text, Ok(Status::Code(200)), "/users/7"),
            "2026-11-22T04:04:05.789Z gunicorn[4242] 127.0.0.1:8000 \"GET /users/7 HTTP/1.1\" 200 route=/users/{id} \
             dur=1.834ms queue=0.042ms ttfb=1.790ms in=0B out=9B\n"
        );
    }

    #[test]
    fn a_line_stays_one_line() {
        let line = printed(Format::Text, Err(Unanswered::ClientClosed), "/a\nb\x1b[0m");
        assert_eq!(line.lines().count(), 1);
        assert!(
            line.contains(" - route=")
                && line.ends_with("unanswered=client_closed\n")
                && !line.contains('\x1b')
        );
    }

    #[test]
    fn the_json_line_has_the_conventions_names() {
        let value: serde_json::Value =
            serde_json::from_str(&printed(Format::Json, Ok(Status::Code(200)), "/users/7")).unwrap();
        assert_eq!(value["http.response.status_code"], 200);
        assert_eq!(value["url.path"], "/users/7");
        assert_eq!(value["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(value["span_id"], "00f067aa0ba902b7");
        assert!((value["duration"].as_f64().unwrap() - 0.001_834).abs() < 1e-9);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let course = Course::default();
        let request = Finished {
            service: "a",
            pid: 1,
            role: Role::Server,
            server: None,
            method: "GET",
            path: "/",
            version: Version::Http10,
            scheme: Scheme::Http,
            trace: None,
            route: "/",
            outcome: Ok(Status::Code(200)),
            course: &course,
        };
        let mut printer = Printer::new(Format::Text, || 0, Closed);
        printer.print(&request);
        assert!(printer.out.is_none());
    }
}
