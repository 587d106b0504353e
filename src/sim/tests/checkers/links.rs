//! What holds of links: their order, their room, who is dialled, and what is said when one follows another.

use super::*;
use crate::protocol::{DialId, LinkView};
use crate::types::{Direction, FailureKind};

#[test]
fn control_first() {
    let (full, small) = (piece(PIECE_BYTES), piece(1));
    let Output::Send { message, .. } = &full else { unreachable!() };
    let sent = Input::Sent { link: LINK, weight: message.weight(), bytes: 1 };
    let opened = opened(LINK, PEER);
    assert!(bites(ControlFirst::default(), &[given(&opened), done(&full), done(&small)]));
    let spaced = [given(&opened), done(&full), given(&sent), done(&full)];
    assert!(!bites(ControlFirst::default(), &spaced));
    // It has left, and is under way for long.
    let ping = Output::Send { link: LINK, message: Message::Ping { nonce: 9 } };
    let got = |messages| Input::Received { link: LINK, messages, bytes: 1 };
    let pong = got(vec![Message::Pong { nonce: 9 }]);
    let later = |between: &[Seen<'_>]| {
        let first = [given(&opened), done(&full), given(&sent), done(&ping)];
        let last = [Seen::Time { now: secs(9) }, done(&full)];
        bites(ControlFirst::default(), &[&first, between, &last].concat())
    };
    assert!(later(&[]));
    assert!(!later(&[given(&pong)]), "the peer has it");
    let other_end = LinkId(LINK.0 - 1);
    let arrived = Input::Received { link: other_end, messages: vec![message.clone()], bytes: 1 };
    assert!(!later(&[Seen::Input { node: 1, input: &arrived }]), "it has arrived");
    // Bodies of requests count as pieces do.
    let data = Bytes::from(vec![0; PIECE_BYTES]);
    let part = Message::BodyPart { id: 1, of_answer: true, data };
    let part = Output::Send { link: LINK, message: part };
    assert!(bites(ControlFirst::default(), &[given(&opened), done(&full), done(&part)]));
    assert!(bites(ControlFirst::default(), &[given(&opened), done(&part), done(&small)]));
    let old = [given(&opened), done(&part), given(&sent), Seen::Time { now: secs(9) }, done(&full)];
    assert!(bites(ControlFirst::default(), &old));
}

#[test]
fn one_link_per_peer() {
    let link = |link, peer| LinkView {
        link: LinkId(link),
        peer: PeerId::from_bytes([peer; 32]),
        kind: TransportKind::Memory,
        address: None,
        direction: Direction::Inbound,
        suspect: false,
        rtt: None,
        jitter: Duration::ZERO,
        score: None,
        served_percent: None,
        first_percent: None,
        age: Duration::ZERO,
        queued_bytes: 0,
        under_way_bytes: 0,
        rate: None,
        inflow: None,
        lag: 0,
        in_debt: false,
        depth: 0,
        relay: true,
        clock_offset_ms: None,
    };
    let turn =
        |links: &[LinkView]| bites(OneLinkPerPeer, &[Seen::Turn { node: 0, links, gauges: &[] }]);
    assert!(turn(&[link(1, 7), link(2, 7)]));
    assert!(!turn(&[link(1, 7), link(2, 8)]));
}

#[test]
fn breakers_hold() {
    let (whose, address) = (Some(PEER), None::<String>);
    let opened = || {
        let (peer, address) = (whose, address.clone());
        Output::Emit(Event::BreakerOpened { peer, address, failures: 5, reset_s: 300 })
    };
    let half_open = Output::Emit(Event::BreakerHalfOpen { peer: whose, address: address.clone() });
    let closed = Output::Emit(Event::BreakerClosed { peer: whose, address: address.clone() });
    let dial = Output::Dial {
        dial: DialId(1),
        endpoint: "10.0.0.1:1".parse().unwrap(),
        rung: TransportKind::Memory,
        expected: whose,
        avoid: Vec::new(),
    };
    let (open, is_dialled) = (opened(), Input::LinkClosed { link: LINK });
    let late =
        Input::DialFailed { dial: DialId(1), reason: FailureKind::Timeout, detail: String::new() };
    let sign = Input::Received { link: LINK, messages: Vec::new(), bytes: 1 };
    let check = |seen: &[Seen<'_>]| bites(BreakersHold::default(), seen);
    let (probes, closes) = (done(&half_open), done(&closed));
    assert!(check(&[done(&open), done(&dial)]), "dialled while it is open");
    assert!(check(&[done(&open), probes, probes]), "two probes");
    assert!(check(&[probes]), "a probe of a closed one");
    assert!(check(&[done(&open), given(&late), closes]), "half-open was skipped");
    assert!(check(&[done(&open), done(&open)]), "it opened without a probe");
    assert!(check(&[closes]), "what is closed closes");
    let good = [done(&open), probes, done(&dial), done(&open), probes, done(&dial), closes];
    assert!(!check(&good));
    assert!(!check(&[done(&open), given(&sign), closes, done(&dial)]), "the peer dialled");
    let restarted = Seen::Started { node: 0, stored: &[], blank: false };
    assert!(!check(&[done(&open), restarted, done(&dial)]), "a breaker is of one run");
    assert!(!check(&[given(&is_dialled), done(&dial)]));
}

#[test]
fn a_replay_without_end_or_with_two_bites() {
    let hello = |owes| Message::Hello(Box::new(Hello { owes, ..hello(1) }));
    let opened = opened(LINK, PEER);
    let heard = Input::Received { link: LINK, messages: vec![hello(false)], bytes: 1 };
    let said = |message| Output::Send { link: LINK, message };
    let (owes, not, flushed) = (said(hello(true)), said(hello(false)), said(Message::Flushed));
    let nodes = [holds(0, 0, false, false)];
    let calm = Seen::Calm { nodes: &nodes };
    let check = |said: &Output, seen: &[Seen<'_>]| {
        let up = [given(&opened), done(said), given(&heard)];
        bites(ReplayEndsOnce::default(), &[&up, seen].concat())
    };
    assert!(check(&not, &[done(&flushed)]));
    assert!(check(&owes, &[done(&flushed), done(&flushed)]));
    assert!(check(&owes, &[calm]), "the peer waits");
    assert!(!check(&owes, &[done(&flushed), calm]));
    assert!(!check(&not, &[calm]));
    let closed = Output::Close { link: LINK };
    assert!(!check(&owes, &[done(&closed), calm]));
}

/// Ends of two connections between nodes 0 and 1: the old one, and the one that takes over.
const OLD: [LinkId; 2] = [LinkId(2), LinkId(3)];
const NEW: [LinkId; 2] = [LinkId(4), LinkId(5)];

fn says(link: LinkId, message: Message) -> Output {
    Output::Send { link, message }
}

fn hears(link: LinkId, message: Message) -> Input {
    Input::Received { link, messages: vec![message], bytes: 9 }
}

#[test]
fn in_order() {
    let ping = |nonce| Message::Ping { nonce };
    let step = |step| Message::Switch { step };
    // Node 0 says three things, the last two around a change of the connection.
    let said = [
        says(OLD[0], ping(1)),
        says(OLD[0], ping(2)),
        says(OLD[0], step(1)),
        says(NEW[0], step(3)),
        says(NEW[0], ping(3)),
    ];
    let heard = [
        hears(OLD[1], ping(1)),
        hears(OLD[1], ping(2)),
        hears(OLD[1], step(1)),
        hears(NEW[1], step(3)),
        hears(NEW[1], ping(3)),
    ];
    let opens = [OLD, NEW].map(|ends| ends.map(|link| opened(link, PEER)));
    let check = |order: &[usize]| {
        let ends = opens.iter().flat_map(|ends| [(0, &ends[0]), (1, &ends[1])]);
        let mut seen: Vec<_> = ends.map(|(node, input)| Seen::Input { node, input }).collect();
        seen.extend(said.iter().map(|output| Seen::Output { node: 0, output }));
        seen.extend(order.iter().map(|at| Seen::Input { node: 1, input: &heard[*at] }));
        bites(InOrder::default(), &seen)
    };
    assert!(!check(&[0, 1, 2, 3, 4]));
    assert!(check(&[1, 0, 2, 3, 4]), "out of order");
    assert!(check(&[0, 2, 3, 4]), "lost on the way");
    assert!(check(&[0, 1, 1, 2, 3, 4]), "twice");
    assert!(check(&[0, 1, 3, 4]), "the last on the old connection has not come");
    assert!(check(&[0, 1, 2, 4, 3]), "the new one begins too early");
}

#[test]
fn a_replay_is_followed_to_another_connection() {
    let hello = |takes_over| Message::Hello(Box::new(Hello { owes: true, takes_over, ..hello(3) }));
    let [old, new] = [OLD[0], NEW[0]].map(|link| opened(link, PEER));
    let up = [says(OLD[0], hello(false)), says(NEW[0], hello(true))];
    let theirs = [hears(OLD[0], hello(false)), hears(NEW[0], hello(true))];
    let (goes_on, afresh) = (Message::Switch { step: 3 }, Message::Switch { step: 4 });
    let (goes_on, afresh) = (says(NEW[0], goes_on), says(NEW[0], afresh));
    let left = Output::Close { link: OLD[0] };
    let flushed = says(NEW[0], Message::Flushed);
    let nodes = [holds(0, 0, false, false)];
    let calm = Seen::Calm { nodes: &nodes };
    let begin = [given(&old), done(&up[0]), given(&theirs[0])];
    let asked = [given(&new), done(&up[1]), given(&theirs[1])];
    let check = |rest: &[Seen<'_>]| {
        let seen: Vec<_> = begin.iter().chain(&asked).chain(rest).copied().collect();
        bites(ReplayEndsOnce::default(), &seen)
    };
    assert!(!check(&[done(&goes_on), done(&left), done(&flushed), calm]));
    assert!(check(&[done(&goes_on), done(&left), calm]), "it goes on there, without end");
    assert!(check(&[done(&left), done(&afresh), calm]), "a link of its own has its own");
    assert!(!check(&[done(&left), done(&afresh), done(&flushed), calm]));
}
