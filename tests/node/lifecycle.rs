//! A node from start to end, and the next one of the same identity: readiness, events, limits of
//! the host's own doing, the validator, shutdown and restart.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use sorcha_peer::error::{PublishError, ReadyError, StartError, StoreErrorKind};
use sorcha_peer::ports::{StoredPeer, TransactionStore};
use sorcha_peer::types::unstable::{Announcement, Message, RecordDraft};
use sorcha_peer::types::{CloseReason, Direction, Refusal, WallTime};
use sorcha_peer::{
    Event, Mode, PeerId, PeerNode, PeerNodeBuilder, StartAt, Storage, Transaction, TransactionId,
    Validator, Verdict,
};

use crate::common::raw::RawPeer;
use crate::common::{
    HANG, address, assert_serves, assert_spreads, builder, config_with, counters, event, identity,
    ids, link_refusal, linked_pair, next, noise, ready, refusal, rest, soon, start, start_alone,
    start_beside, start_with, stats, stop, take, until,
};

/// Long enough for a hint to appear, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

async fn hint(node: &PeerNode) -> String {
    let error = node.wait_ready(1, SHORT).await.unwrap_err();
    let ReadyError::Timeout { links: 0, wanted: 1, waited: SHORT, hint } = error else {
        panic!("{error}")
    };
    hint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_ready_says_what_stands_in_the_way() {
    let alone = start_alone().await;
    assert!(hint(&alone).await.contains("no bootstrap peer is configured"));

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let astray = builder().bootstrap([&closed]).start().await.unwrap();
    let mut events = astray.events();
    event(&mut events, "a failed dial", |e| matches!(e, Event::DialFailed { .. }).then_some(()))
        .await;
    let told = hint(&astray).await;
    let wanted = format!("cannot connect to {closed}: Connection refused");
    assert!(told.starts_with(&wanted), "{told}");
    let error = alone.connect(&closed).await.unwrap_err().to_string();
    assert!(error.starts_with(&wanted), "{error}");

    let stranger = start(builder().network("other").bootstrap([address(&alone)])).await;
    let mut events = stranger.events();
    link_refusal(&mut events, CloseReason::WrongNetwork).await;
    let told = hint(&stranger).await;
    assert!(told.contains("wrong_network"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_a_node_has_are_no_other_node_s() {
    let log = || Storage::memory_transactions(None);
    let (queue, first) = (Storage::memory_queue(10), log());
    let on = |log: &Arc<dyn TransactionStore>| {
        builder().queue(queue.clone()).transaction_store(log.clone())
    };
    let refused = async |builder: PeerNodeBuilder| match builder.start().await {
        Err(StartError::Store(error)) => assert_eq!(error.kind, StoreErrorKind::Locked, "{error}"),
        other => panic!("{other:?}"),
    };
    let node = start(on(&first).identity(identity(1))).await;
    node.publish("t", "mine").await.unwrap();
    refused(on(&log())).await;
    refused(builder().transaction_store(first.clone())).await;
    assert_eq!(queue.size().await.unwrap().waiting, 1, "nothing of it was touched");

    // Of a node that is shut down they are free, whoever still holds it.
    stop(&node).await;
    let second = start(on(&first).identity(identity(1))).await;
    // And the end of one that nobody holds is waited for.
    drop(second);
    let third = start(on(&first).identity(identity(1))).await;
    assert_eq!(stats(&third).await.outbox, 1);
    third.publish("t", "mine too").await.unwrap();
    refused(on(&first)).await;
    // What the refusals were about was not given up by them.
    refused(on(&first)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_who_came_and_went() {
    let a = start_alone().await;
    let mut events = a.events();
    let b = start_beside(&a).await;
    let (peer, direction) = event(&mut events, "up", |e| match e {
        Event::PeerUp { peer, direction, .. } => Some((*peer, *direction)),
        _ => None,
    })
    .await;
    assert_eq!((peer, direction), (b.peer_id(), Direction::Inbound));
    let mode = |event: &Event| match event {
        Event::ModeChanged { mode, .. } => Some(*mode),
        _ => None,
    };
    assert_eq!(event(&mut events, "degraded", mode).await, Mode::Degraded);
    stop(&b).await;
    let down = event(&mut events, "down", |e| match e {
        Event::PeerDown { peer, reason, .. } => Some((*peer, *reason)),
        _ => None,
    });
    assert_eq!(down.await, (b.peer_id(), CloseReason::Shutdown));
    assert_eq!(event(&mut events, "offline", mode).await, Mode::Offline);
    stop(&a).await;
    while soon("the end of events", events.next()).await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_read_its_events_is_told_how_many_it_missed() {
    const REFUSED: u64 = 6 * 1024;
    let node = start_alone().await;
    let mut unread = node.events();
    let mut peer = RawPeer::join(identity(9), &node).await;
    for batch in 0..REFUSED / 1024 {
        let too_large = |n: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(batch * 1024 + n).to_le_bytes());
            Announcement { id: TransactionId::from_bytes(id), size: u64::MAX, hop: 0 }
        };
        peer.send(&[Message::Announce((0..1024).map(too_large).collect())]).await;
    }
    until(&node, "all are refused", |s| s.counters.refused_too_large == REFUSED).await;
    let Some(Event::Lagged { missed, .. }) = unread.next().await else { panic!("nothing missed") };
    assert!((REFUSED - 4096..REFUSED).contains(&missed), "{missed}");
    assert_eq!(counters(&node).await.events_lagged, missed);
    assert!(matches!(unread.next().await, Some(Event::TransactionRefused { .. })), "it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_refuses_at_once_and_takes_more_when_copies_are_confirmed() {
    const LIMIT: u32 = 100;
    let node = start_with(|c| c.outbox.max_entries = LIMIT).await;
    let publishes = (0..150_u64).map(|n| node.publish("t", n.to_le_bytes().to_vec()));
    let mut accepted = 0;
    for result in join_all(publishes).await {
        match result {
            Ok(_) => accepted += 1,
            Err(PublishError::QueueFull { limit }) => assert_eq!(limit, LIMIT),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(accepted, LIMIT);
    let seen = stats(&node).await;
    assert_eq!((seen.outbox, seen.retained), (100, 100));
    assert_eq!(seen.counters.publishes_refused, 50);

    let taker = start_beside(&node).await;
    until(&node, "the outbox is empty", |s| s.outbox == 0).await;
    let mut arrived = taker.subscribe("t", StartAt::Earliest).await.unwrap();
    assert_eq!(ids(&take(&mut arrived, 100).await).len(), 100);
    node.publish("t", "more").await.unwrap();
    next(&mut arrived).await;
}

/// Judges by the first word of the payload.
#[derive(Debug)]
struct ByWord;

#[async_trait]
impl Validator for ByWord {
    async fn validate(&self, transaction: &Transaction, _: &PeerId) -> Verdict {
        match &transaction.payload()[..] {
            b"ignore" => Verdict::Ignore,
            b"reject" => Verdict::Reject,
            b"never" => std::future::pending().await,
            _ => Verdict::Accept,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_validator_has_its_say_and_a_slow_one_delays_nothing_else() {
    let judge = start(builder().validator(Arc::new(ByWord))).await;
    let author = start_beside(&judge).await;
    ready(&author, 1).await;
    let mut events = judge.events();
    let mut arrived = judge.subscribe("t", StartAt::Now).await.unwrap();
    let never = author.publish("t", "never").await.unwrap();
    for (word, reason) in [("ignore", Refusal::Ignored), ("reject", Refusal::Rejected)] {
        let receipt = author.publish("t", word).await.unwrap();
        let (peer, id) = refusal(&mut events, reason).await;
        assert_eq!((peer, id), (Some(author.peer_id()), receipt.id()));
    }
    let good = author.publish("t", "good").await.unwrap();
    assert_eq!(next(&mut arrived).await.transaction.id(), good.id());
    // Patience with it ends after 10 s, and then it counts as ignored.
    let (_, id) = refusal(&mut events, Refusal::Ignored).await;
    assert_eq!(id, never.id());

    let seen = stats(&judge).await;
    let c = &seen.counters;
    assert_eq!((c.refused_ignored, c.refused_rejected, c.validations_timed_out), (2, 1, 1));
    assert_eq!((seen.retained, seen.links), (1, 1), "one reject costs no link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_much_that_is_rejected_is_blocked() {
    let judge = start(builder().validator(Arc::new(ByWord))).await;
    let author = start_beside(&judge).await;
    ready(&author, 1).await;
    let mut events = judge.events();
    for _ in 0..8 {
        author.publish("t", "reject").await.unwrap();
    }
    event(&mut events, "blocked", |e| match e {
        Event::PeerDown { peer, reason: CloseReason::Violation, .. } => Some(*peer),
        _ => None,
    })
    .await;
    assert_eq!(stats(&judge).await.banned_peers, 1);
    assert_serves(&judge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_what_was_just_published_leave() {
    const COUNT: usize = 200;
    let (a, b) = linked_pair().await;
    let mut arrived = b.subscribe("t", StartAt::Now).await.unwrap();
    for seed in 0..COUNT as u64 {
        a.publish("t", noise(seed, 3000)).await.unwrap();
    }
    let report = stop(&a).await;
    assert!(report.unconfirmed.is_empty() && report.undrained.is_empty(), "{report:?}");
    assert_eq!(ids(&take(&mut arrived, COUNT).await).len(), COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_is_idempotent_and_says_what_nobody_took() {
    let node = start_alone().await;
    let receipt = node.publish("t", "x").await.unwrap();
    let subscription = node.subscribe("t", StartAt::Earliest).await.unwrap();
    let (clone, weak) = (node.clone(), node.downgrade());
    let (first, second) = tokio::join!(node.shutdown(HANG), clone.shutdown(HANG));
    assert_eq!(first.as_ref().unwrap().unconfirmed, [receipt.id()]);
    assert_eq!(first, second, "both wait for the same end");
    assert_eq!(node.shutdown(HANG).await, first, "and so does who comes late");
    assert!(matches!(node.publish("t", "y").await, Err(PublishError::Closed)));
    assert!(matches!(node.wait_ready(1, HANG).await, Err(ReadyError::Closed)));
    node.stats().await.expect_err("stopped before");
    assert_eq!(rest(subscription).await.len(), 1, "what was accepted can still be read");
    drop((node, clone));
    assert!(weak.upgrade().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_has_given_its_port_free() {
    for _ in 0..10 {
        let node = start_alone().await;
        let bound = node.listen_addr().unwrap();
        let taken = builder().listen(&bound.to_string()).start().await.unwrap_err();
        assert!(matches!(taken, StartError::Listen { address, .. } if address == bound));
        stop(&node).await;
        TcpListener::bind(bound).expect("a free port");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_stops_the_node_politely() {
    let (a, b) = linked_pair().await;
    let bound = a.listen_addr().unwrap();
    let (mut own, mut events) = (a.events(), b.events());
    let clone = a.clone();
    drop(a);
    assert_spreads(&clone, &b).await;
    drop(clone);
    let reason = event(&mut events, "down", |e| match e {
        Event::PeerDown { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason.await, CloseReason::Shutdown);
    while soon("the end of events", own.next()).await.is_some() {}
    TcpListener::bind(bound).expect("a free port");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_is_welcome_at_once() {
    let a = start_alone().await;
    let first = start(builder().identity(identity(5)).bootstrap([address(&a)])).await;
    ready(&first, 1).await;
    assert_spreads(&a, &first).await;
    // Nobody says goodbye for it: the old link is still there when the new process comes.
    let mut events = a.events();
    let second = start(builder().identity(identity(5)).bootstrap([address(&a)])).await;
    event(&mut events, "the new link", |e| match e {
        Event::PeerUp { peer, .. } if *peer == second.peer_id() => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(counters(&a).await.links_replaced, 1);
    stop(&first).await;
    ready(&second, 1).await;
    assert_spreads(&a, &second).await;
}

#[cfg(feature = "sqlite")]
mod with_files {
    use sorcha_peer::SqliteStorage;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_restarted_node_finds_its_peers_without_a_bootstrap() {
        let dir = tempfile::tempdir().unwrap();
        let other = start_alone().await;
        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        let before = builder().identity(identity(5)).storage(storage.clone());
        let before = start(before.bootstrap([address(&other)])).await;
        ready(&before, 1).await;
        stop(&before).await;
        storage.close().await;

        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        let config = config_with(|c| c.discovery.bootstrap.clear());
        let after = PeerNode::builder().config(config).identity(identity(5)).storage(storage);
        let after = start(after).await;
        ready(&after, 1).await;
        assert_spreads(&after, &other).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_ban_holds_in_both_directions_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let banned = start(builder().identity(identity(6))).await;
        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        let node = start(builder().identity(identity(5)).storage(storage.clone())).await;
        node.connect(&address(&banned)).await.unwrap();
        let mut events = node.events();
        node.ban(banned.peer_id(), None, "for this test").await.unwrap();
        event(&mut events, "down", |e| match e {
            Event::PeerDown { reason: CloseReason::Banned, .. } => Some(()),
            _ => None,
        })
        .await;
        assert_refuses(&node, &banned).await;
        stop(&node).await;
        storage.close().await;

        let storage = SqliteStorage::open(dir.path()).await.unwrap();
        let node = start(builder().identity(identity(5)).storage(storage)).await;
        assert_eq!(stats(&node).await.banned_peers, 1);
        assert_refuses(&node, &banned).await;
        node.unban(banned.peer_id()).await.unwrap();
        node.connect(&address(&banned)).await.unwrap();
        assert_spreads(&node, &banned).await;
    }

    async fn assert_refuses(node: &PeerNode, banned: &PeerNode) {
        use sorcha_peer::error::ConnectError;
        let before = counters(node).await.links_refused_banned;
        for (from, to) in [(node, banned), (banned, node)] {
            let error = from.connect(&address(to)).await.unwrap_err();
            assert!(matches!(error, ConnectError::Refused(CloseReason::Banned)), "{error}");
        }
        let after =
            until(node, "both are counted", |s| s.counters.links_refused_banned >= before + 2);
        assert_eq!(after.await.links, 0);
    }
}

/// The order of a node's records is kept in its store, whatever the clock says.
#[tokio::test]
async fn each_run_signs_its_record_above_that_of_the_last() {
    let (store, me) = (Storage::memory_peers(), identity(77));
    let own = async || {
        let (kept, _) = store.load().await.unwrap();
        let own = kept.into_iter().find(|stored| stored.peer == me.peer_id());
        own.expect("the own record").record.expect("a record").seq()
    };
    // An earlier run's clock was a century ahead.
    let (peer, ahead) = (me.peer_id(), WallTime::from_millis(4_900_000_000_000));
    let (seq, endpoints) = (ahead.as_millis(), Vec::new());
    let draft = RecordDraft { peer, seq, issued: ahead, endpoints };
    let mut earlier = StoredPeer::new(peer);
    earlier.record = Some(draft.sign_with(|message| me.sign(message)));
    store.upsert(&[earlier]).await.unwrap();
    let mut last = seq;
    for _ in 0..2 {
        let peers = store.clone();
        let node = start(builder().identity(me.clone()).peer_store(peers)).await;
        let seq = own().await;
        assert!(seq > last, "{seq} after {last}");
        assert_eq!(stats(&node).await.known_peers, 0, "it is no peer of its own");
        stop(&node).await;
        last = seq;
    }
}
