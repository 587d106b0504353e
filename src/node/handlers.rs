//! The host's handlers of requests, by protocol.
//!
//! Handles change the table and the driver reads it: before each frame the driver looks whether the table
//! has changed, so what came after [`Handlers::add`] has returned is handled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::RequestError;
use crate::protocol::AnswerRefusal;

use super::handle::Request;

/// Result of a handler: the body of the answer, or the reason for which it refuses.
pub(super) type Handled = Result<Bytes, String>;

/// Handler of one protocol.
pub(super) type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Handled> + Send + Sync>;

/// Table of handlers.
#[derive(Default)]
pub(super) struct Handlers {
    table: Mutex<Table>,
    /// Number of changes of the table.
    changes: AtomicU64,
}

#[derive(Default)]
struct Table {
    by_protocol: BTreeMap<String, Handler>,
    /// True: the node is stopping, and no handler is taken any more.
    is_closed: bool,
}

impl Handlers {
    /// Adds a handler.
    pub(super) fn add(&self, protocol: &str, handler: Handler) -> Result<(), RequestError> {
        let mut table = self.table();
        if table.is_closed {
            return Err(RequestError::Closed);
        }
        if table.by_protocol.contains_key(protocol) {
            return Err(RequestError::ProtocolTaken { protocol: protocol.to_owned() });
        }
        table.by_protocol.insert(protocol.to_owned(), handler);
        self.note_change();
        Ok(())
    }

    /// Takes a handler away; returns whether there was one.
    pub(super) fn remove(&self, protocol: &str) -> bool {
        let removed = self.table().by_protocol.remove(protocol);
        self.note_change();
        // Dropped outside of the lock: a handler owns whatever the host gave it.
        removed.is_some()
    }

    /// Takes all handlers away, for good: what they own is free then, handles of the node too.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.is_closed = true;
        let removed = std::mem::take(&mut table.by_protocol);
        drop(table);
        self.note_change();
        drop(removed);
    }

    pub(super) fn get(&self, protocol: &str) -> Option<Handler> {
        self.table().by_protocol.get(protocol).cloned()
    }

    /// Returns the protocols that have a handler, where that has changed since the number `seen`, which is
    /// brought up to date.
    pub(super) fn changed_since(&self, seen: &mut u64) -> Option<BTreeSet<String>> {
        let changes = self.changes.load(Ordering::Acquire);
        if std::mem::replace(seen, changes) == changes {
            return None;
        }
        Some(self.table().by_protocol.keys().cloned().collect())
    }

    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.table().by_protocol.keys()).finish()
    }
}

/// Has a request answered. A handler that panics costs this answer and nothing else.
pub(super) async fn answer(handler: Handler, request: Request) -> Result<Bytes, AnswerRefusal> {
    let protocol = request.protocol().to_owned();
    // The call itself may panic as well as what it returns.
    let handled = AssertUnwindSafe(async move { handler(request).await }).catch_unwind().await;
    let Ok(result) = handled else {
        tracing::error!(target: "sorcha_peer::node", protocol, "a handler of requests panicked");
        return Err(AnswerRefusal::Failed);
    };
    result.map_err(AnswerRefusal::Refused)
}
