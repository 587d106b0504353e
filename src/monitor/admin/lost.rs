//! Peers that were linked and are not, and those that refused a link or were refused, from events alone.
//!
//! Contract: at most [`MAX_LOST`] of the last [`KEPT_MS`], the newest first; a peer that is linked again is none of them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Serialize;
use utoipa::ToSchema;

use crate::types::{CloseReason, Direction, Event, LinkStatus, PeerId, TransportKind};

/// Maximum number of lost peers, and of refused ones.
const MAX_LOST: usize = 200;
/// Number of milliseconds for which a lost peer is shown.
const KEPT_MS: u64 = 60 * 60 * 1000;
/// Number of milliseconds for which a refusal counts.
const REFUSED_MS: u64 = 10 * 60 * 1000;
/// Reason of a loss that the node had no time to tell of.
const UNTOLD: &str = "unknown";

/// Way by which a peer was linked.
#[derive(Debug, Clone)]
struct Way {
    address: Option<String>,
    transport: TransportKind,
    direction: Direction,
}

/// Peer whose link ended.
#[derive(Debug, Clone)]
pub(super) struct LostPeer {
    pub(super) peer: PeerId,
    pub(super) address: Option<String>,
    pub(super) transport: TransportKind,
    pub(super) direction: Direction,
    pub(super) reason: &'static str,
    pub(super) lost_at_ms: u64,
    /// State of its circuit breaker, where that is not closed.
    pub(super) breaker: Option<Breaker>,
}

/// State of a circuit breaker that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Breaker {
    Open,
    HalfOpen,
}

#[derive(Debug, Default)]
pub(super) struct LostPeers {
    linked: HashMap<PeerId, Way>,
    lost: VecDeque<LostPeer>,
    refused: BTreeMap<PeerId, (CloseReason, u64)>,
}

impl LostPeers {
    /// Takes in what an event says.
    pub(super) fn note(&mut self, event: &Event, now_ms: u64) {
        match event {
            Event::PeerUp { peer, transport, address, direction } => {
                let (address, transport, direction) = (address.clone(), *transport, *direction);
                self.linked.insert(*peer, Way { address, transport, direction });
                self.lost.retain(|lost| lost.peer != *peer);
                self.refused.remove(peer);
            }
            Event::TransportChanged { peer, to, .. } => {
                if let Some(way) = self.linked.get_mut(peer) {
                    way.transport = *to;
                }
            }
            Event::PeerDown { peer, reason } => self.lose(*peer, reason.as_str(), now_ms),
            Event::LinkRefused { peer, reason, .. } => self.refuse(*peer, *reason, now_ms),
            Event::BreakerOpened { peer: Some(peer), .. } => {
                self.set_breaker(peer, Some(Breaker::Open));
            }
            Event::BreakerHalfOpen { peer: Some(peer), .. } => {
                self.set_breaker(peer, Some(Breaker::HalfOpen));
            }
            Event::BreakerClosed { peer: Some(peer), .. } => self.set_breaker(peer, None),
            _ => {}
        }
    }

    /// Sets right who is linked, after events were missed.
    pub(super) fn linked_are(&mut self, links: &[LinkStatus], now_ms: u64) {
        let gone: Vec<_> = self.linked.keys().copied().collect();
        for peer in gone.into_iter().filter(|peer| !links.iter().any(|link| link.peer == *peer)) {
            self.lose(peer, UNTOLD, now_ms);
        }
        for link in links {
            let (peer, transport, direction) = (link.peer, link.transport, link.direction);
            let up = Event::PeerUp { peer, transport, address: link.address.clone(), direction };
            self.note(&up, now_ms);
        }
    }

    /// Peers that were lost in the last hour.
    pub(super) fn list(&mut self, now_ms: u64) -> impl Iterator<Item = &LostPeer> {
        self.lost.retain(|lost| now_ms.saturating_sub(lost.lost_at_ms) <= KEPT_MS);
        self.lost.iter()
    }

    /// Number of peers by the reason for which a link with them was refused lately.
    pub(super) fn refusals(&self, now_ms: u64) -> BTreeMap<&'static str, usize> {
        let mut by_reason = BTreeMap::new();
        for (reason, at_ms) in self.refused.values() {
            if now_ms.saturating_sub(*at_ms) <= REFUSED_MS {
                *by_reason.entry(reason.as_str()).or_default() += 1;
            }
        }
        by_reason
    }

    fn lose(&mut self, peer: PeerId, reason: &'static str, now_ms: u64) {
        let Some(Way { address, transport, direction }) = self.linked.remove(&peer) else { return };
        self.lost.retain(|lost| lost.peer != peer);
        self.lost.truncate(MAX_LOST - 1);
        let (lost_at_ms, breaker) = (now_ms, None);
        let lost = LostPeer { peer, address, transport, direction, reason, lost_at_ms, breaker };
        self.lost.push_front(lost);
    }

    fn refuse(&mut self, peer: PeerId, reason: CloseReason, now_ms: u64) {
        // A peer that has no room gives each a turn.
        if reason == CloseReason::TooManyLinks {
            return;
        }
        self.refused.insert(peer, (reason, now_ms));
        if self.refused.len() > MAX_LOST {
            let oldest = self.refused.iter().min_by_key(|(_, (_, at_ms))| *at_ms);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.refused.remove(&oldest);
            }
        }
    }

    fn set_breaker(&mut self, peer: &PeerId, state: Option<Breaker>) {
        if let Some(lost) = self.lost.iter_mut().find(|lost| lost.peer == *peer) {
            lost.breaker = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u64) -> PeerId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        PeerId::from_bytes(id)
    }

    fn up(n: u64) -> Event {
        let (transport, direction) = (TransportKind::GrpcStream, Direction::Outbound);
        Event::PeerUp { peer: peer(n), transport, address: Some("a:1".to_owned()), direction }
    }

    fn down(n: u64, reason: CloseReason) -> Event {
        Event::PeerDown { peer: peer(n), reason }
    }

    fn shown(lost: &mut LostPeers, now_ms: u64) -> Vec<(PeerId, &'static str)> {
        lost.list(now_ms).map(|lost| (lost.peer, lost.reason)).collect()
    }

    #[test]
    fn lost_peers_are_shown_until_they_are_back_or_an_hour_is_over() {
        let mut lost = LostPeers::default();
        for n in 0..3 {
            lost.note(&up(n), 0);
        }
        lost.note(&down(9, CloseReason::Banned), 1);
        lost.note(&down(0, CloseReason::Unresponsive), 5);
        lost.note(&down(1, CloseReason::Banned), 6);
        assert_eq!(shown(&mut lost, 7), [(peer(1), "banned"), (peer(0), "unresponsive")]);
        let (to, from) = (TransportKind::Rest, TransportKind::GrpcStream);
        let moved = Event::TransportChanged { peer: peer(2), from, to, reason: String::new() };
        lost.note(&moved, 7);
        let opened = |n| Event::BreakerOpened {
            peer: Some(peer(n)),
            address: None,
            failures: 5,
            reset_s: 300,
        };
        lost.note(&opened(1), 8);
        lost.note(&opened(2), 8);
        lost.note(&down(2, CloseReason::Violation), 8);
        let all: Vec<_> = lost.list(8).cloned().collect();
        assert_eq!((all[0].transport, all[0].breaker), (TransportKind::Rest, None));
        assert_eq!(all[1].breaker, Some(Breaker::Open));
        lost.note(&Event::BreakerHalfOpen { peer: Some(peer(1)), address: None }, 9);
        assert_eq!(lost.list(9).nth(1).unwrap().breaker, Some(Breaker::HalfOpen));
        lost.note(&up(1), 9);
        assert_eq!(shown(&mut lost, 9), [(peer(2), "violation"), (peer(0), "unresponsive")]);
        assert_eq!(shown(&mut lost, 7 + KEPT_MS), [(peer(2), "violation")]);
    }

    #[test]
    fn there_is_a_bound_and_the_oldest_go() {
        let mut lost = LostPeers::default();
        for n in 0..2 * MAX_LOST as u64 {
            lost.note(&up(n), n);
            lost.note(&down(n, CloseReason::SlowPeer), n);
            let (reason, direction) = (CloseReason::WrongNetwork, Direction::Inbound);
            let refused = Event::LinkRefused { peer: peer(n), address: None, direction, reason };
            lost.note(&refused, n);
        }
        let all = shown(&mut lost, 400);
        assert_eq!((all.len(), all[0].0), (MAX_LOST, peer(2 * MAX_LOST as u64 - 1)));
        assert_eq!(lost.refusals(400), BTreeMap::from([("wrong_network", MAX_LOST)]));
        assert_eq!(lost.refusals(400 + REFUSED_MS), BTreeMap::default());
        assert!(lost.linked.is_empty());
    }

    #[test]
    fn missed_events_are_made_up_for() {
        let mut lost = LostPeers::default();
        lost.note(&up(1), 0);
        lost.note(&up(2), 0);
        lost.linked_are(&crate::monitor::metrics::testing::snapshot(1).links, 5);
        let mut gone = shown(&mut lost, 5);
        gone.sort_unstable();
        assert_eq!(gone, [(peer(1), UNTOLD), (peer(2), UNTOLD)]);
        assert_eq!(lost.linked.len(), 1);
    }
}
