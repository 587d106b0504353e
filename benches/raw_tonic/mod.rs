//! A bidirectional tonic stream, and unary calls, over hyper and TLS 1.3, with the settings that they come
//! with.

mod unary;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::Pending;
use futures::{Sink, SinkExt, Stream, TryStreamExt};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sorcha_peer::error::{FailureKind, TransportError};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::body::Body;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

const NAME: &str = "localhost";
const ORIGIN: &str = "http://localhost";
/// Maximum number of bytes of a message.
const MAX_BYTES: usize = 1 << 20;

pub(crate) use unary::Unary;

/// Halves of a link, as transports hand them over.
pub(crate) type FrameSink = Pin<Box<dyn Sink<Bytes, Error = TransportError> + Send>>;
pub(crate) type FrameStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Messages with one field of bytes.
type Messages = ProstCodec<Bytes, Bytes>;

/// Opens a stream; returns what goes in at the client and what comes out at the server.
pub(crate) async fn open() -> (FrameSink, FrameStream) {
    let (incoming, opened) = oneshot::channel();
    let service = Service { incoming: Arc::new(Mutex::new(Some(incoming))) };
    let requests = connect(service).await;
    let (sink, frames) = mpsc::channel::<Bytes>(1);
    let mut client = tonic::client::Grpc::with_origin(requests, Uri::from_static(ORIGIN));
    let path = PathAndQuery::from_static("/raw.Stream/Open");
    let answer = client
        .streaming(tonic::Request::new(frames), path, Messages::default())
        .await
        .expect("an answer");
    let stream = opened.await.expect("a stream");
    let error = |message: String| TransportError::new(FailureKind::Closed, message);
    let sink = sink.sink_map_err(move |e| error(e.to_string()));
    // The answer has to live as long as the stream.
    let answer = answer.into_inner();
    let stream = stream.map_err(move |status| {
        let _ = &answer;
        error(status.to_string())
    });
    (Box::pin(sink), Box::pin(stream))
}

/// Serves one connection by `service`, and opens it.
async fn connect<S>(service: S) -> Requests
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + 'static,
{
    let (server, client) = tls();
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let (tcp, _) = socket.accept().await.expect("a connection");
        tcp.set_nodelay(true).expect("an option");
        let tls = server.accept(tcp).await.expect("TLS");
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = connection.serve_connection(TokioIo::new(tls), service).await;
    });
    let tcp = TcpStream::connect(address).await.expect("a connection");
    tcp.set_nodelay(true).expect("an option");
    let name = ServerName::try_from(NAME).expect("a name");
    let tls = client.connect(name, tcp).await.expect("TLS");
    let connection = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (requests, connection) = connection.handshake(TokioIo::new(tls)).await.expect("HTTP/2");
    tokio::spawn(connection);
    Requests(requests)
}

/// Both ends of a TLS that trust each other.
fn tls() -> (TlsAcceptor, TlsConnector) {
    let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    let (certificate, key) = (certified.cert.der().clone(), certified.signing_key);
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let versions = [&rustls::version::TLS13];
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let key = key.serialize_der().try_into().expect("a key");
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
}

/// Hands over the one stream that it is asked for, and answers nothing on it.
#[derive(Clone)]
struct Service {
    incoming: Arc<Mutex<Option<oneshot::Sender<Streaming<Bytes>>>>>,
}

type Nothing = Pending<Result<Bytes, Status>>;

impl tonic::server::StreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = Nothing;
    type Future = std::future::Ready<Result<tonic::Response<Nothing>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let incoming = self.incoming.lock().expect("whole").take().expect("one stream");
        let _ = incoming.send(request.into_inner());
        std::future::ready(Ok(tonic::Response::new(futures::stream::pending())))
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service = self.clone();
        async move {
            let mut grpc =
                tonic::server::Grpc::new(Messages::default()).max_decoding_message_size(MAX_BYTES);
            Ok(grpc.streaming(service, request).await)
        }
        .boxed()
    }
}

/// Service that tonic sends a request through.
#[derive(Clone)]
struct Requests(SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Requests {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, hyper::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}
