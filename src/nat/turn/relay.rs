//! A relay as the transport of peers uses it.
//!
//! Contract: it is in use while it has an allocation. Then a direct dial to an address at its server goes
//! through that allocation: a relayed address of another node lets in who comes from there.
//!
//! Tested by: `super::tests::coturn`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::client::{Call, Client, Drops, Net, Relayed, dial};
use crate::config::RelayServer;
use crate::error::TransportError;
use crate::transport::{GrpcTransport, Relay, RelayStream, RelayWay, Relays};

/// Maximum number of dials that wait for the client.
const CALLS: usize = 16;

/// Has a server listen for a transport and dial for it, for as long as what is returned runs: peers at the
/// `permitted` addresses, and those that dial from the server itself, reach the address that `relayed` tells.
pub(crate) fn relay(
    transport: &GrpcTransport,
    server: RelayServer,
    permitted: watch::Receiver<BTreeSet<IpAddr>>,
    relayed: watch::Sender<Relayed>,
    drops: Drops,
) -> BoxFuture<'static, ()> {
    let (way, relays) = (transport.way_to(&server), transport.relays());
    let net = Arc::new(Between { way, relays: relays.clone(), reached: Mutex::default() });
    let (sender, calls) = mpsc::channel(CALLS);
    let in_use = InUse { net: Arc::clone(&net), relayed: relayed.subscribe(), calls: sender };
    let entry = relays.enter(Arc::new(in_use));
    let client = Client { server, net, permitted, relayed, calls, drops };
    async move {
        let _entry = entry;
        client.run().await;
    }
    .boxed()
}

/// What stands between the client and the transport.
#[derive(Debug)]
struct Between {
    way: RelayWay,
    relays: Relays,
    /// Address at which the server was last reached.
    reached: Mutex<Option<IpAddr>>,
}

impl Net for Between {
    type Stream = RelayStream;

    fn connect(
        &self,
        to: Option<SocketAddr>,
    ) -> BoxFuture<'_, Result<(RelayStream, SocketAddr), TransportError>> {
        async move {
            let connected = self.way.connect(to).await?;
            let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
            *reached = Some(connected.1.ip());
            drop(reached);
            Ok(connected)
        }
        .boxed()
    }

    fn accept(&self, stream: RelayStream, peer: SocketAddr) -> bool {
        self.relays.accept(stream, peer)
    }
}

struct InUse {
    net: Arc<Between>,
    relayed: watch::Receiver<Relayed>,
    calls: mpsc::Sender<Call>,
}

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the relays of the transport, which hold this.
        f.debug_struct("InUse").field("way", &self.net.way).finish_non_exhaustive()
    }
}

impl Relay for InUse {
    fn serves(&self, ip: IpAddr) -> bool {
        let reached = *self.net.reached.lock().unwrap_or_else(PoisonError::into_inner);
        match &*self.relayed.borrow() {
            Some(Ok(relayed)) => relayed.ip() == ip || reached == Some(ip),
            _ => false,
        }
    }

    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, Result<RelayStream, TransportError>> {
        dial(&*self.net, &self.calls, to).boxed()
    }
}
