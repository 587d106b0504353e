//! A large payload that loses its source half-way: its room is given to others, and it is fetched on
//! from where it was, also by the next process.

use std::path::Path;

use sorcha_peer::types::unstable::{Message, PieceRange, Reservation};
use sorcha_peer::{PeerNode, SqliteStorage, StartAt};

use crate::common::raw::{RawPeer, large};
use crate::common::{builder, config_with, counters, identity, next, soon, start, stop, until};

const PIECES: u32 = 10;

async fn start_on(dir: &Path) -> (PeerNode, SqliteStorage) {
    // Room for one of them.
    let config = config_with(|c| c.gossip.max_assembly_bytes = Some(1 << 20));
    let storage = SqliteStorage::open(dir).await.unwrap();
    let builder = builder().config(config).identity(identity(1)).storage(storage.clone());
    (start(builder).await, storage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranded_payload_makes_room_and_is_fetched_on_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (large(8, PIECES), large(9, PIECES));
    let all = PieceRange { first: 0, count: PIECES };

    let (node, storage) = start_on(dir.path()).await;
    let mut source = RawPeer::join(identity(8), &node).await;
    let mut other = RawPeer::join(identity(9), &node).await;
    assert_eq!(source.offer(&first).await, [all]);
    other.expect("the header", |m| matches!(m, Message::Offer(_))).await;
    source.send_pieces(&first, 0..4).await;
    // They are there when they are passed on.
    let ranges = vec![PieceRange { first: 0, count: 4 }];
    let (id, place, head, force, narrow) = (first.id(), u32::MAX, false, false, false);
    let wish = Reservation { id, place, head, force, narrow, ranges };
    other.send(&[Message::Reserve(wish)]).await;
    for _ in 0..4 {
        other.expect("a piece", |m| matches!(m, Message::Piece(_))).await;
    }
    drop(source);
    other.asked_for(&first).await;
    other.send(&[Message::Missing(vec![first.id()])]).await;
    assert_eq!(other.offer(&second).await, [all]);
    other.send_pieces(&second, 0..PIECES).await;
    until(&node, "the other is there", |s| s.retained == 1).await;
    assert_eq!(counters(&node).await.partials_spilled, 1);
    drop(other);
    stop(&node).await;
    storage.close().await;

    let (node, storage) = start_on(dir.path()).await;
    let log = storage.transaction_store();
    let kept = log.partials().await.unwrap().expect("a store that keeps them");
    assert_eq!(kept.iter().map(|p| p.id).collect::<Vec<_>>(), [first.id()]);
    let mut arrived = node.subscribe("raw", StartAt::Now).await.unwrap();
    let mut again = RawPeer::join(identity(8), &node).await;
    let rest = PieceRange { first: 4, count: PIECES - 4 };
    assert_eq!(again.offer(&first).await, [rest], "what is there is not asked for");
    again.send_pieces(&first, 4..PIECES).await;
    let delivery = soon("the rest arrives", next(&mut arrived)).await;
    assert!(delivery.transaction == first, "it is as it was published");
    let counters = counters(&node).await;
    assert_eq!((counters.partials_resumed, counters.pieces_received), (1, 6));
    drop(again);
    stop(&node).await;
    assert_eq!(log.partials().await.unwrap(), Some(Vec::new()), "what is complete is not kept");
}
