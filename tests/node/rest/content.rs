//! Payloads: published, looked up by their hashes, whole and in parts.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use sorcha_peer::{Item, StartAt};

use super::{Answer, Ask, Server};
use crate::common::soon;

const BYTES: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

/// A payload whose hash has both characters in Base64 that paths do not take as they are.
fn payload() -> (Vec<u8>, Vec<u8>) {
    let payloads = (0_u32..).map(|number| format!("payload {number}").into_bytes());
    let mut hashed = payloads.map(|payload| {
        let hash = Sha256::digest(&payload).to_vec();
        (payload, hash)
    });
    let wanted =
        |hash: &[u8]| STANDARD.encode(hash).contains('/') && STANDARD.encode(hash).contains('+');
    hashed.find(|(_, hash)| wanted(hash)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

#[tokio::test]
async fn a_payload_is_found_by_its_id_and_by_its_hash_however_written() {
    let server = Server::start().await;
    let (payload, hash) = payload();
    let id = server.publish(&payload).await;
    let base64 = STANDARD.encode(&hash);
    let escaped = base64.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let names = [
        id.clone(),
        id.to_uppercase(),
        hex(&hash),
        hex(&hash).to_uppercase(),
        escaped,
        STANDARD_NO_PAD.encode(&hash),
        URL_SAFE.encode(&hash),
        URL_SAFE_NO_PAD.encode(&hash),
        base64,
    ];
    let etag = format!("\"{id}\"");
    for name in &names {
        for prefix in ["/api/v1/transactions", "/api/transaction"] {
            for query in ["", "?topic=t", "?topic="] {
                let path = format!("{prefix}/{name}{query}");
                let answer = soon("the hash is indexed", async {
                    loop {
                        match server.ask(Ask::get(&path)).await {
                            found if found.status == 200 => return found,
                            other => assert_eq!(other.status, 404, "{path}: {other:?}"),
                        }
                    }
                })
                .await;
                assert_eq!(answer.body, payload);
                assert_eq!(answer.header("etag"), Some(etag.as_str()));
            }
            let path = format!("{prefix}/{name}?topic=other");
            assert_eq!(server.ask(Ask::get(&path)).await.status, 404);
        }
    }
    let unknown = format!("/api/v1/transactions/{}", "0".repeat(64));
    let answer = server.ask_both(Ask::get(&unknown)).await;
    assert_eq!((answer.status, answer.header("cache-control")), (404, Some("no-store")));
    assert_eq!(answer.json()["error"].as_str(), Some(answer.problem(&unknown).as_str()));
    for odd in ["x", "zz", &"a".repeat(1000), "a%00b", "%20", "0x12", "-", "null"] {
        let path = format!("/api/v1/transactions/{odd}");
        let answer = server.ask_both(Ask::get(&path)).await;
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
        answer.problem(&path);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_published_reaches_subscribers_and_twice_is_two() {
    let server = Server::start().await;
    let mut orders = server.node.subscribe("orders & more", StartAt::Earliest).await.unwrap();
    let raw = Ask { body: b"one", ..Ask::new("POST", "/api/transaction?topic=orders+%26%20more") };
    let json =
        Ask::json("/api/v1/transactions", r#"{"topic":"orders & more","payload":"b25l","x":1}"#);
    let mut ids = Vec::new();
    for asked in [raw, raw.with(&BYTES), json] {
        let answer = server.ask_both(asked).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        ids.push(answer.json()["transactionId"].as_str().unwrap().to_owned());
    }
    for _ in 0..6 {
        let item = soon("a delivery", orders.next()).await;
        let Some(Item::Delivery(delivery)) = item else { panic!("{item:?}") };
        assert_eq!(&delivery.transaction.payload()[..], b"one");
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "each request is a transaction of its own");

    let empty = server.publish(b"").await;
    let path = format!("/api/v1/transactions/{empty}");
    let answer = server.ask_both(Ask::get(&path)).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    for (range, status) in [("bytes=0-", 416), ("bytes=-5", 200)] {
        assert_eq!(server.ask_both(Ask::get(&path).with(&[("range", range)])).await.status, status);
    }
    server.stop().await;
}

#[tokio::test]
async fn conditions_and_ranges_are_kept() {
    let server = Server::start().await;
    let id = server.publish(b"0123456789").await;
    let path = format!("/api/v1/transactions/{id}");
    let etag = format!("\"{id}\"");
    let whole = server.ask_both(Ask::get(&path)).await;
    let modified = whole.header("last-modified").unwrap().to_owned();
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("accept-ranges", "bytes"),
        ("etag", &etag),
        ("content-length", "10"),
        ("cache-control", "max-age=31536000, immutable"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(whole.header(name), Some(value));
    }
    let weak = format!("W/{etag}");
    let none = |answer: &Answer| assert!(answer.body.is_empty());
    for (headers, status, range, body) in [
        (&[("range", "bytes=0-0")][..], 206, Some("bytes 0-0/10"), "0"),
        (&[("range", "bytes=4-")], 206, Some("bytes 4-9/10"), "456789"),
        (&[("range", "bytes=-2")], 206, Some("bytes 8-9/10"), "89"),
        (&[("range", "bytes=2-999")], 206, Some("bytes 2-9/10"), "23456789"),
        (&[("range", "bytes=0-1,3-4")], 200, None, "0123456789"),
        (&[("range", "bytes=5-1")], 200, None, "0123456789"),
        (&[("range", "lines=0-1")], 200, None, "0123456789"),
        (&[("range", "bytes=10-")], 416, Some("bytes */10"), ""),
        (&[("range", "bytes=-0")], 416, Some("bytes */10"), ""),
        (&[("range", "bytes=1-1"), ("if-range", &etag)], 206, Some("bytes 1-1/10"), "1"),
        (&[("range", "bytes=1-1"), ("if-range", &modified)], 206, Some("bytes 1-1/10"), "1"),
        (&[("range", "bytes=1-1"), ("if-range", &weak)], 200, None, "0123456789"),
        (&[("range", "bytes=1-1"), ("if-range", "\"x\"")], 200, None, "0123456789"),
        (&[("if-none-match", &etag)], 304, None, ""),
        (&[("if-none-match", &weak)], 304, None, ""),
        (&[("if-none-match", "*")], 304, None, ""),
        (&[("if-none-match", "\"x\"")], 200, None, "0123456789"),
        (&[("if-none-match", "\"x\""), ("if-modified-since", &modified)], 200, None, "0123456789"),
        (&[("if-modified-since", &modified)], 304, None, ""),
        (&[("if-match", &etag)], 200, None, "0123456789"),
        (&[("if-match", &weak)], 412, None, ""),
        (&[("if-match", "\"x\"")], 412, None, ""),
        (&[("if-unmodified-since", "Sun, 09 Sep 2001 01:46:40 GMT")], 412, None, ""),
    ] {
        let asked = Ask::get(&path).with(headers);
        let answer = server.ask_both(asked).await;
        assert_eq!((answer.status, answer.header("content-range")), (status, range), "{asked:?}");
        match status {
            200 | 206 => assert_eq!(answer.body, body.as_bytes(), "{asked:?}"),
            304 => none(&answer),
            _ => _ = answer.problem(&path),
        }
        if status < 400 {
            assert_eq!(answer.header("etag"), Some(etag.as_str()), "{asked:?}");
        }
        let head = server.ask_both(Ask::new("HEAD", &path).with(headers)).await;
        none(&head);
        // A range is nothing to HEAD.
        let same = if status == 206 || status == 416 { 200 } else { status };
        assert_eq!(head.status, same, "{asked:?}");
        if same == 200 {
            assert_eq!(head.header("content-length"), Some("10"), "{asked:?}");
        }
    }
    server.stop().await;
}
