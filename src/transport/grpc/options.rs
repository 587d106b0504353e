//! Settings of the gRPC transport.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, Trust};

/// Settings of a [`GrpcTransport`](super::GrpcTransport).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcOptions {
    /// Time for name resolution and TCP together when dialling. Default 30 s.
    pub connect_timeout: Duration,
    /// Time for TLS, HTTP/2 and opening the stream together, when dialling and when accepting.
    /// Default 10 s.
    pub handshake_timeout: Duration,
    /// Accepted connections of one listener that may be in their handshake at once; further ones
    /// are dropped. Default 256, at least 1.
    pub max_handshakes: u32,
    /// The same for one IPv4 address or one IPv6 /64, the least that an IPv6 host owns. Default
    /// 32, at least 1.
    pub max_handshakes_per_ip: u32,
    /// Socket address on which a listener also serves what a proxy in front passes on: HTTP/1.1 and HTTP/2 in
    /// clear text. What runs inside is as safe as on the other port. Default none.
    pub http: Option<SocketAddr>,
    /// No TLS: peer ids are what the peers claim. Only for tests, and for a mesh that
    /// authenticates below. Default false.
    pub plaintext: bool,
    /// PEM file of the CAs that must have certified the key of each peer; together with
    /// `certificate_file`. Default none.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate of this node's key, then those between it and the CA. Default none:
    /// a certificate that the node signs itself and that means nothing.
    pub certificate_file: Option<PathBuf>,
}

impl GrpcOptions {
    /// The settings that a node with this configuration uses.
    pub fn from_config(config: &Config) -> Self {
        let (ca_file, certificate_file) = match &config.network.trust {
            Trust::Ca { ca_file, certificate_file } => {
                (Some(ca_file.clone()), Some(certificate_file.clone()))
            }
            _ => (None, None),
        };
        Self {
            connect_timeout: config.connection.connect_timeout,
            handshake_timeout: config.connection.handshake_timeout,
            max_handshakes: config.listen.max_handshakes,
            max_handshakes_per_ip: config.listen.max_handshakes_per_ip,
            http: config.listen.http,
            plaintext: config.network.plaintext,
            ca_file,
            certificate_file,
        }
    }
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self::from_config(&Config::default())
    }
}
