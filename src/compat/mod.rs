//! Service for clients of the original system: its three gRPC services and its REST paths, on the port
//! that peers use.
//!
//! Such a client is no peer: it proves no key, has a free-text id, and is kept apart from peers. What it
//! asks for is one of the operations in [`Ops`], which do not know over which face they are called. The
//! faces turn requests into operations, and a [`Refusal`] into what their protocol says for it.
//!
//! ```text
//! transport ── Guest ──► face (gRPC, REST) ──► Ops ──► Backend ──► node
//! ```
//!
//! Whatever a client sends is bounded, counted for its address, and never waited for: nothing here takes
//! a place from a peer. What runs beside requests (pinging those that registered, following the log,
//! fetching what was promised, telling of what is new) is one task, [`Ops::run`], which ends with the node.

mod backend;
mod client;
mod fetch;
mod grpc;
mod hashes;
mod limits;
mod notify;
mod ops;
mod registry;
mod rest;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;

use self::client::Client;
use self::fetch::Fetches;
use self::hashes::Hashes;
use self::limits::Limits;
use self::registry::Registry;
use crate::config::{AddressPolicy, CompatConfig};
use crate::transport::{Guest, Outbound, Visitor};
use crate::types::{Counters, Stats};

pub(crate) use self::backend::{Backend, HandlerFailure, KnownPeer};
pub(crate) use self::limits::Permit;
pub(crate) use self::ops::{Ops, Refusal};

/// Time for which a list of peers is good: the node is not asked for it at every request.
const PEERS_KEPT: Duration = Duration::from_secs(1);

/// Settings of the service.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The section of the configuration.
    pub(crate) compat: CompatConfig,
    /// Maximum number of payload bytes of a transaction.
    pub(crate) max_transaction_size: u64,
    /// Addresses that clients may name.
    pub(crate) addresses: AddressPolicy,
    /// Maximum number of peers in a list.
    pub(crate) max_listed: u32,
}

/// State that all operations share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    backend: Arc<dyn Backend>,
    limits: Limits,
    registry: Mutex<Registry>,
    /// Tells that the registry has something to do: a ping, or news to be told.
    registry_changed: Notify,
    news_changed: Notify,
    hashes: Mutex<Hashes>,
    fetches: Fetches,
    client: Client,
    peers: tokio::sync::Mutex<Option<(Instant, Arc<[KnownPeer]>)>>,
    counters: Mutex<Counters>,
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hashes(&self) -> MutexGuard<'_, Hashes> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Native peers, as they were at most [`PEERS_KEPT`] ago.
    async fn peers(&self) -> Arc<[KnownPeer]> {
        let mut kept = self.peers.lock().await;
        if let Some((at, peers)) = &*kept
            && at.elapsed() < PEERS_KEPT
        {
            return Arc::clone(peers);
        }
        let peers: Arc<[KnownPeer]> = self.backend.peers().await.into();
        *kept = Some((Instant::now(), Arc::clone(&peers)));
        peers
    }
}

/// Waits for a moment, or for ever where there is none.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Closes what is open to clients when the service ends, whoever still holds it.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.client.close();
    }
}

impl Ops {
    /// Operations over a node, with a way out to those that register.
    pub(crate) fn new(settings: Settings, backend: Arc<dyn Backend>, outbound: Outbound) -> Self {
        let compat = &settings.compat;
        let client = Client::new(outbound, settings.addresses);
        Self(Arc::new(Shared {
            limits: Limits::new(compat),
            registry: Mutex::new(Registry::new(compat.max_peers)),
            registry_changed: Notify::new(),
            news_changed: Notify::new(),
            hashes: Mutex::default(),
            fetches: Fetches::default(),
            client,
            peers: tokio::sync::Mutex::default(),
            counters: Mutex::default(),
            backend,
            settings,
        }))
    }

    /// Does what runs beside requests, until dropped.
    pub(crate) async fn run(self) {
        let shared = &self.0;
        let _closing = Closing(shared);
        let pinging = registry::run(shared);
        let following = hashes::run(shared);
        let fetching = fetch::run(shared);
        let telling = notify::run(shared);
        tokio::join!(pinging, following, fetching, telling);
    }

    /// Adds the figures of the service.
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        let counters = self.0.counters.lock().unwrap_or_else(PoisonError::into_inner);
        stats.counters.add(&counters);
        drop(counters);
        stats.compat_peers = u32::try_from(self.0.registry().listed()).unwrap_or(u32::MAX);
        stats.compat_hashes = self.0.hashes().len() as u64;
    }
}

/// All that is served to clients of the original.
#[derive(Debug)]
pub(crate) struct Faces {
    ops: Ops,
    grpc: grpc::GrpcFace,
}

impl Faces {
    pub(crate) fn new(ops: Ops) -> Self {
        Self { grpc: grpc::GrpcFace::new(ops.clone()), ops }
    }
}

impl Guest for Faces {
    fn serves(&self, path: &str) -> bool {
        self.grpc.serves(path) || rest::serves(path)
    }

    fn call(&self, request: Request<Body>, visitor: Visitor) -> BoxFuture<'static, Response<Body>> {
        if self.grpc.serves(request.uri().path()) {
            return self.grpc.call(request, visitor);
        }
        Box::pin(rest::serve(self.ops.clone(), request, visitor))
    }
}
