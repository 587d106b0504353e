//! HTTP clients without manners of their own: what is asked is sent as it stands.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::soon;

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, headers: &[], body: b"" }
    }

    pub(crate) fn get(path: &'a str) -> Self {
        Self::new("GET", path)
    }

    /// A body of JSON.
    pub(crate) fn json(path: &'a str, body: &'a str) -> Self {
        let headers = &[("content-type", "application/json")];
        Self { headers, body: body.as_bytes(), ..Self::new("POST", path) }
    }

    pub(crate) fn with(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { headers, ..self }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The detail of a whole problem document.
    pub(crate) fn problem(&self, path: &str) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        assert_eq!(document["instance"], path.split('?').next().unwrap());
        assert!(document["type"].is_string() && document["title"].is_string(), "{document}");
        document["detail"].as_str().unwrap().to_owned()
    }
}

/// Versions of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

pub(crate) const BOTH: [Http; 2] = [Http::One, Http::Two];

pub(crate) async fn ask(http: Http, server: SocketAddr, ask: Ask<'_>) -> Answer {
    let asked = async {
        match http {
            Http::One => ask_http1(server, ask).await,
            Http::Two => ask_http2(server, ask).await,
        }
    };
    soon(&format!("{http:?} {ask:?}"), asked).await
}

/// Says this on a connection of its own, and returns all that is answered.
pub(crate) async fn say(server: SocketAddr, words: &[u8]) -> Vec<u8> {
    hear(&mut TcpStream::connect(server).await.unwrap(), words).await
}

/// Says this and that there is no more.
pub(crate) async fn break_off(server: SocketAddr, words: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(words).await.unwrap();
    stream.shutdown().await.unwrap();
    hear(&mut stream, b"").await
}

async fn hear(stream: &mut TcpStream, words: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // Whoever refuses may close while there is more to say.
    let _ = stream.write_all(words).await;
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    answer
}

async fn ask_http1(server: SocketAddr, ask: Ask<'_>) -> Answer {
    let Ask { method, path, headers, body } = ask;
    let mut words = format!("{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(words, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() {
        write!(words, "content-length: {}\r\n", body.len()).unwrap();
    }
    let words = [words.as_bytes(), b"\r\n", body].concat();
    parse(&say(server, &words).await, method)
}

/// Parses the only answer on a connection.
pub(crate) fn parse(bytes: &[u8], method: &str) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, _) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let body = Bytes::copy_from_slice(&bytes[head.len() + 4..]);
    if method != "HEAD" && status != 304 && status != 204 {
        let len = headers.get("content-length").expect("a length");
        assert_eq!(len.to_str().unwrap(), body.len().to_string());
    }
    Answer { status, headers, body }
}

async fn ask_http2(server: SocketAddr, ask: Ask<'_>) -> Answer {
    let stream = TcpStream::connect(server).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(connection);
    let mut request =
        Request::builder().method(ask.method).uri(format!("http://{server}{}", ask.path));
    for (name, value) in ask.headers {
        request = request.header(*name, *value);
    }
    let mut client = client.ready().await.unwrap();
    let is_empty = ask.body.is_empty();
    let (answer, mut sending) = client.send_request(request.body(()).unwrap(), is_empty).unwrap();
    if !is_empty {
        // Whoever refuses may reset while there is more to say.
        let _ = sending.send_data(Bytes::copy_from_slice(ask.body), true);
    }
    let (head, mut body) = answer.await.unwrap().into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    Answer { status: head.status.as_u16(), headers: head.headers, body: bytes.into() }
}
