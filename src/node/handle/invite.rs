//! Invites: the addresses of this node as a newcomer should dial them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tokio::sync::oneshot;

use crate::config::Invite;
use crate::error::{NodeClosed, ReadyError};
use crate::node::messages::Command;
use crate::types::{AddressScope, Endpoint};

use super::PeerNode;

/// Addresses outside, reserved for documentation, whose routes show the own address. Nothing is sent.
const OUTSIDE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

impl PeerNode {
    /// Makes an invite: one line of text that holds the network's name, the addresses of this node, its
    /// id, which must answer there, and the network's secret, where it has one. Whoever has the text
    /// may join by [`PeerNodeBuilder::join`](crate::PeerNodeBuilder::join), for as long as the network
    /// keeps that secret: pass it on as you would the secret.
    ///
    /// The addresses are those that are advertised; where none are, the one that is listened on; and
    /// where that is unspecified (`0.0.0.0`), those that peers see and the machine's own, loopback
    /// last. An invite is good while one of them leads to this node with the key that it has now. With an
    /// allow-list the newcomer has to be listed as well, with a CA it needs a certificate, and where this
    /// node has no TLS ([`plaintext`](crate::config::NetworkConfig::plaintext)) it must do without too:
    /// an invite says none of that.
    ///
    /// # Errors
    /// [`ReadyError::NoAddress`] when nobody can dial this node, [`ReadyError::Closed`].
    pub async fn invite(&self) -> Result<Invite, ReadyError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Addresses { reply }).await?;
        let mut addresses: Vec<Endpoint> = answer.await.map_err(|_| ReadyError::Closed)?;
        if self.0.config.listen.advertise.is_empty()
            && let Some(listening) = self.0.listening
        {
            if listening.ip().is_unspecified() {
                addresses.extend(machine_addresses(listening));
            } else if addresses.is_empty() {
                addresses.push(listening.into());
            }
            addresses.sort_by_key(|address| std::cmp::Reverse(address.scope()));
        }
        let mut unique: Vec<Endpoint> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if address.scope() != AddressScope::Unusable && !unique.contains(&address) {
                unique.push(address);
            }
        }
        if unique.is_empty() {
            return Err(ReadyError::NoAddress);
        }
        Ok(Invite::new(&self.0.config, self.peer_id(), &unique))
    }
}

/// Addresses of this machine for one that is bound to all of them; at least that of its loopback.
fn machine_addresses(bound: SocketAddr) -> Vec<Endpoint> {
    let own = |outside: &SocketAddr| {
        let any: IpAddr = match outside {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            // One that is bound to IPv4 alone cannot be reached by IPv6.
            SocketAddr::V6(_) if bound.is_ipv4() => return None,
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(outside).ok()?;
        let own = socket.local_addr().ok()?.ip();
        (!own.is_unspecified()).then_some(own)
    };
    let loopback: IpAddr = match bound {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let found = OUTSIDE.iter().filter_map(own).chain([loopback]);
    found.map(|ip| SocketAddr::new(ip, bound.port()).into()).collect()
}

impl From<NodeClosed> for ReadyError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_its_loopback_and_no_unspecified_address() {
        for bound in ["0.0.0.0:7", "[::]:7"] {
            let found = machine_addresses(bound.parse().unwrap());
            assert!(found.iter().any(|e| e.scope() == AddressScope::Loopback), "{found:?}");
            assert!(found.iter().all(|e| e.scope() != AddressScope::Unusable && e.port() == 7));
        }
    }
}
