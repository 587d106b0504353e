//! How far the program is, on stderr: one line that changes on a terminal, else a line for each
//! phase and each second.

use std::convert::Infallible;
use std::io::{IsTerminal, Write, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The phase that the program is in.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<Phase>);

#[derive(Debug, Clone, Copy)]
struct Phase {
    what: &'static str,
    done: usize,
    of: usize,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Self(Mutex::new(Phase { what, done: 0, of: 0 }))
    }

    /// Starts to count `of` things anew.
    pub(crate) fn phase(&self, what: &'static str, of: usize) {
        *self.lock() = Phase { what, done: 0, of };
    }

    pub(crate) fn step(&self) {
        self.lock().done += 1;
    }

    pub(crate) fn expect_fewer(&self, count: usize) {
        let mut phase = self.lock();
        phase.of = phase.of.saturating_sub(count);
    }

    /// Prints for ever.
    pub(crate) async fn print(&self) -> Infallible {
        let terminal = stderr().is_terminal();
        let (mut last, mut phase, mut ticks_since) = (String::new(), "", 0);
        loop {
            let now = *self.lock();
            let line = now.line();
            let is_due = terminal || now.what != phase || ticks_since >= 10;
            if is_due && line != last {
                // Nobody may be reading.
                let _ = if terminal {
                    write!(stderr(), "\r\x1b[2K{line}")
                } else {
                    writeln!(stderr(), "{line}")
                };
                (last, phase, ticks_since) = (line, now.what, 0);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            ticks_since += 1;
        }
    }

    /// Removes the line from a terminal.
    #[expect(clippy::unused_self, reason = "it is this line")]
    pub(crate) fn clear(&self) {
        if stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Phase {
    fn line(&self) -> String {
        let Self { what, done, of } = self;
        if *of == 0 { (*what).to_owned() } else { format!("{what}: {done} of {of}") }
    }
}
