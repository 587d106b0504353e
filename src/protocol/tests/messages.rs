//! Requests to one peer and those of peers, as one core sees them; and peers that spoil them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::config::Config;
use crate::error::RequestError;
use crate::identity::Identity;
use crate::protocol::{AnswerRefusal, CallId, DialId, Input, Output, Restored, Ticket};
use crate::types::{
    Counters, FailureKind, Features, Hello, LinkId, Message, MonoTime, PIECE_BYTES, PeerId,
    ResponseStatus, StoredPeer, WallTime,
};

use super::single_node::{SingleNode, greeting};
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

fn known(n: u8, address: Option<&str>) -> StoredPeer {
    let mut known = StoredPeer::new(peer(n));
    known.verified = address.map(|text| text.parse().unwrap());
    known.last_up = Some(WallTime::from_millis(1_600_000_000_000));
    known
}

/// A core that has the link it wants, and knows two peers more: one by its address.
fn with_known() -> Asker {
    let peers = vec![known(2, Some("10.0.0.2:5001")), known(3, None)];
    let tune = |c: &mut Config| c.discovery.forget_after = 100;
    let mut asker = Asker::with(tune, peers);
    asker.node.link_up(START, LinkId(9), true, 9);
    let hello = Hello { features: Features::SERVES_REQUESTS, ..greeting(9) };
    asker.hear(LinkId(9), Message::Hello(Box::new(hello)));
    asker.pass(secs(1));
    for dial in asker.dials() {
        asker.feed(Input::DialFailed { dial, reason: FailureKind::Timeout, detail: String::new() });
    }
    asker.pass(secs(100));
    asker.dials();
    asker
}

#[test]
fn a_known_peer_without_a_link_is_dialled() {
    let mut asker = with_known();
    let calls = [asker.ask(1, 2, "first"), asker.ask(2, 2, "second")];
    let dials = asker.dials();
    let [dial] = dials[..] else { panic!("{dials:?}") };
    asker.pass(millis(300));
    let link = LinkId(40);
    let kind = crate::types::TransportKind::GrpcStream;
    let (remote, assurance) = (peer(2), crate::protocol::Assurance::default());
    let (address, dial) = (None, Some(dial));
    asker.feed(Input::LinkOpened { link, remote, kind, address, dial, assurance });
    assert_eq!(asker.said(link), []);
    let hello = Hello { features: Features::SERVES_REQUESTS, ..greeting(2) };
    asker.hear(link, Message::Hello(Box::new(hello)));
    let said = asker.said(link);
    let bodies: Vec<_> = said.iter().map(|m| joined(std::slice::from_ref(m)).2).collect();
    assert_eq!(bodies, [&b"first"[..], b"second"]);
    let left = said.iter().map(|m| match m {
        Message::Request { timeout_ms, .. } => *timeout_ms,
        other => panic!("{other:?}"),
    });
    assert!(left.eq([4700, 4700]), "what is left of the time");
    assert_eq!(asker.told(), []);
    asker.hear(link, done(1, 1, "1"));
    assert_eq!(asker.told(), [Told::Answered(calls[0], Ok("1".into()))]);
}

#[test]
fn where_there_is_no_way_that_is_said() {
    let mut asker = with_known();
    let no_way = |asker: &mut Asker, call| match asker.failed(call) {
        RequestError::NoWay { reason } => reason,
        other => panic!("{other:?}"),
    };
    let call = asker.ask(1, 3, "x");
    assert!(no_way(&mut asker, call).contains("no address"));
    let calls = [asker.ask(1, 2, "x"), asker.ask(2, 2, "x")];
    let [dial] = asker.dials()[..] else { panic!() };
    let detail = "connection refused".to_owned();
    asker.feed(Input::DialFailed { dial, reason: FailureKind::Unreachable, detail });
    let told = asker.told();
    for (call, told) in calls.iter().zip(&told) {
        let Told::Answered(of, Err(RequestError::NoWay { reason })) = told else {
            panic!("{told:?}")
        };
        assert!(of == call && reason.contains("connection refused"), "{reason}");
    }
    // Its back-off is not over: nobody is dialled again and again for who asks.
    let call = asker.ask(1, 2, "x");
    assert!(no_way(&mut asker, call).contains("again in"));
    assert_eq!(asker.dials(), []);
    asker.is_empty();
    // With each walk that fails the back-off grows, and then the breaker opens.
    let mut reason = String::new();
    for _ in 0..20 {
        asker.pass(secs(15));
        let call = asker.ask(1, 2, "x");
        match asker.dials()[..] {
            [dial] => {
                let (reason, detail) = (FailureKind::Unreachable, String::new());
                asker.feed(Input::DialFailed { dial, reason, detail });
                asker.told();
            }
            _ => match asker.failed(call) {
                RequestError::NoWay { reason: said } => reason = said,
                other => panic!("{other:?}"),
            },
        }
    }
    assert!(reason.contains("circuit breaker"), "{reason}");
    asker.is_empty();
}

#[test]
fn a_dial_that_takes_too_long_ends_with_the_time() {
    let mut asker = with_known();
    let call = asker.ask_within(1, 2, "x", secs(2));
    assert_eq!(asker.dials().len(), 1);
    asker.pass(secs(3));
    assert_eq!(asker.failed(call), RequestError::TimedOut { after: secs(2) });
    asker.is_empty();
}

#[test]
fn links_for_requests_alone_give_way_to_each_other() {
    let peers = (20..60).map(|n| known(n, Some(&format!("10.0.{n}.2:5001")))).collect();
    let mut asker = Asker::with(|_| {}, peers);
    asker.node.link_up(START, LinkId(9), true, 9);
    asker.hear(LinkId(9), Message::Hello(Box::new(greeting(9))));
    asker.pass(secs(1));
    asker.dials();
    for n in 20..60 {
        asker.pass(secs(200));
        let call = asker.ask(u64::from(n), n, "x");
        let Some(dial) = asker.dials().pop() else { continue };
        let link = LinkId(1000 + u64::from(n));
        let kind = crate::types::TransportKind::GrpcStream;
        let (remote, assurance) = (peer(n), crate::protocol::Assurance::default());
        let (address, dial) = (None, Some(dial));
        asker.feed(Input::LinkOpened { link, remote, kind, address, dial, assurance });
        let hello = Hello { features: Features::SERVES_REQUESTS, ..greeting(n) };
        asker.hear(link, Message::Hello(Box::new(hello)));
        let said = asker.said(link);
        assert!(!said.is_empty(), "{n}");
        asker.hear(link, done(1, 1, "1"));
        let told = asker.told();
        assert!(told.contains(&Told::Answered(call, Ok("1".into()))), "{told:?}");
    }
    let links = asker.node.protocol.stats().links;
    assert!((16..=24).contains(&links), "{links}");
    assert!(asker.count().errands_ended > 10, "{}", asker.count().errands_ended);
}

/// A peer that spoils requests costs itself at most.
#[test]
fn parts_without_a_request_and_answers_to_none_are_left_alone() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    for id in [0, 1, 7, u64::MAX] {
        asker.hear(link, part(id, false, 100));
        asker.hear(link, part(id, true, 100));
        asker.hear(link, done(id, 3, "abc"));
        asker.hear(link, refused(id, ResponseStatus::Busy, ""));
        asker.hear(link, Message::CancelRequest { id });
    }
    assert_eq!(asker.count().messages_unexpected, 20);
    assert_eq!((asker.told(), asker.said(link)), (Vec::new(), Vec::new()));
    assert!(asker.node.closed.is_empty());
    // Of an answer that has not begun.
    asker.ask(1, 2, "x");
    let (id, ..) = joined(&asker.said(link));
    asker.hear(link, part(id, true, 100));
    assert_eq!((asker.told(), asker.count().messages_unexpected), (Vec::new(), 21));
}

#[test]
fn a_number_that_was_had_is_nobody_s() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    asker.hear(link, whole(5));
    let (ticket, _) = asker.requested();
    asker.hear(link, whole(5));
    asker.hear(link, whole(4));
    asker.hear(link, whole(0));
    assert_eq!((asker.told(), asker.count().messages_unexpected), (Vec::new(), 3));
    asker.answer(ticket, "one");
    asker.hear(link, whole(5));
    assert_eq!((asker.told(), asker.said(link).len()), (Vec::new(), 1), "nor after its answer");
    asker.hear(link, whole(u64::MAX));
    asker.requested();
    assert!(asker.node.closed.is_empty());
}

#[test]
fn lies_about_sizes_cost_the_liar() {
    let mut asker = Asker::new();
    // More than was told.
    let link = asker.meet(2);
    asker.hear(link, request(1, 100, vec![0; 60]));
    asker.hear(link, part(1, false, 41));
    assert_eq!((asker.node.closed.pop(), asker.told()), (Some(link), Vec::new()));
    let link = asker.meet(3);
    let call = asker.ask(1, 3, "x");
    let (id, ..) = joined(&asker.said(link));
    asker.hear(link, done(id, 100, vec![0; 60]));
    asker.hear(link, part(id, true, 41));
    assert_eq!(asker.node.closed.pop(), Some(link));
    assert_eq!(asker.failed(call), RequestError::LinkLost { sent: true });
    // Less: it never ends by itself.
    let link = asker.meet(4);
    asker.hear(link, request(1, 100, vec![0; 60]));
    asker.hear(link, part(1, false, 39));
    asker.pass(secs(6));
    assert_eq!(asker.told(), []);
    assert_eq!(asker.said(link), [refused(1, ResponseStatus::Failed, "")]);
    // More than may be, and nothing is held for it.
    for (id, size) in [(2, MAX_BYTES as u64 + 1), (3, u64::MAX)] {
        asker.hear(link, request(id, size, vec![0; PIECE_BYTES]));
        let limit = MAX_BYTES.to_string();
        assert_eq!(asker.said(link), [refused(id, ResponseStatus::TooLarge, &limit)]);
        asker.hear(link, part(id, false, PIECE_BYTES));
    }
    for (n, size) in [(5, MAX_BYTES as u64 + 1), (6, u64::MAX)] {
        let call = asker.ask(n, 4, "x");
        let (id, ..) = joined(&asker.said(link));
        asker.hear(link, done(id, size, vec![0; PIECE_BYTES]));
        let limit = MAX_BYTES as u64;
        assert_eq!(asker.failed(call), RequestError::TooLarge { size, limit });
        assert_eq!(asker.said(link), [Message::CancelRequest { id }]);
    }
    assert_eq!(asker.count().requests_too_large, 2);
    asker.is_empty();
}

#[test]
fn two_answers_or_one_before_the_question_cost_the_link() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let call = asker.ask(1, 2, "x");
    let (id, ..) = joined(&asker.said(link));
    asker.hear(link, done(id, 100, vec![0; 50]));
    asker.hear(link, done(id, 100, vec![0; 50]));
    assert_eq!(asker.node.closed.pop(), Some(link));
    assert_eq!(asker.failed(call), RequestError::LinkLost { sent: true });
    let link = asker.meet(3);
    asker.node.stuck.insert(link);
    asker.ask(1, 3, vec![0; PIECE_BYTES]);
    asker.ask(2, 3, vec![0; PIECE_BYTES]);
    assert_eq!(asker.said(link).len(), 1);
    asker.hear(link, done(2, 1, "y"));
    assert_eq!(asker.node.closed.pop(), Some(link));
    asker.is_empty();
}

#[test]
fn a_flood_of_requests_is_refused_and_others_are_served() {
    let mut asker = Asker::new();
    let (flood, honest) = (asker.meet(2), asker.meet(3));
    for id in 1..=10_000 {
        asker.hear(flood, whole(id));
        asker.said(flood);
    }
    let handled = asker.told().len();
    assert_eq!((handled, asker.count().requests_busy), (16, 9984));
    assert!(asker.count().refused_rate > 0, "by its rate, in the end");
    asker.hear(honest, whole(1));
    let (ticket, _) = asker.requested();
    asker.answer(ticket, "yes");
    assert_eq!(asker.said(honest).len(), 1);
    // For what nobody serves.
    let other = |id| Message::Request {
        id,
        protocol: "q".to_owned(),
        size: 0,
        timeout_ms: 1,
        body: Bytes::new(),
        trace: None,
    };
    asker.hear(honest, other(2));
    assert_eq!(asker.said(honest), [refused(2, ResponseStatus::NotServed, "")]);
    asker.feed(Input::Serving(std::collections::BTreeSet::new()));
    asker.hear(honest, whole(3));
    assert_eq!(asker.said(honest), [refused(3, ResponseStatus::NotServed, "")]);
    assert_eq!(asker.count().requests_not_served, 2);
    // Who takes nothing of the answers is disconnected.
    asker.node.stuck.insert(flood);
    for id in 10_001..60_000 {
        if asker.node.closed.contains(&flood) {
            break;
        }
        asker.hear(flood, whole(id));
    }
    assert!(asker.node.closed.contains(&flood));
}

#[test]
fn requests_that_are_never_whole_make_room_for_those_of_others() {
    let mut asker = Asker::new();
    // Sixteen peers hold all there is with requests that they do not end.
    for n in 10..26 {
        let link = asker.meet(n);
        (1..=16).for_each(|id| asker.hear(link, request(id, 1000, "x")));
    }
    assert_eq!(asker.gauge("requests of peers"), 256);
    let honest = asker.meet(2);
    for id in 1..=10 {
        asker.hear(honest, whole(id));
    }
    let told = asker.told();
    assert_eq!(told.len(), 10);
    assert_eq!((asker.gauge("requests of peers"), asker.count().requests_busy), (256, 10));
    // Those that gave way were told, one of each.
    let refused = |asker: &mut Asker, n| asker.said(LinkId(n)).len();
    let gave_way: Vec<_> = (10..26).map(|n| refused(&mut asker, n)).collect();
    assert!(gave_way.iter().all(|count| *count <= 1), "{gave_way:?}");
    assert_eq!(asker.said(honest), []);
}

#[test]
fn bytes_of_requests_of_peers_are_bounded_and_shared() {
    let mut asker = Asker::new();
    let links: Vec<_> = (10..16).map(|n| asker.meet(n)).collect();
    let mut busy = BTreeMap::new();
    // Six peers send 15 of a MiB each and never the last byte: 90 MiB, of which 32 fit.
    for id in 1..=15 {
        for link in &links {
            asker.hear(*link, request(id, MAX_BYTES as u64, vec![0; PIECE_BYTES]));
            (0..15).for_each(|_| asker.hear(*link, part(id, false, PIECE_BYTES - 1)));
        }
    }
    let [own, theirs] = asker.node.protocol.messages.held();
    assert!(own == 0 && theirs <= MAX_HELD && theirs > MAX_HELD / 2, "{theirs}");
    assert_eq!(asker.node.protocol.messages.sums(), [own, theirs]);
    for link in &links {
        let said = asker.said(*link);
        assert!(
            said.iter()
                .all(|m| matches!(m, Message::Response { status: ResponseStatus::Busy, .. }))
        );
        busy.insert(*link, said.len());
    }
    assert!(busy.values().sum::<usize>() > 40, "{busy:?}");
    // Another one has a whole MiB through.
    let honest = asker.meet(2);
    asker.hear(honest, request(1, MAX_BYTES as u64, vec![1; PIECE_BYTES]));
    (0..15).for_each(|_| asker.hear(honest, part(1, false, PIECE_BYTES)));
    let (ticket, body) = asker.requested();
    assert_eq!(body.len(), MAX_BYTES);
    asker.answer(ticket, bytes(MAX_BYTES));
    assert_eq!(joined(&asker.said(honest)).2.len(), MAX_BYTES);
    for link in links {
        asker.feed(Input::LinkClosed { link });
    }
    asker.is_empty();
}

#[test]
fn answers_in_parts_are_bounded_too() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let calls: Vec<_> = (0..40).map(|n| asker.ask(n, 2, "x")).collect();
    asker.said(link);
    for id in 1..=40 {
        asker.hear(link, done(id, MAX_BYTES as u64, vec![0; PIECE_BYTES]));
        (0..15).for_each(|_| asker.hear(link, part(id, true, PIECE_BYTES - 1)));
    }
    let [own, _] = asker.node.protocol.messages.held();
    assert!(own <= MAX_HELD, "{own}");
    let told = asker.told();
    assert_eq!(told.len(), 8);
    // They were handled, so that they are not to be asked again as those are that were refused.
    assert!(told.iter().all(|t| matches!(t, Told::Answered(_, Err(RequestError::Failed)))));
    assert_eq!(asker.count().answers_shed, 8);
    assert_eq!(asker.said(link).len(), 8, "those are cancelled");
    for call in calls {
        asker.feed(Input::CancelRequest { call });
    }
    asker.is_empty();
}

#[test]
fn cancelled_and_refused_requests_cost_tokens_and_answered_ones_do_not() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    for id in 1..=5000 {
        asker.hear(link, whole(id));
        let (ticket, _) = asker.requested();
        asker.answer(ticket, "y");
        asker.said(link);
    }
    assert_eq!(asker.count().requests_busy, 0);
    for id in 5001..=9000 {
        asker.hear(link, whole(id));
        asker.hear(link, Message::CancelRequest { id });
        asker.told();
    }
    let counters = asker.count();
    assert_eq!(counters.requests_given_up + counters.requests_busy, 4000);
    assert!((2000..2200).contains(&counters.requests_given_up), "{}", counters.requests_given_up);
    assert_eq!(counters.refused_rate, counters.requests_busy);
}

#[test]
fn an_answer_that_has_begun_is_taken_back_by_a_refusal() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    let call = asker.ask(1, 2, "x");
    let (id, ..) = joined(&asker.said(link));
    asker.hear(link, done(id, 100, vec![0; 50]));
    asker.hear(link, refused(id, ResponseStatus::Failed, ""));
    assert_eq!(asker.failed(call), RequestError::Failed);
    asker.hear(link, part(id, true, 50));
    assert_eq!((asker.told(), asker.said(link)), (Vec::new(), Vec::new()));
    assert!(asker.node.closed.is_empty());
    asker.is_empty();
}

#[test]
fn answers_that_are_not_read_make_room_for_those_that_are() {
    let mut asker = Asker::new();
    // Two peers take nothing of 16 answers of a MiB each, for as long as may be.
    for n in [10, 11] {
        let link = asker.meet(n);
        asker.node.stuck.insert(link);
        for id in 1..=16 {
            let (protocol, body) = ("p".to_owned(), Bytes::new());
            let (size, timeout_ms) = (0, u32::MAX);
            let ask = Message::Request { id, protocol, size, timeout_ms, body, trace: None };
            asker.hear(link, ask);
            let (ticket, _) = asker.requested();
            asker.answer(ticket, vec![0; MAX_BYTES]);
        }
    }
    assert_eq!(asker.node.protocol.messages.held(), [0, MAX_HELD]);
    assert_eq!(asker.count().answers_shed, 0);
    let honest = asker.meet(2);
    for id in 1..=8 {
        asker.hear(honest, request(id, MAX_BYTES as u64, vec![1; PIECE_BYTES]));
        (0..15).for_each(|_| asker.hear(honest, part(id, false, PIECE_BYTES)));
        let (ticket, body) = asker.requested();
        assert_eq!(body.len(), MAX_BYTES);
        asker.answer(ticket, bytes(MAX_BYTES));
        assert_eq!(joined(&asker.said(honest)).2.len(), MAX_BYTES);
    }
    // Room for two MiB was made once: for a request and its buffer, and the answer took its place.
    let shed = asker.count().answers_shed;
    assert!((1..=3).contains(&shed), "{shed}");
    let told: Vec<_> = [10, 11].into_iter().flat_map(|n| asker.said(LinkId(n))).collect();
    let failed =
        |m: &&Message| matches!(m, Message::Response { status: ResponseStatus::Failed, .. });
    assert_eq!(told.iter().filter(failed).count() as u64, shed);
    assert!(asker.node.protocol.messages.held()[1] <= MAX_HELD);
}

#[test]
fn bodies_of_one_peer_take_a_quarter_of_the_room() {
    let mut asker = Asker::new();
    let link = asker.meet(2);
    for id in 1..=16 {
        asker.hear(link, request(id, MAX_BYTES as u64, vec![0; PIECE_BYTES]));
        (0..15).for_each(|_| asker.hear(link, part(id, false, PIECE_BYTES)));
    }
    assert_eq!(asker.told().len(), 8, "and the handlers keep them");
    assert_eq!(asker.node.protocol.messages.held(), [0, MAX_HELD / 4]);
    assert_eq!((asker.count().requests_busy, asker.said(link).len()), (8, 8));
    assert_eq!(asker.node.protocol.messages.sums(), [0, MAX_HELD / 4]);
}

#[test]
fn dials_for_requests_are_bounded_and_go_on_as_they_end() {
    let peers = (20..60).map(|n| known(n, Some(&format!("10.0.{n}.2:5001")))).collect();
    let mut asker = Asker::with(|c| c.discovery.max_concurrent = 3, peers);
    let link = LinkId(9);
    asker.node.link_up(START, link, true, 9);
    let hello = Hello { features: Features::SERVES_REQUESTS, ..greeting(9) };
    asker.hear(link, Message::Hello(Box::new(hello)));
    asker.pass(secs(1));
    for dial in asker.dials() {
        let (reason, detail) = (FailureKind::Timeout, String::new());
        asker.feed(Input::DialFailed { dial, reason, detail });
    }
    asker.pass(secs(100));
    asker.dials();
    for n in 20..60 {
        asker.ask_within(u64::from(n), n, "x", secs(60));
    }
    let mut under_way = asker.dials();
    assert_eq!(under_way.len(), 3, "as many as may be at once");
    asker.hear(link, whole(1));
    asker.ask_within(100, 59, "x", secs(60));
    assert_eq!(asker.dials(), []);
    // As soon as one ends, the next begins.
    for ended in 0..20 {
        let (dial, detail) = (under_way.remove(0), String::new());
        asker.feed(Input::DialFailed { dial, reason: FailureKind::Unreachable, detail });
        let begun = asker.dials();
        assert_eq!(begun.len(), 1, "{ended}");
        under_way.extend(begun);
    }
}
