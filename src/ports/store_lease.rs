//! Lease of a store: one node at a time.
//!
//! Bounds: one waker for each node that waits to start.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

/// Right of one node to an outbox or a log.
///
/// Two nodes on one store would each take what the other has in its outbox for what an earlier run
/// of its own left behind. So a node takes the lease of a store when it starts and gives it up when
/// it has ended; meanwhile no other node of the process starts on that store.
///
/// A node ends some 10 s after the deadline of its shutdown at the latest. A call of a store that has
/// not answered by then is dropped, and the lease is given up: where such a call goes on by itself, as
/// on another thread, it may still write while the next node has the store. So a store should do its
/// calls in the order in which they were made, also those that nobody waits for any more.
///
/// A store holds one lease for as long as it lives and hands it out by
/// [`TransactionQueue::lease`](super::TransactionQueue::lease) or
/// [`TransactionStore::lease`](super::TransactionStore::lease). Clones are the same lease: several
/// objects that stand for one store share it.
#[derive(Debug, Clone, Default)]
pub struct StoreLease(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The handles of the node that has the lease, and how many of its stores share the lease.
    holder: Option<(Weak<()>, u32)>,
    /// Number of times that the lease was given up.
    releases: u64,
    waiting: Vec<Waker>,
}

impl StoreLease {
    /// Takes the lease for the node whose handles share `handles`.
    pub(crate) fn take(&self, handles: &Arc<()>) -> Result<HeldLease, LeaseTaken> {
        let mut state = self.lock();
        let releases = state.releases;
        match &mut state.holder {
            Some((holder, count)) if holder.as_ptr() == Arc::as_ptr(handles) => *count += 1,
            Some((holder, _)) => {
                let holder = Weak::clone(holder);
                return Err(LeaseTaken { lease: self.clone(), holder, releases });
            }
            none => *none = Some((Arc::downgrade(handles), 1)),
        }
        Ok(HeldLease(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease in the hands of a node, given up when dropped.
#[derive(Debug)]
pub(crate) struct HeldLease(StoreLease);

impl Drop for HeldLease {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        match &mut state.holder {
            Some((_, count)) if *count > 1 => *count -= 1,
            _ => {
                state.holder = None;
                state.releases += 1;
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                waiting.into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// Another node has the lease.
#[derive(Debug)]
pub(crate) struct LeaseTaken {
    lease: StoreLease,
    holder: Weak<()>,
    /// Number of releases when the lease was found taken.
    releases: u64,
}

impl LeaseTaken {
    /// Returns whether somebody still has a handle on the node that has the lease.
    pub(crate) fn has_handles(&self) -> bool {
        self.holder.strong_count() > 0
    }

    /// Waits until the lease is given up. Cancel safe.
    pub(crate) async fn released(self) {
        poll_fn(|context| {
            let mut state = self.lease.lock();
            if state.releases != self.releases {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_lease_is_one_node_s_until_all_of_it_is_given_up() {
        let (lease, first, second) = (StoreLease::default(), Arc::new(()), Arc::new(()));
        // One object may be outbox and log of a node at once.
        let outbox = lease.take(&first).unwrap();
        let log = lease.clone().take(&first).unwrap();
        let taken = lease.take(&second).unwrap_err();
        assert!(taken.has_handles());
        drop(outbox);
        let mut released = Box::pin(taken.released());
        assert_eq!(released.as_mut().now_or_never(), None, "the log is still in use");
        drop(first);
        assert!(!lease.take(&second).unwrap_err().has_handles());
        drop(log);
        assert_eq!(released.now_or_never(), Some(()));
        lease.take(&second).unwrap();
    }

    #[test]
    fn a_release_between_finding_a_lease_taken_and_waiting_is_not_missed() {
        let (lease, first, second) = (StoreLease::default(), Arc::new(()), Arc::new(()));
        let held = lease.take(&first).unwrap();
        let taken = lease.take(&second).unwrap_err();
        drop(held);
        let _third = lease.take(&first).unwrap();
        assert_eq!(taken.released().now_or_never(), Some(()));
    }
}
