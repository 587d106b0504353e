//! Paths about peers: who is there, and what they say.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::json::{Fields, refused, text_of};
use super::problem::Problem;
use super::text::Query;
use super::{Call, respond_json};
use crate::compat::ops::discovery::{ADDRESS_IN_USE, ID_IN_USE, LIST_FULL};
use crate::wire::generated::communication::{MessageType, PeerMessage};
use crate::wire::generated::discovery::{
    PeerInfo, PeerListRequest, PeerStatus, PingRequest, RegisterPeerRequest,
};

/// Version of this library, as clients are told.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Call {
    pub(super) async fn list(&self, query: &Query) -> Result<Response<Bytes>, Problem> {
        let request = PeerListRequest {
            requesting_peer_id: query.text("requestingPeerId")?.unwrap_or_default().to_owned(),
            max_peers: query.number("maxPeers")?.unwrap_or_default(),
        };
        let listed = self.ops.peer_list(&self.visitor, request).await?;
        let peers: Vec<Value> = listed.peers.iter().map(shown).collect();
        Ok(respond_json(StatusCode::OK, &peers.into()))
    }

    pub(super) async fn register(&self, body: &[u8]) -> Result<Response<Bytes>, Problem> {
        let fields = Fields::of(body, &["peerId", "address", "port", "supportedProtocols"])?;
        let peer = PeerInfo {
            peer_id: fields.text("peerId")?.to_owned(),
            address: fields.text("address")?.to_owned(),
            port: fields.number("port")?,
            supported_protocols: fields.texts("supportedProtocols")?,
            ..PeerInfo::default()
        };
        let request = RegisterPeerRequest { peer_info: Some(peer) };
        let response = self.ops.register_peer(&self.visitor, request).await?;
        if response.success {
            let said = json!({ "success": true, "message": response.message });
            return Ok(respond_json(StatusCode::OK, &said));
        }
        Err(match response.message.as_str() {
            LIST_FULL => Problem::unavailable(response.message),
            ID_IN_USE | ADDRESS_IN_USE => Problem::new(StatusCode::CONFLICT, response.message),
            _ => Problem::invalid(response.message),
        })
    }

    pub(super) async fn ping_with(&self, body: &[u8]) -> Result<Response<Bytes>, Problem> {
        if body.is_empty() {
            return self.ping(None).await;
        }
        let fields = Fields::of(body, &["peerId", "timestamp"])?;
        fields.time("timestamp")?;
        self.ping(fields.optional_text("peerId")?).await
    }

    pub(super) async fn ping(&self, peer: Option<&str>) -> Result<Response<Bytes>, Problem> {
        let request = PingRequest { peer_id: peer.unwrap_or_default().to_owned() };
        let response = self.ops.ping(&self.visitor, request).await?;
        let status = match response.status() {
            PeerStatus::Unknown => "Unknown",
            PeerStatus::Online => "Online",
            PeerStatus::Offline => "Offline",
            PeerStatus::Busy => "Busy",
        };
        let said = json!({
            "peerId": response.peer_id,
            "alive": true,
            "timestamp": response.timestamp,
            "status": status,
            "version": VERSION,
        });
        Ok(respond_json(StatusCode::OK, &said))
    }

    /// Takes a message: as its fields say, or else the body itself.
    pub(super) async fn message(&self, body: Bytes) -> Result<Response<Bytes>, Problem> {
        let mut message = message_of(body, i64::try_from(self.ops.now().as_millis() / 1000))?;
        if message.sender_peer_id.is_empty() {
            // Clients of the original do not say who they are here.
            message.sender_peer_id = self.visitor.address.ip().to_string();
        }
        let ack = self.ops.send_message(&self.visitor, message).await?;
        if !ack.received {
            let detail = "Nobody here makes use of such messages";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        let said = json!({ "received": true, "timestamp": ack.timestamp });
        Ok(respond_json(StatusCode::OK, &said))
    }
}

/// Message of a body that may be any JSON.
fn message_of<E>(body: Bytes, now_s: Result<i64, E>) -> Result<PeerMessage, Problem> {
    const NAMES: &[&str] =
        &["senderPeerId", "recipientPeerId", "messageType", "payload", "timestamp"];
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text_of(&body)?) {
        return Err(refused(&error));
    }
    let now = PeerMessage { timestamp: now_s.unwrap_or_default(), ..PeerMessage::default() };
    if !body.trim_ascii_start().starts_with(b"{") {
        return Ok(PeerMessage { payload: body, ..now });
    }
    let fields = Fields::of(&body, NAMES)?;
    if fields.is_scalar("messageType") && fields.is_scalar("payload") {
        let id = |name| {
            let id = fields.optional_text(name);
            id.map(|id| id.unwrap_or_default().to_owned())
        };
        return Ok(PeerMessage {
            sender_peer_id: id("senderPeerId")?,
            recipient_peer_id: id("recipientPeerId")?,
            message_type: message_type(&fields)?,
            payload: fields.bytes("payload")?,
            timestamp: fields.time("timestamp")?,
        });
    }
    // Fields of these names may mean anything here.
    let id = |name| fields.optional_text(name).ok().flatten().unwrap_or_default().to_owned();
    let (sender_peer_id, recipient_peer_id) = (id("senderPeerId"), id("recipientPeerId"));
    Ok(PeerMessage { sender_peer_id, recipient_peer_id, payload: body.clone(), ..now })
}

/// Type of a message, by its number or its name, whatever the case.
fn message_type(fields: &Fields<'_>) -> Result<i32, Problem> {
    let Ok(Some(name)) = fields.optional_text("messageType") else {
        return fields.number("messageType");
    };
    let known = (0..=5).filter_map(|number| MessageType::try_from(number).ok());
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let mut known = known.filter(|known| plain(known.as_str_name()) == plain(name));
    let unknown = || Problem::invalid("The field messageType is no type of message");
    known.next().map(i32::from).ok_or_else(unknown)
}

/// Peer as lists show it.
pub(super) fn shown(peer: &PeerInfo) -> Value {
    json!({
        "peerId": peer.peer_id,
        "address": peer.address,
        "port": peer.port,
        "supportedProtocols": peer.supported_protocols,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Result<PeerMessage, String> {
        let message = message_of(Bytes::copy_from_slice(body.as_bytes()), Ok::<_, ()>(7));
        message.map_err(|problem| problem.detail.into_owned())
    }

    #[test]
    fn a_message_is_what_its_fields_say_or_the_body_itself() {
        let fields = r#"{"senderPeerId":"a","recipientPeerId":"b","messageType":4,"payload":"aGk=","timestamp":1}"#;
        let said = PeerMessage {
            sender_peer_id: "a".to_owned(),
            recipient_peer_id: "b".to_owned(),
            message_type: 4,
            payload: "hi".into(),
            timestamp: 1,
        };
        assert_eq!(message(fields).unwrap(), said);
        for name in ["PEER_STATUS_UPDATE", "PeerStatusUpdate", "peerStatusUpdate"] {
            let named = fields.replace('4', &format!("\"{name}\""));
            assert_eq!(message(&named).unwrap(), said, "{name}");
        }
        for body in [
            "1",
            " null",
            "[{}]",
            "\"hi\"",
            "{}",
            r#" {"senderPeerId":1}"#,
            r#"{"messageType":4,"payload":{"a":1}}"#,
            r#"{"payload":"hi","messageType":null}"#,
        ] {
            let message = message(body).unwrap();
            assert_eq!((&message.payload[..], message.timestamp), (body.as_bytes(), 7), "{body}");
            assert_eq!((message.message_type, message.sender_peer_id.as_str()), (0, ""));
        }
        assert_eq!(message(r#"{"senderPeerId":"me","x":1}"#).unwrap().sender_peer_id, "me");
        for (body, words) in [
            ("", "empty"),
            ("{", "too early"),
            (r#"{"messageType":4,"payload":"?"}"#, "payload"),
            (r#"{"messageType":4,"payload":7}"#, "payload"),
            (r#"{"messageType":"Nothing","payload":""}"#, "messageType"),
            (r#"{"messageType":2147483648,"payload":""}"#, "messageType"),
            (r#"{"messageType":4,"payload":"","senderPeerId":1}"#, "senderPeerId"),
        ] {
            let detail = message(body).unwrap_err();
            assert!(detail.contains(words), "{body}: {detail}");
        }
    }
}
