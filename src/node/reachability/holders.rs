//! Who holds addresses open for a node: servers that listen for it, and routers that pass its port on.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, pending, select_all};
use tokio::sync::watch;

use super::{Held, Hold, draft, reason};
use crate::error::ProbeError;
#[cfg(feature = "port-mapping")]
use crate::nat::{Mappings, PortMapper};
use crate::types::{CandidateSource, Counters};

/// Address at which a relay server listens for the node, or why it does not; `None` until it is known.
pub(in crate::node) type Relayed = Option<Result<SocketAddr, ProbeError>>;

/// Relay servers, and whom they let through.
#[derive(Default)]
pub(in crate::node) struct Relays {
    pub(in crate::node) servers: Vec<Relay>,
    /// IP addresses of the peers that may come by way of them.
    pub(in crate::node) permitted: watch::Sender<BTreeSet<IpAddr>>,
    pub(in crate::node) drops: RelayDrops,
}

/// Counts of connections that came in by way of relay servers and were dropped.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct RelayDrops {
    pub(in crate::node) refused: Arc<AtomicU64>,
    pub(in crate::node) failed: Arc<AtomicU64>,
}

impl RelayDrops {
    pub(in crate::node) fn add_to(&self, counters: &mut Counters) {
        counters.relayed_refused += self.refused.load(Ordering::Relaxed);
        counters.relayed_failed += self.failed.load(Ordering::Relaxed);
    }
}

/// Relay server that is to listen for the node.
#[cfg_attr(not(feature = "turn"), allow(dead_code))]
pub(in crate::node) struct Relay {
    pub(in crate::node) name: String,
    pub(in crate::node) relayed: watch::Receiver<Relayed>,
    /// Keeps the server listening for as long as it is polled.
    pub(in crate::node) run: BoxFuture<'static, ()>,
}

/// What those who hold something say.
#[derive(Default)]
pub(super) struct Holders {
    relays: Vec<(String, watch::Receiver<Relayed>)>,
    #[cfg(feature = "port-mapping")]
    mappings: Option<watch::Receiver<Mappings>>,
}

impl Holders {
    pub(super) fn add_relay(&mut self, name: String, relayed: watch::Receiver<Relayed>) {
        self.relays.push((name, relayed));
    }

    /// Has routers pass on a port until `is_running` says that the node ends; the answer sees to it.
    #[cfg(feature = "port-mapping")]
    pub(super) fn map_port(
        &mut self,
        port: u16,
        mut is_running: watch::Receiver<bool>,
    ) -> BoxFuture<'static, ()> {
        let (found, mappings) = watch::channel(Mappings::default());
        self.mappings = Some(mappings);
        async move {
            let mapper = PortMapper::start(port, found);
            for is_wanted in [true, false] {
                let _ = is_running.wait_for(|is_running| *is_running == is_wanted).await;
            }
            mapper.stop().await;
        }
        .boxed()
    }
}

impl Hold for Holders {
    fn held(&mut self) -> Held {
        let mut held = Held::default();
        for (name, relayed) in &mut self.relays {
            match &*relayed.borrow_and_update() {
                Some(Ok(address)) => held.candidates.push(draft(*address, CandidateSource::Relay)),
                Some(Err(error)) => drop(held.failed.insert(name.clone(), reason(name, error))),
                None => {}
            }
        }
        #[cfg(feature = "port-mapping")]
        if let Some(mappings) = &mut self.mappings {
            let mappings = mappings.borrow_and_update();
            held.candidates.extend(mappings.candidates.iter().cloned());
            let failed = mappings.failed.iter();
            held.failed.extend(failed.map(|(name, why)| ((*name).to_owned(), why.clone())));
        }
        held
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        let mut changes = vec![pending().boxed()];
        changes.extend(self.relays.iter_mut().map(|(_, relayed)| change(relayed)));
        #[cfg(feature = "port-mapping")]
        changes.extend(self.mappings.as_mut().map(change));
        select_all(changes).map(drop).boxed()
    }
}

/// Waits for a change; for ever once nothing more can change.
fn change<T: Send + Sync>(of: &mut watch::Receiver<T>) -> BoxFuture<'_, ()> {
    async move {
        if of.changed().await.is_err() {
            pending::<()>().await;
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureKind;

    #[tokio::test]
    async fn what_a_relay_says_is_a_candidate_or_a_reason() {
        let mut holders = Holders::default();
        let (relay, relayed) = watch::channel(None);
        holders.add_relay("turn:h:3478".to_owned(), relayed);
        assert_eq!(holders.held(), Held::default());
        relay.send_replace(Some(Ok("192.0.2.1:49152".parse().unwrap())));
        holders.changed().await;
        let held = holders.held();
        assert_eq!(held.candidates.len(), 1);
        assert_eq!(held.candidates[0].source, CandidateSource::Relay);
        let error = ProbeError::new(FailureKind::Refused, "turn:h:3478: wrong password");
        relay.send_replace(Some(Err(error)));
        holders.changed().await;
        let held = holders.held();
        assert_eq!((held.candidates.len(), &*held.failed["turn:h:3478"]), (0, "wrong password"));
        drop(relay);
        assert!(holders.changed().now_or_never().is_none(), "nothing more can change");
    }
}
