//! What the node tests share: quick nodes on loopback, and waiting for what is observable.

pub(crate) mod raw;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use sorcha_peer::error::{FailureKind, ShutdownReport};
use sorcha_peer::types::{CloseReason, Counters, LinkStatus, Refusal};
use sorcha_peer::{
    Config, Delivery, Event, Events, Identity, Item, PeerId, PeerNode, PeerNodeBuilder, StartAt,
    Stats, Subscription, Transaction, TransactionId, Validator, Verdict,
};

/// Ends a test that hangs. No assertion depends on it.
pub(crate) const HANG: Duration = Duration::from_mins(2);
/// Time between two looks at a figure that no event announces.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// The defaults on loopback, with a free port and quick redials.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.listen.address = Some(([127, 0, 0, 1], 0).into());
    config.overlay.redial_min = Duration::from_millis(20);
    config.overlay.redial_max = Duration::from_millis(500);
    config
}

/// [`config`], changed.
pub(crate) fn config_with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

pub(crate) fn builder() -> PeerNodeBuilder {
    PeerNode::builder().config(config())
}

pub(crate) async fn start(builder: PeerNodeBuilder) -> PeerNode {
    Box::pin(builder.start()).await.expect("a node starts")
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> PeerNode {
    start(PeerNode::builder().config(config_with(change))).await
}

pub(crate) async fn start_alone() -> PeerNode {
    start(builder()).await
}

/// A node with `contact` as its only bootstrap peer.
pub(crate) async fn start_beside(contact: &PeerNode) -> PeerNode {
    start(builder().bootstrap([address(contact)])).await
}

pub(crate) async fn linked_pair() -> (PeerNode, PeerNode) {
    let a = start_alone().await;
    let b = start_beside(&a).await;
    ready(&a, 1).await;
    ready(&b, 1).await;
    (a, b)
}

pub(crate) fn address(node: &PeerNode) -> String {
    node.listen_addr().expect("a listening node").to_string()
}

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

pub(crate) async fn ready(node: &PeerNode, links: u32) {
    node.wait_ready(links, HANG).await.expect("links");
}

pub(crate) async fn stop(node: &PeerNode) -> ShutdownReport {
    soon("the node stops", node.shutdown(HANG)).await.expect("a running node")
}

pub(crate) async fn stats(node: &PeerNode) -> Stats {
    node.stats().await.expect("a running node")
}

pub(crate) async fn counters(node: &PeerNode) -> Counters {
    stats(node).await.counters
}

/// Waits for figures that no event announces.
pub(crate) async fn until(node: &PeerNode, what: &str, holds: impl Fn(&Stats) -> bool) -> Stats {
    let mut last = None;
    let look = async {
        loop {
            let now = stats(node).await;
            if holds(&now) {
                return now;
            }
            last = Some(now);
            tokio::time::sleep(GLANCE).await;
        }
    };
    let seen = tokio::time::timeout(HANG, look).await;
    seen.unwrap_or_else(|_| panic!("waited in vain: {what}; last seen {last:#?}"))
}

/// Waits until the links of a node are as wanted.
pub(crate) async fn until_peers(
    node: &PeerNode,
    what: &str,
    holds: impl Fn(&[LinkStatus]) -> bool,
) -> Vec<LinkStatus> {
    let look = async {
        loop {
            let peers = node.peers().await.expect("a running node");
            if holds(&peers) {
                return peers;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    soon(what, look).await
}

/// The first event that `pick` takes; what comes before is skipped.
pub(crate) async fn event<T>(
    events: &mut Events,
    what: &str,
    mut pick: impl FnMut(&Event) -> Option<T>,
) -> T {
    let search = async {
        loop {
            let event = events.next().await.unwrap_or_else(|| panic!("no event: {what}"));
            if let Some(found) = pick(&event) {
                return found;
            }
        }
    };
    soon(what, search).await
}

/// Waits until a transaction is refused for `reason`; says whom it came from and its id.
pub(crate) async fn refusal(
    events: &mut Events,
    reason: Refusal,
) -> (Option<PeerId>, TransactionId) {
    event(events, &format!("{reason:?}"), |event| match event {
        Event::TransactionRefused { peer, reason: found, id, .. } if *found == reason => {
            Some((*peer, *id))
        }
        _ => None,
    })
    .await
}

/// Waits until a link is refused for `reason`; says whose.
pub(crate) async fn link_refusal(events: &mut Events, reason: CloseReason) -> PeerId {
    event(events, &format!("{reason:?}"), |event| match event {
        Event::LinkRefused { peer, reason: found, .. } if *found == reason => Some(*peer),
        _ => None,
    })
    .await
}

/// Waits until a handshake is refused for `reason`.
pub(crate) async fn handshake_refusal(events: &mut Events, reason: FailureKind) {
    event(events, &format!("{reason:?}"), |event| match event {
        Event::HandshakeRefused { reason: found, .. } if *found == reason => Some(()),
        _ => None,
    })
    .await;
}

pub(crate) async fn next(subscription: &mut Subscription) -> Delivery {
    match soon("a delivery", subscription.next()).await {
        Some(Item::Delivery(delivery)) => delivery,
        other => panic!("no delivery: {other:?}"),
    }
}

pub(crate) async fn take(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        taken.push(next(subscription).await);
    }
    taken
}

/// Returns everything that a subscription still yields; the node must be stopped.
pub(crate) async fn rest(mut subscription: Subscription) -> Vec<Delivery> {
    let mut rest = Vec::new();
    while let Some(item) = soon("the end", subscription.next()).await {
        let Item::Delivery(delivery) = item else { panic!("no delivery: {item:?}") };
        rest.push(delivery);
    }
    rest
}

pub(crate) fn ids(deliveries: &[Delivery]) -> BTreeSet<TransactionId> {
    deliveries.iter().map(|delivery| delivery.transaction.id()).collect()
}

pub(crate) fn payloads(deliveries: &[Delivery]) -> BTreeSet<Vec<u8>> {
    deliveries.iter().map(|delivery| delivery.transaction.payload().to_vec()).collect()
}

/// `length` bytes that differ from those of another `seed` and do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| byte()).collect()
}

/// The node still does what it is for: a newcomer links to it and gets what it publishes.
pub(crate) async fn assert_serves(node: &PeerNode) {
    let newcomer = start_beside(node).await;
    assert_spreads(node, &newcomer).await;
    stop(&newcomer).await;
}

/// Checks that what either node publishes reaches the other.
pub(crate) async fn assert_spreads(a: &PeerNode, b: &PeerNode) {
    for (from, to) in [(a, b), (b, a)] {
        let mut arrived =
            to.subscribe("common/serves", StartAt::Now).await.expect("a running node");
        let receipt = from.publish("common/serves", noise(1, 64)).await.expect("a running node");
        while next(&mut arrived).await.transaction.id() != receipt.id() {}
    }
}

/// Rejects everything that it is asked about.
#[derive(Debug)]
pub(crate) struct RejectAll;

#[async_trait]
impl Validator for RejectAll {
    async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
        Verdict::Reject
    }
}
