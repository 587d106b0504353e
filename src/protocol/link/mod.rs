//! The links and what waits on them.
//!
//! A link is in its hello (`up` is `None`) or up. Established links own one of 64 slots, so that what a peer
//! is known to have is one bit in each log entry. Small messages gather in `Batch` and leave when
//! 64 have gathered, when 5 ms have passed, or at once when the link has been quiet; a want and the
//! refusal of one never wait. What was handed to the driver and has not left for the wire is counted in `queued`.

mod handshake;
mod liveness;

pub(super) use liveness::Pinger;

pub(super) use handshake::{CloseCause, counter_of};

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::types::{
    Announcement, Direction, Endpoint, Interest, LinkId, MAX_IDS_PER_MESSAGE, Message, MonoTime,
    PIECE_BYTES, PeerId, TransactionId, TransportKind,
};

use crate::protocol::Protocol;
use crate::protocol::env::Env;
use crate::protocol::intake::Requests;
use crate::protocol::io::{DialId, Output};
use crate::protocol::large::PieceRate;
use crate::protocol::reconcile::Repair;
use crate::protocol::serve::ServeQueue;
use crate::protocol::spread::{Feed, PeerInterest};
use crate::protocol::timers::Timer;

/// Links at most: one bit each in a log entry.
pub(super) const MAX_SLOTS: u8 = 64;
/// Above this many queued bytes nothing but control is added: the peer is slow for the moment and
/// its cursor waits. Four pieces; at 50 Mbit/s about 40 ms.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// A peer for which this much waits takes nothing but makes us answer: it is disconnected.
pub(super) const MAX_QUEUED: usize = 2 << 20;
/// More than one turn adds to a queue that is below its bound.
const MAX_MESSAGE: usize = 1 << 20;
/// Small messages wait at most this long.
const DRAIN_AFTER: Duration = Duration::from_millis(5);
/// This many small entries leave at once.
const DRAIN_ENTRIES: usize = 64;

/// What makes a message of ids.
type Wrap = fn(Vec<TransactionId>) -> Message;

/// Small messages that are waiting for company.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) announce: Vec<Announcement>,
    pub(super) want: Vec<TransactionId>,
    pub(super) missing: Vec<TransactionId>,
    pub(super) duplicate: Vec<TransactionId>,
    pub(super) early: Vec<TransactionId>,
    pub(super) stored: Vec<TransactionId>,
    pub(super) busy: Vec<TransactionId>,
    drained: Option<MonoTime>,
}

impl Batch {
    /// Whether somebody waits for it to go on.
    fn is_urgent(&self) -> bool {
        !(self.want.is_empty() && self.missing.is_empty() && self.busy.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.announce.len()
            + self.missing.len()
            + self.duplicate.len()
            + self.early.len()
            + self.stored.len()
            + self.busy.len()
    }
}

/// What only a link past its hello has: what each part keeps for its peer.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) slot: u8,
    pub(super) since: MonoTime,
    pub(super) incarnation: u64,
    pub(super) max_transaction: u64,
    pub(super) batch: Batch,
    pub(super) pinger: Pinger,
    pub(super) interest: PeerInterest,
    pub(super) feed: Feed,
    pub(super) repair: Repair,
    pub(super) requests: Requests,
    pub(super) serve: ServeQueue,
    pub(super) pieces: PieceRate,
    /// Payload bytes of transactions accepted from this peer.
    pub(super) taken: u64,
    /// When it was last told which peers we know.
    pub(super) told_peers: Option<MonoTime>,
}

/// A queue that has not moved for so long does not move: longer than a piece takes on a slow link.
const STUCK: Duration = Duration::from_secs(5);

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) remote: PeerId,
    pub(super) kind: TransportKind,
    pub(super) direction: Direction,
    pub(super) address: Option<SocketAddr>,
    /// Where we dialled it.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) dial: Option<DialId>,
    /// Whether our hello says that we owe it something.
    pub(super) owes: bool,
    /// The log's head when it was opened.
    pub(super) head: u64,
    pub(super) opened: MonoTime,
    /// What the peer was last told that we want.
    pub(super) said: Interest,
    pub(super) heard: MonoTime,
    /// Bytes handed over and not yet on the wire.
    pub(super) queued_bytes: usize,
    /// When the queue last moved or was empty.
    pub(super) progress: MonoTime,
    pub(super) up: Option<Established>,
}

impl Link {
    /// Shown to people: where we dialled, else where it came from.
    pub(super) fn shown_address(&self) -> Option<String> {
        match (&self.endpoint, self.address) {
            (Some(endpoint), _) => Some(endpoint.to_string()),
            (None, Some(address)) => Some(address.to_string()),
            (None, None) => None,
        }
    }
}

/// All links.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) all: BTreeMap<LinkId, Link>,
    pub(super) by_peer: BTreeMap<PeerId, LinkId>,
    /// Owners of the slots.
    slots: BTreeMap<u8, LinkId>,
    /// Links whose batch changed in this turn.
    dirty: BTreeSet<LinkId>,
    /// The furthest that any cursor has come.
    pub(super) leader: u64,
    /// Links for which too much waits.
    pub(super) overfull: BTreeSet<LinkId>,
}

impl Links {
    pub(super) fn up_count(&self) -> usize {
        self.by_peer.len()
    }

    pub(super) fn hello_count(&self) -> usize {
        self.all.len() - self.by_peer.len()
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

    /// Whose a link is, when it is up.
    pub(super) fn peer_of(&self, link: LinkId) -> Option<PeerId> {
        self.all.get(&link).filter(|l| l.up.is_some()).map(|l| l.remote)
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
        l.queued_bytes += message.weight();
        if l.queued_bytes > MAX_QUEUED - MAX_MESSAGE {
            self.overfull.insert(link);
        }
        env.push(Output::Send { link, message });
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

    /// Whether log entries may be offered on a link: less is queued while bulk waits for its turn.
    pub(super) fn may_pump(&self, link: LinkId) -> bool {
        let limit = |up: &Established| {
            if up.serve.entries.is_empty() { HIGH_WATER } else { PIECE_BYTES / 2 }
        };
        self.links.all.get(&link).is_some_and(|l| l.queued_bytes < l.up.as_ref().map_or(0, limit))
    }

    /// Whether a link may be given more than control.
    pub(super) fn is_writable(&self, link: LinkId) -> bool {
        self.links.all.get(&link).is_some_and(|l| l.queued_bytes < HIGH_WATER)
    }

    /// Ends a turn: what gathered leaves, or a timer sees to it.
    pub(super) fn drain_dirty(&mut self) {
        while let Some(link) = self.links.dirty.pop_first() {
            let now = self.env.now;
            let Some(up) = self.links.up(link) else { continue };
            let batch = &up.batch;
            let due = batch.drained.map_or(now, |at| at + DRAIN_AFTER);
            if batch.is_urgent() || batch.len() >= DRAIN_ENTRIES || due <= now {
                self.drain(link);
            } else if batch.len() > 0 {
                self.env.timers.set_earlier(Timer::Drain(link), due);
            }
        }
    }

    /// Sends everything that gathered on a link.
    pub(super) fn drain(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        let batch = std::mem::take(&mut up.batch);
        if batch.len() == 0 && batch.want.is_empty() {
            up.batch.drained = batch.drained;
            return;
        }
        up.batch.drained = Some(now);
        self.env.timers.cancel(Timer::Drain(link));
        for part in batch.want.chunks(MAX_IDS_PER_MESSAGE) {
            self.send(link, Message::Want(part.to_vec()));
        }
        for part in batch.announce.chunks(MAX_IDS_PER_MESSAGE) {
            self.env.counters.announcements_sent += part.len() as u64;
            self.send(link, Message::Announce(part.to_vec()));
        }
        let lists: [(_, Wrap); 5] = [
            (batch.stored, Message::Stored),
            (batch.duplicate, Message::Duplicate),
            (batch.early, Message::Early),
            (batch.missing, Message::Missing),
            (batch.busy, Message::Busy),
        ];
        for (ids, wrap) in lists {
            for part in ids.chunks(MAX_IDS_PER_MESSAGE) {
                self.send(link, wrap(part.to_vec()));
            }
        }
    }

    /// Tells an origin that we have stored its transaction.
    pub(super) fn confirm_to(&mut self, link: LinkId, id: TransactionId) {
        if let Some(batch) = self.links.batch(link) {
            batch.stored.push(id);
        }
    }

    pub(in crate::protocol) fn announce(&mut self, link: LinkId, announcement: Announcement) {
        if let Some(batch) = self.links.batch(link) {
            batch.announce.push(announcement);
        }
    }
}
