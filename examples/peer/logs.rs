//! Logs on stderr, which nobody has to read.
//!
//! A line is put into a buffer and written by a thread of its own, so that a reader of stderr that
//! stalls, or a pipe that nobody reads, blocks that thread and nothing else. Lines for which the buffer
//! has no room are dropped and counted; a line says how many once stderr takes something again, and
//! `stats` at any time.
//!
//! Bounds: 1 MiB of lines that wait, and as much again that is being written.
//!
//! Tested by: `tests/process/logs.rs`, with a pipe that is full and one that is closed.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Maximum number of bytes of lines that wait.
const MAX_WAITING: usize = 1 << 20;

/// The way to stderr. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Logs(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when the state has changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Lines are being written.
    is_writing: bool,
    /// Nothing can be written any more.
    is_closed: bool,
    /// Number of lines dropped so far.
    dropped: u64,
    /// Number of lines among them that a line on stderr tells of.
    told: u64,
}

impl Logs {
    /// Starts the thread that writes to stderr.
    pub(crate) fn start() -> Self {
        let logs = Self(Arc::default());
        let writer = logs.clone();
        std::thread::spawn(move || writer.write_to(io::stderr()));
        logs
    }

    /// Number of lines that were dropped since nobody read them.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Puts one line, with its end, into the buffer, or drops it.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut state = self.lock();
        // What is dropped stands behind all that waits: nothing more may wait before that is told.
        let is_told = state.dropped == state.told;
        if state.is_closed || !is_told || state.waiting.len() + line.len() > MAX_WAITING {
            state.dropped += 1;
        } else {
            state.waiting.extend_from_slice(line);
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, at most this long.
    pub(crate) fn finish(&self, limit: Duration) {
        let is_busy =
            |state: &mut State| !state.is_closed && (state.is_writing || !state.waiting.is_empty());
        let _ = self.0.changed.wait_timeout_while(self.lock(), limit, is_busy);
    }

    /// Writes what is put into the buffer, until that fails.
    fn write_to(&self, mut stderr: impl Write) {
        let mut lines = Vec::new();
        loop {
            let untold = self.take(&mut lines);
            if untold > 0 {
                lines.extend(
                    format!("peer: {untold} log lines dropped: nobody read them\n").bytes(),
                );
            }
            let written = stderr.write_all(&lines);
            let mut state = self.lock();
            state.is_writing = false;
            if written.is_err() {
                state.is_closed = true;
                state.dropped += lines.split_inclusive(|byte| *byte == b'\n').count() as u64;
            }
            self.0.changed.notify_all();
            if state.is_closed {
                return;
            }
        }
    }

    /// Waits for lines and takes all of them. Returns how many were dropped behind them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(lines, &mut state.waiting);
        state.is_writing = true;
        let untold = state.dropped - state.told;
        state.told = state.dropped;
        untold
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { logs: self, text: Vec::new() }
    }
}

/// Collects one line, however many writes it comes in.
pub(crate) struct Line<'a> {
    logs: &'a Logs,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.logs.line(&self.text);
        }
    }
}
