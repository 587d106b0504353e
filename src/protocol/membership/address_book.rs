//! The address book: who is known, where, and when to try again.
//!
//! Heard never overwrites verified: the address at which a peer last answered is kept apart from
//! what records say, and a record is believed only with its subject's signature and a higher
//! sequence number. Bootstrap peers are never forgotten. One source fills at most a quarter of the
//! book, so a hostile peer cannot crowd out what others told us.
//!
//! Tested by: the tests below, `sim::tests::hostile`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::types::{Endpoint, MonoTime, PeerId, PeerRecord, StoredPeer, WallTime};

use super::notice::Notice;

/// Maximum number of own addresses remembered.
const MAX_OWN: usize = 64;
/// Time for which a link has to live to count as a success: what breaks sooner is dialled again ever
/// more rarely, as what cannot be reached at all.
const STEADY: Duration = Duration::from_secs(20);

/// Topics that a peer carries, as far as is known. The peer's own word counts more than what others
/// say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::protocol) enum Kind {
    /// Relay, as the peer says.
    Relay,
    /// Relay, as somebody else says.
    Hearsay,
    Unknown,
    /// Edge, as the peer says.
    Edge,
}

/// Knowledge of one peer.
#[derive(Debug, Clone)]
pub(in crate::protocol) struct Known {
    pub(in crate::protocol) record: Option<PeerRecord>,
    /// The record's endpoints that the address policy lets us dial.
    pub(super) dialable: Vec<Endpoint>,
    verified: Option<Endpoint>,
    pub(super) last_up: Option<WallTime>,
    pub(super) failures: u32,
    /// Earliest time of the next dial.
    pub(in crate::protocol) next: MonoTime,
    pub(in crate::protocol) kind: Kind,
    /// Peer that told us; `None` for the peer itself, a store or the host.
    pub(in crate::protocol) source: Option<PeerId>,
    /// Links in a row that ended soon, less one for each `STEADY` that a later one lived.
    pub(super) short_links: u32,
    /// Time when its last link ended.
    pub(super) gone: Option<MonoTime>,
}

impl Known {
    fn new(source: Option<PeerId>) -> Self {
        Self {
            record: None,
            dialable: Vec::new(),
            verified: None,
            last_up: None,
            failures: 0,
            next: MonoTime::ZERO,
            kind: Kind::Unknown,
            source,
            short_links: 0,
            gone: None,
        }
    }

    /// Returns the endpoint to try next: where the peer last answered, then each address of its
    /// record in turn.
    pub(in crate::protocol) fn endpoint(&self) -> Option<&Endpoint> {
        let all: Vec<_> = self.verified.iter().chain(&self.dialable).collect();
        let turn = (self.failures as usize).checked_rem(all.len())?;
        Some(all[turn])
    }

    pub(super) fn to_stored(&self, peer: PeerId) -> StoredPeer {
        StoredPeer {
            peer,
            record: self.record.clone(),
            verified: self.verified.clone(),
            last_up: self.last_up,
            failures: self.failures,
        }
    }
}

/// A configured first contact.
#[derive(Debug)]
pub(in crate::protocol) struct Bootstrap {
    pub(in crate::protocol) endpoint: Endpoint,
    /// Peer that answered there last.
    pub(in crate::protocol) peer: Option<PeerId>,
    /// Peer that must answer there.
    pub(super) pin: Option<PeerId>,
    pub(super) failures: u32,
    pub(in crate::protocol) next: MonoTime,
    pub(super) dialling: bool,
    /// The same as of a known peer, for one that the book has no room for.
    pub(super) short_links: u32,
    pub(super) notice: Notice,
}

/// Result of noting a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// A peer that was unknown.
    New,
    /// A newer record of a known peer.
    Updated,
    /// Known already: the record holds nothing new.
    Old,
    /// Dropped: there was no room.
    Shed,
}

#[derive(Debug)]
pub(in crate::protocol) struct AddressBook {
    pub(in crate::protocol) known: BTreeMap<PeerId, Known>,
    pub(in crate::protocol) bootstrap: Vec<Bootstrap>,
    pub(in crate::protocol) own: BTreeSet<Endpoint>,
    evicted: Vec<PeerId>,
    max: usize,
}

impl AddressBook {
    pub(in crate::protocol) fn new(
        bootstrap: &[Endpoint],
        max: u32,
        restored: Vec<StoredPeer>,
    ) -> Self {
        let unique: BTreeSet<_> = bootstrap.iter().cloned().collect();
        let bootstrap = unique.into_iter().map(|endpoint| Bootstrap {
            endpoint,
            peer: None,
            pin: None,
            failures: 0,
            next: MonoTime::ZERO,
            dialling: false,
            short_links: 0,
            notice: Notice::default(),
        });
        let max = max as usize;
        let known = restored.into_iter().take(max).map(|stored| {
            let known = Known {
                // Stored records were filtered when they were heard.
                dialable: stored.record.iter().flat_map(|r| r.draft.endpoints.clone()).collect(),
                record: stored.record,
                verified: stored.verified,
                last_up: stored.last_up,
                failures: 0,
                next: MonoTime::ZERO,
                kind: Kind::Unknown,
                source: None,
                short_links: 0,
                gone: None,
            };
            (stored.peer, known)
        });
        Self {
            known: known.collect(),
            bootstrap: bootstrap.collect(),
            own: BTreeSet::new(),
            evicted: Vec::new(),
            max,
        }
    }

    /// The same book, with the peers that must answer at some addresses.
    pub(in crate::protocol) fn pinned(mut self, pins: &BTreeMap<Endpoint, PeerId>) -> Self {
        for b in &mut self.bootstrap {
            b.pin = pins.get(&b.endpoint).copied();
        }
        self
    }

    pub(in crate::protocol) fn note_own(&mut self, endpoint: Endpoint) {
        if self.own.len() < MAX_OWN {
            self.own.insert(endpoint);
        }
    }

    pub(in crate::protocol) fn is_own(&self, endpoint: &Endpoint) -> bool {
        self.own.contains(endpoint)
    }

    /// Notes a verified record; `dialable` are its endpoints that policy allows.
    pub(super) fn note_record(
        &mut self,
        record: PeerRecord,
        dialable: Vec<Endpoint>,
        source: Option<PeerId>,
    ) -> Noted {
        let peer = record.peer();
        if let Some(known) = self.known.get_mut(&peer) {
            let old = known.record.as_ref().map(|r| r.draft.seq);
            if old.is_some_and(|old| old >= record.draft.seq) {
                return Noted::Old;
            }
            known.dialable = dialable;
            known.record = Some(record);
            return Noted::Updated;
        }
        if self.share_is_used_up(source) || !self.make_room() {
            return Noted::Shed;
        }
        let mut known = Known::new(source);
        known.record = Some(record);
        known.dialable = dialable;
        self.known.insert(peer, known);
        Noted::New
    }

    fn share_is_used_up(&self, source: Option<PeerId>) -> bool {
        let Some(source) = source else { return false };
        let told = self.known.values().filter(|k| k.source == Some(source)).count();
        told >= (self.max / 4).max(8)
    }

    /// Finds a place, if need be by forgetting who failed most and was never linked.
    fn make_room(&mut self) -> bool {
        if self.known.len() < self.max {
            return true;
        }
        let worst = self
            .known
            .iter()
            .filter(|(_, k)| k.failures > 0)
            .max_by_key(|(_, k)| (k.last_up.is_none(), k.failures))
            .map(|(id, _)| *id);
        // Else who only ever dialled us: it comes back by itself, if at all.
        let worst = worst.or_else(|| {
            let useless = self.known.iter().filter(|(_, k)| k.endpoint().is_none());
            useless.min_by_key(|(_, k)| k.last_up).map(|(id, _)| *id)
        });
        let Some(worst) = worst else { return false };
        self.known.remove(&worst);
        self.evicted.push(worst);
        true
    }

    /// Returns the peers that were forgotten to make room since the last call.
    pub(super) fn take_evicted(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.evicted)
    }

    /// The peer of this link is there, reached at `endpoint` if we dialled it.
    pub(super) fn note_up(&mut self, peer: PeerId, endpoint: Option<&Endpoint>, wall: WallTime) {
        if !self.known.contains_key(&peer) && !self.make_room() {
            return;
        }
        let known = self.known.entry(peer).or_insert_with(|| Known::new(None));
        known.last_up = Some(wall);
        known.failures = 0;
        known.source = None;
        if let Some(endpoint) = endpoint {
            known.verified = Some(endpoint.clone());
            for b in self.bootstrap.iter_mut().filter(|b| b.endpoint == *endpoint) {
                b.peer = Some(peer);
                b.failures = 0;
            }
        }
    }

    /// A peer said what it is.
    pub(in crate::protocol) fn note_kind(&mut self, peer: &PeerId, is_relay: bool) {
        if let Some(known) = self.known.get_mut(peer) {
            known.kind = if is_relay { Kind::Relay } else { Kind::Edge };
        }
    }

    /// Notes that somebody says a peer is a relay.
    pub(super) fn hear_of_relay(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.get_mut(peer)
            && known.kind == Kind::Unknown
        {
            known.kind = Kind::Hearsay;
        }
    }

    /// Reports whether there are edges, as far as is known.
    pub(super) fn is_mixed(&self) -> bool {
        self.known.values().any(|known| known.kind == Kind::Edge)
    }

    /// The link of a peer ended after it had `lived`; returns how many ended soon, in a row.
    pub(super) fn note_down(&mut self, peer: &PeerId, lived: Duration, now: MonoTime) -> u32 {
        let steady = u32::try_from(lived.as_secs() / STEADY.as_secs()).unwrap_or(u32::MAX);
        let is_short = u32::from(steady == 0);
        let count = |links: &mut u32| {
            *links = links.saturating_sub(steady).saturating_add(is_short);
            *links
        };
        let theirs = |b: &&mut Bootstrap| b.peer == Some(*peer);
        let at_bootstrap = self.bootstrap.iter_mut().filter(theirs);
        let most = at_bootstrap.map(|b| count(&mut b.short_links)).max();
        let known = self.known.get_mut(peer).map(|known| {
            known.gone = Some(now);
            count(&mut known.short_links)
        });
        known.or(most).unwrap_or(is_short)
    }

    /// A dial of an address failed: whoever is thought to be there is tried elsewhere next.
    pub(super) fn note_address_failed(&mut self, endpoint: &Endpoint, next: MonoTime) {
        for known in self.known.values_mut().filter(|k| k.endpoint() == Some(endpoint)) {
            known.failures = known.failures.saturating_add(1);
            known.next = known.next.max(next);
        }
    }

    /// A dial of this peer failed.
    pub(super) fn note_failure(&mut self, peer: &PeerId, next: MonoTime) {
        if let Some(known) = self.known.get_mut(peer) {
            known.failures = known.failures.saturating_add(1);
            known.next = next;
        }
    }

    /// Puts the next dial off until `next`, though nothing failed.
    pub(super) fn postpone(&mut self, peer: &PeerId, next: MonoTime) {
        if let Some(known) = self.known.get_mut(peer) {
            known.next = next;
        }
    }
}

/// Delay before attempt number `failures + 1`: doubling from `min` to `max`. The caller adds jitter.
pub(in crate::protocol) fn backoff(failures: u32, min: Duration, max: Duration) -> Duration {
    min.saturating_mul(1 << failures.min(16)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::types::RecordDraft;

    fn record(n: u8, seq: u64) -> PeerRecord {
        let identity = Identity::from_seed([n; 32]);
        identity.sign_record(RecordDraft {
            peer: identity.peer_id(),
            seq,
            issued: WallTime::from_millis(1),
            endpoints: vec![format!("10.0.0.{n}:1").parse().unwrap()],
        })
    }

    fn note(book: &mut AddressBook, r: PeerRecord, source: Option<PeerId>) -> Noted {
        let dialable = r.draft.endpoints.clone();
        book.note_record(r, dialable, source)
    }

    #[test]
    fn a_lower_sequence_number_never_replaces_a_higher() {
        let mut book = AddressBook::new(&[], 10, Vec::new());
        assert_eq!(note(&mut book, record(1, 5), None), Noted::New);
        assert_eq!(note(&mut book, record(1, 4), None), Noted::Old);
        assert_eq!(note(&mut book, record(1, 5), None), Noted::Old);
        assert_eq!(note(&mut book, record(1, 6), None), Noted::Updated);
    }

    #[test]
    fn one_source_fills_only_its_share_and_the_book_is_bounded() {
        let mut book = AddressBook::new(&[], 40, Vec::new());
        let source = Some(PeerId::from_bytes([9; 32]));
        let shed = (1..=30).filter(|n| note(&mut book, record(*n, 1), source) == Noted::Shed);
        assert_eq!(shed.count(), 20);
        for n in 31..=80 {
            note(&mut book, record(n, 1), None);
        }
        assert_eq!(book.known.len(), 40);
    }

    #[test]
    fn a_full_book_forgets_failures_before_friends() {
        let mut book = AddressBook::new(&[], 10, Vec::new());
        for n in 1..=10 {
            note(&mut book, record(n, 1), None);
        }
        assert_eq!(note(&mut book, record(11, 1), None), Noted::Shed);
        book.note_failure(&record(3, 1).peer(), MonoTime::ZERO);
        assert_eq!(note(&mut book, record(11, 1), None), Noted::New);
        assert!(!book.known.contains_key(&record(3, 1).peer()));
    }

    #[test]
    fn visitors_without_an_address_make_room() {
        let mut book = AddressBook::new(&[], 10, Vec::new());
        for n in 1..=10 {
            let visitor = PeerId::from_bytes([n; 32]);
            book.note_up(visitor, None, WallTime::from_millis(u64::from(n)));
        }
        assert_eq!(note(&mut book, record(11, 1), None), Noted::New);
        assert_eq!(book.take_evicted(), [PeerId::from_bytes([1; 32])], "the oldest");
        assert_eq!(book.known.len(), 10);
    }

    #[test]
    fn backoff_doubles_and_stops() {
        let (min, max) = (Duration::from_secs(1), Duration::from_mins(1));
        assert_eq!(backoff(0, min, max), min);
        assert_eq!(backoff(3, min, max), Duration::from_secs(8));
        assert_eq!(backoff(u32::MAX, min, max), max);
    }
}
