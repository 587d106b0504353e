//! How others reach the node.

use tokio::sync::oneshot;

use super::peer_node::PeerNode;
use crate::error::NodeClosed;
use crate::node::messages::Command;
use crate::types::ReachabilityReport;

impl PeerNode {
    /// How others reach this node, as far as it knows: whether they can dial it and where, what it listens
    /// at and advertises, each address that it may have with who says so and what becomes of it, how the
    /// NAT behaves, and who was asked and found nothing. Waits as [`PeerNode::peers`] does. Changes of the
    /// state come as [`Event::ReachabilityChanged`](crate::Event::ReachabilityChanged). See the guide's page on
    /// [reachability](crate::guide::reachability).
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn reachability(&self) -> Result<ReachabilityReport, NodeClosed> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Reachability { reply }).await?;
        let mut report = answer.await.map_err(|_| NodeClosed)?;
        report.listening = self.listening();
        let learned = self.0.learned.borrow();
        report.nat.clone_from(&learned.nat);
        report.failed.clone_from(&learned.failed);
        Ok(report)
    }
}
