//! The certificate that whoever is no peer is shown: one that everybody can read.
//!
//! Contract: that of the host, with a key of any kind that ring signs with, or else one that is
//! made at the start: ECDSA P-256, which all TLS clients know, with the names and addresses of the
//! node as subject alternative names. Peers are never shown it, and never accept it: see
//! [`super::tls`].
//!
//! Tested by: the tests below, `tests/transport/certificates.rs`.

use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::GrpcOptions;
use super::ca;
use crate::error::{FailureKind, TransportError};

/// Maximum number of certificates in a file of the host.
const MAX_CHAIN: usize = 8;
/// Names that every node has: a fixed one for clients that know no other, and those on its own machine.
const ALWAYS: [&str; 4] = ["sorcha-peer", "localhost", "127.0.0.1", "::1"];

/// Reads or makes the certificate.
///
/// # Errors
/// `Local` when a file cannot be used, or the two do not belong together.
pub(super) fn certificate(
    options: &GrpcOptions,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TransportError> {
    match (&options.guest_certificate_file, &options.guest_key_file) {
        (Some(certificate), Some(key)) => load(certificate, key, provider),
        (None, None) => {
            let made = make(&options.guest_names);
            let (certificate, key) = made.map_err(|source| {
                TransportError::with_source(FailureKind::Local, "cannot set up TLS", source)
            })?;
            certified(vec![certificate], key, provider)
        }
        _ => {
            let message = "a certificate for guests and its key go together";
            Err(TransportError::new(FailureKind::Local, message))
        }
    }
}

fn load(
    certificate_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TransportError> {
    let chain = ca::read(certificate_file, MAX_CHAIN)?;
    let unusable = |what: &str, source| {
        let message = format!("{what} {}", key_file.display());
        TransportError::with_source(FailureKind::Local, message, source)
    };
    let key = PrivateKeyDer::from_pem_file(key_file);
    let key = key.map_err(|source| {
        let message = format!("cannot read a private key in {}", key_file.display());
        TransportError::with_source(FailureKind::Local, message, source)
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider);
    certified.map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => {
            let what = format!("{} is not for the key in", certificate_file.display());
            unusable(&what, source)
        }
        source => unusable("cannot use the key in", source),
    })
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TransportError> {
    CertifiedKey::from_der(chain, key, provider).map_err(|source| {
        TransportError::with_source(FailureKind::Local, "cannot set up TLS", source)
    })
}

/// Makes a certificate for these names and addresses.
fn make(
    names: &[String],
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let mut all: Vec<String> = ALWAYS.map(str::to_owned).to_vec();
    for name in names {
        // A name that no certificate can hold is left out.
        let is_new = !all.contains(name) && CertificateParams::new([name.clone()]).is_ok();
        if is_new {
            all.push(name.clone());
        }
    }
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "sorcha-peer");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
    Ok((params.self_signed(&pair)?.der().clone(), key.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use base64::Engine as _;

    use super::*;

    fn provider() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    fn options(certificate: &Path, key: &Path) -> GrpcOptions {
        GrpcOptions {
            guest_certificate_file: Some(certificate.to_owned()),
            guest_key_file: Some(key.to_owned()),
            ..GrpcOptions::default()
        }
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    /// Files with a certificate and its key.
    fn files(dir: &Path, name: &str, kind: &'static rcgen::SignatureAlgorithm) -> [PathBuf; 2] {
        let pair = KeyPair::generate_for(kind).unwrap();
        let params = CertificateParams::new(["peer.example.com".to_owned()]).unwrap();
        let [certificate, key] = ["pem", "key"].map(|end| dir.join(format!("{name}.{end}")));
        let made = params.self_signed(&pair).unwrap();
        fs::write(&certificate, pem("CERTIFICATE", made.der())).unwrap();
        fs::write(&key, pem("PRIVATE KEY", &pair.serialize_der())).unwrap();
        [certificate, key]
    }

    #[test]
    fn a_pair_of_any_kind_is_taken_and_anything_else_says_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [
            ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
            ("ed25519", &rcgen::PKCS_ED25519),
        ];
        let pairs = kinds.map(|(name, kind)| files(dir.path(), name, kind));
        for [certificate, key] in &pairs {
            certificate_of(certificate, key).unwrap();
        }
        let [[certificate, key], [other, _], _] = &pairs;
        let missing = dir.path().join("missing");
        let nothing = dir.path().join("nothing");
        fs::write(&nothing, "no PEM").unwrap();
        for (certificate, key, wanted) in [
            (&missing, key, "missing"),
            (certificate, &missing, "missing"),
            (&nothing, key, "nothing"),
            (certificate, &nothing, "nothing"),
            (certificate, certificate, "private key"),
            (other, key, "p384.pem is not for the key in"),
        ] {
            let error = certificate_of(certificate, key).unwrap_err();
            assert_eq!(error.kind, FailureKind::Local);
            assert!(error.to_string().contains(wanted), "{error}");
        }
        let mut half = options(certificate, key);
        half.guest_key_file = None;
        assert!(super::certificate(&half, &provider()).is_err());
    }

    fn certificate_of(certificate: &Path, key: &Path) -> Result<CertifiedKey, TransportError> {
        super::certificate(&options(certificate, key), &provider())
    }

    #[test]
    fn a_made_one_leaves_out_what_it_cannot_hold() {
        let names = ["peer.example.com", "localhost", "ü.example", "192.0.2.1", "2001:db8::1"];
        make(&names.map(str::to_owned)).unwrap();
    }
}
