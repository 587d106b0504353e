//! Health of the stores: which of them fail.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::error::{StoreError, StoreErrorKind};
use crate::types::Event;

/// Number of times in a row that a full or locked store fails before it counts as failing; for other
/// errors once is enough.
const MAX_PASSING_FAILURES: u32 = 3;

/// Turns a panic of a store into its failure, and nothing else's.
pub(in crate::node) async fn guarded<T>(
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let caught = AssertUnwindSafe(operation).catch_unwind().await;
    caught.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Io, "the store panicked")))
}

/// A store of the node.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) enum StoreName {
    Queue,
    Log,
    Peers,
}

/// Record of which stores work.
#[derive(Debug)]
pub(in crate::node) struct Health {
    /// The failure of a store, until that store works again.
    failing: watch::Sender<Option<StoreErrorKind>>,
    events: broadcast::Sender<Event>,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    /// Number of failures in a row of each store, and the kind of the last.
    rows: [(u32, Option<StoreErrorKind>); 3],
    /// True: the writer waits for a step that takes too long.
    is_stuck: bool,
    /// Time when the writer's latest step ended.
    latest_step: Instant,
}

impl Health {
    pub(in crate::node) fn new(events: broadcast::Sender<Event>) -> Self {
        let record =
            Record { rows: Default::default(), is_stuck: false, latest_step: Instant::now() };
        Self { failing: watch::Sender::new(None), events, record: Mutex::new(record) }
    }

    /// Returns the sender of the failure: to read it, and to set it when the writer has ended.
    pub(in crate::node) fn watch(&self) -> watch::Sender<Option<StoreErrorKind>> {
        self.failing.clone()
    }

    pub(super) fn is_failing(&self, store: StoreName) -> bool {
        self.lock().rows[store as usize].0 > 0
    }

    /// Takes the result of an operation. The first failure of a kind is told; the same again is not.
    pub(in crate::node) fn note<T>(&self, store: StoreName, result: &Result<T, StoreError>) {
        let mut record = self.lock();
        let row = &mut record.rows[store as usize];
        match result {
            Ok(_) => *row = (0, None),
            Err(error) => {
                let told = row.1.replace(error.kind) == Some(error.kind);
                row.0 = row.0.saturating_add(1);
                if !told {
                    self.tell(error.to_string());
                }
            }
        }
        self.show(&record);
    }

    /// Notes that a step of the writer has ended.
    pub(super) fn note_step(&self) {
        self.lock().latest_step = Instant::now();
    }

    /// Returns the time when the writer's latest step ended, or the start.
    pub(in crate::node) fn latest_step(&self) -> Instant {
        self.lock().latest_step
    }

    /// Notes that the writer is stuck, with what is told of it, or goes on.
    pub(in crate::node) fn note_stuck(&self, error: Option<&StoreError>) {
        let mut record = self.lock();
        record.is_stuck = error.is_some();
        if let Some(error) = error {
            self.tell(error.to_string());
        }
        self.show(&record);
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the failure, where there is one.
    fn show(&self, record: &Record) {
        let failed = |(count, kind): &(u32, Option<StoreErrorKind>)| {
            let slow = matches!(kind, Some(StoreErrorKind::Full | StoreErrorKind::Locked));
            kind.filter(|_| !slow || *count >= MAX_PASSING_FAILURES)
        };
        let stuck = record.is_stuck.then_some(StoreErrorKind::Io);
        let failing = stuck.or_else(|| record.rows.iter().find_map(failed));
        self.failing.send_if_modified(|before| {
            let recovered = before.is_some() && failing.is_none();
            if recovered {
                tracing::info!(target: "sorcha_peer::store", "storage works again");
            }
            std::mem::replace(before, failing) != failing
        });
    }

    fn tell(&self, message: String) {
        tracing::error!(target: "sorcha_peer::store", message, "storage failed");
        let _ = self.events.send(Event::StorageFailed { message });
    }
}

/// Runs the store writer. Should it end by a panic, nothing is stored any more: publishes are
/// refused, and the node says so.
pub(in crate::node) async fn run_to_end(
    writer: impl Future<Output = ()>,
    failing: watch::Sender<Option<StoreErrorKind>>,
    events: broadcast::Sender<Event>,
) {
    if AssertUnwindSafe(writer).catch_unwind().await.is_err() {
        failing.send_replace(Some(StoreErrorKind::Closed));
        let message = "the store writer ended by a panic; restart the node".to_owned();
        tracing::error!(target: "sorcha_peer::store", message, "storage failed");
        let _ = events.send(Event::StorageFailed { message });
    }
}
