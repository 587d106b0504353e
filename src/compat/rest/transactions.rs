//! Paths about transactions: publish, tell of, look up.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;
use tonic::body::Body;

use super::conditions::{Part, Validators, Verdict};
use super::json::Fields;
use super::negotiation::{MediaType, accepted};
use super::problem::Problem;
use super::text::Query;
use super::{Call, body, respond, respond_json};
use crate::wire::generated::transaction::TransactionNotification;

/// Media type of a payload.
const BYTES: &str = "application/octet-stream";
/// Maximum number of bytes of a payload that comes in JSON; a larger one comes as it is.
const MAX_PAYLOAD_IN_JSON: u64 = 16 * 1024 * 1024;
/// Number of bytes read that count as one that is sent.
const READ_PER_SENT: usize = 16;
/// Maximum number of bytes of JSON around a payload.
const AROUND_PAYLOAD: u64 = 64 * 1024;

impl Call {
    /// Publishes a body, or the payload inside JSON.
    pub(super) async fn publish(
        &mut self,
        query: &Query,
        head: &Parts,
        body: &mut Body,
    ) -> Result<Response<Bytes>, Problem> {
        let media_type = MediaType::of(&head.headers)?;
        let (topic, max) = (query.text("topic")?, self.ops.max_transaction_size());
        let (topic, payload) = if media_type == MediaType::Json {
            let in_base64 = max.min(MAX_PAYLOAD_IN_JSON).div_ceil(3) * 4;
            let limit = in_base64 + AROUND_PAYLOAD;
            let body = body::read(body, limit, |bytes| Ok(self.permit.grow(bytes)?)).await?;
            let fields = Fields::of(&body, &["topic", "payload"])?;
            let said = fields.optional_text("topic")?.filter(|said| !said.is_empty());
            if topic.is_some() && said.is_some() && topic != said {
                return Err(Problem::invalid("The query and the body say different topics"));
            }
            (said.or(topic).unwrap_or_default().to_owned(), fields.bytes("payload")?)
        } else {
            let body = body::read(body, max, |bytes| Ok(self.permit.grow(bytes)?)).await?;
            (topic.unwrap_or_default().to_owned(), body)
        };
        let id = self.ops.publish(&self.visitor, &topic, payload).await?.to_string();
        let mut reply = respond_json(StatusCode::CREATED, &json!({ "transactionId": id }));
        if let Ok(location) = HeaderValue::try_from(format!("/api/v1/transactions/{id}")) {
            reply.headers_mut().insert(LOCATION, location);
        }
        Ok(reply)
    }

    pub(super) async fn notify(&self, body: &[u8]) -> Result<Response<Bytes>, Problem> {
        let notification = notification_of(body)?;
        let ack = self.ops.notify(&self.visitor, notification).await?;
        let message = match (ack.already_known, ack.will_request) {
            (true, _) => "The transaction is known",
            (false, true) => "The transaction will be fetched",
            (false, false) => {
                "The transaction will not be fetched: its sender is not registered, or does not answer"
            }
        };
        let said = json!({
            "alreadyKnown": ack.already_known,
            "willRequest": ack.will_request,
            "accepted": ack.already_known || ack.will_request,
            "message": message,
        });
        Ok(respond_json(StatusCode::OK, &said))
    }

    pub(super) async fn transaction(
        &mut self,
        hash: &str,
        query: &Query,
        head: &Parts,
    ) -> Result<Response<Bytes>, Problem> {
        let topic = query.text("topic")?;
        accepted(&head.headers, BYTES)?;
        let found = self.ops.find(hash, topic).await?;
        let found = found.ok_or_else(|| Problem::not_found("The transaction is not here"))?;
        let validators = Validators::new(found.id.to_string(), found.created);
        let payload = found.payload;
        let len = payload.len();
        self.permit.hold(len as u64)?;
        let verdict = validators.judge(&head.method, &head.headers, len)?;
        let mut reply = match verdict {
            Verdict::NotModified => respond(StatusCode::NOT_MODIFIED, Bytes::new()),
            Verdict::Send(Part::Whole) => respond(StatusCode::OK, payload),
            Verdict::Send(Part::Bytes(range)) => {
                let said = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                let mut reply = respond(StatusCode::PARTIAL_CONTENT, payload.slice(range));
                if let Ok(said) = HeaderValue::try_from(said) {
                    reply.headers_mut().insert(CONTENT_RANGE, said);
                }
                reply
            }
        };
        // What is read and not sent has its price too.
        let sent = if head.method == Method::GET { reply.body().len() } else { 0 };
        self.permit.charge(sent.max(len / READ_PER_SENT) as u64)?;
        let is_content = reply.status() != StatusCode::NOT_MODIFIED;
        let headers = reply.headers_mut();
        headers.extend(validators.etag().map(|etag| (ETAG, etag)));
        headers.extend(validators.last_modified().map(|date| (LAST_MODIFIED, date)));
        // What a path leads to is named by its hash.
        let immutable = HeaderValue::from_static("max-age=31536000, immutable");
        headers.insert(CACHE_CONTROL, immutable);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if is_content {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(BYTES));
        }
        Ok(reply)
    }
}

/// Notification in the words of the services, or in those of the original's REST client.
fn notification_of(body: &[u8]) -> Result<TransactionNotification, Problem> {
    const NAMES: &[&str] = &[
        "transactionHash",
        "dataHash",
        "transactionId",
        "senderPeerId",
        "originPeerId",
        "transactionSize",
        "dataSize",
        "registerId",
        "topic",
        "timestamp",
    ];
    let fields = Fields::of(body, NAMES)?;
    let text = |names: &[&str]| {
        let text = fields.first_text(names)?;
        text.map(str::to_owned)
            .ok_or_else(|| Problem::invalid(format!("The field {} is missing", names[0])))
    };
    let size = match fields.optional_number("transactionSize")? {
        Some(size) => size,
        None => fields.optional_number("dataSize")?.unwrap_or_default(),
    };
    Ok(TransactionNotification {
        transaction_hash: text(&["transactionHash", "dataHash", "transactionId"])?,
        sender_peer_id: text(&["senderPeerId", "originPeerId"])?,
        timestamp: fields.time("timestamp")?,
        transaction_size: size,
        register_id: fields.first_text(&["registerId", "topic"])?.unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(body: &str) -> Result<TransactionNotification, String> {
        notification_of(body.as_bytes()).map_err(|problem| problem.detail.into_owned())
    }

    #[test]
    fn both_ways_of_telling_of_a_transaction_are_one() {
        let told = TransactionNotification {
            transaction_hash: "h".to_owned(),
            sender_peer_id: "me".to_owned(),
            timestamp: 5,
            transaction_size: 9,
            register_id: "t".to_owned(),
        };
        let ours = r#"{"transactionHash":"h","senderPeerId":"me","timestamp":5,"transactionSize":9,"registerId":"t"}"#;
        assert_eq!(notification(ours).unwrap(), told);
        let original = r#"{"transactionId":"x","originPeerId":"me","timestamp":"2025-11-05T10:00:00+00:00",
            "dataSize":9,"dataHash":"h","gossipRound":0,"hopCount":0,"ttl":3600}"#;
        let other = TransactionNotification { timestamp: 0, register_id: String::new(), ..told };
        assert_eq!(notification(original).unwrap(), other);
        let id_alone = r#"{"transactionId":"x","dataHash":"","senderPeerId":"me"}"#;
        assert_eq!(notification(id_alone).unwrap().transaction_hash, "x");
        for (body, words) in [
            ("{}", "transactionHash is missing"),
            (r#"{"transactionHash":"h"}"#, "senderPeerId is missing"),
            (r#"{"transactionHash":5,"senderPeerId":"me"}"#, "transactionHash has to be a text"),
            (r#"{"transactionHash":"h","senderPeerId":[]}"#, "senderPeerId has to be a text"),
            (
                r#"{"transactionHash":"h","senderPeerId":"me","transactionSize":"9"}"#,
                "transactionSize",
            ),
            (r#"{"transactionHash":"h","senderPeerId":"me","timestamp":{}}"#, "timestamp"),
            (r#"{"transactionHash":"h","senderPeerId":"me","topic":0}"#, "topic"),
        ] {
            let detail = notification(body).unwrap_err();
            assert!(detail.contains(words), "{body}: {detail}");
        }
    }
}
