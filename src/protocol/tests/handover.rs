//! Two cores that one or more connections join: links go over from one to another, and everything that
//! is said arrives once and in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::config::Config;
use crate::protocol::link::{Attempt, Why};
use crate::protocol::{Assurance, CallId, DialId, Input, Output, Restored};
use crate::types::{
    CloseReason, Endpoint, Event, FailureKind, Hello, LinkId, Message, MonoTime, PeerId,
    TransactionId, TransportKind,
};

use super::liars::signed;
use super::single_node::{SingleNode, greeting};
use super::{millis, secs};

const FIRST: TransportKind = TransportKind::GrpcStream;
const SECOND: TransportKind = TransportKind::WebSocket;

/// A connection between the two.
#[derive(Default)]
struct Wire {
    /// What is under way to each side, with the time of its arrival; `None` is the end.
    under_way: [VecDeque<(Duration, Option<Message>)>; 2],
    open: [bool; 2],
    delay: Duration,
}

/// Node 0 dials node 1.
struct Duo {
    nodes: [SingleNode; 2],
    now: Duration,
    wires: BTreeMap<LinkId, Wire>,
    next: u64,
    /// Transports that dials get through with.
    works: BTreeSet<TransportKind>,
    dials: VecDeque<(Duration, usize, DialId, TransportKind)>,
    delay: Duration,
    /// What each side said, and was told, apart from what belongs to connections.
    said: [Vec<Message>; 2],
    heard: [Vec<Message>; 2],
    published: u8,
}

fn config() -> Config {
    let mut config = Config::lan();
    config.connection.upgrade_interval = secs(10);
    config.overlay.redial_min = millis(10);
    // What is lost stays lost.
    config.gossip.retention = secs(7200);
    config.gossip.reconcile_hot_window = secs(3600);
    (config.gossip.reconcile_interval, config.gossip.reconcile_full_interval) =
        (secs(3600), secs(3600));
    config
}

fn peer(side: usize) -> PeerId {
    crate::identity::Identity::from_seed([u8::try_from(side).unwrap() + 1; 32]).peer_id()
}

/// Belongs to a connection, and not to the link.
fn is_framing(message: &Message) -> bool {
    matches!(message, Message::Hello(_) | Message::Goodbye { .. } | Message::Switch { .. })
}

impl Duo {
    fn new(config: &Config, works: &[TransportKind]) -> Self {
        let node = |n| {
            let restored = Restored { rungs: vec![FIRST, SECOND], ..Restored::default() };
            SingleNode::restored(n, config, Vec::new(), restored)
        };
        let mut duo = Self {
            nodes: [node(1), node(2)],
            now: Duration::ZERO,
            wires: BTreeMap::new(),
            next: 0,
            works: works.iter().copied().collect(),
            dials: VecDeque::new(),
            delay: millis(5),
            said: [Vec::new(), Vec::new()],
            heard: [Vec::new(), Vec::new()],
            published: 0,
        };
        let endpoint: Endpoint = "192.0.2.1:5001".parse().unwrap();
        duo.feed(0, Input::Connect { call: CallId(1), endpoint });
        duo.run(secs(1));
        assert_eq!(duo.up(), [1, 1]);
        duo
    }

    fn feed(&mut self, side: usize, input: Input) {
        self.nodes[side].feed(self.now, input);
        self.collect(side);
    }

    /// Takes what a node has asked for.
    fn collect(&mut self, side: usize) {
        let node = &mut self.nodes[side];
        let sent: Vec<_> = node.sent.drain(..).collect();
        let closed: Vec<_> = node.closed.drain(..).collect();
        let outside: Vec<_> = node.outside.drain(..).collect();
        for (link, message) in sent {
            if !is_framing(&message) {
                self.said[side].push(message.clone());
            }
            let Some(wire) = self.wires.get_mut(&link).filter(|wire| wire.open[side]) else {
                continue;
            };
            let at = self.now + wire.delay;
            wire.under_way[1 - side].push_back((at, Some(message)));
        }
        for link in closed {
            let Some(wire) = self.wires.get_mut(&link) else { continue };
            wire.open[side] = false;
            let at = self.now + wire.delay;
            wire.under_way[1 - side].push_back((at, None));
        }
        for output in outside {
            if let Output::Dial { dial, rung, .. } = output {
                self.dials.push_back((self.now + 2 * self.delay, side, dial, rung));
            }
        }
    }

    fn open(&mut self, side: usize, dial: DialId, kind: TransportKind) {
        self.next += 1;
        let link = LinkId(self.next);
        let wire = Wire { delay: self.delay, open: [true; 2], ..Wire::default() };
        self.wires.insert(link, wire);
        for node in &mut self.nodes {
            node.mute.insert(link);
        }
        for at in [side, 1 - side] {
            let dial = (at == side).then_some(dial);
            let (remote, assurance) = (peer(1 - at), Assurance::default());
            self.feed(at, Input::LinkOpened { link, remote, kind, address: None, dial, assurance });
        }
    }

    /// Does what is due, until the given time has passed.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let arrivals = self.wires.values().flat_map(|w| &w.under_way);
            let arrivals = arrivals.filter_map(|way| way.front()).map(|(at, _)| *at);
            let timers = self.nodes.iter().filter_map(|n| n.protocol.poll_timeout());
            let due = arrivals
                .chain(timers.map(MonoTime::as_duration))
                .chain(self.dials.iter().map(|(at, ..)| *at))
                .min();
            let Some(due) = due.filter(|at| *at <= end) else { break };
            self.now = self.now.max(due);
            self.turn();
        }
        self.now = end;
    }

    fn turn(&mut self) {
        while let Some((at, side, dial, rung)) = self.dials.front().copied()
            && at <= self.now
        {
            self.dials.pop_front();
            // A core with one transport to dial with gets there in any case.
            let kind = if self.works.contains(&rung) { Some(rung) } else { None };
            let first = self.wires.is_empty().then_some(SECOND);
            if let Some(kind) = kind.or(first) {
                self.open(side, dial, kind);
            } else {
                let (reason, detail) = (FailureKind::Unreachable, String::new());
                self.feed(side, Input::DialFailed { dial, reason, detail });
            }
        }
        for link in self.wires.keys().copied().collect::<Vec<_>>() {
            for side in [0, 1] {
                while let Some(wire) = self.wires.get_mut(&link)
                    && wire.under_way[side].front().is_some_and(|(at, _)| *at <= self.now)
                {
                    let Some((_, message)) = wire.under_way[side].pop_front() else { break };
                    if !wire.open[side] {
                        continue;
                    }
                    let Some(message) = message else {
                        wire.open[side] = false;
                        self.feed(side, Input::LinkClosed { link });
                        continue;
                    };
                    if !is_framing(&message) {
                        self.heard[side].push(message.clone());
                    }
                    let bytes = message.weight();
                    self.feed(side, Input::Received { link, messages: vec![message], bytes });
                }
            }
        }
        for side in [0, 1] {
            self.nodes[side].wake(self.now);
            self.collect(side);
        }
    }

    /// A connection is cut: what is under way is lost.
    fn cut(&mut self, link: LinkId) {
        let Some(wire) = self.wires.get_mut(&link) else { return };
        let open = std::mem::take(&mut wire.open);
        wire.under_way = [VecDeque::new(), VecDeque::new()];
        for side in [0, 1] {
            if open[side] {
                self.feed(side, Input::LinkClosed { link });
            }
        }
    }

    /// Both publish for a while, every few milliseconds.
    fn talk(&mut self, span: Duration) -> Vec<TransactionId> {
        let end = self.now + span;
        let mut ids = Vec::new();
        while self.now < end {
            for side in [0, 1] {
                self.published = self.published.wrapping_add(1);
                let (n, bytes) = (u8::try_from(side).unwrap() + 1, 400 + ids.len());
                let transaction = signed(n, bytes, self.published);
                ids.push(transaction.id());
                let (call, transactions) = (CallId(9), vec![transaction]);
                self.feed(side, Input::Publish { call, transactions, renews: None });
            }
            self.run(millis(7));
        }
        ids
    }

    fn up(&self) -> [usize; 2] {
        [0, 1].map(|side| self.nodes[side].protocol.links().len())
    }

    fn kinds(&self) -> Vec<TransportKind> {
        self.nodes.iter().flat_map(|n| n.protocol.links()).map(|view| view.kind).collect()
    }

    fn open_wires(&self) -> Vec<LinkId> {
        let open = self.wires.iter().filter(|(_, wire)| wire.open == [true; 2]);
        open.map(|(link, _)| *link).collect()
    }

    fn changes(&self, side: usize) -> Vec<(TransportKind, TransportKind, &str)> {
        let events = self.nodes[side].events.iter();
        let changes = events.filter_map(|event| match event {
            Event::TransportChanged { from, to, reason, .. } => Some((*from, *to, reason.as_str())),
            _ => None,
        });
        changes.collect()
    }

    /// What one said, the other was told: all of it, once, in order.
    fn assert_in_order(&self) {
        for side in [0, 1] {
            let (said, heard) = (&self.said[side], &self.heard[1 - side]);
            let differs = said.iter().zip(heard).position(|(said, heard)| said != heard);
            assert_eq!(differs, None, "what {side} said");
            assert_eq!(said.len(), heard.len(), "what {side} said");
        }
    }

    fn assert_has_all(&self, ids: &[TransactionId]) {
        for node in &self.nodes {
            let lacks = ids.iter().filter(|id| !node.protocol.contains(id)).count();
            assert_eq!(lacks, 0, "of {}", ids.len());
        }
    }

    fn count(&self, side: usize, is: fn(&Event) -> bool) -> usize {
        self.nodes[side].events.iter().filter(|event| is(event)).count()
    }
}

fn is_up_or_down(event: &Event) -> bool {
    matches!(event, Event::PeerUp { .. } | Event::PeerDown { .. })
}

#[test]
fn a_link_goes_over_to_the_better_transport_once_that_works() {
    let mut duo = Duo::new(&config(), &[SECOND]);
    let ids = duo.talk(secs(2));
    duo.run(secs(28));
    assert_eq!(duo.kinds(), [SECOND, SECOND], "the first does not work yet");
    duo.works.insert(FIRST);
    let more = duo.talk(secs(30));
    duo.run(secs(1));
    assert_eq!(duo.kinds(), [FIRST, FIRST]);
    assert_eq!(duo.changes(0), [(SECOND, FIRST, "upgrade")]);
    assert_eq!(duo.changes(1), [(SECOND, FIRST, "peer")]);
    for side in [0, 1] {
        assert_eq!(duo.count(side, is_up_or_down), 1, "the link has never been down");
        let counters = duo.nodes[side].protocol.counters();
        assert_eq!((counters.handovers, counters.refused_malformed), (1, 0));
        assert_eq!((counters.links_closed, counters.links_opened), (0, 1));
    }
    assert_eq!(duo.open_wires().len(), 1);
    duo.assert_in_order();
    duo.assert_has_all(&[ids, more].concat());
}

#[test]
fn a_link_is_rotated_before_it_is_too_old_and_loses_nothing() {
    let mut config = config();
    config.connection.max_link_age = Some(secs(60));
    let mut duo = Duo::new(&config, &[FIRST, SECOND]);
    duo.run(secs(30));
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.extend(duo.talk(secs(3)));
        duo.run(secs(27));
        let ages = duo.nodes[0]
            .protocol
            .links
            .all
            .values()
            .map(|l| duo.now.saturating_sub(l.connected.as_duration()));
        assert!(ages.max() <= Some(secs(61)), "{:?}", duo.changes(0));
    }
    let by_age = duo.changes(0).iter().filter(|(.., why)| *why == "max link age").count();
    assert!((4..9).contains(&by_age), "{:?}", duo.changes(0));
    assert_eq!(duo.count(0, is_up_or_down), 1);
    duo.assert_in_order();
    duo.assert_has_all(&ids);
}

#[test]
fn a_link_leaves_a_connection_that_is_about_to_be_closed() {
    let mut duo = Duo::new(&config(), &[FIRST]);
    let first = duo.open_wires()[0];
    let mut ids = duo.talk(secs(2));
    duo.feed(0, Input::Leaving { link: first });
    duo.feed(0, Input::Leaving { link: first });
    ids.extend(duo.talk(secs(1)));
    duo.run(secs(1));
    assert_eq!(duo.changes(0), [(FIRST, FIRST, "closing")]);
    assert_eq!(duo.changes(1), [(FIRST, FIRST, "peer")]);
    assert!(!duo.open_wires().contains(&first));
    assert_eq!((duo.count(0, is_up_or_down), duo.count(1, is_up_or_down)), (1, 1));
    assert_eq!(duo.nodes[0].protocol.counters().connections_leaving, 1);
    duo.assert_in_order();
    duo.assert_has_all(&ids);
    // The next one, and one that cannot be had: it is tried ever more rarely, and the link goes on.
    let second = duo.open_wires()[0];
    duo.works.clear();
    let before = duo.nodes[0].protocol.counters().dials_started;
    duo.feed(0, Input::Leaving { link: second });
    duo.run(secs(120));
    let dials = duo.nodes[0].protocol.counters().dials_started - before;
    assert!((5..20).contains(&dials), "{dials}");
    assert_eq!(duo.open_wires(), [second]);
    duo.works.insert(FIRST);
    duo.run(secs(40));
    assert_eq!(duo.changes(0).len(), 2);
}

#[test]
fn a_connection_for_one_request_is_not_about_to_be_closed() {
    let mut node = SingleNode::new(1, &config(), Vec::new());
    let link = LinkId(50);
    node.link_up(secs(1), link, false, 3);
    node.feed(secs(1), Input::Leaving { link });
    node.hear(secs(1), link, vec![Message::Hello(Box::new(greeting(3)))]);
    assert_eq!(node.protocol.links().len(), 1);
    assert_eq!(node.protocol.counters().connections_leaving, 0);
    node.feed(secs(2), Input::Leaving { link });
    node.feed(secs(2), Input::Leaving { link });
    assert_eq!(node.protocol.counters().connections_leaving, 1);
}

#[test]
fn the_end_of_a_connection_that_was_to_be_closed_is_no_failure() {
    for (says, is_back) in [(true, true), (false, false)] {
        let mut config = config();
        config.overlay.redial_min = secs(10);
        let mut duo = Duo::new(&config, &[FIRST]);
        duo.run(secs(30));
        let wire = duo.open_wires()[0];
        duo.works.clear();
        if says {
            duo.feed(0, Input::Leaving { link: wire });
            duo.run(millis(50));
        }
        duo.works.insert(FIRST);
        duo.cut(wire);
        duo.run(millis(100));
        assert_eq!(duo.up() == [1, 1], is_back);
    }
}

/// Goes over from one connection to another while both talk, and does something `after` the dial.
fn disturbed(after: Duration, disturb: impl FnOnce(&mut Duo)) -> Duo {
    let mut duo = Duo::new(&config(), &[SECOND]);
    duo.works.insert(FIRST);
    duo.delay = millis(4);
    let mut ids = duo.talk(millis(200));
    let link = duo.nodes[0].protocol.links()[0].link;
    let endpoint: Endpoint = "192.0.2.1:5001".parse().unwrap();
    duo.nodes[0].protocol.dial_heir(Attempt { link, endpoint, rung: FIRST, why: Why::Age });
    duo.feed(0, Input::Timeout);
    let end = duo.now + after;
    while duo.now < end {
        ids.extend(duo.talk(millis(1)));
    }
    disturb(&mut duo);
    ids.extend(duo.talk(millis(200)));
    duo.run(secs(60));
    assert_eq!(duo.up(), [1, 1], "{after:?}");
    assert_eq!(duo.open_wires().len(), 1, "{after:?}");
    duo.assert_has_all(&ids);
    for node in &duo.nodes {
        assert_eq!(node.protocol.counters().refused_malformed, 0, "{after:?}");
        assert_eq!(node.protocol.links.wires.len().max(1), 1);
        assert!(node.protocol.links.attempts.is_empty());
        let links = &node.protocol.links.all;
        assert!(links.values().all(|l| l.takes_over.is_none() && !l.succession.is_held()));
    }
    duo
}

#[test]
fn whenever_the_old_connection_breaks_both_go_on() {
    let mut afresh = 0;
    for after in 0..14 {
        let duo = disturbed(millis(7 * after), |duo| {
            let first = duo.open_wires().first().copied();
            if let Some(link) = first {
                duo.cut(link);
            }
        });
        afresh += duo.nodes[0].protocol.counters().handovers_failed;
    }
    assert!(afresh > 0, "some broke in between");
}

#[test]
fn whenever_the_new_connection_breaks_both_go_on() {
    let mut failed = 0;
    for after in 0..14 {
        let duo = disturbed(millis(7 * after), |duo| {
            if let [_, .., new] = duo.open_wires()[..] {
                duo.cut(new);
            }
        });
        failed += duo.nodes[0].protocol.counters().handovers_failed;
    }
    assert!(failed > 0, "some broke in between");
}

#[test]
fn of_two_handovers_that_cross_one_goes_on() {
    let duo = disturbed(Duration::ZERO, |duo| {
        let link = duo.nodes[1].protocol.links()[0].link;
        let endpoint: Endpoint = "192.0.2.2:5001".parse().unwrap();
        duo.nodes[1].protocol.dial_heir(Attempt { link, endpoint, rung: FIRST, why: Why::Age });
        duo.feed(1, Input::Timeout);
    });
    let done = [0, 1].map(|side| duo.nodes[side].protocol.counters().handovers);
    assert_eq!(done, [1, 1]);
    assert_eq!((duo.count(0, is_up_or_down), duo.count(1, is_up_or_down)), (1, 1));
    duo.assert_in_order();
}

#[test]
fn an_old_connection_that_carries_nothing_any_more_is_given_up() {
    let duo = disturbed(millis(1), |duo| {
        let first = duo.open_wires()[0];
        // From now on nothing arrives there.
        if let Some(wire) = duo.wires.get_mut(&first) {
            wire.delay = secs(3600);
        }
    });
    assert_eq!(duo.nodes[0].protocol.counters().handovers_failed, 1);
    assert_eq!(duo.kinds(), [FIRST, FIRST], "it begins afresh");
}

fn takes_over(n: u8) -> Message {
    Message::Hello(Box::new(Hello { takes_over: true, ..greeting(n) }))
}

fn says_moved(node: &mut SingleNode, link: LinkId) -> Vec<&'static str> {
    node.said_to(link).iter().map(Message::kind).collect()
}

#[test]
fn what_takes_over_nothing_is_a_link_of_its_own() {
    let mut node = SingleNode::new(1, &config(), Vec::new());
    let link = LinkId(50);
    node.link_up(secs(1), link, false, 3);
    node.hear(secs(1), link, vec![takes_over(3)]);
    assert_eq!(node.protocol.links().len(), 1);
    let said = node.said_to(link);
    let agreed = said.iter().any(|m| matches!(m, Message::Hello(hello) if hello.takes_over));
    assert!(!agreed);
    // Of another process with that identity it takes over nothing either.
    let other = LinkId(51);
    node.link_up(secs(2), other, false, 3);
    let hello = Hello { takes_over: true, incarnation: 2, ..greeting(3) };
    node.hear(secs(2), other, vec![Message::Hello(Box::new(hello))]);
    assert_eq!(node.protocol.links().len(), 1);
    assert_eq!(node.protocol.counters().links_replaced, 1);
    assert!(node.closed.contains(&link));
}

#[test]
fn steps_that_are_not_due_end_a_link() {
    for step in [0, 1, 2, 3, 4, 9] {
        let mut node = SingleNode::new(1, &config(), Vec::new());
        let link = node.meet(secs(1), 3);
        node.hear(secs(2), link, vec![Message::Switch { step }]);
        assert!(node.closed.contains(&link), "{step}");
        assert_eq!(node.protocol.counters().refused_malformed, 1);
    }
    // On a connection that is to take over, before and after the peer has said its last.
    for (heard, step) in [(false, 1), (false, 2), (false, 3), (true, 1), (true, 2), (true, 9)] {
        let mut node = SingleNode::new(1, &config(), Vec::new());
        let (link, heir) = (node.meet(secs(1), 3), LinkId(50));
        node.link_up(secs(2), heir, false, 3);
        node.hear(secs(2), heir, vec![takes_over(3)]);
        if heard {
            node.hear(secs(2), link, vec![Message::Switch { step: 1 }]);
        }
        node.hear(secs(2), heir, vec![Message::Switch { step }]);
        assert!(node.closed.contains(&heir), "{step}");
        assert_eq!(node.closed.contains(&link), heard, "what has said its last cannot go on");
        assert_eq!(node.protocol.counters().refused_malformed, 1);
    }
}

#[test]
fn a_peer_that_takes_over_and_falls_silent_keeps_its_link_only() {
    let mut node = SingleNode::new(1, &config(), Vec::new());
    let (link, heir) = (node.meet(secs(1), 3), LinkId(50));
    node.link_up(secs(2), heir, false, 3);
    node.hear(secs(2), heir, vec![takes_over(3)]);
    assert_eq!(node.protocol.links().len(), 1);
    node.said_to(link);
    // A second one, and a third: refused, and counted.
    for other in [51, 52] {
        let other = LinkId(other);
        node.link_up(secs(3), other, false, 3);
        node.hear(secs(3), other, vec![takes_over(3)]);
        assert!(node.closed.contains(&other));
    }
    assert_eq!(node.protocol.counters().handovers_refused, 2);
    for second in 3..30 {
        node.wake(secs(second));
    }
    assert!(node.closed.contains(&heir), "it has had its time");
    assert!(!node.closed.contains(&link));
    assert_eq!(node.protocol.links().len(), 1);
    // Step 1 comes after all: where nobody is to go to, the link cannot go on.
    node.hear(secs(31), link, vec![Message::Switch { step: 1 }]);
    assert!(node.closed.contains(&link));
    assert_eq!(node.protocol.counters().refused_malformed, 0, "and it is nobody's fault");
}

#[test]
fn what_a_silent_peer_is_told_waits_and_is_bounded() {
    let mut node = SingleNode::new(1, &config(), Vec::new());
    let (link, heir) = (node.meet(secs(1), 3), LinkId(50));
    node.link_up(secs(2), heir, false, 3);
    node.hear(secs(2), heir, vec![takes_over(3)]);
    node.hear(secs(2), link, vec![Message::Switch { step: 1 }]);
    assert_eq!(says_moved(&mut node, link).last(), Some(&"switch"));
    for nonce in 0..4000 {
        node.hear(secs(3), link, vec![Message::Ping { nonce }]);
    }
    assert_eq!(says_moved(&mut node, link).len(), 0, "it waits");
    assert!(node.closed.is_empty());
    for nonce in 0..200 {
        node.hear(secs(3), link, vec![Message::Ping { nonce }]);
    }
    assert!(node.closed.contains(&link) && node.closed.contains(&heir), "so much it may be");
    let last = node.sent.iter().rfind(|(to, _)| *to == link).map(|(_, message)| message);
    assert!(matches!(last, Some(Message::Goodbye { reason: CloseReason::SlowPeer, .. })));
}

#[test]
fn no_side_of_an_idle_link_is_silent_for_long() {
    let mut config = config();
    (config.liveness.interval, config.liveness.slow_after) = (secs(3600), secs(3600));
    let mut duo = Duo::new(&config, &[FIRST]);
    duo.run(secs(10));
    let before = [0, 1].map(|side| duo.said[side].len());
    let minutes = 10;
    for _ in 0..minutes * 3 {
        let spoken = [0, 1].map(|side| duo.said[side].len());
        duo.run(secs(20) + duo.delay);
        for side in [0, 1] {
            assert!(duo.said[side].len() > spoken[side], "a proxy would have taken it for dead");
        }
    }
    for side in [0, 1] {
        let said = duo.said[side].len() - before[side];
        assert!(said <= minutes * 9 + 9, "{said}: not more than is needed");
    }
}
