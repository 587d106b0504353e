//! Peer networking for transactions that must reach every peer, whatever the network does.
//!
//! A host service links this crate, builds a `PeerNode`, and from then on has: peers found and
//! kept, transactions (opaque payloads up to 10 MiB by default) spread to every peer of the
//! network, an outbox, and figures about all of it. It runs in the host's tokio runtime and owns
//! no globals: no subscriber, recorder, panic hook, crypto provider or runtime. Any number of nodes
//! run in one process.
//!
//! ```
//! use std::time::Duration;
//! use sorcha_peer::{StartAt, Identity, Item, PeerNode};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
//! ```
//!
//! # What holds
//!
//! - Only authenticated peers get in: every link is mutual TLS 1.3 and the [`PeerId`] is the key
//!   that the handshake proved. Nothing is forwarded, announced or delivered before its hash and
//!   signature verified and the host's [validator](ports::Validator) accepted it.
//! - A subscriber gets each transaction once per cursor, in the order in which its own node
//!   accepted them, and misses nothing inside the retention window (an explicit gap beyond it).
//!   There is no total order across nodes.
//! - Every peer is offered everything that is retained, also if it was slow, late, cut off or
//!   restarted: two peers compare what they hold and fetch what is missing. A slow peer costs constant
//!   memory and delays nobody.
//! - What is refused is refused with a typed error, a counter and, where a host would want one, an
//!   event.
//! - With `SqliteStorage`, what `publish` accepted survives `kill -9` and power failures. Without a
//!   storage, outbox and log are in memory. A host may bring its own
//!   [queue](ports::TransactionQueue) and [store](ports::TransactionStore).
//!
//! # Topics
//!
//! A node carries topics: it stores, offers and passes them on. By default it is a *relay* and carries
//! all of them. With [`[gossip] role = "edge"`](config::Role) it is an *edge* and carries those
//! that it has live subscriptions for, those in `[gossip] topics`, and those that peers behind it want.
//! It says so on its links, and only that travels to it.
//!
//! Nodes that do not subscribe break no reach, because reach rests on relays: they carry everything,
//! keep links with each other before all others, and tell peers of other relays first. An edge hangs
//! off relays, or off another edge that is nearer to one and then carries what those behind it want.
//! Everything that an edge has goes up that way, whatever the topic, and is announced again until
//! somebody up there has stored it; so what it publishes reaches every subscriber. An edge that finds
//! no way to a relay (at most 8 links) for 4 to 8 s stands in for one: it carries everything until it
//! finds a way again, and a network of edges alone works like one of relays. What is needed is that the
//! relays can reach each other without edges: two that both live behind NAT cannot.
//!
//! A subscription to a topic that an edge did not carry brings all that others retain of it, also with
//! `StartAt::Now`. Peers of versions that know nothing of topics count as relays.
//!
//! # How it is cut
//!
//! ```text
//! host ── PeerNode ──► driver ──► protocol (pure) ──► outputs ──► effects ──► ports ──► transport, store, nat
//! ```
//!
//! [`protocol`] is a deterministic state machine without clock, socket, file, task or lock; the node
//! around it carries out what it asks for. Everything that touches the world is a trait object that
//! a host may replace: see [`ports`], and [`testing`] for the suites that every implementation
//! should pass.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `node` | yes | the tokio driver and `PeerNode` |
//! | `grpc` | yes | gRPC streams over mutual TLS (rustls with ring) |
//! | `sqlite` | yes | peers, outbox and log in `SQLite` files (bundled; needs a C compiler) |
//! | `stun` | yes | the STUN prober |
//! | `sim` | no | the network simulator; not covered by semver |
//!
//! Without default features the crate is types, protocol, ports and the adapters in memory, with no
//! tokio in the tree.

pub mod config;
pub mod error;
mod identity;
pub mod nat;
#[cfg(feature = "node")]
mod node;
pub mod ports;
pub mod protocol;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod store;
pub mod testing;
pub mod transport;
pub mod types;
#[cfg_attr(not(feature = "node"), allow(dead_code))]
pub(crate) mod wire;

pub use config::Config;
pub use error::EndpointError;
pub use identity::Identity;
#[cfg(feature = "node")]
pub use node::{
    DeadLetter, Delivery, DurableSubscription, Events, Item, Outcome, PeerNode, PeerNodeBuilder,
    Receipt, StartAt, Storage, Subscription, WeakPeerNode,
};
#[cfg(feature = "sqlite")]
pub use store::{SqliteOptions, SqliteStorage};
pub use types::{
    Cursor, Endpoint, Event, Mode, PeerId, PublishState, PublishStatus, Stats, Topic, Transaction,
    TransactionId, TransportKind,
};

/// What benchmarks and fuzz tests of this crate need of its inside. Not for anybody else: it
/// changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::wire::{Encoded, FrameEncoder, WireError, decode_frame, encode_frame};
}
