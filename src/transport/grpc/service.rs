//! What a connection may ask for: the routes, and the one that becomes a link.
//!
//! Contract: the first request for [`LINK_PATH`] is answered at once and its stream handed to
//! whoever made the [`Service`]; a second one on the same connection is refused. Every other path
//! is answered as unimplemented.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{Map, StreamExt};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

use super::link::RawCodec;
use super::shared::TARGET;
use crate::types::{MAX_FRAME_BYTES, PeerId};

/// The method whose stream is a link.
pub(super) const LINK_PATH: &str = "/sorcha.peer.gossip.v1.PeerGossip/Link";
/// The header in which a peer states its id where nothing proves it.
const CLAIM_HEADER: &str = "x-sorcha-peer-id";

/// Parts of an opened stream.
pub(super) struct Opened {
    /// Frames from the peer.
    pub(super) incoming: Streaming<Bytes>,
    /// Peer id that the peer states.
    pub(super) claim: Option<PeerId>,
}

/// Serves one connection.
#[derive(Clone)]
pub(super) struct Service {
    offer: Arc<Mutex<Option<LinkOffer>>>,
}

/// Answer to the first stream, given once.
struct LinkOffer {
    opened: oneshot::Sender<Opened>,
    outgoing: mpsc::Receiver<Bytes>,
    claim: Option<PeerId>,
}

impl Service {
    /// A service that sends `outgoing` over the stream and, where `claim` is given, states it.
    pub(super) fn new(
        outgoing: mpsc::Receiver<Bytes>,
        claim: Option<PeerId>,
    ) -> (Self, oneshot::Receiver<Opened>) {
        let (opened, result) = oneshot::channel();
        let offer = LinkOffer { opened, outgoing, claim };
        (Self { offer: Arc::new(Mutex::new(Some(offer))) }, result)
    }

    /// The table of routes.
    async fn route(self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            LINK_PATH => {
                Grpc::new(RawCodec)
                    .max_decoding_message_size(MAX_FRAME_BYTES)
                    .streaming(self, request)
                    .await
            }
            path => {
                tracing::debug!(target: TARGET, path, "no such method");
                Status::unimplemented("no such method").into_http()
            }
        }
    }

    fn open(&self, request: tonic::Request<Streaming<Bytes>>) -> OpenResult {
        let offer = self.offer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(LinkOffer { opened, outgoing, claim: ours }) = offer else {
            return Err(Status::resource_exhausted("a connection carries one link"));
        };
        let claim = claimed(request.metadata());
        let accepted = opened.send(Opened { incoming: request.into_inner(), claim });
        accepted.map_err(|_| Status::cancelled("too late"))?;
        let outgoing: OutgoingFrames = outgoing.map(Ok);
        let mut response = tonic::Response::new(outgoing);
        if let Some(peer_id) = ours {
            self::claim(response.metadata_mut(), peer_id);
        }
        Ok(response)
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.clone().route(request).map(Ok).boxed()
    }
}

type OutgoingFrames = Map<mpsc::Receiver<Bytes>, fn(Bytes) -> Result<Bytes, Status>>;
type OpenResult = Result<tonic::Response<OutgoingFrames>, Status>;

impl StreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = OutgoingFrames;
    type Future = Ready<OpenResult>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        ready(self.open(request))
    }
}

/// States a peer id.
pub(super) fn claim(metadata: &mut MetadataMap, peer_id: PeerId) {
    if let Ok(value) = HeaderValue::try_from(peer_id.to_string()) {
        metadata.as_mut().insert(CLAIM_HEADER, value);
    }
}

/// The peer id that the other side states.
pub(super) fn claimed(metadata: &MetadataMap) -> Option<PeerId> {
    metadata.as_ref().get(CLAIM_HEADER)?.to_str().ok()?.parse().ok()
}
