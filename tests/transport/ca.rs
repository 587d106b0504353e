//! Certificates of a CA over real TLS: who has a good one gets through, and every bad one is refused
//! with what is wrong with it.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::{Accepted, Transport};
use sorcha_peer::testing::{self, TransportNode};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Endpoint, Identity};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::common::{any_port, identity, in_time};
use crate::raw_grpc::{Certificate, tls};

/// Somebody who issues certificates.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn root() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let params = Self::params(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&pair).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, pair) }
    }

    /// One below this one.
    fn intermediate(&self, constraints: BasicConstraints) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let params = Self::params(constraints);
        let certificate = params.signed_by(&pair, &self.issuer).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, pair) }
    }

    fn params(constraints: BasicConstraints) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(constraints);
        // Names are what a path is found by, so no two have the same.
        let name = blake3::hash(KeyPair::generate().unwrap().public_key_raw()).to_hex();
        params.distinguished_name.push(rcgen::DnType::CommonName, name.as_str());
        params
    }

    fn certify(
        &self,
        identity: &Identity,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let key = PrivatePkcs8KeyDer::from(identity.to_pkcs8()).into();
        let pair = KeyPair::from_der_and_sign_algo(&key, &rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(["node".to_owned()]).unwrap();
        change(&mut params);
        params.signed_by(&pair, &self.issuer).unwrap().der().clone()
    }

    fn plain(&self, identity: &Identity) -> CertificateDer<'static> {
        self.certify(identity, |_| {})
    }
}

/// Files of certificates.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, certificates: &[&CertificateDer<'_>]) -> PathBuf {
        let path = self.0.path().join(name);
        let block = |der: &&CertificateDer<'_>| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        fs::write(&path, certificates.iter().map(block).collect::<String>()).unwrap();
        path
    }

    fn options(&self, root: &Authority, chain: &[&CertificateDer<'_>]) -> GrpcOptions {
        let mut options = GrpcOptions::default();
        options.ca_file = Some(self.write("ca.pem", &[&root.certificate]));
        options.certificate_file = Some(self.write("node.pem", chain));
        options
    }

    fn transport(
        &self,
        seed: u8,
        root: &Authority,
        chain: &[&CertificateDer<'_>],
    ) -> GrpcTransport {
        GrpcTransport::new(identity(seed), self.options(root, chain)).unwrap()
    }
}

#[tokio::test]
async fn certified_peers_conform() {
    let (files, root) = (Files::new(), Authority::root());
    let below = root.intermediate(BasicConstraints::Constrained(0));
    let a = below.plain(&identity(1));
    let b = root.certify(&identity(2), |params| {
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.extended_key_usages = both.to_vec();
    });
    let a = files.transport(1, &root, &[&a, &below.certificate]);
    let b = files.transport(2, &root, &[&b]);
    let node = |seed, transport| TransportNode::new(identity(seed).peer_id(), transport);
    in_time(testing::transport(&node(1, a), &node(2, b), any_port())).await;
}

#[tokio::test]
async fn a_bad_certificate_is_refused_with_what_is_wrong() {
    let (files, root, other) = (Files::new(), Authority::root(), Authority::root());
    let server = files.transport(2, &root, &[&root.plain(&identity(2))]);
    let mut listener = server.listen(any_port()).await.unwrap();
    let address = listener.local_addr();
    let me = identity(1);
    let below = root.intermediate(BasicConstraints::Constrained(0));
    let too_deep = below.intermediate(BasicConstraints::Unconstrained);
    let dated = |from, to| {
        root.certify(&me, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
    };
    let for_servers = root.certify(&me, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let by = |authority: &Authority, others: &[&Authority]| {
        let others = others.iter().map(|other| other.certificate.clone());
        [authority.plain(&me)].into_iter().chain(others).collect::<Vec<_>>()
    };
    let chain =
        |certificates: Vec<CertificateDer<'static>>| Certificate::Chain(me.clone(), certificates);
    let padded = vec![&other; 4];
    for (why, certificate) in [
        ("UnknownIssuer", Certificate::Of(me.clone())),
        ("UnknownIssuer", chain(by(&other, &[]))),
        ("UnknownIssuer", chain(by(&other, &[&other]))),
        ("UnknownIssuer", chain(by(&below, &[]))),
        ("Expired", chain(vec![dated(2020, 2021)])),
        ("NotValidYet", chain(vec![dated(2200, 2201)])),
        ("InvalidPurpose", chain(vec![for_servers])),
        ("PathLenConstraintViolated", chain(by(&too_deep, &[&too_deep, &below]))),
        ("more than 4 certificates", chain(by(&root, &padded))),
    ] {
        let client = async {
            // With TLS 1.3 a client learns of it by its first read.
            if let Ok(mut stream) = tls(address, &certificate, b"h2").await {
                let read = stream.read(&mut [0; 256]).await;
                assert!(!matches!(read, Ok(1..)), "{why}: the server said something");
            }
        };
        let (accepted, ()) = in_time(join(listener.accept(), client)).await;
        let Accepted::Failed { error, .. } = accepted else { panic!("{why}: let in") };
        assert_eq!(error.kind, FailureKind::Identity, "{error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    let client = files.transport(1, &root, &[&root.plain(&me)]);
    let endpoint = Endpoint::from(address);
    let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
    let (dialled, accepted) = in_time(join(dial, TransportNode::accept(&mut listener))).await;
    let dialled = dialled.unwrap();
    assert!(dialled.certified && accepted.certified);
    assert!(dialled.binding.is_some() && dialled.binding == accepted.binding);
    in_time(TransportNode::assert_open(dialled, accepted)).await;
}

#[tokio::test]
async fn a_listener_of_another_ca_is_refused_by_who_dials() {
    let (ours, theirs) = ((Files::new(), Authority::root()), (Files::new(), Authority::root()));
    let client = ours.0.transport(1, &ours.1, &[&ours.1.plain(&identity(1))]);
    let stranger = GrpcTransport::new(identity(2), GrpcOptions::default()).unwrap();
    let other = theirs.0.transport(2, &theirs.1, &[&theirs.1.plain(&identity(2))]);
    for server in [stranger, other] {
        let mut listener = server.listen(any_port()).await.unwrap();
        let endpoint = Endpoint::from(listener.local_addr());
        let dial = client.dial(&endpoint, None);
        let (dialled, accepted) = in_time(join(dial, listener.accept())).await;
        let error = dialled.unwrap_err();
        assert_eq!(error.kind, FailureKind::Identity, "{error}");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        assert!(matches!(accepted, Accepted::Failed { .. }), "{accepted:?}");
    }
}

#[tokio::test]
async fn without_a_ca_links_are_bound_and_not_certified() {
    let node = |seed| GrpcTransport::new(identity(seed), GrpcOptions::default()).unwrap();
    let mut listener = node(2).listen(any_port()).await.unwrap();
    let endpoint = Endpoint::from(listener.local_addr());
    let client = node(1);
    let mut bindings = Vec::new();
    for _ in 0..2 {
        let dial = client.dial(&endpoint, None);
        let (dialled, accepted) = in_time(join(dial, TransportNode::accept(&mut listener))).await;
        let dialled = dialled.unwrap();
        assert!(!dialled.certified && !accepted.certified);
        assert_eq!(dialled.binding, accepted.binding);
        bindings.push(dialled.binding.unwrap());
    }
    assert_ne!(bindings[0], bindings[1], "each session has its own");
}

#[tokio::test]
async fn own_files_that_nobody_would_accept_are_refused_at_the_start() {
    let (files, root, other) = (Files::new(), Authority::root(), Authority::root());
    let me = identity(1);
    let start = |options: GrpcOptions| {
        let error = GrpcTransport::new(me.clone(), options).unwrap_err();
        assert_eq!(error.kind, FailureKind::Local, "{error}");
        error.to_string()
    };
    let good = root.plain(&me);
    let past = root.certify(&me, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let for_servers = root.certify(&me, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    for (why, chain) in [
        ("UnknownIssuer", vec![other.plain(&me)]),
        ("CertExpired", vec![past]),
        ("RequiredEkuNotFound", vec![for_servers]),
        ("not for the key", vec![root.plain(&identity(9))]),
        ("0 certificates", vec![]),
        ("5 certificates", vec![good.clone(); 5]),
    ] {
        let chain: Vec<_> = chain.iter().collect();
        let error = start(files.options(&root, &chain));
        assert!(error.contains(why), "{why}: {error}");
    }
    let mut options = files.options(&root, &[&good]);
    options.ca_file = Some(files.0.path().join("missing.pem"));
    assert!(start(options.clone()).contains("missing.pem"));
    options.ca_file = None;
    assert!(start(options).contains("go together"));
    let mut options = files.options(&root, &[&good]);
    options.plaintext = true;
    assert!(start(options).contains("plaintext"));
}
