//! `httpmon replay`: a recording through the same pipeline, without a kernel: the same metrics every time.

use std::{fs::File, io::BufReader, path::Path};

use indicatif::ProgressBar;

use crate::{
    engine::Engine,
    event,
    recording::{Frame, LOST_REQUESTS, ReadError, Reader},
};

/// Why a recording can't be replayed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct ReplayError {
    path: String,
    source: ReadError,
}

/// Takes every event of a recording. `progress` goes with what is read, in bytes.
pub fn replay(path: &Path, engine: &mut Engine, progress: &ProgressBar) -> Result<(), ReplayError> {
    let named = |source| ReplayError { path: path.display().to_string(), source };
    let file = File::open(path).map_err(|error| named(error.into()))?;
    progress.set_length(file.metadata().map_or(0, |about| about.len()));
    let file = progress.wrap_read(file);
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file)).map_err(named)?;
    while let Some(frame) = reader.frame().map_err(named)? {
        match frame {
            Frame::Service(id, name) => engine.metrics.service(id, name),
            Frame::Lost(reason, total) if reason == LOST_REQUESTS => engine.metrics.requests_lost(total),
            Frame::Lost(reason, total) => engine.metrics.lost(reason, total),
            Frame::Record(record) => {
                engine.metrics.events(1);
                match event::decode(record) {
                    Ok(event) => engine.take(&event),
                    Err(error) => {
                        tracing::debug!("a record can't be read: {error}");
                        engine.metrics.undecodable();
                    }
                }
            }
        }
    }
    let Engine { connections, metrics } = engine;
    metrics.open_connections(connections.open());
    Ok(())
}
