//! Mutual TLS 1.3 in which the certificate is only an envelope: the peer id is the Ed25519 key in
//! it, proven by the handshake's signature.
//!
//! Contract: without a CA both sides present exactly one certificate with an Ed25519 key; its
//! names, dates, issuer and own signature mean nothing and are not looked at. With one, the
//! certificates are those that it issued: see [`Ca`]. After a handshake, [`proven`] gives the key
//! that signed it, and a value that binds what is said later to this session. A dial that expects a
//! peer id aborts the handshake on any other key. Sessions are never resumed, so that every
//! connection proves the key anew. Who may connect is not decided here but by the node, which can
//! say why it refuses.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CipherSuite, ClientConfig, ConnectionCommon, DigitallySignedStruct,
    DistinguishedName, Error, PeerMisbehaved, ServerConfig, SignatureScheme,
};

use super::ca::{Ca, Side, refused};
use super::{GrpcOptions, guest_certificate};
use crate::error::{FailureKind, TransportError};
use crate::identity::Identity;
use crate::types::PeerId;

/// Number of bytes that one read from a socket brings. rustls asks for 4 KiB at a time, so
/// unbuffered a piece of bulk would take 16 system calls. More saves little, and every link has
/// one.
pub(super) const READ_BUFFER_BYTES: usize = 16 * 1024;

const AES_128: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;
/// Protocol of a connection: HTTP/2.
pub(super) const ALPN_H2: &[u8] = b"h2";
/// Protocol of a connection: HTTP/1.1.
pub(super) const ALPN_HTTP1: &[u8] = b"http/1.1";
/// Protocol of a session inside a pipe: frames.
pub(super) const ALPN_PIPE: &[u8] = b"sorcha-pipe";
/// Label of the keying material that a link is bound by (RFC 8446, section 7.5).
const BINDING_LABEL: &[u8] = b"EXPORTER-sorcha-peer-link";
/// `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410, section 4) up to the key itself. DER leaves
/// no other way to write it.
const ED25519_SPKI_PREFIX: &[u8; 12] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// TLS configurations for one identity, ready to be used for any number of connections.
#[derive(Debug)]
pub(super) struct TlsIdentity {
    server: Arc<ServerConfig>,
    pipe_server: Arc<ServerConfig>,
    client: ClientConfig,
    provider: Arc<CryptoProvider>,
    ca: Option<Arc<Ca>>,
}

impl TlsIdentity {
    /// Makes a self-signed certificate for the key or, where files of CA and certificates are given,
    /// takes that. Others than peers are shown the certificate that `options` names.
    ///
    /// # Errors
    /// `Local` when the cryptographic library refuses, or a file cannot be used.
    pub(super) fn new(
        identity: &Identity,
        certified: Option<(&Path, &Path)>,
        options: &GrpcOptions,
    ) -> Result<Self, TransportError> {
        let local = |source: Box<dyn std::error::Error + Send + Sync>| {
            TransportError::with_source(FailureKind::Local, "cannot set up TLS", source)
        };
        // Passed on explicitly: the process-wide default belongs to the host.
        let mut provider = rustls::crypto::ring::default_provider();
        // The cheaper of two ciphers that nobody can break.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != AES_128);
        let provider = Arc::new(provider);
        let (certificate, key) = self_signed(identity).map_err(|e| local(e.into()))?;
        let ca = match certified {
            None => None,
            Some((roots, chain)) => {
                let algorithms = provider.signature_verification_algorithms;
                Some(Arc::new(Ca::load(roots, chain, algorithms)?))
            }
        };
        let chain = ca.as_ref().map_or_else(|| vec![certificate], |ca| ca.chain().to_vec());
        let shown = key_shown(Some(&chain)).ok();
        if shown != Some(identity.peer_id()) {
            let message = format!("the certificate is not for the key of {}", identity.peer_id());
            return Err(TransportError::new(FailureKind::Local, message));
        }
        let verifier = |is_optional| {
            Arc::new(KeyVerifier { is_optional, ..KeyVerifier::new(&provider, ca.clone()) })
        };
        let versions = [&rustls::version::TLS13];
        let ours = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider);
        let ours = Arc::new(ours.map_err(|e| local(e.into()))?);
        let others = Arc::new(guest_certificate::certificate(options, &provider)?);

        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|e| local(e.into()))?
            .with_client_cert_verifier(verifier(true))
            .with_cert_resolver(Arc::new(Certificates { ours, others }));
        server.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut pipe_server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|e| local(e.into()))?
            .with_client_cert_verifier(verifier(false))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| local(e.into()))?;
        pipe_server.alpn_protocols = vec![ALPN_PIPE.to_vec()];
        pipe_server.session_storage = Arc::new(NoServerSessionStorage {});
        pipe_server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|e| local(e.into()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier(false))
            .with_client_auth_cert(chain, key)
            .map_err(|e| local(e.into()))?;
        client.alpn_protocols = vec![ALPN_H2.to_vec()];
        client.resumption = Resumption::disabled();

        let (server, pipe_server) = (Arc::new(server), Arc::new(pipe_server));
        Ok(Self { server, pipe_server, client, provider, ca })
    }

    /// Configuration for accepting a connection: a certificate need not be shown, since what
    /// stands in front of this node has none; any key that is proven will do, or any that is certified.
    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Configuration for accepting inside a pipe: a certificate must be shown.
    pub(super) fn pipe_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.pipe_server)
    }

    /// Configuration for dialling. With `expected`, any other key ends the handshake before our
    /// certificate is shown.
    pub(super) fn client_config(&self, expected: Option<PeerId>) -> Arc<ClientConfig> {
        Arc::new(self.client(expected))
    }

    /// The same inside a pipe.
    pub(super) fn pipe_client(&self, expected: Option<PeerId>) -> Arc<ClientConfig> {
        let mut config = self.client(expected);
        config.alpn_protocols = vec![ALPN_PIPE.to_vec()];
        Arc::new(config)
    }

    fn client(&self, expected: Option<PeerId>) -> ClientConfig {
        let mut config = self.client.clone();
        let verifier =
            KeyVerifier { expected, ..KeyVerifier::new(&self.provider, self.ca.clone()) };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        config
    }

    /// What a completed handshake with one of these configurations proved.
    ///
    /// # Errors
    /// `Identity` when no certificate was shown.
    pub(super) fn proven<D>(
        &self,
        connection: &ConnectionCommon<D>,
    ) -> Result<Proven, TransportError> {
        let peer = key_shown(connection.peer_certificates())?;
        let exported = connection.export_keying_material([0; 32], BINDING_LABEL, None);
        let binding = exported.map_err(|source| {
            TransportError::with_source(FailureKind::Identity, "no keying material", source)
        })?;
        Ok(Proven { peer, binding, certified: self.ca.is_some() })
    }
}

/// What a completed handshake proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proven {
    /// Key that signed the handshake.
    pub(super) peer: PeerId,
    /// Keying material of this session, which both ends have and nobody else can know.
    pub(super) binding: [u8; 32],
    /// True: a CA that this node trusts has certified the key.
    pub(super) certified: bool,
}

/// Key in the certificate that was shown.
fn key_shown(certificates: Option<&[CertificateDer<'_>]>) -> Result<PeerId, TransportError> {
    let identity = |source| {
        TransportError::with_source(FailureKind::Identity, "no usable certificate", source)
    };
    match certificates {
        Some([certificate, ..]) => key_of(certificate).map_err(identity),
        _ => Err(identity(Error::NoCertificatesPresented)),
    }
}

/// Meaning of a failed handshake, or of an alert later on.
pub(super) fn failure_kind(error: &io::Error) -> FailureKind {
    let inner = error.get_ref();
    // What carries a pipe has its own errors.
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<TransportError>()) {
        return error.kind;
    }
    match inner.and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => tls_failure_kind(error),
        None if error.kind() == io::ErrorKind::TimedOut => FailureKind::Timeout,
        None => FailureKind::Closed,
    }
}

/// Reports whether the remote speaks TLS, and not as peers do: it proves another key or none, or shares
/// no version or algorithm with us.
pub(super) fn is_of_another(error: &io::Error) -> bool {
    use AlertDescription as A;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(
        inner,
        Some(
            Error::InvalidCertificate(_)
                | Error::NoCertificatesPresented
                | Error::PeerIncompatible(_)
                | Error::AlertReceived(
                    A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity
                )
        )
    )
}

/// Reports whether the remote gave up, and said why.
pub(super) fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::AlertReceived(_)))
}

fn tls_failure_kind(error: &Error) -> FailureKind {
    use AlertDescription as A;
    match error {
        Error::NoCertificatesPresented
        | Error::InvalidCertificate(_)
        | Error::AlertReceived(
            A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateUnknown
            | A::CertificateExpired
            | A::CertificateRevoked
            | A::CertificateRequired
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError,
        ) => FailureKind::Identity,
        Error::AlertReceived(A::InternalError | A::UserCanceled | A::CloseNotify) => {
            FailureKind::Closed
        }
        Error::General(_) | Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes => {
            FailureKind::Local
        }
        _ => FailureKind::Protocol,
    }
}

fn self_signed(
    identity: &Identity,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let key = PrivatePkcs8KeyDer::from(identity.to_pkcs8());
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)?;
    // One name for all: a certificate says nothing about a node but its key.
    let certificate = rcgen::CertificateParams::new(["sorcha-peer".to_owned()])?;
    Ok((certificate.self_signed(&pair)?.der().clone(), key.into()))
}

/// Certificates that a listener shows.
#[derive(Debug)]
struct Certificates {
    /// That of the node's key, for peers.
    ours: Arc<CertifiedKey>,
    /// One that everybody can read, for guests and for what stands in front of this node.
    others: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    /// Peers ask for Ed25519 and nothing else; many who offer it among others cannot use it.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_peer = hello.signature_schemes() == [SignatureScheme::ED25519];
        Some(Arc::clone(if is_peer { &self.ours } else { &self.others }))
    }
}

/// The Ed25519 key of a certificate.
fn key_of(certificate: &CertificateDer<'_>) -> Result<PeerId, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let spki = parsed.subject_public_key_info();
    let key = spki
        .as_ref()
        .strip_prefix(ED25519_SPKI_PREFIX)
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .ok_or_else(|| refused("the key is not Ed25519"))?;
    // For the few keys of small order, anybody can make signatures that verify.
    match ed25519_dalek::VerifyingKey::from_bytes(&key) {
        Ok(point) if !point.is_weak() => Ok(PeerId::from_bytes(key)),
        _ => Err(refused("the key is not a usable Ed25519 point")),
    }
}

/// Verifies that the other side holds the key in its certificate, on either side.
#[derive(Debug)]
struct KeyVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    ca: Option<Arc<Ca>>,
    expected: Option<PeerId>,
    /// Whether a dialler may show none.
    is_optional: bool,
}

impl KeyVerifier {
    fn new(provider: &CryptoProvider, ca: Option<Arc<Ca>>) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { algorithms, ca, expected: None, is_optional: false }
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        side: Side,
    ) -> Result<(), Error> {
        let found = key_of(certificate)?;
        match &self.ca {
            Some(ca) => ca.check(certificate, others, now, side)?,
            None if !others.is_empty() => return Err(refused("more than one certificate")),
            None => {}
        }
        match self.expected {
            Some(expected) if expected != found => {
                Err(refused(format!("expected peer {expected}, found {found}")))
            }
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

/// TLS 1.2 is never offered.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now, Side::Listener)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.is_optional
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now, Side::Dialler)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_carries_the_peer_id_and_nothing_else_passes() {
        let identity = Identity::from_seed([7; 32]);
        let (certificate, _) = self_signed(&identity).unwrap();
        let shown = key_shown(Some(std::slice::from_ref(&certificate))).unwrap();
        assert_eq!(shown, identity.peer_id());
        for bad in [None, Some(&[][..])] {
            assert_eq!(key_shown(bad).unwrap_err().kind, FailureKind::Identity);
        }
        for cut in 0..certificate.len() {
            let cut = CertificateDer::from(&certificate[..cut]);
            assert!(key_of(&cut).is_err());
        }
    }

    #[test]
    fn other_keys_are_refused() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["x".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        assert!(key_of(certificate.der()).is_err());
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let (certificate, _) = self_signed(&Identity::from_seed([7; 32])).unwrap();
        let key = *Identity::from_seed([7; 32]).peer_id().as_bytes();
        let at = certificate.windows(32).position(|window| window == key).unwrap();
        let mut forged = certificate.to_vec();
        forged[at..at + 32].copy_from_slice(&[0; 32]);
        assert!(key_of(&CertificateDer::from(forged)).is_err());
    }
}
