//! The address book: who is known, where, and when to try again.
//!
//! Heard never overwrites verified: the address at which a peer last answered is kept apart from
//! what records say, and a record is believed only with its subject's signature and a higher
//! sequence number than any that was believed before. One exception: what the subject itself says
//! on its own link, where the transport has proven its key, is believed whatever its number, so that
//! a node whose numbers fell back (a lost disk) is found where it is. The higher record stays the
//! one that others' word must exceed, and the subject is told of it and signs anew above it.
//! Bootstrap peers are never forgotten. One source fills at most a quarter of the book, so a hostile
//! peer cannot crowd out what others told us.
//!
//! Tested by: the tests below, `sim::tests::hostile`, `sim::tests::addresses`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Endpoint, MonoTime, PeerId, PeerRecord, StoredPeer, TransportKind, WallTime};

use super::notice::Notice;

/// Time for which a link has to live to count as a success: what breaks sooner is dialled again ever
/// more rarely, as what cannot be reached at all.
pub(super) const STEADY: Duration = Duration::from_secs(20);

/// Short links that are counted at most: with six doublings the delay of 1 s is at its longest, and
/// further ones would only take longer to be made up for.
const MAX_SHORT_LINKS: u32 = 7;

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
    /// A record with a higher number than the present one, which its subject itself took back.
    outranked: Option<Box<PeerRecord>>,
    /// The highest number that the subject itself has said on the link that it has now.
    said: u64,
    /// The record's endpoints that the address policy lets us dial.
    pub(super) dialable: Vec<Endpoint>,
    verified: Option<Endpoint>,
    /// Transport by which it last answered there.
    rung: Option<TransportKind>,
    /// True: the subject has named other addresses since it was reached at `verified`.
    moved: bool,
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
            outranked: None,
            said: 0,
            dialable: Vec::new(),
            verified: None,
            rung: None,
            moved: false,
            last_up: None,
            failures: 0,
            next: MonoTime::ZERO,
            kind: Kind::Unknown,
            source,
            short_links: 0,
            gone: None,
        }
    }

    /// Returns the endpoint to try next, of those that `may` be dialled.
    pub(in crate::protocol) fn endpoint(
        &self,
        may: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Endpoint> {
        self.endpoints(may).first().copied()
    }

    /// Returns the endpoints to try next, of those that `may` be dialled: where the peer last answered,
    /// then the addresses of its record in its order; where the peer has named others since it
    /// answered, those first. After each failure another one is the first.
    pub(super) fn endpoints(&self, may: impl Fn(&Endpoint) -> bool) -> Vec<&Endpoint> {
        let verified = self.verified.iter();
        let named = self.dialable.iter().filter(|e| self.verified.as_ref() != Some(e));
        let mut all: Vec<_> = if self.moved {
            named.chain(verified).collect()
        } else {
            verified.chain(named).collect()
        };
        all.retain(|endpoint| may(endpoint));
        if let Some(turn) = (self.failures as usize).checked_rem(all.len()) {
            all.rotate_left(turn);
        }
        all
    }

    /// Returns when its link came up last.
    pub(in crate::protocol) fn last_up(&self) -> Option<WallTime> {
        self.last_up
    }

    /// Returns where it last answered, and by which transport.
    pub(super) fn worked(&self) -> Option<(Endpoint, TransportKind)> {
        Some((self.verified.clone()?, self.rung?))
    }

    /// Reports whether it answered at an endpoint, or says that it is there.
    pub(super) fn is_at(&self, endpoint: &Endpoint) -> bool {
        self.verified.as_ref() == Some(endpoint) || self.dialable.contains(endpoint)
    }

    /// The number that others' word must exceed.
    fn highest(&self) -> Option<u64> {
        let present = self.record.as_ref().map(PeerRecord::seq);
        present.max(self.outranked.as_ref().map(|record| record.seq()))
    }

    /// Takes over a record.
    fn take(&mut self, record: PeerRecord, dialable: Vec<Endpoint>) {
        if let Some(verified) = self.verified.as_ref().filter(|verified| !verified.is_name()) {
            // Signed anew with the same addresses, it says nothing new of where the peer is.
            self.moved |= self.dialable != dialable && !dialable.is_empty();
            self.moved &= !dialable.contains(verified);
        }
        self.dialable = dialable;
        self.record = Some(record);
    }

    pub(super) fn to_stored(&self, peer: PeerId) -> StoredPeer {
        StoredPeer {
            peer,
            record: self.record.clone(),
            verified: self.verified.clone(),
            rung: self.rung,
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
    /// Transport by which it answered.
    rung: Option<TransportKind>,
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
    /// A record with a lower number, by the word of its subject: which is told of the higher.
    Corrected,
    /// Known already: the record holds nothing new.
    Old,
    /// Dropped: there was no room.
    Shed,
}

#[derive(Debug)]
pub(in crate::protocol) struct AddressBook {
    pub(in crate::protocol) known: BTreeMap<PeerId, Known>,
    pub(in crate::protocol) bootstrap: Vec<Bootstrap>,
    evicted: Vec<PeerId>,
    max: usize,
}

impl AddressBook {
    pub(in crate::protocol) fn new(
        bootstrap: &[Endpoint],
        max: u32,
        restored: Vec<StoredPeer>,
    ) -> Self {
        let mut unique: BTreeMap<Endpoint, Option<PeerId>> = BTreeMap::new();
        for endpoint in bootstrap {
            let pin = unique.entry(endpoint.with_pin(None)).or_default();
            *pin = pin.or(endpoint.pin());
        }
        let bootstrap = unique.into_iter().map(|(endpoint, pin)| Bootstrap {
            endpoint,
            peer: None,
            rung: None,
            pin,
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
                dialable: stored.record.iter().flat_map(PeerRecord::places).collect(),
                record: stored.record,
                verified: stored.verified.map(|endpoint| endpoint.to_canonical().with_pin(None)),
                rung: stored.rung,
                last_up: stored.last_up,
                ..Known::new(None)
            };
            (stored.peer, known)
        });
        Self { known: known.collect(), bootstrap: bootstrap.collect(), evicted: Vec::new(), max }
    }

    /// Reports whether a peer is one of those that this node joins by.
    pub(in crate::protocol) fn is_bootstrap(&self, peer: &PeerId) -> bool {
        self.bootstrap.iter().any(|b| b.peer.or(b.pin) == Some(*peer))
    }

    /// The peer that must answer at an address, as configured.
    pub(super) fn pin_at(&self, endpoint: &Endpoint) -> Option<PeerId> {
        self.bootstrap.iter().find(|b| b.endpoint == *endpoint)?.pin
    }

    /// Notes a verified record; `dialable` are its endpoints that policy allows. Without a `source` it
    /// is the subject itself that says so, on the link that it has.
    pub(super) fn note_record(
        &mut self,
        record: PeerRecord,
        dialable: Vec<Endpoint>,
        source: Option<PeerId>,
    ) -> Noted {
        let (peer, seq) = (record.peer(), record.seq());
        if let Some(known) = self.known.get_mut(&peer) {
            let exceeds = known.highest().is_none_or(|highest| highest < seq);
            if source.is_none() {
                let is_repeated = known.record.as_ref() == Some(&record);
                // Checked in any order, what was said first may come last.
                if known.said > seq || (is_repeated && !exceeds) {
                    known.said = known.said.max(seq);
                    return Noted::Old;
                }
                known.said = seq;
            } else if !exceeds {
                return Noted::Old;
            }
            if exceeds {
                known.outranked = None;
            } else if let Some(higher) = known.record.take()
                && known.outranked.is_none()
            {
                known.outranked = Some(Box::new(higher));
            }
            known.take(record, dialable);
            return if exceeds { Noted::Updated } else { Noted::Corrected };
        }
        if self.share_is_used_up(source) || !self.make_room() {
            return Noted::Shed;
        }
        let mut known = Known::new(source);
        known.take(record, dialable);
        if source.is_none() {
            known.said = seq;
        }
        self.known.insert(peer, known);
        Noted::New
    }

    /// Returns a record that a linked peer does not know of or has forgotten, though it has signed it:
    /// one with a higher number than it says itself.
    pub(super) fn unknown_to_subject(&self, peer: &PeerId) -> Option<&PeerRecord> {
        let known = self.known.get(peer)?;
        let highest = known.outranked.as_deref().or(known.record.as_ref())?;
        let is_news = highest.seq() > known.said || known.outranked.is_some();
        is_news.then_some(highest)
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
            let useless = self.known.iter().filter(|(_, k)| k.endpoint(|_| true).is_none());
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

    /// The peer of this link is there, reached at an endpoint by a transport if we dialled it.
    pub(super) fn note_up(
        &mut self,
        peer: PeerId,
        dialled: Option<(&Endpoint, TransportKind)>,
        wall: WallTime,
    ) {
        if !self.known.contains_key(&peer) && !self.make_room() {
            return;
        }
        let known = self.known.entry(peer).or_insert_with(|| Known::new(None));
        known.last_up = Some(wall);
        known.failures = 0;
        known.source = None;
        // A new link is a new word: a process that lost its numbers begins again.
        known.said = 0;
        if let Some((endpoint, rung)) = dialled {
            known.verified = Some(endpoint.clone());
            known.rung = Some(rung);
            known.moved = false;
            for b in self.bootstrap.iter_mut().filter(|b| b.endpoint == *endpoint) {
                b.peer = Some(peer);
                b.rung = Some(rung);
                b.failures = 0;
            }
        }
    }

    /// Returns the transport by which somebody last answered at an address.
    pub(super) fn worked_at(&self, endpoint: &Endpoint) -> Option<TransportKind> {
        let at_bootstrap = self.bootstrap.iter().find(|b| b.endpoint == *endpoint);
        let known = || self.known.values().find(|k| k.verified.as_ref() == Some(endpoint))?.rung;
        at_bootstrap.and_then(|b| b.rung).or_else(known)
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
            *links = links.saturating_sub(steady).saturating_add(is_short).min(MAX_SHORT_LINKS);
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

    /// Lists where a peer can be dialled, as far as is known.
    pub(in crate::protocol) fn places(&self, peer: &PeerId) -> impl Iterator<Item = &Endpoint> {
        self.known.get(peer).into_iter().flat_map(|known| &known.dialable)
    }

    /// A dial of an address failed: whoever is thought to be there is tried elsewhere next.
    pub(super) fn note_address_failed(&mut self, endpoint: &Endpoint, next: MonoTime) {
        for known in self.known.values_mut().filter(|k| k.endpoint(|_| true) == Some(endpoint)) {
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
        let teller = Some(PeerId::from_bytes([9; 32]));
        assert_eq!(note(&mut book, record(1, 5), teller), Noted::New);
        assert_eq!(note(&mut book, record(1, 4), teller), Noted::Old);
        assert_eq!(note(&mut book, record(1, 5), teller), Noted::Old);
        assert_eq!(note(&mut book, record(1, 6), teller), Noted::Updated);
    }

    #[test]
    fn the_subject_itself_takes_a_higher_number_back_and_nobody_else() {
        let mut book = AddressBook::new(&[], 10, Vec::new());
        let (peer, teller) = (record(1, 1).peer(), Some(PeerId::from_bytes([9; 32])));
        let wall = WallTime::from_millis(1);
        let present = |book: &AddressBook| book.known[&peer].record.as_ref().map(PeerRecord::seq);
        note(&mut book, record(1, 50), teller);
        book.note_up(peer, None, wall);
        assert_eq!(note(&mut book, record(1, 3), None), Noted::Corrected);
        assert_eq!(present(&book), Some(3));
        assert_eq!(book.unknown_to_subject(&peer).map(PeerRecord::seq), Some(50));
        // What was taken back does not come back by others, nor what lies between.
        for seq in [2, 3, 4, 49, 50] {
            assert_eq!(note(&mut book, record(1, seq), teller), Noted::Old, "{seq}");
        }
        assert_eq!(note(&mut book, record(1, 2), None), Noted::Old, "said before, checked later");
        assert_eq!(note(&mut book, record(1, 4), None), Noted::Corrected);
        assert_eq!(book.unknown_to_subject(&peer).map(PeerRecord::seq), Some(50));
        // Told of it, the subject signs above.
        assert_eq!(note(&mut book, record(1, 51), None), Noted::Updated);
        assert_eq!(book.unknown_to_subject(&peer), None);
        assert_eq!(note(&mut book, record(1, 60), teller), Noted::Updated);
        assert_eq!(book.unknown_to_subject(&peer).map(PeerRecord::seq), Some(60));
        // On its next link it begins anew, with whatever number.
        book.note_up(peer, None, wall);
        assert_eq!(note(&mut book, record(1, 7), None), Noted::Corrected);
        assert_eq!(note(&mut book, record(1, 7), None), Noted::Old);
    }

    #[test]
    fn a_peer_that_moved_is_sought_where_it_says() {
        let mut book = AddressBook::new(&[], 10, Vec::new());
        let identity = Identity::from_seed([1; 32]);
        let peer = identity.peer_id();
        let say = |book: &mut AddressBook, seq, places: &[&str]| {
            let endpoints = places.iter().map(|text| text.parse().unwrap()).collect();
            let issued = WallTime::from_millis(1);
            let record = identity.sign_record(RecordDraft { peer, seq, issued, endpoints });
            note(book, record, Some(PeerId::from_bytes([9; 32])));
        };
        let next = |book: &AddressBook| book.known[&peer].endpoint(|_| true).unwrap().to_string();
        say(&mut book, 1, &["10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(next(&book), "10.0.0.2:1");
        let there = "10.0.0.3:1".parse().unwrap();
        book.note_up(peer, Some((&there, TransportKind::GrpcStream)), WallTime::from_millis(1));
        assert_eq!(next(&book), "10.0.0.3:1", "where it answered");
        say(&mut book, 2, &["10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(next(&book), "10.0.0.3:1");
        say(&mut book, 3, &["10.0.0.4:1", "10.0.0.2:1"]);
        assert_eq!(next(&book), "10.0.0.4:1", "it is elsewhere");
        say(&mut book, 4, &["10.0.0.4:1", "10.0.0.2:1"]);
        assert_eq!(next(&book), "10.0.0.4:1");
        book.note_failure(&peer, MonoTime::ZERO);
        assert_eq!(next(&book), "10.0.0.2:1");
        book.note_failure(&peer, MonoTime::ZERO);
        assert_eq!(next(&book), "10.0.0.3:1", "last of all");
        let here = "10.0.0.3:1".parse().unwrap();
        let known = &book.known[&peer];
        assert_eq!(known.endpoint(|e| *e != here).unwrap().to_string(), "10.0.0.4:1");
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
