//! A TURN server that knows what a client of TCP allocations asks.

use std::net::SocketAddr;

use stun_codec::MessageClass;
use stun_codec::rfc5389::attributes::ErrorCode;
use stun_codec::rfc5766::attributes::{Lifetime, XorRelayAddress};

use super::super::codec::{self, Attribute, Challenge, Id, Method, Received};
use crate::config::RelayServer;

/// Address that it gives.
const RELAYED: &str = "203.0.113.5:50000";
/// Connection that it binds.
const CONNECTION: u32 = 7;

pub(super) fn relayed() -> SocketAddr {
    RELAYED.parse().unwrap()
}

pub(super) fn server(address: SocketAddr) -> RelayServer {
    RelayServer::new(&format!("turn:alice:s3cret@{address}")).unwrap()
}

/// State of the server towards one client.
#[derive(Debug, Clone)]
pub(super) struct Fake {
    pub(super) account: RelayServer,
    pub(super) challenge: Challenge,
    /// Lifetime of allocations in seconds.
    pub(super) lifetime: u32,
    pub(super) relayed: SocketAddr,
    /// Method that is refused, and with what.
    pub(super) refused: Option<(Method, u16)>,
    /// What was asked, by whoever proved the account.
    pub(super) asked: Vec<(Method, Option<SocketAddr>)>,
}

impl Fake {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            account: server(address),
            challenge: Challenge::new("example.org", "nonce"),
            lifetime: 600,
            relayed: relayed(),
            refused: None,
            asked: Vec::new(),
        }
    }

    pub(super) fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let request = codec::decode(request).unwrap();
        assert_eq!(request.class, MessageClass::Request);
        let method = request.method.unwrap();
        if method == Method::Binding {
            return self.encode(
                MessageClass::SuccessResponse,
                method,
                request.id,
                Vec::new(),
                false,
            );
        }
        if !request.is_proven(&self.account, &self.challenge) {
            return self.challenged(401, &request);
        }
        if !self.challenge.is_answered(&request) {
            return self.challenged(438, &request);
        }
        self.asked.push((method, request.peer));
        if let Some((refused, code)) = self.refused
            && refused == method
        {
            let error = vec![error(code)];
            return self.encode(MessageClass::ErrorResponse, method, request.id, error, true);
        }
        let attributes = match method {
            Method::Allocate => {
                vec![
                    XorRelayAddress::new(self.relayed).into(),
                    Lifetime::from_u32(self.lifetime).into(),
                ]
            }
            Method::Refresh => vec![Lifetime::from_u32(self.lifetime).into()],
            Method::Connect => vec![codec::connection(CONNECTION)],
            Method::ConnectionBind => {
                assert_eq!(request.connection, Some(CONNECTION));
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.encode(MessageClass::SuccessResponse, method, request.id, attributes, true)
    }

    fn challenged(&self, code: u16, request: &Received) -> Vec<u8> {
        let [realm, nonce] = self.challenge.attributes();
        let attributes = vec![error(code), realm, nonce];
        let method = request.method.unwrap();
        self.encode(MessageClass::ErrorResponse, method, request.id, attributes, false)
    }

    pub(super) fn encode(
        &self,
        class: MessageClass,
        method: Method,
        id: Id,
        attributes: Vec<Attribute>,
        is_proven: bool,
    ) -> Vec<u8> {
        let challenge = is_proven.then_some(&self.challenge);
        codec::encode(class, method, id, attributes, &self.account, challenge).unwrap()
    }

    /// News of a peer that has connected.
    pub(super) fn attempt(&self, class: MessageClass, peer: SocketAddr) -> Vec<u8> {
        let attributes = vec![codec::connection(CONNECTION), codec::peer(peer)];
        self.encode(class, Method::ConnectionAttempt, [9; 12], attributes, false)
    }
}

pub(super) fn error(code: u16) -> Attribute {
    ErrorCode::new(code, "Because".to_owned()).unwrap().into()
}

/// Adds an attribute to a message, at its end.
pub(super) fn append(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = u16::try_from(message.len() - codec::HEADER_BYTES).unwrap();
    message[2..4].copy_from_slice(&length.to_be_bytes());
}
