//! Every checker bites: shown a violation, it says so; shown the like that is allowed, it does not.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::check::*;
use super::super::unwanted::Unwanted;
use super::*;
use crate::Identity;
use crate::error::StoreErrorKind;
use crate::protocol::{CallId, Input, Judgement, LinkView, Output, Ticket};
use crate::types::{
    Announcement, Ban, Direction, Header, Interest, LinkId, Message, NewEntry, PIECE_BYTES, PeerId,
    Piece, RecordDraft, StoredPeer, Topic, TopicKey, Transaction, TransportKind, Verdict, WallTime,
};

const LINK: LinkId = LinkId(1);

fn transaction() -> Transaction {
    let me = Identity::from_seed([1; 32]);
    let (from, to) = (WallTime::from_millis(1), WallTime::from_millis(1000));
    let header = Header::new(Topic::new("t").unwrap(), me.peer_id(), from, to, b"x");
    me.sign_transaction(header, bytes::Bytes::from_static(b"x")).unwrap()
}

fn store(ticket: u64, own: bool) -> Output {
    let keep_until = WallTime::from_millis(1000);
    let entry = NewEntry { transaction: transaction(), from: None, hops: 0, keep_until };
    Output::Store { ticket: Ticket(ticket), entry, own }
}

fn stored(ticket: u64, result: Result<(), StoreErrorKind>) -> Input {
    Input::Stored { ticket: Ticket(ticket), result }
}

fn push() -> Output {
    Output::Send { link: LINK, message: Message::Push { transaction: transaction(), hop: 0 } }
}

fn piece(bytes: usize) -> Output {
    let id = transaction().id();
    let bytes = vec![0; bytes].into();
    Output::Send {
        link: LINK,
        message: Message::Piece(Piece { id, index: 0, bytes, proof: Bytes::new() }),
    }
}

/// Shows everything in order; whether the checker found something.
fn bites(mut checker: impl Checker, seen: &[Seen<'_>]) -> bool {
    let mut found = Vec::new();
    let checks: u64 = seen.iter().map(|s| checker.look(s, &mut found)).sum();
    assert!(checks > 0, "{} did not even look", checker.name());
    !found.is_empty()
}

fn given(input: &Input) -> Seen<'_> {
    Seen::Input { node: 0, input }
}

fn done(output: &Output) -> Seen<'_> {
    Seen::Output { node: 0, output }
}

fn holds(node: usize, group: usize, held: bool, promised: bool) -> Holdings {
    let set = |there: bool| there.then(|| transaction().id()).into_iter().collect();
    let spared = BTreeSet::new();
    Holdings { node, group, held: set(held), spared, promised: set(promised) }
}

#[test]
fn no_loss() {
    let calm = |nodes: &[Holdings]| bites(NoLoss, &[Seen::Calm { nodes }]);
    assert!(calm(&[holds(0, 0, true, false), holds(1, 0, false, false)]));
    assert!(calm(&[holds(0, 0, false, true)]), "a broken promise");
    assert!(!calm(&[holds(0, 0, true, true), holds(1, 1, false, false)]), "not connected");
    let spared = [transaction().id()].into();
    let edge = Holdings { spared, ..holds(1, 0, false, false) };
    assert!(!calm(&[holds(0, 0, true, true), edge]), "of no topic of its");
}

#[test]
fn at_most_once() {
    let (first, second, own) = (store(1, false), store(2, false), store(2, true));
    let failed = stored(1, Err(StoreErrorKind::Full));
    assert!(bites(AtMostOnce::default(), &[done(&first), done(&second)]));
    assert!(!bites(AtMostOnce::default(), &[done(&first), given(&failed), done(&second)]));
    assert!(!bites(AtMostOnce::default(), &[done(&first), done(&own)]), "into the outbox");
    let kept = [transaction().id()];
    let started = Seen::Started { node: 0, kept: &kept, blank: false };
    assert!(bites(AtMostOnce::default(), &[started, done(&first)]), "across a restart");
}

#[test]
fn store_before_published() {
    let publish = Input::Publish { call: CallId(1), transaction: transaction() };
    let answer = Output::Published { call: CallId(1), result: Ok(true) };
    let (store, good) = (store(1, true), stored(1, Ok(())));
    let bad = stored(1, Err(StoreErrorKind::Io));
    let check = |seen: &[Seen<'_>]| bites(StoreBeforePublished::default(), seen);
    assert!(check(&[given(&publish), done(&store), done(&answer)]));
    assert!(check(&[given(&publish), done(&store), given(&bad), done(&answer)]));
    assert!(check(&[done(&answer)]), "nobody asked");
    assert!(!check(&[given(&publish), done(&store), given(&good), done(&answer)]));
}

#[test]
fn verify_before_forward() {
    let id = transaction().id();
    let verify = Output::Verify {
        ticket: Ticket(1),
        transaction: transaction(),
        from: PeerId::from_bytes([1; 32]),
        proven: false,
    };
    let verdict =
        |verdict| Input::Verified { ticket: Ticket(1), judgement: Judgement::Verdict(verdict) };
    let (accept, reject) = (verdict(Verdict::Accept), verdict(Verdict::Reject));
    let announce = Output::Send {
        link: LINK,
        message: Message::Announce(vec![Announcement { id, size: 1, hop: 0 }]),
    };
    let check = |seen: &[Seen<'_>]| bites(VerifyBeforeForward::default(), seen);
    for sent in [&push(), &piece(1), &announce] {
        assert!(check(&[done(&verify), done(sent)]));
        assert!(check(&[done(&verify), given(&reject), done(sent)]));
        assert!(!check(&[done(&verify), given(&accept), done(sent)]));
    }
}

#[test]
fn bounded() {
    let turn = |value| {
        let gauges = [Gauge { name: "queue", value, bound: 3 }];
        bites(Bounded, &[Seen::Turn { node: 0, links: &[], gauges: &gauges }])
    };
    assert!(turn(4) && !turn(3));
}

#[test]
fn control_first() {
    let (full, small) = (piece(PIECE_BYTES), piece(1));
    let Output::Send { message, .. } = &full else { unreachable!() };
    let sent = Input::Sent { link: LINK, weight: message.weight(), bytes: 1 };
    assert!(bites(ControlFirst::default(), &[done(&full), done(&small)]));
    assert!(!bites(ControlFirst::default(), &[done(&full), given(&sent), done(&full)]));
}

#[test]
fn records_monotone() {
    let save = |seq| {
        let me = Identity::from_seed([1; 32]);
        let issued = WallTime::from_millis(1);
        let draft = RecordDraft { peer: me.peer_id(), seq, issued, endpoints: Vec::new() };
        Output::SavePeer(Box::new(StoredPeer {
            peer: me.peer_id(),
            record: Some(me.sign_record(draft)),
            verified: None,
            last_up: None,
            failures: 0,
        }))
    };
    let (old, new) = (save(4), save(5));
    assert!(bites(RecordsMonotone::default(), &[done(&new), done(&old)]));
    assert!(!bites(RecordsMonotone::default(), &[done(&old), done(&new), done(&new)]));
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
        age: Duration::ZERO,
        queued: 0,
        behind: 0,
        in_debt: false,
        depth: 0,
        relay: true,
    };
    let turn =
        |links: &[LinkView]| bites(OneLinkPerPeer, &[Seen::Turn { node: 0, links, gauges: &[] }]);
    assert!(turn(&[link(1, 7), link(2, 7)]));
    assert!(!turn(&[link(1, 7), link(2, 8)]));
}

#[test]
fn no_ban_for_loss() {
    let peer = PeerId::from_bytes([7; 32]);
    let ban = Output::SaveBan(Ban { peer, until: None, reason: "slow".to_owned() });
    assert!(bites(NoBanForLoss { hostile: BTreeSet::new() }, &[done(&ban)]));
    assert!(!bites(NoBanForLoss { hostile: [peer].into() }, &[done(&ban)]));
}

#[test]
fn unwanted() {
    let (topic, other) = (TopicKey::of(transaction().topic()), TopicKey(7));
    let theirs = |depth, via, topics: Option<&[TopicKey]>| {
        let topics = topics.map(<[_]>::to_vec);
        let interest = Interest { depth, makeshift: false, via, topics };
        Input::Received { link: LINK, messages: vec![Message::Interest(interest)], bytes: 1 }
    };
    let me = Identity::from_seed([1; 32]);
    let issued = WallTime::from_millis(1);
    let draft = RecordDraft { peer: me.peer_id(), seq: 1, issued, endpoints: Vec::new() };
    let record = Input::Record(me.sign_record(draft));
    let opened = Input::LinkOpened {
        link: LINK,
        remote: PeerId::from_bytes([7; 32]),
        kind: TransportKind::Memory,
        address: None,
        dial: None,
    };
    let ours = Interest { depth: 2, topics: Some(vec![other]), ..Interest::default() };
    let said = Output::Send { link: LINK, message: Message::Interest(ours) };
    let check = |seen: &[Seen<'_>]| {
        bites(Unwanted::default(), &[&[given(&record), given(&opened), done(&said)], seen].concat())
    };
    let id = transaction().id();
    let asked = Input::Received { link: LINK, messages: vec![Message::Want(vec![id])], bytes: 1 };
    let announce = Output::Send {
        link: LINK,
        message: Message::Announce(vec![Announcement { id, size: 1, hop: 0 }]),
    };
    let publish = Input::Publish { call: CallId(1), transaction: transaction() };
    for sent in [&push(), &announce] {
        let not = theirs(2, 0, Some(&[other]));
        assert!(check(&[given(&publish), given(&not), done(sent)]));
        assert!(check(&[given(&publish), given(&theirs(3, 0, Some(&[]))), done(sent)]));
        let here = Interest::short(&me.peer_id());
        assert!(
            check(&[given(&publish), given(&theirs(1, here, Some(&[]))), done(sent)]),
            "behind"
        );
        assert!(!check(&[given(&publish), given(&theirs(3, 0, Some(&[topic]))), done(sent)]));
        assert!(!check(&[given(&publish), given(&theirs(3, 0, None)), done(sent)]), "everything");
        assert!(!check(&[given(&publish), given(&theirs(1, 0, Some(&[]))), done(sent)]), "uphill");
        assert!(!check(&[given(&publish), given(&not), given(&asked), done(sent)]), "an answer");
    }
}

#[test]
fn a_world_reports_what_its_checkers_find() {
    // A promise that was not kept.
    let mut world = overlay(WorldConfig::new(1, 2));
    world.show(&Seen::Calm { nodes: &[holds(0, 0, false, true)] });
    assert_eq!(world.violations().len(), 1);
    assert_eq!(world.violations()[0].checker, "no_loss");
}
