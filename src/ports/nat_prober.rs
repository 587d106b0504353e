//! Ways to learn under which address others see this node.

use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;

use crate::error::ProbeError;

/// Prober: asks somebody outside for the address that they see. An answer is a hint, not a proof: a mapped
/// UDP port says nothing of a TCP listener. So its IP address with the port that the node listens at is a
/// candidate, which others are told of once some of them have dialled it; the host is told at once
/// ([`Event::AddressObserved`](crate::Event::AddressObserved)).
///
/// Probers run when the node starts, all beside each other, and again every `nat.interval` and when the
/// interfaces of the machine change or the last link is lost. One that fails or takes longer than 10 s is
/// logged, and stands with its reason in the report
/// ([`ReachabilityReport::failed`](crate::types::ReachabilityReport)).
///
/// ```
/// use std::net::SocketAddr;
/// use async_trait::async_trait;
/// use sorcha_peer::error::{FailureKind, ProbeError};
/// use sorcha_peer::ports::NatProber;
///
/// /// Takes the address that the platform puts into the environment.
/// #[derive(Debug)]
/// struct FromEnvironment;
///
/// #[async_trait]
/// impl NatProber for FromEnvironment {
///     fn name(&self) -> &str {
///         "environment"
///     }
///
///     async fn probe(&self) -> Result<SocketAddr, ProbeError> {
///         let address = std::env::var("PUBLIC_ADDRESS");
///         address.ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
///             ProbeError::new(FailureKind::Unreachable, "PUBLIC_ADDRESS has no address")
///         })
///     }
/// }
/// # let _ = FromEnvironment.name();
/// ```
#[async_trait]
pub trait NatProber: fmt::Debug + Send + Sync + 'static {
    /// Name of the prober in events and logs.
    fn name(&self) -> &str;

    /// Address that was seen. The node bounds the time to 10 s by dropping the future: it must be cancel
    /// safe.
    ///
    /// # Errors
    /// [`ProbeError`]; the message goes to the log.
    async fn probe(&self) -> Result<SocketAddr, ProbeError>;
}
