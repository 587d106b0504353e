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
//! fetching what was promised, telling of what is new) is one task, which ends with the node.

mod backend;
mod client;
mod fetch;
mod grpc;
mod hashes;
mod limits;
mod notify;
mod ops;
mod registry;

pub(crate) use backend::{Backend, HandlerFailure, KnownPeer, LogPage};
pub(crate) use limits::Permit;
pub(crate) use ops::{Found, Ops, Refusal};
