//! The admin listener of a node with real sockets: what it answers, whom it refuses, and what it bears.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sorcha_peer::error::{ConfigError, StartError};
use sorcha_peer::{Config, PeerNode};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{
    RejectAll, address, builder, config_with, event, ready, soon, start, start_with, stop,
    until_peers,
};
use crate::rest::client::{self, Answer, Ask, Http, parse, say};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const BEARER: (&str, &str) = ("authorization", "Bearer 0123456789abcdef0123456789abcdef");
const NOBODY: &str = "1111111111111111111111111111111111111111111111111111111111111111";
/// Paths that need no token.
const OPEN: [&str; 3] = ["/", "/livez", "/readyz"];

/// A node with its admin listener.
struct Server {
    node: PeerNode,
    admin: SocketAddr,
}

impl Server {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let node = start_with(|config| {
            config.listen.admin = Some(([127, 0, 0, 1], 0).into());
            change(config);
        });
        let node = node.await;
        let admin = node.admin_addr().expect("an admin listener");
        Self { node, admin }
    }

    async fn ask(&self, ask: Ask<'_>) -> Answer {
        client::ask(Http::One, self.admin, ask).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Ask::get(path)).await
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    async fn post(&self, path: &str) -> Answer {
        self.ask(Ask::new("POST", path)).await
    }

    /// A connection on which a request has begun that takes a body.
    async fn begin_ban(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let head = format!(
            "POST /api/v1/peers/{NOBODY}/ban HTTP/1.1\r\nhost: {}\r\nexpect: 100-continue\r\n\
             content-type: application/json\r\ncontent-length: 9\r\n\r\n",
            self.admin
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The listener waits for the body once it says so.
        let mut line = String::new();
        let said = BufReader::new(&mut stream).read_line(&mut line).await;
        assert!(said.is_ok() && line.contains("100 Continue"), "{line}");
        stream
    }

    /// Every path of the document with its methods.
    async fn documented(&self, headers: &[(&str, &str)]) -> Value {
        let asked = Ask::get("/api/v1/openapi.json").with(headers);
        self.ask(asked).await.json()["paths"].clone()
    }
}

/// A pair of linked nodes, of which the first has the listener.
async fn linked() -> (Server, PeerNode) {
    // An open network tells only where it is asked to.
    let tells = |config: &mut Config| config.messages.explain = Some(true);
    let server = Server::start(tells).await;
    let peer = start_with(|config| {
        config.discovery.bootstrap = vec![address(&server.node).parse().unwrap()];
        tells(config);
    });
    let peer = peer.await;
    ready(&server.node, 1).await;
    ready(&peer, 1).await;
    (server, peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_is_answered_as_the_document_says() {
    let (server, peer) = linked().await;
    let paths = server.documented(&[]).await;
    let mut asked = 0;
    for (path, operations) in paths.as_object().unwrap() {
        let path = path.replace("{id}", &peer.peer_id().to_string());
        let Some(operation) = operations.get("get").filter(|_| path != "/api/v1/events") else {
            continue;
        };
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let content = operation["responses"]["200"]["content"].as_object().unwrap();
        let media_type = answer.header("content-type").unwrap().split(';').next().unwrap();
        assert!(content.contains_key(media_type), "{path}: {media_type}");
        let cached = if path == "/" { "no-cache" } else { "no-store" };
        for (name, value) in [
            ("cache-control", cached),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let head = server.ask(Ask::new("HEAD", &path)).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), answer.header("content-type"), "{path}");
        asked += 1;
    }
    assert!(asked > 10, "{paths}");
    stop(&peer).await;
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_those_of_the_node() {
    let (server, peer) = linked().await;
    let receipt = server.node.publish("orders", "one widget").await.unwrap();
    receipt.replicated(1).await.unwrap();
    let id = receipt.id();
    let status = server.json("/api/v1/status").await;
    assert_eq!(status["peer_id"], server.node.peer_id().to_string());
    assert_eq!(status["listen"], json!([address(&server.node)]));
    assert_eq!((&status["ready"], &status["actions"]), (&json!(true), &json!(true)));
    let path = format!("/api/v1/transactions/{id}/explain");
    let explained = server.json(&path).await;
    assert_eq!((&explained["own"], &explained["topic"]), (&json!(true), &json!("orders")));
    let across = server.json(&format!("{path}?across=true")).await;
    assert_eq!(across["elsewhere"][peer.peer_id().to_string()]["state"], "stored", "{across}");
    assert_eq!(server.get(&format!("{path}?across=yes")).await.status, 400);
    let stats = server.json("/api/v1/stats").await;
    assert_eq!(stats["peers"]["links"], 1);
    assert_eq!(stats["counters"]["transactions_published"], 1);
    assert_eq!(stats["links"]["by_direction"]["inbound"], 1);
    assert_eq!(stats["reachability"]["state"], "unknown", "two nodes prove nothing");
    let reach = server.json("/api/v1/reachability").await;
    let at = json!([address(&server.node)]);
    assert_eq!((&reach["state"], &reach["listening"]), (&json!("unknown"), &at), "{reach}");
    assert_eq!((&reach["advertised"], &reach["candidates"][0]["endpoint"]), (&at, &at[0]));
    let peers = server.json("/api/v1/peers").await;
    assert_eq!(peers["peers"][0]["peer"], peer.peer_id().to_string());
    assert_eq!(peers["peers"][0]["direction"], "inbound");
    assert_eq!(peers["lost"], json!([]));
    let metrics = server.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("sorcha_peer_mode{"));
    let recent = server.json("/api/v1/events/recent?limit=500").await;
    let named = |name| recent["events"].as_array().unwrap().iter().any(|it| it["event"] == name);
    assert!(named("peer_up") && named("replicated"), "{recent}");
    let newest_first = recent["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64());
    assert!(newest_first.is_sorted_by(|a, b| a > b), "{recent}");
    stop(&peer).await;
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_has_a_value_for_each_second() {
    let (server, peer) = linked().await;
    let taken = async {
        loop {
            let history = server.json("/api/v1/history").await;
            let links = history["series"]["links"].as_array().unwrap();
            assert_eq!((&history["step_ms"], links.len()), (&json!(1000), 300));
            if links.last() == Some(&json!(1.0)) {
                break;
            }
        }
    };
    soon("the link is in the history", taken).await;
    for (span, step_ms, count) in
        [("15m", 1000, 900), ("1h", 60_000, 60), ("6h", 60_000, 360), ("24h", 60_000, 1440)]
    {
        let history = server.json(&format!("/api/v1/history?span={span}")).await;
        assert_eq!(history["step_ms"], step_ms);
        for (name, values) in history["series"].as_object().unwrap() {
            assert_eq!(values.as_array().unwrap().len(), count, "{span} {name}");
        }
    }
    stop(&peer).await;
    stop(&server.node).await;
}

/// A bad request, and the status of its refusal.
type Bad<'a> = (Ask<'a>, u16);

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_problem_documents() {
    let server = Server::start(|_| ()).await;
    let ban = format!("/api/v1/peers/{NOBODY}/ban");
    let test = format!("/api/v1/peers/{NOBODY}/test");
    let peer = format!("/api/v1/peers/{NOBODY}");
    let dead = format!("/api/v1/dead-letters/{NOBODY}/redeliver");
    let large = vec![b' '; 64 * 1024 + 1];
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(501));
    let (get, json) = (Ask::get, |body| Ask::json(&ban, body));
    let evil = [("sec-fetch-site", "cross-site")];
    let near = [("sec-fetch-site", "same-site")];
    let origin = [("origin", "http://evil.example")];
    let null = [("origin", "null")];
    let host = [("host", "localhost")];
    let text = [("content-type", "text/plain")];
    let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let cases: Vec<Bad<'_>> = vec![
        (get("/nothing"), 404),
        (get("/api/v1/peers/"), 404),
        (get("/api/v1/peers/xyz"), 400),
        (get("/api/v1/peers/%zz"), 400),
        (get("/api/v1/peers?x=1"), 400),
        (get("/api/v1/history?span=1y"), 400),
        (get("/api/v1/events/recent?limit=0"), 400),
        (get("/api/v1/events/recent?limit=501"), 400),
        (get("/api/v1/events/recent?limit=1&limit=2"), 400),
        (get("/api/v1/dead-letters?after=-1"), 400),
        (get("/api/v1/events").with(&[("last-event-id", "x")]), 400),
        (get(&peer), 404),
        (Ask::new("DELETE", &peer), 405),
        (Ask::new("OPTIONS", "/livez"), 405),
        (get(&ban), 405),
        (Ask::new("POST", &test), 404),
        (Ask::new("POST", &dead), 404),
        (Ask { body: b"{}", ..Ask::new("POST", &dead) }, 400),
        (Ask { body: b"{}", ..Ask::new("POST", &ban) }, 415),
        (Ask { body: b"{}", headers: &text, ..Ask::new("POST", &ban) }, 415),
        (json("{}").with(&gzip), 415),
        (Ask { body: &large, ..json("") }, 413),
        (Ask { body: &large, ..Ask::new("POST", &test) }, 413),
        (json(""), 400),
        (json("{"), 400),
        (json("[]"), 400),
        (json("{}"), 400),
        (json(r#"{"reason":""}"#), 400),
        (json(&long), 400),
        (json(r#"{"reason":1}"#), 400),
        (json(r#"{"reason":"a","reason":"b"}"#), 400),
        (json(r#"{"reason":"a","for_s":0}"#), 400),
        (json(r#"{"reason":"a","for_s":-1}"#), 400),
        (json(r#"{"reason":"a","for_s":"1h"}"#), 400),
        (json(r#"{"reason":"a","more":1}"#), 400),
        (get("/api/v1/status").with(&host), 400),
        (Ask::new("POST", &test).with(&evil), 403),
        (Ask::new("POST", &test).with(&near), 403),
        (Ask::new("POST", &test).with(&origin), 403),
        (Ask::new("POST", &test).with(&null), 403),
        (get("/api/v1/status").with(&evil), 403),
    ];
    for (ask, status) in cases {
        let answer = server.ask(ask).await;
        assert_eq!(answer.status, status, "{ask:?}: {answer:?}");
        answer.problem(ask.path);
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        let allow = match status {
            405 if ask.path.ends_with("/ban") => Some("POST"),
            405 => Some("GET, HEAD"),
            _ => None,
        };
        assert_eq!(answer.header("allow"), allow, "{ask:?}");
    }
    assert!(server.json("/api/v1/stats").await["peers"]["banned"] == 0);
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_name_leads_nowhere() {
    let server =
        Server::start(|config| config.listen.admin_hosts = vec!["ops.example".into()]).await;
    let by_name = async |host: &str| {
        let words = format!("GET /livez HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        parse(&say(server.admin, words.as_bytes()).await, "GET").status
    };
    for own in ["localhost", "127.0.0.1:1", "[::1]", "ops.example:8443"] {
        assert_eq!(by_name(own).await, 200, "{own}");
    }
    for other in ["evil.example", "localhost.evil.example", "10.0.0.1"] {
        assert_eq!(by_name(other).await, 403, "{other}");
    }
    assert_eq!(by_name("").await, 400);
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_there_is_nothing_but_health_and_the_shell_of_the_page() {
    let server = Server::start(|config| {
        config.listen.admin = Some(([0, 0, 0, 0], 0).into());
        config.listen.admin_token = Some(TOKEN.to_owned());
    });
    let mut server = server.await;
    server.admin.set_ip([127, 0, 0, 1].into());
    let wrong = [("authorization", "Bearer 0123456789abcdef0123456789abcdeF")];
    let paths = server.documented(&[BEARER]).await;
    let of = |operations: &Value| if operations["get"].is_object() { "GET" } else { "POST" };
    for (path, operations) in paths.as_object().unwrap() {
        let path = path.replace("{id}", NOBODY);
        for headers in [&[][..], &wrong] {
            let answer = server.ask(Ask::new(of(operations), &path).with(headers)).await;
            assert_eq!(answer.header("connection"), Some("close"), "{path}: {answer:?}");
            if OPEN.contains(&&*path) {
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
            } else {
                assert_eq!(answer.status, 401, "{path}: {answer:?}");
                assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
                answer.problem(&path);
            }
        }
    }
    assert_eq!(server.get("/nothing").await.status, 401, "it does not tell what there is");
    let answer = server.ask(Ask::get("/api/v1/status").with(&[BEARER])).await;
    assert_eq!((answer.status, answer.json()["mode"].clone()), (200, json!("offline")));
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_is_an_error_of_the_start() {
    let beyond = config_with(|config| config.listen.admin = Some(([0, 0, 0, 0], 0).into()));
    let error = PeerNode::builder().config(beyond).start().await.unwrap_err();
    let is_it = matches!(error, StartError::Config(ConfigError::AdminBeyondLoopback { .. }));
    assert!(is_it, "{error}");
    let server = Server::start(|_| ()).await;
    let again = builder().admin(&server.admin.to_string()).start().await.unwrap_err();
    let is_it = matches!(again, StartError::Listen { address, .. } if address == server.admin);
    assert!(is_it && again.to_string().contains("in use"), "{again}");
    let nowhere = builder().admin("nowhere").start().await.unwrap_err();
    assert!(matches!(nowhere, StartError::Address { .. }), "{nowhere}");
    stop(&server.node).await;
    assert!(TcpStream::connect(server.admin).await.is_err(), "the listener ends with the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_banned_and_tested_and_the_lost_are_shown() {
    let (server, peer) = linked().await;
    let path = |action: &str| format!("/api/v1/peers/{}{action}", peer.peer_id());
    let tested = server.post(&path("/test")).await;
    assert_eq!((tested.status, tested.json()["sent"].clone()), (200, json!(5)), "{tested:?}");
    assert_eq!(server.post(&path("/test")).await.status, 409, "a link is tested once in 10 s");
    assert_eq!(server.json(&path("")).await["state"], "linked");

    let ban = path("/ban");
    let banned = server.ask(Ask::json(&ban, r#"{"reason":"noise","for_s":3600}"#)).await;
    assert_eq!((banned.status, banned.json()), (200, json!({ "done": true })), "{banned:?}");
    until_peers(&server.node, "the link ends", <[_]>::is_empty).await;
    let lost = async {
        loop {
            let peers = server.json("/api/v1/peers").await;
            if let Some(lost) = peers["lost"].get(0) {
                return lost.clone();
            }
        }
    };
    let lost = soon("the lost peer is shown", lost).await;
    assert_eq!((&lost["peer"], &lost["reason"]), (&json!(peer.peer_id()), &json!("banned")));
    assert_eq!(server.json(&path("")).await["state"], "lost");
    assert_eq!(server.json("/api/v1/stats").await["peers"]["banned"], 1);

    assert_eq!(server.post(&path("/unban")).await.status, 200);
    assert_eq!(server.post(&path("/reset-breaker")).await.status, 200);
    ready(&server.node, 1).await;
    let back = async { while server.json(&path("")).await["state"] != "linked" {} };
    soon("it is linked again", back).await;
    assert_eq!(server.json("/api/v1/peers").await["lost"], json!([]));
    assert_eq!(server.post(&path("/disconnect")).await.status, 200);
    let own = format!("/api/v1/peers/{}/ban", server.node.peer_id());
    assert_eq!(server.ask(Ask::json(&own, r#"{"reason":"x"}"#)).await.status, 409);
    stop(&peer).await;
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_redelivered_and_deleted() {
    let judge = start(builder().validator(Arc::new(RejectAll))).await;
    let server = Server::start(|config| {
        config.discovery.bootstrap = vec![address(&judge).parse().unwrap()];
    });
    let server = server.await;
    ready(&server.node, 1).await;
    let receipt = server.node.publish("orders", "one widget").await.unwrap();
    soon("the outcome", receipt.replicated(1)).await.unwrap_err();
    let list = server.json("/api/v1/dead-letters").await;
    let dead = &list["dead_letters"][0];
    assert_eq!((&dead["id"], &dead["topic"]), (&json!(receipt.id()), &json!("orders")));
    assert_eq!((&dead["size"], &list["next"]), (&json!(10), &dead["seq"]));
    let rest = server.json(&format!("/api/v1/dead-letters?after={}&limit=1", dead["seq"])).await;
    assert_eq!(rest, json!({ "dead_letters": [], "next": null }));

    let mut events = server.node.events();
    let path = |action: &str| format!("/api/v1/dead-letters/{}/{action}", receipt.id());
    let again = server.post(&path("redeliver")).await;
    assert_eq!((again.status, again.json()), (200, json!({ "id": receipt.id() })), "{again:?}");
    // Refused as before, unless the refusal is remembered.
    let dead =
        |e: &sorcha_peer::Event| matches!(e, sorcha_peer::Event::DeadLettered { .. }).then_some(());
    event(&mut events, "it is a dead letter again", dead).await;
    assert_eq!(server.post(&path("delete")).await.json(), json!({ "done": true }));
    assert_eq!(server.post(&path("delete")).await.status, 404);
    assert_eq!(server.json("/api/v1/dead-letters").await["dead_letters"], json!([]));
    stop(&server.node).await;
}

/// A stream of events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(server: &Server, more: &str) -> Self {
        let mut stream = TcpStream::connect(server.admin).await.unwrap();
        let words = format!("GET /api/v1/events HTTP/1.1\r\nhost: {}\r\n{more}\r\n", server.admin);
        stream.write_all(words.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    /// The next line that begins so, without that.
    async fn line(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        let search = async {
            loop {
                line.clear();
                let read = self.0.read_line(&mut line).await.unwrap();
                assert!(read > 0, "the stream ended before {beginning:?}");
                if let Some(rest) = line.strip_prefix(beginning) {
                    return rest.trim_end().to_owned();
                }
            }
        };
        soon(beginning, search).await
    }

    async fn event(&mut self) -> (String, Value) {
        let name = self.line("event: ").await;
        (name, serde_json::from_str(&self.line("data: ").await).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_and_what_was_missed_is_told() {
    let server = Server::start(|_| ()).await;
    let mut stream = Stream::open(&server, "").await;
    assert_eq!(stream.line("HTTP/1.1 ").await, "200 OK");
    stream.line(": events").await;
    let peer = start(builder().bootstrap([address(&server.node)])).await;
    ready(&server.node, 1).await;
    let mut first = 0;
    while first == 0 {
        let (name, data) = stream.event().await;
        assert_eq!(data["event"], name);
        if name == "peer_up" {
            assert_eq!(data["peer"], peer.peer_id().to_string());
            first = data["seq"].as_u64().unwrap();
        }
    }
    // More events than are kept: each is confirmed once.
    let payloads: Vec<_> = (0..600).map(|n: u32| n.to_string()).collect();
    for receipt in server.node.publish_many("orders", payloads).await.unwrap() {
        soon("a copy", receipt.replicated(1)).await.unwrap();
    }
    let mut behind = Stream::open(&server, &format!("last-event-id: {first}\r\n")).await;
    let (name, data) = behind.event().await;
    assert_eq!(name, "lagged", "{data}");
    let missed = data["missed"].as_u64().unwrap();
    let (_, next) = behind.event().await;
    assert_eq!(next["seq"], first + missed + 1);
    // Whoever has read all the time has missed nothing.
    let mut seen = first;
    while seen < first + 500 {
        let (_, data) = stream.event().await;
        seen += 1;
        assert_eq!(data["seq"], seen);
    }
    stop(&peer).await;
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_connections_are_bounded_and_given_back() {
    let server = Server::start(|_| ()).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = Stream::open(&server, "").await;
        assert_eq!(stream.line("HTTP/1.1 ").await, "200 OK");
        streams.push(stream);
    }
    let refused = server.get("/api/v1/events").await;
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    drop(streams);
    let again = async {
        loop {
            let mut stream = Stream::open(&server, "").await;
            if stream.line("HTTP/1.1 ").await == "200 OK" {
                break;
            }
        }
    };
    soon("a place for a stream", again).await;

    // Those at work take the places of connections, and others wait for one.
    let mut at_work = Vec::new();
    for _ in 0..64 {
        at_work.push(server.begin_ban().await);
    }
    let waiting = server.get("/livez");
    tokio::pin!(waiting);
    assert!(
        timeout(Duration::from_millis(300), &mut waiting).await.is_err(),
        "all places are taken"
    );
    at_work.pop();
    assert_eq!(soon("a place", waiting).await.status, 200);
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_connections_and_asks_nothing_keeps_nobody_out() {
    let server = Server::start(|config| {
        config.listen.admin_token = Some(TOKEN.to_owned());
    });
    let server = server.await;
    let mut stream = Stream::open(&server, &format!("{}: {}\r\n", BEARER.0, BEARER.1)).await;
    assert_eq!(stream.line("HTTP/1.1 ").await, "200 OK");
    stream.line(": events").await;
    // Silent ones, those in the middle of a head, and those that were not let in and send on.
    let mut strangers = Vec::new();
    for n in 0..200 {
        let said: &[u8] = match n % 3 {
            0 => b"",
            1 => b"GET /livez HTTP/1.1\r\n",
            _ => b"POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n",
        };
        let mut stranger = TcpStream::connect(server.admin).await.unwrap();
        // Some have been sent away by now.
        let _ = stranger.write_all(said).await;
        strangers.push(stranger);
    }
    let asked = async {
        for _ in 0..3 {
            let status = server.ask(Ask::get("/api/v1/status").with(&[BEARER])).await;
            assert_eq!(status.status, 200, "{status:?}");
        }
    };
    soon("answers", asked).await;
    // The stream goes on.
    let peer = start(builder().bootstrap([address(&server.node)])).await;
    stream.event().await;
    drop(strangers);
    stop(&peer).await;
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_known_is_not_sent_again_nor_changed() {
    let server = Server::start(|_| ()).await;
    let page = server.get("/").await;
    let etag = page.header("etag").unwrap();
    let known = [("if-none-match", etag)];
    let again = server.ask(Ask::get("/").with(&known)).await;
    assert_eq!((again.status, again.body.len()), (304, 0), "{again:?}");
    assert_eq!(again.header("etag"), Some(etag));
    assert_eq!(again.header("content-type"), None, "else the page that is kept becomes text");
    let policy = "content-security-policy";
    assert_eq!(again.header(policy), page.header(policy));
    let head = server.ask(Ask::new("HEAD", "/api/v1/events")).await;
    assert_eq!((head.status, head.header("content-length")), (200, None), "{head:?}");
    stop(&server.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_has_its_reasons() {
    let alone = Server::start(|_| ()).await;
    let readiness = alone.json("/readyz").await;
    assert_eq!(readiness, json!({ "ready": true, "mode": "offline", "reasons": [] }));
    stop(&alone.node).await;
    // A port that nobody listens on.
    let nobody = alone.admin;
    let cut_off = Server::start(|config| {
        config.discovery.bootstrap = vec![nobody.to_string().parse().unwrap()];
    });
    let cut_off = cut_off.await;
    let answer = cut_off.get("/readyz").await;
    assert_eq!((answer.status, answer.json()["ready"].clone()), (503, json!(false)), "{answer:?}");
    let reason = answer.json()["reasons"][0].as_str().unwrap().to_owned();
    assert!(reason.starts_with("There is no link to any peer"), "{reason}");
    assert_eq!(cut_off.get("/livez").await.body, "ok\n");
    let status = cut_off.json("/api/v1/status").await;
    assert!(status["sentence"].as_str().unwrap().starts_with("Offline"), "{status}");
    let has_address = |answer: &Answer| {
        String::from_utf8_lossy(&answer.body).contains(&nobody.port().to_string())
    };
    let hint = async { while !has_address(&cut_off.get("/readyz").await) {} };
    soon("the address that failed is named", hint).await;
    stop(&cut_off.node).await;

    // To those alone who show the token.
    let guarded = Server::start(|config| {
        config.discovery.bootstrap = vec![nobody.to_string().parse().unwrap()];
        config.listen.admin_token = Some(TOKEN.to_owned());
    });
    let guarded = guarded.await;
    let by_token = async || guarded.ask(Ask::get("/readyz").with(&[BEARER])).await;
    let hint = async { while !has_address(&by_token().await) {} };
    soon("the address that failed is named", hint).await;
    let stranger = guarded.get("/readyz").await;
    assert_eq!(stranger.json()["reasons"], json!(["There is no link to any peer"]));
    stop(&guarded.node).await;
}
