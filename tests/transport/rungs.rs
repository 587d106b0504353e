//! Ways to a peer on which something stands between: the suite for each, on both ports.

use std::net::SocketAddr;

use async_trait::async_trait;
use futures::future::join;
use sorcha_peer::error::{FailureKind, TransportError};
use sorcha_peer::ports::{Accepted, Listener, RawLink, Transport};
use sorcha_peer::testing::{self, TransportNode};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Endpoint, Identity, PeerId, TransportKind};

use crate::common::{any_port, identity, in_time};

/// Spelling of an endpoint, and the port that is dialled by it.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// `host:port`.
    Direct,
    /// `https://host:port/path`.
    Https,
    /// `http://host:port/path`, at the port for proxies.
    Http,
    /// `wss://host:port/path`.
    #[cfg(feature = "websocket")]
    Wss,
    /// `ws://host:port`, at the port for proxies.
    #[cfg(feature = "websocket")]
    Ws,
}

impl Way {
    /// Whether it leads to the port for proxies.
    fn is_proxied(self) -> bool {
        #[cfg(feature = "websocket")]
        if matches!(self, Self::Ws) {
            return true;
        }
        matches!(self, Self::Http)
    }
}

/// A transport that dials addresses in one way.
#[derive(Debug)]
struct Via {
    identity: Identity,
    options: GrpcOptions,
    rung: TransportKind,
    way: Way,
}

impl Via {
    fn transport(&self, options: GrpcOptions) -> GrpcTransport {
        let transport = GrpcTransport::new(self.identity.clone(), options).unwrap();
        transport.rung(self.rung).unwrap()
    }

    fn spelled(&self, endpoint: &Endpoint) -> Endpoint {
        let text = match self.way {
            Way::Direct => endpoint.to_string(),
            Way::Https => format!("https://{endpoint}/a/b"),
            Way::Http => format!("http://{endpoint}/a"),
            #[cfg(feature = "websocket")]
            Way::Wss => format!("wss://{endpoint}/a/b"),
            #[cfg(feature = "websocket")]
            Way::Ws => format!("ws://{endpoint}"),
        };
        text.parse().unwrap()
    }
}

#[async_trait]
impl Transport for Via {
    fn kind(&self) -> TransportKind {
        self.rung
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        expected: Option<PeerId>,
    ) -> Result<RawLink, TransportError> {
        self.transport(self.options.clone()).dial(&self.spelled(endpoint), expected).await
    }

    async fn listen(&self, bind: SocketAddr) -> Result<Box<dyn Listener>, TransportError> {
        let mut options = self.options.clone();
        if self.way.is_proxied() {
            options.http = Some(bind);
            let inner = self.transport(options).listen(any_port()).await?;
            return Ok(Box::new(AtHttp(inner)));
        }
        self.transport(options).listen(bind).await
    }
}

/// A listener whose port for proxies is its address.
#[derive(Debug)]
struct AtHttp(Box<dyn Listener>);

#[async_trait]
impl Listener for AtHttp {
    fn local_addr(&self) -> SocketAddr {
        self.0.http_addr().unwrap()
    }

    async fn accept(&mut self) -> Accepted {
        self.0.accept().await
    }
}

fn node(seed: u8, rung: TransportKind, way: Way, options: &GrpcOptions) -> TransportNode {
    let identity = identity(seed);
    let id = identity.peer_id();
    let via = Via { identity, options: options.clone(), rung, way };
    if options.plaintext { TransportNode::unproven(id, via) } else { TransportNode::new(id, via) }
}

async fn conforms(rung: TransportKind, way: Way, plaintext: bool) {
    let mut options = GrpcOptions::default();
    options.plaintext = plaintext;
    let (dialler, listener) = (node(1, rung, way, &options), node(2, rung, way, &options));
    in_time(testing::transport(&dialler, &listener, any_port())).await;
    // Whatever path it takes, a link says by what it came.
    let mut socket = listener.transport.listen(any_port()).await.unwrap();
    let endpoint = Endpoint::from(socket.local_addr());
    let dial = dialler.transport.dial(&endpoint, Some(listener.id));
    let (dialled, accepted) = in_time(join(dial, TransportNode::accept(&mut socket))).await;
    let dialled = dialled.unwrap();
    assert_eq!((dialled.kind, accepted.kind), (rung, rung));
    let direct = matches!(way, Way::Direct);
    assert_eq!(dialled.address.is_some(), direct, "of the peer, and not of what stands between");
    assert_eq!(accepted.address.is_some(), !way.is_proxied());
    in_time(TransportNode::assert_open(dialled, accepted)).await;
}

#[tokio::test]
async fn grpc_conforms_by_way_of_https() {
    conforms(TransportKind::GrpcStream, Way::Https, false).await;
}

#[tokio::test]
async fn grpc_conforms_by_way_of_clear_text() {
    conforms(TransportKind::GrpcStream, Way::Http, false).await;
}

#[tokio::test]
async fn grpc_conforms_by_way_of_clear_text_in_plaintext() {
    conforms(TransportKind::GrpcStream, Way::Http, true).await;
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn websocket_conforms() {
    conforms(TransportKind::WebSocket, Way::Direct, false).await;
}

#[cfg(feature = "websocket")]
#[tokio::test(flavor = "multi_thread")]
async fn websocket_conforms_on_several_threads() {
    conforms(TransportKind::WebSocket, Way::Direct, false).await;
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn websocket_conforms_in_plaintext() {
    conforms(TransportKind::WebSocket, Way::Direct, true).await;
    conforms(TransportKind::WebSocket, Way::Ws, true).await;
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn websocket_conforms_by_way_of_tls_of_somebody_else() {
    conforms(TransportKind::WebSocket, Way::Https, false).await;
    conforms(TransportKind::WebSocket, Way::Wss, false).await;
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn websocket_conforms_by_way_of_clear_text() {
    conforms(TransportKind::WebSocket, Way::Http, false).await;
    conforms(TransportKind::WebSocket, Way::Ws, false).await;
}

#[tokio::test]
async fn calls_conform() {
    for plaintext in [false, true] {
        conforms(TransportKind::GrpcUnary, Way::Direct, plaintext).await;
    }
}

#[tokio::test]
async fn calls_conform_by_way_of_others() {
    for way in [Way::Https, Way::Http] {
        conforms(TransportKind::GrpcUnary, way, false).await;
    }
}

#[cfg(feature = "rest")]
#[tokio::test]
async fn plain_requests_conform() {
    for plaintext in [false, true] {
        conforms(TransportKind::Rest, Way::Direct, plaintext).await;
    }
}

#[cfg(feature = "rest")]
#[tokio::test]
async fn plain_requests_conform_by_way_of_others() {
    for way in [Way::Https, Way::Http] {
        conforms(TransportKind::Rest, way, false).await;
    }
}

#[tokio::test]
async fn an_endpoint_is_dialled_by_the_rungs_it_is_for_and_leads_to_its_peer_only() {
    let options = GrpcOptions::default();
    let listener = node(2, TransportKind::GrpcStream, Way::Direct, &options);
    let mut socket = listener.transport.listen(any_port()).await.unwrap();
    let address = socket.local_addr();
    tokio::spawn(async move {
        while let Accepted::Link(_) | Accepted::Failed { .. } = socket.accept().await {}
    });
    let client = GrpcTransport::new(identity(1), options).unwrap();
    let dial = async |text: String, expected| {
        let endpoint: Endpoint = text.parse().unwrap();
        in_time(client.dial(&endpoint, expected)).await
    };
    let other = identity(3).peer_id();
    for place in [address.to_string(), format!("https://{address}/x")] {
        let (right, wrong) = (format!("{place}#{}", listener.id), format!("{place}#{other}"));
        assert_eq!(dial(right.clone(), None).await.unwrap().remote, listener.id);
        assert_eq!(dial(wrong, None).await.unwrap_err().kind, FailureKind::Identity);
        assert_eq!(dial(right, Some(other)).await.unwrap_err().kind, FailureKind::Identity);
    }
    let error = dial(format!("wss://{address}"), None).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Unsupported);
}
