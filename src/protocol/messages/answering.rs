//! Requests of peers.
//!
//! Tested by: `protocol::tests::messages`, `sim::tests::messages`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::env::Task;
use crate::protocol::guard::Work;
use crate::protocol::io::{Output, Ticket};
use crate::protocol::refusal::AnswerRefusal;
use crate::protocol::timers::Timer;
use crate::protocol::{Protocol, messages::Messages};
use crate::types::{
    LinkId, MAX_REASON_BYTES, Message, MonoTime, PeerId, ResponseStatus, TraceContext,
};

use super::MAX_TIME;
use super::body::Body;
use super::sending::Sending;

/// A request of a peer that is not over.
#[derive(Debug)]
pub(super) struct Received {
    peer: PeerId,
    protocol: String,
    trace: Option<TraceContext>,
    until: MonoTime,
    /// Bytes that count for it.
    held: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Receiving(Body),
    /// By the host.
    Handled(Ticket),
    /// Its answer is being sent.
    Answering,
}

impl Received {
    pub(super) fn until(&self) -> MonoTime {
        self.until
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

/// What of the requests of peers there may be no more of.
#[derive(Debug, Clone, Copy)]
enum Scarce {
    Requests,
    Bytes(u64),
}

impl Messages {
    /// Returns the youngest request of the link that has most, if that has so much more than `link` that it would
    /// have no less if it gave way. What the host is at stays.
    fn victim(&self, link: LinkId, scarce: Scarce) -> Option<(LinkId, u64)> {
        let part = |received: &Received| match scarce {
            Scarce::Requests => 1,
            Scarce::Bytes(_) => received.held,
        };
        let wanted = match scarce {
            Scarce::Requests => 1,
            Scarce::Bytes(bytes) => bytes,
        };
        let mut parts: BTreeMap<LinkId, u64> = BTreeMap::new();
        for ((of, _), received) in &self.received {
            *parts.entry(*of).or_default() += part(received);
        }
        let own = parts.get(&link).copied().unwrap_or(0).saturating_add(wanted);
        let candidates = self.received.iter().filter_map(|(key, received)| {
            let of_link = parts.get(&key.0).copied().unwrap_or(0);
            let gives = !matches!(received.state, State::Handled(_)) && part(received) > 0;
            (gives && of_link > own).then_some((of_link, *key))
        });
        candidates.max().map(|(_, key)| key)
    }

    /// Reports whether the bodies of the requests of a link may take so many bytes more: a quarter of all at
    /// the most, or one body.
    fn has_part_for(&self, link: LinkId, bytes: u64) -> bool {
        let theirs = self.received.range((link, 0)..=(link, u64::MAX));
        let of_requests = theirs.filter(|(_, r)| !matches!(r.state, State::Answering));
        let held = of_requests.map(|(_, received)| received.held).sum::<u64>();
        held + bytes <= (self.max_held() / 4).max(self.config.max_bytes)
    }
}

impl Protocol {
    /// A peer asks.
    pub(in crate::protocol) fn on_request_of_peer(
        &mut self,
        link: LinkId,
        id: u64,
        (protocol, trace): (String, Option<TraceContext>),
        (size, timeout_ms): (u64, u32),
        body: &Bytes,
    ) {
        self.env.counters.requests_received += 1;
        let Some(up) = self.links.up(link) else { return };
        if id <= up.messages.last_theirs {
            self.env.counters.messages_unexpected += 1;
            return;
        }
        up.messages.last_theirs = id;
        let size = match self.admit_request(link, &protocol, size) {
            Ok(size) => size,
            Err((status, reason)) => {
                self.refuse_request(link, id, status, reason);
                return;
            }
        };
        let within = match timeout_ms {
            0 => self.messages.config.timeout,
            millis => Duration::from_millis(u64::from(millis)).min(MAX_TIME),
        };
        let until = self.env.now + within;
        let Some(peer) = self.links.peer_of(link) else { return };
        let Some(up) = self.links.up(link) else { return };
        up.messages.received += 1;
        let state = State::Receiving(Body::new(size));
        let received = Received { peer, protocol, trace, until, held: 0, state };
        self.messages.received.insert((link, id), received);
        self.env.timers.set_earlier(Timer::Messages, until);
        self.on_request_part(link, id, body);
    }

    /// Reports whether a request is received at all, and the length of its body.
    fn admit_request(
        &mut self,
        link: LinkId,
        protocol: &str,
        size: u64,
    ) -> Result<usize, (ResponseStatus, String)> {
        let busy = Err((ResponseStatus::Busy, String::new()));
        let limit = self.messages.config.max_bytes;
        if !self.allow(link, Work::Request, 1) || self.env.shutting_down {
            return busy;
        }
        if !self.messages.serving.contains(protocol) {
            return Err((ResponseStatus::NotServed, String::new()));
        }
        let Some(len) = usize::try_from(size).ok().filter(|_| size <= limit) else {
            return Err((ResponseStatus::TooLarge, limit.to_string()));
        };
        let of_link = self.links.up(link).map_or(0, |up| up.messages.received);
        let in_all = self.messages.max_received_in_all();
        let has_room = of_link < self.messages.max_received()
            && (self.messages.received.len() < in_all || self.shed_for(link, Scarce::Requests));
        if has_room { Ok(len) } else { busy }
    }

    /// Lets another request give way to one of a link; `false` where none does.
    fn shed_for(&mut self, link: LinkId, scarce: Scarce) -> bool {
        let Some((of, id)) = self.messages.victim(link, scarce) else { return false };
        let received = self.messages.received.get(&(of, id));
        let is_done = received.is_some_and(|r| matches!(r.state, State::Answering));
        self.forget_received((of, id));
        // Who hears that nothing was done may ask once more.
        if is_done {
            self.env.counters.answers_shed += 1;
            self.refuse_request(of, id, ResponseStatus::Failed, String::new());
        } else {
            self.refuse_request(of, id, ResponseStatus::Busy, String::new());
        }
        true
    }

    /// Makes room for bytes of a body of a link; `false` where there is none.
    fn make_room_for(&mut self, link: LinkId, bytes: u64) -> bool {
        let most = self.messages.max_held();
        while !self.messages.their_bytes.has_room(bytes, most) {
            if !self.shed_for(link, Scarce::Bytes(bytes)) {
                return false;
            }
        }
        true
    }

    /// Tells a peer that its request is refused, and counts it.
    fn refuse_request(&mut self, link: LinkId, id: u64, status: ResponseStatus, reason: String) {
        let counters = &mut self.env.counters;
        *match status {
            ResponseStatus::NotServed => &mut counters.requests_not_served,
            ResponseStatus::Busy => &mut counters.requests_busy,
            ResponseStatus::TooLarge => &mut counters.requests_too_large,
            _ => &mut counters.requests_refused,
        } += 1;
        let body = Bytes::new();
        self.send(link, Message::Response { id, status, size: 0, body, reason });
    }

    /// The next bytes of the body of a request or of an answer.
    pub(in crate::protocol) fn on_body_part(
        &mut self,
        link: LinkId,
        id: u64,
        of_answer: bool,
        data: &Bytes,
    ) {
        if of_answer {
            self.on_answer_part(link, id, data);
        } else {
            self.on_request_part(link, id, data);
        }
    }

    fn on_request_part(&mut self, link: LinkId, id: u64, part: &Bytes) {
        let key = (link, id);
        let Some(State::Receiving(body)) = self.messages.received.get(&key).map(|r| &r.state)
        else {
            self.env.counters.messages_unexpected += 1;
            return;
        };
        if body.is_exceeded_by(part.len()) {
            self.violation(link);
            return;
        }
        let growth = body.growth(part.len()) as u64;
        if !self.messages.has_part_for(link, growth) || !self.make_room_for(link, growth) {
            self.forget_received(key);
            self.refuse_request(link, id, ResponseStatus::Busy, String::new());
            return;
        }
        let Some(received) = self.messages.received.get_mut(&key) else { return };
        let State::Receiving(body) = &mut received.state else { return };
        self.messages.their_bytes.enter(growth);
        received.held += growth;
        body.push(part);
        if let Some(whole) = body.take_whole() {
            self.handle_request(key, whole);
        }
    }

    /// Has the host handle a request.
    fn handle_request(&mut self, (link, id): (LinkId, u64), body: Bytes) {
        let ticket = self.env.ticket(Task::Request { link, id });
        let Some(received) = self.messages.received.get_mut(&(link, id)) else { return };
        received.state = State::Handled(ticket);
        let (peer, trace, protocol) = (received.peer, received.trace, received.protocol.clone());
        let within = received.until.since(self.env.now);
        self.env.push(Output::Requested { ticket, peer, protocol, body, within, trace });
    }

    /// The host has handled a request.
    pub(in crate::protocol) fn on_handled(
        &mut self,
        ticket: Ticket,
        result: Result<Bytes, AnswerRefusal>,
    ) {
        let Some(Task::Request { link, id }) = self.env.tickets.remove(&ticket) else { return };
        let Some(received) = self.messages.received.get_mut(&(link, id)) else { return };
        // The body of the request is the host's business no more.
        self.messages.their_bytes.leave(received.held);
        received.held = 0;
        received.state = State::Answering;
        let peer = received.peer;
        self.give_back(&peer, Work::Request, 1);
        match self.admit_answer(link, result) {
            Ok(body) => {
                self.env.counters.requests_served += 1;
                let held = body.len() as u64;
                self.messages.their_bytes.enter(held);
                if let Some(received) = self.messages.received.get_mut(&(link, id)) {
                    received.held = held;
                }
                if let Some(up) = self.links.up(link) {
                    up.messages.queue.push_back(Sending::new(id, true, body));
                }
                self.send_bodies(link);
            }
            Err((status, reason)) => {
                self.forget_received((link, id));
                self.refuse_request(link, id, status, reason);
            }
        }
    }

    /// Reports whether the answer of the host may be sent, or what is said instead.
    fn admit_answer(
        &mut self,
        link: LinkId,
        result: Result<Bytes, AnswerRefusal>,
    ) -> Result<Bytes, (ResponseStatus, String)> {
        let limit = self.messages.config.max_bytes;
        let (status, reason) = match result {
            Ok(body) => {
                let size = body.len() as u64;
                if size <= limit && self.make_room_for(link, size) {
                    return Ok(body);
                }
                self.env.counters.answers_shed += 1;
                tracing::warn!(
                    target: "sorcha_peer::messages",
                    size, limit, "an answer is too large, or too many are being sent"
                );
                (ResponseStatus::Failed, String::new())
            }
            Err(AnswerRefusal::NotServed) => (ResponseStatus::NotServed, String::new()),
            Err(AnswerRefusal::Busy) => (ResponseStatus::Busy, String::new()),
            Err(AnswerRefusal::Refused(reason)) => (ResponseStatus::Refused, cut(reason)),
            Err(AnswerRefusal::Failed) => (ResponseStatus::Failed, String::new()),
        };
        Err((status, reason))
    }

    /// A peer does not wait any more.
    pub(in crate::protocol) fn on_cancel_of_peer(&mut self, link: LinkId, id: u64) {
        if self.forget_received((link, id)) {
            self.env.counters.requests_given_up += 1;
        } else {
            self.env.counters.messages_unexpected += 1;
        }
    }

    /// Ends requests of peers whose time is over.
    pub(super) fn end_late_received(&mut self) {
        let now = self.env.now;
        let late = self.messages.received.iter().filter(|(_, received)| received.until <= now);
        for (link, id) in late.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.forget_received((link, id));
            self.env.counters.requests_given_up += 1;
            self.refuse_request(link, id, ResponseStatus::Failed, String::new());
        }
    }

    /// Takes a request of a peer out of every table, and tells the host if it is at it; `false` where there
    /// is none.
    pub(super) fn forget_received(&mut self, key: (LinkId, u64)) -> bool {
        let Some(received) = self.messages.received.remove(&key) else { return false };
        self.messages.their_bytes.leave(received.held);
        match received.state {
            State::Handled(ticket) => {
                self.env.tickets.remove(&ticket);
                self.env.push(Output::RequestCancelled { ticket });
            }
            State::Answering => self.stop_sending(key.0, key.1, true),
            State::Receiving(_) => {}
        }
        if let Some(up) = self.links.up(key.0) {
            up.messages.received = up.messages.received.saturating_sub(1);
        }
        true
    }
}

/// Cuts a reason to what may be told.
fn cut(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    reason
}
