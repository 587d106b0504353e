//! Every store of the crate against the conformance suites, and what is particular to each.

use bytes::Bytes;
use sorcha_peer::error::StoreErrorKind;
use sorcha_peer::ports::{AcceptAll, NewEntry, PeerStore, TransactionStore};
use sorcha_peer::store::{MemoryPeerStore, MemoryQueue, MemoryTransactionStore};
use sorcha_peer::testing;
use sorcha_peer::types::{Cursor, Header, PeerId, Signature, Topic, Transaction, WallTime};

fn transaction(topic: &str, payload: Vec<u8>) -> Transaction {
    let at = WallTime::from_millis(1);
    let topic = Topic::new(topic).unwrap();
    let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, &payload);
    Transaction::new(header, Signature::None, Bytes::from(payload)).unwrap()
}

fn entry(payload: Vec<u8>, keep_until: u64) -> NewEntry {
    let keep_until = WallTime::from_millis(keep_until);
    NewEntry { transaction: transaction("t", payload), from: None, hops: 0, keep_until }
}

#[tokio::test]
async fn memory_stores_conform() {
    testing::peer_store(&MemoryPeerStore::new()).await;
    testing::transaction_queue(&MemoryQueue::new(100), 100).await;
    testing::transaction_store(&MemoryTransactionStore::new(None)).await;
    testing::transaction_store(&MemoryTransactionStore::new(Some(1 << 20))).await;
    testing::validator(&AcceptAll, &transaction("t", vec![1])).await;
}

#[tokio::test]
async fn a_memory_log_is_bounded_in_bytes() {
    let store = MemoryTransactionStore::new(Some(3000));
    store.append(&[entry(vec![0; 1000], 1)]).await.unwrap();
    let two = [entry(vec![1; 900], 2), entry(vec![2; 900], 2)];
    let error = store.append(&two).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert_eq!(store.index(Cursor(0), 10).await.unwrap().len(), 1, "all or none");
    store.append(&[two[0].clone(), two[0].clone(), entry(vec![0; 1000], 1)]).await.unwrap();
    assert_eq!(store.expire(WallTime::from_millis(1)).await.unwrap(), 1);
    store.append(&two).await.expect("what expired makes room");
}

#[tokio::test]
async fn a_memory_log_reports_every_loss_once() {
    let store = MemoryTransactionStore::new(None);
    // Every second one goes early.
    let entries: Vec<_> = (0..10u8).map(|n| entry(vec![n], u64::from(n % 2))).collect();
    let cursors = store.append(&entries).await.unwrap();
    assert_eq!(store.expire(WallTime::from_millis(0)).await.unwrap(), 5);
    let page = store.read(None, Cursor(0), 2, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.lost_until), (cursors[3], Some(cursors[2])));
    let page = store.read(None, page.next, 100, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.lost_until), (cursors[9], Some(cursors[8])));
    let page = store.read(None, page.next, 100, usize::MAX).await.unwrap();
    assert_eq!((page.next, page.lost_until), (cursors[9], None));
}

#[tokio::test]
async fn a_cursor_of_an_earlier_run_is_behind_and_reports_a_loss() {
    let store = MemoryTransactionStore::new(None);
    let earlier = Cursor(1_600_000_000 << 20);
    let cursor = store.append(&[entry(vec![1], 1)]).await.unwrap()[0];
    assert!(cursor > earlier);
    let page = store.read(None, earlier, 10, usize::MAX).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert!(page.lost_until.is_some_and(|lost| lost < cursor));
    let page = store.read(None, Cursor(0), 10, usize::MAX).await.unwrap();
    assert_eq!(page.lost_until, None, "from the beginning, nothing is missing");
}

#[tokio::test]
async fn a_memory_peer_store_is_usable_as_a_trait_object() {
    let store: Box<dyn PeerStore> = Box::new(MemoryPeerStore::new());
    assert_eq!(store.load().await.unwrap(), (vec![], vec![]));
}
