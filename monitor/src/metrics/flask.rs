//! The metrics of prometheus-flask-exporter, so that its dashboards go on.

use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, core::Collector,
    proto::MetricFamily,
};

use super::register::{Explained, Register};
use crate::exchange::Status;

/// The exporter's bounds: the Python client's own.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Which service, where several are told together.
const SERVICE: &str = "service_name";
/// The status of a request that ended in an exception, as far as it shows from outside.
const EXCEPTION: Status = Status::Code(500);

/// The families.
pub(super) struct Flask {
    register: Register,
    duration: HistogramVec,
    total: IntCounterVec,
    exceptions: IntCounterVec,
}

/// The handles of a method, path and status.
pub(super) struct Observed {
    duration: Histogram,
    total: IntCounter,
    exceptions: Option<IntCounter>,
}

impl Observed {
    pub(super) fn observe(&self, seconds: f64) {
        self.duration.observe(seconds);
        self.total.inc();
        if let Some(exceptions) = &self.exceptions {
            exceptions.inc();
        }
    }
}

impl Flask {
    pub(super) fn new() -> prometheus::Result<Self> {
        let register = Register::default();
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "flask_http_request_duration_seconds",
                "From the first request byte read by the process to the last response byte handed to the kernel.",
            )
            .buckets(SECONDS.to_vec()),
            &[SERVICE, "method", "path", "status"],
        )?;
        let counter = |name: &str, help: &str| {
            IntCounterVec::new(Opts::new(name, help), &[SERVICE, "method", "status"])
        };
        let total = counter("flask_http_request_total", "Requests that were answered.")?;
        let exceptions = counter(
            "flask_http_request_exceptions_total",
            "Requests that were answered with status 500: the exceptions that show from outside.",
        )?;
        let info = Opts::new("flask_exporter_info", "What tells these metrics: httpmon, of this version.");
        let info = prometheus::GaugeVec::new(info, &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        register.add(info)?;
        Ok(Self {
            duration: register.add(duration)?,
            total: register.add(total)?,
            exceptions: register.add(exceptions)?,
            register,
        })
    }

    pub(super) fn explained(&self) -> Vec<Explained> {
        self.register.explained.borrow().clone()
    }

    pub(super) fn observed(&self, service: &str, method: &str, path: &str, status: Status) -> Observed {
        let code = status.name();
        let exceptions = || self.exceptions.with_label_values(&[service, method, &code]);
        Observed {
            duration: self.duration.with_label_values(&[service, method, path, &code]),
            total: self.total.with_label_values(&[service, method, &code]),
            exceptions: (status == EXCEPTION).then(exceptions),
        }
    }

    /// All of it, or what concerns one service, without saying so.
    pub(super) fn gather(&self, service: Option<&str>) -> Vec<MetricFamily> {
        let mut families = self.register.registry.gather();
        let Some(service) = service else { return families };
        for family in &mut families {
            let mut metrics = family.take_metric();
            metrics.retain_mut(|metric| {
                let mut labels = metric.take_label();
                let of = labels.iter().find(|label| label.name() == SERVICE);
                let ours = of.is_none_or(|label| label.value() == service);
                labels.retain(|label| label.name() != SERVICE);
                metric.set_label(labels);
                ours
            });
            family.set_metric(metrics);
        }
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

/// What the exporter tells of its process, here of all processes of the service.
pub(super) fn process(cpu_seconds: f64, resident_bytes: f64) -> Vec<MetricFamily> {
    let cpu = Counter::new(
        "process_cpu_seconds_total",
        "CPU time that the service's processes used, in user and kernel mode, those that ended included.",
    );
    let resident = Gauge::new("process_resident_memory_bytes", "Resident memory of the service's processes.");
    let mut families = Vec::new();
    if let (Ok(cpu), Ok(resident)) = (cpu, resident) {
        cpu.inc_by(cpu_seconds);
        resident.set(resident_bytes);
        families.extend(cpu.collect());
        families.extend(resident.collect());
    }
    families
}
