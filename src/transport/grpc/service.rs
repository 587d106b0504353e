//! Requests that become links.
//!
//! Contract: a request for [`LINK_PATH`] with an offer is answered at once and its stream handed to
//! whoever made the offer; without, a second one on the same connection, it is refused.

use std::future::{Ready, ready};
use std::sync::Arc;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::stream::{Map, StreamExt};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

use super::codec::BytesCodec;
use super::link::{Halves, LinkSink, LinkStream};
use crate::ports::RawLink;
use crate::transport::pipe::Way;
use crate::transport::tls::Proven;
use crate::types::{MAX_FRAME_BYTES, PeerId};

/// The method whose stream is a link.
pub(in crate::transport) const LINK_PATH: &str = "/sorcha.peer.gossip.v1.PeerGossip/Link";
/// The header in which a peer states its id where nothing proves it.
const CLAIM_HEADER: &str = "x-sorcha-peer-id";

/// Parts of an opened stream.
pub(in crate::transport) struct Opened {
    /// Frames from the peer.
    incoming: Streaming<Bytes>,
    /// Peer id that the peer states.
    pub(in crate::transport) claim: Option<PeerId>,
}

impl Opened {
    /// The link that the stream is.
    pub(in crate::transport) fn into_link(
        self,
        sink: LinkSink,
        halves: Arc<Halves>,
        remote: PeerId,
        way: Way,
        proven: Option<Proven>,
    ) -> RawLink {
        link(sink, LinkStream::new(self.incoming, halves), remote, way, proven)
    }
}

/// A link of the two halves of a stream.
pub(super) fn link(
    sink: LinkSink,
    stream: LinkStream,
    remote: PeerId,
    way: Way,
    proven: Option<Proven>,
) -> RawLink {
    let link = RawLink::new(remote, way.kind, way.address, Box::pin(sink), Box::pin(stream));
    let certified = proven.is_some_and(|proven| proven.certified);
    let binding = proven.map(|proven| proven.binding);
    let (received, taken) = (Some(way.traffic.received), Some(way.traffic.taken));
    RawLink { received, taken, binding, certified, ..link }
}

/// Answer to the first stream, given once.
pub(in crate::transport) struct LinkOffer {
    opened: oneshot::Sender<Opened>,
    outgoing: mpsc::Receiver<Bytes>,
    claim: Option<PeerId>,
}

impl LinkOffer {
    /// An offer to send `outgoing` over the stream and, where `claim` is given, to state it.
    pub(in crate::transport) fn new(
        outgoing: mpsc::Receiver<Bytes>,
        claim: Option<PeerId>,
    ) -> (Self, oneshot::Receiver<Opened>) {
        let (opened, result) = oneshot::channel();
        (Self { opened, outgoing, claim }, result)
    }

    fn open(self, request: tonic::Request<Streaming<Bytes>>) -> OpenResult {
        let Self { opened, outgoing, claim: ours } = self;
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

/// Answers a request for a link.
pub(in crate::transport) async fn serve_link(
    request: Request<Incoming>,
    offer: Option<LinkOffer>,
) -> Response<Body> {
    Grpc::new(BytesCodec::Bare)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .streaming(Offer(offer), request)
        .await
}

/// Service of one request.
struct Offer(Option<LinkOffer>);

type OutgoingFrames = Map<mpsc::Receiver<Bytes>, fn(Bytes) -> Result<Bytes, Status>>;
type OpenResult = Result<tonic::Response<OutgoingFrames>, Status>;

impl StreamingService<Bytes> for Offer {
    type Response = Bytes;
    type ResponseStream = OutgoingFrames;
    type Future = Ready<OpenResult>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        ready(match self.0.take() {
            Some(offer) => offer.open(request),
            None => Err(Status::resource_exhausted("a connection carries one link")),
        })
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
