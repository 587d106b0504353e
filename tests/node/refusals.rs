//! What a publisher is told: that its clock is off, and that others reject what it publishes. The rules
//! are tested in simulation; this is the way from the core to the host.

use std::sync::Arc;
use std::time::Duration;

use sorcha_peer::error::ReplicationError;
use sorcha_peer::types::Refusal;
use sorcha_peer::types::unstable::{Announcement, Hello, Message};
use sorcha_peer::{Event, PublishState};

use crate::common::raw::{RawPeer, hello, now};
use crate::common::{
    RejectAll, address, builder, event, identity, ready, soon, start, start_alone, until,
};

const HOURS: Duration = Duration::from_hours(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_says_so_and_publishes_by_the_time_of_its_peers() {
    let node = start_alone().await;
    let mut events = node.events();
    assert_eq!(node.clock_offset_ms(), None);
    let mut peers = Vec::new();
    for seed in 7..10 {
        let ahead = Some(now().plus(HOURS));
        let greeting = Hello { clock: ahead, ..hello(&identity(seed)) };
        peers.push(RawPeer::join_as(identity(seed), &node, greeting).await);
    }
    let off = |e: &Event| match e {
        Event::ClockOff { offset_ms, .. } => Some(*offset_ms),
        _ => None,
    };
    let offset = event(&mut events, "the clock is off", off).await;
    let stats = until(&node, "it is seen", |stats| stats.clock_votes == 3).await;
    assert!(stats.clock_off && offset.abs_diff(stats.clock_offset_ms) < 60_000);
    assert!(node.clock_offset_ms().is_some_and(|told| told.abs_diff(7_200_000) < 60_000));
    let links = node.peers().await.unwrap();
    let offsets: Vec<_> = links.iter().filter_map(|link| link.clock_offset_ms).collect();
    assert!(offsets.len() == 3 && offsets.iter().all(|of| of.abs_diff(7_200_000) < 60_000));
    let receipt = node.publish("orders", "one widget").await.unwrap();
    assert!(receipt.clock_offset_ms().is_some(), "accepted, with a warning");
    let id = receipt.id();
    let peer = peers.first_mut().unwrap();
    let is_it = |m: &Message| match m {
        Message::Push { transaction, .. } => transaction.id() == id,
        Message::Announce(list) => list.iter().any(|a: &Announcement| a.id == id),
        _ => false,
    };
    let mut told = peer.expect("what was published", is_it).await;
    if matches!(told, Message::Announce(_)) {
        peer.send(&[Message::Want(vec![id])]).await;
        told = peer.expect("the payload", |m| matches!(m, Message::Push { .. })).await;
    }
    let Message::Push { transaction, .. } = told else { panic!("{told:?}") };
    let created = transaction.header().created.as_millis();
    assert!(created.abs_diff(now().plus(HOURS).as_millis()) < 60_000, "dated by the peers' time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_is_told_at_once_that_others_reject_what_it_publishes() {
    // It was told nothing for two and a half minutes.
    let judge = start(builder().validator(Arc::new(RejectAll))).await;
    let node = start(builder().bootstrap([address(&judge)])).await;
    ready(&node, 1).await;
    let mut events = node.events();
    let receipt = node.publish("orders", "one widget").await.unwrap();
    let error = soon("the outcome", receipt.replicated(1)).await.unwrap_err();
    let ReplicationError::DeadLetter { reason } = error else { panic!("{error}") };
    assert!(reason.contains("validator"), "{reason}");
    let status = receipt.status();
    assert_eq!(status.refused, Some(Refusal::Rejected));
    assert!(matches!(status.state, PublishState::DeadLetter { .. }));
    let told = |e: &Event| match e {
        Event::PublishRefused { id, reason, .. } => Some((*id, *reason)),
        _ => None,
    };
    let told = event(&mut events, "the refusal", told).await;
    assert_eq!(told, (receipt.id(), Refusal::Rejected));
    assert_eq!(node.dead_letters(None, 10).await.unwrap().len(), 1);
}
