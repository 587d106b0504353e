//! Who is there: lists, registration, pings, exchange.

use super::{Ops, Refusal};
use crate::transport::Visitor;
use crate::wire::generated::discovery::{
    PeerExchangeRequest, PeerExchangeResponse, PeerListRequest, PeerListResponse, PingRequest,
    PingResponse, RegisterPeerRequest, RegisterPeerResponse,
};

/// What `register_peer` says.
pub(crate) const REGISTERED: &str = "Peer registered successfully";
pub(crate) const INVALID_ID: &str = "Invalid peer ID";
pub(crate) const INVALID_ADDRESS: &str = "Invalid peer address";
pub(crate) const INVALID_PORT: &str = "Invalid peer port";
pub(crate) const INVALID_PROTOCOLS: &str = "Invalid peer protocols";
pub(crate) const ID_IN_USE: &str = "Peer ID is in use";
pub(crate) const LIST_FULL: &str = "Peer list is full";

impl Ops {
    /// Lists peers: linked ones, known ones, registered ones, without the caller.
    pub(crate) async fn peer_list(
        &self,
        visitor: &Visitor,
        request: PeerListRequest,
    ) -> Result<PeerListResponse, Refusal> {
        todo!()
    }

    /// Takes a registration, or says in the response why not.
    pub(crate) async fn register_peer(
        &self,
        visitor: &Visitor,
        request: RegisterPeerRequest,
    ) -> Result<RegisterPeerResponse, Refusal> {
        todo!()
    }

    /// Says that this node is there.
    pub(crate) async fn ping(
        &self,
        visitor: &Visitor,
        request: PingRequest,
    ) -> Result<PingResponse, Refusal> {
        todo!()
    }

    /// Names peers, and hears of some; those are believed as far as a registration would be.
    pub(crate) async fn exchange_peers(
        &self,
        visitor: &Visitor,
        request: PeerExchangeRequest,
    ) -> Result<PeerExchangeResponse, Refusal> {
        todo!()
    }
}
