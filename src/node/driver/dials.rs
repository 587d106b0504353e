//! Dials under way: each by one transport, within its time, and given up when the protocol says so.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

use crate::config::ConnectionConfig;
use crate::error::{FailureKind, TransportError};
use crate::node::messages::Completion;
use crate::ports::{RawLink, Transport};
use crate::protocol::DialId;
use crate::types::{Endpoint, PeerId, TransportKind};

/// Place to dial, with which transport, and whom to expect there.
#[derive(Debug)]
pub(super) struct DialTarget {
    pub(super) endpoint: Endpoint,
    pub(super) rung: TransportKind,
    pub(super) expected: Option<PeerId>,
    pub(super) avoid: Vec<SocketAddr>,
}

/// The dials under way.
pub(in crate::node) struct Dials {
    transports: Vec<Arc<dyn Transport>>,
    timeout: Duration,
    done: mpsc::Sender<Completion>,
    under_way: HashMap<DialId, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Dials {
    pub(in crate::node) fn new(
        transports: Vec<Arc<dyn Transport>>,
        config: &ConnectionConfig,
        done: mpsc::Sender<Completion>,
    ) -> Self {
        let timeout = config.connect_timeout + config.handshake_timeout;
        let (under_way, tasks) = (HashMap::new(), JoinSet::new());
        Self { transports, timeout, done, under_way, tasks }
    }

    pub(super) fn transports(&self) -> &[Arc<dyn Transport>] {
        &self.transports
    }

    pub(super) fn start(&mut self, dial: DialId, target: DialTarget) {
        // Finished tasks are reaped: the set holds only what is under way.
        while self.tasks.try_join_next().is_some() {}
        let by_rung = self.transports.iter().filter(|t| t.kind() == target.rung);
        let transports: Vec<_> = by_rung.cloned().collect();
        let (done, timeout) = (self.done.clone(), self.timeout);
        let span = tracing::debug_span!(
            target: "sorcha_peer::overlay",
            "dial",
            address = %target.endpoint,
            transport = %target.rung,
        );
        let task = async move {
            let endpoint = &target.endpoint;
            let dialled = tokio::time::timeout(timeout, dial_with(&transports, &target)).await;
            let completion = match dialled {
                Ok(Ok(raw)) => Completion::Linked { raw, dial: Some(dial) },
                Ok(Err(error)) => Completion::NotDialled { dial, error },
                Err(_) => {
                    let message = format!("no link with {endpoint} within {timeout:?}");
                    let error = TransportError::new(FailureKind::Timeout, message);
                    Completion::NotDialled { dial, error }
                }
            };
            let _ = done.send(completion).await;
        };
        let task = self.tasks.spawn(task.instrument(span.or_current()));
        self.under_way.insert(dial, task);
    }

    /// Gives a dial up. What it has come to is dropped, also where that is on its way already.
    pub(super) fn cancel(&mut self, dial: DialId) {
        if let Some(task) = self.under_way.remove(&dial) {
            task.abort();
        }
    }

    /// A dial has come to something; `false` when it was given up.
    pub(super) fn finish(&mut self, dial: DialId) -> bool {
        self.under_way.remove(&dial).is_some()
    }

    /// Ends all dials.
    pub(super) fn abort_all(&mut self) {
        self.tasks.abort_all();
    }
}

/// Tries the transports of one kind, of which a host may give several, in the order given.
async fn dial_with(
    transports: &[Arc<dyn Transport>],
    target: &DialTarget,
) -> Result<RawLink, TransportError> {
    let DialTarget { endpoint, expected, avoid, .. } = target;
    let mut last = TransportError::new(FailureKind::Unsupported, "no transport can dial this");
    for transport in transports {
        let dialled = if avoid.is_empty() {
            transport.dial(endpoint, *expected).await
        } else {
            transport.dial_avoiding(endpoint, *expected, avoid).await
        };
        match dialled {
            Ok(raw) => return Ok(raw),
            Err(error) => last = error,
        }
    }
    Err(last)
}
