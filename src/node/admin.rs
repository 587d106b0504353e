//! The node as its admin listener sees it, beyond what hosts see.

use super::handle::PeerNode;
use crate::config::Config;
use crate::types::WallTime;

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
}
