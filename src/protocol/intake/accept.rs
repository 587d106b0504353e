//! From what was verified to the log, and from the log to the store.
//!
//! ```text
//! verified ──take──► in the log, offered to peers ──store──► stored: its origin is told
//!     │                                                └──failed: not kept, fetched again later
//!     └──its origin has all it may have: turned away, fetched again when there is room
//! ```
//!
//! What came from a peer is in the log, and offered, while it is being stored; it is confirmed to its
//! origin, and delivered, afterwards. What could not be stored is not kept, and not asked for again
//! until the next try (`store_retry`).
//!
//! Tested by: `protocol::tests::gates`, `protocol::tests::liars`, `sim::tests::full_stores`.

use std::time::Duration;

use crate::error::StoreErrorKind;
use crate::protocol::Protocol;
use crate::protocol::env::Task;
use crate::protocol::io::{Output, Ticket};
use crate::protocol::log::{Entry, Excess, OWN};
use crate::protocol::spread::{BACKFILL_AFTER, Provenance};
use crate::protocol::trail::What;
use crate::types::{Header, NewEntry, PeerId, Refusal, TopicKey, Transaction, TransactionId};

use super::table::{Arrival, Holds};

impl Protocol {
    /// Takes a verified transaction into the log and offers it to everybody.
    pub(in crate::protocol) fn append(
        &mut self,
        transaction: &Transaction,
        hop: u16,
        from: Option<Provenance>,
    ) {
        let header = transaction.header();
        let (own, known) = (from.is_none(), from.map_or(0, |from| from.known));
        let is_backfill = from.is_some_and(|from| from.is_backfill);
        self.env.counters.payload_bytes_accepted += header.payload_len;
        let entry = Entry {
            id: transaction.id(),
            origin: header.origin,
            topic: TopicKey::of(&header.topic),
            size: header.payload_len,
            hop,
            stored: own,
            is_backfill,
            stored_upstream: from.is_some_and(|from| from.stored_upstream),
            created: header.created,
            keep_until: self.env.keep_until(transaction.header()),
            known,
            ingress: from.map_or(OWN, |from| from.ingress),
            cached: Some(transaction.clone()),
        };
        let (id, keep_until, now) = (entry.id, entry.keep_until, self.env.now);
        let ingress = entry.ingress;
        let seq = self.log.append(entry, now);
        self.trail.accept((seq, id), (ingress, hop), keep_until, now);
        self.forget_partial(&transaction.id());
        for link in self.links.up_ids() {
            self.pump(link);
        }
        self.forget_passed();
    }

    /// Takes what was verified and validated, unless others of the same origin took its room
    /// meanwhile.
    pub(in crate::protocol) fn accept(
        &mut self,
        from: PeerId,
        transaction: &Transaction,
        hop: u16,
    ) {
        let (id, header) = (transaction.id(), transaction.header());
        let Some(reason) = self.over_bounds(header) else {
            self.accept_foreign(from, transaction, hop);
            return;
        };
        let pending = self.remove_pending(&id);
        self.absolve(pending.as_ref());
        let link = self.links.by_peer.get(&from).copied();
        self.refuse_publish_of(link, hop, &id, reason);
        self.trail.describe(&id, header);
        self.turn_away(id, header);
    }

    fn accept_foreign(&mut self, from: PeerId, transaction: &Transaction, hop: u16) {
        let id = transaction.id();
        let pending = self.remove_pending(&id);
        self.absolve(pending.as_ref());
        let asked = pending.as_ref().is_some_and(|p| p.asked_of.is_some() || p.large.is_some());
        let replayed = pending.as_ref().is_some_and(|p| p.ordered.is_some());
        let old = transaction.header().created.plus(BACKFILL_AFTER) < self.env.wall;
        let arrival = pending.as_ref().map_or(Arrival::Pushed, |p| p.arrival);
        let is_news = self.is_news(transaction.header(), arrival);
        let (sources, large) = pending.map(|p| (p.sources, p.large)).unwrap_or_default();
        let in_pieces = large.is_some();
        // Who only has the header is told once more when all is here.
        let holders = sources.iter().filter(|s| s.holds == Holds::All && !s.guessed);
        let known = holders.filter_map(|s| self.links.slot_of(s.link)).fold(0, |m, s| m | 1 << s);
        let link = self.links.by_peer.get(&from).copied();
        let stored_upstream = link.is_some_and(|link| self.is_uphill(link));
        let now = self.env.now;
        let ingress = link.and_then(|link| self.links.up(link)).map_or(OWN, |up| {
            up.taken += transaction.header().payload_len;
            up.merit.note(now);
            if in_pieces {
                up.quality.note_payload(true, now);
            }
            up.slot
        });
        let hop = hop.saturating_add(1);
        self.note_delivery(transaction.header(), hop);
        let is_backfill = asked && (old || replayed);
        self.append(
            transaction,
            hop,
            Some(Provenance { known, is_backfill, ingress, stored_upstream }),
        );
        self.store_foreign(from, transaction, hop, is_news);
        for (child, _) in large.map(|large| large.children).unwrap_or_default() {
            self.serve(child);
        }
    }

    /// Counts a transaction of another origin, and when it was published: in the present spell of being
    /// linked, or while this node could not have heard of it.
    fn note_delivery(&mut self, header: &Header, hop: u16) {
        let env = &mut self.env;
        env.counters.transactions_accepted += 1;
        let age = env.wall.as_millis().saturating_sub(header.created.as_millis());
        let age = Duration::from_millis(age);
        let is_live = age <= self.outbox.online_for(env.now);
        env.counters.transactions_caught_up += u64::from(!is_live);
        env.deliveries.note(hop, is_live.then_some(age));
    }

    /// Returns the refusal of a transaction whose origin has all it may have.
    pub(super) fn over_bounds(&self, header: &Header) -> Option<Refusal> {
        if self.log.is_full() {
            return Some(Refusal::OverRate);
        }
        let excess = self.log.quota.excess(&header.origin, (0, 0), header.payload_len)?;
        Some(match excess {
            Excess::Bytes { .. } => Refusal::OverShare,
            Excess::Entries { .. } => Refusal::OverRate,
        })
    }

    /// Remembers what has no room while its origin has all it may have. Nobody is to blame who
    /// passes it on: others may have more room.
    pub(in crate::protocol) fn turn_away(&mut self, id: TransactionId, header: &Header) {
        let keep_until = self.env.keep_until(header);
        self.log.turn_away(id, header, keep_until, self.env.now);
        self.forget_passed();
    }

    /// Reports whether a transaction was offered as news. Its announcer may have found it by a
    /// comparison itself: then it is news if it is no older than clocks may differ.
    fn is_news(&self, header: &Header, arrival: Arrival) -> bool {
        let skew = self.env.config.network.max_clock_skew;
        match arrival {
            Arrival::Pushed => true,
            Arrival::Announced => header.created.plus(skew) >= self.env.wall,
            Arrival::Found => false,
        }
    }

    fn store_foreign(&mut self, from: PeerId, transaction: &Transaction, hops: u16, is_news: bool) {
        let entry = NewEntry {
            keep_until: self.env.keep_until(transaction.header()),
            transaction: transaction.clone(),
            from: Some(from),
            hops,
        };
        let size = transaction.header().payload_len;
        self.env.storing.enter(1);
        self.env.storing_bytes.enter(size);
        let (id, origin) = (transaction.id(), transaction.origin());
        let ticket = self.env.ticket(Task::StoreForeign { id, origin, size });
        self.env.push(Output::Store { ticket, entry, is_news });
    }

    pub(in crate::protocol) fn on_stored(
        &mut self,
        ticket: Ticket,
        result: Result<(), StoreErrorKind>,
    ) {
        let Some(task) = self.env.tickets.remove(&ticket) else { return };
        let (count, bytes) = match &task {
            Task::StoreOwn { transactions, .. } => {
                let sizes = transactions.iter().map(|t| t.header().payload_len);
                (transactions.len() as u64, sizes.sum())
            }
            Task::StoreForeign { size, .. } => (1, *size),
            _ => (1, 0),
        };
        self.env.storing.leave(count);
        self.env.storing_bytes.leave(bytes);
        if result.is_err() {
            self.env.counters.storage_failures += 1;
        }
        match task {
            Task::StoreOwn { transactions, renews } => {
                self.on_own_stored(&transactions, renews, result);
            }
            Task::StoreForeign { id, origin, .. } if result.is_ok() => {
                if let Some((seq, size)) = self.log.note_stored(&id) {
                    self.intake.retry.note_saved(size, self.env.now);
                    self.trail.note(seq, What::Stored, None, self.env.now);
                }
                // The origin waits for this; others hear of it by announcement.
                if let Some(link) = self.links.by_peer.get(&origin).copied() {
                    self.confirm_to(link, id);
                }
                self.confirm_passed(&id);
            }
            Task::StoreForeign { id, .. }
                if self.log.find(&id).is_some_and(|entry| !entry.is_stored()) =>
            {
                let size = self.log.find(&id).map_or(0, |entry| u64::from(entry.size));
                self.log.note_unsaved(&id);
                self.intake.retry.note_failed(size);
                if let Err(kind) = result {
                    self.trail.note_failed(&id, kind, self.env.now);
                }
            }
            _ => {}
        }
    }
}
