//! Lines on stdout, beside the event path: a reader that is slow loses lines, the agent never waits for it.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    time::Duration,
};

/// How many lines can wait.
const QUEUE: usize = 1 << 16;
/// How long the last lines may take when the agent stops.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Takes lines, one a call of [`Write::write`].
pub(super) struct LineQueue {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// What writes them.
pub(super) struct LineWriter {
    finished: Receiver<()>,
    dropped: Arc<AtomicU64>,
}

/// What will write them, once it is started.
pub(super) struct Unstarted<W> {
    out: W,
    waiting: Receiver<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// A queue of lines for `out`.
pub(super) fn queue<W: Write + Send + 'static>(out: W) -> (LineQueue, Unstarted<W>) {
    let (lines, waiting) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    (LineQueue { lines, dropped: Arc::clone(&dropped) }, Unstarted { out, waiting, dropped })
}

impl<W: Write + Send + 'static> Unstarted<W> {
    /// Starts to write.
    pub(super) fn start(self) -> io::Result<LineWriter> {
        let Self { out, waiting, dropped } = self;
        let (done, finished) = channel();
        std::thread::Builder::new()
            .name("print".to_owned())
            .spawn(move || write_all(out, &waiting, &done))?;
        Ok(LineWriter { finished, dropped })
    }
}

fn write_all(out: impl Write, waiting: &Receiver<Vec<u8>>, done: &Sender<()>) {
    let mut out = io::BufWriter::new(out);
    while let Ok(line) = waiting.recv() {
        let written = out.write_all(&line).and_then(|()| {
            waiting.try_iter().try_for_each(|line| out.write_all(&line))?;
            out.flush()
        });
        if let Err(error) = written {
            tracing::warn!("requests are printed no more: stdout: {error}");
            return;
        }
    }
    // Nobody waits where the agent was not asked to stop in order.
    let _ = done.send(());
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.lines.try_send(line.to_vec()) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(
                        "stdout's reader is too slow: lines are dropped; the metrics are not affected"
                    );
                }
            }
            Err(TrySendError::Disconnected(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LineWriter {
    /// Waits for the lines that were taken, once the queue is dropped.
    pub(super) fn finish(self) {
        let _ = self.finished.recv_timeout(LAST_LINES);
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!("{dropped} lines were dropped: stdout's reader was too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_before_the_end() {
        let out = Shared::default();
        let (mut queue, writer) = queue(out.clone());
        let writer = writer.start().unwrap();
        for number in 0..1000 {
            queue.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(queue);
        writer.finish();
        let expected = (0..1000).fold(String::new(), |text, number| text + &format!("{number}\n"));
        assert_eq!(*out.0.lock().unwrap(), expected.as_bytes());
    }

    #[test]
    fn a_reader_that_stands_still_loses_lines_and_holds_nobody_up() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = channel();
        let (mut queue, writer) = queue(Stuck(stuck));
        let writer = writer.start().unwrap();
        for _ in 0..QUEUE * 2 {
            queue.write_all(&[b'x'; 100]).unwrap();
        }
        assert!(queue.dropped.load(Ordering::Relaxed) > 0);
        drop(release);
        drop(queue);
        writer.finish();
    }
}
