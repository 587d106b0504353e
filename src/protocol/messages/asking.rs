//! Requests of the host.
//!
//! Tested by: `protocol::tests::messages`, `sim::tests::messages`.

use std::time::Duration;

use bytes::Bytes;

use crate::error::RequestError;
use crate::protocol::Protocol;
use crate::protocol::io::CallId;
use crate::protocol::timers::Timer;
use crate::types::{
    LinkId, Message, MonoTime, PeerId, ResponseStatus, TraceContext, is_protocol_name,
};

use super::body::Body;
use super::sending::Sending;
use super::{MAX_CALLS, MAX_TIME};

/// A request of the host that is not answered.
#[derive(Debug)]
pub(super) struct Call {
    peer: PeerId,
    protocol: String,
    trace: Option<TraceContext>,
    /// Time that the caller waits, and its end.
    within: Duration,
    until: MonoTime,
    /// Length of its body.
    size: u64,
    /// Bytes that count for it.
    held: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// For a link.
    Waiting(Bytes),
    /// On a link, with this number.
    Asked { link: LinkId, id: u64, sent: bool, answer: Option<Body> },
}

impl Call {
    pub(super) fn until(&self) -> MonoTime {
        self.until
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

impl Protocol {
    /// The host asks a peer.
    pub(in crate::protocol) fn on_request(
        &mut self,
        call: CallId,
        peer: PeerId,
        protocol: String,
        body: Bytes,
        within: Duration,
        trace: Option<TraceContext>,
    ) {
        self.env.counters.requests_made += 1;
        if let Err(error) = self.admit_call(call, &peer, &protocol, body.len() as u64) {
            self.answered(call, Err(error));
            return;
        }
        let (within, size) = (within.min(MAX_TIME), body.len() as u64);
        let until = self.env.now + within;
        self.messages.own_bytes.enter(size);
        let state = State::Waiting(body);
        let made = Call { peer, protocol, trace, within, until, size, held: size, state };
        self.messages.calls.insert(call, made);
        self.env.timers.set_earlier(Timer::Messages, until);
        if let Some(link) = self.links.by_peer.get(&peer).copied() {
            self.ask_on(link, call);
        } else {
            self.messages.waiting.entry(peer).or_default().push_back(call);
            self.messages.is_unsettled = true;
        }
    }

    fn admit_call(
        &self,
        call: CallId,
        peer: &PeerId,
        protocol: &str,
        size: u64,
    ) -> Result<(), RequestError> {
        let (messages, limit) = (&self.messages, self.messages.config.max_bytes);
        let is_known =
            self.links.by_peer.contains_key(peer) || self.membership.book.known.contains_key(peer);
        let is_busy = messages.calls.len() >= MAX_CALLS
            || messages.calls.contains_key(&call)
            || !messages.own_bytes.has_room(size, messages.max_held());
        Err(if self.env.shutting_down {
            RequestError::Closed
        } else if *peer == self.env.me {
            RequestError::ToSelf
        } else if !is_protocol_name(protocol) {
            RequestError::InvalidProtocol
        } else if size > limit {
            RequestError::TooLarge { size, limit }
        } else if !is_known {
            RequestError::UnknownPeer
        } else if is_busy {
            RequestError::Busy
        } else {
            return Ok(());
        })
    }

    /// Asks on a link what waited for one.
    pub(super) fn ask_on(&mut self, link: LinkId, number: CallId) {
        let now = self.env.now;
        let (Some(call), Some(up)) = (self.messages.calls.get_mut(&number), self.links.up(link))
        else {
            return;
        };
        if !up.messages.takes {
            let protocol = call.protocol.clone();
            self.finish_call(number, Err(RequestError::NotServed { protocol }));
            return;
        }
        up.messages.last_id += 1;
        up.messages.used = now;
        let id = up.messages.last_id;
        let asked = State::Asked { link, id, sent: false, answer: None };
        if let State::Waiting(body) = std::mem::replace(&mut call.state, asked) {
            up.messages.queue.push_back(Sending::new(id, false, body));
        }
        self.messages.asked.insert((link, id), number);
        self.send_bodies(link);
    }

    /// A request begins to be sent; returns its protocol and trace context, and the time that is left.
    pub(super) fn note_sent(
        &mut self,
        link: LinkId,
        id: u64,
    ) -> Option<(String, Option<TraceContext>, Duration)> {
        let number = self.messages.asked.get(&(link, id))?;
        let call = self.messages.calls.get_mut(number)?;
        if let State::Asked { sent, .. } = &mut call.state {
            *sent = true;
        }
        Some((call.protocol.clone(), call.trace, call.until.since(self.env.now)))
    }

    /// The body of a request has been handed out.
    pub(super) fn note_body_sent(&mut self, link: LinkId, id: u64, size: u64) {
        let number = self.messages.asked.get(&(link, id));
        if let Some(call) = number.and_then(|number| self.messages.calls.get_mut(number)) {
            call.held = call.held.saturating_sub(size);
            self.messages.own_bytes.leave(size);
        }
    }

    /// The host does not wait any more.
    pub(in crate::protocol) fn on_cancel_call(&mut self, call: CallId) {
        if self.take_call(call, true).is_some() {
            self.env.counters.requests_cancelled += 1;
        }
    }

    /// Ends a request with a result.
    pub(super) fn finish_call(&mut self, call: CallId, result: Result<Bytes, RequestError>) {
        if self.take_call(call, false).is_some() {
            self.answered(call, result);
        }
    }

    /// Ends a request that the peer may still be busy with.
    fn abandon_call(&mut self, call: CallId, error: RequestError) {
        if self.take_call(call, true).is_some() {
            self.answered(call, Err(error));
        }
    }

    /// Takes a request out of every table; `tells`: the peer hears of it, if it has heard of the request.
    fn take_call(&mut self, number: CallId, tells: bool) -> Option<Call> {
        let call = self.messages.calls.remove(&number)?;
        self.messages.own_bytes.leave(call.held);
        match call.state {
            State::Waiting(_) => {
                if let Some(waiting) = self.messages.waiting.get_mut(&call.peer) {
                    waiting.retain(|other| *other != number);
                    if waiting.is_empty() {
                        self.messages.waiting.remove(&call.peer);
                    }
                }
            }
            State::Asked { link, id, sent, .. } => {
                self.messages.asked.remove(&(link, id));
                self.stop_sending(link, id, false);
                if sent && tells {
                    self.send(link, Message::CancelRequest { id });
                }
            }
        }
        Some(call)
    }

    /// The link that a request was on has ended.
    pub(super) fn lose_call(&mut self, call: CallId) {
        let state = self.messages.calls.get(&call).map(|call| &call.state);
        let sent = matches!(state, Some(State::Asked { sent: true, .. }));
        self.finish_call(call, Err(RequestError::LinkLost { sent }));
    }

    /// There is no way to a peer: ends what waits for a link to it.
    pub(super) fn fail_waiting(&mut self, peer: &PeerId, reason: &str) {
        for call in self.messages.waiting.remove(peer).unwrap_or_default() {
            self.finish_call(call, Err(RequestError::NoWay { reason: reason.to_owned() }));
        }
    }

    /// Ends requests whose time is over.
    pub(super) fn end_late_calls(&mut self) {
        let now = self.env.now;
        let is_late = |(number, call): (&CallId, &Call)| {
            (call.until <= now).then_some((*number, call.within))
        };
        let late: Vec<_> = self.messages.calls.iter().filter_map(is_late).collect();
        for (call, after) in late {
            self.abandon_call(call, RequestError::TimedOut { after });
        }
    }

    /// A peer answers.
    pub(in crate::protocol) fn on_response(
        &mut self,
        link: LinkId,
        id: u64,
        status: ResponseStatus,
        size: u64,
        (body, reason): (Bytes, &str),
    ) {
        let Some(number) = self.messages.asked.get(&(link, id)).copied() else {
            self.env.counters.messages_unexpected += 1;
            return;
        };
        let Some(call) = self.messages.calls.get_mut(&number) else { return };
        let State::Asked { answer, sent, .. } = &mut call.state else { return };
        if !*sent || answer.is_some() && status == ResponseStatus::Done {
            self.violation(link);
            return;
        }
        if status == ResponseStatus::Failed && call.until <= self.env.now {
            // The peer's time was over too, and its word came before our own timer.
            let after = call.within;
            self.finish_call(number, Err(RequestError::TimedOut { after }));
            return;
        }
        if status != ResponseStatus::Done {
            let refused = refusal(status, call.protocol.clone(), call.size, reason);
            self.finish_call(number, Err(refused));
            return;
        }
        let limit = self.messages.config.max_bytes;
        let Some(len) = usize::try_from(size).ok().filter(|_| size <= limit) else {
            self.abandon_call(number, RequestError::TooLarge { size, limit });
            return;
        };
        if len == body.len() {
            self.finish_call(number, Ok(body));
            return;
        }
        *answer = Some(Body::new(len));
        self.stop_sending(link, id, false);
        self.on_answer_part(link, id, &body);
    }

    /// The next bytes of an answer.
    pub(super) fn on_answer_part(&mut self, link: LinkId, id: u64, part: &Bytes) {
        let number = self.messages.asked.get(&(link, id)).copied();
        let state = number.and_then(|number| Some(&self.messages.calls.get(&number)?.state));
        let (Some(number), Some(State::Asked { answer: Some(answer), .. })) = (number, state)
        else {
            self.env.counters.messages_unexpected += 1;
            return;
        };
        if answer.is_exceeded_by(part.len()) {
            self.violation(link);
            return;
        }
        let (growth, most) = (answer.growth(part.len()) as u64, self.messages.max_held());
        if !self.messages.own_bytes.has_room(growth, most) {
            // The peer has done what it was asked: nobody may take it for refused.
            self.env.counters.answers_shed += 1;
            self.abandon_call(number, RequestError::Failed);
            return;
        }
        let Some(call) = self.messages.calls.get_mut(&number) else { return };
        let State::Asked { answer: Some(answer), .. } = &mut call.state else { return };
        self.messages.own_bytes.enter(growth);
        call.held += growth;
        answer.push(part);
        if let Some(whole) = answer.take_whole() {
            self.finish_call(number, Ok(whole));
        }
    }
}

/// Returns what a refusal of a peer means.
fn refusal(status: ResponseStatus, protocol: String, size: u64, reason: &str) -> RequestError {
    match status {
        ResponseStatus::NotServed => RequestError::NotServed { protocol },
        ResponseStatus::Busy => RequestError::Busy,
        ResponseStatus::TooLarge => {
            RequestError::TooLarge { size, limit: reason.parse().unwrap_or(0) }
        }
        ResponseStatus::Refused => {
            let plain = |c: char| if c.is_control() { ' ' } else { c };
            RequestError::Refused { reason: reason.chars().map(plain).collect() }
        }
        ResponseStatus::Done | ResponseStatus::Failed => RequestError::Failed,
    }
}
