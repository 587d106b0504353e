//! Dialling, by whichever rung.
//!
//! Contract: all addresses of a name are raced up to the link to a peer that has proven its id.
//! `connect_timeout` bounds resolution and TCP, of all addresses together, `handshake_timeout` all that
//! follows, of each. Until the link is returned, everything hangs on the future of [`dial`]; dropped, it
//! takes its connections with it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::client;
use crate::error::{FailureKind, TransportError};
use crate::ports::RawLink;
use crate::transport::exchange::{self, Face};
use crate::transport::race::race;
use crate::transport::shared::{Shared, TARGET};
use crate::transport::tcp;
#[cfg(feature = "websocket")]
use crate::transport::websocket;
use crate::types::{Endpoint, PeerId, TransportKind};

/// Opens a link; see [`Transport::dial_avoiding`](crate::ports::Transport::dial_avoiding).
pub(super) async fn dial(
    shared: &Arc<Shared>,
    rung: TransportKind,
    endpoint: &Endpoint,
    expected: Option<PeerId>,
    avoid: &[SocketAddr],
) -> Result<RawLink, TransportError> {
    if !endpoint.carries(rung) {
        let message = format!("{endpoint} is not for {rung}");
        return Err(TransportError::new(FailureKind::Unsupported, message));
    }
    let expected = both(endpoint, expected)?;
    // What stands between has an address that says nothing of the peer's.
    let avoid = if endpoint.is_direct() { avoid } else { &[] };
    let limit = tcp::Limit::from_now(shared.options.connect_timeout);
    let addresses = tcp::resolve(&shared.routes, endpoint, avoid, &limit).await?;
    race(addresses, |address| {
        // Boxed, since what is under way is large and there may be many.
        Box::pin(dial_address(shared, rung, endpoint, address, expected, limit.attempt()))
    })
    .await
}

/// The peer that must answer: the one that is expected, or that the endpoint names.
fn both(endpoint: &Endpoint, expected: Option<PeerId>) -> Result<Option<PeerId>, TransportError> {
    match (expected, endpoint.pin()) {
        (Some(expected), Some(pin)) if expected != pin => {
            let message = format!("expected peer {expected} at the address of another, {endpoint}");
            Err(TransportError::new(FailureKind::Identity, message))
        }
        (expected, pin) => Ok(expected.or(pin)),
    }
}

/// Opens a link to one address.
async fn dial_address(
    shared: &Arc<Shared>,
    rung: TransportKind,
    endpoint: &Endpoint,
    address: SocketAddr,
    expected: Option<PeerId>,
    limit: tcp::Limit,
) -> Result<RawLink, TransportError> {
    let handshake_limit = shared.options.handshake_timeout;
    let dialling = async {
        match rung {
            TransportKind::GrpcStream => {
                Box::pin(client::dial(shared, endpoint, address, expected, &limit)).await
            }
            #[cfg(feature = "websocket")]
            TransportKind::WebSocket => {
                Box::pin(websocket::dial(shared, endpoint, address, expected, &limit)).await
            }
            TransportKind::GrpcUnary => {
                Box::pin(exchange::dial(shared, endpoint, address, expected, &limit, Face::Unary))
                    .await
            }
            #[cfg(feature = "rest")]
            TransportKind::Rest => {
                Box::pin(exchange::dial(shared, endpoint, address, expected, &limit, Face::Rest))
                    .await
            }
            _ => {
                let message = format!("{rung} is not built in");
                Err(TransportError::new(FailureKind::Unsupported, message))
            }
        }
    };
    let result = Box::pin(limit.then(endpoint, handshake_limit, dialling)).await;
    match &result {
        Ok(link) => {
            tracing::debug!(target: TARGET, peer = %link.remote, %address, kind = %rung, "dialled");
        }
        Err(error) => tracing::debug!(
            target: TARGET, %address, kind = %error.kind, reason = %error, "not dialled"
        ),
    }
    result
}
