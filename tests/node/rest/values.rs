//! Odd values: each is refused with a problem document that says what is wrong.

use super::{Ask, Server};
use crate::common::soon;

type Row<'a> = (u16, &'a str, Ask<'a>);

/// Requests as they stand, over both versions, with their status and a word of what is said.
async fn refuses(server: &Server, rows: &[Row<'_>]) {
    for (status, word, asked) in rows {
        let answer = server.ask_both(*asked).await;
        assert_eq!(answer.status, *status, "{asked:?}: {answer:?}");
        let detail = answer.problem(asked.path);
        assert!(detail.contains(word), "{asked:?}: {detail}");
    }
}

#[tokio::test]
async fn queries_and_paths_that_cannot_be_read_are_refused() {
    let server = Server::start().await;
    let get = Ask::get;
    refuses(
        &server,
        &[
            (400, "UTF-8", get("/api/peers/%ff")),
            (400, "hexadecimal", get("/api/peers/%zz")),
            (400, "hexadecimal", get("/api/v1/transactions/%")),
            (400, "maxPeers", get("/api/peers/list?maxPeers=x")),
            (400, "maxPeers", get("/api/peers/list?maxPeers=1.5")),
            (400, "maxPeers", get("/api/peers/list?maxPeers=2147483648")),
            (400, "twice", get("/api/peers/list?maxPeers=1&maxPeers=1")),
            (400, "twice", get("/api/peers/list?requestingPeerId=a&requestingPeerId=b")),
            (400, "twice", get("/api/peers/ping?peerId=a&peerId=a")),
            (400, "UTF-8", get("/api/peers/list?requestingPeerId=%c3%28")),
            (400, "hexadecimal", get("/api/peers/list?other=%2")),
            (400, "twice", Ask::new("POST", "/api/transaction?topic=a&topic=a")),
            (404, "", get("/api/peers/none")),
        ],
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn media_types_and_other_sites_are_refused() {
    let server = Server::start().await;
    let register = Ask::json("/api/v1/peers/register", "{}");
    let publish = Ask { body: b"x", ..Ask::new("POST", "/api/v1/transactions") };
    let list = Ask::get("/api/peers/list");
    let id = server.publish(b"x").await;
    let transaction = format!("/api/transaction/{id}");
    let transaction = Ask::get(&transaction);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let text = [("content-type", "text/plain")];
    let latin = [("content-type", "application/json; charset=latin1")];
    let octets = [("content-type", "application/octet-stream")];
    let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let evil = [("origin", "http://evil.example"), ("content-type", "application/octet-stream")];
    let null = [("origin", "null")];
    let cross = [("sec-fetch-site", "cross-site")];
    let html = [("accept", "text/html")];
    let none = [("accept", "application/json;q=0, */*")];
    let json = [("accept", "application/json")];
    refuses(
        &server,
        &[
            (415, "media type", publish.with(&form)),
            (415, "media type", publish.with(&text)),
            (415, "media type", register.with(&latin)),
            (415, "application/json", register.with(&octets)),
            (415, "application/json", register.with(&[])),
            (415, "encoding", register.with(&gzip)),
            (415, "encoding", publish.with(&gzip)),
            (403, "origin", publish.with(&evil)),
            (403, "origin", publish.with(&null)),
            (403, "origin", publish.with(&cross)),
            (403, "origin", list.with(&cross)),
            (403, "origin", Ask::new("OPTIONS", "/api/v1/transactions").with(&evil)),
            (406, "application/json", list.with(&html)),
            (406, "application/json", list.with(&none)),
            (406, "application/json", Ask::json("/api/peer/message", "{}").with(&html)),
            (406, "application/octet-stream", transaction.with(&json)),
        ],
    )
    .await;
    let kept = server.ask(register.with(&gzip)).await;
    assert_eq!(kept.header("accept-encoding"), Some("identity"));
    let preflight = server.ask(Ask::new("OPTIONS", "/api/v1/transactions")).await;
    assert!(preflight.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    server.stop().await;
}

#[tokio::test]
async fn fields_are_named_where_they_are_wrong() {
    let server = Server::start().await;
    let register = |body| Ask::json("/api/v1/peers/register", body);
    let notify = |body| Ask::json("/api/transaction/notify", body);
    let publish = |body| Ask::json("/api/v1/transactions?topic=t", body);
    let own = server.node.peer_id().to_string();
    let own = format!(r#"{{"peerId":"{own}","address":"127.0.0.1","port":1}}"#);
    let long = format!(r#"{{"peerId":"{}","address":"127.0.0.1","port":1}}"#, "x".repeat(65));
    refuses(
        &server,
        &[
            (400, "line 1, column 2", register("{'")),
            (400, "too early", register("{\"peerId\":\"a\"")),
            (400, "no object", register("[]")),
            (400, "twice", register(r#"{"peerId":"a","peerId":"b"}"#)),
            (400, "peerId is missing", register("{}")),
            (400, "peerId is missing", register(r#"{"PeerId":"a","address":"b","port":1}"#)),
            (400, "address is missing", register(r#"{"peerId":"a","address":null,"port":1}"#)),
            (400, "port is missing", register(r#"{"peerId":"a","address":"b"}"#)),
            (400, "port has to be", register(r#"{"peerId":"a","address":"b","port":"1"}"#)),
            (400, "port has to be", register(r#"{"peerId":"a","address":"b","port":1.5}"#)),
            (400, "port", register(r#"{"peerId":"a","address":"b","port":4294967297}"#)),
            (400, "peerId has to be", register(r#"{"peerId":1,"address":"b","port":1}"#)),
            (
                400,
                "supportedProtocols",
                register(r#"{"peerId":"a","address":"b","port":1,"supportedProtocols":"Rest"}"#),
            ),
            (
                400,
                "supportedProtocols",
                register(r#"{"peerId":"a","address":"b","port":1,"supportedProtocols":[1]}"#),
            ),
            (400, "Invalid peer ID", register(r#"{"peerId":"","address":"127.0.0.1","port":1}"#)),
            (400, "Invalid peer ID", register(&own)),
            (400, "Invalid peer ID", register(&long)),
            (400, "Invalid peer address", register(r#"{"peerId":"a","address":"","port":1}"#)),
            (400, "Invalid peer address", register(r#"{"peerId":"a","address":"a b","port":1}"#)),
            (
                400,
                "Invalid peer port",
                register(r#"{"peerId":"a","address":"127.0.0.1","port":0}"#),
            ),
            (
                400,
                "Invalid peer port",
                register(r#"{"peerId":"a","address":"127.0.0.1","port":-1}"#),
            ),
            (
                400,
                "Invalid peer port",
                register(r#"{"peerId":"a","address":"127.0.0.1","port":65536}"#),
            ),
            (400, "transactionHash is missing", notify(r#"{"senderPeerId":"a"}"#)),
            (400, "senderPeerId is missing", notify(r#"{"transactionId":"a"}"#)),
            (400, "dataSize", notify(r#"{"transactionId":"a","originPeerId":"b","dataSize":"1"}"#)),
            (400, "", notify(r#"{"transactionId":"a","originPeerId":"b"}"#)),
            (400, "payload is missing", publish("{}")),
            (400, "payload is not in Base64", publish(r#"{"payload":"?"}"#)),
            (400, "different topics", publish(r#"{"topic":"u","payload":""}"#)),
            (400, "topic has to be", publish(r#"{"topic":1,"payload":""}"#)),
            (
                400,
                "messageType",
                Ask::json("/api/peer/message", r#"{"messageType":"x","payload":""}"#),
            ),
            (400, "line 1", Ask::json("/api/peer/message", "{x")),
            (409, "", Ask::json("/api/peer/message", "[1]")),
            (400, "peerId", Ask::json("/api/peers/ping", r#"{"peerId":1}"#)),
        ],
    )
    .await;
    let topic = format!("/api/v1/transactions?topic={}", "x".repeat(256));
    refuses(&server, &[(400, "", Ask::new("POST", &topic))]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_message_reaches_the_handler_of_its_type() {
    let server = Server::start().await;
    let (told, mut heard) = tokio::sync::mpsc::channel(4);
    for protocol in ["sorcha.message.0", "sorcha.message.4"] {
        let told = told.clone();
        let handler = move |request: sorcha_peer::Request| {
            let seen = (
                request.protocol().to_owned(),
                request.caller().to_owned(),
                request.body().clone(),
            );
            let sent = told.try_send(seen);
            async move { sent.map(|()| bytes::Bytes::new()).map_err(|e| e.to_string()) }
        };
        server.node.handle_requests(protocol, handler).unwrap();
    }
    let free = r#"{"senderPeerId":"me","x":[1]}"#;
    let typed = r#"{"senderPeerId":"me","messageType":"PeerStatusUpdate","payload":"aGk="}"#;
    for (protocol, body, seen) in
        [("sorcha.message.0", free, free), ("sorcha.message.4", typed, "hi")]
    {
        let answer = server.ask(Ask::json("/api/peer/message", body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["received"], true);
        let heard = soon("the message", heard.recv()).await.unwrap();
        assert_eq!(
            (heard.0.as_str(), heard.1.as_str(), &heard.2[..]),
            (protocol, "me", seen.as_bytes())
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let server = Server::start_with(|config| config.compat.max_requests_per_minute = 5).await;
    let ask = async || server.ask(Ask::get("/api/health")).await;
    let refused = soon("a refusal", async {
        loop {
            let answer = ask().await;
            if answer.status != 200 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    refused.problem("/api/health");
    server.stop().await;
}
