//! Peers and bans in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;

use super::lock::lock;
use crate::error::StoreError;
use crate::ports::{Ban, PeerStore, StoredPeer};
use crate::store::limits::truncated_reason;
use crate::types::PeerId;

/// Keeps peers and bans in memory: see [`Storage::memory_peers`](crate::Storage::memory_peers).
#[derive(Debug, Default)]
pub(super) struct MemoryPeerStore {
    state: Mutex<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    peers: BTreeMap<PeerId, StoredPeer>,
    bans: BTreeMap<PeerId, Ban>,
}

#[async_trait]
impl PeerStore for MemoryPeerStore {
    async fn load(&self) -> Result<(Vec<StoredPeer>, Vec<Ban>), StoreError> {
        let state = lock(&self.state);
        let mut peers: Vec<_> = state.peers.values().cloned().collect();
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_up));
        Ok((peers, state.bans.values().cloned().collect()))
    }

    async fn upsert(&self, peers: &[StoredPeer]) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        state.peers.extend(peers.iter().map(|peer| (peer.peer, peer.clone())));
        Ok(())
    }

    async fn remove(&self, peers: &[PeerId]) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        for peer in peers {
            state.peers.remove(peer);
        }
        Ok(())
    }

    async fn put_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        let ban = Ban { reason: truncated_reason(ban).to_owned(), ..*ban };
        lock(&self.state).bans.insert(ban.peer, ban);
        Ok(())
    }

    async fn remove_ban(&self, peer: &PeerId) -> Result<(), StoreError> {
        lock(&self.state).bans.remove(peer);
        Ok(())
    }
}
