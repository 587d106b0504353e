//! Taking transactions: stored before they are accepted.
//!
//! `publish` is answered after the store said that the transaction is safe, never before; only then
//! does it enter the log and is offered to peers. What came from a peer is in the log, and offered,
//! while it is being stored; it is confirmed to its origin, and delivered, afterwards. What could
//! not be stored is not kept, and not asked for again until the next try: by all of it once in a
//! while (`intake`), or by its origin, which offers again what has too few copies.
//!
//! Tested by: `sim::tests::outbox`, `sim::tests::full_stores`.

use crate::error::StoreErrorKind;
use crate::protocol::intake::{Pending, Stage};
use crate::protocol::io::{CallId, Output, PublishRefusal};
use crate::protocol::log::{Excess, Record, cost};
use crate::protocol::{Protocol, env::Task};
use crate::types::{NewEntry, Transaction, TransactionId};

impl Protocol {
    pub(in crate::protocol) fn on_publish(
        &mut self,
        call: CallId,
        transaction: Transaction,
        renews: Option<TransactionId>,
    ) {
        let id = transaction.id();
        // What came from peers and is not safe yet is stored again: Ok means safe. One of an earlier run
        // that the log has no room for yet is safe in the outbox.
        if self.log.find(&id).is_some_and(Record::is_stored) || self.outbox.contains(&id) {
            self.env.counters.publishes_repeated += 1;
            self.env.push(Output::Published { call, result: Ok(false) });
            self.not_renewed(renews, false);
            return;
        }
        if let Some(calls) = self.outbox.publishing.get_mut(&id) {
            // Being stored: answered together with the first call.
            calls.push(call);
            self.not_renewed(renews, false);
            return;
        }
        if renews.is_none() && self.is_outbox_full() {
            // Who has stopped taking anything keeps entries here that need no copy there any more.
            self.recheck_outbox();
        }
        if let Some(refusal) = self.refuse_publish(&transaction, renews.is_some()) {
            self.env.counters.publishes_refused += 1;
            let for_good = matches!(refusal, PublishRefusal::TooLarge { .. });
            self.env.push(Output::Published { call, result: Err(refusal) });
            self.not_renewed(renews, for_good);
            return;
        }
        let size = transaction.header().payload_len;
        self.remove_pending(&id);
        self.intake.pending.insert(id, Pending::new(Stage::Storing, size, self.env.now));
        self.outbox.publishing.insert(id, vec![call]);
        self.outbox.publishing_bytes += cost(size);
        let entry = NewEntry {
            keep_until: self.env.keep_until(transaction.header()),
            transaction: transaction.clone(),
            from: None,
            hops: 0,
        };
        self.env.storing.enter(1);
        let ticket = self.env.ticket(Task::StoreOwn { transaction, renews });
        self.env.push(Output::Store { ticket, entry, own: true });
    }

    fn is_outbox_full(&self) -> bool {
        self.outbox.len() + self.outbox.publishing.len()
            >= self.env.config.outbox.max_entries as usize
    }

    /// `renewed`: it replaces another, so the outbox has room for it.
    fn refuse_publish(&self, transaction: &Transaction, renewed: bool) -> Option<PublishRefusal> {
        let (size, limit) =
            (transaction.header().payload_len, self.env.config.gossip.max_transaction_size);
        let capacity = self.env.config.outbox.max_entries;
        let under_way = (self.outbox.publishing.len(), self.outbox.publishing_bytes);
        let excess = self.log.quota.excess(&transaction.origin(), under_way, size);
        if self.env.shutting_down {
            Some(PublishRefusal::Closed)
        } else if size > limit {
            Some(PublishRefusal::TooLarge { size, limit })
        } else if !renewed && self.is_outbox_full() {
            Some(PublishRefusal::QueueFull { limit: capacity })
        } else {
            excess.map(|excess| match excess {
                Excess::Bytes { used, limit } => PublishRefusal::OverShare { used, limit },
                Excess::Entries { used, limit } => PublishRefusal::OverRate { used, limit },
            })
        }
    }

    pub(in crate::protocol) fn on_own_stored(
        &mut self,
        transaction: &Transaction,
        renews: Option<TransactionId>,
        result: Result<(), StoreErrorKind>,
    ) {
        let id = transaction.id();
        self.remove_pending(&id);
        let calls = self.outbox.publishing.remove(&id).unwrap_or_default();
        let size = transaction.header().payload_len;
        self.outbox.publishing_bytes = self.outbox.publishing_bytes.saturating_sub(cost(size));
        if result.is_ok() {
            self.env.counters.transactions_published += 1;
            self.watch_outbox(id);
            if let Some(old) = renews {
                self.on_renewed(old, id);
            }
            self.intake.retry.note_saved(size, self.env.now);
        } else {
            self.env.counters.publishes_refused += 1;
            self.not_renewed(renews, false);
        }
        for (at, call) in calls.into_iter().enumerate() {
            let result = result.map(|()| at == 0).map_err(PublishRefusal::Store);
            self.env.push(Output::Published { call, result });
        }
        if result.is_ok() {
            self.accept_own(transaction);
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
