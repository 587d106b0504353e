//! The links and what waits on them.
//!
//! A link is in its hello (`up` is `None`) or established. An established one owns one of 128 slots,
//! so that what a peer is known to have is one bit in each log entry. What was handed to the driver
//! and has not left for the wire is counted in `queued_bytes`; what has not
//! arrived, in `budget`.
//!
//! Tested by: `protocol::tests::property`, `sim::tests::faults`.

mod batch;
mod budget;
mod cuts;
mod eviction;
mod handover;
mod liveness;
mod probing;
mod quality;
mod state;
mod view;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::env::Env;
use crate::protocol::io::{DialId, Output};
use crate::types::{Direction, LinkId, Message, MonoTime, PIECE_BYTES, PeerId, host_of};

pub(super) use batch::Batch;
pub(super) use budget::SendBudget;
pub(super) use cuts::Cuts;
#[cfg(any(test, feature = "sim"))]
pub(super) use cuts::MAX_PLACES;
pub(super) use eviction::{Candidate, Evictions, Merit, choose};
pub(super) use handover::{Attempt, Handover, Stage, Succession, Why};
pub(super) use liveness::{Pinger, Verdict};
pub(super) use probing::{MAX_OWED, NextProbe, Probing, Test};
#[cfg(any(test, feature = "sim"))]
pub(super) use quality::MAX_RECENT;
pub(super) use quality::{Quality, RecentQuality};
pub(super) use state::{CloseCause, Established, Link};
pub use view::LinkView;
#[cfg(any(test, feature = "sim"))]
pub(super) use ways::MAX_FAILED;
pub(super) use ways::{FailedWays, Plan};

/// Maximum number of links: one bit each in a log entry.
pub(super) const MAX_SLOTS: u8 = 128;
/// Number of queued bytes above which nothing but control is added: the peer is slow for the moment
/// and its cursor waits. Four pieces; at 50 Mbit/s about 40 ms.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// Maximum bytes that wait for a peer: one for which this much waits takes nothing but makes us
/// answer, and is disconnected.
pub(super) const MAX_QUEUED: usize = 2 << 20;
/// Number of bytes that is more than one turn adds to a queue below its bound.
const MAX_MESSAGE: usize = 1 << 20;

/// Time without a move after which a queue does not move: longer than a piece takes on a slow link.
const STUCK: Duration = Duration::from_secs(5);

/// Table of all links.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) all: BTreeMap<LinkId, Link>,
    pub(super) by_peer: BTreeMap<PeerId, LinkId>,
    /// Links by the connection that carries them, where that is not the one they came up on.
    pub(super) wires: BTreeMap<LinkId, LinkId>,
    /// Dials of connections that are to take over links.
    pub(super) attempts: BTreeMap<DialId, Attempt>,
    /// Ways that failed lately.
    pub(super) failed_ways: FailedWays,
    /// Owners of the slots.
    slots: BTreeMap<u8, LinkId>,
    /// Links whose batch changed in this turn.
    dirty: BTreeSet<LinkId>,
    /// The furthest that any cursor has come.
    pub(super) leader: u64,
    /// Links for which too much waits.
    pub(super) overfull: BTreeSet<LinkId>,
    /// Links that had to give way to others.
    pub(super) evictions: Evictions,
    /// What links have done that are gone.
    pub(super) recent: RecentQuality,
}

impl Links {
    pub(super) fn up_count(&self) -> usize {
        self.by_peer.len()
    }

    pub(super) fn hello_count(&self) -> usize {
        self.all.len() - self.by_peer.len()
    }

    /// Number of accepted links that are not through their hello.
    pub(super) fn inbound_hello_count(&self) -> usize {
        let waiting = |l: &&Link| l.up.is_none() && l.direction == Direction::Inbound;
        self.all.values().filter(waiting).count()
    }

    /// Number of accepted links from the host of `ip` that are not through their hello.
    pub(super) fn hello_count_from(&self, ip: Option<IpAddr>) -> usize {
        let host = ip.map(host_of);
        let from = |l: &&Link| l.address.map(|address| host_of(address.ip())) == host;
        let inbound = |l: &&Link| l.up.is_none() && l.direction == Direction::Inbound;
        self.all.values().filter(inbound).filter(from).count()
    }

    pub(super) fn count(&self, direction: Direction) -> usize {
        let up = |l: &&Link| l.up.is_some() && l.direction == direction;
        self.all.values().filter(up).count()
    }

    /// Accepted links to edges.
    pub(super) fn edges_inbound(&self) -> usize {
        let edge = |l: &&Link| l.up.as_ref().is_some_and(|up| !up.interest.theirs.is_relay());
        self.all.values().filter(|l| l.direction == Direction::Inbound).filter(edge).count()
    }

    pub(super) fn up_ids(&self) -> Vec<LinkId> {
        self.by_peer.values().copied().collect()
    }

    /// Links whose peer answers and takes what is offered.
    pub(super) fn well(&self, now: MonoTime) -> impl Iterator<Item = LinkId> {
        let well = move |l: &&Link| {
            let stuck = l.queued_bytes > 0 && now.since(l.progress) > STUCK;
            !stuck
                && l.up.as_ref().is_some_and(|up| up.pinger.missed == 0 && up.feed.debt.is_none())
        };
        self.all.values().filter(well).map(|l| l.id)
    }

    pub(super) fn up(&mut self, link: LinkId) -> Option<&mut Established> {
        self.all.get_mut(&link)?.up.as_mut()
    }

    pub(super) fn slot_of(&self, link: LinkId) -> Option<u8> {
        Some(self.all.get(&link)?.up.as_ref()?.slot)
    }

    /// Returns the peer of a link, when the link is up.
    pub(super) fn peer_of(&self, link: LinkId) -> Option<PeerId> {
        self.all.get(&link).filter(|l| l.up.is_some()).map(|l| l.remote)
    }

    /// Reports whether every slot has an owner.
    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= usize::from(MAX_SLOTS)
    }

    /// Takes a free slot.
    pub(super) fn take_slot(&mut self, link: LinkId) -> Option<u8> {
        let slot = (0..MAX_SLOTS).find(|s| !self.slots.contains_key(s))?;
        self.slots.insert(slot, link);
        Some(slot)
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Option<Link> {
        let removed = self.all.remove(&link)?;
        self.dirty.remove(&link);
        self.overfull.remove(&link);
        self.wires.remove(&removed.wire);
        if let Some(up) = &removed.up {
            self.slots.remove(&up.slot);
            if self.by_peer.get(&removed.remote) == Some(&link) {
                self.by_peer.remove(&removed.remote);
            }
        }
        Some(removed)
    }

    /// Hands a message to the driver.
    pub(super) fn send(&mut self, env: &mut Env, link: LinkId, message: Message) {
        let Some(l) = self.all.get_mut(&link) else { return };
        if l.queued_bytes == 0 {
            l.progress = env.now;
        }
        let weight = message.weight();
        l.queued_bytes += weight;
        if l.queued_bytes > MAX_QUEUED - MAX_MESSAGE {
            self.overfull.insert(link);
        }
        let wants_mark = l.up.as_mut().is_some_and(|up| {
            up.budget.hand(&message, weight, env.now);
            up.budget.wants_mark(env.now)
        });
        match l.succession.keep(message) {
            Ok(true) => {}
            Ok(false) => {
                self.overfull.insert(link);
            }
            Err(message) => {
                l.spoke = env.now;
                env.push(Output::Send { link: l.wire, message });
            }
        }
        if wants_mark {
            self.mark(env, link);
        }
    }

    /// Hands a message to the driver for the connection that carries a link now, whatever waits.
    pub(super) fn send_at_once(&mut self, env: &mut Env, link: LinkId, message: Message) {
        let Some(l) = self.all.get_mut(&link) else { return };
        l.queued_bytes += message.weight();
        env.push(Output::Send { link: l.wire, message });
    }

    /// Asks what the transport of a link has carried.
    pub(super) fn measure(&self, env: &mut Env, link: LinkId) {
        if let Some(link) = self.wire_of(link) {
            env.push(Output::Measure { link });
        }
    }

    /// Places a mark behind what was handed out on a link, if none is out.
    fn mark(&mut self, env: &mut Env, link: LinkId) {
        let Some(up) = self.up(link).filter(|up| !up.budget.is_marked()) else { return };
        let nonce = up.budget.place_mark(env.now);
        env.counters.pings_sent += 1;
        self.send(env, link, Message::Ping { nonce });
    }

    /// The batch of a link that is up; it will be looked at when the turn ends.
    pub(super) fn batch(&mut self, link: LinkId) -> Option<&mut Batch> {
        let up = self.all.get_mut(&link)?.up.as_mut()?;
        self.dirty.insert(link);
        Some(&mut up.batch)
    }
}

impl Protocol {
    /// Hands a message to the driver.
    pub(super) fn send(&mut self, link: LinkId, message: Message) {
        self.links.send(&mut self.env, link, message);
    }

    /// Reports whether log entries may be offered on a link: fewer are queued and under way while
    /// bulk waits for its turn.
    pub(super) fn may_pump(&self, link: LinkId) -> bool {
        let Some(l) = self.links.all.get(&link) else { return false };
        l.up.as_ref().is_some_and(|up| {
            let beside_bulk = !up.serve.entries.is_empty() || up.messages.is_sending();
            let limit = if beside_bulk { PIECE_BYTES / 2 } else { HIGH_WATER };
            let now = self.env.now;
            l.queued_bytes < limit && up.budget.has_room(beside_bulk, now) && !l.plan.holds(now)
        })
    }

    /// Reports whether a link may be given more than control.
    pub(super) fn is_writable(&self, link: LinkId) -> bool {
        self.links.all.get(&link).is_some_and(|l| l.is_writable(self.env.now))
    }
}
