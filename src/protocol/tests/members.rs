//! Who may join: what a member proves, and what a stranger gets, message by message.

use std::net::SocketAddr;

use crate::Identity;
use crate::config::{Claim, Config, NetworkSecret, Trust};
use crate::protocol::{Assurance, DialId, Input, Output, Protocol, Restored};
use crate::types::{
    CloseReason, Endpoint, Hello, LinkId, Message, MonoTime, PeerId, TransportKind, WallTime,
};

use super::single_node::{START, SingleNode, record};
use super::*;

const LINK: LinkId = LinkId(1);
const BINDING: [u8; 32] = [5; 32];
/// The node under test.
const ME: u8 = 1;
/// The peer that it meets.
const PEER: u8 = 2;

fn id(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

fn secret(fill: u8) -> NetworkSecret {
    NetworkSecret::new([fill; 32]).unwrap()
}

fn config(secrets: &[u8]) -> Config {
    let mut config = Config::lan();
    let secrets = secrets.iter().map(|fill| secret(*fill)).collect();
    config.network.trust = Trust::Secret { secrets, files: Vec::new() };
    config
}

fn address(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 4000).into()
}

/// A link with the peer is opened.
fn open(node: &mut SingleNode, at: Duration, link: LinkId, from: Option<SocketAddr>, n: u8) {
    let assurance = Assurance { binding: Some(BINDING), certified: false };
    open_with(node, at, link, from, n, assurance);
}

fn open_with(
    node: &mut SingleNode,
    at: Duration,
    link: LinkId,
    from: Option<SocketAddr>,
    n: u8,
    assurance: Assurance,
) {
    let (remote, kind) = (id(n), TransportKind::Memory);
    let opened = Input::LinkOpened { link, remote, kind, address: from, dial: None, assurance };
    node.feed(at, opened);
}

/// The claim of a peer that dialled the node under test.
fn claim<'a>(sender: &'a PeerId, receiver: &'a PeerId) -> Claim<'a> {
    Claim { binding: &BINDING, by_dialler: true, sender, receiver, network: "sorcha" }
}

/// What a peer says first.
fn hello(n: u8, network: &str, proofs: Vec<[u8; 32]>) -> Message {
    let Message::Hello(hello) = super::property::hello(n) else { unreachable!() };
    let network = network.to_owned();
    Message::Hello(Box::new(Hello { network, record: record(n), owes: false, proofs, ..*hello }))
}

fn member(n: u8, fill: u8) -> Message {
    hello(n, "sorcha", vec![claim(&id(n), &id(ME)).prove(&secret(fill))])
}

fn goodbyes(said: &[Message]) -> Vec<CloseReason> {
    let reason = |message: &Message| match message {
        Message::Goodbye { reason, .. } => Some(*reason),
        _ => None,
    };
    said.iter().filter_map(reason).collect()
}

/// What the two sides of a new link say to each other, until both are silent.
struct Talk {
    nodes: [SingleNode; 2],
    said: [Vec<Message>; 2],
}

impl Talk {
    /// The first node dials the second.
    fn between(configs: [&Config; 2]) -> Self {
        let mut nodes =
            [SingleNode::new(ME, configs[0], vec![]), SingleNode::new(PEER, configs[1], vec![])];
        for (side, dial) in [(0, Some(DialId(77))), (1, None)] {
            let assurance = Assurance { binding: Some(BINDING), certified: false };
            let (remote, kind) = (id([PEER, ME][side]), TransportKind::Memory);
            let opened =
                Input::LinkOpened { link: LINK, remote, kind, address: None, dial, assurance };
            nodes[side].feed(Duration::ZERO, opened);
        }
        let mut talk = Self { nodes, said: [Vec::new(), Vec::new()] };
        assert!(talk.nodes[1].sent.is_empty(), "who is dialled waits for the proof");
        while talk.nodes.iter().any(|node| !node.sent.is_empty()) {
            for side in [0, 1] {
                let said = talk.nodes[side].said_to(LINK);
                talk.said[side].extend(said.iter().cloned());
                talk.nodes[1 - side].hear(Duration::ZERO, LINK, said);
            }
        }
        talk
    }

    fn links(&self) -> [u32; 2] {
        [0, 1].map(|side| self.nodes[side].protocol.stats().links)
    }
}

#[test]
fn members_prove_themselves_to_each_other() {
    let config = config(&[1]);
    let talk = Talk::between([&config, &config]);
    assert_eq!(talk.links(), [1, 1]);
    for said in &talk.said {
        let Some(Message::Hello(hello)) = said.first() else { panic!("{said:?}") };
        assert_eq!(hello.proofs.len(), 1);
    }
}

#[test]
fn a_network_moves_from_one_secret_to_the_next() {
    let (old, both, new) = (config(&[1]), config(&[2, 1]), config(&[2]));
    for (a, b, linked) in [
        (&old, &both, true),
        (&both, &old, true),
        (&both, &new, true),
        (&new, &both, true),
        (&both, &both, true),
        (&old, &new, false),
        (&new, &old, false),
    ] {
        let talk = Talk::between([a, b]);
        assert_eq!(talk.links(), [u32::from(linked); 2]);
    }
}

#[test]
fn whom_a_member_dials_has_to_be_one_too() {
    // One that lets everybody in, and one with a secret of its own: neither proves anything.
    let (ours, open) = (config(&[1]), Config::lan());
    let mut node = SingleNode::new(ME, &ours, Vec::new());
    for impostor in [hello(PEER, "sorcha", Vec::new()), member(PEER, 1), member(PEER, 3)] {
        let assurance = Assurance { binding: Some(BINDING), certified: false };
        let (remote, kind, dial) = (id(PEER), TransportKind::Memory, Some(DialId(1)));
        let opened = Input::LinkOpened { link: LINK, remote, kind, address: None, dial, assurance };
        node.feed(Duration::ZERO, opened);
        node.hear(Duration::ZERO, LINK, vec![impostor]);
        let said = node.said_to(LINK);
        assert!(matches!(said[..], [Message::Hello(_), Message::Goodbye { .. }]), "{said:?}");
        assert_eq!(goodbyes(&said), [CloseReason::NotMember]);
    }
    // The other way round, who is dialled says nothing of itself.
    let talk = Talk::between([&open, &ours]);
    assert_eq!(talk.links(), [0, 0]);
    assert!(matches!(talk.said[1][..], [Message::Goodbye { .. }]), "{:?}", talk.said[1]);
}

#[test]
fn a_stranger_is_told_that_it_is_none_and_nothing_else() {
    let (me, peer, other) = (id(ME), id(PEER), id(3));
    let right = claim(&peer, &me);
    let by = |claim: Claim<'_>| vec![claim.prove(&secret(1))];
    let strangers = [
        ("no proof", hello(PEER, "sorcha", Vec::new())),
        ("no proof, another network", hello(PEER, "other", Vec::new())),
        ("empty network", hello(PEER, "", vec![[0; 32]])),
        ("a guess", hello(PEER, "sorcha", vec![[0; 32], [1; 32]])),
        ("another secret", hello(PEER, "sorcha", vec![right.prove(&secret(9))])),
        ("of another link", hello(PEER, "sorcha", by(Claim { binding: &[6; 32], ..right }))),
        ("of somebody else", hello(PEER, "sorcha", by(claim(&other, &me)))),
        ("for somebody else", hello(PEER, "sorcha", by(claim(&peer, &other)))),
        ("for another network", hello(PEER, "sorcha", by(Claim { network: "x", ..right }))),
        // What we would have said, sent back.
        ("reflected", {
            let ours = Claim { by_dialler: false, ..claim(&me, &peer) };
            hello(PEER, "sorcha", by(ours))
        }),
        ("the other side's", hello(PEER, "sorcha", by(Claim { by_dialler: false, ..right }))),
    ];
    let mut node = SingleNode::new(ME, &config(&[1]), Vec::new());
    for (at, (what, hello)) in strangers.into_iter().enumerate() {
        let link = LinkId(at as u64);
        open(&mut node, Duration::ZERO, link, None, PEER);
        node.hear(Duration::ZERO, link, vec![hello]);
        let said = node.said_to(link);
        assert!(matches!(said[..], [Message::Goodbye { .. }]), "{what}: {said:?}");
        assert_eq!(goodbyes(&said), [CloseReason::NotMember], "{what}");
        assert_eq!(node.protocol.counters().links_refused_not_member, at as u64 + 1, "{what}");
    }
    assert_eq!(node.protocol.stats().links, 0);
    assert_eq!(node.protocol.stats().known_peers, 0, "no record of a stranger is kept");
}

#[test]
fn only_a_member_learns_that_the_network_is_another() {
    let mut node = SingleNode::new(ME, &config(&[1]), Vec::new());
    let (me, peer) = (id(ME), id(PEER));
    let claim = Claim { network: "other", ..claim(&peer, &me) };
    open(&mut node, Duration::ZERO, LINK, None, PEER);
    node.hear(Duration::ZERO, LINK, vec![hello(PEER, "other", vec![claim.prove(&secret(1))])]);
    assert_eq!(goodbyes(&node.said_to(LINK)), [CloseReason::WrongNetwork]);
}

#[test]
fn what_a_stranger_says_before_its_proof_is_not_looked_at() {
    let mut node = SingleNode::new(ME, &config(&[1]), Vec::new());
    for (at, message) in [
        Message::Peers { records: vec![record(3), record(4)], relays: 2 },
        Message::PeersRequest { max: 32 },
        Message::Ping { nonce: 1 },
    ]
    .into_iter()
    .enumerate()
    {
        let link = LinkId(at as u64);
        open(&mut node, Duration::ZERO, link, None, PEER);
        node.hear(Duration::ZERO, link, vec![message, member(PEER, 1)]);
        let said = node.said_to(link);
        assert!(matches!(said[..], [Message::Goodbye { .. }]), "{said:?}");
        assert_eq!(goodbyes(&said), [CloseReason::Violation]);
    }
    let counters = node.protocol.counters();
    assert_eq!((counters.records_received, node.protocol.stats().known_peers), (0, 0));
}

#[test]
fn a_stranger_takes_no_place_and_learns_nothing_of_a_full_node() {
    let mut config = config(&[1]);
    config.overlay.max_inbound = 1;
    let mut node = SingleNode::new(ME, &config, Vec::new());
    open(&mut node, Duration::ZERO, LINK, Some(address(1)), PEER);
    node.hear(Duration::ZERO, LINK, vec![member(PEER, 1)]);
    node.said_to(LINK);
    for (link, hello, reason) in [
        (LinkId(2), hello(3, "sorcha", Vec::new()), CloseReason::NotMember),
        (LinkId(3), member(3, 1), CloseReason::TooManyLinks),
    ] {
        open(&mut node, secs(1), link, Some(address(2)), 3);
        node.hear(secs(1), link, vec![hello]);
        let said = node.said_to(link);
        assert_eq!(goodbyes(&said), [reason], "{said:?}");
        assert!(said.len() == 1 || reason != CloseReason::NotMember, "{said:?}");
    }
    assert_eq!(node.protocol.counters().links_evicted, 0);
    assert_eq!(node.protocol.stats().links, 1);
}

#[test]
fn those_behind_a_proxy_take_half_of_the_places_for_hellos() {
    let mut config = config(&[1]);
    config.listen.max_handshakes = 4;
    let mut node = SingleNode::new(ME, &config, Vec::new());
    let assurance = Assurance { binding: Some(BINDING), ..Assurance::default() };
    let kind = TransportKind::WebSocket;
    for (n, refused) in [(3, false), (4, false), (5, true)] {
        let (link, remote) = (LinkId(n.into()), id(n));
        let opened = Input::LinkOpened { link, remote, kind, address: None, dial: None, assurance };
        node.feed(Duration::ZERO, opened);
        let said = goodbyes(&node.said_to(link));
        assert_eq!(said == [CloseReason::TooManyLinks], refused, "{n}: {said:?}");
    }
    open(&mut node, Duration::ZERO, LINK, Some(address(1)), PEER);
    node.hear(Duration::ZERO, LINK, vec![member(PEER, 1)]);
    assert_eq!(goodbyes(&node.said_to(LINK)), []);
    assert_eq!(node.protocol.stats().links, 1);
}

#[test]
fn without_a_channel_binding_nothing_can_be_proven() {
    let mut node = SingleNode::new(ME, &config(&[1]), Vec::new());
    open_with(&mut node, Duration::ZERO, LINK, None, PEER, Assurance::default());
    assert_eq!(goodbyes(&node.said_to(LINK)), [CloseReason::NotMember]);
}

#[test]
fn with_a_ca_the_transport_says_whose_key_is_certified() {
    let mut config = Config::lan();
    config.network.trust = Trust::Ca { ca_file: "a".into(), certificate_file: "b".into() };
    let mut node = SingleNode::new(ME, &config, Vec::new());
    open(&mut node, Duration::ZERO, LINK, None, PEER);
    assert_eq!(goodbyes(&node.said_to(LINK)), [CloseReason::NotMember]);
    let assurance = Assurance { binding: None, certified: true };
    open_with(&mut node, Duration::ZERO, LinkId(2), None, PEER, assurance);
    node.hear(Duration::ZERO, LinkId(2), vec![hello(PEER, "sorcha", Vec::new())]);
    assert_eq!(node.protocol.stats().links, 1);
}

#[test]
fn ten_thousand_wrong_secrets_a_minute_are_hardly_looked_at() {
    const ATTEMPTS: u64 = 10_000;
    let mut node = SingleNode::new(ME, &config(&[1]), Vec::new());
    for at in 0..ATTEMPTS {
        let now = millis(at * 60_000 / ATTEMPTS);
        let link = LinkId(at);
        open(&mut node, now, link, Some(address(9)), 9);
        node.hear(now, link, vec![member(9, 7)]);
        let said = node.said_to(link);
        assert_eq!(said.len(), 1, "{said:?}");
    }
    let judged = node.protocol.counters().links_refused_not_member;
    assert!((32..100).contains(&judged), "{judged}");
    assert_eq!(node.shunned, [address(9).ip()]);
    assert_eq!(node.protocol.counters().addresses_shunned, 1);
    // A member who comes from elsewhere is let in meanwhile.
    let now = secs(59);
    open(&mut node, now, LinkId(ATTEMPTS), Some(address(8)), PEER);
    node.hear(now, LinkId(ATTEMPTS), vec![member(PEER, 1)]);
    assert_eq!(node.protocol.stats().links, 1);
}

#[test]
fn silent_strangers_of_one_host_leave_room_for_others() {
    let mut config = config(&[1]);
    config.listen.max_handshakes = 8;
    let mut node = SingleNode::new(ME, &config, Vec::new());
    for at in 0..20 {
        open(&mut node, Duration::ZERO, LinkId(at), Some(address(9)), 9);
    }
    assert_eq!(node.closed.len(), 16, "half of the places");
    open(&mut node, Duration::ZERO, LinkId(99), Some(address(8)), PEER);
    node.hear(Duration::ZERO, LinkId(99), vec![member(PEER, 1)]);
    assert_eq!(node.protocol.stats().links, 1);
}

#[test]
fn silent_strangers_keep_nobody_out_whom_the_node_dials() {
    for trust in [Trust::Open, config(&[1]).network.trust] {
        let mut config = Config::lan();
        (config.network.trust, config.listen.max_handshakes) = (trust, 8);
        let mut node = SingleNode::new(ME, &config, Vec::new());
        for at in 0..20 {
            let from = address(u8::try_from(at % 4).unwrap());
            open(&mut node, Duration::ZERO, LinkId(at), Some(from), 9);
        }
        assert_eq!(node.closed.len(), 12, "all places are taken");
        let (link, remote, kind) = (LinkId(99), id(PEER), TransportKind::Memory);
        let (dial, assurance) =
            (Some(DialId(7)), Assurance { binding: Some(BINDING), certified: false });
        let address = Some(address(8));
        node.feed(
            Duration::ZERO,
            Input::LinkOpened { link, remote, kind, address, dial, assurance },
        );
        assert!(matches!(node.said_to(link)[..], [Message::Hello(_)]));
    }
}

#[test]
fn silent_strangers_are_shunned_as_loud_ones_are() {
    let mut node = SingleNode::new(ME, &config(&[1]), Vec::new());
    for at in 0..40 {
        open(&mut node, Duration::ZERO, LinkId(at), Some(address(9)), 9);
    }
    node.feed(secs(60), Input::Timeout);
    assert_eq!(node.shunned, [address(9).ip()]);
}

#[test]
fn names_of_a_dialled_stranger_are_not_looked_at() {
    let mut node = SingleNode::new(ME, &config(&[1]), Vec::new());
    let (remote, kind, dial) = (id(PEER), TransportKind::Memory, Some(DialId(7)));
    let assurance = Assurance { binding: Some(BINDING), certified: false };
    let opened = Input::LinkOpened { link: LINK, remote, kind, address: None, dial, assurance };
    node.feed(Duration::ZERO, opened);
    let names = Message::Peers { records: vec![record(3), record(4)], relays: 2 };
    node.hear(Duration::ZERO, LINK, vec![names]);
    assert_eq!(node.protocol.counters().records_received, 0);
    assert_eq!(goodbyes(&node.said_to(LINK)), []);
}

#[test]
fn at_an_address_of_an_invite_only_its_peer_may_answer() {
    let (pinned, own, free) = ("192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3");
    let mut config = Config::lan();
    for (text, pin) in [(pinned, Some(PEER)), (own, Some(ME)), (free, None)] {
        let endpoint: Endpoint = text.parse().unwrap();
        config.discovery.bootstrap.push(endpoint.with_pin(pin.map(id)));
    }
    let mut node = Protocol::new(&config, 1, record(ME), [1; 32], Restored::default());
    node.handle(MonoTime::ZERO, WallTime::from_millis(START), Input::Timeout);
    let mut dialled = Vec::new();
    while let Some(output) = node.poll_output() {
        if let Output::Dial { endpoint, expected, .. } = output {
            dialled.push((endpoint.to_string(), expected));
        }
    }
    dialled.sort();
    assert_eq!(dialled, [(pinned.to_owned(), Some(id(PEER))), (free.to_owned(), None)]);
}
