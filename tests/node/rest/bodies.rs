//! Bodies as they travel: in chunks, announced wrongly, too large, and not wanted.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{break_off, parse, say};
use super::{Ask, Server};
use crate::common::{counters, soon};

const PUBLISH: &str = "POST /api/v1/transactions?topic=t HTTP/1.1\r\nhost: x\r\n";
const KIB: usize = 1024;

/// A server that takes transactions of at most 64 KiB.
async fn small() -> Server {
    Server::start_with(|config| config.gossip.max_transaction_size = 64 * KIB as u64).await
}

#[tokio::test]
async fn chunks_are_one_body() {
    let server = small().await;
    let words = format!(
        "{PUBLISH}connection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                         3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n"
    );
    let answer = parse(&say(server.http, words.as_bytes()).await, "POST");
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["transactionId"].as_str().unwrap().to_owned();
    let path = format!("/api/transaction/{id}");
    assert_eq!(server.ask(Ask::get(&path)).await.body, "abcde");

    let chunk = format!("8000\r\n{}\r\n", "x".repeat(32 * KIB));
    let words = format!(
        "{PUBLISH}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(3)
    );
    let answer = parse(&say(server.http, words.as_bytes()).await, "POST");
    assert_eq!(answer.status, 413);
    assert!(answer.problem("/api/v1/transactions").contains("65536"));

    let words =
        format!("{PUBLISH}connection: close\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(parse(&say(server.http, words.as_bytes()).await, "POST").status, 415);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let server = small().await;
    for (kind, path, limit) in [
        ("application/octet-stream", "/api/v1/transactions", 64 * KIB),
        ("application/json", "/api/v1/transactions", 64 * KIB * 4 / 3 + 64 * KIB + 4),
        ("application/json", "/api/v1/peers/register", 2 * KIB * KIB),
    ] {
        let expecting = |len: usize| {
            format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n\
                     content-length: {len}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
            )
        };
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        stream.write_all(expecting(limit + KIB).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon("a refusal", stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(parse(&answer, "POST").status, 413, "{path}");

        let mut stream = TcpStream::connect(server.http).await.unwrap();
        stream.write_all(expecting(1).as_bytes()).await.unwrap();
        let mut go_on = [0; 25];
        soon("the word to go on", stream.read_exact(&mut go_on)).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"{").await.unwrap();
        let mut answer = Vec::new();
        soon("an answer", stream.read_to_end(&mut answer)).await.unwrap();
        assert!([201, 400].contains(&parse(&answer, "POST").status), "{path}");
    }
    let largest = vec![7; 64 * KIB];
    server.publish(&largest).await;
    let larger = Ask { body: &vec![7; 64 * KIB + 1], ..Ask::new("POST", "/api/v1/transactions") };
    assert_eq!(server.ask_both(larger).await.status, 413);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_transaction() {
    let server = small().await;
    for words in [
        format!("{PUBLISH}content-length: 10\r\n\r\nabc"),
        format!("{PUBLISH}transfer-encoding: chunked\r\n\r\n5\r\nabc"),
        format!("{PUBLISH}transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
        format!("{PUBLISH}content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        format!("{PUBLISH}content-length: -1\r\n\r\nabcd"),
        format!("{PUBLISH}content-length: 18446744073709551616\r\n\r\nabcd"),
    ] {
        let answer = String::from_utf8(break_off(server.http, words.as_bytes()).await).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{words}: {answer}");
    }
    assert_eq!(counters(&server.node).await.transactions_published, 0);
    server.stop().await;
}

#[tokio::test]
async fn requests_may_come_in_one_go_and_one_after_the_other() {
    let server = small().await;
    let words = format!(
        "{PUBLISH}content-length: 1\r\n\r\na\
         GET /api/v1/peers/ping HTTP/1.1\r\nhost: x\r\n\r\n\
         HEAD /api/health HTTP/1.1\r\nhost: x\r\n\r\n\
         GET /api/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    let answers = String::from_utf8(say(server.http, words.as_bytes()).await).unwrap();
    let statuses: Vec<&str> = answers.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 4, "{answers}");
    let places =
        ["HTTP/1.1 201 ", "HTTP/1.1 200 ", "HTTP/1.1 404 "].map(|status| answers.find(status));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answers}");

    let old = say(server.http, b"GET /api/v1/peers/ping HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with(b"HTTP/1.0 200"));
    server.stop().await;
}

#[tokio::test]
async fn what_a_header_announces_costs_nobody_anything() {
    let server = small().await;
    for path in ["/api/v1/transactions", "/api/peers/ping", "/api/peers/list", "/api/nothing"] {
        let words = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: 9000000000000000000\r\nconnection: close\r\n\r\n"
        );
        let status = parse(&say(server.http, words.as_bytes()).await, "POST").status;
        assert!([404, 405, 413].contains(&status), "{path}: {status}");
    }
    assert_eq!(server.ask_both(Ask::get("/api/health")).await.status, 200);
    server.publish(b"after").await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let server = small().await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        let words = format!("{PUBLISH}content-length: 60000\r\n\r\nabc");
        stream.write_all(words.as_bytes()).await.unwrap();
        drop(stream);
    }
    tokio::time::timeout(Duration::from_mins(1), server.publish(b"after")).await.unwrap();
    server.stop().await;
}
