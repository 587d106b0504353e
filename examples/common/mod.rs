//! What the examples that are run by hand share: a command line, logs, signals and a directory that
//! does not outlive the program.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tempfile::TempDir;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Number of attempts to remove a directory that somebody still writes into, and the pause between.
const ATTEMPTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// The command line, or the status to end with: a mistake is told in one line.
pub(crate) fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        if !error.use_stderr() {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        let text = error.to_string();
        mistake::<T>(text.lines().next().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// Tells what is wrong with the command line.
pub(crate) fn mistake<T: Parser>(what: &str) -> ExitCode {
    eprintln!("{}: {what} (see --help)", T::command().get_name());
    ExitCode::from(2)
}

/// Logs to stderr what `RUST_LOG` asks for; errors only where it does not say.
pub(crate) fn log_to_stderr() {
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(tracing::Level::ERROR));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(logs).with(filter).init();
}

/// Hears SIGINT, SIGTERM and SIGHUP from now on; the future gives the status to end with when the
/// first comes.
#[cfg(unix)]
pub(crate) fn signals() -> std::io::Result<impl Future<Output = ExitCode>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        let number = tokio::select! {
            _ = hang_up.recv() => 1,
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
        };
        ExitCode::from(128 + number)
    })
}

/// Hears Ctrl-C.
#[cfg(not(unix))]
pub(crate) fn signals() -> std::io::Result<impl Future<Output = ExitCode>> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => ExitCode::from(130),
            Err(_) => std::future::pending().await,
        }
    })
}

/// A temporary directory of this program.
#[derive(Debug)]
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sorcha-peer-").tempdir();
        dir.map(Self).context("no temporary directory")
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes it. Stores that were dropped and not closed may write into it for a moment.
    pub(crate) async fn remove(self) {
        for _ in 0..ATTEMPTS {
            if std::fs::remove_dir_all(self.path()).is_ok() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        eprintln!("{} could not be removed", self.path().display());
    }
}
