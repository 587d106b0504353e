//! The node as its admin listener sees it, beyond what hosts see.

use tokio::sync::oneshot;

use super::handle::PeerNode;
use super::messages::Command;
use crate::config::Config;
use crate::error::NodeClosed;
use crate::types::{Endpoint, WallTime};

impl PeerNode {
    /// Configuration that the node runs with.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Time that the node goes by.
    pub(crate) fn now(&self) -> WallTime {
        self.0.clock.now()
    }

    /// The latest dial or link that failed, in words.
    pub(crate) fn hint(&self) -> Option<String> {
        self.0.state.borrow().hint.clone()
    }

    /// Addresses in the node's own record.
    pub(crate) async fn own_addresses(&self) -> Result<Vec<Endpoint>, NodeClosed> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Addresses { reply }).await?;
        answer.await.map_err(|_| NodeClosed)
    }
}
