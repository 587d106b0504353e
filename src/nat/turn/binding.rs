//! Binding of a new TCP connection to one that a peer has with the relay (RFC 6062, section 4.3).
//!
//! Contract: no I/O. One request is answered by one message; after the last, which says [`Step::Bound`], every
//! byte of the connection is the peer's. A server that tells nonces of one connection from those of another asks
//! for a second request, and no server gets more than four.
//!
//! Tested by: `super::tests`.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use stun_codec::MessageClass;

use super::codec::{self, Challenge, Id, Method};
use super::fault::Fault;
use crate::config::RelayServer;
use crate::error::FailureKind;

/// Maximum number of requests.
const MAX_ASKED: u8 = 4;

/// What follows an answer.
#[derive(Debug)]
pub(super) enum Step {
    /// Ask again.
    Ask(Vec<u8>),
    /// The connection is the peer's.
    Bound,
}

#[derive(Debug)]
pub(crate) struct Binding {
    server: RelayServer,
    challenge: Option<Challenge>,
    connection: u32,
    rng: ChaCha8Rng,
    id: Id,
    asked: u8,
}

impl Binding {
    pub(super) fn new(
        server: RelayServer,
        challenge: Challenge,
        connection: u32,
        seed: [u8; 32],
    ) -> Self {
        let rng = ChaCha8Rng::from_seed(seed);
        let challenge = Some(challenge);
        Self { server, challenge, connection, rng, id: Id::default(), asked: 0 }
    }

    /// The next request.
    ///
    /// # Errors
    /// `Local`: it cannot be said.
    pub(super) fn request(&mut self) -> Result<Vec<u8>, Fault> {
        self.asked += 1;
        self.rng.fill_bytes(&mut self.id);
        let attributes = vec![codec::connection(self.connection)];
        let challenge = self.challenge.as_ref();
        codec::request(Method::ConnectionBind, self.id, attributes, &self.server, challenge)
    }

    /// Takes the answer to the last request.
    ///
    /// # Errors
    /// Why the connection is of no use.
    pub(super) fn on_message(&mut self, bytes: &[u8]) -> Result<Step, Fault> {
        let received = codec::decode(bytes)?;
        if received.method != Some(Method::ConnectionBind) || received.id != self.id {
            let why = "the relay answers something else than it was asked";
            return Err(Fault::new(FailureKind::Protocol, why));
        }
        match received.class {
            MessageClass::SuccessResponse => {
                let challenge = self.challenge.as_ref();
                if challenge.is_some_and(|known| received.is_proven(&self.server, known)) {
                    return Ok(Step::Bound);
                }
                let why = "an answer of the relay is not proven with the account's password";
                Err(Fault::new(FailureKind::Identity, why))
            }
            MessageClass::ErrorResponse => {
                let code = received.error.as_ref().map(|(code, _)| *code);
                let is_challenge = matches!(code, Some(401 | 438)) && self.asked < MAX_ASKED;
                if is_challenge && Challenge::learn(&mut self.challenge, &received) {
                    return self.request().map(Step::Ask);
                }
                Err(Fault::answered("for a connection", received.error.as_ref()))
            }
            MessageClass::Request | MessageClass::Indication => {
                Err(Fault::new(FailureKind::Protocol, "the relay asks instead of answering"))
            }
        }
    }
}
