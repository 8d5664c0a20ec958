//! What the services' processes use: CPU and memory.

use std::collections::HashMap;

use rustc_hash::FxHashMap;

use crate::{event::ServiceId, metrics::Usage, select::ProcFs};

/// Remembers what ended processes used, so that a service's CPU time never goes back.
#[derive(Debug, Default)]
pub(super) struct Workers {
    ended: HashMap<ServiceId, f64>,
}

impl Workers {
    /// A process ended, having used so many nanoseconds of CPU.
    pub(super) fn ended(&mut self, service: ServiceId, cpu: u64) {
        *self.ended.entry(service).or_default() += cpu as f64 / 1e9;
    }

    /// What each service's processes use, with those that ended.
    pub(super) fn usage(
        &self,
        proc: &ProcFs,
        processes: &FxHashMap<u32, ServiceId>,
    ) -> HashMap<ServiceId, Usage> {
        let mut all: HashMap<ServiceId, Usage> = HashMap::new();
        for (&service, &cpu) in &self.ended {
            all.entry(service).or_default().cpu_seconds += cpu;
        }
        for (&pid, &service) in processes {
            let usage = all.entry(service).or_default();
            usage.processes += 1;
            // One that ends now is told by its own event.
            if let Some((cpu, resident)) = proc.usage_of(pid) {
                usage.cpu_seconds += cpu;
                usage.resident_bytes += resident;
            }
        }
        all
    }
}
