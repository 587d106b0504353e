//! What comes in: one JSON object a line.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use sorcha_peer::{PeerId, TransactionId};
use tokio::sync::mpsc;

/// Maximum number of bytes of a line; larger payloads go in by `file`.
const MAX_LINE: usize = 64 << 20;
/// Maximum number of requests read ahead.
const READ_AHEAD: usize = 64;

/// One line, understood or not.
#[derive(Debug)]
pub(crate) struct Request {
    /// Echoed by the answer; null where the line has none.
    pub(crate) r#ref: Value,
    /// Bytes of the line.
    pub(crate) size: usize,
    /// Operation to carry out, or what is wrong with the line.
    pub(crate) op: Result<Op, String>,
}

/// Every operation of the contract.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    Publish(Publish),
    PublishRandom {
        topic: String,
        size: usize,
        count: u64,
    },
    Stats,
    Peers,
    Explain {
        #[serde(rename = "id")]
        _id: TransactionId,
    },
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
    Shutdown,
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
}

/// Place of a payload.
#[derive(Debug)]
pub(crate) enum Payload {
    Here(Bytes),
    File(PathBuf),
}

#[derive(Deserialize)]
struct Draft {
    topic: String,
    text: Option<String>,
    base64: Option<String>,
    file: Option<PathBuf>,
}

impl TryFrom<Draft> for Publish {
    type Error = String;

    fn try_from(draft: Draft) -> Result<Self, Self::Error> {
        let payload = match (draft.text, draft.base64, draft.file) {
            (Some(text), None, None) => Payload::Here(text.into()),
            (None, Some(text), None) => {
                let decoded = STANDARD.decode(text).map_err(|error| format!("base64: {error}"))?;
                Payload::Here(decoded.into())
            }
            (None, None, Some(path)) => Payload::File(path),
            _ => return Err("exactly one of text, base64 and file is needed".to_owned()),
        };
        Ok(Self { topic: draft.topic, payload })
    }
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
        return Ok(Some(Request { r#ref: Value::Null, size: 0, op }));
    }
    Ok(Some(parse(&line)))
}

fn parse(line: &[u8]) -> Request {
    let size = line.len();
    let mut value = match serde_json::from_slice::<Value>(line) {
        Ok(value) => value,
        Err(error) => {
            let op = Err(format!("not JSON: {error}"));
            return Request { r#ref: Value::Null, size, op };
        }
    };
    let r#ref = value.as_object_mut().and_then(|o| o.remove("ref")).unwrap_or_default();
    let op = if value.is_object() {
        serde_json::from_value(value).map_err(|error| error.to_string())
    } else {
        Err("a line is one JSON object".to_owned())
    };
    Request { r#ref, size, op }
}
