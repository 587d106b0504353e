//! Addresses, as one core sees them: where dials lead, which addresses are its own, and which of a
//! peer's records counts.

use std::net::SocketAddr;

use crate::config::Config;
use crate::identity::Identity;
use crate::protocol::{Assurance, CallId, ConnectFailure, DialId, Input, Output, Restored};
use crate::types::{
    CloseReason, Endpoint, Event, FailureKind, Hello, LinkId, Message, PeerId, PeerRecord,
    RecordDraft, TransportKind, WallTime,
};

use super::single_node::{START, SingleNode, greeting};
use super::*;

const NAME: &str = "peers.example.com:5001";
const ME: u8 = 1;
const CALL: CallId = CallId(5);

fn peer(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 5001))
}

/// A core with one bootstrap address, and what it asks of the transport.
struct Dialler {
    node: SingleNode,
    now: Duration,
    next_link: u64,
}

impl Dialler {
    fn new(bootstrap: &str) -> Self {
        let mut config = Config::lan();
        config.discovery.bootstrap = bootstrap.parse().into_iter().collect();
        let listening = Some(SocketAddr::from(([0, 0, 0, 0], 5001)));
        let restored = Restored { listening, ..Restored::default() };
        let mut node = SingleNode::restored(ME, &config, Vec::new(), restored);
        node.wake(Duration::ZERO);
        Self { node, now: Duration::ZERO, next_link: 100 }
    }

    /// Lets time pass until there is a dial.
    fn next_dial(&mut self, limit: Duration) -> (DialId, Vec<SocketAddr>) {
        let end = self.now + limit;
        loop {
            if let Some(dial) = self.dials().pop() {
                return dial;
            }
            let next = self.node.protocol.poll_timeout().expect("a timer").as_duration();
            assert!(next <= end, "no dial within {limit:?}");
            self.now = self.now.max(next);
            self.node.wake(self.now);
        }
    }

    /// Lets time pass and demands that there is no dial meanwhile.
    fn no_dial(&mut self, span: Duration) {
        let end = self.now + span;
        while self.node.protocol.poll_timeout().is_some_and(|at| at.as_duration() <= end) {
            let next = self.node.protocol.poll_timeout().expect("a timer").as_duration();
            self.now = self.now.max(next);
            self.node.wake(self.now);
            assert_eq!(self.dials(), [], "after {:?}", self.now);
        }
        self.now = end;
    }

    /// Takes the dials that were begun.
    fn dials(&mut self) -> Vec<(DialId, Vec<SocketAddr>)> {
        self.take(|output| match output {
            Output::Dial { dial, avoid, .. } => Some((*dial, avoid.clone())),
            _ => None,
        })
    }

    /// Takes the answers to the host.
    fn answers(&mut self) -> Vec<Result<PeerId, ConnectFailure>> {
        self.take(|output| match output {
            Output::Connected { result, .. } => Some(*result),
            _ => None,
        })
    }

    /// Takes the events, and returns why dials and links failed.
    fn failures(&mut self) -> Vec<String> {
        let failure = |event: Event| match event {
            Event::DialFailed { reason, .. } => Some(reason.to_string()),
            Event::LinkRefused { reason, .. } => Some(reason.to_string()),
            _ => None,
        };
        self.node.events.drain(..).filter_map(failure).collect()
    }

    fn take<T>(&mut self, pick: impl Fn(&Output) -> Option<T>) -> Vec<T> {
        let taken = self.node.outside.iter().filter_map(&pick).collect();
        self.node.outside.retain(|output| pick(output).is_none());
        taken
    }

    /// The dial leads to a peer, at this address as far as that is known.
    fn leads_to(&mut self, dial: DialId, n: u8, address: impl Into<Option<SocketAddr>>) -> LinkId {
        self.next_link += 1;
        let (link, remote, kind) = (LinkId(self.next_link), peer(n), TransportKind::GrpcStream);
        let (address, dial, assurance) = (address.into(), Some(dial), Assurance::default());
        let opened = Input::LinkOpened { link, remote, kind, address, dial, assurance };
        self.node.feed(self.now, opened);
        link
    }

    /// The dial leads to this very process, at `at(1)`.
    fn leads_home(&mut self, dial: DialId) {
        let link = self.leads_to(dial, ME, at(1));
        self.says_hello(link, greeting(ME));
    }

    fn says(&mut self, link: LinkId, message: Message) {
        self.node.hear(self.now, link, vec![message]);
    }

    fn says_hello(&mut self, link: LinkId, hello: Hello) {
        self.says(link, Message::Hello(Box::new(hello)));
    }

    fn fails(&mut self, dial: DialId, reason: FailureKind) {
        let detail = String::new();
        self.node.feed(self.now, Input::DialFailed { dial, reason, detail });
    }

    fn connect(&mut self, endpoint: &str) {
        let endpoint: Endpoint = endpoint.parse().unwrap();
        self.node.feed(self.now, Input::Connect { call: CALL, endpoint });
    }

    fn links(&self) -> Vec<PeerId> {
        self.node.protocol.links().iter().map(|link| link.peer).collect()
    }
}

fn foreign(n: u8) -> Hello {
    Hello { network: "another".to_owned(), ..greeting(n) }
}

#[test]
fn an_address_of_another_network_is_left_for_the_next_at_once() {
    let mut d = Dialler::new(NAME);
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, []);
    let link = d.leads_to(dial, 2, at(2));
    d.says_hello(link, foreign(2));
    // Silence, an end without a word, and a refusal are no better.
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, [at(2)]);
    let link = d.leads_to(dial, 3, at(3));
    d.node.feed(d.now, Input::LinkClosed { link });
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, [at(2), at(3)]);
    let link = d.leads_to(dial, 4, at(4));
    let (reason, retry_after) = (CloseReason::TooManyLinks, secs(9));
    d.says(link, Message::Goodbye { reason, retry_after });
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, [at(2), at(3), at(4)]);
    let link = d.leads_to(dial, 5, at(5));
    d.says_hello(link, greeting(5));
    assert_eq!(d.links(), [peer(5)]);
    assert_eq!(d.failures(), ["wrong_network", "too_many_links"]);
}

#[test]
fn what_failed_before_is_tried_again_when_nothing_else_is_left() {
    let mut d = Dialler::new(NAME);
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 2, at(2));
    d.says_hello(link, foreign(2));
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, [at(2)]);
    d.fails(dial, FailureKind::NoneLeft);
    assert_eq!(d.dials(), [], "not in a circle");
    assert_eq!(d.failures(), ["wrong_network"], "one failure, told once");
    // The next time begins elsewhere, and ends there.
    let (dial, avoid) = d.next_dial(secs(3));
    assert_eq!(avoid, [at(2)]);
    d.fails(dial, FailureKind::NoneLeft);
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, []);
    let link = d.leads_to(dial, 2, at(2));
    d.says_hello(link, greeting(2));
    assert_eq!(d.links(), [peer(2)]);
    assert_eq!(d.failures(), Vec::<String>::new());
}

#[test]
fn a_transport_that_leaves_nothing_out_is_not_asked_for_ever() {
    let mut d = Dialler::new(NAME);
    for _ in 0..2 {
        let (dial, _) = d.next_dial(Duration::ZERO);
        let link = d.leads_to(dial, 2, at(2));
        d.says_hello(link, foreign(2));
    }
    assert_eq!(d.dials(), []);
    // Nor one whose name server invents addresses.
    let mut dialled = 0;
    let (mut dial, _) = d.next_dial(secs(3));
    for n in 10..100 {
        let link = d.leads_to(dial, 2, at(n));
        d.says_hello(link, foreign(2));
        dialled += 1;
        match d.dials().pop() {
            Some(next) => dial = next.0,
            None => break,
        }
    }
    assert!(dialled < 20, "{dialled}");
}

#[test]
fn we_ourselves_at_one_address_are_no_verdict_about_its_name() {
    let mut d = Dialler::new(NAME);
    let (dial, _) = d.next_dial(Duration::ZERO);
    d.leads_home(dial);
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, [at(1)]);
    d.fails(dial, FailureKind::NoneLeft);
    assert_eq!(d.failures(), ["self_dial"]);
    // Others may come to be there at any time.
    let (dial, avoid) = d.next_dial(secs(3));
    assert!(avoid.contains(&at(1)));
    let link = d.leads_to(dial, 2, at(2));
    d.says_hello(link, greeting(2));
    assert_eq!(d.links(), [peer(2)]);
}

#[test]
fn an_own_address_is_one_for_a_while() {
    let mut d = Dialler::new("10.0.0.1:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    d.leads_home(dial);
    assert_eq!(d.failures(), ["self_dial"]);
    d.no_dial(secs(119));
    let (dial, _) = d.next_dial(secs(2));
    let link = d.leads_to(dial, 2, at(1));
    d.says_hello(link, greeting(2));
    assert_eq!(d.links(), [peer(2)], "somebody else lives there by now");
}

#[test]
fn where_a_twin_is_there_is_no_own_address() {
    let mut d = Dialler::new("10.0.0.1:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, ME, at(1));
    assert_eq!(d.failures(), [""; 0], "not before it said who it is");
    d.says_hello(link, Hello { incarnation: 2, ..greeting(ME) });
    assert_eq!(d.failures(), ["identity_in_use"]);
    let (dial, _) = d.next_dial(secs(3));
    let link = d.leads_to(dial, 2, at(1));
    d.says_hello(link, greeting(2));
    assert_eq!(d.links(), [peer(2)], "the twin is gone");
}

#[test]
fn only_our_own_key_proves_that_we_dialled_ourselves() {
    let mut d = Dialler::new("10.0.0.1:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 2, at(1));
    let (reason, retry_after) = (CloseReason::SelfDial, Duration::ZERO);
    d.says(link, Message::Goodbye { reason, retry_after });
    d.next_dial(secs(3));
}

#[test]
fn a_dial_by_hand_is_made_at_once_and_goes_on_to_the_next_address() {
    let mut d = Dialler::new("10.0.0.1:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    d.leads_home(dial);
    d.connect("10.0.0.1:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    d.leads_home(dial);
    let refused = Err(ConnectFailure::Refused(CloseReason::SelfDial));
    assert_eq!(d.answers(), [refused]);

    d.connect(NAME);
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, [], "what was once so may be otherwise");
    d.leads_home(dial);
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!((avoid, d.answers()), (vec![at(1)], Vec::new()));
    d.fails(dial, FailureKind::NoneLeft);
    assert_eq!(d.answers(), [refused], "the reason, and not that there is nobody else");

    d.connect(NAME);
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert_eq!(avoid, []);
    d.leads_home(dial);
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 2, at(2));
    d.says_hello(link, greeting(2));
    assert_eq!(d.answers(), [Ok(peer(2))]);
}

#[test]
fn a_name_that_led_to_a_peer_is_dialled_for_further_ones() {
    let mut d = Dialler::new(NAME);
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 2, at(2));
    d.says_hello(link, greeting(2));
    d.failures();
    for _ in 0..3 {
        let (dial, avoid) = d.next_dial(secs(20));
        assert!(avoid.contains(&at(2)));
        d.fails(dial, FailureKind::NoneLeft);
        d.no_dial(secs(4));
    }
    // Where the linked peer turns up once more, its link stays.
    let (dial, _) = d.next_dial(secs(20));
    let again = d.leads_to(dial, 2, at(3));
    assert_eq!((d.links(), d.node.closed.as_slice()), (vec![peer(2)], &[again][..]));
    let (dial, avoid) = d.next_dial(Duration::ZERO);
    assert!(avoid.contains(&at(3)));
    let link = d.leads_to(dial, 4, at(4));
    d.says_hello(link, greeting(4));
    assert_eq!(d.links(), [peer(2), peer(4)]);
    // Nobody is called again where the linked ones were found.
    let (dial, avoid) = d.next_dial(secs(20));
    assert!([2, 3, 4].iter().all(|n| avoid.contains(&at(*n))));
    d.fails(dial, FailureKind::NoneLeft);
    d.no_dial(secs(4));
    assert_eq!(d.failures(), Vec::<String>::new(), "nothing failed");
}

fn own_endpoints(d: &mut Dialler) -> Vec<Vec<String>> {
    d.take(|output| match output {
        Output::OwnEndpoints { endpoints } => {
            Some(endpoints.iter().map(ToString::to_string).collect())
        }
        _ => None,
    })
}

#[test]
fn own_addresses_are_what_linked_peers_see_in_their_one_spelling() {
    let mut d = Dialler::new("10.0.0.2:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 2, at(2));
    let seen = |ip: &str| Hello { observed: ip.parse().ok(), ..greeting(2) };
    d.says_hello(link, seen("::ffff:10.9.0.1"));
    assert_eq!(own_endpoints(&mut d), [["10.9.0.1:5001"]]);
    d.node.feed(d.now, Input::LinkClosed { link });
    let (dial, _) = d.next_dial(secs(3));
    let link = d.leads_to(dial, 2, at(2));
    d.says_hello(link, seen("10.9.0.7"));
    assert_eq!(own_endpoints(&mut d), [["10.9.0.7:5001"]], "it is elsewhere now");
    // An accepted link's peer dialled an address that it knew already.
    let (kind, assurance) = (TransportKind::GrpcStream, Assurance::default());
    let (link, remote, address) = (LinkId(9), peer(3), Some(at(3)));
    let opened = Input::LinkOpened { link, remote, kind, address, dial: None, assurance };
    d.node.feed(d.now, opened);
    d.says_hello(link, Hello { observed: "10.9.0.9".parse().ok(), ..greeting(3) });
    assert_eq!(own_endpoints(&mut d), Vec::<Vec<String>>::new());
}

#[test]
fn behind_a_proxy_nobody_sees_where_this_node_is_and_a_name_is_no_place_on_this_machine() {
    let mut d = Dialler::new(NAME);
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 2, None);
    d.says_hello(link, Hello { observed: "10.9.0.1".parse().ok(), ..greeting(2) });
    assert_eq!(d.links(), [peer(2)]);
    assert_eq!(own_endpoints(&mut d), Vec::<Vec<String>>::new(), "that is the proxy's");
    d.says(link, peers(vec![record(3, 1, "127.0.0.1:22")]));
    assert_eq!(d.node.protocol.counters().records_ignored, 1);
    d.says(link, peers(vec![record(3, 2, "198.51.100.1:22")]));
    assert_eq!(d.node.protocol.counters().records_ignored, 1);
}

#[test]
fn a_name_that_leads_astray_by_way_of_a_proxy_is_not_dialled_all_the_time() {
    let mut d = Dialler::new(NAME);
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 2, None);
    d.says_hello(link, foreign(2));
    assert_eq!(d.dials(), [], "nothing can be left out");
    let (dial, avoid) = d.next_dial(secs(10));
    assert_eq!(avoid, []);
    let link = d.leads_to(dial, ME, None);
    d.says_hello(link, greeting(ME));
    assert_eq!(d.dials(), []);
}

fn record(n: u8, seq: u64, endpoint: &str) -> PeerRecord {
    let identity = Identity::from_seed([n; 32]);
    let endpoints = vec![endpoint.parse().unwrap()];
    let (peer, issued) = (identity.peer_id(), WallTime::from_millis(START));
    identity.sign_record(RecordDraft { peer, seq, issued, endpoints })
}

fn peers(records: Vec<PeerRecord>) -> Message {
    Message::Peers { records, relays: 0 }
}

#[test]
fn a_subject_that_says_less_than_it_has_signed_is_shown_that() {
    let mut d = Dialler::new("10.0.0.3:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    let teller = d.leads_to(dial, 3, at(3));
    d.says_hello(teller, greeting(3));
    let higher = record(2, 50, "10.0.9.9:1");
    d.says(teller, peers(vec![higher.clone()]));
    let subject = d.node.meet(d.now, 2);
    let shown = |d: &mut Dialler| -> Vec<PeerRecord> {
        let said = d.node.said_to(subject).into_iter();
        said.filter_map(|message| match message {
            Message::Peers { records, .. } => records.into_iter().find(|r| r.peer() == peer(2)),
            _ => None,
        })
        .collect()
    };
    assert_eq!(shown(&mut d), std::slice::from_ref(&higher));
    // Which it then signs above.
    d.says(subject, peers(vec![record(2, 51, "10.0.0.2:1")]));
    assert_eq!(shown(&mut d), []);
    // Others' word of something higher yet is passed on to it.
    let highest = record(2, 70, "10.0.9.8:1");
    d.says(teller, peers(vec![highest.clone()]));
    assert_eq!(shown(&mut d), [highest]);
    d.says(teller, peers(vec![higher]));
    assert_eq!(shown(&mut d), []);
}

#[test]
fn what_we_have_signed_before_is_signed_above_and_not_all_the_time() {
    let mut d = Dialler::new("10.0.0.3:5001");
    let (dial, _) = d.next_dial(Duration::ZERO);
    let link = d.leads_to(dial, 3, at(3));
    d.says_hello(link, greeting(3));
    let renewals = |d: &mut Dialler| {
        d.take(|output| match output {
            Output::RenewRecord { above } => Some(*above),
            _ => None,
        })
    };
    d.says(link, peers(vec![record(ME, 40, "10.0.0.1:1")]));
    assert_eq!(renewals(&mut d), [40]);
    d.node.feed(d.now, Input::Record(record(ME, 41, "10.0.0.1:2")));
    d.says(link, peers(vec![record(ME, 40, "10.0.0.1:1")]));
    d.no_dial(secs(15));
    assert_eq!(renewals(&mut d), Vec::<u64>::new(), "lower than ours by now");
    // Another process with this identity outdoes us: once in ten seconds is enough.
    for seq in 100..200 {
        d.says(link, peers(vec![record(ME, seq, "10.0.0.1:1")]));
    }
    assert_eq!(renewals(&mut d), [100]);
    d.no_dial(secs(15));
    assert_eq!(renewals(&mut d), [199]);
    d.says(link, peers(vec![record(ME, u64::MAX, "10.0.0.1:1")]));
    d.no_dial(secs(15));
    assert_eq!(renewals(&mut d), [u64::MAX]);
}
