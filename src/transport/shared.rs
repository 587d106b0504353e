//! What dialling and accepting have in common, whatever the transport.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::GrpcOptions;
use super::exchange::Sessions;
use super::outer::OuterTls;
use super::port::{Guests, ShunnedHosts};
use super::tcp::Routes;
use super::tls::TlsIdentity;
use crate::config::Proxy;
use crate::error::{FailureKind, TransportError};
use crate::identity::Identity;
use crate::types::{PeerId, TransportKind};

/// The tracing target of all transports.
pub(super) const TARGET: &str = "sorcha_peer::transport";

/// State that dials, listeners and links of a transport share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) options: GrpcOptions,
    pub(super) security: Security,
    pub(super) outer: OuterTls,
    pub(super) shunned: ShunnedHosts,
    /// The rung that listens, while it does: it does so for all.
    pub(super) listening: Mutex<Weak<TransportKind>>,
    pub(super) routes: Routes,
    /// Sessions of exchanges that listeners serve, whichever port their requests come to.
    pub(super) sessions: Arc<Sessions>,
    /// Who answers what is nothing of a link.
    pub(super) guests: Guests,
}

impl Shared {
    /// # Errors
    /// `Local` when the cryptographic library refuses, or a file cannot be used.
    pub(super) fn new(identity: Identity, options: GrpcOptions) -> Result<Self, TransportError> {
        let certified = certified(&options)?;
        let security = if options.plaintext {
            tracing::warn!(
                target: TARGET,
                peer = %identity.peer_id(),
                "plaintext: peers are whoever they claim to be"
            );
            Security::Plaintext
        } else {
            Security::Tls(Box::new(TlsIdentity::new(&identity, certified, &options)?))
        };
        let outer = OuterTls::new()?;
        let routes = Routes { proxy: proxy(&options)?, ..Routes::default() };
        let (shunned, listening) = (ShunnedHosts::default(), Mutex::default());
        let (sessions, guests) = (Arc::default(), Guests::default());
        Ok(Self {
            identity,
            options,
            security,
            outer,
            shunned,
            listening,
            routes,
            sessions,
            guests,
        })
    }

    /// Notes that a rung listens, for as long as what is returned lives.
    ///
    /// # Errors
    /// `Unsupported` where another does, since that one does it for all.
    pub(super) fn listen(&self, rung: TransportKind) -> Result<Arc<TransportKind>, TransportError> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = listening.upgrade()
            && *other != rung
        {
            let message = format!("the port of {other} is that of {rung}, too");
            return Err(TransportError::new(FailureKind::Unsupported, message));
        }
        let ours = Arc::new(rung);
        *listening = Arc::downgrade(&ours);
        Ok(ours)
    }
}

/// Way in which the other side is known.
#[derive(Debug)]
pub(super) enum Security {
    /// Known by the key that its handshake proved.
    Tls(Box<TlsIdentity>),
    /// Known by what the peer says.
    Plaintext,
}

/// Takes a peer at its word, where nothing proves it.
///
/// # Errors
/// `Protocol` without a word, `Identity` where somebody else is expected.
pub(super) fn check_claim(
    claim: Option<PeerId>,
    expected: Option<PeerId>,
) -> Result<PeerId, TransportError> {
    let Some(claim) = claim else {
        let message = "the remote states no peer id";
        return Err(TransportError::new(FailureKind::Protocol, message));
    };
    match expected {
        Some(expected) if expected != claim => {
            let message = format!("expected peer {expected}, found {claim}");
            Err(TransportError::new(FailureKind::Identity, message))
        }
        _ => Ok(claim),
    }
}

/// The files of CA and certificates, where there are both.
fn certified(options: &GrpcOptions) -> Result<Option<(&Path, &Path)>, TransportError> {
    let why = match (&options.ca_file, &options.certificate_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) if options.plaintext => "certificates cannot be shown in plaintext",
        (Some(ca), Some(certificate)) => return Ok(Some((ca, certificate))),
        _ => "a CA and the certificate of this node go together",
    };
    Err(TransportError::new(FailureKind::Local, why))
}

/// The proxy that peers are dialled through, where there is one.
fn proxy(options: &GrpcOptions) -> Result<Option<Proxy>, TransportError> {
    let read = |url: &String| Proxy::new(url, &options.no_proxy);
    options
        .proxy
        .as_ref()
        .map(read)
        .transpose()
        .map_err(|error| TransportError::new(FailureKind::Local, error.to_string()))
}
