//! Certificates of a company's CA: who has one for its key is let in.
//!
//! Contract: a peer shows a certificate for the Ed25519 key that signs the handshake, and those between
//! it and one of the CAs. The path is checked as for any TLS client or server (RFC 5280): signatures,
//! dates, basic constraints, path length, and the extended key usage where a certificate names any.
//! Names are not looked at, since a peer is its key. There is no revocation: certificates should be
//! short-lived, and a ban by peer id holds at once.
//!
//! Tested by: `tests/transport/ca.rs`.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use webpki::{EndEntityCert, KeyUsage};

use crate::error::{FailureKind, TransportError};

/// Maximum number of certificates that a peer may show.
pub(super) const MAX_CHAIN: usize = 4;
/// Maximum number of CAs in a file.
const MAX_ROOTS: usize = 64;

/// Side that shows a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Dialler,
    Listener,
}

/// The CAs that are trusted, and the certificates of this node.
#[derive(Debug)]
pub(super) struct Ca {
    roots: Vec<TrustAnchor<'static>>,
    chain: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Ca {
    /// Reads both files.
    ///
    /// # Errors
    /// `Local` when a file cannot be read or holds no certificates, too many, or such as nobody who
    /// trusts these CAs would accept now.
    pub(super) fn load(
        ca_file: &Path,
        certificate_file: &Path,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, TransportError> {
        let roots = read(ca_file, MAX_ROOTS)?;
        let anchor = |root: &CertificateDer<'_>| {
            let anchor = webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned());
            anchor.map_err(|source| unusable(ca_file, "a certificate of a CA", source))
        };
        let roots = roots.iter().map(anchor).collect::<Result<_, _>>()?;
        let chain = read(certificate_file, MAX_CHAIN)?;
        let ca = Self { roots, chain, algorithms };
        if let Some((leaf, others)) = ca.chain.split_first() {
            for side in [Side::Dialler, Side::Listener] {
                ca.path(leaf, others, UnixTime::now(), side).map_err(|source| {
                    unusable(certificate_file, "what this CA certified", source)
                })?;
            }
        }
        Ok(ca)
    }

    /// The certificates to show, that of the own key first.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Checks the path from a peer's certificate to a CA.
    pub(super) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        side: Side,
    ) -> Result<(), Error> {
        if others.len() >= MAX_CHAIN {
            return Err(refused(format!("more than {MAX_CHAIN} certificates")));
        }
        self.path(leaf, others, now, side).map_err(refusal)
    }

    /// Finds a path from a certificate to a CA.
    fn path(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        side: Side,
    ) -> Result<(), webpki::Error> {
        let usage = match side {
            Side::Dialler => KeyUsage::client_auth(),
            Side::Listener => KeyUsage::server_auth(),
        };
        let leaf = EndEntityCert::try_from(leaf)?;
        leaf.verify_for_usage(self.algorithms.all, &self.roots, others, now, usage, None, None)
            .map(drop)
    }
}

/// The certificates in a PEM file, of which there is at least one.
///
/// # Errors
/// `Local` when it cannot be read, or holds none or more than `most`.
pub(super) fn read(
    path: &Path,
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let shown = path.display();
    let pem = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = pem.map_err(|source| {
        TransportError::with_source(FailureKind::Local, format!("cannot read {shown}"), source)
    })?;
    if found.is_empty() || found.len() > most {
        let message = format!("{shown} has {} certificates, allowed is 1 to {most}", found.len());
        return Err(TransportError::new(FailureKind::Local, message));
    }
    Ok(found)
}

fn unusable(
    path: &Path,
    what: &str,
    source: impl StdError + Send + Sync + 'static,
) -> TransportError {
    let message = format!("{} is not {what}", path.display());
    TransportError::with_source(FailureKind::Local, message, source)
}

pub(super) fn refused(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    let why: Box<dyn StdError + Send + Sync> = why.into();
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::from(why))))
}

/// The refusal that TLS has an alert of its own for, where there is one.
fn refusal(error: webpki::Error) -> Error {
    use webpki::Error as E;
    Error::InvalidCertificate(match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => return refused(other),
    })
}
