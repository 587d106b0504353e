//! Admin listener: health, figures, events and actions over HTTP/1.1 for those who operate a node, and a page.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /livez`, `/readyz`, `/metrics` | for orchestrators and Prometheus |
//! | `GET /api/v1/…` | JSON: status, figures, reachability, peers, the life of a transaction, events, history, dead letters |
//! | `POST /api/v1/…` | JSON: an action |
//! | `GET /api/v1/openapi.json` | what exactly |
//!
//! ```text
//! listener ──► routes ──► auth ──► views ──► PeerNode
//!    follow: events ──► ring, lost peers       sample: figures once a second ──► history
//! ```
//!
//! Contract: [`routes::ROUTES`] is all that is served. A request that is bad in any way is answered with a problem
//! document of a status from 400 to 499; 503 says that the node stops, that its storage fails or that it is not ready.
//! Without a token the listener is on loopback only; with one, whoever does not show it gets the page without figures, and
//! whether the node lives and is ready. A name that a web page could have lead here is refused, and so is whatever a
//! page of another origin asks for. Connections, streams of events, heads, bodies and times are bounded, and
//! everything ends with the node, which the listener does not keep alive.
//!
//! Tested by: the tests of each file, `tests/node/admin.rs`, `tests/process/admin.rs`.

mod auth;
mod events;
mod history;
mod listener;
mod lost;
mod openapi;
mod page;
mod places;
mod reply;
mod routes;
mod stalls;
mod views;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::auth::Gate;
use self::events::EventRing;
use self::history::History;
use self::lost::LostPeers;
use self::page::Page;
use crate::config::ListenConfig;
use crate::error::{FailureKind, StartError, TransportError};
use crate::listen::listen_on;
use crate::node::{PeerNode, WeakPeerNode};

/// Target of logs.
const TARGET: &str = "sorcha_peer::admin";
/// Maximum number of streams of events at once.
const MAX_STREAMS: usize = 16;

/// Listener that is bound and does not serve yet.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    gate: Gate,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    node: WeakPeerNode,
    gate: Gate,
    /// False from the moment when the node is asked to stop.
    is_running: watch::Receiver<bool>,
    events: EventRing,
    streams: Arc<Semaphore>,
    lost: Mutex<LostPeers>,
    history: Mutex<History>,
    page: Page,
    /// The `OpenAPI` document.
    document: Bytes,
}

impl Shared {
    fn lost(&self) -> MutexGuard<'_, LostPeers> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admin {
    /// Binds the listener, where one is asked for. Requires a tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Listen`].
    pub(crate) fn bind(config: &ListenConfig) -> Result<Option<Self>, StartError> {
        let Some(asked) = config.admin else { return Ok(None) };
        let local = |source| {
            let message = format!("cannot listen on {asked}");
            let source = TransportError::with_source(FailureKind::Local, message, source);
            StartError::Listen { address: asked, source }
        };
        let listener = listen_on(asked).map_err(local)?;
        let address = listener.local_addr().map_err(local)?;
        tracing::info!(target: TARGET, %address, "listening");
        Ok(Some(Self { listener, address, gate: Gate::new(config) }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves a node until dropped. The node is running as long as `is_running` says so.
    pub(crate) fn run(
        self,
        node: &PeerNode,
        is_running: watch::Receiver<bool>,
    ) -> BoxFuture<'static, ()> {
        let events = node.events();
        let shared = Arc::new(Shared {
            node: node.downgrade(),
            gate: self.gate,
            is_running,
            events: EventRing::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            lost: Mutex::default(),
            history: Mutex::default(),
            page: Page::new(),
            document: openapi::document(),
        });
        let listener = self.listener;
        async move {
            let following = events::follow(&shared, events);
            let sampling = history::sample(&shared);
            tokio::join!(listener::serve(listener, &shared), following, sampling);
        }
        .boxed()
    }
}
