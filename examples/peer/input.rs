//! What comes in: one JSON object a line.
//!
//! A line is read as the raw text of its fields. The `ref` stays that text and is echoed as it came,
//! whatever number, nesting or escape is in it; the other fields are parsed for their operation, where
//! a field that the operation does not know is an error and nesting is bounded.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::value::MapDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sorcha_peer::{PeerId, TransactionId};
use tokio::sync::mpsc;

/// Maximum number of bytes of a line; larger payloads go in by `file`.
const MAX_LINE: usize = 64 << 20;
/// Maximum number of fields of a line, beside its `ref`.
const MAX_FIELDS: usize = 32;
/// Maximum number of requests read ahead.
const READ_AHEAD: usize = 64;

/// The `ref` of a request as JSON text, or none. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ref(Option<Arc<RawValue>>);

impl Ref {
    /// The `ref` of what answers no request; `null`.
    pub(crate) const NONE: Self = Self(None);
}

impl Serialize for Ref {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_deref().serialize(serializer)
    }
}

/// One line, understood or not.
#[derive(Debug)]
pub(crate) struct Request {
    /// Echoed by the answer.
    pub(crate) r#ref: Ref,
    /// Bytes of the line.
    pub(crate) size: usize,
    /// Operation to carry out, or what is wrong with the line.
    pub(crate) op: Result<Op, String>,
}

/// Every operation of the contract.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Op {
    Publish(Publish),
    PublishRandom {
        topic: String,
        size: usize,
        count: u64,
    },
    // With braces, since serde denies no fields to a variant without.
    Stats {},
    Reachability {},
    Peers {},
    Metrics {},
    Invite {},
    Connect {
        address: String,
    },
    Disconnect {
        peer: PeerId,
    },
    Ban {
        peer: PeerId,
        #[serde(default)]
        reason: String,
    },
    Unban {
        peer: PeerId,
    },
    TestPeer {
        peer: PeerId,
    },
    ResetBreaker {
        peer: PeerId,
    },
    Explain {
        id: TransactionId,
        #[serde(default)]
        across: bool,
    },
    Request(Ask),
    DeadLetters {
        after: Option<u64>,
        #[serde(default = "page")]
        limit: usize,
    },
    Redeliver {
        id: TransactionId,
    },
    DeleteDeadLetter {
        id: TransactionId,
    },
    Shutdown {},
}

/// Dead letters in one answer where no other limit is given.
fn page() -> usize {
    1000
}

/// A transaction to publish.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Draft")]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Payload,
    pub(crate) traceparent: Option<String>,
}

/// Place of a payload.
#[derive(Debug)]
pub(crate) enum Payload {
    Here(Bytes),
    File(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    topic: String,
    text: Option<String>,
    base64: Option<String>,
    file: Option<PathBuf>,
    traceparent: Option<String>,
}

impl TryFrom<Draft> for Publish {
    type Error = String;

    fn try_from(draft: Draft) -> Result<Self, Self::Error> {
        let payload = match (draft.text, draft.base64, draft.file) {
            (Some(text), None, None) => Payload::Here(text.into()),
            (None, Some(text), None) => Payload::Here(decode(&text)?),
            (None, None, Some(path)) => Payload::File(path),
            _ => return Err("exactly one of text, base64 and file is needed".to_owned()),
        };
        Ok(Self { topic: draft.topic, payload, traceparent: draft.traceparent })
    }
}

/// A request to one peer.
#[derive(Debug, Deserialize)]
#[serde(try_from = "AskDraft")]
pub(crate) struct Ask {
    pub(crate) peer: PeerId,
    pub(crate) protocol: String,
    pub(crate) body: Bytes,
    pub(crate) time: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskDraft {
    peer: PeerId,
    protocol: String,
    text: Option<String>,
    base64: Option<String>,
    timeout_ms: Option<u64>,
}

impl TryFrom<AskDraft> for Ask {
    type Error = String;

    fn try_from(draft: AskDraft) -> Result<Self, Self::Error> {
        let body = match (draft.text, draft.base64) {
            (Some(text), None) => text.into(),
            (None, Some(text)) => decode(&text)?,
            _ => return Err("exactly one of text and base64 is needed".to_owned()),
        };
        let time = draft.timeout_ms.map(Duration::from_millis);
        Ok(Self { peer: draft.peer, protocol: draft.protocol, body, time })
    }
}

fn decode(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("base64: {error}"))
}

/// Reads stdin on a thread of its own, which nobody has to wait for when the program ends.
pub(crate) fn read_stdin() -> mpsc::Receiver<Request> {
    let (requests, queue) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let request = match read_request(&mut stdin) {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "cannot read stdin"),
            };
            if requests.blocking_send(request).is_err() {
                return;
            }
        }
    });
    queue
}

/// The next request; `None` at the end of input.
fn read_request(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > MAX_LINE && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        let op = Err(format!("the line is longer than {MAX_LINE} bytes"));
        return Ok(Some(Request { r#ref: Ref::NONE, size: 0, op }));
    }
    Ok(Some(parse(&line)))
}

fn parse(line: &[u8]) -> Request {
    let size = line.len();
    let fields = match serde_json::from_slice::<Fields<'_>>(line) {
        Ok(fields) => fields,
        Err(error) => {
            let what = if error.is_data() { "not a request" } else { "not JSON" };
            return Request { r#ref: Ref::NONE, size, op: Err(format!("{what}: {error}")) };
        }
    };
    Request { op: fields.op(), r#ref: fields.r#ref, size }
}

/// The fields of a line, none of them parsed.
#[derive(Default)]
struct Fields<'a> {
    r#ref: Ref,
    others: Vec<(String, &'a RawValue)>,
    /// There are more than are kept.
    too_many: bool,
}

impl Fields<'_> {
    fn op(&self) -> Result<Op, String> {
        if self.too_many {
            return Err(format!("more than {MAX_FIELDS} fields"));
        }
        let fields = self.others.iter().map(|(name, value)| (name.as_str(), *value));
        Op::deserialize(MapDeserializer::<_, serde_json::Error>::new(fields))
            .map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<&RawValue>()?;
            if name == "ref" {
                fields.r#ref = Ref(Some(value.to_owned().into()));
            } else if fields.others.len() < MAX_FIELDS {
                fields.others.push((name, value));
            } else {
                fields.too_many = true;
            }
        }
        Ok(fields)
    }
}
