//! Relays: TURN servers that listen for this node (RFC 8656), with TCP allocations (RFC 6062).
//!
//! The host names a server and an account there. The client keeps an allocation at it, whose relayed address
//! others dial over TCP, and dials from it. A connection by way of the relay is a TCP connection of its own to
//! the server, which carries the peer's bytes: TLS between the peers runs inside, so the server sees neither
//! what they say nor can it take the place of one.
//!
//! A server lets in who comes from an address with a permission, whatever the port. Permitted are the server's
//! own addresses, from which all those come that dial from an allocation there, and those that the node names.
//!
//! What a server must know: RFC 6062 with long-term credentials over TCP or TLS; coturn 4.5.2 and later does,
//! unless it runs with `--no-tcp-relay`. For nodes of one server to reach each other it must allow its own
//! address as a peer. Its certificate, with `turns:`, is not checked, as of nothing that stands between peers:
//! TLS there hides the account's name and the addresses from others on the way, and the password is never sent.

mod allocation;
mod binding;
mod client;
mod codec;
mod fault;
mod relay;
#[cfg(test)]
mod tests;

pub(crate) use client::Drops;
pub(crate) use relay::relay;

/// Target of log lines.
const TARGET: &str = "sorcha_peer::nat";
