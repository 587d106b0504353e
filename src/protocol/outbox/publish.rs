//! Taking transactions: stored before they are accepted.
//!
//! A publish is of one transaction or of many: all are checked before any is taken, the store takes
//! all or none, and one answer stands for all of them. `publish` is answered after the store said
//! that the transaction is safe, never before; only then does it enter the log and is offered to
//! peers. What came from a peer is in the log, and offered, while it is being stored; it is
//! confirmed to its origin, and delivered, afterwards. What could not be stored is not kept, and
//! not asked for again until the next try: by all of it once in a while (`intake`), or by its
//! origin, which offers again what has too few copies.
//!
//! Tested by: `sim::tests::outbox`, `sim::tests::full_stores`.

use crate::error::StoreErrorKind;
use crate::protocol::intake::{Pending, Stage};
use crate::protocol::io::{CallId, Output};
use crate::protocol::log::{Excess, Record, cost};
use crate::protocol::refusal::PublishRefusal;
use crate::protocol::{Protocol, env::Task};
use crate::types::{NewEntry, Transaction, TransactionId};

impl Protocol {
    pub(in crate::protocol) fn on_publish(
        &mut self,
        call: CallId,
        transactions: Vec<Transaction>,
        renews: Option<TransactionId>,
    ) {
        if let [only] = transactions.as_slice()
            && let Some(calls) = self.outbox.publishing.get_mut(&only.id())
        {
            // Being stored: answered together with the first call.
            calls.push(call);
            self.not_renewed(renews, false);
            return;
        }
        if transactions.iter().any(|transaction| self.is_published(&transaction.id())) {
            self.env.counters.publishes_repeated += 1;
            self.env.push(Output::Published { call, result: Ok(false) });
            self.not_renewed(renews, false);
            return;
        }
        if renews.is_none() && !self.outbox_has_room(transactions.len()) {
            // Who has stopped taking anything keeps entries here that need no copy there any more.
            self.recheck_outbox();
        }
        if let Some(refusal) = self.refuse_publish(&transactions, renews.is_some()) {
            self.env.counters.publishes_refused += transactions.len() as u64;
            let for_good = matches!(refusal, PublishRefusal::TooLarge { .. });
            self.env.push(Output::Published { call, result: Err(refusal) });
            self.not_renewed(renews, for_good);
            return;
        }
        for (at, transaction) in transactions.iter().enumerate() {
            let (id, size) = (transaction.id(), transaction.header().payload_len);
            self.remove_pending(&id);
            self.intake.pending.insert(id, Pending::new(Stage::Storing, size, self.env.now));
            // The call waits with the first.
            let calls = if at == 0 { vec![call] } else { Vec::new() };
            self.outbox.publishing.insert(id, calls);
            self.outbox.publishing_bytes += cost(size);
        }
        let entry = |transaction: &Transaction| NewEntry {
            keep_until: self.env.keep_until(transaction.header()),
            transaction: transaction.clone(),
            from: None,
            hops: 0,
        };
        let entries = transactions.iter().map(entry).collect();
        self.env.storing.enter(transactions.len() as u64);
        let sizes = transactions.iter().map(|transaction| transaction.header().payload_len);
        self.env.storing_bytes.enter(sizes.sum());
        let ticket = self.env.ticket(Task::StoreOwn { transactions, renews });
        self.env.push(Output::StoreOwn { ticket, entries });
    }

    /// Reports whether a transaction was published before. What came from peers and is not safe yet
    /// is stored again: Ok means safe. One of an earlier run that the log has no room for yet is safe
    /// in the outbox.
    fn is_published(&self, id: &TransactionId) -> bool {
        self.log.find(id).is_some_and(Record::is_stored)
            || self.outbox.contains(id)
            || self.outbox.publishing.contains_key(id)
    }

    fn outbox_has_room(&self, count: usize) -> bool {
        let most = self.env.config.outbox.max_entries as usize;
        self.outbox.len() + self.outbox.publishing.len() + count <= most
    }

    /// `renewed`: they replace another, so the outbox has room for them.
    fn refuse_publish(
        &self,
        transactions: &[Transaction],
        renewed: bool,
    ) -> Option<PublishRefusal> {
        if self.env.shutting_down {
            return Some(PublishRefusal::Closed);
        }
        if self.log.is_full() {
            return Some(PublishRefusal::Store(StoreErrorKind::Full));
        }
        let limit = self.env.config.gossip.max_transaction_size;
        let sizes = || transactions.iter().map(|transaction| transaction.header().payload_len);
        if let Some(size) = sizes().find(|size| *size > limit) {
            return Some(PublishRefusal::TooLarge { size, limit });
        }
        if !renewed && !self.outbox_has_room(transactions.len()) {
            let limit = self.env.config.outbox.max_entries;
            return Some(PublishRefusal::QueueFull { limit });
        }
        let (mut count, mut bytes) = (self.outbox.publishing.len(), self.outbox.publishing_bytes);
        sizes().find_map(|size| {
            let excess = self.log.quota.excess(&self.env.me, (count, bytes), size);
            count += 1;
            bytes = bytes.saturating_add(cost(size));
            Some(match excess? {
                Excess::Bytes { used, limit } => PublishRefusal::OverShare { used, limit },
                Excess::Entries { used, limit } => PublishRefusal::OverRate { used, limit },
            })
        })
    }

    pub(in crate::protocol) fn on_own_stored(
        &mut self,
        transactions: &[Transaction],
        renews: Option<TransactionId>,
        result: Result<(), StoreErrorKind>,
    ) {
        let mut calls = Vec::new();
        for transaction in transactions {
            let (id, size) = (transaction.id(), transaction.header().payload_len);
            self.remove_pending(&id);
            calls.extend(self.outbox.publishing.remove(&id).unwrap_or_default());
            self.outbox.publishing_bytes = self.outbox.publishing_bytes.saturating_sub(cost(size));
            if result.is_ok() {
                self.env.counters.transactions_published += 1;
                self.watch_outbox(id, transaction.header().created);
                self.intake.retry.note_saved(size, self.env.now);
            } else {
                self.env.counters.publishes_refused += 1;
            }
        }
        match (renews, transactions.first()) {
            (Some(old), Some(new)) if result.is_ok() => self.on_renewed(old, new.id()),
            _ => self.not_renewed(renews, false),
        }
        for (at, call) in calls.into_iter().enumerate() {
            let result = result.map(|()| at == 0).map_err(PublishRefusal::Store);
            self.env.push(Output::Published { call, result });
        }
        if result.is_ok() {
            for transaction in transactions {
                self.accept_own(transaction);
            }
        }
    }

    /// The log has what an earlier run left in the outbox.
    pub(in crate::protocol) fn on_relogged(&mut self, transaction: &Transaction) {
        self.remove_pending(&transaction.id());
        self.accept_own(transaction);
    }

    fn accept_own(&mut self, transaction: &Transaction) {
        let id = transaction.id();
        let skew = self.env.config.network.max_clock_skew;
        if transaction.header().created > self.env.wall.plus(skew) {
            // The clock was set back since it was dated.
            self.outbox.is_redating = true;
        }
        if self.log.note_stored(&id).is_none() {
            self.append(transaction, 0, None);
        } else if let Some(entry) = self.log.find_mut(&id) {
            // It came from peers before.
            entry.set_hop(0);
        }
    }
}
