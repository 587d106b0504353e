//! Handles of the host on a node: the node itself, receipts, subscriptions and events.

// The docs list what a node can do in the order of these four.
mod publish;

mod peer_node;

mod requests;

mod dead_letters;

mod durable;
mod events;
pub(super) mod explain;
mod invite;
mod metrics;
mod reachability;
mod receipt;
mod subscription;

pub use dead_letters::DeadLetter;
pub use durable::DurableSubscription;
pub use events::Events;
pub use peer_node::{PeerNode, WeakPeerNode};
pub use receipt::{Outcome, Receipt};
pub use requests::Request;
pub use subscription::{Delivery, Item, StartAt, Subscription};

pub(super) use durable::DurableNames;
pub(super) use events::MAX_EVENTS_BEHIND;
pub(super) use peer_node::Inner;
pub(super) use subscription::LogNews;
