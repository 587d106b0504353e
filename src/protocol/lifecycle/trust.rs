//! Who may have a link: by its key before any hello, and by what its hello proves.
//!
//! | trust | a peer is let in that |
//! |---|---|
//! | open | proves a key |
//! | allow-list | proves a key on the list |
//! | CA | proves a key that the transport says is certified |
//! | secret | proves in its hello, for this link alone, to know a secret that we know |
//!
//! Who dials speaks first. Whom it dialled says nothing before that proof, neither hello nor name nor
//! peers, and then proves itself in its own hello. A stranger is told that it is no member, and nothing
//! else: not whether it guessed the network's name. What it says before a hello is not looked at, on
//! a link that we dialled neither where a secret has to be proven.
//! Strangers, silent ones too, are counted by address (`guard::strangers`). Whatever the trust, one
//! host's silent ones take up at most half of the places for handshakes, and all of them together
//! keep nobody out whom this node dials.
//!
//! Tested by: `protocol::tests::members`, `tests/node/members.rs`.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Claim, Trust};
use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::protocol::link::Link;
use crate::types::{CloseReason, Direction, Hello, LinkId};

impl Protocol {
    /// Returns the reason to refuse a link for what the transport says of it.
    pub(super) fn refuse_channel(&self, link: &Link) -> Option<CloseReason> {
        let trust = &self.env.config.network.trust;
        let shunned = |ip| self.guard.strangers.is_shunned(ip, self.env.now);
        if !trust.allows(&link.remote) {
            return Some(CloseReason::NotAllowed);
        }
        let proven = match trust {
            Trust::Secret { .. } => link.assurance.binding.is_some(),
            Trust::Ca { .. } => link.assurance.certified,
            _ => true,
        };
        if !proven {
            return Some(CloseReason::NotMember);
        }
        // Whom this node dials takes no place that a stranger could have taken up.
        if link.direction == Direction::Outbound {
            return None;
        }
        let most = self.env.config.listen.max_handshakes as usize;
        let from = link.address.map(|address| address.ip());
        // All that come by a proxy in front of this node count as one host.
        let is_crowd = (from.is_some() || link.kind.is_network())
            && self.links.hello_count_from(from) >= most.div_ceil(2);
        let full =
            is_crowd || from.is_some_and(shunned) || self.links.inbound_hello_count() >= most;
        full.then_some(CloseReason::TooManyLinks)
    }

    /// Proves membership by every secret that is known.
    pub(super) fn own_proofs(&self, link: LinkId) -> Vec<[u8; 32]> {
        let network = &self.env.config.network;
        let proofs = || {
            let l = self.links.all.get(&link)?;
            let claim = Claim {
                binding: l.assurance.binding.as_ref()?,
                by_dialler: l.direction == Direction::Outbound,
                sender: &self.env.me,
                receiver: &l.remote,
                network: &network.name,
            };
            Some(network.trust.secrets()?.iter().map(|secret| claim.prove(secret)).collect())
        };
        proofs().unwrap_or_default()
    }

    /// Reports whether a hello proves that its sender is a member of the network that it names.
    pub(super) fn is_member(&self, link: LinkId, hello: &Hello) -> bool {
        let Some(secrets) = self.env.config.network.trust.secrets() else { return true };
        let proven = |l: &Link| {
            let claim = Claim {
                binding: l.assurance.binding.as_ref()?,
                by_dialler: l.direction == Direction::Inbound,
                sender: &l.remote,
                receiver: &self.env.me,
                network: &hello.network,
            };
            Some(claim.is_proven(&hello.proofs, secrets))
        };
        self.links.all.get(&link).and_then(proven).unwrap_or(false)
    }

    /// This node refuses a link: counts it against the address that it came from, and warns now and
    /// then, since it may be a member whose configuration is wrong. Who dials says so by itself.
    pub(super) fn note_refused(&mut self, link: LinkId, reason: CloseReason) {
        use CloseReason as R;
        let Some(l) = self.links.all.get(&link) else { return };
        if l.direction == Direction::Outbound {
            return;
        }
        let (peer, address, is_bound) = (l.remote, l.address, l.assurance.binding.is_some());
        if let R::NotMember | R::NotAllowed = reason
            && let Some(count) = self.guard.strangers.warning(self.env.now)
        {
            let address = address.map(tracing::field::display);
            tracing::warn!(
                target: "sorcha_peer::link", %peer, address, %reason, count,
                "link refused to a stranger; {}",
                if is_bound || self.env.config.network.trust.secrets().is_none() {
                    "if it is none, compare network.trust of both sides"
                } else {
                    "its transport gives no channel binding, over which a secret could be proven"
                }
            );
        }
        if let R::NotMember | R::NotAllowed | R::Violation | R::Banned | R::HandshakeTimeout =
            reason
            && let Some(address) = address
        {
            self.note_stranger(address.ip());
        }
    }

    /// A connection from this address showed no usable key or, where a CA is trusted, no certificate
    /// of it.
    pub(super) fn note_unproven(&mut self, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        if let Trust::Ca { .. } = self.env.config.network.trust
            && let Some(count) = self.guard.strangers.warning(self.env.now)
        {
            tracing::warn!(
                target: "sorcha_peer::link", %address, count,
                "no certificate of the CA was shown; if this is no stranger, compare network.trust"
            );
        }
        self.note_stranger(address.ip());
    }

    /// Reports whether it is no news that a connection from this address was refused.
    pub(super) fn is_shunned(&self, address: Option<SocketAddr>) -> bool {
        address.is_some_and(|a| self.guard.strangers.is_shunned(a.ip(), self.env.now))
    }

    /// A stranger came from this address. Where anybody may join, nobody is one.
    fn note_stranger(&mut self, address: IpAddr) {
        if self.env.config.network.trust == Trust::Open {
            return;
        }
        if let Some(time) = self.guard.strangers.note(address, self.env.now) {
            self.env.counters.addresses_shunned += 1;
            tracing::info!(target: "sorcha_peer::link", %address, ?time, "address shunned");
            self.env.push(Output::Shun { address, time });
        }
    }
}
