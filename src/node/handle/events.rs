//! Events for the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use crate::types::Event;

/// Number of events kept for a host that reads slowly.
pub(in crate::node) const MAX_EVENTS_BEHIND: usize = 4096;

/// Events of a node from the moment of [`PeerNode::events`](super::PeerNode::events), in order.
///
/// A host that falls more than 4096 events behind gets [`Event::Lagged`] with the number it missed,
/// and goes on from there.
///
/// ```
/// use std::time::Duration;
/// use sorcha_peer::{Event, PeerNode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
/// let mut events = node.events();
/// let watcher = tokio::spawn(async move {
///     while let Some(event) = events.next().await {
///         match event {
///             Event::PeerUp { peer, .. } => println!("linked with {peer}"),
///             Event::DeadLettered { id, reason, .. } => eprintln!("nobody takes {id}: {reason}"),
///             Event::StorageFailed { message, .. } => eprintln!("storage: {message}"),
///             _ => {}
///         }
///     }
/// });
/// node.shutdown(Duration::from_secs(1)).await?;
/// watcher.await?; // the events end with the node
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    events: broadcast::Receiver<Event>,
    /// Number of events that all readers of the node missed together.
    lagged: Arc<AtomicU64>,
}

impl Events {
    pub(super) fn new(events: broadcast::Receiver<Event>, lagged: Arc<AtomicU64>) -> Self {
        Self { events, lagged }
    }

    /// Waits for the next event; `None` after the node is shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                self.lagged.fetch_add(missed, Ordering::Relaxed);
                Some(Event::Lagged { missed })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
