//! Validators and large payloads: who judges them holds them back.

use std::sync::Arc;

use async_trait::async_trait;
use sorcha_peer::types::Refusal;
use sorcha_peer::types::unstable::Message;
use sorcha_peer::{PeerId, PeerNode, StartAt, Transaction, Validator, Verdict};

use crate::common::raw::{RawPeer, large};
use crate::common::{builder, identity, next, refusal, soon, start};

const PIECES: u32 = 4;

/// Says the same of everything that it is asked about.
#[derive(Debug)]
struct Says {
    verdict: Verdict,
    judges_large: bool,
}

impl Says {
    fn ignore(judges_large: bool) -> Self {
        Self { verdict: Verdict::Ignore, judges_large }
    }
}

#[async_trait]
impl Validator for Says {
    async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
        self.verdict
    }

    fn judges_large(&self) -> bool {
        self.judges_large
    }
}

async fn start_with(validator: impl Validator) -> (PeerNode, RawPeer, RawPeer) {
    let node = start(builder().validator(Arc::new(validator))).await;
    let source = RawPeer::join(identity(8), &node).await;
    let other = RawPeer::join(identity(9), &node).await;
    (node, source, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_judge_large_payloads_does_not_hold_them_back() {
    let accept = Says { verdict: Verdict::Accept, judges_large: false };
    let ignore = Says::ignore(false);
    for (node, mut source, mut other) in [start_with(accept).await, start_with(ignore).await] {
        let mut arrived = node.subscribe_all(StartAt::Now).await.unwrap();
        let transaction = large(8, PIECES);
        source.offer(&transaction).await;
        // Before the node has anything of the payload.
        other.expect("the header", |m| matches!(m, Message::Offer(_))).await;
        source.send_pieces(&transaction, 0..PIECES).await;
        assert!(soon("it is delivered", next(&mut arrived)).await.transaction == transaction);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_judges_large_payloads_holds_them_back_until_then() {
    let (node, mut source, mut other) = start_with(Says::ignore(true)).await;
    let mut events = node.events();
    let transaction = large(8, PIECES);
    source.offer(&transaction).await;
    source.send_pieces(&transaction, 0..PIECES).await;
    assert_eq!(refusal(&mut events, Refusal::Ignored).await.1, transaction.id());
    other.send(&[Message::Ping { nonce: 7 }]).await;
    loop {
        match other.next().await.expect("an open link") {
            Message::Pong { nonce: 7 } => break,
            Message::Offer(_) | Message::Announce(_) | Message::Push { .. } => panic!("passed on"),
            _ => {}
        }
    }
}
