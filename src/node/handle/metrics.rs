//! Metrics of a node, as its host serves them.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::NodeClosed;
use crate::monitor;
use crate::node::messages::Command;

use super::PeerNode;

/// Maximum time for a store to say how large its log is.
const MAX_WAIT_FOR_STORE: Duration = Duration::from_secs(1);

impl PeerNode {
    /// Figures of the node as text for Prometheus: the exposition format 0.0.4, of content type
    /// `text/plain; version=0.0.4; charset=utf-8`. A host serves it where it serves its own metrics;
    /// one with several nodes gives each a path, and so a label, of its own.
    ///
    /// All that [`PeerNode::stats`] tells is in it, and the links together: no peer, address or topic is
    /// named, and there are at most 400 series, however many peers there are. The guide has the list of
    /// all, on the page [operating](crate::guide::operating), and `examples/grafana` a dashboard.
    /// Waits as [`PeerNode::peers`] does, and for a store of the host's own at most a second.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn metrics_text(&self) -> Result<String, NodeClosed> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Overview { reply }).await?;
        let (mut stats, links) = answer.await.map_err(|_| NodeClosed)?;
        self.add_own_counts(&mut stats);
        let usage = tokio::time::timeout(MAX_WAIT_FOR_STORE, self.0.log.usage()).await;
        let usage = usage.ok().and_then(Result::ok);
        Ok(monitor::text(&monitor::Snapshot {
            stats,
            links,
            storage_fails: self.storage_failure().is_some(),
            outbox_limit: u64::from(self.0.config.outbox.max_entries),
            log_bytes: usage.map(|usage| (usage.bytes, usage.max_bytes)),
        }))
    }
}
