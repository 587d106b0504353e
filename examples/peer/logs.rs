//! Logs on stderr, which nobody has to read.
//!
//! A line is put into a buffer and written by a thread of its own, so that a reader of stderr that
//! stalls, or a pipe that nobody reads, blocks that thread and nothing else. Lines for which the buffer
//! has no room, and those that stderr refuses, are dropped and counted; a line says how many once stderr
//! takes something again, and `stats` at any time. A refusal passes, as that of a full disk does, and
//! stderr is tried again a second later; that of a reader who has gone does not.
//!
//! Bounds: 1 MiB of lines that wait, and as much again that is being written.
//!
//! Tested by: the tests below; `tests/process/logs.rs`, with a pipe that is full and one that is closed.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Maximum number of bytes of lines that wait.
const MAX_WAITING: usize = 1 << 20;
/// Time between a write that was refused and the next.
const PAUSE: Duration = Duration::from_secs(1);

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
        std::thread::spawn(move || writer.write_to(io::stderr(), PAUSE));
        logs
    }

    /// Number of lines that were dropped since nobody took them.
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

    /// Writes what is put into the buffer, until nobody can read it any more. Waits for `pause` after a
    /// write that was refused.
    fn write_to(&self, mut stderr: impl Write, pause: Duration) {
        let mut lines = Vec::new();
        let mut is_torn = false;
        loop {
            let untold = self.take(&mut lines);
            let written = write(&mut stderr, &lines, untold, &mut is_torn);
            let mut state = self.lock();
            state.is_writing = false;
            if let Err(refused) = &written {
                state.is_closed = is_end(&refused.why);
                state.dropped = state.dropped.saturating_add(refused.lines);
                state.told = state.told.saturating_sub(untold);
            }
            let is_closed = state.is_closed;
            drop(state);
            self.0.changed.notify_all();
            if is_closed {
                return;
            }
            if written.is_err() {
                std::thread::sleep(pause);
            }
        }
    }

    /// Waits for something to write, and takes all lines. Returns how many were dropped behind them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut state = self.lock();
        while state.waiting.is_empty() && state.dropped == state.told {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(lines, &mut state.waiting);
        state.is_writing = true;
        let untold = state.dropped.saturating_sub(state.told);
        state.told = state.dropped;
        untold
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write that failed.
struct Refused {
    why: io::Error,
    /// Number of lines that were not written to their end.
    lines: u64,
}

/// Writes lines, and how many were dropped behind them. `is_torn`: the last line before them lacks its
/// end; it is given one first.
fn write(
    stderr: &mut impl Write,
    lines: &[u8],
    untold: u64,
    is_torn: &mut bool,
) -> Result<(), Refused> {
    let mut text = Vec::with_capacity(lines.len());
    if *is_torn {
        text.push(b'\n');
    }
    let lines_at = text.len();
    text.extend_from_slice(lines);
    let told_at = text.len();
    if untold > 0 {
        text.extend(format!("peer: {untold} log lines dropped: nobody took them\n").bytes());
    }
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        let why = match stderr.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                rest = rest.get(count..).unwrap_or_default();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let written = text.len() - rest.len();
        if let Some(last) = written.checked_sub(1).and_then(|last| text.get(last)) {
            *is_torn = *last != b'\n';
        }
        let lost = text.get(written.max(lines_at)..told_at).unwrap_or_default();
        let lines = lost.split_inclusive(|byte| *byte == b'\n').count() as u64;
        return Err(Refused { why, lines });
    }
    *is_torn = false;
    Ok(())
}

/// Reports whether nothing can be written after this error: the reader has gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    /// EBADF on all Unix systems: there is no such file.
    const NO_FILE: i32 = 9;
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
        || cfg!(unix) && error.raw_os_error() == Some(NO_FILE)
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{BrokenPipe, StorageFull, WouldBlock};

    use super::*;

    /// Takes or refuses one write after the other as it is told, and all once there is nothing more to
    /// tell.
    struct Script {
        steps: Vec<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let step = if self.steps.is_empty() { Ok(usize::MAX) } else { self.steps.remove(0) };
            let taken = step?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs whose writer does this, one that ends with the logs, and what was written.
    fn logs(steps: Vec<io::Result<usize>>, first: &[&[u8]]) -> (Logs, Arc<Mutex<Vec<u8>>>) {
        let written = Arc::default();
        let script = Script { steps, written: Arc::clone(&written) };
        let logs = Logs(Arc::default());
        for line in first {
            logs.line(line);
        }
        let writer = logs.clone();
        std::thread::spawn(move || writer.write_to(script, Duration::from_millis(1)));
        (logs, written)
    }

    /// Waits until all that was dropped is told, or until nothing can be.
    fn settle(logs: &Logs) {
        let is_busy = |state: &mut State| {
            !state.is_closed && (state.is_writing || state.dropped != state.told)
        };
        let limit = Duration::from_mins(2);
        let (_state, waited) =
            logs.0.changed.wait_timeout_while(logs.lock(), limit, is_busy).unwrap();
        assert!(!waited.timed_out());
    }

    #[test]
    fn what_is_refused_for_a_while_is_counted_and_the_log_goes_on() {
        // One refusal ended it for good.
        let steps = vec![Err(StorageFull.into()), Err(WouldBlock.into())];
        let (logs, written) = logs(steps, &[b"one\n", b"two\n"]);
        settle_after(&logs, 2);
        logs.line(b"three\n");
        logs.finish(Duration::from_mins(2));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "peer: 2 log lines dropped: nobody took them\nthree\n");
        assert_eq!(logs.dropped(), 2, "what tells of them is none of them");
    }

    #[test]
    fn a_line_that_was_cut_is_ended_and_only_what_lacks_is_counted() {
        let steps = vec![Ok(6), Err(WouldBlock.into())];
        let (logs, written) = logs(steps, &[b"one\n", b"two\n", b"three\n"]);
        settle_after(&logs, 2);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "one\ntw\npeer: 2 log lines dropped: nobody took them\n");
    }

    #[test]
    fn a_reader_that_has_gone_ends_it() {
        let (logs, written) = logs(vec![Err(BrokenPipe.into())], &[b"one\n"]);
        settle_after(&logs, 1);
        logs.line(b"two\n");
        assert_eq!((logs.dropped(), logs.lock().is_closed), (2, true));
        assert!(written.lock().unwrap().is_empty());
    }

    /// Waits until this many lines were dropped and that is settled.
    fn settle_after(logs: &Logs, dropped: u64) {
        let limit = Duration::from_mins(2);
        let is_early = |state: &mut State| state.dropped < dropped;
        drop(logs.0.changed.wait_timeout_while(logs.lock(), limit, is_early).unwrap());
        settle(logs);
        assert_eq!(logs.dropped(), dropped);
    }
}
