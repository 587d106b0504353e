//! Circuit breakers that are not closed, as the node's events tell of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sorcha_peer::{Event, PeerId};
use tokio::time::Instant;

/// Maximum number that is remembered, as many as a node has.
const MAX_BREAKERS: usize = 2048;

/// Whom a breaker is for: a peer, or an address where nobody knows whose it is.
type Key = (Option<PeerId>, Option<String>);

/// The breakers of a node. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Breakers(Arc<Mutex<BTreeMap<Key, Tripped>>>);

#[derive(Debug)]
struct Tripped {
    state: &'static str,
    failures: u32,
    until: Instant,
}

/// One breaker, as a line tells it.
#[derive(Debug, Serialize)]
pub(crate) struct Breaker {
    peer: Option<PeerId>,
    address: Option<String>,
    state: &'static str,
    failures: u32,
    retry_s: u64,
}

impl Breakers {
    /// Takes what an event says of a breaker, if it says anything.
    pub(crate) fn note(&self, event: &Event) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::BreakerOpened { peer, address, failures, reset_s, .. } => {
                let until = Instant::now() + Duration::from_secs(*reset_s);
                let tripped = Tripped { state: "open", failures: *failures, until };
                all.insert((*peer, address.clone()), tripped);
                if all.len() > MAX_BREAKERS {
                    let first = all.iter().min_by_key(|(_, tripped)| tripped.until);
                    let first = first.map(|(key, _)| key.clone());
                    first.and_then(|key| all.remove(&key));
                }
            }
            Event::BreakerHalfOpen { peer, address, .. } => {
                if let Some(tripped) = all.get_mut(&(*peer, address.clone())) {
                    tripped.state = "half_open";
                }
            }
            Event::BreakerClosed { peer, address, .. } => {
                all.remove(&(*peer, address.clone()));
            }
            // Who is linked can be reached, whether the closing was heard of or not.
            Event::PeerUp { peer, .. } => {
                all.remove(&(Some(*peer), None));
            }
            _ => {}
        }
    }

    /// Lists those that are not closed.
    pub(crate) fn list(&self) -> Vec<Breaker> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let line = |((peer, address), tripped): (&Key, &Tripped)| Breaker {
            peer: *peer,
            address: address.clone(),
            state: tripped.state,
            failures: tripped.failures,
            retry_s: tripped.until.saturating_duration_since(now).as_secs(),
        };
        all.iter().map(line).collect()
    }
}
