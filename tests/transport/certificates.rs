//! Who sees which certificate: peers the one of the node's key, everybody else one that all TLS clients can read.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use sorcha_peer::ports::{Listener, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Config, Identity};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use SignatureScheme as S;

use crate::common::{Anybody, any_port, beside, identity, provider};

fn me() -> Identity {
    identity(2)
}

async fn start(options: GrpcOptions) -> Box<dyn Listener> {
    let transport = GrpcTransport::new(me(), options).unwrap();
    transport.listen(any_port()).await.unwrap()
}

/// A handshake by a client with this verifier, while the server listens.
async fn connect(
    listener: &mut Box<dyn Listener>,
    name: &str,
    verifier: Arc<dyn ServerCertVerifier>,
) -> std::io::Result<()> {
    let config = ClientConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions().unwrap().dangerous();
    let mut config = config.with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address: SocketAddr = listener.local_addr();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map(drop)
    };
    beside(listener, client).await
}

/// The certificate that a client with these algorithms is shown.
async fn shown(
    listener: &mut Box<dyn Listener>,
    schemes: &[SignatureScheme],
) -> CertificateDer<'static> {
    let anybody = Anybody::offering(schemes);
    connect(listener, "peer.example.com", anybody.clone()).await.unwrap();
    anybody.seen()
}

/// What a client checks that trusts this certificate and no other.
fn trusting(root: &CertificateDer<'static>) -> Arc<dyn ServerCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn is_of_key(certificate: &CertificateDer<'_>) -> bool {
    let parsed = ParsedCertificate::try_from(certificate).unwrap();
    parsed.subject_public_key_info().as_ref().ends_with(me().peer_id().as_bytes())
}

#[tokio::test]
async fn only_who_offers_ed25519_alone_sees_the_key_of_the_node() {
    let mut listener = start(GrpcOptions::default()).await;
    assert!(is_of_key(&shown(&mut listener, &[S::ED25519]).await));
    for others in [
        &[S::ECDSA_NISTP256_SHA256][..],
        &[S::ED25519, S::ECDSA_NISTP256_SHA256],
        &[S::ECDSA_NISTP256_SHA256, S::ED25519],
        &[S::RSA_PSS_SHA256, S::ECDSA_NISTP256_SHA256, S::ED25519, S::ED448],
    ] {
        assert!(!is_of_key(&shown(&mut listener, others).await), "{others:?}");
    }
}

#[tokio::test]
async fn the_made_one_is_for_the_names_of_the_node() {
    let mut config = Config::default();
    config.listen.address = Some("192.0.2.7:5001".parse().unwrap());
    let advertised = ["peer.example.com:5001", "https://in.example.com/peer", "[2001:db8::1]:5001"];
    config.listen.advertise = advertised.map(|text| text.parse().unwrap()).to_vec();
    let mut listener = start(GrpcOptions::from_config(&config)).await;
    let root = shown(&mut listener, &[S::ECDSA_NISTP256_SHA256]).await;
    for name in [
        "peer.example.com",
        "in.example.com",
        "2001:db8::1",
        "192.0.2.7",
        "localhost",
        "127.0.0.1",
        "::1",
    ] {
        connect(&mut listener, name, trusting(&root))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for name in ["example.com", "192.0.2.8", "other.example.com"] {
        assert!(connect(&mut listener, name, trusting(&root)).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn the_host_s_is_shown_to_all_but_peers() {
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key] = ["pem", "key"].map(|name| dir.path().join(name));
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let params = rcgen::CertificateParams::new(["api.example.com".to_owned()]).unwrap();
    let made = params.self_signed(&pair).unwrap();
    fs::write(&certificate, pem("CERTIFICATE", made.der())).unwrap();
    fs::write(&key, pem("PRIVATE KEY", &pair.serialize_der())).unwrap();
    let mut config = Config::default();
    config.compat.certificate_file = Some(certificate.clone());
    config.compat.key_file = Some(key.clone());
    let mut listener = start(GrpcOptions::from_config(&config)).await;
    connect(&mut listener, "api.example.com", trusting(made.der())).await.unwrap();
    assert!(is_of_key(&shown(&mut listener, &[S::ED25519]).await));
    let ecdsa = [S::ED25519, S::ECDSA_NISTP384_SHA384];
    assert_eq!(&shown(&mut listener, &ecdsa).await, made.der());
    // The error of a node says which file it is.
    fs::write(&key, "spoilt").unwrap();
    let error = GrpcTransport::new(me(), GrpcOptions::from_config(&config)).unwrap_err();
    assert!(error.to_string().contains("key"), "{error}");
}
