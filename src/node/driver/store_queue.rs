//! Queue of operations to the store writer: the channel, and what it had no room for.
//!
//! Operations reach the writer in the order in which they were pushed. Where the channel is full, one
//! that the protocol waits for is refused; the others wait here, since what they say to the stores
//! would be lost.
//!
//! Bounds: while anything waits, the driver takes neither publishes nor frames
//! ([`StoreQueue::has_room`]), so that only what is under way and the rounds of the outbox, whose number
//! is limited for each entry, add to it. One expiry waits at a time, and a question of the host stands
//! for a call of the host that waits.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::error::StoreErrorKind;
use crate::node::workers::store_writer::StoreOp;
use crate::protocol::{Input, PartialOp};

/// Driver's end of the channel to the store writer.
#[derive(Debug)]
pub(in crate::node) struct StoreQueue {
    channel: mpsc::Sender<StoreOp>,
    waiting: VecDeque<StoreOp>,
}

impl StoreQueue {
    pub(in crate::node) fn new(channel: mpsc::Sender<StoreOp>) -> Self {
        Self { channel, waiting: VecDeque::new() }
    }

    /// Hands over an operation, behind those that wait. Returns the answer of one that is refused; what
    /// needs no answer is dropped once the writer is gone, since nothing is stored then.
    pub(super) fn push(&mut self, op: StoreOp) -> Option<Input> {
        self.flush();
        let sent = if self.waiting.is_empty() {
            self.channel.try_send(op)
        } else {
            Err(TrySendError::Full(op))
        };
        let (op, reason) = match sent {
            Ok(()) => return None,
            Err(TrySendError::Full(op)) => (op, StoreErrorKind::Full),
            Err(TrySendError::Closed(op)) => (op, StoreErrorKind::Closed),
        };
        match op {
            StoreOp::Store { ticket, .. } => Some(Input::Stored { ticket, result: Err(reason) }),
            StoreOp::Partial(PartialOp::Spill { ticket, .. }) => {
                Some(Input::Spilled { ticket, kept: false })
            }
            StoreOp::Partial(PartialOp::Unspill { ticket, .. }) => {
                Some(Input::Unspilled { ticket, pieces: Vec::new() })
            }
            // Whoever asked for `Settle` learns by the dropped reply that the node ends.
            StoreOp::Confirmed { .. }
            | StoreOp::UpdateOutbox { .. }
            | StoreOp::Expire { .. }
            | StoreOp::SavePast { .. }
            | StoreOp::Missed { .. }
            | StoreOp::Partial(PartialOp::Drop { .. })
            | StoreOp::Settle { .. } => {
                if reason == StoreErrorKind::Full {
                    self.wait(op);
                }
                None
            }
        }
    }

    /// Puts an operation behind those that wait. A later expiry does what an earlier one was to do.
    fn wait(&mut self, op: StoreOp) {
        if matches!(op, StoreOp::Expire { .. }) {
            self.waiting.retain(|earlier| !matches!(earlier, StoreOp::Expire { .. }));
        }
        self.waiting.push_back(op);
    }

    /// Hands over what waits and now fits.
    pub(super) fn flush(&mut self) {
        while let Some(op) = self.waiting.pop_front() {
            match self.channel.try_send(op) {
                Ok(()) => {}
                Err(TrySendError::Full(op)) => return self.waiting.push_front(op),
                // The writer is gone: nothing is stored any more.
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Waits until [`StoreQueue::flush`] has something to do. Cancel safe.
    pub(super) async fn can_flush(&self) {
        // This is the only sender, so that the place stays free.
        drop(self.channel.reserve().await);
    }

    /// Returns whether the writer has taken most of what it was given.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.channel.capacity() > self.channel.max_capacity() / 2
    }

    /// Hands over everything that waits, then closes the channel.
    pub(super) async fn finish(self) {
        for op in self.waiting {
            if self.channel.send(op).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::protocol::Ticket;
    use crate::types::{TransactionId, WallTime};

    fn confirmed(n: u8) -> StoreOp {
        StoreOp::Confirmed { ids: vec![TransactionId::from_bytes([n; 32])] }
    }

    fn expire(at: u64) -> StoreOp {
        StoreOp::Expire { now: WallTime::from_millis(at) }
    }

    fn unspill() -> StoreOp {
        let (ticket, id) = (Ticket(1), TransactionId::from_bytes([1; 32]));
        StoreOp::Partial(PartialOp::Unspill { ticket, id, root: [0; 32], len: 1 })
    }

    /// Pushes what is not refused.
    fn push(queue: &mut StoreQueue, op: StoreOp) {
        assert!(queue.push(op).is_none());
    }

    /// Returns a queue whose channel is full, and what the writer gets.
    fn full() -> (StoreQueue, mpsc::Receiver<StoreOp>) {
        let (channel, ops) = mpsc::channel(1);
        let mut queue = StoreQueue::new(channel);
        push(&mut queue, confirmed(0));
        (queue, ops)
    }

    #[tokio::test]
    async fn what_has_no_room_is_handed_over_in_order_at_the_latest_at_the_end() {
        let (mut queue, mut ops) = full();
        let states = || StoreOp::UpdateOutbox { states: Vec::new() };
        let drop_partials = || StoreOp::Partial(PartialOp::Drop { ids: Vec::new() });
        for op in [states(), expire(1), confirmed(1), expire(2)] {
            push(&mut queue, op);
        }
        assert_eq!(queue.can_flush().now_or_never(), None);
        let mut taken = vec![ops.try_recv().unwrap()];
        assert_eq!(queue.can_flush().now_or_never(), Some(()));
        // A later one does not take the place that an earlier one waits for.
        push(&mut queue, drop_partials());
        taken.push(ops.try_recv().unwrap());
        queue.flush();
        assert!(queue.is_waiting() && !queue.has_room());
        let rest = async {
            while let Some(op) = ops.recv().await {
                taken.push(op);
            }
        };
        tokio::join!(queue.finish(), rest);
        let expected = [confirmed(0), states(), confirmed(1), expire(2), drop_partials()];
        assert_eq!(format!("{taken:?}"), format!("{expected:?}"));
    }

    #[tokio::test]
    async fn what_the_protocol_waits_for_is_refused_and_all_else_ends_with_the_writer() {
        let (mut queue, ops) = full();
        let refused = queue.push(unspill());
        assert!(matches!(refused, Some(Input::Unspilled { ticket: Ticket(1), .. })), "{refused:?}");
        assert!(!queue.is_waiting());
        let (reply, answer) = oneshot::channel();
        push(&mut queue, StoreOp::Settle { remove: None, reply });
        assert!(queue.is_waiting());
        drop(ops);
        push(&mut queue, confirmed(2));
        assert!(!queue.is_waiting() && answer.await.is_err());
        assert!(queue.push(unspill()).is_some());
    }
}
