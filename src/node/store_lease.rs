//! One node at a time for an outbox and for a log.
//!
//! A directory of files belongs to one process, but within it handles to one store can be given to
//! two nodes. Each would take the other's outbox for what an earlier run of its own left behind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{TransactionQueue, TransactionStore};

/// Longest wait for a node that no handle is left to: as long as its end may take.
const PATIENCE: Duration = Duration::from_secs(10);

static CLAIMED: Mutex<Vec<Claimed>> = Mutex::new(Vec::new());
static RELEASED: Notify = Notify::const_new();

/// A store that a node has.
struct Claimed {
    /// Where it is: no other store is there while the claim holds it.
    address: usize,
    handles: Weak<()>,
}

/// The right of one node to its stores, given up when dropped.
pub(super) struct Claim {
    queue: Arc<dyn TransactionQueue>,
    log: Arc<dyn TransactionStore>,
}

impl Claim {
    /// Claims both stores for the node whose handles share the second answer. Waits for the end of an
    /// earlier node that no handle is left to; refuses what any other node has.
    pub(super) async fn new(
        queue: &Arc<dyn TransactionQueue>,
        log: &Arc<dyn TransactionStore>,
    ) -> Result<(Self, Arc<()>), StoreError> {
        let handles = Arc::new(());
        let until = Instant::now() + PATIENCE;
        loop {
            let released = RELEASED.notified();
            tokio::pin!(released);
            // Whatever is released from here on is noticed.
            released.as_mut().enable();
            match Self::try_new(queue, log, &handles) {
                Ok(claim) => return Ok((claim, handles)),
                Err(holder) if holder.upgrade().is_none() && Instant::now() < until => {
                    let _ = tokio::time::timeout_at(until, released).await;
                }
                Err(_) => {
                    let message = "the outbox or the log is in use by another node";
                    return Err(StoreError::new(StoreErrorKind::Locked, message));
                }
            }
        }
    }

    /// Or the handles of who has one of them.
    fn try_new(
        queue: &Arc<dyn TransactionQueue>,
        log: &Arc<dyn TransactionStore>,
        handles: &Arc<()>,
    ) -> Result<Self, Weak<()>> {
        let addresses = addresses(queue, log);
        let mut claimed = claimed();
        if let Some(found) = claimed.iter().find(|c| addresses.contains(&c.address)) {
            return Err(Weak::clone(&found.handles));
        }
        let claim = |address| Claimed { address, handles: Arc::downgrade(handles) };
        claimed.extend(addresses.map(claim));
        Ok(Self { queue: Arc::clone(queue), log: Arc::clone(log) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let addresses = addresses(&self.queue, &self.log);
        claimed().retain(|c| !addresses.contains(&c.address));
        RELEASED.notify_waiters();
    }
}

fn addresses(queue: &Arc<dyn TransactionQueue>, log: &Arc<dyn TransactionStore>) -> [usize; 2] {
    [Arc::as_ptr(queue).addr(), Arc::as_ptr(log).addr()]
}

fn claimed() -> MutexGuard<'static, Vec<Claimed>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}
