//! What a core tells of transactions: message by message, and the bounds of what it remembers.

use crate::config::Config;
use crate::error::StoreErrorKind;
use crate::protocol::rng::Rng;
use crate::protocol::trail::{Trails, What};
use crate::protocol::{CallId, Input, Judgement};
use crate::types::{
    Announcement, Explanation, Hello, Interest, LinkId, Message, MonoTime, PeerId, Refusal, Topic,
    TopicKey, TransactionId, TransportKind, Verdict, WallTime,
};

use super::liars::{invented, signed};
use super::single_node::{START, SingleNode, greeting, transaction};
use super::{Duration, millis, secs};

fn lone() -> SingleNode {
    SingleNode::new(1, &Config::lan(), Vec::new())
}

fn publish(node: &mut SingleNode, now: Duration, bytes: usize) -> TransactionId {
    let transaction = signed(1, bytes, 1);
    let id = transaction.id();
    let transactions = vec![transaction];
    node.feed(now, Input::Publish { call: CallId(1), transactions, renews: None });
    id
}

/// Returns what is told, each step by kind, with the number of the link whose peer it names.
fn steps(told: &Explanation, links: &[LinkId]) -> Vec<(String, u64)> {
    let number = |peer: PeerId| {
        let of = |link: &&LinkId| {
            let seed = u8::try_from(link.0).unwrap();
            crate::identity::Identity::from_seed([seed; 32]).peer_id() == peer
        };
        links.iter().find(of).map_or(u64::MAX, |link| link.0)
    };
    told.steps.iter().map(|step| (step.what.clone(), step.peer.map_or(0, number))).collect()
}

fn named(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(what, peer)| ((*what).to_owned(), *peer)).collect()
}

#[test]
fn an_own_transaction_is_told_from_its_publish_to_its_confirmation() {
    let (mut node, now) = (lone(), secs(1));
    let id = publish(&mut node, now, 500);
    let told = node.protocol.explain(&id);
    assert_eq!((told.state.as_str(), told.own, told.links), ("pending", true, 0));
    assert_eq!((told.size, told.topic.as_ref().map(Topic::as_str)), (Some(500), Some("t")));
    assert_eq!(steps(&told, &[]), named(&[("published", 0)]));
    assert_eq!(told.steps[0].at, WallTime::from_millis(START + 1000));

    let peer = node.meet(secs(2), 3);
    node.wake(secs(3));
    node.hear(secs(4), peer, vec![Message::Want(vec![id])]);
    node.hear(secs(5), peer, vec![Message::Stored(vec![id])]);
    let told = node.protocol.explain(&id);
    assert_eq!((told.state.as_str(), told.links, told.left_out), ("confirmed", 1, 0));
    let expected = [("published", 0), ("announced", 3), ("wanted", 3), ("served", 3)];
    let expected: Vec<_> = expected.into_iter().chain([("confirmed", 3)]).collect();
    assert_eq!(steps(&told, &[peer]), named(&expected));
    let last = told.steps.last().unwrap();
    assert_eq!(last.transport, Some(TransportKind::Memory));
    assert_eq!(last.at, WallTime::from_millis(START + 5000));
}

#[test]
fn a_foreign_transaction_is_told_until_it_is_forgotten() {
    let (mut node, now) = (lone(), secs(1));
    let (from, to) = (node.meet(now, 3), node.meet(now, 4));
    let transaction = transaction(1, 0);
    let id = transaction.id();
    node.hear(now, from, vec![Message::Push { transaction, hop: 2 }]);
    node.wake(secs(2));
    let told = node.protocol.explain(&id);
    assert_eq!((told.state.as_str(), told.own), ("stored", false));
    assert_eq!(told.origin, Some(PeerId::from_bytes([9; 32])));
    assert_eq!((told.steps[0].what.as_str(), told.steps[0].hop), ("accepted", Some(3)));
    let told = steps(&told, &[from, to]);
    assert_eq!(told[0], ("accepted".to_owned(), 3));
    assert!(told[1..].iter().any(|(what, _)| what == "stored"), "{told:?}");
    let offered =
        |(what, to): &(String, u64)| (what == "pushed" || what == "announced") && *to == 4;
    assert!(told.iter().any(offered), "{told:?}");
    assert!(!told.iter().any(|(what, to)| what != "offered" && what != "accepted" && *to == 3));

    let mut at = secs(2);
    while node.protocol.contains(&id) {
        at += secs(10);
        assert!(at < secs(3 * 3600), "it expires");
        node.wake(at);
    }
    let told = node.protocol.explain(&id);
    assert_eq!(told.state, "expired");
    assert_eq!(told.steps.last().unwrap().what, "expired");
}

#[test]
fn what_is_on_its_way_names_who_has_it() {
    let (mut node, now) = (lone(), secs(1));
    let peer = node.meet(now, 3);
    let (id, size) = (invented(7), 4);
    node.hear(now, peer, vec![Message::Announce(vec![Announcement { id, size, hop: 1 }])]);
    let told = node.protocol.explain(&id);
    assert_eq!((told.state.as_str(), told.size), ("pending", Some(4)));
    assert_eq!(steps(&told, &[peer]), named(&[("announced_by", 3)]));
    node.wake(secs(2));
    let told = node.protocol.explain(&id);
    assert_eq!(steps(&told, &[peer]), named(&[("announced_by", 3), ("asked", 3)]));
    let nothing = node.protocol.explain(&invented(8));
    assert_eq!((nothing.state.as_str(), nothing.steps.len()), ("unknown", 0));
}

#[test]
fn a_refusal_tells_its_reason_and_what_the_header_says() {
    let (mut node, now) = (lone(), secs(1));
    node.verdict = |_| Judgement::Verdict(Verdict::Reject);
    let peer = node.meet(now, 3);
    let rejected = transaction(1, 0);
    let late = transaction(2, 40 * 24 * 3_600_000);
    let ids = (rejected.id(), late.id());
    node.hear(now, peer, vec![Message::Push { transaction: rejected, hop: 1 }]);
    node.hear(now, peer, vec![Message::Push { transaction: late, hop: 1 }]);
    let told = node.protocol.explain(&ids.0);
    assert_eq!((told.state.as_str(), told.size), ("refused", Some(4)));
    assert_eq!(told.origin, Some(PeerId::from_bytes([9; 32])));
    assert_eq!(told.topic.as_ref().map(Topic::as_str), Some("t"));
    assert_eq!(steps(&told, &[peer]), named(&[("refused", 3)]));
    assert_eq!(told.steps[0].reason.as_deref(), Some("rejected"));
    let told = node.protocol.explain(&ids.1);
    assert_eq!(told.steps[0].reason.as_deref(), Some("expired"));
    // Of an announcement nothing but the size is known.
    let (id, size) = (invented(9), 1 << 40);
    node.hear(now, peer, vec![Message::Announce(vec![Announcement { id, size, hop: 1 }])]);
    let told = node.protocol.explain(&id);
    assert_eq!((told.state.as_str(), told.topic), ("refused", None));
    assert_eq!(told.steps[0].reason.as_deref(), Some("too_large"));
}

#[test]
fn refusals_by_peers_and_what_follows_are_told() {
    let (mut node, now) = (lone(), secs(1));
    let peer = node.meet(now, 3);
    let id = publish(&mut node, now, 500);
    let refused = Message::Refused { list: vec![(id, Refusal::Rejected)], clock: None };
    node.hear(secs(2), peer, vec![refused]);
    let told = node.protocol.explain(&id);
    assert_eq!((told.state.as_str(), told.own), ("dead_letter", true));
    let reason = |what: &str| {
        let step = told.steps.iter().find(|step| step.what == what);
        step.and_then(|step| step.reason.clone()).unwrap_or_default()
    };
    assert_eq!(reason("refused_by"), "rejected");
    assert!(reason("dead_lettered").contains("validator"), "{told:?}");
    node.feed(secs(3), Input::Redeliver(id));
    let told = node.protocol.explain(&id);
    assert_eq!(told.state, "pending");
    assert!(told.steps.iter().any(|step| step.what == "redelivered"));
}

#[test]
fn how_matters_stand_on_each_link_is_told() {
    let (mut node, now) = (lone(), secs(1));
    let mut meet = |n: u8, hello: Hello| {
        let link = LinkId(u64::from(n));
        node.link_up(now, link, true, n);
        node.hear(now, link, vec![Message::Hello(Box::new(hello))]);
        link
    };
    let small = meet(3, Hello { max_transaction: 100, ..greeting(3) });
    let topics = Some(vec![TopicKey(1)]);
    let edge = Interest { depth: 1, topics, ..Interest::default() };
    let other = meet(4, Hello { interest: edge, ..greeting(4) });
    let taker = meet(5, greeting(5));
    let id = publish(&mut node, now, 500);
    node.wake(secs(2));
    let told = node.protocol.explain(&id);
    let standing = |link: LinkId, what: &str| {
        let of = steps(&told, &[link]);
        assert!(of.contains(&(what.to_owned(), link.0)), "{what}: {of:?}");
    };
    standing(small, "over_limit");
    standing(other, "not_carried");
    standing(taker, "offered");
    let limit = told.steps.iter().find(|step| step.what == "over_limit").unwrap();
    assert_eq!(limit.reason.as_deref(), Some("100"));
}

#[test]
fn what_the_store_did_not_keep_is_told() {
    let (mut node, now) = (lone(), secs(1));
    let peer = node.meet(now, 3);
    node.unstored = Some(Vec::new());
    let transaction = transaction(1, 0);
    let id = transaction.id();
    node.hear(now, peer, vec![Message::Push { transaction, hop: 1 }]);
    assert_eq!(node.protocol.explain(&id).state, "pending");
    let ticket = node.unstored.take().unwrap()[0];
    node.feed(now, Input::Stored { ticket, result: Err(StoreErrorKind::Full) });
    let told = node.protocol.explain(&id);
    assert_eq!(told.state, "refused");
    let step = told.steps.iter().rfind(|step| step.what == "not_stored").unwrap();
    assert_eq!(step.reason.as_deref(), Some("full"));
}

const SHARE: u64 = 256 << 10;

fn trails() -> Trails {
    Trails::new(&mut Rng::new([7; 32]), SHARE)
}

fn at(ms: u64) -> MonoTime {
    MonoTime::from_duration(millis(ms))
}

/// Accepts a transaction that the log gives the same number; returns that.
fn accept(trails: &mut Trails, n: u32) -> u64 {
    let seq = u64::from(n);
    trails.accept((seq, invented(n)), (0, 1), WallTime::from_millis(START), at(seq));
    seq
}

#[test]
fn accepted_ones_never_push_refusals_out() {
    let mut trails = trails();
    trails.seat(0, PeerId::from_bytes([3; 32]), TransportKind::Memory);
    let refused = invented(u32::MAX);
    trails.refuse(&refused, Some(0), Refusal::Rejected, at(1));
    trails.describe(&refused, transaction(1, 0).header());
    for n in 0..50_000 {
        let seq = accept(&mut trails, n);
        trails.note(seq, What::Stored, None, at(seq + 1));
        for slot in 0..12 {
            trails.note(seq, What::Announced, Some(slot), at(seq + 1));
        }
    }
    assert!(trails.bytes() <= SHARE, "{} bytes", trails.bytes());
    assert!(trails.bytes() > SHARE / 2, "{} bytes: room is used", trails.bytes());
    let (told, left_out) = trails.steps(&refused);
    assert_eq!((told.len(), left_out), (1, 0));
    assert_eq!(told[0].reason.as_deref(), Some("rejected"));
    assert_eq!(told[0].party.map(|(peer, _)| peer), Some(PeerId::from_bytes([3; 32])));
    // The newest are whole, the oldest gone, and those between lack their earliest steps.
    assert_eq!(trails.steps(&invented(49_999)).0.len(), 13);
    assert!(trails.acceptance(&invented(0)).is_none());
    let partly = (0..50_000).map(invented).find(|id| trails.acceptance(id).is_some());
    assert_eq!(trails.steps(&partly.unwrap()), (Vec::new(), 13));
}

#[test]
fn a_trail_is_found_by_its_number_wherever_the_log_has_others_between() {
    let mut trails = trails();
    // Every third number and, for a while, none: what is refused has numbers too.
    let numbers: Vec<u32> = (0..3000).filter(|n| n % 3 == 0 && !(900..1800).contains(n)).collect();
    for n in &numbers {
        accept(&mut trails, *n);
    }
    for n in 0..3100u32 {
        trails.note(u64::from(n), What::Stored, None, at(u64::from(n) + 7));
    }
    let mut found = 0;
    for n in &numbers {
        let id = invented(*n);
        let Some((began, ..)) = trails.acceptance(&id) else { continue };
        let (told, left_out) = trails.steps(&id);
        assert_eq!((told.len(), left_out, told[0].at), (1, 0, began + millis(7)), "{n}");
        assert_eq!(trails.seq_of(&id), Some(u64::from(*n)));
        found += 1;
    }
    assert_eq!(found, numbers.len(), "all are kept");
    assert_eq!(trails.seq_of(&invented(1)), None);
    // A number that is no news begins nothing.
    trails.accept((9, invented(77_777)), (0, 1), WallTime::from_millis(START), at(1));
    assert_eq!(trails.seq_of(&invented(77_777)), None);
}

#[test]
fn every_try_to_store_the_same_is_told() {
    let mut trails = trails();
    let id = invented(1);
    for seq in [4, 9] {
        trails.accept((seq, id), (0, 1), WallTime::from_millis(START), at(seq));
        trails.note(seq, What::Announced, Some(1), at(seq + 1));
    }
    assert_eq!(trails.acceptance(&id).map(|(at, ..)| at), Some(at(9)), "the latest");
    assert_eq!((trails.seq_of(&id), trails.steps(&id).0.len()), (Some(9), 2));
}

#[test]
fn refusals_are_bounded_whatever_their_topics() {
    let mut trails = trails();
    let mut header = transaction(1, 0).header().clone();
    header.topic = "x".repeat(255).parse().unwrap();
    for n in 0..20_000 {
        let id = invented(n);
        for _ in 0..3 {
            trails.refuse(&id, None, Refusal::WrongHash, at(u64::from(n)));
        }
        trails.describe(&id, &header);
        trails.note_renewed(&id, invented(n + 1), at(u64::from(n)));
        assert!(trails.bytes() <= SHARE, "{} bytes", trails.bytes());
    }
    let (told, _) = trails.steps(&invented(19_999));
    assert_eq!(told.len(), 4);
    assert_eq!(told[3].reason, Some(invented(20_000).to_string()));
    assert!(trails.facts(&invented(0)).is_none());
}

#[test]
fn one_trail_has_so_many_steps_and_counts_the_others() {
    let mut trails = trails();
    let seq = accept(&mut trails, 1);
    for n in 0..100u8 {
        trails.note(seq, What::Announced, Some(n), at(2));
    }
    for n in 0..100u8 {
        trails.note(seq, What::Confirmed, Some(n), at(3));
    }
    let (told, left_out) = trails.steps(&invented(1));
    let confirmed = told.iter().filter(|step| step.what == "confirmed").count();
    assert_eq!((told.len(), confirmed, left_out), (64, 32, 136), "offers leave room for others");
}

#[test]
fn names_are_kept_as_long_as_a_step_has_them() {
    let mut trails = trails();
    let peer = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        PeerId::from_bytes(id)
    };
    trails.seat(0, peer(1), TransportKind::GrpcStream);
    let seq = accept(&mut trails, 1);
    trails.note(seq, What::Pushed, Some(0), at(2));
    trails.seat(0, peer(1), TransportKind::Rest);
    trails.note(seq, What::Pushed, Some(0), at(3));
    trails.seat(0, peer(2), TransportKind::Rest);
    trails.note(seq, What::Pushed, Some(0), at(4));
    let names = |trails: &Trails| -> Vec<_> {
        trails.steps(&invented(1)).0.into_iter().map(|step| step.party).collect()
    };
    let expected = [
        Some((peer(1), TransportKind::GrpcStream)),
        Some((peer(1), TransportKind::Rest)),
        Some((peer(2), TransportKind::Rest)),
    ];
    assert_eq!(names(&trails), expected);
    // Peers that come and go leave names behind only where a step has them.
    for n in 10..100_000 {
        trails.seat(1, peer(n), TransportKind::Memory);
        if n < 20 {
            trails.note(seq, What::Wanted, Some(1), at(5));
        }
    }
    assert!(trails.bytes() < SHARE);
    assert_eq!(names(&trails)[..3], expected);
    assert_eq!(names(&trails)[12], Some((peer(19), TransportKind::Memory)));
}
