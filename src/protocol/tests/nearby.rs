//! Places on the LAN, as one core is told of them: which are dialled, when, and how many.

use std::net::SocketAddr;

use crate::config::{AddressPolicy, Config};
use crate::identity::Identity;
use crate::protocol::{Assurance, DialId, Input, Output};
use crate::types::{CloseReason, FailureKind, Hello, LinkId, Message, PeerId, TransportKind};

use super::single_node::{SingleNode, greeting};
use super::*;

const ME: u8 = 1;
/// As many as may be dialled at once, and in a minute.
const AT_ONCE: usize = 6;
const A_MINUTE: usize = 60;

fn peer(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

/// A core that hears announcements.
struct Hearer {
    node: SingleNode,
    now: Duration,
    next_link: u64,
    /// Dials that will fail, and when.
    under_way: Vec<(Duration, DialId)>,
}

impl Hearer {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::lan();
        change(&mut config);
        let mut node = SingleNode::new(ME, &config, Vec::new());
        node.wake(Duration::ZERO);
        Self { node, now: Duration::ZERO, next_link: 100, under_way: Vec::new() }
    }

    fn hears_of(&mut self, places: &[&str]) {
        let endpoints = places.iter().map(|text| text.parse().unwrap()).collect();
        self.node.feed(self.now, Input::Nearby { endpoints });
    }

    /// Takes the dials that were begun for whoever is there: their numbers and addresses.
    fn dials(&mut self) -> Vec<(DialId, String)> {
        let dial = |output: &Output| match output {
            Output::Dial { dial, endpoint, expected: None, .. } => {
                Some((*dial, endpoint.to_string()))
            }
            _ => None,
        };
        let taken = self.node.outside.iter().filter_map(dial).collect();
        self.node.outside.retain(|output| dial(output).is_none());
        taken
    }

    fn dialled(&mut self) -> Vec<String> {
        let mut places: Vec<_> = self.dials().into_iter().map(|(_, place)| place).collect();
        places.sort();
        places
    }

    /// Lets time pass, and fails every dial after it has taken `patience`; returns what was dialled.
    fn nobody_answers_for(&mut self, span: Duration, patience: Duration) -> Vec<String> {
        let end = self.now + span;
        let mut dialled = Vec::new();
        loop {
            for (dial, place) in self.dials() {
                self.under_way.push((self.now + patience, dial));
                dialled.push(place);
            }
            assert!(self.under_way.len() <= AT_ONCE, "{} at once", self.under_way.len());
            let timer = self.node.protocol.poll_timeout().expect("a timer").as_duration();
            let first = self.under_way.iter().map(|(at, _)| *at).min();
            let next = first.map_or(timer, |at| at.min(timer)).max(self.now);
            if next > end {
                self.now = end;
                return dialled;
            }
            self.now = next;
            if let Some(at) = self.under_way.iter().position(|(at, _)| *at <= next) {
                let (_, dial) = self.under_way.remove(at);
                self.fails(dial);
            } else {
                self.node.wake(next);
            }
        }
    }

    fn fails(&mut self, dial: DialId) {
        let (reason, detail) = (FailureKind::Timeout, String::new());
        self.node.feed(self.now, Input::DialFailed { dial, reason, detail });
    }

    /// A dial leads to a peer, which says this hello.
    fn leads_to(&mut self, dial: DialId, n: u8, hello: Hello) -> LinkId {
        self.next_link += 1;
        let (link, remote, kind) = (LinkId(self.next_link), peer(n), TransportKind::GrpcStream);
        let address = Some(SocketAddr::from(([10, 0, 0, n], 5001)));
        let (dial, assurance) = (Some(dial), Assurance::default());
        self.node
            .feed(self.now, Input::LinkOpened { link, remote, kind, address, dial, assurance });
        self.node.hear(self.now, link, vec![Message::Hello(Box::new(hello))]);
        link
    }

    fn links(&self) -> Vec<PeerId> {
        self.node.protocol.links().iter().map(|link| link.peer).collect()
    }

    fn saved(&self) -> usize {
        self.node.outside.iter().filter(|output| matches!(output, Output::SavePeer(_))).count()
    }
}

#[test]
fn whoever_is_at_a_place_proves_itself_and_is_a_peer_like_any_other() {
    let mut h = Hearer::new(|_| {});
    h.hears_of(&["10.0.0.2:5001", "[::ffff:10.0.0.2]:5001"]);
    let [(dial, place)] = h.dials().try_into().expect("one dial");
    assert_eq!((place.as_str(), h.saved()), ("10.0.0.2:5001", 0), "a place alone is not stored");
    h.leads_to(dial, 2, greeting(2));
    assert_eq!(h.links(), [peer(2)]);
    assert!(h.saved() > 0);
    h.hears_of(&["10.0.0.2:5001"]);
    h.now += secs(3600);
    h.node.wake(h.now);
    assert_eq!(h.dialled(), [""; 0], "it is linked");
}

#[test]
fn only_what_is_near_is_dialled_whatever_the_policy() {
    let liars =
        ["8.8.8.8:53", "[2001:4860::8]:53", "169.254.1.1:1", "224.0.0.251:5353", "router:80"];
    for policy in [AddressPolicy::Auto, AddressPolicy::Any] {
        let mut h = Hearer::new(|config| config.discovery.addresses = policy);
        h.hears_of(&liars);
        assert_eq!(h.dialled(), [""; 0], "{policy:?}");
        let counters = h.node.protocol.counters();
        assert_eq!((counters.nearby_received, counters.nearby_ignored), (5, 5));
        h.hears_of(&["192.168.1.2:5001", "[fd00::1]:5001"]);
        assert_eq!(h.dialled(), ["192.168.1.2:5001", "[fd00::1]:5001"]);
    }
    let mut h = Hearer::new(|config| config.discovery.addresses = AddressPolicy::Public);
    h.hears_of(&["192.168.1.2:5001"]);
    assert_eq!((h.dialled(), h.node.protocol.counters().nearby_ignored), (Vec::new(), 1));
}

#[test]
fn places_by_the_thousand_cost_little_and_keep_nobody_away() {
    let mut h = Hearer::new(|config| {
        config.discovery.bootstrap = vec!["192.0.2.1:5001".parse().unwrap()];
    });
    let [(bootstrap, _)] = h.dials().try_into().expect("the bootstrap peer is dialled");
    let mut dialled = 0;
    for round in 0..5_u8 {
        let all: Vec<_> =
            (0..5000).map(|n| format!("10.{round}.{}.{}:1", n / 250, n % 250)).collect();
        h.hears_of(&all.iter().map(String::as_str).collect::<Vec<_>>());
        // At once, and late: both kinds of nobody.
        let patience = if round % 2 == 0 { Duration::ZERO } else { secs(5) };
        dialled += h.nobody_answers_for(secs(60), patience).len();
    }
    assert!(dialled > 100, "{dialled}: they are dialled");
    assert!(dialled <= 6 * A_MINUTE, "{dialled}");
    assert!(h.node.protocol.counters().nearby_shed > 20_000);
    h.leads_to(bootstrap, 9, greeting(9));
    assert_eq!(h.links(), [peer(9)]);
    // The flood is over: what is true is found.
    h.hears_of(&["10.0.0.2:5001"]);
    let found = (0..60)
        .any(|_| h.nobody_answers_for(secs(2), secs(1)).contains(&"10.0.0.2:5001".to_owned()));
    assert!(found);
}

#[test]
fn what_leads_nowhere_is_tried_ever_more_rarely_and_forgotten() {
    let mut h = Hearer::new(|_| {});
    h.hears_of(&["10.0.0.2:5001"]);
    let dialled = h.nobody_answers_for(secs(3600), secs(1));
    assert_eq!(dialled.len(), 5, "as often as any peer");
    h.hears_of(&["10.0.0.2:5001"]);
    assert_eq!(h.nobody_answers_for(secs(1), secs(1)).len(), 1, "told again, it is tried again");
}

#[test]
fn somebody_of_another_network_is_at_a_place_and_so_is_this_node_itself() {
    let mut h = Hearer::new(|_| {});
    h.hears_of(&["10.0.0.2:5001"]);
    let [(dial, _)] = h.dials().try_into().expect("one dial");
    let link = h.leads_to(dial, 2, Hello { network: "another".to_owned(), ..greeting(2) });
    assert_eq!((h.links(), h.node.closed.as_slice()), (Vec::new(), &[link][..]));
    let mut h = Hearer::new(|_| {});
    h.hears_of(&["10.0.0.1:5001"]);
    let [(dial, _)] = h.dials().try_into().expect("one dial");
    h.leads_to(dial, ME, greeting(ME));
    assert_eq!(h.nobody_answers_for(secs(100), secs(1)), [""; 0], "that is this node");
}

#[test]
fn no_place_is_dialled_while_there_are_links_enough() {
    let mut h = Hearer::new(|config| {
        (config.overlay.dial_target, config.overlay.min_links) = (1, 1);
    });
    h.hears_of(&["10.0.0.2:5001"]);
    let [(dial, _)] = h.dials().try_into().expect("one dial");
    let link = h.leads_to(dial, 2, greeting(2));
    h.hears_of(&["10.0.0.3:5001"]);
    assert_eq!(h.dialled(), [""; 0]);
    let goodbye = Message::Goodbye { reason: CloseReason::Shutdown, retry_after: Duration::ZERO };
    h.node.hear(h.now, link, vec![goodbye]);
    h.node.feed(h.now, Input::LinkClosed { link });
    assert!(h.dialled().contains(&"10.0.0.3:5001".to_owned()));
}
