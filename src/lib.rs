//! Reliable broadcast without a broker: what one node publishes reaches every node of its network,
//! also those that are slow, cut off or switched off meanwhile.
//!
#![cfg_attr(
    all(feature = "node", feature = "grpc", feature = "sqlite", feature = "stun"),
    doc = "**Read the [guide] first**: [getting started](guide::getting_started), \
           [guarantees and limits](guide::guarantees), [topics and roles](guide::topics), \
           [messages](guide::messages), [storage](guide::storage), [security](guide::security), \
           [operating](guide::operating), [paths and proxies](guide::paths), \
           [reachability](guide::reachability), [tuning](guide::tuning), \
           [testing](guide::testing), [benchmarks](guide::benchmarks), \
           [comparison](guide::comparison), [compatibility](guide::compatibility), \
           [glossary](guide::glossary)."
)]
#![cfg_attr(
    not(all(feature = "node", feature = "grpc", feature = "sqlite", feature = "stun")),
    doc = "The guide is part of these docs where they are built with the default features."
)]
//!
//! A *host* links this crate, builds a `PeerNode`, and from then on has: peers found and kept,
//! *transactions* (payloads of up to 10 MiB by default, under a topic, signed by their origin) spread
//! to every peer, an outbox that survives being offline, and figures about all of it. The node runs
//! in the host's tokio runtime and owns no globals: no subscriber, recorder, panic hook, crypto
//! provider or runtime. Any number of nodes run in one process. A host may also ask one peer: see
//! `PeerNode::request`.
//!
//! ```
//! # #[cfg(all(feature = "node", feature = "grpc"))]
//! # mod example {
//! use std::time::Duration;
//! use sorcha_peer::{Identity, Item, PeerNode, StartAt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let data = tempfile::tempdir()?;
//! # let data = data.path();
//! let first = PeerNode::builder()
//!     .identity(Identity::load_or_create(data.join("first.key"))?)
//!     .network("orders-demo")
//!     .listen("127.0.0.1:0")
//!     .start()
//!     .await?;
//! let address = first.listen_addr().ok_or("it listens")?.to_string();
//!
//! let second = PeerNode::builder()
//!     .network("orders-demo")
//!     .listen("127.0.0.1:0")
//!     .bootstrap([address])
//!     .start()
//!     .await?;
//! second.wait_ready(1, Duration::from_secs(10)).await?;
//!
//! let mut orders = second.subscribe("orders", StartAt::Now).await?;
//! let receipt = first.publish("orders", "one widget").await?;
//! receipt.replicated(1).await?; // optional: another node has stored it
//! if let Some(Item::Delivery(delivery)) = orders.next().await {
//!     assert_eq!(delivery.transaction.payload().as_ref(), b"one widget");
//! }
//! second.shutdown(Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! # }
//! # #[cfg(all(feature = "node", feature = "grpc"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> { example::main() }
//! # #[cfg(not(all(feature = "node", feature = "grpc")))]
//! # fn main() {}
//! ```
//!
//! # What holds
//!
//! - Who may join is yours to say ([`config::Trust`]): who knows a secret of the network, peers on a
//!   list, keys that a CA certified, or anybody.
//! - Every link is mutual TLS 1.3, and the [`PeerId`] is the key that the handshake proved. Nothing
//!   is forwarded, announced or delivered before its hash and signature verified and the host's
//!   [validator](Validator) accepted it.
//! - Every node gets everything that is retained, also if it was slow, late, cut off or restarted:
//!   two peers compare what they hold and fetch what is missing. A slow peer costs constant memory
//!   and delays nobody.
//! - A subscriber gets each transaction once per cursor, in the order in which its own node accepted
//!   them, with an explicit gap beyond the retention. There is no total order across nodes.
//! - With `SqliteStorage`, what `publish` accepted survives `kill -9` and power failures. Without a
//!   storage, outbox and log are in memory.
//! - What is refused is refused with a typed error, a counter and, where a host would want one, an
//!   event.
//!
//! # Where things are
//!
//! ```text
//! host ── PeerNode ──► driver ──► protocol (pure) ──► outputs ──► effects ──► ports ──► transport, store, nat
//! ```
//!
//! The protocol is a deterministic state machine without clock, socket, file, task or lock; the node
//! around it carries out what it asks for. Everything that touches the world is a trait object that
//! a host may replace.
//!
//! | module | holds |
//! |---|---|
//! | the root | what nearly every host needs: `PeerNode`, its builder, subscriptions, receipts, requests, ids, transactions, events, [`Config`], [`Identity`], [`Validator`] |
//! | [`config`] | every setting with its default and range |
//! | [`error`] | an error enum for each operation |
//! | [`types`] | plain data that is needed less often: headers, signatures, reasons, figures |
//! | [`ports`] | the traits that a host may implement |
//! | [`transport`], [`store`], [`nat`] | implementations of the ports that come with the crate |
//! | [`testing`] | suites that every implementation of a port should pass |
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `node` | yes | the tokio driver and `PeerNode` |
//! | `grpc` | yes | gRPC streams over mutual TLS (rustls with ring; needs a C compiler) |
//! | `websocket` | yes | the same links by way of a WebSocket, for paths that carry HTTP/1.1 alone |
//! | `sqlite` | yes | peers, outbox and log in `SQLite` files (bundled; needs a C compiler) |
//! | `rest` | yes | links over plain HTTP requests, a rung of the gRPC transport |
//! | `compat` | no | the original's gRPC services and REST paths, for its clients: see [`config::CompatConfig`] |
//! | `admin` | no | the admin listener: health, figures, events, actions and a page over HTTP, see [`config::ListenConfig`] |
//! | `stun` | yes | questions to servers outside about the own addresses: STUN, and with `grpc` HTTP |
//! | `turn` | yes | TURN servers that listen for the node and dial for it |
//! | `port-mapping` | no | mapping of the listen port at the router, over UPnP, NAT-PMP and PCP |
//! | `mdns` | no | nodes of one network on a LAN find each other, see [`config::DiscoveryConfig`] |
//! | `health` | yes | the standard health service of gRPC on the node's port |
//! | `metrics` | no | `PeerNode::metrics_collector`, for a registry of `prometheus-client` 0.26; not covered by semver |
//! | `sim` | no | the network simulator, and `unstable-core`; not covered by semver |
//! | `unstable-core` | no | the protocol core and the types of the wire; not covered by semver |
//!
//! Without default features the crate is types, ports and the adapters in memory, with no tokio in
//! the tree.

// Without the core's feature its items are public in private modules, and no stable item may show one.
#![cfg_attr(not(feature = "unstable-core"), allow(unreachable_pub), warn(unnameable_types))]

#[cfg(feature = "compat")]
mod compat;
pub mod config;
pub mod error;
#[cfg(all(doc, feature = "node", feature = "grpc", feature = "sqlite", feature = "stun"))]
pub mod guide;
mod identity;
#[cfg(any(feature = "admin", feature = "grpc"))]
mod listen;
#[cfg(feature = "node")]
mod monitor;
pub mod nat;
#[cfg(feature = "node")]
mod node;
pub mod ports;
#[cfg(all(any(test, feature = "node"), not(feature = "unstable-core")))]
#[cfg_attr(not(test), allow(dead_code))]
mod protocol;
#[cfg(feature = "unstable-core")]
pub mod protocol;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod store;
pub mod testing;
pub mod transport;
#[cfg_attr(not(any(test, feature = "unstable-core")), allow(dead_code, unused_imports))]
pub mod types;
#[cfg(any(feature = "admin", feature = "compat"))]
#[cfg_attr(not(all(feature = "admin", feature = "compat")), allow(dead_code))]
mod web;
#[cfg(not(feature = "unstable-core"))]
#[cfg_attr(not(test), allow(dead_code, unused_imports))]
mod wire;
#[cfg(feature = "unstable-core")]
pub mod wire;

pub use config::root::{Config, Invite, NetworkSecret};
pub use identity::Identity;
#[cfg(feature = "node")]
pub use node::{
    DeadLetter, Delivery, DurableSubscription, Events, Item, Outcome, PeerNode, PeerNodeBuilder,
    Receipt, Request, StartAt, Subscription, WeakPeerNode,
};
pub use ports::storage::Storage;
pub use ports::validator::Validator;
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteStorage;
pub use types::root::{
    Cursor, Endpoint, Event, Mode, PeerId, PublishState, PublishStatus, Stats, Topic, Transaction,
    TransactionId, TransportKind, Verdict,
};
