//! Ways to learn under which address others see this node.

use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;

use crate::error::ProbeError;

/// Asks somebody outside for the address they see. An answer is a hint, not a proof: a mapped UDP
/// port says nothing of a TCP listener.
#[async_trait]
pub trait NatProber: fmt::Debug + Send + Sync + 'static {
    /// Names it in events and logs.
    fn name(&self) -> &str;

    /// The address seen. The caller bounds the time by dropping the future; cancel safe.
    async fn probe(&self) -> Result<SocketAddr, ProbeError>;
}
