//! What dialling and accepting have in common.

use super::options::GrpcOptions;
use super::shunned_hosts::ShunnedHosts;
use crate::identity::Identity;
use crate::transport::tcp::Routes;
use crate::transport::tls::TlsIdentity;

/// The tracing target of all transports.
pub(super) const TARGET: &str = "sorcha_peer::transport";

/// State that dials, listeners and links of a transport share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) options: GrpcOptions,
    pub(super) security: Security,
    pub(super) shunned: ShunnedHosts,
    pub(super) routes: Routes,
}

/// Way in which the other side is known.
#[derive(Debug)]
pub(super) enum Security {
    /// Known by the key that its handshake proved.
    Tls(Box<TlsIdentity>),
    /// Known by what the peer says.
    Plaintext,
}
