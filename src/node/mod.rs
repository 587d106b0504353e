//! The node: the only module with tasks.
//!
//! One task owns the [`Protocol`](crate::protocol::Protocol) and feeds it one input at a time
//! (`driver`); what comes out is carried out by link tasks, verifiers and ordered writers of the
//! stores (`workers`), whose completions come back as inputs. The host holds a `handle`. Every channel
//! is bounded. When checks or storage fall behind, the driver stops taking frames, transports stop
//! reading, and peers feel it as back-pressure.

#[cfg(feature = "admin")]
mod admin;
mod builder;
mod clock;
#[cfg(feature = "compat")]
mod compat;
mod driver;
mod handle;
mod handlers;
mod hashing;
mod late_news;
mod messages;
mod past;
mod reachability;
mod recent_traces;
mod restore;
mod room;
mod start;
mod store_lease;
mod subscribed_topics;
mod workers;

#[cfg(test)]
mod tests;

pub use builder::PeerNodeBuilder;
pub use handle::{
    DeadLetter, Delivery, DurableSubscription, Events, Item, Outcome, PeerNode, Receipt, Request,
    StartAt, Subscription, WeakPeerNode,
};
