//! The node: the only module with tasks.
//!
//! One task owns the [`Protocol`](crate::protocol::Protocol) and feeds it one input at a time; what
//! comes out is carried out by link tasks, a verification pool and an ordered storage lane, whose
//! completions come back as inputs. Every channel is bounded. When checks or storage fall behind,
//! the driver stops taking frames, transports stop reading, and peers feel it as back-pressure.

mod builder;
mod claim;
mod dead_letters;
mod driver;
mod durable;
mod effects;
mod events;
mod fit;
mod handle;
mod lane;
mod late;
mod link;
mod peer_lane;
mod pieces;
mod publish;
mod receipt;
mod renew;
mod sign;
mod subscription;
mod verify;
mod wants;

pub use builder::{PeerNodeBuilder, Storage};
pub use dead_letters::DeadLetter;
pub use durable::DurableSubscription;
pub use events::Events;
pub use handle::{PeerNode, WeakPeerNode};
pub use receipt::{Outcome, Receipt};
pub use subscription::{Delivery, Item, StartAt, Subscription};
