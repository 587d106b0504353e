//! Metrics of a node, as its host serves them.

use std::time::Duration;

use tokio::sync::oneshot;
#[cfg(feature = "metrics")]
use tokio::sync::watch;

use crate::error::NodeClosed;
use crate::monitor::{self, Snapshot};
use crate::node::messages::Command;
use crate::types::{LinkStatus, Stats};

use super::PeerNode;
#[cfg(feature = "metrics")]
use super::WeakPeerNode;

/// Maximum time for a store to say how large its log is.
const MAX_WAIT_FOR_STORE: Duration = Duration::from_secs(1);
/// Time between two figures for a collector.
#[cfg(feature = "metrics")]
const MAX_AGE: Duration = Duration::from_secs(1);

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
        Ok(monitor::text(&self.snapshot().await?))
    }

    /// Figures of the node as [`PeerNode::metrics_text`] tells them, in the format `OpenMetrics` 1.0: of
    /// content type `application/openmetrics-text; version=1.0.0; charset=utf-8`, for whoever asks for that.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn openmetrics_text(&self) -> Result<String, NodeClosed> {
        Ok(monitor::openmetrics(&self.snapshot().await?))
    }

    /// Collector of the same figures for a registry of `prometheus-client` 0.26; not covered by semver,
    /// since it is of a type of that crate. What it shows is a second old at the most, so no scrape waits
    /// for the node: while the collector lives, figures are taken once in a second. It does not keep the
    /// node alive, and once the node has stopped it shows nothing.
    ///
    /// ```
    /// use prometheus_client::encoding::prometheus_text;
    /// use prometheus_client::registry::Registry;
    /// # use sorcha_peer::PeerNode;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// let mut registry = Registry::default();
    /// registry.register_collector(node.metrics_collector().await?);
    /// let mut text = String::new();
    /// prometheus_text::encode(&mut text, &registry)?; // at every scrape
    /// assert!(text.contains("sorcha_peer_uptime_seconds"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NodeClosed`].
    #[cfg(feature = "metrics")]
    pub async fn metrics_collector(
        &self,
    ) -> Result<Box<dyn prometheus_client::collector::Collector>, NodeClosed> {
        let (sender, figures) = watch::channel(self.snapshot().await?);
        self.0.runtime.spawn(refresh(self.downgrade(), sender));
        Ok(Box::new(monitor::LatestFigures { figures, events: self.0.events.clone() }))
    }

    /// Figures and links of one instant.
    pub(crate) async fn overview(&self) -> Result<(Stats, Vec<LinkStatus>), NodeClosed> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Overview { reply }).await?;
        let (mut stats, links) = answer.await.map_err(|_| NodeClosed)?;
        self.add_own_counts(&mut stats);
        Ok((stats, links))
    }

    /// All that metrics are made of, of one instant.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, NodeClosed> {
        let (stats, links) = self.overview().await?;
        let usage = tokio::time::timeout(MAX_WAIT_FOR_STORE, self.0.log.usage()).await;
        let usage = usage.ok().and_then(Result::ok);
        Ok(Snapshot {
            stats,
            links,
            storage_fails: self.storage_failure().is_some(),
            outbox_limit: u64::from(self.0.config.outbox.max_entries),
            log_bytes: usage.map(|usage| (usage.bytes, usage.max_bytes)),
        })
    }
}

/// Takes figures for a collector until either it or the node is gone.
#[cfg(feature = "metrics")]
async fn refresh(node: WeakPeerNode, figures: watch::Sender<Snapshot>) {
    loop {
        tokio::select! {
            () = figures.closed() => return,
            () = tokio::time::sleep(MAX_AGE) => {}
        }
        let Some(node) = node.upgrade() else { return };
        let Ok(snapshot) = node.snapshot().await else { return };
        figures.send_replace(snapshot);
    }
}
