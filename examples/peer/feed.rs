//! What the node reports: events and deliveries.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use sha2::{Digest, Sha256};
use sorcha_peer::error::SubscribeError;
use sorcha_peer::types::LinkStatus;
use sorcha_peer::{
    Delivery, Event, Events, Item, Mode, PeerNode, StartAt, Subscription, Topic, WeakPeerNode,
};

use crate::breakers::Breakers;
use crate::input::Ref;
use crate::output::{Line, Missed, Out};

/// Delay after the log could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Reports events until the node is shut down, beginning with the state it is in: what happened
/// before `events` was made is not among them.
pub(crate) async fn report_events(
    mut events: Events,
    node: PeerNode,
    breakers: Breakers,
    out: Out,
) {
    let mut mode = node.mode();
    out.line(Line::Mode { mode }).await;
    let links = node.peers().await.unwrap_or_default();
    // Who only reports keeps no node alive.
    let weak = node.downgrade();
    drop(node);
    let mut told = BTreeSet::new();
    // Everything that led to `links` is waiting here.
    while let Some(Some(event)) = events.next().now_or_never() {
        if let Event::PeerUp { peer, .. } | Event::PeerDown { peer, .. } = &event {
            told.insert(*peer);
        }
        breakers.note(&event);
        report(event, &mut mode, &weak, &out).await;
    }
    for link in links.into_iter().filter(|link| !told.contains(&link.peer)) {
        let LinkStatus { peer, transport, address, direction, .. } = link;
        out.line(Line::PeerUp { peer, transport, address, direction }).await;
    }
    while let Some(event) = events.next().await {
        breakers.note(&event);
        report(event, &mut mode, &weak, &out).await;
    }
}

/// How others reach the node, while it is there.
async fn reachability(node: &WeakPeerNode) -> Option<Line> {
    let report = node.upgrade()?.reachability().await.ok()?;
    Some(Line::Reachability { r#ref: None, report: Box::new(report) })
}

async fn report(event: Event, mode: &mut Mode, node: &WeakPeerNode, out: &Out) {
    let line = match event {
        Event::PeerUp { peer, transport, address, direction, .. } => {
            Line::PeerUp { peer, transport, address, direction }
        }
        Event::PeerDown { peer, reason, .. } => Line::PeerDown { peer, reason },
        Event::TransportChanged { peer, from, to, reason, .. } => {
            Line::TransportChanged { peer, from, to, reason }
        }
        Event::BreakerOpened { peer, address, failures, reset_s, .. } => {
            Line::BreakerOpened { peer, address, failures, reset_s }
        }
        Event::BreakerHalfOpen { peer, address, .. } => Line::BreakerHalfOpen { peer, address },
        Event::BreakerClosed { peer, address, .. } => Line::BreakerClosed { peer, address },
        Event::ModeChanged { mode: new, .. } if new == *mode => return,
        Event::ModeChanged { mode: new, .. } => {
            *mode = new;
            Line::Mode { mode: new }
        }
        Event::Replicated { id, peers, .. } => Line::Replicated { id, peers },
        Event::Renewed { id, renewed_as, .. } => Line::Renewed { id, renewed_as },
        Event::PublishRefused { id, peer, reason, .. } => Line::Refused { id, peer, reason },
        Event::DeadLettered { id, reason, .. } => Line::DeadLettered { id, reason },
        Event::ClockOff { offset_ms, peers, .. } => Line::ClockOff { offset_ms, peers },
        Event::ClockRight => Line::ClockRight,
        Event::AddressObserved { address, prober, .. } => Line::Observed { address, prober },
        Event::ReachabilityChanged { .. } => match reachability(node).await {
            Some(line) => line,
            None => return,
        },
        Event::IdentityInUse { peer, address, .. } => Line::IdentityInUse { peer, address },
        Event::StorageFailed { message, .. } => Line::error(Ref::NONE, &message),
        Event::Lagged { missed, .. } => {
            Line::error(Ref::NONE, &format!("{missed} events of the node were missed"))
        }
        // Not part of the contract.
        other => return tracing::info!(event = ?other, "node event"),
    };
    out.line(line).await;
}

/// Deliveries as the command line wants them.
pub(crate) struct Deliveries {
    subscription: Subscription,
    content: Content,
}

/// What is told of a payload, beside its hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    /// Tell the payload in base64.
    pub(crate) base64: bool,
    /// Tell the payload as text, where it is UTF-8.
    pub(crate) text: bool,
}

impl Deliveries {
    /// One subscription, whatever the number of topics (none is every topic): cursors must rise over all
    /// of them.
    pub(crate) async fn open(
        node: &PeerNode,
        topics: &[Topic],
        from: StartAt,
        content: Content,
    ) -> Result<Self, SubscribeError> {
        let subscription = match topics {
            [] => node.subscribe_all(from).await?,
            topics => node.subscribe_topics(topics.iter().map(Topic::as_str), from).await?,
        };
        Ok(Self { subscription, content })
    }

    /// Delivers until the node is shut down and everything it accepted was delivered.
    pub(crate) async fn run(mut self, out: Out) {
        while let Some(item) = self.subscription.next().await {
            match item {
                Item::Delivery(delivery) => out.line(self.delivered(&delivery)).await,
                Item::Gap { after, until, span, .. } => {
                    let missed = span.map(|span| Missed { from: span.start, until: span.end });
                    out.line(Line::Gap { after, until, missed }).await;
                }
                Item::Failed(error) => {
                    out.line(Line::error(Ref::NONE, &error)).await;
                    tokio::time::sleep(PAUSE).await;
                }
                _ => {}
            }
        }
    }

    fn delivered(&self, delivery: &Delivery) -> Line {
        let transaction = &delivery.transaction;
        let payload = transaction.payload();
        let text = std::str::from_utf8(payload).ok().filter(|_| self.content.text);
        Line::Delivered {
            id: transaction.id(),
            topic: transaction.topic().clone(),
            origin: transaction.origin(),
            from: delivery.from,
            hops: delivery.hops,
            size: payload.len(),
            sha256: hex(&Sha256::digest(payload)),
            cursor: delivery.cursor,
            payload: self.content.base64.then(|| STANDARD.encode(payload)),
            text: text.map(str::to_owned),
            traceparent: transaction.traceparent(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
