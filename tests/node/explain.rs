//! Why a transaction is here, or is not: on one node, and across its links.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sorcha_peer::config::{Role, Trust};
use sorcha_peer::error::RequestError;
use sorcha_peer::types::Explanation;
use sorcha_peer::{Config, Event, PeerNode, Receipt, Request, StartAt, Topic};

use crate::common::{
    HANG, RejectAll, address, builder, config_with, event, identity, linked_pair, next, ready,
    soon, start, start_with, stop,
};

async fn explain(node: &PeerNode, receipt: &Receipt) -> Explanation {
    soon("an explanation", node.explain(receipt.id())).await.expect("a running node")
}

async fn across(node: &PeerNode, receipt: &Receipt) -> Explanation {
    let asked = node.explain_across(receipt.id(), HANG);
    soon("explanations", asked).await.expect("a running node")
}

fn kinds(told: &Explanation) -> BTreeSet<&str> {
    told.steps.iter().map(|step| step.what.as_str()).collect()
}

/// Two nodes that let in nobody but each other, linked.
async fn closed_pair(change: impl Fn(&mut Config)) -> (PeerNode, PeerNode) {
    let ids = [identity(41), identity(42)];
    let peers: BTreeSet<_> = ids.iter().map(sorcha_peer::Identity::peer_id).collect();
    let config = || {
        config_with(|config| {
            config.network.trust = Trust::AllowList { peers: peers.clone() };
            change(config);
        })
    };
    let [first, second] = ids;
    let first = start(PeerNode::builder().config(config()).identity(first)).await;
    let second = PeerNode::builder().config(config()).identity(second);
    let second = start(second.bootstrap([address(&first)])).await;
    ready(&first, 1).await;
    ready(&second, 1).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_tell_of_a_transaction_that_arrived() {
    let (a, b) = linked_pair().await;
    let mut orders = b.subscribe("orders", StartAt::Now).await.unwrap();
    let receipt = a.publish("orders", vec![7; 3000]).await.unwrap();
    soon("it is delivered", next(&mut orders)).await;
    soon("a copy", receipt.replicated(1)).await.unwrap();
    let told = explain(&a, &receipt).await;
    assert_eq!((told.state.as_str(), told.own), ("confirmed", true));
    assert_eq!(told.summary, "Stored here and confirmed by 1 other node");
    assert_eq!((told.size, told.origin), (Some(3000), Some(a.peer_id())));
    assert!(kinds(&told).is_superset(&["published", "confirmed"].into()), "{told:?}");
    assert!(told.steps.is_sorted_by_key(|step| step.at));
    let told = explain(&b, &receipt).await;
    assert_eq!((told.state.as_str(), told.own), ("stored", false));
    assert_eq!((told.size, told.origin), (Some(3000), Some(a.peer_id())));
    assert_eq!(told.topic.as_ref().map(Topic::as_str), Some("orders"));
    let accepted = told.steps.iter().find(|step| step.what == "accepted").unwrap();
    let link = b.peer(a.peer_id()).await.unwrap().expect("a link");
    assert_eq!((accepted.peer, accepted.hop), (Some(a.peer_id()), Some(1)));
    assert_eq!(accepted.transport, Some(link.transport));
    assert_eq!(a.peer(a.peer_id()).await.unwrap(), None);
    stop(&a).await;
    a.explain(receipt.id()).await.expect_err("it is stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_tell_each_other_and_strangers_are_told_nothing() {
    let (a, b) = closed_pair(|_| ()).await;
    let receipt = a.publish("orders", "one widget").await.unwrap();
    soon("a copy", receipt.replicated(1)).await.unwrap();
    let told = across(&a, &receipt).await;
    let there = &told.elsewhere[&b.peer_id()];
    assert_eq!((there.state.as_str(), there.own, there.links), ("stored", false, 1));
    assert_eq!(there.topic, told.topic);
    assert!(kinds(there).contains("accepted"), "{there:?}");
    let summary = "Stored here and confirmed by 1 other node. Of 1 peer asked, 1 has it";
    assert_eq!((told.summary.as_str(), told.not_told.len()), (summary, 0));
    // In an open network, and where it is switched off.
    let (open, other) = linked_pair().await;
    let (off, silent) = closed_pair(|config| config.messages.explain = Some(false)).await;
    for (node, peer) in [(&open, &other), (&off, &silent)] {
        let receipt = node.publish("orders", "one widget").await.unwrap();
        soon("a copy", receipt.replicated(1)).await.unwrap();
        let told = across(node, &receipt).await;
        assert_eq!((told.elsewhere.len(), &told.not_told[..]), (0, &[peer.peer_id()][..]));
        assert!(told.summary.ends_with("Of 1 peer asked, 1 did not tell"), "{}", told.summary);
    }
    // And in an open one where it is switched on.
    let on = |config: &mut Config| config.messages.explain = Some(true);
    let first = start_with(on).await;
    let second = start(builder().config(config_with(on)).bootstrap([address(&first)])).await;
    ready(&second, 1).await;
    let receipt = second.publish("orders", "one widget").await.unwrap();
    soon("a copy", receipt.replicated(1)).await.unwrap();
    assert_eq!(across(&second, &receipt).await.elsewhere.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_rejected_it_is_named_at_both_ends() {
    let contact = start_with(|config| config.messages.explain = Some(true)).await;
    let tells = config_with(|config| config.messages.explain = Some(true));
    let strict = PeerNode::builder().config(tells).bootstrap([address(&contact)]);
    let strict = start(strict.validator(Arc::new(RejectAll))).await;
    ready(&contact, 1).await;
    let mut events = contact.events();
    let receipt = contact.publish("orders", "one widget").await.unwrap();
    event(&mut events, "a dead letter", |event| {
        matches!(event, Event::DeadLettered { .. }).then_some(())
    })
    .await;
    let told = explain(&strict, &receipt).await;
    assert_eq!(told.summary, "Refused: the validator rejected it");
    assert_eq!((told.state.as_str(), told.size), ("refused", Some(10)));
    let told = across(&contact, &receipt).await;
    assert_eq!(told.state, "dead_letter");
    assert!(told.summary.contains("refused by 1 peer: the validator rejected it"), "{told:?}");
    assert!(told.summary.ends_with("1 refused it: the validator rejected it"), "{told:?}");
    let refused = told.steps.iter().find(|step| step.what == "refused_by").unwrap();
    assert_eq!(refused.peer, Some(strict.peer_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_carries_waits_and_says_so() {
    let a = start_with(|_| ()).await;
    let edge = config_with(|config| config.gossip.role = Role::Edge);
    let b = start(PeerNode::builder().config(edge).bootstrap([address(&a)])).await;
    ready(&a, 1).await;
    ready(&b, 1).await;
    let receipt = a.publish("orders", "one widget").await.unwrap();
    let told = explain(&a, &receipt).await;
    assert_eq!(told.summary, "Waits in the outbox: no linked peer carries topic orders");
    let told = explain(&b, &receipt).await;
    assert_eq!((told.state.as_str(), told.steps.len()), ("unknown", 0));
    assert_eq!(told.summary, "Not heard of: no linked peer has offered it");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_node_are_not_for_hosts() {
    let (a, b) = closed_pair(|_| ()).await;
    let echo = async |request: Request| Ok(request.body().clone());
    for name in ["sorcha.explain", "sorcha.other"] {
        let taken = a.handle_requests(name, echo);
        assert!(matches!(taken, Err(RequestError::ProtocolTaken { .. })), "{name}: {taken:?}");
        assert!(!a.stop_handling(name));
    }
    a.handle_requests("sorcha.message.4", echo).unwrap();
    a.handle_requests("sorcha", echo).unwrap();
    assert!(a.stop_handling("sorcha.message.4"));
    // What is no id is refused, and what is one is told of, known or not.
    let ask = |body: Vec<u8>| b.request_within(a.peer_id(), "sorcha.explain", body, HANG);
    let refused = soon("an answer", ask(vec![1; 31])).await;
    assert!(matches!(refused, Err(RequestError::Refused { .. })), "{refused:?}");
    soon("an answer", ask(vec![1; 32])).await.expect("that nothing is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_in_time_stands_apart() {
    let (a, b) = closed_pair(|_| ()).await;
    let receipt = a.publish("orders", "one widget").await.unwrap();
    let told = a.explain_across(receipt.id(), Duration::ZERO).await.unwrap();
    assert_eq!(told.not_told, [b.peer_id()]);
}
