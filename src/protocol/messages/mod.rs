//! Requests to one peer, and those of peers: at most once, never stored, never forwarded.
//!
//! ```text
//! ours:   waiting for a link ──link──► on the link ──answer begins──► receiving it ──whole──► answered
//!            └──no way, or the time is over, or the link ends, or the peer refuses──► answered with an error
//!
//! theirs: receiving ──whole──► handled ──answer──► being sent ──all handed out──► over
//!            └──refused         └──cancelled, or the time is over, or the link ends──► over, and the host is told
//! ```
//!
//! A body travels in parts of at most 64 KiB: the first in the message that begins it, the others behind
//! that, in order. They are bulk, by turns with pieces of transactions, and never ahead of control. Of
//! several bodies on a link each has a part in turn.
//!
//! Contract:
//! - Of each request of the host there is one `Answered`, or none after `CancelRequest`; it comes within
//!   the request's time.
//! - A request is handed to one link, once. Where the link goes over to another connection it goes with it;
//!   where the link ends, so does the request.
//! - Of each request of a peer there is at most one `Requested`, once its body is whole. Where nobody waits for
//!   the answer any more there is one `RequestCancelled`, and what the host answers then is dropped.
//! - A body that a peer says is of one length is never taken for one of another: one that is longer costs the
//!   link, one that is shorter never ends, until its time is over.
//! - Numbers of requests rise on a link. One that does not is of a request that was had before: it is counted and left
//!   alone, as are parts, answers and cancellations of what is over, which were under way.
//!
//! Bounds: `MAX_CALLS` requests of the host; `messages.max_concurrent` of a peer and `IN_ALL` times
//! as many of all, until their answers are handed out; bytes of bodies, of the host's and of peers'
//! requests each `Messages::max_held`, a buffer being counted as it grows, and of the bodies of one
//! peer's requests a quarter of that; a time of `MAX_TIME`. Where peers have taken all, the one
//! that has most gives way to one that has less, as far as what it has is being received, or an
//! answer that it does not read: that is taken back by a refusal, also where it has begun. What the
//! host is at stays.
//!
//! A peer without a link is dialled (`membership::reach`). Links beyond those that the overlay
//! wants, which are there for requests alone, give way to each other, the one that was idle for
//! longest first (`MAX_ERRANDS`).
//!
//! Tested by: `protocol::tests::messages`, `sim::tests::messages`.

mod answering;
mod asking;
mod body;
mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::config::MessagesConfig;
use crate::error::RequestError;
use crate::protocol::Protocol;
use crate::protocol::gate::Gate;
use crate::protocol::io::{CallId, Output};
use crate::protocol::link::Established;
use crate::protocol::timers::Timer;
use crate::types::{CloseReason, Direction, LinkId, MonoTime, PeerId};

use answering::Received;
use asking::Call;
use sending::Sending;

/// Maximum number of requests of the host that are not answered.
pub(super) const MAX_CALLS: usize = 1024;
/// Number of times that the requests of all peers may be as many as those of one.
const IN_ALL: usize = 16;
/// Maximum time of a request.
const MAX_TIME: Duration = Duration::from_mins(10);
/// Maximum number of idle links beyond those of the overlay that were dialled for requests.
const MAX_ERRANDS: usize = 16;

/// State of all requests.
#[derive(Debug)]
pub(super) struct Messages {
    config: MessagesConfig,
    /// Bytes of bodies that may be held, those of both sides together.
    share: u64,
    /// Protocols that the host serves.
    serving: BTreeSet<String>,
    /// Requests of the host that are not answered.
    calls: BTreeMap<CallId, Call>,
    /// Those that are on a link, by their numbers there.
    asked: BTreeMap<(LinkId, u64), CallId>,
    /// Those that wait for a link, in the order in which they came.
    waiting: BTreeMap<PeerId, VecDeque<CallId>>,
    /// True: links came or went, or a request began to wait, since the last look at those that wait.
    is_unsettled: bool,
    /// Requests of peers that are not over, by their numbers on the link.
    received: BTreeMap<(LinkId, u64), Received>,
    /// Bytes of bodies of the host's requests and their answers.
    own_bytes: Gate,
    /// Bytes of bodies of peers' requests and their answers.
    their_bytes: Gate,
}

/// State that requests have on one link.
#[derive(Debug)]
pub(super) struct Conversation {
    /// True: the peer takes requests.
    takes: bool,
    /// Numbers of the latest requests of the host and of the peer.
    last_id: u64,
    last_theirs: u64,
    /// Number of the peer's requests that are not over.
    received: usize,
    /// Bodies that are being sent.
    queue: VecDeque<Sending>,
    /// True: bodies have their turn before pieces of transactions.
    pub(super) goes_first: bool,
    /// True: the link is beyond those that the overlay wants, and was dialled for a request.
    is_errand: bool,
    /// Time when the host last asked.
    used: MonoTime,
}

impl Conversation {
    pub(super) fn new(takes: bool, now: MonoTime) -> Self {
        Self {
            takes,
            last_id: 0,
            last_theirs: 0,
            received: 0,
            queue: VecDeque::new(),
            goes_first: false,
            is_errand: false,
            used: now,
        }
    }

    /// Reports whether bodies wait for their turn.
    pub(super) fn is_sending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Number of bodies that are being sent, and of the peer's requests that are not over.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn sizes(&self) -> [usize; 2] {
        [self.queue.len(), self.received]
    }
}

impl Messages {
    pub(super) fn new(config: &MessagesConfig, share: u64) -> Self {
        Self {
            config: config.clone(),
            share,
            serving: BTreeSet::new(),
            calls: BTreeMap::new(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            is_unsettled: false,
            received: BTreeMap::new(),
            own_bytes: Gate::default(),
            their_bytes: Gate::default(),
        }
    }

    /// Returns the bytes of bodies that may be held, of the host's requests and of those of peers each: half of the
    /// share, and one body at the least.
    pub(super) fn max_held(&self) -> u64 {
        (self.share / 2).max(self.config.max_bytes)
    }

    /// Returns the bytes of bodies that are held.
    pub(super) fn held(&self) -> [u64; 2] {
        [self.own_bytes.level(), self.their_bytes.level()]
    }

    /// Maximum number of requests of one peer.
    pub(super) fn max_received(&self) -> usize {
        self.config.max_concurrent as usize
    }

    /// Maximum number of requests of all peers.
    pub(super) fn max_received_in_all(&self) -> usize {
        IN_ALL * self.max_received()
    }

    /// Numbers of the host's requests and of those of peers.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn sizes(&self) -> [usize; 2] {
        [self.calls.len(), self.received.len()]
    }

    /// Sums up what is held, to compare it with what is counted.
    #[cfg(test)]
    pub(super) fn sums(&self) -> [u64; 2] {
        let own = self.calls.values().map(Call::held).sum();
        [own, self.received.values().map(Received::held).sum()]
    }

    /// Returns the end of the time of the first request whose time is over.
    fn next_end(&self) -> Option<MonoTime> {
        let own = self.calls.values().map(Call::until);
        own.chain(self.received.values().map(Received::until)).min()
    }
}

impl Protocol {
    /// The host serves other protocols from now on.
    pub(super) fn on_serving(&mut self, protocols: BTreeSet<String>) {
        self.messages.serving = protocols;
    }

    /// A link is up: what waits for it leaves.
    pub(super) fn begin_conversation(&mut self, link: LinkId) {
        self.messages.is_unsettled = true;
        let Some(peer) = self.links.peer_of(link) else { return };
        let Some(waiting) = self.messages.waiting.remove(&peer) else { return };
        let target = self.env.config.overlay.dial_target as usize;
        let is_beyond = self.links.count(Direction::Outbound) > target;
        let is_ours = self.links.all.get(&link).is_some_and(|l| l.direction == Direction::Outbound);
        if let Some(up) = self.links.up(link) {
            up.messages.is_errand = is_ours && is_beyond;
        }
        for call in waiting {
            self.ask_on(link, call);
        }
        self.end_errands(link);
    }

    /// Closes links that were dialled for requests, as far as there are too many of them.
    fn end_errands(&mut self, newest: LinkId) {
        let is_busy = |link: &LinkId, up: &Established| {
            up.messages.received > 0
                || self.messages.asked.range((*link, 0)..=(*link, u64::MAX)).next().is_some()
        };
        let ups = self.links.all.values().filter_map(|l| Some((l.id, l.up.as_ref()?)));
        let errands =
            ups.filter(|(link, up)| up.messages.is_errand && *link != newest && !is_busy(link, up));
        let mut errands: Vec<_> = errands.map(|(link, up)| (up.messages.used, link)).collect();
        errands.sort_unstable();
        let excess = errands.len().saturating_sub(MAX_ERRANDS);
        for (_, link) in errands.into_iter().take(excess) {
            self.env.counters.errands_ended += 1;
            self.close(link, CloseReason::Requested);
        }
    }

    /// A link has ended, and with it what was asked on it, both ways.
    pub(super) fn end_conversation(&mut self, link: LinkId) {
        self.messages.is_unsettled = true;
        let all = (link, 0)..=(link, u64::MAX);
        let calls: Vec<_> = self.messages.asked.range(all.clone()).map(|(_, call)| *call).collect();
        for call in calls {
            self.lose_call(call);
        }
        let theirs: Vec<_> = self.messages.received.range(all).map(|(key, _)| *key).collect();
        for key in theirs {
            self.env.counters.requests_given_up += 1;
            self.forget_received(key);
        }
    }

    /// Sees to links that requests wait for, and ends those for which there is no way.
    pub(super) fn settle_waiting(&mut self) {
        self.fail_unreached();
        let has_moved = self.membership.take_moved();
        if !std::mem::take(&mut self.messages.is_unsettled) && !has_moved {
            return;
        }
        let peers: Vec<_> = self.messages.waiting.keys().copied().collect();
        for peer in peers {
            let reached = self.membership.reach(&mut self.env, &self.links, &self.guard, &peer);
            if let Err(reason) = reached {
                self.fail_waiting(&peer, &reason);
            }
        }
        // Of those that were begun just now some may have failed already.
        self.fail_unreached();
    }

    fn fail_unreached(&mut self) {
        for (peer, reason) in self.membership.take_unreached() {
            self.fail_waiting(&peer, &reason);
        }
    }

    /// The time of some request may be over.
    pub(super) fn on_messages_due(&mut self) {
        self.end_late_calls();
        self.end_late_received();
        if let Some(next) = self.messages.next_end() {
            self.env.timers.set(Timer::Messages, next);
        }
    }

    /// The node is going down: nothing is asked any more.
    pub(super) fn end_calls(&mut self) {
        let all: Vec<_> = self.messages.calls.keys().copied().collect();
        for call in all {
            self.finish_call(call, Err(RequestError::Closed));
        }
    }

    fn answered(&mut self, call: CallId, result: Result<Bytes, RequestError>) {
        if result.is_ok() {
            self.env.counters.requests_answered += 1;
        } else {
            self.env.counters.requests_failed += 1;
        }
        self.env.push(Output::Answered { call, result });
    }
}
