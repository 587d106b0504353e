//! Operations over a node that is made up, and clients that answer on real sockets.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::format_collect,
    reason = "numbers of tests are small"
)]

mod fetches;
mod fields;
mod grpc;
mod network;
mod node;
pub(crate) mod old_peer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::node::FakeNode;
use super::{Ops, Settings};
use crate::config::{AddressPolicy, CompatConfig};
use crate::identity::Identity;
use crate::transport::{GrpcOptions, GrpcTransport, Visitor};

/// Most bytes of a transaction in these tests.
const MAX_SIZE: u64 = 3 << 20;

/// Maximum time that anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A visitor from this address.
fn visitor(address: &str) -> Visitor {
    let address: SocketAddr = format!("{address}:4000").parse().unwrap();
    Visitor { address, is_proxied: false, is_http2: true, peer: None, certified: false }
}

fn settings() -> Settings {
    Settings {
        compat: CompatConfig {
            enabled: true,
            max_peers: 10,
            max_requests_per_minute: 1_000_000,
            ..CompatConfig::default()
        },
        max_transaction_size: MAX_SIZE,
        addresses: AddressPolicy::Auto,
        max_listed: 1000,
    }
}

/// Operations over a made-up node, which run until dropped.
struct World {
    ops: Ops,
    node: Arc<FakeNode>,
    _running: tokio::task::JoinSet<()>,
    _transport: GrpcTransport,
}

impl World {
    fn new(settings: Settings) -> Self {
        let transport =
            GrpcTransport::new(Identity::from_seed([9; 32]), GrpcOptions::default()).unwrap();
        let node = FakeNode::new();
        let ops = Ops::new(settings, Arc::clone(&node) as _, transport.outbound());
        let mut running = tokio::task::JoinSet::new();
        running.spawn(ops.clone().run());
        Self { ops, node, _running: running, _transport: transport }
    }

    /// Waits until the index has caught up.
    async fn built(self) -> Self {
        until("the index is built", || self.ops.0.hashes().is_built()).await;
        self
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
