//! The links and what waits on them.
//!
//! A link is in its hello (`up` is `None`) or up. Up links own one of 64 slots, so that what a peer
//! is known to have is one bit in each log entry. Small messages gather in `Batch` and leave when
//! 64 have gathered, when 5 ms have passed, or at once when the link has been quiet; a want and the
//! refusal of one never wait. What was handed to the driver and has not left for the wire is counted in `queued`.

mod handshake;
mod liveness;

pub(super) use handshake::Ending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::types::{
    Announcement, Bound, CloseReason, Direction, Endpoint, Interest, LinkId, MAX_IDS_PER_MESSAGE,
    Message, MonoTime, PIECE_BYTES, PeerId, PieceSet, Proofs, Transaction, TransactionId,
    TransportKind,
};

use crate::protocol::Protocol;
use crate::protocol::intake::Asks;
use crate::protocol::io::{DialId, Output, Ticket};
use crate::protocol::outbox::Owed;
use crate::protocol::reconcile::Repair;
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
const FLUSH_AFTER: Duration = Duration::from_millis(5);
/// This many small entries leave at once.
const FLUSH_ENTRIES: usize = 64;

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
    flushed: Option<MonoTime>,
}

impl Batch {
    /// Whether somebody waits for it to go on.
    fn is_urgent(&self) -> bool {
        !(self.want.is_empty() && self.missing.is_empty() && self.busy.is_empty())
    }

    fn len(&self) -> usize {
        self.announce.len()
            + self.missing.len()
            + self.duplicate.len()
            + self.early.len()
            + self.stored.len()
            + self.busy.len()
    }
}

/// A payload that a peer asked for.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) id: TransactionId,
    /// Which pieces, of a large one.
    pub(super) parts: Option<Parts>,
    /// Held from the first piece to the last, so that it is read once.
    pub(super) payload: Option<Transaction>,
    /// Set while the payload is being read from the store, or its proofs made.
    pub(super) loading: Option<Ticket>,
}

impl Serve {
    pub(super) fn new(id: TransactionId) -> Self {
        Self { id, parts: None, payload: None, loading: None }
    }
}

/// What a peer gets of a large payload.
#[derive(Debug)]
pub(super) struct Parts {
    /// Still to be sent.
    pub(super) wanted: PieceSet,
    pub(super) sent: PieceSet,
    /// Whether the header is to be sent first.
    pub(super) head: bool,
    pub(super) proofs: Option<Proofs>,
}

impl Parts {
    pub(super) fn new(wanted: PieceSet, head: bool) -> Self {
        let sent = PieceSet::empty(wanted.len());
        Self { wanted, sent, head, proofs: None }
    }
}

/// A ping that was not answered yet.
#[derive(Debug)]
pub(super) struct PingState {
    pub(super) nonce: u64,
    pub(super) sent: MonoTime,
    outstanding: bool,
    pub(super) missed: u32,
}

/// What only a link past its hello has.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) slot: u8,
    pub(super) since: MonoTime,
    pub(super) incarnation: u64,
    pub(super) max_transaction: u64,
    /// What the peer wants, as it said last.
    pub(super) theirs: Interest,
    /// What it said since, too soon.
    pub(super) later: Option<Interest>,
    /// Whether it is nearer to a relay, as of the last change.
    pub(super) uphill: bool,
    pub(super) ping: PingState,
    pub(super) rtt: Option<Duration>,
    /// The next log entry to offer to this peer.
    pub(super) cursor: u64,
    /// Set while the peer is too slow for what is new: from where on it was skipped.
    pub(super) debt: Option<Bound>,
    /// What is owed from before the link, as far as it is still to be announced.
    pub(super) owed: Option<Owed>,
    pub(super) repair: Repair,
    pub(super) batch: Batch,
    pub(super) serving: VecDeque<Serve>,
    /// Whose turn it is when the queue has moved.
    bulk_first: bool,
    /// Asked of this peer and not answered yet.
    pub(super) asked: BTreeSet<TransactionId>,
    pub(super) asked_bytes: u64,
    /// How its answers come.
    pub(super) asks: Asks,
    /// When what it announced last is asked for, unless it is pushed before.
    pub(super) patient_until: MonoTime,
    /// How fast pieces come from it.
    pub(super) intake: crate::protocol::large::Intake,
    /// Payload bytes of transactions accepted from this peer.
    pub(super) taken: u64,
    /// To be asked of this peer once it has answered some.
    pub(super) backlog: VecDeque<TransactionId>,
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
    pub(super) queued: usize,
    /// When the queue last moved or was empty.
    pub(super) progress: MonoTime,
    pub(super) up: Option<Up>,
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
    overfull: BTreeSet<LinkId>,
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
    fn edges_inbound(&self) -> usize {
        let edge = |l: &&Link| l.up.as_ref().is_some_and(|up| !up.theirs.is_relay());
        self.all.values().filter(|l| l.direction == Direction::Inbound).filter(edge).count()
    }

    pub(super) fn up_ids(&self) -> Vec<LinkId> {
        self.by_peer.values().copied().collect()
    }

    /// Links whose peer answers and takes what is offered.
    pub(super) fn well(&self, now: MonoTime) -> impl Iterator<Item = LinkId> {
        let well = move |l: &&Link| {
            let stuck = l.queued > 0 && now.since(l.progress) > STUCK;
            !stuck && l.up.as_ref().is_some_and(|up| up.ping.missed == 0 && up.debt.is_none())
        };
        self.all.values().filter(well).map(|l| l.id)
    }

    pub(super) fn up(&mut self, link: LinkId) -> Option<&mut Up> {
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
    fn take_slot(&mut self, link: LinkId) -> Option<u8> {
        let slot = (0..MAX_SLOTS).find(|s| !self.slots.contains_key(s))?;
        self.slots.insert(slot, link);
        Some(slot)
    }

    fn remove(&mut self, link: LinkId) -> Option<Link> {
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
        let now = self.env.now;
        if let Some(l) = self.links.all.get_mut(&link) {
            if l.queued == 0 {
                l.progress = now;
            }
            l.queued += message.weight();
            if l.queued > MAX_QUEUED - MAX_MESSAGE {
                self.links.overfull.insert(link);
            }
            self.env.push(Output::Send { link, message });
        }
    }

    /// Some of what was queued left for the wire.
    pub(super) fn on_sent(&mut self, link: LinkId, weight: usize, bytes: usize) {
        self.env.counters.frames_sent += 1;
        self.env.counters.frame_bytes_sent += bytes as u64;
        let now = self.env.now;
        let Some(l) = self.links.all.get_mut(&link) else { return };
        l.queued = l.queued.saturating_sub(weight);
        l.progress = now;
        let empty = l.queued == 0;
        self.answer_held(link);
        if empty {
            self.end_debt(link);
        }
        self.resume_sessions();
        // In turns, so that neither bulk nor small transactions starve the other.
        let bulk_first = self.links.up(link).is_some_and(|up| {
            up.bulk_first = !up.bulk_first;
            up.bulk_first
        });
        if bulk_first {
            self.serve(link);
            self.pump(link);
        } else {
            self.pump(link);
            self.serve(link);
        }
    }

    /// Whether log entries may be offered on a link: less is queued while bulk waits for its turn.
    pub(super) fn may_pump(&self, link: LinkId) -> bool {
        let limit = |up: &Up| if up.serving.is_empty() { HIGH_WATER } else { PIECE_BYTES / 2 };
        self.links.all.get(&link).is_some_and(|l| l.queued < l.up.as_ref().map_or(0, limit))
    }

    /// Whether a link may be given more than control.
    pub(super) fn is_writable(&self, link: LinkId) -> bool {
        self.links.all.get(&link).is_some_and(|l| l.queued < HIGH_WATER)
    }

    /// Ends a turn: what gathered leaves, or a timer sees to it.
    pub(super) fn flush_dirty(&mut self) {
        while let Some(link) = self.links.dirty.pop_first() {
            let now = self.env.now;
            let Some(up) = self.links.up(link) else { continue };
            let batch = &up.batch;
            let due = batch.flushed.map_or(now, |at| at + FLUSH_AFTER);
            if batch.is_urgent() || batch.len() >= FLUSH_ENTRIES || due <= now {
                self.flush(link);
            } else if batch.len() > 0 {
                self.env.timers.set_earlier(Timer::Flush(link), due);
            }
        }
    }

    /// Disconnects peers that make us answer more than they take.
    pub(super) fn close_overfull(&mut self) -> bool {
        let mut some = false;
        while let Some(link) = self.links.overfull.pop_first() {
            self.close(link, CloseReason::SlowPeer);
            some = true;
        }
        some
    }

    /// Sends everything that gathered on a link.
    pub(super) fn flush(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        let batch = std::mem::take(&mut up.batch);
        if batch.len() == 0 && batch.want.is_empty() {
            up.batch.flushed = batch.flushed;
            return;
        }
        up.batch.flushed = Some(now);
        self.env.timers.cancel(Timer::Flush(link));
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

    /// Says why and closes.
    pub(super) fn close(&mut self, link: LinkId, reason: CloseReason) {
        if !self.links.all.contains_key(&link) {
            return;
        }
        self.flush(link);
        let retry_after = self.retry_hint(reason);
        self.send(link, Message::Goodbye { reason, retry_after });
        self.env.push(Output::Close { link });
        self.forget_link(link, Ending::Ours(reason));
    }

    /// Takes a link that is closed or closing out of every table.
    fn forget_link(&mut self, link: LinkId, ending: Ending) {
        let Some(l) = self.links.remove(link) else { return };
        let (hello, ping, pong) = (Timer::Hello(link), Timer::Ping(link), Timer::Pong(link));
        for timer in [hello, ping, pong, Timer::Flush(link), Timer::Owed(link)] {
            self.env.timers.cancel(timer);
        }
        self.after_link(&l, ending);
    }
}
