//! Pieces of one payload from several sources at once.
//!
//! From 4 MiB on, up to three sources that have all of it are asked for different pieces: another one
//! takes over part of what the parent with most still owes, in proportion to their rates. A parent
//! that is still receiving keeps its share: what it owes is on its way already (measured: no sooner
//! there, and 3 % twice).
//!
//! Tested by: `sim::tests::large`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::intake::{Holds, MAX_ASKED, Source};
use crate::protocol::link::Link;
use crate::types::{MonoTime, PIECE_BYTES, PieceSet, TransactionId};

use super::header::Parent;

/// Minimum size of payloads that are fetched from several sources. Below it nearly all is on its
/// way before its rate is known: at 1 MiB and 1000 nodes striping came to 1.033 copies instead of
/// 1.004, and nothing was there sooner.
const STRIPE_FROM: u64 = 4 << 20;
/// Maximum number of sources at once.
const MAX_PARENTS: usize = 3;
/// Minimum number of pieces in a range that another source takes over: 256 KiB.
const RANGE: u32 = 4;
/// Number of bytes per second assumed of a link that was not measured yet.
pub(super) const DEFAULT_RATE: u64 = 2 << 20;
/// Minimum rate that is waited for, in bytes per second.
pub(in crate::protocol) const LEAST_RATE: u32 = 32 << 10;

/// Rate at which pieces come in on a link.
#[derive(Debug, Default)]
pub(in crate::protocol) struct PieceRate {
    /// Time of the latest piece.
    pub(in crate::protocol) at: Option<MonoTime>,
    /// Start of the measured span and bytes since.
    since: Option<MonoTime>,
    bytes: u64,
    rate: Option<u64>,
}

impl PieceRate {
    pub(in crate::protocol) fn note(&mut self, now: MonoTime, bytes: usize) {
        self.at = Some(now);
        self.bytes += bytes as u64;
        let span = self.since.map_or(Duration::ZERO, |since| now.since(since));
        if span < Duration::from_millis(20) {
            self.since.get_or_insert(now);
            return;
        }
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
        let sample = (self.bytes.saturating_mul(1_000_000) / micros).max(1);
        self.rate = Some(self.rate.map_or(sample, |rate| (rate * 3 + sample) / 4));
        (self.since, self.bytes) = (Some(now), 0);
    }

    /// Starts the measured span when something was asked for; the answer takes a round trip.
    pub(in crate::protocol) fn start(&mut self, answer: MonoTime) {
        self.since.get_or_insert(answer);
    }

    /// Ends the measured span, since all that was asked for is here: the pause that follows says
    /// nothing about the rate.
    pub(super) fn idle(&mut self) {
        (self.since, self.bytes) = (None, 0);
    }

    /// Returns the measured rate.
    pub(in crate::protocol) fn measured(&self) -> Option<u64> {
        self.rate
    }

    pub(in crate::protocol) fn rate(&self) -> u64 {
        self.rate.unwrap_or(DEFAULT_RATE).max(u64::from(LEAST_RATE))
    }
}

impl Protocol {
    /// Guesses that what others have had for a while is with all peers: asked of several at once, a
    /// newcomer does not wait for one uplink. A peer that lacks the payload says so. Only once
    /// there is a signature: anybody can list what does not exist.
    fn guess_sources(&mut self, id: &TransactionId) {
        let (now, links) = (self.env.now, self.links_that_carry(id));
        if let Some(pending) = self.intake.pending.get_mut(id)
            && pending.size >= STRIPE_FROM
            && pending.large.as_ref().is_some_and(|large| large.found && large.trusted)
        {
            for link in links {
                pending.guess_source(link, now);
            }
        }
    }

    /// Lets sources that have all of it take over part of what is still owed.
    pub(super) fn stripe(&mut self, id: &TransactionId) {
        self.guess_sources(id);
        let (now, links) = (self.env.now, &self.links);
        let Some(pending) = self.intake.pending.get_mut(id).filter(|p| p.size >= STRIPE_FROM)
        else {
            return;
        };
        let Some(large) = &mut pending.large else { return };
        if large.parents.is_empty() || large.parents.len() >= MAX_PARENTS {
            return;
        }
        let parents = &large.parents;
        let fit = |s: &&Source| {
            let idle = s.holds == Holds::All && !s.tried && s.busy.is_none_or(|b| b <= now);
            let peer = links.peer_of(s.link);
            idle && !parents.iter().any(|p| p.link == s.link)
                && peer.is_some_and(|peer| self.guard.reputation.is_reliable(&peer, now))
        };
        let fit = pending.sources.iter().filter(fit).map(|s| s.link);
        let Some(link) = fit.min_by_key(|link| links.is_poor(*link, now)) else { return };
        let owes = |p: &Parent| p.wanted.as_ref().map_or(0, PieceSet::count);
        let slow = large.parents.iter_mut().filter(|p| p.whole).max_by_key(|p| owes(p));
        let Some(slow) = slow.filter(|p| p.served) else { return };
        let rate_of = |link| {
            let up = links.all.get(&link).and_then(|l: &Link| l.up.as_ref());
            up.map(|up| (up.pieces.rate, up.pinger.rtt))
        };
        // Before its rate is known, nobody knows what is on its way already.
        let Some((Some(theirs), Some(rtt))) = rate_of(slow.link) else { return };
        let own = rate_of(link).and_then(|(rate, _)| rate).unwrap_or(theirs);
        let millis = u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX).saturating_add(50);
        // Twice, because a parent speeds up when it is through with others.
        let on_its_way = theirs.saturating_mul(millis) / 500 / PIECE_BYTES as u64 + 2;
        let share = u64::from(owes(slow)).saturating_sub(on_its_way) * own / (theirs + own).max(1);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        if share < RANGE {
            return;
        }
        let Some(wanted) = &mut slow.wanted else { return };
        let taken = wanted.split_tail(share);
        let slow = slow.link;
        let Some(up) = self.links.up(link) else { return };
        if up.requests.in_flight.len() >= MAX_ASKED {
            // Nobody is asked for them now: they are missing until the next look.
            return;
        }
        up.requests.in_flight.insert(*id);
        large.parents.push(Parent::new(link, Some(taken), now, true));
        self.env.counters.wants_sent += 1;
        // Taken back on one link before it is asked for on the other.
        self.say_narrowed(slow, id);
        self.say_reserved(link, id, false, false);
        self.note_promise(link, *id);
    }
}
