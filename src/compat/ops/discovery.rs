//! Who is there: lists, registration, pings, exchange.

use super::{Ops, Refusal};
use crate::transport::Visitor;
use crate::wire::generated::discovery::{
    PeerExchangeRequest, PeerExchangeResponse, PeerListRequest, PeerListResponse, PingRequest,
    PingResponse, RegisterPeerRequest, RegisterPeerResponse,
};

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
