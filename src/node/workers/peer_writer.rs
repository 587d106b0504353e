//! Writing of peers and bans, one batch after the other; operations on one peer coalesce.
//!
//! Bounds: the number of peers. What could not be written waits for the next try, up to
//! [`MAX_DEFERRED`] operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::error::StoreError;
use crate::node::messages::PeersWritten;
use crate::ports::PeerStore;
use crate::types::{Ban, PeerId, StoredPeer};

use super::store_health::{Health, StoreName, guarded};

/// Operation on a peer's record; the latest counts.
#[derive(Debug)]
enum PeerOp {
    Save(Box<StoredPeer>),
    Forget,
}

#[derive(Debug, Default)]
struct PeerOps {
    peers: BTreeMap<PeerId, PeerOp>,
    /// `None` lifts the ban.
    bans: BTreeMap<PeerId, Option<Ban>>,
    /// Answered when all of these are written.
    waiting: Vec<oneshot::Sender<PeersWritten>>,
    closed: bool,
}

/// Maximum number of operations that wait for a store that fails, of peers and of bans each; later
/// ones are dropped.
const MAX_DEFERRED: usize = 10_000;
/// Delay before a store that failed is tried again, unless there is more for it.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Writer of peers and bans.
#[derive(Debug, Default)]
pub(in crate::node) struct PeerWriter {
    ops: Mutex<PeerOps>,
    wake: Notify,
}

impl PeerWriter {
    fn with(&self, change: impl FnOnce(&mut PeerOps)) {
        change(&mut self.ops.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    pub(in crate::node) fn save(&self, peer: Box<StoredPeer>) {
        self.with(|ops| {
            ops.peers.insert(peer.peer, PeerOp::Save(peer));
        });
    }

    pub(in crate::node) fn forget(&self, peer: PeerId) {
        self.with(|ops| {
            ops.peers.insert(peer, PeerOp::Forget);
        });
    }

    pub(in crate::node) fn set_ban(&self, peer: PeerId, ban: Option<Ban>) {
        self.with(|ops| {
            ops.bans.insert(peer, ban);
        });
    }

    /// Answers once everything before this is written, or could not be.
    pub(in crate::node) fn settle(&self, reply: oneshot::Sender<PeersWritten>) {
        self.with(|ops| ops.waiting.push(reply));
    }

    /// Lets [`PeerWriter::run`] end once everything is written, or could not be.
    pub(in crate::node) fn close(&self) {
        self.with(|ops| ops.closed = true);
    }

    /// Writes until it is closed.
    pub(in crate::node) async fn run(
        self: Arc<Self>,
        store: Arc<dyn PeerStore>,
        health: Arc<Health>,
    ) {
        loop {
            let mut ops = {
                let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
                let closed = ops.closed;
                std::mem::replace(&mut *ops, PeerOps { closed, ..PeerOps::default() })
            };
            let waiting = std::mem::take(&mut ops.waiting);
            let nothing = ops.peers.is_empty() && ops.bans.is_empty();
            if nothing && waiting.is_empty() {
                if ops.closed {
                    return;
                }
                self.wake.notified().await;
                continue;
            }
            let result = if nothing { Ok(()) } else { guarded(write(&*store, &ops)).await };
            if !nothing {
                health.note(StoreName::Peers, &result);
            }
            for reply in waiting {
                let told = result.as_ref().map(drop);
                let _ = reply.send(told.map_err(|e| StoreError::new(e.kind, e.reason())));
            }
            if let Err(error) = result {
                if ops.closed {
                    tracing::error!(target: "sorcha_peer::store", %error, "peers and bans were not written");
                    return;
                }
                self.defer(ops);
                let _ = tokio::time::timeout(RETRY_DELAY, self.wake.notified()).await;
            }
        }
    }

    /// Puts back what could not be written, under what has come since.
    fn defer(&self, failed: PeerOps) {
        fn under<T>(newer: &mut BTreeMap<PeerId, T>, older: BTreeMap<PeerId, T>) {
            let room = MAX_DEFERRED.saturating_sub(newer.len());
            for (peer, op) in older.into_iter().take(room) {
                newer.entry(peer).or_insert(op);
            }
        }
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        under(&mut ops.peers, failed.peers);
        under(&mut ops.bans, failed.bans);
    }
}

async fn write(store: &dyn PeerStore, ops: &PeerOps) -> Result<(), StoreError> {
    let (mut saves, mut forgets) = (Vec::new(), Vec::new());
    for (peer, op) in &ops.peers {
        match op {
            PeerOp::Save(stored) => saves.push((**stored).clone()),
            PeerOp::Forget => forgets.push(*peer),
        }
    }
    // What the host wants comes first: peers are found again.
    for (peer, ban) in &ops.bans {
        match ban {
            Some(ban) => store.put_ban(ban).await?,
            None => store.remove_ban(peer).await?,
        }
    }
    if !saves.is_empty() {
        store.upsert(&saves).await?;
    }
    if !forgets.is_empty() {
        store.remove(&forgets).await?;
    }
    Ok(())
}
