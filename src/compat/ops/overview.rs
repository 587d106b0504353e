//! How the node is, for who looks after it.

use super::{Ops, Refusal};
use crate::transport::Visitor;
use crate::types::{LinkStatus, Stats};
use crate::wire::generated::discovery::{PeerInfo, PeerListRequest};

/// Figures of the node, and everybody it knows.
#[derive(Debug, Clone)]
pub(crate) struct Overview {
    /// Figures of the node.
    pub(crate) stats: Stats,
    /// Open links.
    pub(crate) links: Vec<LinkStatus>,
    /// Everybody whom the list of peers names.
    pub(crate) listed: Vec<PeerInfo>,
}

impl Ops {
    /// Takes stock.
    pub(crate) async fn overview(&self, visitor: &Visitor) -> Result<Overview, Refusal> {
        let stopping = || Refusal::Unavailable("The node is stopping".to_owned());
        let (stats, links) = self.0.backend.status().await.ok_or_else(stopping)?;
        let everybody = PeerListRequest { max_peers: i32::MAX, ..PeerListRequest::default() };
        let listed = self.peer_list(visitor, everybody).await?.peers;
        Ok(Overview { stats, links, listed })
    }
}
