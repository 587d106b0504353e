//! Every checker bites: shown a violation, it says so; shown the like that is allowed, it does not.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::check::*;
use super::*;
use crate::Identity;
use crate::error::{RequestError, StoreErrorKind};
use crate::protocol::{Assurance, CallId, DialId, Input, Judgement, LinkView, Output, Ticket};
use crate::types::{
    ALL_PIECES, Announcement, Ban, Bound, Direction, FEATURES, Head, Header, Hello, Interest,
    LinkId, Message, NewEntry, Offer, PIECE_BYTES, PeerId, PeerRecord, Piece, PieceRange, Range,
    RangeContent, Reconcile, RecordDraft, Reservation, StoredPeer, Topic, TopicKey, Transaction,
    TransportKind, Verdict, WallTime,
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

/// Three nodes with a link between any two, and what they say to each other.
mod triangle {
    use super::*;

    fn record(node: u8) -> PeerRecord {
        let me = Identity::from_seed([node; 32]);
        let issued = WallTime::from_millis(1);
        me.sign_record(RecordDraft { peer: me.peer_id(), seq: 1, issued, endpoints: Vec::new() })
    }

    fn hello(node: u8) -> Message {
        Message::Hello(Box::new(Hello {
            network: String::new(),
            version_min: 1,
            version_max: 1,
            features: FEATURES,
            incarnation: 1,
            max_transaction: 1,
            record: record(node),
            observed: None,
            interest: Interest::default(),
            owes: false,
            clock: None,
            proofs: Vec::new(),
            complete_since: None,
            takes_over: false,
        }))
    }

    /// The end at `of` of its link to `to`.
    pub(super) fn end(of: u8, to: u8) -> LinkId {
        let pipe = u64::from(of.min(to) * 3 + of.max(to));
        crate::sim::link_id::link_of(pipe, usize::from(of > to))
    }

    pub(super) enum Step {
        Sends(u8, u8, Message),
        Gets(u8, u8, Message),
        Loses(u8, u8),
    }

    pub(super) fn reserve(from: u32, count: u32) -> Message {
        let (id, ranges) = (transaction().id(), vec![PieceRange { first: from, count }]);
        let (head, force, narrow) = (false, false, false);
        Message::Reserve(Reservation { id, place: 256, head, force, narrow, ranges })
    }

    pub(super) fn back() -> Message {
        let (id, ranges) = (transaction().id(), Vec::new());
        let (head, force, narrow) = (false, false, true);
        Message::Reserve(Reservation { id, place: 256, head, force, narrow, ranges })
    }

    /// Reports whether a checker finds something in what follows the hellos.
    pub(super) fn bites(checker: impl Checker, steps: &[Step]) -> bool {
        let mut all = Vec::new();
        for (of, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let remote = record(to).peer();
            let (link, kind, address) = (end(of, to), TransportKind::Memory, None);
            let assurance = Assurance::default();
            let opened = Input::LinkOpened { link, remote, kind, address, dial: None, assurance };
            all.push((of, Ok(opened)));
            all.push((of, Err(Output::Send { link, message: hello(of) })));
        }
        all.extend(steps.iter().map(|step| match step {
            Step::Sends(of, to, message) => {
                (*of, Err(Output::Send { link: end(*of, *to), message: message.clone() }))
            }
            Step::Gets(of, to, message) => {
                let (link, messages) = (end(*of, *to), vec![message.clone()]);
                (*of, Ok(Input::Received { link, messages, bytes: 1 }))
            }
            Step::Loses(of, to) => (*of, Ok(Input::LinkClosed { link: end(*of, *to) })),
        }));
        let calm = Seen::Calm { nodes: &[] };
        let seen = all.iter().map(|(node, what)| match what {
            Ok(input) => Seen::Input { node: usize::from(*node), input },
            Err(output) => Seen::Output { node: usize::from(*node), output },
        });
        super::bites(checker, &seen.chain([calm]).collect::<Vec<_>>())
    }
}

#[test]
fn one_parent() {
    use triangle::{Step, back, bites, reserve};
    let check = |steps: &[Step]| bites(OneParent::default(), steps);
    let first = || Step::Sends(0, 1, reserve(0, 8));
    let other = |from| Step::Sends(0, 2, reserve(from, 2));
    assert!(check(&[first(), other(7)]));
    assert!(!check(&[first(), other(8)]), "different pieces");
    assert!(!check(&[first(), Step::Sends(0, 1, reserve(0, 7)), other(7)]), "asked for less");
    assert!(!check(&[first(), Step::Sends(0, 1, back()), other(0)]), "taken back");
    assert!(!check(&[first(), Step::Loses(0, 1), other(0)]), "its link is gone");
    assert!(!check(&[first(), Step::Sends(1, 2, reserve(0, 8))]), "of another node");
    let busy = || Message::Busy(vec![transaction().id()]);
    assert!(check(&[first(), Step::Sends(1, 0, busy()), other(0)]), "it cannot know yet");
    assert!(!check(&[first(), Step::Gets(0, 1, busy()), other(0)]), "refused");
    let leave = || Step::Sends(0, 1, Message::Switch { step: 1 });
    assert!(!check(&[first(), leave(), other(0)]), "what takes it back may wait");
    let again = Step::Sends(0, 1, Message::Receiving { id: transaction().id(), place: 0 });
    assert!(check(&[first(), leave(), again, other(0)]), "the link stays as it is");
    let mut here = Message::Piece(Piece {
        id: transaction().id(),
        index: 7,
        bytes: Bytes::new(),
        proof: Bytes::new(),
    });
    assert!(!check(&[first(), Step::Gets(0, 1, here.clone()), Step::Sends(0, 2, reserve(7, 1))]));
    if let Message::Piece(piece) = &mut here {
        piece.index = 6;
    }
    assert!(check(&[first(), Step::Gets(0, 1, here), Step::Sends(0, 2, reserve(7, 1))]));
}

#[test]
fn reservation_acyclic() {
    use triangle::{Step, back, bites, reserve};
    let check = |steps: Vec<Step>| bites(ReservationAcyclic::default(), &steps);
    let all = || reserve(0, ALL_PIECES);
    let asks = |of, to| [Step::Sends(of, to, all()), Step::Gets(to, of, all())];
    let two = || asks(0, 1).into_iter().chain(asks(1, 2));
    assert!(!check(two().collect()), "a line");
    assert!(check(two().chain(asks(2, 0)).collect()), "a ring of three");
    assert!(check(asks(0, 1).into_iter().chain(asks(1, 0)).collect()), "a ring of two");
    // On its way it is not waited for.
    let sent = || two().chain([Step::Sends(2, 0, all())]);
    assert!(!check(sent().collect()));
    let missing = || Message::Missing(vec![transaction().id()]);
    let refused = [Step::Gets(0, 2, all()), Step::Sends(0, 2, missing())];
    assert!(!check(sent().chain(refused).collect()), "refused when it came");
    assert!(!check(two().chain([Step::Sends(1, 0, missing())]).chain(asks(2, 0)).collect()));
    assert!(!check(two().chain([Step::Sends(0, 1, back())]).chain(asks(2, 0)).collect()));
    // Dead at one end is dead.
    for (of, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        assert!(!check(two().chain([Step::Loses(of, to)]).chain(asks(2, 0)).collect()));
    }
    // Without a place, only who has all of it serves.
    let mut blind = all();
    if let Message::Reserve(reservation) = &mut blind {
        reservation.place = 0;
    }
    let blind = [Step::Sends(2, 0, blind.clone()), Step::Gets(0, 2, blind)];
    assert!(!check(two().chain(blind).collect()));
}

#[test]
fn bounded() {
    let turn = |value| {
        let gauges = [Gauge { name: "queue", value, bound: 3 }];
        bites(Bounded, &[Seen::Turn { node: 0, links: &[], gauges: &gauges }])
    };
    assert!(turn(4) && !turn(3));
}

fn opened() -> Input {
    let (remote, kind) = (PeerId::from_bytes([7; 32]), TransportKind::Memory);
    let assurance = Assurance::default();
    Input::LinkOpened { link: LINK, remote, kind, address: None, dial: None, assurance }
}

#[test]
fn control_first() {
    let (full, small) = (piece(PIECE_BYTES), piece(1));
    let Output::Send { message, .. } = &full else { unreachable!() };
    let sent = Input::Sent { link: LINK, weight: message.weight(), bytes: 1 };
    let opened = opened();
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
fn records_monotone() {
    let save = |seq| {
        let me = Identity::from_seed([1; 32]);
        let issued = WallTime::from_millis(1);
        let draft = RecordDraft { peer: me.peer_id(), seq, issued, endpoints: Vec::new() };
        Output::SavePeer(Box::new(StoredPeer {
            record: Some(me.sign_record(draft)),
            ..StoredPeer::new(me.peer_id())
        }))
    };
    let (old, new) = (save(4), save(5));
    assert!(bites(RecordsMonotone::default(), &[done(&new), done(&old)]));
    assert!(!bites(RecordsMonotone::default(), &[done(&old), done(&new), done(&new)]));
    // The peer itself may take a number back, on a link of its own, and nobody else for it.
    let said = |by: u8, seq| {
        let (me, remote) = (Identity::from_seed([1; 32]), Identity::from_seed([by; 32]).peer_id());
        let issued = WallTime::from_millis(1);
        let draft = RecordDraft { peer: me.peer_id(), seq, issued, endpoints: Vec::new() };
        let records = vec![me.sign_record(draft)];
        let messages = vec![Message::Peers { records, relays: 0 }];
        let (link, kind) = (LinkId(1), TransportKind::Memory);
        let (address, dial, assurance) = (None, None, Assurance::default());
        let opened = Input::LinkOpened { link, remote, kind, address, dial, assurance };
        (opened, Input::Received { link, messages, bytes: 1 })
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
    };
    let turn =
        |links: &[LinkView]| bites(OneLinkPerPeer, &[Seen::Turn { node: 0, links, gauges: &[] }]);
    assert!(turn(&[link(1, 7), link(2, 7)]));
    assert!(!turn(&[link(1, 7), link(2, 8)]));
}

#[test]
fn breakers_hold() {
    let peer = PeerId::from_bytes([7; 32]);
    let (whose, address) = (Some(peer), None::<String>);
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
    let late = Input::DialFailed {
        dial: DialId(1),
        reason: crate::types::FailureKind::Timeout,
        detail: String::new(),
    };
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
    let opened = opened();
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
    // A promise that was not stored.
    let mut world = overlay(WorldConfig::new(1, 2));
    world.show(&Seen::Calm { nodes: &[holds(0, 0, false, true)] });
    assert_eq!(world.violations().len(), 1);
    assert_eq!(world.violations()[0].checker, "no_loss");
}

#[test]
fn a_replay_without_end_or_with_two_bites() {
    let me = Identity::from_seed([1; 32]);
    let issued = WallTime::from_millis(1);
    let draft = RecordDraft { peer: me.peer_id(), seq: 1, issued, endpoints: Vec::new() };
    let hello = |owes| {
        Message::Hello(Box::new(Hello {
            network: String::new(),
            version_min: 1,
            version_max: 1,
            features: FEATURES,
            incarnation: 1,
            max_transaction: 1,
            record: me.sign_record(draft.clone()),
            observed: None,
            interest: Interest::default(),
            owes,
            clock: None,
            proofs: Vec::new(),
            complete_since: None,
            takes_over: false,
        }))
    };
    let opened = opened();
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

#[test]
fn in_order() {
    let opened = |link| {
        let (kind, assurance) = (TransportKind::Memory, Assurance::default());
        let remote = PeerId::from_bytes([7; 32]);
        Input::LinkOpened { link, remote, kind, address: None, dial: None, assurance }
    };
    let says = |link, message| Output::Send { link, message };
    let hears = |link, message| Input::Received { link, messages: vec![message], bytes: 9 };
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
    let opens = [OLD, NEW].map(|ends| ends.map(opened));
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
    let opened = |link| {
        let (kind, assurance) = (TransportKind::Memory, Assurance::default());
        let remote = PeerId::from_bytes([7; 32]);
        Input::LinkOpened { link, remote, kind, address: None, dial: None, assurance }
    };
    let hello = |takes_over| {
        let identity = Identity::from_seed([3; 32]);
        let (peer, issued) = (identity.peer_id(), WallTime::from_millis(1));
        let draft = RecordDraft { peer, seq: 1, issued, endpoints: Vec::new() };
        Message::Hello(Box::new(Hello {
            network: String::new(),
            version_min: 1,
            version_max: 1,
            features: FEATURES,
            incarnation: 1,
            max_transaction: 1,
            record: identity.sign_record(draft),
            observed: None,
            interest: Interest::default(),
            owes: true,
            clock: None,
            proofs: Vec::new(),
            complete_since: None,
            takes_over,
        }))
    };
    let says = |link, message| Output::Send { link, message };
    let hears = |link, message| Input::Received { link, messages: vec![message], bytes: 9 };
    let [old, new] = [OLD[0], NEW[0]].map(opened);
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
    let peer = PeerId::from_bytes([7; 32]);
    let ask = |call: u64, body: &'static [u8]| Input::Request {
        call: CallId(call),
        peer,
        protocol: "p".to_owned(),
        body: Bytes::from_static(body),
        within: secs(5),
        trace: None,
    };
    let handle = |ticket, body: &'static [u8]| Output::Requested {
        ticket: Ticket(ticket),
        peer,
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
    let hostile = Seen::Hostile { peer };
    assert!(!check(&[hostile, given(&asked), does(&other), done(&false_one)]));
}
