//! Dial-backs, as one core sees them: as the one that asks, as helper and as dialler.

use std::net::{IpAddr, SocketAddr};

use crate::config::Config;
use crate::protocol::{Assurance, CallId, DialId, Input, Output, Restored};
use crate::types::{
    CandidateDraft, CandidateSource, CloseReason, Counters, DialBackOutcome as Outcome, Event,
    FailureKind, Features, Hello, LinkId, Message, PeerId, Reachability, TransportKind,
};

use super::single_node::{SingleNode, greeting, record};
use super::*;

const ME: u8 = 1;

fn peer(n: u8) -> PeerId {
    record(n).peer()
}

/// The `n`-th peer's address: of public scope, and each in an address group of its own.
fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([50, n, 0, 1], 5001))
}

fn here() -> SocketAddr {
    at(99)
}

/// A core that listens on all addresses.
struct Core {
    node: SingleNode,
    now: Duration,
    next_link: u64,
}

impl Core {
    fn new() -> Self {
        Self::with(&Config::lan())
    }

    fn with(config: &Config) -> Self {
        let listening = Some(SocketAddr::from(([0, 0, 0, 0], 5001)));
        let restored = Restored { listening, ..Restored::default() };
        let node = SingleNode::restored(ME, config, Vec::new(), restored);
        Self { node, now: Duration::ZERO, next_link: 100 }
    }

    /// A connection with the `n`-th peer, without its hello.
    fn connected(&mut self, n: u8, address: SocketAddr, dial: Option<DialId>) -> LinkId {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let (kind, assurance) = (TransportKind::GrpcStream, Assurance::default());
        let (remote, address) = (peer(n), Some(address));
        let opened = Input::LinkOpened { link, remote, kind, address, dial, assurance };
        self.node.feed(self.now, opened);
        link
    }

    /// A link with the `n`-th peer, which takes part and sees this node at an address.
    fn linked(&mut self, n: u8, address: SocketAddr, observed: Option<IpAddr>) -> LinkId {
        let link = self.connected(n, address, Some(DialId(7000 + u64::from(n))));
        let features = Features::DIALS_BACK;
        self.says(link, Message::Hello(Box::new(Hello { features, observed, ..greeting(n) })));
        link
    }

    /// A link with a peer that says nothing of where it sees this node.
    fn meets(&mut self, n: u8) -> LinkId {
        self.linked(n, at(n), None)
    }

    fn says(&mut self, link: LinkId, message: Message) {
        self.node.hear(self.now, link, vec![message]);
    }

    /// Lets time pass; peers answer pings meanwhile.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.node.protocol.poll_timeout().filter(|at| at.as_duration() <= end)
        {
            self.now = self.now.max(at.as_duration());
            self.node.wake(self.now);
        }
        self.now = end;
    }

    /// Takes what was said of dial-backs on a link.
    fn said(&mut self, link: LinkId) -> Vec<Message> {
        let is_it = |message: &Message| message.kind().starts_with("dial_back");
        self.node.said_to(link).into_iter().filter(is_it).collect()
    }

    fn results(&mut self, link: LinkId) -> Vec<(u64, Outcome)> {
        let result = |message| match message {
            Message::DialBackResult { nonce, outcome, .. } => Some((nonce, outcome)),
            _ => None,
        };
        self.said(link).into_iter().filter_map(result).collect()
    }

    /// Takes the dials that were begun or given up.
    fn dials(&mut self) -> Vec<Output> {
        let is_dial = |o: &Output| matches!(o, Output::Dial { .. } | Output::CancelDial { .. });
        let (dials, others) = self.node.outside.drain(..).partition(is_dial);
        self.node.outside = others;
        dials
    }

    fn told(&mut self) -> Vec<Vec<String>> {
        let told = |output: &Output| match output {
            Output::OwnEndpoints { endpoints } => {
                Some(endpoints.iter().map(ToString::to_string).collect())
            }
            _ => None,
        };
        let all = self.node.outside.iter().filter_map(told).collect();
        self.node.outside.retain(|output| told(output).is_none());
        all
    }

    fn states(&mut self) -> Vec<Reachability> {
        let state = |event| match event {
            Event::ReachabilityChanged { state } => Some(state),
            _ => None,
        };
        self.node.events.drain(..).filter_map(state).collect()
    }

    fn counters(&self) -> &Counters {
        self.node.protocol.counters()
    }

    fn task(&mut self, helper: LinkId, nonce: u64, address: SocketAddr, n: u8) {
        self.says(helper, Message::DialBackTask { nonce, address, peer: peer(n) });
    }
}

fn ask(nonce: u64, port: u16) -> Message {
    Message::DialBack { nonce, port }
}

fn result(nonce: u64, outcome: Outcome) -> Message {
    Message::DialBackResult { nonce, outcome, dialler: None }
}

#[test]
fn a_helper_has_a_stranger_of_another_group_dial_where_it_sees_the_asker() {
    let mut helper = Core::new();
    let asker = helper.meets(2);
    let near = helper.linked(3, SocketAddr::from(([50, 2, 9, 9], 5001)), None);
    let no_v4 = helper.linked(4, "[2001:db8::1]:5001".parse().unwrap(), None);
    helper.says(asker, ask(1, 5001));
    assert_eq!(helper.results(asker), [(1, Outcome::Refused)], "nobody is there who could");
    let dialler = helper.meets(5);
    helper.says(asker, ask(2, 5001));
    assert_eq!(helper.results(asker), [(2, Outcome::Refused)], "it had its turn");
    helper.wait(secs(61));
    helper.says(asker, ask(3, 8000));
    let address = SocketAddr::from(([50, 2, 0, 1], 8000));
    let task = Message::DialBackTask { nonce: 3, address, peer: peer(2) };
    assert_eq!(helper.said(dialler), [task]);
    assert!(helper.said(near).is_empty() && helper.said(no_v4).is_empty());
    // Only who was given the task can answer it.
    helper.says(near, result(3, Outcome::Reached));
    assert_eq!(helper.results(asker), []);
    // Who dialled is what the helper knows, whoever the dialler says it is.
    let (outcome, dialler_said) = (Outcome::Failed, Some(peer(77)));
    helper.says(dialler, Message::DialBackResult { nonce: 3, outcome, dialler: dialler_said });
    let told = Message::DialBackResult { nonce: 3, outcome, dialler: Some(peer(5)) };
    assert_eq!(helper.said(asker), [told]);
    let counters = helper.counters();
    assert_eq!((counters.dial_back_requests_taken, counters.dial_back_requests_refused), (1, 2));
    assert_eq!(counters.dial_back_results_unasked, 1);
}

#[test]
fn a_helper_asks_three_and_waits_for_each_but_not_for_ever() {
    let mut helper = Core::new();
    let asker = helper.meets(2);
    let diallers: Vec<_> = (10..15).map(|n| helper.meets(n)).collect();
    helper.says(asker, ask(1, 5001));
    let mut asked = 0;
    for _ in 0..5 {
        for dialler in diallers.clone() {
            if !helper.said(dialler).is_empty() {
                asked += 1;
                helper.says(dialler, result(1, Outcome::Refused));
            }
        }
    }
    assert_eq!((asked, helper.results(asker)), (3, vec![(1, Outcome::Refused)]));
    helper.wait(secs(61));
    // One says nothing, and one goes: the next is asked.
    helper.says(asker, ask(2, 5001));
    let gone = diallers.into_iter().find(|dialler| !helper.said(*dialler).is_empty());
    helper.node.feed(helper.now, Input::LinkClosed { link: gone.expect("one was asked") });
    assert_eq!(helper.results(asker), []);
    helper.wait(secs(13));
    assert_eq!(helper.results(asker), [(2, Outcome::Refused)]);
}

#[test]
fn a_helper_is_paced_by_peer_and_by_group_and_serves_few_at_a_time() {
    let mut helper = Core::new();
    let dialler = helper.meets(200);
    let asker = helper.meets(2);
    for port in [0, 22, 79, 1023] {
        helper.says(asker, ask(1, port));
        assert_eq!(helper.results(asker), [(1, Outcome::Refused)], "port {port}");
    }
    helper.says(asker, ask(0, 5001));
    assert_eq!(helper.results(asker), [(0, Outcome::Refused)], "no nonce");
    helper.says(asker, ask(1, 443));
    assert_eq!(helper.said(dialler).len(), 1);
    let neighbour = helper.linked(3, SocketAddr::from(([50, 2, 0, 2], 5001)), None);
    helper.says(neighbour, ask(2, 5001));
    assert_eq!(helper.results(neighbour), [(2, Outcome::Refused)], "of the same group");
    let others: Vec<_> = (10..20).map(|n| helper.meets(n)).collect();
    for link in &others {
        helper.says(*link, ask(100 + link.0, 5001));
    }
    assert_eq!(helper.counters().dial_back_requests_taken, 4);
    // By way of a proxy nobody sees where the asker is.
    helper.wait(secs(61));
    helper.next_link += 1;
    let hidden = LinkId(helper.next_link);
    helper.node.link_up(helper.now, hidden, false, 60);
    helper.says(hidden, Message::Hello(Box::new(greeting(60))));
    helper.says(hidden, ask(5, 5001));
    assert_eq!(helper.results(hidden), [(5, Outcome::Refused)]);
}

#[test]
fn a_dialler_says_the_nonce_once_and_has_no_link() {
    let mut dialler = Core::new();
    let helper = dialler.meets(2);
    dialler.node.events.clear();
    dialler.task(helper, 7, at(3), 3);
    let dials = dialler.dials();
    let [Output::Dial { dial, endpoint, expected, .. }] = &dials[..] else { panic!("{dials:?}") };
    assert_eq!((endpoint.socket_addr(), *expected), (Some(at(3)), Some(peer(3))));
    let link = dialler.connected(3, at(3), Some(*dial));
    let hello = dialler.node.said_to(link);
    assert!(matches!(&hello[..], [Message::Hello(hello)] if hello.dial_back == 7), "{hello:?}");
    assert_eq!(dialler.results(helper), []);
    dialler.says(link, Message::Goodbye { reason: CloseReason::Requested, retry_after: secs(1) });
    assert_eq!(dialler.results(helper), [(7, Outcome::Reached)]);
    assert_eq!((dialler.node.protocol.links().len(), dialler.node.events.len()), (1, 0));
    // One that would have it for a link is not obeyed.
    dialler.wait(secs(61));
    dialler.task(helper, 8, at(4), 4);
    let dials = dialler.dials();
    let [Output::Dial { dial, .. }] = &dials[..] else { panic!("{dials:?}") };
    let link = dialler.connected(4, at(4), Some(*dial));
    dialler.says(link, Message::Hello(Box::new(greeting(4))));
    assert_eq!(dialler.results(helper), [(8, Outcome::Reached)]);
    assert_eq!(dialler.node.protocol.links().len(), 1);
    assert_eq!(dialler.node.closed.last(), Some(&link));
    assert_eq!(dialler.counters().dial_back_tasks_taken, 2);
}

#[test]
fn a_dial_back_that_fails_or_takes_too_long_is_told() {
    let mut dialler = Core::new();
    let helper = dialler.meets(2);
    let begin = |dialler: &mut Core, nonce, n| {
        dialler.wait(secs(61));
        dialler.task(helper, nonce, at(n), n);
        match dialler.dials().pop() {
            Some(Output::Dial { dial, .. }) => dial,
            other => panic!("{other:?}"),
        }
    };
    for (nonce, reason, expected) in [
        (1, FailureKind::Timeout, Outcome::Failed),
        (2, FailureKind::Identity, Outcome::Failed),
        (3, FailureKind::Local, Outcome::Refused),
    ] {
        let dial = begin(&mut dialler, nonce, 3);
        let detail = String::new();
        dialler.node.feed(dialler.now, Input::DialFailed { dial, reason, detail });
        assert_eq!(dialler.results(helper), [(nonce, expected)]);
    }
    let dial = begin(&mut dialler, 4, 5);
    dialler.wait(secs(9));
    assert!(dialler.dials().is_empty());
    dialler.wait(secs(2));
    assert!(matches!(&dialler.dials()[..], [Output::CancelDial { dial: d }] if *d == dial));
    assert_eq!(dialler.results(helper), [(4, Outcome::Failed)]);
    // Somebody answers there and is silent.
    let dial = begin(&mut dialler, 5, 6);
    let link = dialler.connected(6, at(6), Some(dial));
    dialler.wait(secs(11));
    assert_eq!(dialler.results(helper), [(5, Outcome::Reached)]);
    assert_eq!(dialler.node.closed.last(), Some(&link));
    let told =
        |event: &Event| matches!(event, Event::DialFailed { .. } | Event::LinkRefused { .. });
    assert!(!dialler.node.events.iter().any(told), "{:?}", dialler.node.events);
}

#[test]
fn a_dialler_dials_strangers_only_and_no_place_of_a_site() {
    let mut dialler = Core::new();
    let helper = dialler.meets(2);
    let linked = dialler.meets(3);
    let refused = |dialler: &mut Core, nonce, address: &str, n| {
        dialler.task(helper, nonce, address.parse().unwrap(), n);
        assert_eq!(dialler.results(helper), [(nonce, Outcome::Refused)], "{address}");
    };
    refused(&mut dialler, 1, "50.4.0.1:5001", 3);
    refused(&mut dialler, 2, "50.3.0.1:9999", 4);
    refused(&mut dialler, 3, "50.4.0.1:5001", 2);
    refused(&mut dialler, 4, "50.4.0.1:5001", ME);
    refused(&mut dialler, 5, "50.4.0.1:25", 4);
    for place in
        ["10.0.0.1:5001", "127.0.0.1:5001", "0.0.0.0:5001", "[fe80::1]:5001", "[fd00::1]:80"]
    {
        refused(&mut dialler, 6, place, 4);
    }
    dialler.node.feed(dialler.now, Input::LinkClosed { link: linked });
    dialler.wait(secs(599));
    refused(&mut dialler, 7, "50.3.0.1:5001", 3);
    assert_eq!(dialler.dials().len(), 0);
    dialler.wait(secs(2));
    dialler.task(helper, 8, at(3), 3);
    assert_eq!(dialler.dials().len(), 1);
    assert_eq!(dialler.counters().dial_back_tasks_refused, 11);
}

#[test]
fn nobody_aims_a_dialler_at_a_victim() {
    // Twenty helpers do nothing else for ten minutes.
    let mut dialler = Core::new();
    let helpers: Vec<_> = (100..120).map(|n| dialler.meets(n)).collect();
    let mut dials = 0;
    for turn in 0..600u32 {
        for (n, helper) in helpers.iter().enumerate() {
            let nonce = u64::from(turn) * 100 + n as u64 + 1;
            let victim = SocketAddr::from(([60, 1, 0, 1], 1024 + u16::try_from(n).unwrap()));
            dialler.task(*helper, nonce, victim, 50);
        }
        for output in dialler.dials() {
            if let Output::Dial { dial, .. } = output {
                dials += 1;
                let (reason, detail) = (FailureKind::Identity, String::new());
                dialler.node.feed(dialler.now, Input::DialFailed { dial, reason, detail });
            }
        }
        dialler.node.sent.clear();
        dialler.wait(secs(1));
    }
    assert_eq!(dials, 10, "one a minute");
    // At many, there are eight a minute in all.
    dialler.wait(secs(61));
    for (n, helper) in (0..).zip(&helpers) {
        dialler.task(*helper, 1_000_000 + n, at(u8::try_from(n).unwrap() + 1), 50);
        for output in dialler.dials() {
            if let Output::Dial { dial, .. } = output {
                dials += 1;
                let (reason, detail) = (FailureKind::Timeout, String::new());
                dialler.node.feed(dialler.now, Input::DialFailed { dial, reason, detail });
            }
        }
    }
    assert_eq!(dials, 18);
}

/// The nonces that three peers were asked with.
fn asked(node: &mut Core, links: &[LinkId]) -> Vec<(LinkId, u64)> {
    let mut asked = Vec::new();
    for link in links {
        for message in node.said(*link) {
            if let Message::DialBack { nonce, port: 5001 } = message {
                asked.push((*link, nonce));
            }
        }
    }
    asked
}

/// A stranger comes with a nonce.
fn comes(node: &mut Core, n: u8, from: SocketAddr, nonce: u64) -> LinkId {
    let link = node.connected(n, from, None);
    node.says(link, Message::Hello(Box::new(Hello { dial_back: nonce, ..greeting(n) })));
    link
}

#[test]
fn an_address_is_told_once_strangers_have_dialled_it() {
    let mut node = Core::new();
    let links: Vec<_> = (2..7).map(|n| node.linked(n, at(n), Some(here().ip()))).collect();
    let asked = asked(&mut node, &links);
    assert_eq!(asked.len(), 3, "at once, as there are enough");
    assert_eq!(node.told(), Vec::<Vec<String>>::new());
    for (n, (link, nonce)) in (20..).zip(&asked[..2]) {
        let stranger = comes(&mut node, n, at(n), *nonce);
        assert_eq!(node.node.closed.last(), Some(&stranger));
        node.says(*link, result(*nonce, Outcome::Reached));
    }
    let endpoint = here().to_string();
    assert_eq!(node.told(), [vec![endpoint.clone()]]);
    assert_eq!(node.states(), [Reachability::Public(here().into())]);
    assert_eq!(node.node.protocol.links().len(), 5, "who proves it has no link");
    let report = node.node.protocol.reachability();
    assert_eq!(report.candidates[0].endpoint, endpoint);
    assert_eq!((report.candidates[0].state.as_str(), report.candidates[0].votes), ("proven", 5));
    assert!(report.until.is_some(), "{report:?}");
    let counters = node.counters();
    assert_eq!((counters.dial_backs_asked, counters.dial_backs_seen), (3, 2));
    assert_eq!((counters.addresses_proven, counters.dial_backs_unanswered), (1, 1));
    // Asked again in time, and denied.
    node.wait(secs(605));
    for _ in 0..2 {
        assert_eq!((node.told(), node.states()), (Vec::new(), Vec::new()));
        let again = self::asked(&mut node, &links);
        assert_eq!(again.len(), 3);
        for (link, nonce) in again {
            node.says(link, result(nonce, Outcome::Failed));
        }
        node.wait(secs(66));
    }
    assert_eq!(node.told(), [Vec::<String>::new()]);
    assert_eq!(node.states(), [Reachability::Private]);
    assert_eq!(node.node.protocol.reachability().candidates[0].state, "not-reached");
}

#[test]
fn one_liar_denies_nothing_as_helper_of_one_and_dialler_of_another() {
    let mut node = Core::new();
    let links: Vec<_> = (2..7).map(|n| node.linked(n, at(n), Some(here().ip()))).collect();
    for (n, (_, nonce)) in (20..).zip(asked(&mut node, &links)) {
        comes(&mut node, n, at(n), nonce);
    }
    assert_eq!(node.states(), [Reachability::Public(here().into())]);
    node.wait(secs(605));
    for _ in 0..2 {
        let again = asked(&mut node, &links);
        for (link, nonce) in again {
            let dialler = Some(peer(if link == links[0] { 50 } else { 2 }));
            let outcome = Outcome::Failed;
            node.says(link, Message::DialBackResult { nonce, outcome, dialler });
        }
        node.wait(secs(66));
    }
    assert_eq!(node.states(), [], "nothing was found out");
    assert_eq!(node.counters().addresses_not_reached, 0);
}

#[test]
fn whom_the_node_dials_itself_or_for_others_is_no_stranger_from_then_on() {
    let mut node = Core::new();
    let links: Vec<_> = (2..7).map(|n| node.linked(n, at(n), Some(here().ip()))).collect();
    let asked = asked(&mut node, &links);
    node.dials();
    let (call, endpoint) = (CallId(1), at(30).into());
    node.node.feed(node.now, Input::Connect { call, endpoint });
    node.task(links[0], 7, at(31), 31);
    assert_eq!(node.dials().len(), 2, "both are under way");
    for (n, (_, nonce)) in (30..).zip(&asked[..2]) {
        comes(&mut node, n, at(n), *nonce);
    }
    assert_eq!((node.counters().dial_backs_seen, node.counters().dial_backs_doubted), (0, 2));
    comes(&mut node, 32, at(32), asked[2].1);
    assert_eq!((node.counters().dial_backs_seen, node.counters().dial_backs_doubted), (1, 2));
}

#[test]
fn who_is_no_stranger_proves_nothing_and_who_was_not_asked_is_refused() {
    let mut node = Core::new();
    let links: Vec<_> = (2..7).map(|n| node.linked(n, at(n), Some(here().ip()))).collect();
    let asked = asked(&mut node, &links);
    for (link, nonce) in &asked {
        // The helper itself, another host of a linked peer's, or one that was linked until lately.
        comes(&mut node, 30, at(2), *nonce);
        comes(&mut node, 31, SocketAddr::new(at(3).ip(), 40_000), *nonce);
        node.says(*link, result(*nonce, Outcome::Reached));
    }
    assert_eq!((node.told(), node.states()), (Vec::new(), Vec::new()));
    assert_eq!(node.node.protocol.reachability().state, Reachability::Unknown);
    let counters = node.counters();
    assert_eq!((counters.dial_backs_seen, counters.dial_backs_doubted), (0, 6));
    assert_eq!(counters.addresses_undecided, 1);
    let link = comes(&mut node, 32, at(32), 12345);
    assert_eq!(node.node.closed.last(), Some(&link));
    assert_eq!(node.counters().dial_backs_unasked, 1);
}

#[test]
fn a_mapping_is_asked_about_before_the_port_and_one_round_a_minute() {
    let mut node = Core::new();
    let mapping = SocketAddr::new(here().ip(), 7000);
    let drafts = vec![
        CandidateDraft { endpoint: here().into(), source: CandidateSource::Stun },
        CandidateDraft { endpoint: mapping.into(), source: CandidateSource::Upnp },
    ];
    node.node.feed(node.now, Input::Candidates(drafts));
    let links: Vec<_> = (2..7).map(|n| node.linked(n, at(n), Some(here().ip()))).collect();
    let ports = |node: &mut Core| -> Vec<u16> {
        let mut ports = Vec::new();
        for link in &links {
            for message in node.said(*link) {
                if let Message::DialBack { nonce, port } = message {
                    ports.push(port);
                    node.says(*link, result(nonce, Outcome::Failed));
                }
            }
        }
        ports
    };
    assert_eq!(ports(&mut node), [7000; 3]);
    assert_eq!(node.states(), [], "another one has still to be asked about");
    node.wait(secs(60));
    assert_eq!(ports(&mut node), [0; 0]);
    node.wait(secs(6));
    assert_eq!(ports(&mut node), [5001; 3]);
    assert_eq!(node.states(), [Reachability::Private]);
    let before = node.counters().dial_backs_asked;
    node.wait(secs(500));
    assert_eq!(node.counters().dial_backs_asked, before);
}

/// Ports that a node asks about, of which nobody says anything.
fn ports_asked(node: &mut Core, links: &[LinkId]) -> Vec<u16> {
    let port = |message| match message {
        Message::DialBack { port, .. } => Some(port),
        _ => None,
    };
    links.iter().flat_map(|link| node.said(*link)).filter_map(port).collect()
}

#[test]
fn where_a_mapping_is_to_come_the_port_itself_waits_for_it() {
    let mut mapped = Config::lan();
    mapped.nat.port_mapping = true;
    let mut by_stun = Config::lan();
    by_stun.nat.stun = vec!["stun.example.com:3478".to_owned()];
    for config in [mapped, by_stun] {
        let linked = |node: &mut Core| -> Vec<_> {
            (2..7).map(|n| node.linked(n, at(n), Some(here().ip()))).collect()
        };
        // None comes: the port is asked about all the same, a little later.
        let mut node = Core::with(&config);
        let links = linked(&mut node);
        node.wait(millis(4_999));
        assert_eq!(ports_asked(&mut node, &links), [0; 0]);
        node.wait(millis(1));
        assert_eq!(ports_asked(&mut node, &links), [5001; 3]);
        // One comes: it is asked about at once, and before the port.
        let mut node = Core::with(&config);
        let links = linked(&mut node);
        node.wait(secs(3));
        let endpoint = SocketAddr::new(here().ip(), 7000).into();
        let mapping = CandidateDraft { endpoint, source: CandidateSource::TcpMapping };
        node.node.feed(node.now, Input::Candidates(vec![mapping]));
        assert_eq!(ports_asked(&mut node, &links), [7000; 3]);
        node.wait(secs(60));
        assert_eq!(ports_asked(&mut node, &links), [0; 0]);
    }
}

#[test]
fn peers_that_do_not_take_part_are_not_asked_and_a_node_that_does_not_listen_asks_nobody() {
    let mut node = Core::new();
    for n in 2..6 {
        let link = node.connected(n, at(n), Some(DialId(u64::from(n))));
        let observed = Some(here().ip());
        node.says(link, Message::Hello(Box::new(Hello { observed, ..greeting(n) })));
    }
    node.wait(secs(30));
    assert_eq!(node.counters().dial_backs_asked, 0);
    let why = &node.node.protocol.reachability().candidates[0].why;
    assert!(why.contains("takes part"), "{why}");
    let mut silent = Core::new();
    silent.node = SingleNode::new(ME, &Config::lan(), Vec::new());
    for n in 2..6 {
        silent.linked(n, at(n), Some(here().ip()));
    }
    silent.wait(secs(30));
    assert_eq!(silent.counters().dial_backs_asked, 0);
    assert_eq!(silent.node.protocol.reachability().state, Reachability::Private);
}
