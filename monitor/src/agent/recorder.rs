//! `--record`: what the kernel side tells, redacted, into a file.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, BufWriter},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use monitor_ebpf::record;

use crate::{
    engine::Engine,
    event::{ConnectionId, Event, ServiceId},
    kernel::Losses,
    recording::{LOST_REQUESTS, Redactor, Writer},
};

/// Writes a recording, until the file takes no more.
pub(super) struct Recorder {
    writer: Option<Writer<BufWriter<File>>>,
    redactor: Redactor,
    record: Vec<u8>,
    losses: Losses,
}

impl Recorder {
    /// Begins a file that its owner alone can read.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        // One that was there already had others.
        file.set_permissions(Permissions::from_mode(0o600))?;
        let writer = Writer::new(BufWriter::new(file))?;
        Ok(Self {
            writer: Some(writer),
            redactor: Redactor::default(),
            record: Vec::new(),
            losses: Losses::default(),
        })
    }

    pub(super) fn take(&mut self, event: &Event<'_>, record: &[u8], engine: &mut Engine) {
        self.record.clear();
        self.record.extend_from_slice(record);
        let kept = engine.take_recorded(event, &mut self.record, &mut self.redactor);
        // Programs that other processes run are of no use to a replay, and nobody's business.
        let others = matches!(event, Event::Process(origin, _) | Event::Listening(origin, _) if origin.service == ServiceId(0));
        if kept && !others {
            let record = std::mem::take(&mut self.record);
            self.write(|writer| writer.record(&record));
            self.record = record;
        }
    }

    pub(super) fn service(&mut self, id: ServiceId, name: &str) {
        self.write(|writer| writer.service(id, name));
    }

    /// A connection was found closed without an event.
    pub(super) fn closed(&mut self, connection: ConnectionId, pid: u32) {
        let mut bytes = Vec::with_capacity(size_of::<record::Closed>());
        bytes.extend([record::KIND_CLOSED, record::CLOSED_FULLY]);
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(0_u64.to_ne_bytes());
        bytes.extend(connection.0.to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.resize(size_of::<record::Closed>(), 0);
        self.write(|writer| writer.record(&bytes));
    }

    /// What was lost until now.
    pub(super) fn losses(&mut self, losses: &Losses) {
        if *losses == self.losses {
            return;
        }
        self.losses = *losses;
        for (reason, total) in [
            ("ring_full", losses.ring_full),
            ("map_full", losses.map_full),
            ("preempted", losses.preempted),
            (LOST_REQUESTS, losses.requests),
        ] {
            self.write(|writer| writer.lost(reason, total));
        }
    }

    pub(super) fn finish(&mut self) {
        self.write(Writer::flush);
        self.writer = None;
    }

    fn write(&mut self, write: impl FnOnce(&mut Writer<BufWriter<File>>) -> io::Result<()>) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = write(writer) {
            tracing::error!("the recording ends here: {error}; metrics are not affected");
            self.writer = None;
        }
    }
}
