//! Requests to one peer and those of peers, as one core sees them.

mod dials;
mod hostile;

use bytes::Bytes;

use crate::config::Config;
use crate::error::RequestError;
use crate::identity::Identity;
use crate::protocol::{AnswerRefusal, CallId, DialId, Input, Output, Restored, Ticket};
use crate::types::{
    Counters, LinkId, Message, MonoTime, PIECE_BYTES, PeerId, ResponseStatus, StoredPeer,
};

use super::single_node::SingleNode;
use super::*;

const START: Duration = Duration::ZERO;
const MAX_BYTES: usize = 1 << 20;
/// Bytes of bodies that are held at most, for each side.
const MAX_HELD: u64 = 32 << 20;

fn peer(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

/// What the host gets to know.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Requested(Ticket, Bytes, Duration),
    Cancelled(Ticket),
    Answered(CallId, Result<Bytes, RequestError>),
}

/// A core that serves `p`, and its host.
struct Asker {
    node: SingleNode,
    now: Duration,
}

impl Asker {
    fn new() -> Self {
        Self::with(|_| {}, Vec::new())
    }

    fn with(tune: impl FnOnce(&mut Config), peers: Vec<StoredPeer>) -> Self {
        let mut config = Config::lan();
        (config.overlay.dial_target, config.overlay.min_links) = (1, 1);
        config.discovery.min_healthy_peers = 1;
        // Of that, half of an eighth is for each side.
        config.limits.memory = 16 * MAX_HELD;
        tune(&mut config);
        let restored = Restored { peers, ..Restored::default() };
        let mut node = SingleNode::restored(1, &config, Vec::new(), restored);
        node.feed(START, Input::Serving(["p".to_owned()].into()));
        Self { node, now: START }
    }

    fn meet(&mut self, n: u8) -> LinkId {
        let link = self.node.meet_asking(self.now, n);
        self.node.said_to(link);
        link
    }

    fn feed(&mut self, input: Input) {
        self.node.feed(self.now, input);
    }

    fn ask(&mut self, call: u64, n: u8, body: impl Into<Bytes>) -> CallId {
        self.ask_within(call, n, body, secs(5))
    }

    fn ask_within(&mut self, call: u64, n: u8, body: impl Into<Bytes>, within: Duration) -> CallId {
        let (call, body) = (CallId(call), body.into());
        let protocol = "p".to_owned();
        self.feed(Input::Request { call, peer: peer(n), protocol, body, within, trace: None });
        call
    }

    fn hear(&mut self, link: LinkId, message: Message) {
        self.node.hear(self.now, link, vec![message]);
    }

    /// Lets time pass.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.node.protocol.poll_timeout().map(MonoTime::as_duration)
            && at <= end
        {
            self.now = self.now.max(at);
            self.node.wake(self.now);
        }
        self.now = end;
    }

    /// What was said of requests on a link since the last look.
    fn said(&mut self, link: LinkId) -> Vec<Message> {
        let of_requests = |message: &Message| {
            matches!(message.kind(), "request" | "response" | "body_part" | "cancel_request")
        };
        let mut said = self.node.said_to(link);
        said.retain(of_requests);
        said
    }

    fn told(&mut self) -> Vec<Told> {
        let told = |output| match output {
            Output::Requested { ticket, body, within, .. } => {
                Some(Told::Requested(ticket, body, within))
            }
            Output::RequestCancelled { ticket } => Some(Told::Cancelled(ticket)),
            Output::Answered { call, result } => Some(Told::Answered(call, result)),
            _ => None,
        };
        self.node.outside.drain(..).filter_map(told).collect()
    }

    /// What waited on a link has left, and so does all else from now on.
    fn all_sent(&mut self, link: LinkId) {
        self.node.stuck.remove(&link);
        self.feed(Input::Sent { link, weight: MAX_BYTES, bytes: MAX_BYTES });
    }

    /// The only thing that the host was told, which is a request.
    #[track_caller]
    fn requested(&mut self) -> (Ticket, Bytes) {
        match &self.told()[..] {
            [Told::Requested(ticket, body, _)] => (*ticket, body.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn failed(&mut self, call: CallId) -> RequestError {
        match &self.told()[..] {
            [Told::Answered(of, Err(error))] if *of == call => error.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn dials(&mut self) -> Vec<DialId> {
        let dial = |output: &Output| match output {
            Output::Dial { dial, .. } => Some(*dial),
            _ => None,
        };
        let found = self.node.outside.iter().filter_map(dial).collect();
        self.node.outside.retain(|output| dial(output).is_none());
        found
    }

    fn answer(&mut self, ticket: Ticket, body: impl Into<Bytes>) {
        self.feed(Input::Answer { ticket, result: Ok(body.into()) });
    }

    fn count(&self) -> Counters {
        self.node.protocol.counters().clone()
    }

    fn gauge(&self, name: &str) -> usize {
        let gauges = self.node.protocol.gauges();
        gauges.iter().find(|gauge| gauge.name == name).unwrap().value
    }

    /// Nothing is held, and what is counted is what there is.
    #[track_caller]
    fn is_empty(&self) {
        for name in ["requests of the host", "requests of peers", "bodies sent on a link"] {
            assert_eq!(self.gauge(name), 0, "{name}");
        }
        assert_eq!(self.node.protocol.messages.held(), [0, 0]);
        assert_eq!(self.node.protocol.messages.sums(), [0, 0]);
    }
}

fn request(id: u64, size: u64, body: impl Into<Bytes>) -> Message {
    let protocol = "p".to_owned();
    Message::Request { id, protocol, size, timeout_ms: 5000, body: body.into(), trace: None }
}

/// A request that is whole.
fn whole(id: u64) -> Message {
    request(id, 2, &b"hi"[..])
}

fn part(id: u64, of_answer: bool, bytes: usize) -> Message {
    Message::BodyPart { id, of_answer, data: vec![0; bytes].into() }
}

fn done(id: u64, size: u64, body: impl Into<Bytes>) -> Message {
    let (status, reason) = (ResponseStatus::Done, String::new());
    Message::Response { id, status, size, body: body.into(), reason }
}

fn refused(id: u64, status: ResponseStatus, reason: &str) -> Message {
    let reason = reason.to_owned();
    Message::Response { id, status, size: 0, body: Bytes::new(), reason }
}

/// Bytes that differ from each other.
fn bytes(count: usize) -> Bytes {
    (0..count).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// Puts a body together from what was said, which is one request or answer.
fn joined(said: &[Message]) -> (u64, u64, Bytes) {
    let mut body = Vec::new();
    let (mut id, mut size) = (0, 0);
    for (at, message) in said.iter().enumerate() {
        let (of, part) = match message {
            Message::Request { id, size: told, body, .. }
            | Message::Response { id, size: told, body, status: ResponseStatus::Done, .. } => {
                size = *told;
                assert_eq!(at, 0, "the header comes first");
                (*id, body)
            }
            Message::BodyPart { id, data, .. } => (*id, data),
            other => panic!("{other:?}"),
        };
        assert!(part.len() <= PIECE_BYTES && (at == 0 || of == id));
        id = of;
        body.extend_from_slice(part);
    }
    (id, size, body.into())
}

#[test]
fn a_request_travels_in_parts_and_so_does_its_answer() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let call = asker.ask(1, 2, bytes(200_000));
    let said = asker.said(link);
    assert_eq!(said.len(), 4);
    assert!(matches!(said[0], Message::Request { timeout_ms: 5000, .. }), "{:?}", said[0]);
    let (id, size, body) = joined(&said);
    assert_eq!((size, body), (200_000, bytes(200_000)));
    assert_eq!(asker.told(), []);
    let answer = bytes(150_000);
    asker.hear(link, done(id, 150_000, answer.slice(..65_536)));
    asker.hear(link, Message::BodyPart { id, of_answer: true, data: answer.slice(65_536..66_000) });
    assert_eq!(asker.told(), []);
    asker.hear(link, Message::BodyPart { id, of_answer: true, data: answer.slice(66_000..) });
    assert_eq!(asker.told(), [Told::Answered(call, Ok(answer))]);
    assert_eq!(asker.said(link), []);
    asker.is_empty();
    // An empty one both ways.
    let call = asker.ask(2, 2, Bytes::new());
    let (id, size, _) = joined(&asker.said(link));
    assert_eq!(size, 0);
    asker.hear(link, done(id, 0, Bytes::new()));
    assert_eq!(asker.told(), [Told::Answered(call, Ok(Bytes::new()))]);
    asker.is_empty();
}

#[test]
fn a_request_of_a_peer_is_handled_once_it_is_whole() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let body = bytes(100_000);
    asker.hear(link, request(7, 100_000, body.slice(..65_536)));
    assert_eq!(asker.told(), []);
    asker.hear(link, Message::BodyPart { id: 7, of_answer: false, data: body.slice(65_536..) });
    let (ticket, got) = asker.requested();
    assert_eq!(got, body);
    asker.answer(ticket, bytes(70_000));
    let said = asker.said(link);
    assert_eq!((said.len(), joined(&said)), (2, (7, 70_000, bytes(70_000))));
    asker.answer(ticket, "again");
    assert_eq!(asker.said(link), [], "once");
    asker.is_empty();
    let counters = asker.count();
    assert_eq!((counters.requests_received, counters.requests_served), (1, 1));
}

#[test]
fn what_a_handler_says_is_told() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let long = "é".repeat(200);
    let cases = [
        (AnswerRefusal::NotServed, ResponseStatus::NotServed, ""),
        (AnswerRefusal::Busy, ResponseStatus::Busy, ""),
        (AnswerRefusal::Failed, ResponseStatus::Failed, ""),
        (AnswerRefusal::Refused(long.clone()), ResponseStatus::Refused, &long[..256]),
    ];
    for (id, (refusal, status, reason)) in (1..).zip(cases) {
        asker.hear(link, whole(id));
        let (ticket, _) = asker.requested();
        asker.feed(Input::Answer { ticket, result: Err(refusal) });
        assert_eq!(asker.said(link), [refused(id, status, reason)]);
    }
    asker.hear(link, whole(9));
    let (ticket, _) = asker.requested();
    asker.answer(ticket, vec![0; MAX_BYTES + 1]);
    assert_eq!(asker.said(link), [refused(9, ResponseStatus::Failed, "")]);
    assert_eq!(asker.count().answers_shed, 1);
    asker.is_empty();
}

#[test]
fn what_a_peer_refuses_is_an_error_that_says_why() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let protocol = "p".to_owned();
    let reason = "not you ".to_owned();
    let cases = [
        (ResponseStatus::NotServed, "", RequestError::NotServed { protocol }),
        (ResponseStatus::Busy, "", RequestError::Busy),
        (ResponseStatus::TooLarge, "1024", RequestError::TooLarge { size: 200_000, limit: 1024 }),
        (ResponseStatus::TooLarge, "much", RequestError::TooLarge { size: 200_000, limit: 0 }),
        (ResponseStatus::Refused, "not you\n", RequestError::Refused { reason }),
        (ResponseStatus::Failed, "", RequestError::Failed),
    ];
    for (n, (status, reason, error)) in (1..).zip(cases) {
        let call = asker.ask(n, 2, bytes(200_000));
        let (id, ..) = joined(&asker.said(link));
        asker.hear(link, refused(id, status, reason));
        assert_eq!(asker.failed(call), error);
    }
    asker.is_empty();
    // While parts are still to be sent, a refusal ends that.
    asker.node.stuck.insert(link);
    let call = asker.ask(50, 2, bytes(200_000));
    let said = asker.said(link);
    let [Message::Request { id, .. }] = said[..] else { panic!("{said:?}") };
    asker.hear(link, refused(id, ResponseStatus::Busy, ""));
    assert_eq!(asker.failed(call), RequestError::Busy);
    asker.is_empty();
}

#[test]
fn what_cannot_be_asked_is_said_at_once() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let ask = |asker: &mut Asker, call, n, protocol: &str, bytes: usize| {
        let (call, body) = (CallId(call), vec![0; bytes].into());
        let (protocol, within) = (protocol.to_owned(), secs(5));
        asker.feed(Input::Request { call, peer: peer(n), protocol, body, within, trace: None });
        asker.failed(call)
    };
    assert_eq!(ask(&mut asker, 1, 1, "p", 1), RequestError::ToSelf);
    assert_eq!(ask(&mut asker, 1, 9, "p", 1), RequestError::UnknownPeer);
    let long = "p".repeat(129);
    for name in ["", "a b", "ü", "tab\t", &long, &"p".repeat(100_000)] {
        assert_eq!(ask(&mut asker, 1, 2, name, 1), RequestError::InvalidProtocol);
    }
    let (size, limit) = (MAX_BYTES as u64 + 1, MAX_BYTES as u64);
    let error = ask(&mut asker, 1, 2, "p", MAX_BYTES + 1);
    assert_eq!(error, RequestError::TooLarge { size, limit });
    assert_eq!(asker.said(link), []);
    // A peer of an older version.
    asker.node.meet(START, 3);
    let protocol = "p".to_owned();
    assert_eq!(ask(&mut asker, 1, 3, "p", 1), RequestError::NotServed { protocol });
    for call in 0..1024 {
        asker.ask(call, 2, "x");
    }
    assert_eq!(ask(&mut asker, 2000, 2, "p", 1), RequestError::Busy);
    asker.feed(Input::CancelRequest { call: CallId(7) });
    asker.ask(2000, 2, "x");
    assert_eq!(asker.told(), []);
    asker.feed(Input::Shutdown);
    let told = asker.told();
    assert_eq!(told.len(), 1024);
    assert!(told.iter().all(|t| matches!(t, Told::Answered(_, Err(RequestError::Closed)))));
    assert_eq!(ask(&mut asker, 1, 2, "p", 1), RequestError::Closed);
    asker.is_empty();
}

#[test]
fn bytes_of_own_requests_are_bounded() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    asker.node.stuck.insert(link);
    for call in 0..40 {
        asker.ask(call, 2, vec![0; MAX_BYTES]);
    }
    let told = asker.told();
    assert_eq!(told.len(), 8, "32 of them are held");
    assert!(told.iter().all(|t| matches!(t, Told::Answered(_, Err(RequestError::Busy)))));
    assert_eq!(asker.node.protocol.messages.held(), [MAX_HELD, 0]);
    let stats = asker.node.protocol.stats();
    assert_eq!(
        (stats.memory["requests"], stats.memory_limits["requests"]),
        (MAX_HELD, 2 * MAX_HELD)
    );
    // One piece is on its way, and no more.
    let parts = asker.said(link);
    assert!(matches!(&parts[..], [Message::Request { body, .. }] if body.len() == PIECE_BYTES));
    (0..40).for_each(|call| asker.feed(Input::CancelRequest { call: CallId(call) }));
    asker.is_empty();
}

#[test]
fn bodies_on_a_link_take_turns() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    asker.node.stuck.insert(link);
    asker.ask(1, 2, bytes(MAX_BYTES));
    let Message::Request { id: large, .. } = asker.said(link)[0] else { panic!() };
    asker.ask(2, 2, "small");
    asker.ask(3, 2, "small too");
    asker.all_sent(link);
    let said = asker.said(link);
    let ids: Vec<_> = said.iter().map(|m| joined(std::slice::from_ref(m)).0).collect();
    assert!(ids[..4].iter().filter(|id| **id != large).count() == 2, "{ids:?}");
    assert_eq!(ids.iter().filter(|id| **id == large).count(), 15);
}

#[test]
fn who_cancels_is_not_answered_and_the_peer_hears_of_it() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let call = asker.ask(1, 2, "x");
    let (id, ..) = joined(&asker.said(link));
    asker.feed(Input::CancelRequest { call });
    assert_eq!(asker.said(link), [Message::CancelRequest { id }]);
    asker.hear(link, done(id, 1, "y"));
    asker.feed(Input::CancelRequest { call });
    assert_eq!((asker.told(), asker.said(link)), (Vec::new(), Vec::new()));
    assert_eq!((asker.count().messages_unexpected, asker.count().requests_cancelled), (1, 1));
    // Nobody hears of what was not sent.
    asker.node.stuck.insert(link);
    asker.ask(2, 2, vec![0; PIECE_BYTES]);
    let call = asker.ask(3, 2, vec![0; PIECE_BYTES]);
    assert_eq!(asker.said(link).len(), 1);
    asker.feed(Input::CancelRequest { call });
    assert_eq!(asker.said(link), []);
    // While the answer comes.
    asker.all_sent(link);
    asker.feed(Input::CancelRequest { call: CallId(2) });
    let call = asker.ask(4, 2, "x");
    let said = asker.said(link);
    let Some(Message::Request { id, .. }) = said.last() else { panic!("{said:?}") };
    asker.hear(link, done(*id, 100_000, vec![0; 1000]));
    asker.feed(Input::CancelRequest { call });
    assert_eq!(asker.said(link), [Message::CancelRequest { id: *id }]);
    asker.hear(link, part(*id, true, 1000));
    assert_eq!(asker.told(), []);
    asker.is_empty();
}

#[test]
fn a_cancelled_handler_is_told_and_its_answer_dropped() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    asker.hear(link, whole(1));
    let (ticket, _) = asker.requested();
    asker.hear(link, Message::CancelRequest { id: 1 });
    assert_eq!(asker.told(), [Told::Cancelled(ticket)]);
    asker.answer(ticket, "late");
    asker.hear(link, Message::CancelRequest { id: 1 });
    asker.hear(link, Message::CancelRequest { id: 77 });
    assert_eq!((asker.said(link), asker.told()), (Vec::new(), Vec::new()));
    assert_eq!(asker.count().messages_unexpected, 2);
    // While it is being received, and while its answer is being sent.
    asker.hear(link, request(2, 1000, "x"));
    asker.hear(link, Message::CancelRequest { id: 2 });
    asker.node.stuck.insert(link);
    asker.hear(link, whole(3));
    let (ticket, _) = asker.requested();
    asker.answer(ticket, bytes(200_000));
    asker.hear(link, Message::CancelRequest { id: 3 });
    assert_eq!((asker.said(link).len(), asker.told()), (1, Vec::new()));
    asker.is_empty();
}

#[test]
fn time_ends_requests_on_both_sides() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let call = asker.ask_within(1, 2, "x", secs(3));
    asker.hear(link, whole(1));
    let [Told::Requested(ticket, _, within)] = asker.told()[..] else { panic!() };
    assert_eq!(within, secs(5));
    asker.hear(link, request(2, 1000, "part"));
    let (id, ..) = joined(&asker.said(link));
    asker.pass(secs(4));
    assert_eq!(asker.failed(call), RequestError::TimedOut { after: secs(3) });
    assert_eq!(asker.said(link), [Message::CancelRequest { id }]);
    asker.pass(secs(2));
    assert_eq!(asker.told(), [Told::Cancelled(ticket)]);
    let failed = |id| refused(id, ResponseStatus::Failed, "");
    assert_eq!(asker.said(link), [failed(1), failed(2)]);
    asker.answer(ticket, "late");
    assert_eq!(asker.said(link), []);
    assert_eq!(asker.count().requests_given_up, 2);
    asker.is_empty();
    // No caller waits for more than ten minutes, and nobody keeps a handler for longer.
    asker.ask_within(2, 2, "x", Duration::MAX);
    asker.said(link);
    let protocol = "p".to_owned();
    let (size, body) = (0, Bytes::new());
    let timeout_ms = u32::MAX;
    asker.hear(link, Message::Request { id: 3, protocol, size, timeout_ms, body, trace: None });
    let [Told::Requested(_, _, within)] = asker.told()[..] else { panic!() };
    assert_eq!(within, secs(600));
    // Who says nothing has the time of this node's own requests.
    let (protocol, timeout_ms, body) = ("p".to_owned(), 0, Bytes::new());
    asker.hear(link, Message::Request { id: 4, protocol, size, timeout_ms, body, trace: None });
    let [Told::Requested(_, _, within)] = asker.told()[..] else { panic!() };
    assert_eq!(within, secs(30));
}

#[test]
fn where_a_link_ends_so_does_what_was_asked_on_it() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    asker.node.stuck.insert(link);
    let sent = asker.ask(1, 2, bytes(200_000));
    let unsent = asker.ask(2, 2, bytes(200_000));
    asker.hear(link, whole(1));
    let (ticket, _) = asker.requested();
    asker.hear(link, request(2, 1000, "part"));
    asker.feed(Input::LinkClosed { link });
    let lost = |sent| Err(RequestError::LinkLost { sent });
    let told = [
        Told::Answered(sent, lost(true)),
        Told::Answered(unsent, lost(false)),
        Told::Cancelled(ticket),
    ];
    assert_eq!(asker.told(), told);
    asker.answer(ticket, "late");
    asker.is_empty();
}
