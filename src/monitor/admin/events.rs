//! Events: the latest in a ring, and streams that follow it.
//!
//! Contract: the ring has at most [`MAX_KEPT`] events, each with a number that rises by one. A stream remembers the
//! number that it has told last and nothing else, so a slow reader costs what a quick one does: what the ring has lost
//! meanwhile it is told the number of.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::Shared;
use crate::node::Events;
use crate::types::Event;

/// Maximum number of events that are kept.
pub(super) const MAX_KEPT: usize = 500;
/// Time after which a stream without news says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// First piece of a stream: whoever reads it knows that nothing is missed from here on.
const GREETING: &str = ": events\nretry: 3000\n\n";

/// Event with its number and time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Told {
    pub(super) seq: u64,
    pub(super) at_ms: u64,
    #[serde(flatten)]
    pub(super) event: Event,
}

/// The latest events.
#[derive(Debug)]
pub(super) struct EventRing {
    kept: Mutex<VecDeque<Told>>,
    /// Number of the newest event; 0 before the first.
    newest: watch::Sender<u64>,
}

impl Default for EventRing {
    fn default() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl EventRing {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Told>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, at_ms: u64, event: Event) {
        let mut kept = self.kept();
        let seq = *self.newest.borrow() + 1;
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(Told { seq, at_ms, event });
        drop(kept);
        self.newest.send_replace(seq);
    }

    /// The latest events, the newest first.
    pub(super) fn recent(&self, limit: usize) -> Vec<Told> {
        self.kept().iter().rev().take(limit).cloned().collect()
    }

    /// Events behind this number, and how many of them are no longer kept.
    fn after(&self, seen: u64) -> (u64, Vec<Told>) {
        let kept = self.kept();
        let first = kept.front().map_or(seen + 1, |told| told.seq);
        let news = kept.iter().filter(|told| told.seq > seen).cloned().collect();
        (first.saturating_sub(seen + 1), news)
    }

    /// A stream of server-sent events, from now on or, where a reader comes back, behind the last that it has seen.
    /// `place` is given back with the stream.
    pub(super) fn stream(
        &self,
        shared: Arc<Shared>,
        last_seen: Option<u64>,
        place: OwnedSemaphorePermit,
    ) -> BoxStream<'static, Bytes> {
        let newest = self.newest.subscribe();
        let now = *newest.borrow();
        // A number of another run says nothing.
        let seen = last_seen.filter(|seen| *seen <= now).unwrap_or(now);
        let following = Following { shared, newest, seen, _place: place };
        let greeting = stream::iter([Bytes::from_static(GREETING.as_bytes())]);
        greeting.chain(stream::unfold(following, Following::next)).boxed()
    }
}

/// Place of a reader in the ring.
struct Following {
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
    /// Number of the event that was told last.
    seen: u64,
    _place: OwnedSemaphorePermit,
}

impl Following {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let seen = self.seen;
        let news = self.newest.wait_for(|newest| *newest > seen);
        match timeout(HEARTBEAT, async { news.await.map(drop) }).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => return Some((Bytes::from_static(b":\n\n"), self)),
        }
        let (missed, news) = self.shared.events.after(self.seen);
        let mut text = String::new();
        if missed > 0 {
            text = format!("event: lagged\ndata: {{\"missed\":{missed}}}\n\n");
        }
        for told in news {
            self.seen = told.seq;
            text.push_str(&written(&told));
        }
        Some((text.into(), self))
    }
}

/// An event as a stream has it.
fn written(told: &Told) -> String {
    // No field is of a kind that JSON has not.
    let value = serde_json::to_value(told).unwrap_or_default();
    let name = value["event"].as_str().unwrap_or("unknown");
    format!("id: {}\nevent: {name}\ndata: {value}\n\n", told.seq)
}

/// Keeps events and what they say of peers, until the node has ended.
pub(super) async fn follow(shared: &Shared, mut events: Events) {
    while let Some(event) = events.next().await {
        let Some(node) = shared.node.upgrade() else { return };
        let now_ms = node.now().as_millis();
        shared.lost().note(&event, now_ms);
        if matches!(event, Event::Lagged { .. })
            && let Ok(linked) = node.peers().await
        {
            shared.lost().linked_are(&linked, now_ms);
        }
        shared.events.push(now_ms, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Mode, PeerId};

    fn ring(count: u64) -> EventRing {
        let ring = EventRing::default();
        for missed in 0..count {
            ring.push(missed, Event::Lagged { missed });
        }
        ring
    }

    #[test]
    fn the_ring_has_the_latest_and_says_what_it_lost() {
        let few = ring(3);
        let ids = |told: Vec<Told>| told.iter().map(|told| told.seq).collect::<Vec<_>>();
        assert_eq!(ids(few.recent(2)), [3, 2]);
        let after = |ring: &EventRing, seen| {
            let (missed, news) = ring.after(seen);
            (missed, ids(news))
        };
        assert_eq!(after(&few, 1), (0, vec![2, 3]));
        assert_eq!(after(&few, 3), (0, vec![]));
        assert_eq!(after(&ring(0), 0), (0, vec![]));
        let many = ring(2 * MAX_KEPT as u64);
        assert_eq!(many.recent(usize::MAX).len(), MAX_KEPT);
        let (missed, news) = after(&many, 10);
        assert_eq!((missed, news.len()), (MAX_KEPT as u64 - 10, MAX_KEPT));
    }

    #[test]
    fn an_event_is_written_with_its_name_and_number() {
        let told = Told { seq: 7, at_ms: 5, event: Event::ModeChanged { mode: Mode::Online } };
        let text = written(&told);
        let data = r#"{"at_ms":5,"event":"mode_changed","mode":"online","seq":7}"#;
        assert_eq!(text, format!("id: 7\nevent: mode_changed\ndata: {data}\n\n"));
        let right = Told { event: Event::ClockRight, ..told.clone() };
        assert!(written(&right).contains("event: clock_right\n"), "{}", written(&right));
        let line = Event::DeadLettered {
            id: crate::types::TransactionId::from_bytes([1; 32]),
            reason: "a\nb".to_owned(),
        };
        let text = written(&Told { event: line, ..told });
        assert_eq!(text.lines().count(), 4, "no line is broken: {text}");
        assert!(!text.contains(&PeerId::from_bytes([9; 32]).to_string()));
    }
}
