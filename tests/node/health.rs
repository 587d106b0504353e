//! The standard health service of gRPC, on both ports of a node, as a client of another library sees it.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use crate::common::{soon, start_with, stop};

const GOSSIP: &str = "sorcha.peer.gossip.v1.PeerGossip";
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const SERVICE_UNKNOWN: u8 = 3;

/// A client over one connection in clear text.
struct Client(SendRequest<Bytes>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self(requests)
    }

    async fn call(&self, method: &str, message: Bytes) -> Answer {
        let path = format!("http://x/grpc.health.v1.Health/{method}");
        let request = Request::post(path).header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(()).unwrap();
        let mut requests = self.0.clone().ready().await.unwrap();
        let (response, mut out) = requests.send_request(request, false).unwrap();
        out.send_data(message, true).unwrap();
        let response = soon("an answer", response).await.unwrap();
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        Answer { head: head.headers, body, read: BytesMut::new() }
    }

    async fn check(&self, service: &str) -> Result<u8, String> {
        let mut answer = self.call("Check", about(service)).await;
        let status = answer.next().await;
        match answer.code().await.as_str() {
            "0" => Ok(status.expect("a message")),
            code => Err(code.to_owned()),
        }
    }
}

struct Answer {
    head: HeaderMap,
    body: RecvStream,
    read: BytesMut,
}

impl Answer {
    /// The status in the next message.
    async fn next(&mut self) -> Option<u8> {
        // A prefix of five bytes, then the one field.
        while self.read.len() < 7 {
            let data = soon("a message", self.body.data()).await?.unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.read.extend_from_slice(&data);
        }
        assert_eq!(self.read[..6], [0, 0, 0, 0, 2, 8]);
        let status = self.read[6];
        self.read.advance(7);
        Some(status)
    }

    async fn code(&mut self) -> String {
        let code = |headers: &HeaderMap| {
            headers.get("grpc-status").map(|code| code.to_str().unwrap().to_owned())
        };
        if let Some(code) = code(&self.head) {
            return code;
        }
        let trailers = soon("trailers", self.body.trailers()).await.unwrap();
        code(&trailers.expect("trailers")).expect("a status")
    }
}

/// Question about a service.
fn about(service: &str) -> Bytes {
    let length = u8::try_from(service.len()).unwrap();
    let field = [&[10, length], service.as_bytes()].concat();
    message(if service.is_empty() { b"" } else { &field })
}

fn message(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], bytes].concat().into()
}

#[tokio::test]
async fn whoever_asks_is_told_that_the_node_runs() {
    let node = start_with(|config| {
        config.network.plaintext = true;
        config.listen.http = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    for address in [node.listen_addr().unwrap(), node.http_addr().unwrap()] {
        let client = Client::connect(address).await;
        assert_eq!(client.check("").await, Ok(SERVING));
        assert_eq!(client.check(GOSSIP).await, Ok(SERVING));
        assert_eq!(client.check("no.such.Service").await, Err("5".to_owned()));
        let not_utf8 = client.call("Check", message(b"\x0a\x01\xff")).await.code().await;
        let cut = client.call("Check", message(b"\x0a\x05ab")).await.code().await;
        assert_eq!((not_utf8.as_str(), cut.as_str()), ("3", "3"));
        let large = client.call("Check", message(&[0; 2000])).await.code().await;
        assert_ne!(large, "0");
        assert_eq!(client.call("List", message(b"")).await.code().await, "12");
        assert_eq!(client.check("").await, Ok(SERVING));
    }
    stop(&node).await;
}

#[tokio::test]
async fn whoever_watches_is_told_that_the_node_ends() {
    let node = start_with(|config| config.network.plaintext = true).await;
    let client = Client::connect(node.listen_addr().unwrap()).await;
    let mut all = client.call("Watch", about("")).await;
    let mut gossip = client.call("Watch", about(GOSSIP)).await;
    let mut unknown = client.call("Watch", about("no.such.Service")).await;
    assert_eq!(all.next().await, Some(SERVING));
    assert_eq!(gossip.next().await, Some(SERVING));
    assert_eq!(unknown.next().await, Some(SERVICE_UNKNOWN));
    let (stopping, told) = (node.clone(), async {
        assert_eq!(all.next().await, Some(NOT_SERVING));
        assert_eq!(gossip.next().await, Some(NOT_SERVING));
        assert_eq!(all.next().await, None);
        assert_eq!(unknown.next().await, None);
        (all.code().await, unknown.code().await)
    });
    let (_, codes) = tokio::join!(stop(&stopping), told);
    assert_eq!(codes, ("0".to_owned(), "0".to_owned()));
}
