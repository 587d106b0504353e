//! Every checker bites: shown a violation, it says so; shown the like that is allowed, it does not.

mod links;
mod reservations;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::check::*;
use super::*;
use crate::Identity;
use crate::error::{RequestError, StoreErrorKind};
use crate::protocol::{Assurance, CallId, Input, Judgement, Output, Ticket};
use crate::types::{
    Announcement, Ban, Bound, FEATURES, Head, Header, Hello, Interest, LinkId, Message, NewEntry,
    Offer, PIECE_BYTES, PeerId, PeerRecord, Piece, Range, RangeContent, Reconcile, RecordDraft,
    StoredPeer, Topic, TopicKey, Transaction, TransportKind, Verdict, WallTime,
};

const LINK: LinkId = LinkId(1);
const PEER: PeerId = PeerId::from_bytes([7; 32]);

fn transaction() -> Transaction {
    let me = Identity::from_seed([1; 32]);
    let (from, to) = (WallTime::from_millis(1), WallTime::from_millis(1000));
    let header = Header::new(Topic::new("t").unwrap(), me.peer_id(), from, to, b"x");
    me.sign_transaction(header, bytes::Bytes::from_static(b"x")).unwrap()
}

fn store(ticket: u64, own: bool) -> Output {
    let keep_until = WallTime::from_millis(1000);
    let entry = NewEntry { transaction: transaction(), from: None, hops: 0, keep_until };
    if own {
        Output::StoreOwn { ticket: Ticket(ticket), entries: vec![entry] }
    } else {
        Output::Store { ticket: Ticket(ticket), entry, is_news: true }
    }
}

fn publish() -> Input {
    Input::Publish { call: CallId(1), transactions: vec![transaction()], renews: None }
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

fn holds(node: usize, group: usize, stored: bool, promised: bool) -> Holdings {
    let set = |there: bool| there.then(|| transaction().id()).into_iter().collect();
    let not_carried = BTreeSet::new();
    Holdings { node, group, stored: set(stored), not_carried, promised: set(promised) }
}

fn opened(link: LinkId, remote: PeerId) -> Input {
    let (kind, assurance) = (TransportKind::Memory, Assurance::default());
    Input::LinkOpened { link, remote, kind, address: None, dial: None, assurance }
}

/// A record of the peer with this seed.
fn record(peer: u8, seq: u64) -> PeerRecord {
    let (me, issued) = (Identity::from_seed([peer; 32]), WallTime::from_millis(1));
    me.sign_record(RecordDraft { peer: me.peer_id(), seq, issued, endpoints: Vec::new() })
}

fn hello(peer: u8) -> Hello {
    Hello {
        network: String::new(),
        version_min: 1,
        version_max: 1,
        features: FEATURES,
        incarnation: 1,
        max_transaction: 1,
        record: record(peer, 1),
        observed: None,
        interest: Interest::default(),
        owes: false,
        clock: None,
        proofs: Vec::new(),
        dial_back: 0,
        complete_since: None,
        takes_over: false,
    }
}

#[test]
fn no_loss() {
    let calm = |nodes: &[Holdings]| bites(NoLoss, &[Seen::Calm { nodes }]);
    assert!(calm(&[holds(0, 0, true, false), holds(1, 0, false, false)]));
    assert!(calm(&[holds(0, 0, false, true)]), "a broken promise");
    assert!(!calm(&[holds(0, 0, true, true), holds(1, 1, false, false)]), "not connected");
    let not_carried = [transaction().id()].into();
    let edge = Holdings { not_carried, ..holds(1, 0, false, false) };
    assert!(!calm(&[holds(0, 0, true, true), edge]), "of no topic of its");
}

#[test]
fn at_most_once() {
    let (first, second, own) = (store(1, false), store(2, false), store(2, true));
    let failed = stored(1, Err(StoreErrorKind::Full));
    assert!(bites(AtMostOnce::default(), &[done(&first), done(&second)]));
    assert!(!bites(AtMostOnce::default(), &[done(&first), given(&failed), done(&second)]));
    assert!(!bites(AtMostOnce::default(), &[done(&first), done(&own)]), "into the outbox");
    let on_disk = [transaction().id()];
    let started = Seen::Started { node: 0, stored: &on_disk, blank: false };
    assert!(bites(AtMostOnce::default(), &[started, done(&first)]), "across a restart");
}

#[test]
fn store_before_published() {
    let publish = publish();
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
    let list = Range { upper: Bound::MAX, content: RangeContent::All(vec![(id, 1)]) };
    let ask = Reconcile { session: 1, lower: Bound::MIN, ranges: vec![list] };
    let ask = Output::Send { link: LINK, message: Message::Ask(Box::new(ask)) };
    for sent in [&push(), &piece(1), &announce, &ask, &offer(false)] {
        assert!(check(&[done(&verify), done(sent)]));
        assert!(check(&[done(&verify), given(&reject), done(sent)]));
        assert!(!check(&[done(&verify), given(&accept), done(sent)]));
    }
}

fn offer(complete: bool) -> Output {
    let head = Head::of(&transaction());
    let offer = Box::new(Offer { head, hop: 0, place: 1, complete });
    Output::Send { link: LINK, message: Message::Offer(offer) }
}

#[test]
fn verify_before_forward_of_what_comes_in_pieces() {
    let Output::Send { message: Message::Piece(one), .. } = piece(1) else { unreachable!() };
    let head = Output::VerifyHead { ticket: Ticket(1), head: Head::of(&transaction()) };
    let signed = |result| Input::HeadVerified { ticket: Ticket(1), result };
    let (good, bad) = (signed(Ok(())), signed(Err(crate::types::InvalidTransaction::Signature)));
    let verify = |len| {
        let (ticket, root, piece) = (Ticket(2), [0; 32], one.clone());
        Output::VerifyPiece { ticket, root, len, piece }
    };
    let (whole, half) = (verify(1), verify(2 * PIECE_BYTES as u64));
    let right = |valid| Input::PieceVerified { ticket: Ticket(2), valid };
    let (right, wrong) = (right(true), right(false));
    let check = |seen: &[Seen<'_>]| bites(VerifyBeforeForward::default(), seen);
    let (ahead, complete) = (offer(false), offer(true));
    assert!(check(&[done(&head), done(&ahead)]), "nobody knows whether it is signed");
    assert!(check(&[done(&head), given(&bad), done(&ahead)]));
    assert!(!check(&[done(&head), given(&good), done(&ahead)]));
    let part = [done(&head), given(&good), done(&half), given(&right)];
    assert!(check(&[&part[..], &[done(&complete)]].concat()), "half of it is here");
    assert!(!check(&[&part[..], &[done(&piece(1))]].concat()), "and may be passed on");
    assert!(check(&[done(&head), given(&good), done(&half), given(&wrong), done(&piece(1))]));
    assert!(check(&[done(&half), given(&right), done(&piece(1))]), "nobody signed it");
    let all = [done(&head), given(&good), done(&whole), given(&right)];
    assert!(!check(&[&all[..], &[done(&complete)]].concat()));
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
fn records_monotone() {
    let save = |seq| {
        let record = record(1, seq);
        let known = StoredPeer::new(record.peer());
        Output::SavePeer(Box::new(StoredPeer { record: Some(record), ..known }))
    };
    let (old, new) = (save(4), save(5));
    assert!(bites(RecordsMonotone::default(), &[done(&new), done(&old)]));
    assert!(!bites(RecordsMonotone::default(), &[done(&old), done(&new), done(&new)]));
    // The peer itself may take a number back, on a link of its own, and nobody else for it.
    let said = |by: u8, seq| {
        let messages = vec![Message::Peers { records: vec![record(1, seq)], relays: 0 }];
        let opened = opened(LINK, Identity::from_seed([by; 32]).peer_id());
        (opened, Input::Received { link: LINK, messages, bytes: 1 })
    };
    let ((opened, by_itself), (other, by_other)) = (said(1, 4), said(2, 4));
    let excused = [done(&new), given(&opened), given(&by_itself), done(&old)];
    assert!(!bites(RecordsMonotone::default(), &excused));
    let hearsay = [done(&new), given(&other), given(&by_other), done(&old)];
    assert!(bites(RecordsMonotone::default(), &hearsay));
    let between = save(3);
    let back = [&excused[..], &[done(&between)]].concat();
    assert!(bites(RecordsMonotone::default(), &back), "lower than ever, and not said");
}

#[test]
fn no_ban_for_loss() {
    let ban = Output::SaveBan(Ban { peer: PEER, until: None, reason: "slow".to_owned() });
    assert!(bites(NoBanForLoss { hostile: BTreeSet::new() }, &[done(&ban)]));
    assert!(!bites(NoBanForLoss { hostile: [PEER].into() }, &[done(&ban)]));
}

#[test]
fn unwanted() {
    let (topic, other) = (TopicKey::of(transaction().topic()), TopicKey(7));
    let theirs = |depth, via, topics: Option<&[TopicKey]>| {
        let topics = topics.map(<[_]>::to_vec);
        let interest = Interest { depth, makeshift: false, via, topics };
        Input::Received { link: LINK, messages: vec![Message::Interest(interest)], bytes: 1 }
    };
    let record = record(1, 1);
    let here = Interest::short(&record.peer());
    let (record, opened) = (Input::Record(record), opened(LINK, PEER));
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
    let publish = publish();
    for sent in [&push(), &announce] {
        let not = theirs(2, 0, Some(&[other]));
        assert!(check(&[given(&publish), given(&not), done(sent)]));
        assert!(check(&[given(&publish), given(&theirs(3, 0, Some(&[]))), done(sent)]));
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
    // A promise that was not stored.
    let mut world = overlay(WorldConfig::new(1, 2));
    world.show(&Seen::Calm { nodes: &[holds(0, 0, false, true)] });
    assert_eq!(world.violations().len(), 1);
    assert_eq!(world.violations()[0].checker, "no_loss");
}

/// What another node is given, and does.
fn heard(input: &Input) -> Seen<'_> {
    Seen::Input { node: 1, input }
}

fn does(output: &Output) -> Seen<'_> {
    Seen::Output { node: 1, output }
}

#[test]
fn requests_once() {
    let body = Bytes::from_static(b"body");
    let ask = |call: u64, body: &'static [u8]| Input::Request {
        call: CallId(call),
        peer: PEER,
        protocol: "p".to_owned(),
        body: Bytes::from_static(body),
        within: secs(5),
        trace: None,
    };
    let handle = |ticket, body: &'static [u8]| Output::Requested {
        ticket: Ticket(ticket),
        peer: PEER,
        protocol: "p".to_owned(),
        body: Bytes::from_static(body),
        within: secs(5),
        trace: None,
    };
    let says = |ticket, body: &'static [u8]| Input::Answer {
        ticket: Ticket(ticket),
        result: Ok(Bytes::from_static(body)),
    };
    let answered = |result| Output::Answered { call: CallId(1), result };
    let (asked, cancel) = (ask(1, b"body"), Input::CancelRequest { call: CallId(1) });
    let (good, other, twice) = (handle(1, b"body"), handle(1, b"bodY"), handle(2, b"body"));
    let (said, whole) = (says(1, b"body"), answered(Ok(body)));
    let false_one = answered(Ok(Bytes::from_static(b"bodies")));
    let unsent = answered(Err(RequestError::LinkLost { sent: false }));
    let gone = Output::RequestCancelled { ticket: Ticket(1) };
    let check = |seen: &[Seen<'_>]| bites(RequestsOnce::default(), seen);
    let round = [given(&asked), does(&good), heard(&said)];
    assert!(!check(&[&round[..], &[done(&whole)]].concat()));
    assert!(check(&[&round[..], &[done(&whole), done(&whole)]].concat()), "two answers");
    assert!(check(&[&round[..], &[given(&cancel), done(&whole)]].concat()), "cancelled");
    assert!(check(&[&round[..], &[done(&false_one)]].concat()), "an answer that nobody gave");
    assert!(check(&[given(&asked), does(&other)]), "another body");
    assert!(check(&[&round[..], &[does(&twice)]].concat()), "handled twice");
    assert!(check(&[given(&asked), done(&unsent), does(&good)]), "told that it was not sent");
    assert!(check(&[&round[..2], &[done(&unsent)]].concat()), "the same, afterwards");
    let later = [Seen::Time { now: secs(6) }, given(&cancel)];
    assert!(check(&[&[given(&asked)], &later[..]].concat()), "not in its time");
    assert!(!check(&[&[given(&asked), done(&unsent)], &later[..]].concat()));
    assert!(check(&[&round[..2], &[Seen::Time { now: secs(6) }, heard(&said)]].concat()));
    assert!(check(&[&round[..], &[does(&gone)]].concat()), "cancelled after its answer");
    assert!(!check(&[&round[..2], &[does(&gone), heard(&said)]].concat()));
    let hostile = Seen::Hostile { peer: PEER };
    assert!(!check(&[hostile, given(&asked), does(&other), done(&false_one)]));
}
