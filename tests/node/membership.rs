//! Which links a node has and what it says of those that it has not: places, identities, modes.
//! What takes time is simulated: `src/sim/tests/{full_hubs,twins,small_networks}.rs`.

use sorcha_peer::error::{ConnectError, ReadyError};
use sorcha_peer::types::CloseReason;
use sorcha_peer::{Event, Mode, PeerId, PeerNode};

use crate::common::{
    address, assert_spreads, builder, config_with, counters, event, identity, link_refusal,
    linked_pair, ready, start, start_alone, start_with, stop,
};

fn in_use(event: &Event) -> Option<PeerId> {
    match event {
        Event::IdentityInUse { peer, .. } => Some(*peer),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_identity_are_told_and_so_is_who_sees_both() {
    let hub = start_alone().await;
    let twin = || builder().identity(identity(5)).bootstrap([address(&hub)]);
    let mut at_hub = hub.events();
    let first = start(twin()).await;
    ready(&first, 1).await;
    let mut of_first = first.events();
    let second = start(twin()).await;
    let mut of_second = second.events();
    for events in [&mut at_hub, &mut of_first, &mut of_second] {
        let peer = event(events, "two with one identity", in_use).await;
        assert_eq!(peer, first.peer_id());
    }
    assert!(counters(&hub).await.identities_in_use > 0);
    // Alone again it has its links back.
    stop(&second).await;
    ready(&first, 1).await;
    assert_spreads(&hub, &first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_identity_that_dial_each_other_are_told() {
    // Each took the other for itself, and said nothing.
    let twin = || builder().identity(identity(5));
    let first = start(twin()).await;
    let mut of_first = first.events();
    let second = start(twin().bootstrap([address(&first)])).await;
    let mut of_second = second.events();
    let error = first.connect(&address(&second)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(CloseReason::IdentityInUse)), "{error}");
    let error = second.connect(&address(&first)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(CloseReason::IdentityInUse)), "{error}");
    for (node, events) in [(&first, &mut of_first), (&second, &mut of_second)] {
        let peer = event(events, "two with one identity", in_use).await;
        assert_eq!(peer, first.peer_id());
        let refused = link_refusal(events, CloseReason::IdentityInUse).await;
        assert_eq!(refused, first.peer_id());
        let seen = counters(node).await;
        assert!(seen.identities_in_use >= 2, "met as who dials and as who is dialled");
        assert_eq!((seen.links_refused_self, seen.links_opened), (0, 0));
        let error = node.wait_ready(1, std::time::Duration::from_millis(1)).await.unwrap_err();
        let ReadyError::Timeout { hint, .. } = error else { panic!("{error}") };
        assert!(hint.contains("identity"), "{hint}");
    }
    // The key of the one at an address says nothing of the address.
    let error = first.connect(&address(&first)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused(CloseReason::SelfDial)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_and_never_takes_the_link_for_one() {
    let hub = start_with(|c| c.overlay.max_inbound = 1).await;
    // Nobody can dial these, as behind NAT.
    let hidden = || {
        let config = config_with(|c| c.listen.address = None);
        start(PeerNode::builder().config(config).bootstrap([address(&hub)]))
    };
    let first = hidden().await;
    ready(&first, 1).await;
    let late = hidden().await;
    let mut events = late.events();
    let refused = link_refusal(&mut events, CloseReason::TooManyLinks).await;
    assert_eq!(refused, hub.peer_id());
    let error = late.wait_ready(1, std::time::Duration::from_millis(1)).await.unwrap_err();
    let ReadyError::Timeout { hint, .. } = error else { panic!("{error}") };
    assert!(hint.contains("too_many_links"), "{hint}");
    let seen = counters(&late).await;
    assert_eq!(seen.links_opened, 0, "refused before it was up");
    // The place is won when it is free, at the latest.
    stop(&first).await;
    ready(&late, 1).await;
    assert_spreads(&hub, &late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_two_is_online() {
    let (a, b) = linked_pair().await;
    for node in [&a, &b] {
        let mut events = node.events();
        let online = event(&mut events, "online", |e| match e {
            Event::ModeChanged { mode: Mode::Online, .. } => Some(()),
            _ => None,
        });
        // It may have been told before `events` was there.
        if node.mode() != Mode::Online {
            online.await;
        }
        assert_eq!(node.mode(), Mode::Online);
    }
}
