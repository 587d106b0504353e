//! Connections to the server of a relay.
//!
//! Contract: neither proxies nor other relays stand between. The certificate of a server that is spoken to over
//! TLS is not checked, as of nothing that stands between peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio_rustls::TlsConnector;

use super::outer::server_name;
use super::race::race;
use super::shared::Shared;
use super::tcp::{Limit, Routes, Stream};
use super::{failure, tcp};
use crate::config::RelayServer;
use crate::error::TransportError;
use crate::types::Endpoint;

/// Way to one server.
pub(crate) struct RelayWay {
    endpoint: Endpoint,
    routes: Routes,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_timeout: Duration,
}

impl RelayWay {
    pub(super) fn new(shared: &Shared, server: &RelayServer) -> Self {
        let endpoint = server.endpoint().clone();
        let connector = || TlsConnector::from(Arc::clone(&shared.outer.other));
        let tls = server.is_tls().then(|| (connector(), server_name(&endpoint)));
        let routes = Routes { names: shared.routes.names.clone(), ..Routes::default() };
        Self { endpoint, routes, tls, connect_timeout: shared.options.connect_timeout }
    }

    /// Connects to the server, at this address where one is given, and says at which. The caller bounds the
    /// time of TLS. Cancel safe.
    ///
    /// # Errors
    /// Those of names, of TCP and of TLS.
    pub(crate) async fn connect(
        &self,
        to: Option<SocketAddr>,
    ) -> Result<(Stream, SocketAddr), TransportError> {
        let limit = Limit::from_now(self.connect_timeout);
        if let Some(at) = to {
            return self.open(at, limit).await;
        }
        let addresses = tcp::resolve(&self.routes, &self.endpoint, &[], &limit).await?;
        race(addresses, |at| self.open(at, limit.attempt())).await
    }

    async fn open(
        &self,
        at: SocketAddr,
        limit: Limit,
    ) -> Result<(Stream, SocketAddr), TransportError> {
        let stream = tcp::connect(&self.routes, &self.endpoint, at, &limit).await?;
        match (&self.tls, stream) {
            (Some((connector, name)), Stream::Plain(stream)) => {
                let stream = connector
                    .connect(name.clone(), BufReader::new(stream))
                    .await
                    .map_err(|e| failure::from_tls("the TLS handshake with the relay failed", e))?;
                Ok((Stream::Tls(Box::new(stream)), at))
            }
            (_, stream) => Ok((stream, at)),
        }
    }
}

impl std::fmt::Debug for RelayWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayWay").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
