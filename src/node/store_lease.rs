//! Leases of a node's outbox and log: one node at a time has each.
//!
//! A directory of files belongs to one process, but within it handles to one store can be given to
//! two nodes. Each would take the other's outbox for what an earlier run of its own left behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{StoreError, StoreErrorKind};
use crate::ports::{HeldLease, LeaseTaken, StoreLease, TransactionQueue, TransactionStore};

use super::driver::MAX_WIND_UP;

/// Maximum wait for the end of a node to which no handle is left: as long as that end may take, and a
/// margin for tasks that come late.
const END_TIMEOUT: Duration = MAX_WIND_UP.saturating_add(Duration::from_secs(5));

/// Leases of both stores, given up when dropped.
#[derive(Debug)]
pub(super) struct HeldLeases {
    _held: [Option<HeldLease>; 2],
}

impl HeldLeases {
    /// Takes both leases. Returns the leases and the token that the node's handles share. Waits for the
    /// end of an earlier node to which no handle is left; refuses what any other node has.
    pub(super) async fn take(
        queue: &dyn TransactionQueue,
        log: &dyn TransactionStore,
    ) -> Result<(Self, Arc<()>), StoreError> {
        let handles = Arc::new(());
        let until = Instant::now() + END_TIMEOUT;
        loop {
            match Self::try_take([queue.lease(), log.lease()], &handles) {
                Ok(held) => return Ok((held, handles)),
                Err(taken) if !taken.has_handles() && Instant::now() < until => {
                    let _ = tokio::time::timeout_at(until, taken.released()).await;
                }
                Err(_) => {
                    let message = "the outbox or the log is in use by another node";
                    return Err(StoreError::new(StoreErrorKind::Locked, message));
                }
            }
        }
    }

    fn try_take(leases: [Option<&StoreLease>; 2], handles: &Arc<()>) -> Result<Self, LeaseTaken> {
        let take = |lease: Option<&StoreLease>| lease.map(|l| l.take(handles)).transpose();
        let [queue, log] = leases;
        // Where the log is taken the outbox is given up again: a start that waits holds nothing. Another
        // start that meets the outbox in this moment is refused, as it would be a moment later.
        Ok(Self { _held: [take(queue)?, take(log)?] })
    }
}
