//! Settings of the gRPC transport.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, ListenConfig, Trust, without_credentials};
use crate::types::Host;

/// Settings of a [`GrpcTransport`](super::GrpcTransport). `Debug` does not show the credentials of the
/// proxy.
#[derive(Clone, PartialEq, Eq)]
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
    /// PEM file with the certificate that whoever is no peer is shown, such as clients of the original system and
    /// proxies, then those between it and its CA; together with `guest_key_file`. Default none: a self-signed one.
    pub guest_certificate_file: Option<PathBuf>,
    /// PEM file with the key of that certificate. Default none.
    pub guest_key_file: Option<PathBuf>,
    /// Names and addresses of this node in that certificate where it is self-signed, beside those of the own machine.
    /// Default none.
    pub guest_names: Vec<String>,
    /// HTTP proxy that peers are dialled through: see
    /// [`ConnectionConfig::proxy`](crate::config::ConnectionConfig). Default none.
    pub proxy: Option<String>,
    /// Hosts that are dialled without it. Default those of this machine.
    pub no_proxy: Vec<String>,
    /// The port of a listener may be shared with sockets of the same user that are bound to it later, and ask for
    /// that (`SO_REUSEPORT`): needed to ask which address a NAT gives the port. A second listener is refused as
    /// ever. Default false.
    pub shares_port: bool,
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
            guest_certificate_file: config.compat.certificate_file.clone(),
            guest_key_file: config.compat.key_file.clone(),
            guest_names: names(&config.listen),
            proxy: config.connection.proxy.clone(),
            no_proxy: config.connection.no_proxy.clone(),
            shares_port: !config.nat.stun.is_empty(),
        }
    }
}

/// Names and addresses under which a node is reached, as far as its configuration says.
fn names(listen: &ListenConfig) -> Vec<String> {
    let advertised = listen.advertise.iter().map(|endpoint| match endpoint.host() {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    });
    let bound = [listen.address, listen.http].into_iter().flatten().map(|bound| bound.ip());
    let bound = bound.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    advertised.chain(bound).collect()
}

impl fmt::Debug for GrpcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `..`, so that a new field is not left out.
        let Self {
            connect_timeout,
            handshake_timeout,
            max_handshakes,
            max_handshakes_per_ip,
            http,
            plaintext,
            ca_file,
            certificate_file,
            guest_certificate_file,
            guest_key_file,
            guest_names,
            proxy,
            no_proxy,
            shares_port,
        } = self;
        f.debug_struct("GrpcOptions")
            .field("connect_timeout", connect_timeout)
            .field("handshake_timeout", handshake_timeout)
            .field("max_handshakes", max_handshakes)
            .field("max_handshakes_per_ip", max_handshakes_per_ip)
            .field("http", http)
            .field("plaintext", plaintext)
            .field("ca_file", ca_file)
            .field("certificate_file", certificate_file)
            .field("guest_certificate_file", guest_certificate_file)
            .field("guest_key_file", guest_key_file)
            .field("guest_names", guest_names)
            .field("proxy", &proxy.as_deref().map(without_credentials))
            .field("no_proxy", no_proxy)
            .field("shares_port", shares_port)
            .finish()
    }
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self::from_config(&Config::default())
    }
}
