//! The ladder and the circuit breaker, as one core sees them: what is dialled when, by which transport.

use crate::config::Config;
use crate::identity::Identity;
use crate::protocol::{Assurance, CallId, ConnectFailure, DialId, Input, Output, Restored};
use crate::types::{
    CloseReason, Endpoint, Event, FailureKind, Hello, LinkId, Message, PeerId, StoredPeer,
    TransportKind, WallTime,
};

use super::single_node::{SingleNode, greeting};
use super::*;

use TransportKind::{GrpcStream, Rest, WebSocket};

const THERE: &str = "10.0.0.2:5001";
const ME: u8 = 1;
const PEER: u8 = 2;

fn peer(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

/// A dial that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Begun {
    dial: DialId,
    rung: TransportKind,
    place: String,
}

/// A core with three rungs, and what it asks of them.
struct Climber {
    node: SingleNode,
    now: Duration,
    next_link: u64,
    next_call: u64,
    /// Links whose peers answer pings.
    alive: Vec<LinkId>,
}

impl Climber {
    fn new(bootstrap: &[&str], tune: impl FnOnce(&mut Config), stored: Vec<StoredPeer>) -> Self {
        let mut config = Config::default();
        config.discovery.bootstrap = bootstrap.iter().map(|text| text.parse().unwrap()).collect();
        config.discovery.min_healthy_peers = 1;
        tune(&mut config);
        let rungs = vec![GrpcStream, WebSocket, GrpcStream, Rest];
        let restored = Restored { peers: stored, rungs, ..Restored::default() };
        let mut node = SingleNode::restored(ME, &config, Vec::new(), restored);
        node.wake(Duration::ZERO);
        Self { node, now: Duration::ZERO, next_link: 100, next_call: 0, alive: Vec::new() }
    }

    /// A node that has enough links, so that it dials nobody but whom the host names.
    fn content() -> Self {
        let tune = |c: &mut Config| (c.overlay.dial_target, c.overlay.min_links) = (1, 1);
        let mut climber = Self::new(&[], tune, Vec::new());
        climber.node.link_up(Duration::ZERO, LinkId(9), true, 9);
        climber.greets(LinkId(9), 9);
        climber.take_dials();
        climber
    }

    /// A peer dials us.
    fn is_dialled_by(&mut self, n: u8) {
        let link = LinkId(u64::from(n));
        self.node.link_up(self.now, link, false, n);
        self.greets(link, n);
    }

    /// Lets time pass up to `at`, and returns what was dialled meanwhile and when.
    fn pass(&mut self, at: Duration) -> Vec<(Duration, Begun)> {
        let mut begun = Vec::new();
        loop {
            let now = self.now;
            begun.extend(self.take_dials().into_iter().map(|dial| (now, dial)));
            let next = self.node.protocol.poll_timeout().expect("a timer").as_duration();
            if next > at {
                self.now = at;
                return begun;
            }
            self.wake_at(next);
        }
    }

    /// Fires what is due, and lets peers answer.
    fn wake_at(&mut self, at: Duration) {
        self.now = self.now.max(at);
        self.node.wake(self.now);
        for link in self.alive.clone() {
            for message in self.node.said_to(link) {
                if let Message::Ping { nonce } = message {
                    self.says(link, Message::Pong { nonce });
                }
            }
        }
    }

    /// Fires what is due next.
    fn wake_next(&mut self) {
        let next = self.node.protocol.poll_timeout().expect("a timer").as_duration();
        self.wake_at(next);
    }

    fn take_dials(&mut self) -> Vec<Begun> {
        self.take(|output| match output {
            Output::Dial { dial, endpoint, rung, .. } => {
                Some(Begun { dial: *dial, rung: *rung, place: endpoint.to_string() })
            }
            _ => None,
        })
    }

    /// The one dial that was begun just now.
    #[track_caller]
    fn dial(&mut self) -> Begun {
        let mut begun = self.take_dials();
        assert_eq!(begun.len(), 1, "{begun:?}");
        begun.remove(0)
    }

    /// The next dial, whenever it is.
    fn next_dial(&mut self) -> Begun {
        while !self.node.outside.iter().any(|output| matches!(output, Output::Dial { .. })) {
            self.wake_next();
        }
        self.dial()
    }

    fn given_up(&mut self) -> Vec<DialId> {
        self.take(|output| match output {
            Output::CancelDial { dial } => Some(*dial),
            _ => None,
        })
    }

    fn answers(&mut self) -> Vec<Result<PeerId, ConnectFailure>> {
        self.take(|output| match output {
            Output::Connected { result, .. } => Some(*result),
            _ => None,
        })
    }

    fn take<T>(&mut self, pick: impl Fn(&Output) -> Option<T>) -> Vec<T> {
        let taken = self.node.outside.iter().filter_map(&pick).collect();
        self.node.outside.retain(|output| pick(output).is_none());
        taken
    }

    fn leads_to(&mut self, dial: &Begun, n: u8) -> LinkId {
        self.next_link += 1;
        let (link, remote, kind) = (LinkId(self.next_link), peer(n), dial.rung);
        let address = dial.place.parse::<Endpoint>().unwrap().socket_addr();
        let (dial, assurance) = (Some(dial.dial), Assurance::default());
        let opened = Input::LinkOpened { link, remote, kind, address, dial, assurance };
        self.node.feed(self.now, opened);
        link
    }

    fn says(&mut self, link: LinkId, message: Message) {
        self.node.hear(self.now, link, vec![message]);
    }

    fn greets(&mut self, link: LinkId, n: u8) {
        self.alive.push(link);
        self.says(link, Message::Hello(Box::new(greeting(n))));
    }

    fn fails(&mut self, dial: &Begun, reason: FailureKind) {
        let (dial, detail) = (dial.dial, reason.to_string());
        self.node.feed(self.now, Input::DialFailed { dial, reason, detail });
    }

    fn connect(&mut self, place: &str) {
        self.next_call += 1;
        let (call, endpoint) = (CallId(self.next_call), place.parse().unwrap());
        self.node.feed(self.now, Input::Connect { call, endpoint });
    }

    /// The host dials, and every rung fails; returns the answer and the number of dials.
    fn connect_in_vain(&mut self, reason: FailureKind) -> (ConnectFailure, usize) {
        self.connect(THERE);
        let mut dials = 0;
        while let Some(dial) = self.take_dials().pop() {
            self.fails(&dial, reason);
            dials += 1;
        }
        (self.answers().pop().expect("an answer").expect_err("nobody there"), dials)
    }

    /// Names of the events about breakers.
    fn breaker_events(&mut self) -> Vec<&'static str> {
        let name = |event: Event| match event {
            Event::BreakerOpened { .. } => Some("opened"),
            Event::BreakerHalfOpen { .. } => Some("half-open"),
            Event::BreakerClosed { .. } => Some("closed"),
            _ => None,
        };
        self.node.events.drain(..).filter_map(name).collect()
    }

    fn count(&self, name: &str) -> u64 {
        let counters = self.node.protocol.counters();
        counters.iter().find(|(n, _)| *n == name).expect("a counter").1
    }
}

fn ids(begun: &[(Duration, Begun)]) -> Vec<(Duration, TransportKind)> {
    begun.iter().map(|(at, dial)| (*at, dial.rung)).collect()
}

#[test]
fn rungs_start_half_a_second_apart_and_the_first_accepted_hello_wins() {
    let mut c = Climber::new(&[THERE], |_| {}, Vec::new());
    let begun = c.pass(secs(3));
    let starts = [(millis(0), GrpcStream), (millis(500), WebSocket), (millis(1000), Rest)];
    assert_eq!(ids(&begun), starts, "a kind that is there twice is one rung");
    let link = c.leads_to(&begun[1].1, PEER);
    assert_eq!(c.given_up(), [], "whoever opened a connection has not won yet");
    c.greets(link, PEER);
    assert_eq!(c.given_up(), [begun[0].1.dial, begun[2].1.dial]);
    assert_eq!((c.count("dials_cancelled"), c.count("dials_failed")), (2, 0));
    assert_eq!((c.count("walks_fallback"), c.count("walks_failed")), (1, 0));
    // What comes of them later is nothing to it.
    c.fails(&begun[0].1, FailureKind::Timeout);
    assert_eq!((c.count("dials_failed"), c.count("walks_failed")), (0, 0));
    // What worked comes first the next time.
    c.node.feed(c.now, Input::LinkClosed { link });
    let again = c.pass(c.now + secs(5));
    assert_eq!(again[0].1.rung, WebSocket);
    assert_eq!((again[1].1.rung, again[1].0.abs_diff(again[0].0)), (GrpcStream, millis(500)));
}

#[test]
fn a_rung_that_fails_is_followed_at_once_and_nothing_there_by_none() {
    let mut c = Climber::new(&[THERE], |_| {}, Vec::new());
    for rung in [GrpcStream, WebSocket, Rest] {
        let dial = c.dial();
        assert_eq!(dial.rung, rung);
        c.fails(&dial, FailureKind::Protocol);
    }
    assert_eq!(c.take_dials(), []);
    assert_eq!((c.count("dials_failed"), c.count("walks_failed")), (3, 1));
    let next = c.next_dial();
    assert_eq!(next.rung, GrpcStream, "the next walk begins above");
    c.fails(&next, FailureKind::Unreachable);
    assert_eq!(c.take_dials(), [], "the other rungs lead to the same port");
    assert_eq!(c.count("walks_failed"), 2);
}

#[test]
fn a_peer_that_accepts_and_says_nothing_is_left_for_the_next_rung() {
    let mut c = Climber::new(&[THERE], |_| {}, Vec::new());
    let first = c.dial();
    let silent = c.leads_to(&first, PEER);
    let begun = c.pass(secs(2));
    assert_eq!(ids(&begun)[0], (secs(1), WebSocket), "it has a second for its hello");
    assert_eq!(c.node.closed, [silent]);
    let link = c.leads_to(&begun[0].1, PEER);
    c.greets(link, PEER);
    assert_eq!(c.node.protocol.links().len(), 1);
    // Where nothing else is left, a hello has all its time.
    c.node.feed(c.now, Input::LinkClosed { link });
    let again = c.pass(c.now + secs(3));
    let slow = again.iter().find(|(_, dial)| dial.rung == Rest).expect("the last rung");
    for (_, dial) in again.iter().filter(|(_, dial)| dial.rung != Rest) {
        c.fails(dial, FailureKind::Timeout);
    }
    let link = c.leads_to(&slow.1, PEER);
    c.pass(c.now + secs(9));
    c.greets(link, PEER);
    assert_eq!(c.node.protocol.links().len(), 1);
}

#[test]
fn a_second_link_to_the_same_peer_gives_way_and_is_not_forgotten() {
    let mut c = Climber::new(&[THERE], |_| {}, Vec::new());
    let begun = c.pass(millis(600));
    assert_eq!(ids(&begun).last(), Some(&(millis(500), WebSocket)));
    let first = c.leads_to(&begun[0].1, PEER);
    let second = c.leads_to(&begun[1].1, PEER);
    assert_eq!(c.node.closed, [second]);
    assert_eq!(c.pass(millis(900)), [], "one hello at a time");
    c.node.feed(c.now, Input::LinkClosed { link: first });
    let again = c.dial();
    assert_eq!(again.rung, WebSocket);
    let link = c.leads_to(&again, PEER);
    c.greets(link, PEER);
    assert_eq!(c.count("links_opened"), 1);
}

#[test]
fn what_a_peer_says_holds_for_all_rungs_and_a_wrong_key_outside_for_one() {
    let mut c = Climber::new(&[THERE], |_| {}, Vec::new());
    let dial = c.dial();
    let link = c.leads_to(&dial, PEER);
    let foreign = Hello { network: "another".to_owned(), ..greeting(PEER) };
    c.says(link, Message::Hello(Box::new(foreign)));
    assert_eq!(c.take_dials(), []);
    assert_eq!(c.count("walks_failed"), 1);
    let first = c.next_dial();
    c.fails(&first, FailureKind::Identity);
    let second = c.dial();
    assert_eq!(second.rung, WebSocket, "something on the way may have put its own key in");
    c.fails(&second, FailureKind::Identity);
    assert_eq!(c.take_dials(), [], "inside the pipe nothing can");
    assert_eq!(c.count("walks_failed"), 2);
}

#[test]
fn a_walk_that_failed_for_the_moment_begins_anew_before_that_counts() {
    let mut c = Climber::new(&[THERE], |_| {}, Vec::new());
    let fail_all = |c: &mut Climber| {
        while let Some(dial) = c.take_dials().pop() {
            c.fails(&dial, FailureKind::Closed);
        }
    };
    for retry in 1..=3 {
        fail_all(&mut c);
        assert_eq!((c.count("walks_retried"), c.count("walks_failed")), (retry, 0));
        let end = c.now + secs(5);
        let first = c.next_dial();
        assert!(c.now <= end);
        c.fails(&first, FailureKind::Closed);
    }
    fail_all(&mut c);
    assert_eq!((c.count("walks_retried"), c.count("walks_failed")), (3, 1));
    // Other failures are for the back-off to deal with, and the host has its answer at once.
    assert_eq!(c.connect_in_vain(FailureKind::Timeout), (dead(), 3));
    let closed = ConnectFailure::Dial(FailureKind::Closed);
    assert_eq!(c.connect_in_vain(FailureKind::Closed), (closed, 3));
}

fn dead() -> ConnectFailure {
    ConnectFailure::Dial(FailureKind::Timeout)
}

#[test]
fn a_thousand_dials_to_a_dead_peer_cost_at_most_the_probes_of_its_breaker() {
    let mut c = Climber::content();
    let mut dials = 0;
    let mut refused = 0;
    for n in 0..1000 {
        match c.connect_in_vain(FailureKind::Timeout) {
            (ConnectFailure::BreakerOpen { left }, 0) => {
                assert!(left <= secs(300), "{left:?}");
                refused += 1;
            }
            (why, made) => {
                assert_eq!(why, dead());
                dials += made;
                // Five in a row, and then one every five minutes.
                assert!(n < 5 || n % 300 < 6, "{n}");
            }
        }
        assert_eq!(c.pass(c.now + secs(1)), []);
    }
    // A thousand seconds are three times five minutes.
    assert_eq!((dials, refused), ((5 + 3) * 3, 1000 - 8));
    assert_eq!(c.count("connects_refused_breaker"), refused);
    assert_eq!((c.count("breakers_opened"), c.count("breaker_probes")), (4, 3));
    let probes = ["half-open", "opened"].repeat(3);
    assert_eq!(c.breaker_events(), [&["opened"][..], &probes].concat());
    assert_eq!(c.node.protocol.stats().open_breakers, 1);
}

#[test]
fn a_thousand_calls_at_once_are_one_walk_and_a_probe_is_one() {
    let mut c = Climber::content();
    for _ in 0..1000 {
        c.connect(THERE);
    }
    while let Some(dial) = c.take_dials().pop() {
        c.fails(&dial, FailureKind::Timeout);
    }
    assert_eq!(c.answers(), vec![Err(dead()); 1000]);
    assert_eq!((c.count("walks_started"), c.count("dials_started")), (1, 3));
    for _ in 0..4 {
        assert_eq!(c.connect_in_vain(FailureKind::Timeout), (dead(), 3));
    }
    c.pass(secs(301));
    c.connect(THERE);
    let probe = c.dial();
    c.connect(THERE);
    assert_eq!(c.take_dials(), [], "it waits for the probe");
    let link = c.leads_to(&probe, PEER);
    c.greets(link, PEER);
    assert_eq!(c.answers(), [Ok(peer(PEER)), Ok(peer(PEER))]);
    assert_eq!(c.breaker_events(), ["opened", "half-open", "closed"]);
}

#[test]
fn a_breaker_closes_when_the_peer_dials_us_and_when_the_host_says_so() {
    let stored = |n: u8| {
        let mut stored = StoredPeer::new(peer(n));
        stored.verified = Some(THERE.parse().unwrap());
        stored
    };
    let opened = || {
        let tune = |c: &mut Config| (c.overlay.dial_target, c.overlay.min_links) = (1, 1);
        let mut c = Climber::new(&[], tune, vec![stored(PEER)]);
        while c.node.protocol.stats().open_breakers == 0 {
            if let Some(dial) = c.take_dials().pop() {
                c.fails(&dial, FailureKind::Timeout);
            } else {
                c.wake_next();
            }
        }
        assert_eq!(c.count("walks_failed"), 5);
        c
    };
    let mut c = opened();
    c.is_dialled_by(PEER);
    assert_eq!(c.breaker_events(), ["opened", "closed"]);
    let mut c = opened();
    c.node.feed(c.now, Input::ResetBreaker { peer: peer(PEER) });
    assert_eq!(c.breaker_events(), ["opened", "closed"]);
    assert_eq!(c.dial().rung, GrpcStream, "and it is dialled at once");
    // Who walks to a peer that dials in meanwhile gives up, and that is no failure.
    let before = c.count("walks_failed");
    c.is_dialled_by(PEER);
    assert_eq!((c.given_up().len(), c.count("walks_failed")), (1, before));
    assert_eq!(c.pass(c.now + secs(10)), []);
}

#[test]
fn a_node_without_links_probes_early_and_one_that_has_some_does_not() {
    let mut c = Climber::new(&[THERE], |_| {}, Vec::new());
    let mut starts = Vec::new();
    while c.now < secs(1000) {
        for (at, dial) in c.pass(c.now + millis(100)) {
            if dial.rung == GrpcStream {
                starts.push(at);
            }
            c.fails(&dial, FailureKind::Timeout);
        }
    }
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1].abs_diff(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap <= secs(70)), "as the back-off says: {gaps:?}");
    assert!(starts.len() > 15, "{starts:?}");
    let (probes, opened) = (c.count("breaker_probes"), c.count("breakers_opened"));
    assert_eq!((probes + 1, probes + 5), (opened, starts.len() as u64), "each of them alone");
}

#[test]
fn a_rung_that_worked_in_an_earlier_run_is_tried_first() {
    let mut stored = StoredPeer::new(peer(PEER));
    (stored.verified, stored.rung) = (Some(THERE.parse().unwrap()), Some(Rest));
    stored.last_up = Some(WallTime::from_millis(1));
    let mut c = Climber::new(&[], |_| {}, vec![stored]);
    let begun = c.pass(secs(2));
    assert_eq!(
        begun.iter().map(|(_, d)| d.rung).collect::<Vec<_>>(),
        [Rest, GrpcStream, WebSocket]
    );
    let saved = |c: &mut Climber| {
        c.take(|output| match output {
            Output::SavePeer(saved) => Some((saved.verified.clone(), saved.rung)),
            _ => None,
        })
    };
    let link = c.leads_to(&begun[2].1, PEER);
    c.greets(link, PEER);
    let there = THERE.parse().ok();
    assert!(saved(&mut c).contains(&(there, Some(WebSocket))));
}

#[test]
fn all_addresses_of_a_peer_are_one_queue_by_the_best_rung_first() {
    let identity = Identity::from_seed([PEER; 32]);
    let endpoints = vec!["10.0.0.3:1".parse().unwrap(), "10.0.0.4:1".parse().unwrap()];
    let issued = WallTime::from_millis(super::single_node::START);
    let draft = crate::types::RecordDraft { peer: peer(PEER), seq: 1, issued, endpoints };
    let mut stored = StoredPeer::new(peer(PEER));
    stored.record = Some(identity.sign_record(draft));
    stored.verified = Some(THERE.parse().unwrap());
    let mut c = Climber::new(&[], |_| {}, vec![stored]);
    let mut begun = c.pass(secs(9));
    assert!(begun.windows(2).all(|pair| pair[1].0.abs_diff(pair[0].0) == millis(500)));
    assert_eq!(begun.len(), 6, "no more are under way at once");
    for ended in 0..3 {
        c.fails(&begun[ended].1, FailureKind::Closed);
        begun.push((c.now, c.dial()));
    }
    let ways: Vec<_> = begun.iter().map(|(_, d)| (d.rung, d.place.as_str())).collect();
    let places = [THERE, "10.0.0.3:1", "10.0.0.4:1"];
    let expected: Vec<_> =
        [GrpcStream, WebSocket, Rest].iter().flat_map(|r| places.map(|p| (*r, p))).collect();
    assert_eq!(ways, expected);
}

#[test]
fn a_refusal_by_a_peer_that_answers_opens_no_breaker() {
    let mut c = Climber::content();
    for _ in 0..20 {
        c.connect(THERE);
        let dial = c.dial();
        let link = c.leads_to(&dial, PEER);
        let (reason, retry_after) = (CloseReason::TooManyLinks, secs(9));
        c.says(link, Message::Goodbye { reason, retry_after });
        assert_eq!(c.answers(), [Err(ConnectFailure::Refused(CloseReason::TooManyLinks))]);
    }
    assert_eq!(c.count("breakers_opened"), 0);
}

#[test]
fn endpoints_of_both_families_take_turns_and_neither_is_left_out() {
    // More of IPv6 than a walk has entries for: a node without IPv6 would never get to the rest.
    let v6 = (1..=6).map(|n| format!("[2a00:{n}::1]:1"));
    let listed = v6.chain(["5.6.7.8:1".to_owned(), "9.8.7.6:1".to_owned()]);
    let endpoints = listed.map(|text| text.parse().unwrap()).collect();
    let identity = Identity::from_seed([PEER; 32]);
    let issued = WallTime::from_millis(super::single_node::START);
    let draft = crate::types::RecordDraft { peer: peer(PEER), seq: 1, issued, endpoints };
    let mut stored = StoredPeer::new(peer(PEER));
    stored.record = Some(identity.sign_record(draft));
    let mut c = Climber::new(&[], |_| {}, vec![stored]);
    let begun = c.pass(secs(9));
    let places: Vec<_> = begun.iter().map(|(_, dial)| dial.place.as_str()).collect();
    assert_eq!(
        places[..5],
        ["[2a00:1::1]:1", "5.6.7.8:1", "[2a00:2::1]:1", "9.8.7.6:1", "[2a00:3::1]:1"]
    );
}
