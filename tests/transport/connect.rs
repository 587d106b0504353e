//! Dialling by way of an HTTP proxy: one that is right, those that are wrong, and squid.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::future::join;
use sorcha_peer::error::{FailureKind, TransportError};
use sorcha_peer::ports::{RawLink, Transport};
use sorcha_peer::testing::{self, TransportNode};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Endpoint, TransportKind};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{any_port, dial, identity, in_time, node, transport};
use crate::http_proxy::{HttpProxy, Manner};
use crate::raw_grpc;

/// Time for tests in which a time-out is what is waited for.
const SOON: Duration = Duration::from_millis(300);
const NAME: &str = "peer.example.com";

/// Dials all by way of a proxy, this machine too.
fn by_way_of(proxy: &str) -> GrpcOptions {
    let mut options = GrpcOptions::default();
    options.proxy = Some(proxy.to_owned());
    options.no_proxy.clear();
    options
}

/// Dials by way of a proxy and fails.
async fn failure(options: &GrpcOptions, endpoint: &str) -> TransportError {
    let endpoint: Endpoint = endpoint.parse().unwrap();
    in_time(transport(1, options).dial(&endpoint, None)).await.unwrap_err()
}

/// A link to a listener, which is dialled as `host` with its port.
async fn link(options: &GrpcOptions, host: &str) -> (RawLink, RawLink) {
    let mut listener = transport(2, &GrpcOptions::default()).listen(any_port()).await.unwrap();
    let endpoint = format!("{host}:{}", listener.local_addr().port()).parse().unwrap();
    dial(&transport(1, options), &endpoint, &mut listener).await
}

#[tokio::test]
async fn it_conforms_by_way_of_a_proxy() {
    let proxy = HttpProxy::start(Manner::Tunnels([].into())).await;
    let options = by_way_of(&format!("http://{}", proxy.address));
    in_time(testing::transport(&node(1, &options), &node(2, &options), any_port())).await;
    assert!(proxy.heads().len() > 5, "every dial went by way of it");
}

#[tokio::test]
async fn the_proxy_resolves_the_name_and_is_not_taken_for_the_peer() {
    let mut listener = transport(2, &GrpcOptions::default()).listen(any_port()).await.unwrap();
    let proxy = HttpProxy::with_name(NAME, listener.local_addr()).await;
    let options = by_way_of(&format!("http://user:p%40ss@{}/", proxy.address));
    let (client, endpoint) = (transport(1, &options), format!("{NAME}:5001").parse().unwrap());
    // What is to be left out are addresses of peers.
    let avoid = [proxy.address];
    let dial = client.dial_avoiding(&endpoint, Some(identity(2).peer_id()), &avoid);
    let (dialled, accepted) = in_time(join(dial, TransportNode::accept(&mut listener))).await;
    let dialled = dialled.unwrap();
    assert_eq!((dialled.remote, dialled.address), (identity(2).peer_id(), None));
    assert_eq!(
        proxy.heads(),
        [format!(
            "CONNECT {NAME}:5001 HTTP/1.1\r\nHost: {NAME}:5001\r\n\
             Proxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"
        )]
    );
    in_time(TransportNode::assert_open(dialled, accepted)).await;
}

/// The rungs that are built in.
fn rungs() -> Vec<TransportKind> {
    use TransportKind as K;
    let any = transport(1, &GrpcOptions::default());
    let all = [K::GrpcStream, K::WebSocket, K::GrpcUnary, K::Rest];
    all.into_iter().filter(|rung| any.rung(*rung).is_ok()).collect()
}

#[tokio::test]
async fn every_rung_goes_by_way_of_the_proxy() {
    for rung in rungs() {
        let mut listener = transport(2, &GrpcOptions::default()).listen(any_port()).await.unwrap();
        let proxy = HttpProxy::with_name(NAME, listener.local_addr()).await;
        let client = transport(1, &by_way_of(&proxy.address.to_string())).rung(rung).unwrap();
        let endpoint = format!("{NAME}:5001").parse().unwrap();
        let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
        let (dialled, accepted) = in_time(join(dial, TransportNode::accept(&mut listener))).await;
        let dialled = dialled.unwrap_or_else(|error| panic!("{rung}: {error}"));
        assert_eq!((dialled.kind, dialled.address), (rung, None));
        in_time(TransportNode::assert_open(dialled, accepted)).await;
        let heads = proxy.heads();
        let asked = |head: &String| head.starts_with(&format!("CONNECT {NAME}:5001 "));
        assert!(!heads.is_empty() && heads.iter().all(asked), "{rung}: {heads:?}");
    }
}

#[tokio::test]
async fn where_a_proxy_intercepts_tls_pipes_still_lead_to_the_peer() {
    for rung in rungs() {
        let mut listener = transport(2, &GrpcOptions::default()).listen(any_port()).await.unwrap();
        let (interceptor, _tasks) = raw_grpc::interceptor(listener.local_addr()).await;
        let proxy = HttpProxy::with_name(NAME, interceptor).await;
        let client = transport(1, &by_way_of(&proxy.address.to_string())).rung(rung).unwrap();
        let endpoint = format!("{NAME}:5001").parse().unwrap();
        let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
        if rung == TransportKind::GrpcStream {
            let error = in_time(dial).await.unwrap_err();
            assert_eq!(error.kind, FailureKind::Identity, "{error}");
            assert!(error.to_string().contains("may intercept TLS"), "{error}");
            continue;
        }
        let (dialled, accepted) = in_time(join(dial, TransportNode::accept(&mut listener))).await;
        let dialled = dialled.unwrap_or_else(|error| panic!("{rung}: {error}"));
        assert_eq!(
            (dialled.remote, accepted.remote),
            (identity(2).peer_id(), identity(1).peer_id())
        );
        in_time(TransportNode::assert_open(dialled, accepted)).await;
    }
}

#[tokio::test]
async fn what_the_rules_name_is_dialled_directly() {
    let proxy = HttpProxy::start(Manner::Leaves(String::new())).await;
    let mut options = by_way_of(&format!("http://{}", proxy.address));
    options.no_proxy = GrpcOptions::default().no_proxy;
    let (dialled, accepted) = link(&options, "127.0.0.1").await;
    assert!(dialled.address.is_some());
    in_time(TransportNode::assert_open(dialled, accepted)).await;
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_is_told_with_its_status() {
    use FailureKind as K;
    let html = "Content-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    let many = "X: y\r\n".repeat(65);
    for (answer, kind, words) in [
        (format!("HTTP/1.1 403 Forbidden\r\n{html}"), K::Refused, "403 Forbidden"),
        ("HTTP/1.0 405\r\n\r\n".to_owned(), K::Refused, "405"),
        ("HTTP/1.1 407 Who?\r\n\r\n".to_owned(), K::Refused, "407 Who?: it does not take the user"),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n".to_owned(), K::Refused, "302 Found"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n".to_owned(), K::Unreachable, "502 Bad Gateway"),
        ("HTTP/1.1 503\r\n\r\n".to_owned(), K::Unreachable, "503"),
        ("HTTP/1.1 504 Gateway Timeout\r\n\r\n".to_owned(), K::Timeout, "504"),
        (format!("HTTP/1.1 200 OK\r\n{html}"), K::Protocol, "by way of the proxy"),
        ("HTTP/1.1 101 Switching\r\n\r\n".to_owned(), K::Protocol, "101 Switching"),
        ("HTTP/1.1 999 \r\n\r\n".to_owned(), K::Protocol, "999"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), K::Protocol, "is no HTTP proxy"),
        ("HTTP/2 200 OK\r\n\r\n".to_owned(), K::Protocol, "is no HTTP proxy"),
        ("\r\n\r\n".to_owned(), K::Protocol, "is no HTTP proxy"),
        (format!("HTTP/1.1 200 OK\r\n{many}\r\n"), K::Protocol, "too many header fields"),
        (format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(9000)), K::Protocol, "too long"),
    ] {
        let proxy = HttpProxy::start(Manner::Says(answer.clone())).await;
        let options = by_way_of(&format!("http://user:hunter2@{}", proxy.address));
        let error = failure(&options, "peer.example.com:5001").await;
        let text = error.to_string();
        assert_eq!(error.kind, kind, "{answer:?}: {text}");
        assert!(text.contains(words) && text.contains(&proxy.address.to_string()), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_proxy_that_never_comes_to_an_end_costs_the_connect_timeout_at_most() {
    use FailureKind as K;
    for (manner, kind) in [
        (Manner::Says(String::new()), K::Timeout),
        (Manner::Says("HTTP/1.1 200 OK\r\nA: b\r\n".to_owned()), K::Timeout),
        (Manner::Repeats("A: b\r\n".to_owned()), K::Protocol),
        (Manner::Repeats("x".to_owned()), K::Protocol),
        (Manner::Repeats("HTTP/1.1 100 Continue\r\n\r\n".to_owned()), K::Protocol),
        (Manner::Leaves(String::new()), K::Closed),
        (Manner::Leaves("HTTP/1.1 200 OK\r\n".to_owned()), K::Closed),
    ] {
        let proxy = HttpProxy::start(manner.clone()).await;
        let mut options = by_way_of(&proxy.address.to_string());
        // What ends by itself has all the time that it takes on a busy machine.
        if kind == K::Timeout {
            options.connect_timeout = SOON;
        }
        let error = failure(&options, "peer.example.com:5001").await;
        assert_eq!(error.kind, kind, "{manner:?}: {error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let socket = TcpListener::bind(any_port()).await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let error = failure(&by_way_of(&format!("u:hunter2@{address}")), "peer.example.com:1").await;
    assert_eq!(error.kind, FailureKind::Unreachable);
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot connect to the proxy {address}")), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_proxy_that_answers_for_the_peer_is_seen_through() {
    let (server, task) = raw_grpc::ecdsa_server().await;
    let proxy = HttpProxy::with_name(NAME, server).await;
    let options = by_way_of(&format!("http://{}", proxy.address));
    let error = failure(&options, &format!("{NAME}:5001")).await;
    assert_eq!(error.kind, FailureKind::Identity, "{error}");
    assert!(error.to_string().contains("may intercept TLS"), "{error}");
    task.await.unwrap();
}

#[test]
fn a_proxy_that_cannot_be_used_is_an_error_from_the_start() {
    let options = by_way_of("socks5://user:hunter2@localhost:1080");
    let error = GrpcTransport::new(identity(1), options.clone()).unwrap_err();
    assert_eq!(error.kind, FailureKind::Local);
    assert!(!format!("{error} {error:?} {options:?}").contains("hunter2"));
}

/// squid with rules of its own, which ends with its handle.
struct Squid {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Squid {
    /// Starts squid, where it is installed. It lets through what goes to `port`.
    async fn start(port: u16) -> Option<Self> {
        let program = ["/usr/sbin/squid", "/usr/bin/squid"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())?;
        let socket = TcpListener::bind(any_port()).await.unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let rules = format!(
            "http_port {address}\nacl there port {port}\nhttp_access allow CONNECT there\n\
             http_access deny all\ncache deny all\naccess_log none\ncache_log {path}/cache.log\n\
             pid_filename {path}/squid.pid\ncoredump_dir {path}\nshutdown_lifetime 0 seconds\n\
             pinger_enable off\nvisible_hostname proxy.example.com\n"
        );
        let file = dir.path().join("squid.conf");
        std::fs::write(&file, rules).unwrap();
        // squid as root gives up its rights, and still has to write here.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        }
        let mut command = Command::new(program);
        command.args(["-N", "-f"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let squid = Self { process, address, _dir: dir };
        in_time(async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        Some(squid)
    }
}

#[tokio::test]
async fn squid_opens_the_tunnel_and_refuses_what_its_rules_forbid() {
    let mut listener = transport(2, &GrpcOptions::default()).listen(any_port()).await.unwrap();
    let port = listener.local_addr().port();
    let Some(squid) = Squid::start(port).await else {
        eprintln!("SKIPPED: squid is not installed");
        return;
    };
    let options = by_way_of(&format!("http://{}", squid.address));
    // The name is squid's to resolve.
    let (client, endpoint) = (transport(1, &options), format!("localhost:{port}").parse().unwrap());
    let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
    let (dialled, accepted) = in_time(join(dial, TransportNode::accept(&mut listener))).await;
    let dialled = dialled.unwrap();
    assert_eq!(dialled.address, None);
    in_time(TransportNode::assert_open(dialled, accepted)).await;
    let error = failure(&options, "localhost:9").await;
    assert_eq!(error.kind, FailureKind::Refused, "{error}");
    assert!(error.to_string().contains("403"), "{error}");
    drop(listener);
    let error = failure(&options, &format!("localhost:{port}")).await;
    assert_eq!(error.kind, FailureKind::Unreachable, "{error}");
    assert!(error.to_string().contains("503"), "{error}");
}
