//! Health of the stores: which of them fail.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use tokio::sync::{broadcast, watch};

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
    /// Number of failures in a row of each store, and the kind of the last.
    rows: Mutex<[(u32, Option<StoreErrorKind>); 3]>,
}

impl Health {
    pub(in crate::node) fn new(events: broadcast::Sender<Event>) -> Self {
        Self { failing: watch::Sender::new(None), events, rows: Mutex::default() }
    }

    /// Returns the sender of the failure: to read it, and to set it when the writer has ended.
    pub(in crate::node) fn watch(&self) -> watch::Sender<Option<StoreErrorKind>> {
        self.failing.clone()
    }

    pub(super) fn is_failing(&self, store: StoreName) -> bool {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows[store as usize].0 > 0
    }

    /// Takes the result of an operation. The first failure of a kind is told; the same again is not.
    pub(in crate::node) fn note<T>(&self, store: StoreName, result: &Result<T, StoreError>) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let row = &mut rows[store as usize];
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
        let failed = |(count, kind): &(u32, Option<StoreErrorKind>)| {
            let slow = matches!(kind, Some(StoreErrorKind::Full | StoreErrorKind::Locked));
            kind.filter(|_| !slow || *count >= MAX_PASSING_FAILURES)
        };
        let failing = rows.iter().find_map(failed);
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
