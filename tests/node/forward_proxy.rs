//! A node whose network lets it out by an HTTP proxy only, which also resolves names for it.

use sorcha_peer::Event;
use sorcha_peer::error::{ConfigError, FailureKind, StartError};
use sorcha_peer::types::Direction;

use crate::common::{assert_spreads, builder, event, ready, start, start_alone};
use crate::http_proxy::{HttpProxy, Manner};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_a_proxy_lives_on_it() {
    let outside = start_alone().await;
    let name = "peer.example.com";
    let proxy = HttpProxy::with_name(name, outside.listen_addr().unwrap()).await;
    let inside = start(
        builder()
            .dial_only()
            .proxy(format!("http://user:word@{}", proxy.address))
            .bootstrap([format!("{name}:5001")]),
    )
    .await;
    ready(&inside, 1).await;
    assert_spreads(&inside, &outside).await;
    let peers = inside.peers().await.unwrap();
    assert_eq!(peers[0].address.as_deref(), Some("peer.example.com:5001"));
    assert_eq!(peers[0].direction, Direction::Outbound);
    assert!(proxy.heads().iter().all(|head| head.starts_with("CONNECT peer.example.com:5001 ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_told_with_the_bootstrap_peer() {
    let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_owned();
    let proxy = HttpProxy::start(Manner::Says(refusal)).await;
    let node = builder().dial_only().proxy(proxy.address.to_string()).start().await.unwrap();
    let mut events = node.events();
    let error = node.connect("peer.example.com:5001").await.unwrap_err().to_string();
    assert!(error.contains("opens no tunnel to peer.example.com:5001: 407"), "{error}");
    let failed = event(&mut events, "the dial failed", |event| match event {
        Event::DialFailed { address, reason, .. } => Some((address.clone(), *reason)),
        _ => None,
    })
    .await;
    assert_eq!(failed, ("peer.example.com:5001".to_owned(), FailureKind::Refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_proxy_is_a_failed_dial() {
    for (manner, words) in [
        (Manner::Repeats("x".to_owned()), "its answer is too long"),
        (Manner::Leaves("HTTP/1.1 200".to_owned()), "ended the connection"),
    ] {
        let proxy = HttpProxy::start(manner).await;
        let node = builder().dial_only().proxy(proxy.address.to_string()).start().await.unwrap();
        let error = node.connect("peer.example.com:5001").await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_of_another_kind_is_refused_at_the_start() {
    let started = builder().proxy("socks5://localhost:1080").start().await;
    let error = started.unwrap_err();
    assert!(matches!(&error, StartError::Config(ConfigError::Proxy { .. })), "{error}");
    assert!(error.to_string().contains("connection.proxy is no http:// URL"), "{error}");
}
