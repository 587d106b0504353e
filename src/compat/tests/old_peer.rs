//! A peer of the original on a real socket, made from the stubs: what registers, and is asked back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::Stream;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::codegen::Service;
use tonic::{Response, Status};

use crate::wire::generated::discovery::peer_discovery_server::{
    PeerDiscovery, PeerDiscoveryServer,
};
use crate::wire::generated::discovery::{
    PeerExchangeRequest, PeerExchangeResponse, PeerInfo, PeerListRequest, PeerListResponse,
    PeerStatus, PingRequest, PingResponse, RegisterPeerRequest, RegisterPeerResponse,
};
use crate::wire::generated::transaction::transaction_distribution_server::{
    TransactionDistribution, TransactionDistributionServer,
};
use crate::wire::generated::transaction::{
    NotificationAck, TransactionChunk, TransactionNotification, TransactionRequest,
    TransactionResponse,
};

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

/// What it has, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Payloads by the name under which they are asked for.
    pub(crate) payloads: HashMap<String, Bytes>,
    /// Number of times that each was asked for, whole and in pieces.
    pub(crate) asked: HashMap<String, (u32, u32)>,
    /// Number of fetches to be failed before one is answered.
    pub(crate) failures: u32,
    pub(crate) pings: u32,
    pub(crate) told: Vec<TransactionNotification>,
}

/// The peer; its port is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct OldPeer {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl OldPeer {
    pub(crate) async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let face = Face { id: id.to_owned(), state: Arc::clone(&state) };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, face));
        Self { id: id.to_owned(), address, state, _tasks: tasks }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What it says of itself.
    pub(crate) fn info(&self) -> PeerInfo {
        PeerInfo {
            peer_id: self.id.clone(),
            address: self.address.ip().to_string(),
            port: self.address.port().into(),
            supported_protocols: vec!["GrpcStream".to_owned(), "Grpc".to_owned()],
            ..PeerInfo::default()
        }
    }

    pub(crate) fn registration(&self) -> RegisterPeerRequest {
        RegisterPeerRequest { peer_info: Some(self.info()) }
    }
}

#[derive(Debug, Clone)]
struct Face {
    id: String,
    state: Arc<Mutex<State>>,
}

impl Face {
    fn find(&self, hash: &str, in_pieces: bool) -> Result<Option<Bytes>, Status> {
        let mut state = self.state.lock().unwrap();
        let asked = state.asked.entry(hash.to_owned()).or_default();
        if in_pieces {
            asked.1 += 1;
        } else {
            asked.0 += 1;
        }
        if state.failures > 0 {
            state.failures -= 1;
            return Err(Status::unavailable("on purpose"));
        }
        Ok(state.payloads.get(hash).cloned())
    }
}

async fn serve(listener: TcpListener, face: Face) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let discovery = PeerDiscoveryServer::new(face.clone());
        let transactions =
            TransactionDistributionServer::new(face.clone()).max_encoding_message_size(usize::MAX);
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (mut discovery, mut transactions) = (discovery.clone(), transactions.clone());
            async move {
                if request.uri().path().starts_with("/sorcha.peer.discovery.") {
                    discovery.call(request).await
                } else {
                    transactions.call(request).await
                }
            }
        });
        connections.spawn(async move {
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[tonic::async_trait]
impl PeerDiscovery for Face {
    async fn ping(&self, _: tonic::Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        self.state.lock().unwrap().pings += 1;
        let peer_id = self.id.clone();
        let status = PeerStatus::Online.into();
        Ok(Response::new(PingResponse { peer_id, timestamp: 1, status }))
    }

    async fn get_peer_list(
        &self,
        _: tonic::Request<PeerListRequest>,
    ) -> Result<Response<PeerListResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn register_peer(
        &self,
        _: tonic::Request<RegisterPeerRequest>,
    ) -> Result<Response<RegisterPeerResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn exchange_peers(
        &self,
        _: tonic::Request<PeerExchangeRequest>,
    ) -> Result<Response<PeerExchangeResponse>, Status> {
        Err(Status::unimplemented("no"))
    }
}

#[tonic::async_trait]
impl TransactionDistribution for Face {
    type StreamTransactionStream =
        Pin<Box<dyn Stream<Item = Result<TransactionChunk, Status>> + Send>>;

    async fn notify_transaction(
        &self,
        request: tonic::Request<TransactionNotification>,
    ) -> Result<Response<NotificationAck>, Status> {
        self.state.lock().unwrap().told.push(request.into_inner());
        Ok(Response::new(NotificationAck { already_known: false, will_request: false }))
    }

    async fn get_transaction(
        &self,
        request: tonic::Request<TransactionRequest>,
    ) -> Result<Response<TransactionResponse>, Status> {
        let transaction_hash = request.into_inner().transaction_hash;
        let payload = self.find(&transaction_hash, false)?;
        let found = payload.is_some();
        let transaction_data = payload.unwrap_or_default();
        Ok(Response::new(TransactionResponse { transaction_hash, transaction_data, found }))
    }

    async fn stream_transaction(
        &self,
        request: tonic::Request<TransactionRequest>,
    ) -> Result<Response<Self::StreamTransactionStream>, Status> {
        let transaction_hash = request.into_inner().transaction_hash;
        let payload = self.find(&transaction_hash, true)?;
        let payload = payload.ok_or_else(|| Status::not_found("no such transaction"))?;
        let total = i32::try_from(payload.len().div_ceil(PIECE).max(1)).unwrap();
        let chunks = (0..total).map(move |index| {
            let from = index as usize * PIECE;
            let until = payload.len().min(from + PIECE);
            Ok(TransactionChunk {
                transaction_hash: transaction_hash.clone(),
                chunk_index: index,
                total_chunks: total,
                chunk_data: payload.slice(from..until),
            })
        });
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
}
