//! Every path with every method, whatever its alias.

use serde_json::json;

use super::{Ask, Server};
use crate::common::{address, ready, start_beside, stop, until_peers};

const READ: &str = "GET, HEAD, OPTIONS";
const WRITE: &str = "POST, OPTIONS";
const PING: &str = "GET, HEAD, POST, OPTIONS";
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"];

#[tokio::test]
async fn every_path_takes_its_methods_and_names_them_for_others() {
    let server = Server::start().await;
    let id = server.publish(b"x").await;
    let mut paths = vec![("/api/health".to_owned(), READ), ("/api/v1/health".to_owned(), READ)];
    for prefix in ["/api/v1/peers", "/api/peer", "/api/peers"] {
        paths.push((prefix.to_owned(), READ));
        for (name, allow) in [
            ("list", READ),
            ("health", READ),
            ("stats", READ),
            ("register", WRITE),
            ("message", WRITE),
            ("ping", PING),
        ] {
            paths.push((format!("{prefix}/{name}"), allow));
        }
    }
    for prefix in ["/api/v1/transactions", "/api/transaction"] {
        paths.push((prefix.to_owned(), WRITE));
        paths.push((format!("{prefix}/notify"), WRITE));
        paths.push((format!("{prefix}/{id}"), READ));
    }
    for (path, allow) in
        paths.iter().flat_map(|(path, allow)| [(path.clone(), allow), (format!("{path}/"), allow)])
    {
        for method in METHODS {
            let asked = Ask::new(method, &path);
            let answer = server.ask_both(asked).await;
            let is_allowed = allow.split(", ").any(|known| known == method);
            match method {
                "OPTIONS" => {
                    assert_eq!(
                        (answer.status, answer.header("allow")),
                        (204, Some(*allow)),
                        "{path}"
                    );
                }
                _ if !is_allowed => {
                    assert_eq!(
                        (answer.status, answer.header("allow")),
                        (405, Some(*allow)),
                        "{asked:?}"
                    );
                    if method != "HEAD" {
                        answer.problem(&path);
                    }
                }
                "POST" if path.contains("ping") => assert_eq!(answer.status, 200, "{path}"),
                // Without what belongs into it.
                "POST"
                    if allow == &WRITE && !path.contains("transaction")
                        || path.contains("notify") =>
                {
                    assert_eq!(answer.status, 400, "{path}");
                    assert!(answer.problem(&path).contains("empty"));
                }
                // The payload is empty, and the topic the default one.
                "POST" => assert_eq!(answer.status, 201, "{path}: {answer:?}"),
                _ => assert_eq!(answer.status, 200, "{asked:?}: {answer:?}"),
            }
        }
        if allow.contains("GET") {
            let get = server.ask_both(Ask::get(&path)).await;
            let head = server.ask_both(Ask::new("HEAD", &path)).await;
            assert!(head.body.is_empty());
            assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
            // Times, and what was published meanwhile, have lengths of their own.
            if path.contains(&id) || path.contains("list") {
                assert_eq!(head.headers, get.headers, "{path}");
                assert_eq!(
                    head.header("content-length"),
                    Some(get.body.len().to_string().as_str())
                );
            }
        }
    }
    for path in [
        "/api/v1",
        "/api/",
        "/api/v2/peers",
        "/api/peers//",
        "/api/health/x",
        "/api/transactions//",
    ] {
        let answer = server.ask_both(Ask::get(path)).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.problem(path);
    }
    assert_eq!(server.ask_both(Ask::get("/api/v1/peers/nobody")).await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn peers_are_listed_and_counted_as_they_are() {
    let server = Server::start().await;
    let other = start_beside(&server.node).await;
    ready(&server.node, 1).await;
    ready(&other, 1).await;
    until_peers(&server.node, "a measured link", |links| links.iter().any(|link| link.rtt_us > 0))
        .await;
    let (id, address) = (other.peer_id().to_string(), address(&other));
    let (host, port) = address.rsplit_once(':').unwrap();
    let listed = async || server.ask_both(Ask::get("/api/v1/peers/list")).await.json();
    let peers = crate::common::soon("the peer is listed", async {
        loop {
            match listed().await {
                peers if peers.as_array().is_some_and(|peers| !peers.is_empty()) => break peers,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert_eq!(peers.as_array().unwrap().len(), 1);
    let peer = &peers[0];
    assert_eq!((&peer["peerId"], &peer["address"]), (&json!(id), &json!(host)));
    assert_eq!(peer["port"], port.parse::<u16>().unwrap());
    assert!(peer["supportedProtocols"].is_array());
    let without = format!("/api/peer/list?requestingPeerId={id}&maxPeers=50");
    assert_eq!(server.ask(Ask::get(&without)).await.json(), json!([]));
    for path in ["list?maxPeers=", "list?maxPeers=0", "list?maxPeers=-5", "list?maxPeers=1&x=1&x=2"]
    {
        let path = format!("/api/peers/{path}");
        assert_eq!(server.ask(Ask::get(&path)).await.json().as_array().unwrap().len(), 1, "{path}");
    }

    let path = format!("/api/peers/{id}");
    let one = server.ask_both(Ask::get(&path)).await.json();
    assert_eq!((&one["peerId"], &one["isConnected"]), (&json!(id), &json!(true)));
    assert!(one["averageLatencyMs"].as_f64().unwrap() > 0.0);
    assert_eq!(server.ask(Ask::get("/api/peers")).await.json().as_array().unwrap().len(), 1);
    let health = server.ask(Ask::get("/api/peers/health")).await.json();
    assert_eq!((&health["totalPeers"], &health["healthyPeers"]), (&json!(1), &json!(1)));
    assert_eq!(health["unhealthyPeers"], 0);
    assert_eq!(health["healthPercentage"], 100.0);
    let stats = server.ask(Ask::get("/api/peers/stats")).await.json();
    for (part, keys) in [
        (
            "peerStats",
            "totalPeers healthyPeers unhealthyPeers seedNodes averageLatencyMs totalFailures",
        ),
        (
            "qualityStats",
            "totalTrackedPeers excellentPeers goodPeers fairPeers poorPeers averageQualityScore",
        ),
        ("queueStats", "queueSize"),
        (
            "circuitBreakerStats",
            "totalCircuitBreakers openCircuits halfOpenCircuits closedCircuits",
        ),
    ] {
        for key in keys.split(' ') {
            assert!(stats[part][key].is_number(), "{part} {key}: {stats}");
        }
    }
    assert_eq!(stats["queueStats"]["isEmpty"], true);
    let health = server.ask(Ask::get("/api/health")).await.json();
    assert_eq!(health["metrics"]["totalPeers"], 1);
    assert!(health["uptime"].is_string() && health["timestamp"].is_string());

    let ping = server.ask(Ask::get("/api/v1/peers/ping?peerId=me")).await.json();
    assert_eq!(ping["peerId"], server.node.peer_id().to_string());
    assert_eq!((&ping["alive"], &ping["status"]), (&json!(true), &json!("Online")));
    assert!(ping["timestamp"].as_u64().unwrap() < 100_000_000_000);
    let ping = Ask::json("/api/peer/ping", r#"{"peerId":"me","timestamp":1}"#);
    assert_eq!(server.ask(ping).await.json()["version"], env!("CARGO_PKG_VERSION"));
    stop(&other).await;
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_served_where_it_is_not_asked_for() {
    let server = Server::start_with(|config| config.compat.enabled = false).await;
    let answer = server.ask(Ask::get("/api/v1/peers/list")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.is_empty());
    server.stop().await;
}
