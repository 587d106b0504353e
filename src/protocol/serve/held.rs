//! Payloads that were read from the store and are held until the peers that asked have them.
//!
//! ```text
//! asked for ──room──► loading ──► held, used with each piece ──► every peer that waited is served
//!     └──none: waits in line          └──room is needed, and unused for `IDLE`: read again later
//! ```
//!
//! Bounds: payloads held and being read take at most `Shares::serving` together, one larger one alone
//! may exceed that. Who finds no room waits in line with the link, and nobody overtakes; room comes when
//! a payload has been served, or has not moved for `IDLE`: a slow peer keeps nobody waiting, since
//! what it takes is read again. What the log's own cache has is served from there and not held.
//!
//! Tested by: the tests below, `protocol::tests::budget`, `sim::tests::large`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::protocol::gate::Gate;
use crate::types::{LinkId, MonoTime, Transaction, TransactionId};

/// Time without a move after which a payload may have to make room for others.
const IDLE: Duration = Duration::from_secs(1);

/// Share of a peer in a payload that is held: the number under which the payload was read.
pub(in crate::protocol) type Claim = u64;

/// A payload that is held, or being read.
#[derive(Debug)]
struct Held {
    /// `None` while it is being read.
    payload: Option<Transaction>,
    size: u64,
    used: MonoTime,
    /// Number of peers that wait for it or for its pieces.
    users: usize,
    claim: Claim,
}

/// Payloads for peers that asked.
#[derive(Debug, Default)]
pub(in crate::protocol) struct HeldPayloads {
    all: BTreeMap<TransactionId, Held>,
    /// Payloads that are here, by the time of their last move.
    by_use: BTreeSet<(MonoTime, TransactionId)>,
    bytes: Gate,
    /// True: bytes were freed since somebody looked.
    freed: bool,
    last_claim: Claim,
    /// Links that wait for room, in the order in which they came.
    line: VecDeque<LinkId>,
}

impl HeldPayloads {
    /// Returns the number of bytes held and being read.
    pub(in crate::protocol) fn bytes(&self) -> u64 {
        self.bytes.level()
    }

    /// Returns a payload that is here.
    pub(super) fn get(&self, id: &TransactionId) -> Option<&Transaction> {
        self.all.get(id)?.payload.as_ref()
    }

    /// Makes room for `size` bytes for a link, as far as its turn has come and what is unused can
    /// go; without room, the link stands in line.
    pub(super) fn make_room(&mut self, link: LinkId, size: u64, share: u64, now: MonoTime) -> bool {
        let is_next = self.line.front().is_none_or(|first| *first == link);
        while is_next && !self.bytes.has_room(size, share) {
            match self.by_use.first().copied() {
                Some((used, id)) if used + IDLE <= now => self.remove(&id),
                _ => break,
            }
        }
        let has_room = is_next && self.bytes.has_room(size, share);
        if has_room {
            self.leave_line(link);
        } else if !self.line.contains(&link) {
            self.line.push_back(link);
        }
        has_room
    }

    /// A link waits no more.
    pub(in crate::protocol) fn leave_line(&mut self, link: LinkId) {
        self.line.retain(|other| *other != link);
    }

    /// Returns the link that is first in line.
    pub(super) fn first_in_line(&self) -> Option<LinkId> {
        self.line.front().copied()
    }

    /// Returns the time from which on the first in line may find room that it has not tried.
    pub(super) fn next_try(&mut self, now: MonoTime) -> Option<MonoTime> {
        self.line.front()?;
        if std::mem::take(&mut self.freed) || self.bytes.is_empty() {
            return Some(now);
        }
        self.by_use.first().map(|(used, _)| *used + IDLE)
    }

    /// A payload is being read; its bytes count from now on.
    pub(super) fn begin(&mut self, id: TransactionId, size: u64, now: MonoTime) {
        self.last_claim += 1;
        let held = Held { payload: None, size, used: now, users: 0, claim: self.last_claim };
        if self.all.insert(id, held).is_none() {
            self.bytes.enter(size);
        }
    }

    /// A payload was read, or is not there; it stays for `users` peers.
    pub(super) fn arrive(
        &mut self,
        id: TransactionId,
        payload: Option<Transaction>,
        users: usize,
        now: MonoTime,
    ) {
        let Some(held) = self.all.get_mut(&id).filter(|held| held.payload.is_none()) else {
            return;
        };
        if payload.is_none() || users == 0 {
            return self.remove(&id);
        }
        (held.payload, held.users, held.used) = (payload, users, now);
        self.by_use.insert((now, id));
    }

    /// Returns the claim of those for whom a payload was read.
    pub(super) fn claim(&self, id: &TransactionId) -> Option<Claim> {
        self.all.get(id).map(|held| held.claim)
    }

    /// One more peer waits for a payload that is here.
    pub(super) fn join(&mut self, id: &TransactionId) -> Option<Claim> {
        let held = self.all.get_mut(id).filter(|held| held.payload.is_some())?;
        held.users += 1;
        Some(held.claim)
    }

    /// Part of a payload was sent.
    pub(super) fn note_use(&mut self, id: &TransactionId, now: MonoTime) {
        if let Some(held) = self.all.get_mut(id).filter(|held| held.payload.is_some()) {
            self.by_use.remove(&(held.used, *id));
            held.used = now;
            self.by_use.insert((now, *id));
        }
    }

    /// A peer waits for a payload no more. After the last one, its bytes are free.
    pub(super) fn release(&mut self, id: &TransactionId, claim: Claim) {
        // It may have made room and been read anew for others.
        let Some(held) = self.all.get_mut(id).filter(|held| held.claim == claim) else { return };
        held.users = held.users.saturating_sub(1);
        if held.users == 0 && held.payload.is_some() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: &TransactionId) {
        if let Some(held) = self.all.remove(id) {
            self.by_use.remove(&(held.used, *id));
            self.bytes.leave(held.size);
            self.freed = true;
        }
    }

    /// Sums up what is held, to compare it with what is counted.
    #[cfg(test)]
    pub(in crate::protocol) fn sum(&self) -> u64 {
        self.all.values().map(|held| held.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Header, PeerId, Signature, Topic, WallTime};

    const SHARE: u64 = 100;

    fn transaction(n: u8, size: usize) -> Transaction {
        let payload = Bytes::from(vec![n; size]);
        let topic = Topic::new("t").unwrap();
        let at = WallTime::from_millis(1);
        let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, &payload);
        Transaction::new(header, Signature::None, payload).unwrap()
    }

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_millis(ms))
    }

    /// Reads a payload for a number of peers.
    fn read(held: &mut HeldPayloads, n: u8, size: usize, users: usize, now: u64) -> TransactionId {
        let transaction = transaction(n, size);
        let id = transaction.id();
        held.begin(id, size as u64, at(now));
        held.arrive(id, Some(transaction), users, at(now));
        id
    }

    #[test]
    fn bytes_are_free_once_the_last_peer_is_served() {
        let mut held = HeldPayloads::default();
        let id = read(&mut held, 1, 60, 2, 0);
        let claim = held.claim(&id).unwrap();
        held.release(&id, claim);
        assert!(held.get(&id).is_some());
        assert_eq!(held.join(&id), Some(claim));
        held.release(&id, claim);
        held.release(&id, claim);
        assert!(held.get(&id).is_none() && held.bytes() == 0);
        held.release(&id, claim);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn what_is_not_there_or_wanted_no_more_takes_nothing() {
        let mut held = HeldPayloads::default();
        let id = transaction(1, 60).id();
        held.begin(id, 60, at(0));
        assert_eq!(held.bytes(), 60);
        held.arrive(id, None, 1, at(0));
        assert_eq!(held.bytes(), 0);
        read(&mut held, 2, 60, 0, 0);
        assert_eq!((held.bytes(), held.sum()), (0, 0));
    }

    #[test]
    fn what_moves_stays_and_what_does_not_makes_room() {
        let mut held = HeldPayloads::default();
        let (slow, quick) = (read(&mut held, 1, 50, 1, 0), read(&mut held, 2, 50, 1, 0));
        let claim = held.claim(&slow).unwrap();
        held.note_use(&quick, at(900));
        assert!(!held.make_room(LinkId(1), 10, SHARE, at(999)));
        assert_eq!(held.next_try(at(999)), Some(at(1000)));
        assert!(held.make_room(LinkId(1), 10, SHARE, at(1000)));
        assert!(held.get(&slow).is_none() && held.get(&quick).is_some());
        // It is read again for its peer, and the old claim is nobody's any more.
        read(&mut held, 1, 50, 1, 1000);
        held.release(&slow, claim);
        assert!(held.get(&slow).is_some());
        assert_eq!(held.bytes(), held.sum());
    }

    #[test]
    fn nobody_overtakes_in_the_line_for_room() {
        let mut held = HeldPayloads::default();
        let id = read(&mut held, 1, 90, 1, 0);
        assert_eq!(held.next_try(at(1)), None, "nobody waits");
        assert!(!held.make_room(LinkId(7), 90, SHARE, at(1)));
        assert!(!held.make_room(LinkId(8), 1, SHARE, at(1)), "though it would fit");
        assert_eq!(held.next_try(at(1)), Some(at(1000)), "nothing has changed");
        held.release(&id, held.claim(&id).unwrap());
        assert_eq!(held.next_try(at(1)), Some(at(1)));
        assert!(!held.make_room(LinkId(8), 1, SHARE, at(1)));
        assert!(held.make_room(LinkId(7), 90, SHARE, at(1)));
        assert_eq!(held.first_in_line(), Some(LinkId(8)));
        held.leave_line(LinkId(8));
        assert_eq!(held.first_in_line(), None);
    }

    #[test]
    fn one_larger_than_all_the_room_goes_alone() {
        let mut held = HeldPayloads::default();
        assert!(held.make_room(LinkId(1), 1000, SHARE, at(0)));
        let id = read(&mut held, 1, 1000, 1, 0);
        assert!(!held.make_room(LinkId(1), 1, SHARE, at(0)));
        assert!(held.make_room(LinkId(1), 1, SHARE, at(1000)));
        assert!(held.get(&id).is_none());
    }
}
