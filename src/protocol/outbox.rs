//! Own transactions: stored before they are accepted, kept until enough others have them.
//!
//! `publish` is answered after the store said that the transaction is safe, never before; only then
//! does it enter the log and is offered to peers. It leaves the outbox when `min_copies` peers (or
//! all that are linked, if fewer) confirmed that they stored it. What still waits is announced on
//! every new link, also to a peer that may have it: so a confirmation that was lost comes again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::types::{Event, LinkId, NewEntry, PeerId, Transaction, TransactionId};

use super::fetch::{Pending, Stage};
use super::io::{CallId, Output, PublishRefusal, Ticket};
use super::{Protocol, Task};
use crate::error::StoreErrorKind;

/// Confirmed transactions whose further confirmations are still counted.
const MAX_FINISHED: usize = 16_384;

impl Protocol {
    pub(super) fn on_publish(&mut self, call: CallId, transaction: Transaction) {
        let id = transaction.id();
        // What came from peers and is not safe yet is stored again: Ok means safe.
        if self.log.find(&id).is_some_and(|entry| entry.stored) {
            self.counters.publishes_repeated += 1;
            self.out.push_back(Output::Published { call, result: Ok(false) });
            return;
        }
        if let Some(calls) = self.publishing.get_mut(&id) {
            // Being stored: answered together with the first call.
            calls.push(call);
            return;
        }
        if let Some(refusal) = self.refuse_publish(&transaction) {
            self.counters.publishes_refused += 1;
            self.out.push_back(Output::Published { call, result: Err(refusal) });
            return;
        }
        let size = transaction.header().payload_len;
        self.remove_pending(&id);
        self.pending.insert(id, Pending::new(Stage::Storing, size));
        self.publishing.insert(id, vec![call]);
        let entry = NewEntry {
            keep_until: self.keep_until(&transaction),
            transaction: transaction.clone(),
            from: None,
            hops: 0,
        };
        self.storing += 1;
        let ticket = self.ticket(Task::StoreOwn { transaction });
        self.out.push_back(Output::Store { ticket, entry, own: true });
    }

    fn refuse_publish(&self, transaction: &Transaction) -> Option<PublishRefusal> {
        let (size, limit) =
            (transaction.header().payload_len, self.config.gossip.max_transaction_size);
        let capacity = self.config.outbox.max_entries;
        if self.shutting_down {
            Some(PublishRefusal::Closed)
        } else if size > limit {
            Some(PublishRefusal::TooLarge { size, limit })
        } else if self.outbox.len() + self.publishing.len() >= capacity as usize {
            Some(PublishRefusal::QueueFull { limit: capacity })
        } else {
            None
        }
    }

    pub(super) fn store_foreign(&mut self, from: PeerId, transaction: &Transaction, hops: u16) {
        let entry = NewEntry {
            keep_until: self.keep_until(transaction),
            transaction: transaction.clone(),
            from: Some(from),
            hops,
        };
        self.storing += 1;
        let (id, origin) = (transaction.id(), transaction.origin());
        let ticket = self.ticket(Task::StoreForeign { id, origin });
        self.out.push_back(Output::Store { ticket, entry, own: false });
    }

    pub(super) fn on_stored(&mut self, ticket: Ticket, result: Result<(), StoreErrorKind>) {
        let task = self.tickets.remove(&ticket);
        self.storing = self.storing.saturating_sub(1);
        if result.is_err() {
            self.counters.storage_failures += 1;
        }
        match task {
            Some(Task::StoreOwn { transaction }) => self.on_own_stored(&transaction, result),
            Some(Task::StoreForeign { id, origin }) if result.is_ok() => {
                if let Some(entry) = self.log.find_mut(&id) {
                    entry.stored = true;
                }
                // The origin waits for this; others hear of it by announcement.
                if let Some(link) = self.links.by_peer.get(&origin).copied() {
                    self.confirm_to(link, id);
                }
            }
            Some(Task::StoreForeign { id, .. })
                if self.log.find(&id).is_some_and(|entry| !entry.stored) =>
            {
                // Not kept here: to be taken again when it is offered again.
                self.log.remove(&id);
                self.lost_some();
            }
            _ => {}
        }
    }

    fn on_own_stored(&mut self, transaction: &Transaction, result: Result<(), StoreErrorKind>) {
        let id = transaction.id();
        self.remove_pending(&id);
        let calls = self.publishing.remove(&id).unwrap_or_default();
        if result.is_ok() {
            self.counters.transactions_published += 1;
            self.outbox.insert(id);
        } else {
            self.counters.publishes_refused += 1;
        }
        for (at, call) in calls.into_iter().enumerate() {
            let result = result.map(|()| at == 0).map_err(PublishRefusal::Store);
            self.out.push_back(Output::Published { call, result });
        }
        if result.is_err() {
            return;
        }
        match self.log.find_mut(&id) {
            // It came from peers before.
            Some(entry) => (entry.own, entry.stored, entry.hop) = (true, true, 0),
            None => self.accept(transaction, 0, None),
        }
    }

    /// Tells an origin that we have stored its transaction.
    pub(super) fn confirm_to(&mut self, link: LinkId, id: TransactionId) {
        if let Some(batch) = self.links.batch(link) {
            batch.stored.push(id);
        }
    }

    /// A peer has stored these of ours.
    pub(super) fn on_confirmed(&mut self, link: LinkId, ids: &[TransactionId]) {
        let Some(l) = self.links.all.get(&link) else { return };
        let (peer, slot, needed) = (l.remote, self.links.slot_of(link), self.copies_needed());
        let mut done = Vec::new();
        for id in ids {
            let Some(peers) = self.outbox.confirm(id, peer) else { continue };
            self.out.push_back(Output::Emit(Event::Replicated { id: *id, peers }));
            if let Some(slot) = slot {
                self.log.note_known(id, slot);
            }
            if peers >= needed && self.outbox.finish(id) {
                done.push(*id);
            }
        }
        self.leave_outbox(done);
    }

    fn copies_needed(&self) -> u32 {
        let linked = u32::try_from(self.links.up_count()).unwrap_or(u32::MAX);
        self.config.outbox.min_copies.min(linked.max(1))
    }

    fn leave_outbox(&mut self, ids: Vec<TransactionId>) {
        if !ids.is_empty() {
            self.counters.transactions_replicated += ids.len() as u64;
            self.out.push_back(Output::Confirmed { ids });
        }
    }

    /// Fewer links may mean that fewer copies are enough.
    pub(super) fn recheck_outbox(&mut self) {
        let needed = self.copies_needed();
        let fewer = std::mem::replace(&mut self.copies_wanted, needed) > needed;
        if fewer && self.links.up_count() > 0 {
            let done = self.outbox.finish_all(needed);
            self.leave_outbox(done);
        }
    }
}

/// Own transactions and who confirmed to have stored them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: BTreeMap<TransactionId, Vec<PeerId>>,
    /// Out of the outbox, but still counted for receipts; the oldest is forgotten first.
    finished: BTreeMap<TransactionId, Vec<PeerId>>,
    order: VecDeque<TransactionId>,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn ids(&self) -> Vec<TransactionId> {
        self.entries.keys().copied().collect()
    }

    /// The first id after this one.
    pub(super) fn after(&self, id: Option<&TransactionId>) -> Option<TransactionId> {
        let from = id.map_or(Bound::Unbounded, |id| Bound::Excluded(*id));
        self.entries.range((from, Bound::Unbounded)).next().map(|(id, _)| *id)
    }

    pub(super) fn insert(&mut self, id: TransactionId) {
        self.entries.entry(id).or_default();
    }

    pub(super) fn remove(&mut self, id: &TransactionId) -> bool {
        self.entries.remove(id).is_some()
    }

    /// Notes a confirmation; how many there are now, unless this one is not new.
    fn confirm(&mut self, id: &TransactionId, peer: PeerId) -> Option<u32> {
        let peers = match self.entries.get_mut(id) {
            Some(peers) => peers,
            None => self.finished.get_mut(id)?,
        };
        if peers.contains(&peer) {
            return None;
        }
        peers.push(peer);
        u32::try_from(peers.len()).ok()
    }

    /// Takes an entry out; `false` when it was out already.
    fn finish(&mut self, id: &TransactionId) -> bool {
        let Some(peers) = self.entries.remove(id) else { return false };
        if self.order.len() >= MAX_FINISHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.finished.remove(&oldest);
        }
        self.finished.insert(*id, peers);
        self.order.push_back(*id);
        true
    }

    fn finish_all(&mut self, needed: u32) -> Vec<TransactionId> {
        let enough = |(id, peers): (&TransactionId, &Vec<PeerId>)| {
            (peers.len() >= needed as usize).then_some(*id)
        };
        let done: Vec<_> = self.entries.iter().filter_map(enough).collect();
        for id in &done {
            self.finish(id);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_counts_once_and_finished_entries_are_bounded() {
        let mut outbox = Outbox::default();
        let id = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            TransactionId::from_bytes(bytes)
        };
        let peer = |n| PeerId::from_bytes([n; 32]);
        outbox.insert(id(0));
        assert_eq!(outbox.confirm(&id(0), peer(1)), Some(1));
        assert_eq!(outbox.confirm(&id(0), peer(1)), None);
        assert!(outbox.finish(&id(0)) && !outbox.finish(&id(0)));
        assert_eq!(outbox.confirm(&id(0), peer(2)), Some(2), "receipts may wait for more");
        assert_eq!(outbox.confirm(&id(7), peer(2)), None, "not ours");
        for n in 1..=20_000 {
            outbox.insert(id(n));
            outbox.finish(&id(n));
        }
        assert_eq!((outbox.len(), outbox.finished.len()), (0, MAX_FINISHED));
    }
}
