//! IPv6 at every rung: literals in each form of an endpoint, proxies, and one socket for both families.
//!
//! Skipped aloud where this machine has no IPv6 at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures::future::join;
use sorcha_peer::ports::{Listener, RawLink, Transport};
use sorcha_peer::testing::{self, TransportNode};
use sorcha_peer::transport::GrpcOptions;
use sorcha_peer::{Endpoint, TransportKind};

use crate::common::{dial, identity, in_time, rung};
use crate::http_proxy::{HttpProxy, Manner};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn has_ipv6() -> bool {
    let has = std::net::UdpSocket::bind((V6, 0)).is_ok();
    if !has {
        println!("SKIPPED: this machine has no IPv6");
    }
    has
}

fn rungs() -> Vec<TransportKind> {
    use TransportKind as K;
    let all = [K::GrpcStream, K::WebSocket, K::GrpcUnary, K::Rest];
    let is_built = |kind: &K| match kind {
        K::WebSocket => cfg!(feature = "websocket"),
        K::Rest => cfg!(feature = "rest"),
        _ => true,
    };
    all.into_iter().filter(is_built).collect()
}

/// A link of this rung to a listener of the node with seed 2.
async fn link(
    kind: TransportKind,
    options: &GrpcOptions,
    endpoint: &str,
    listener: &mut Box<dyn Listener>,
) -> (RawLink, RawLink) {
    let endpoint: Endpoint = endpoint.parse().unwrap();
    dial(&rung(1, options, kind), &endpoint, listener).await
}

#[tokio::test]
async fn every_rung_conforms_on_ipv6() {
    if !has_ipv6() {
        return;
    }
    let options = GrpcOptions::default();
    for kind in rungs() {
        let node = |seed| TransportNode::new(identity(seed).peer_id(), rung(seed, &options, kind));
        in_time(testing::transport(&node(1), &node(2), SocketAddr::new(V6, 0))).await;
    }
}

#[tokio::test]
async fn a_literal_stands_in_every_form_of_an_endpoint() {
    if !has_ipv6() {
        return;
    }
    let mut options = GrpcOptions::default();
    options.http = Some(SocketAddr::new(V6, 0));
    for kind in rungs() {
        let server = rung(2, &options, kind);
        let mut listener = server.listen(SocketAddr::new(V6, 0)).await.unwrap();
        let (direct, http) = (listener.local_addr(), listener.http_addr().unwrap());
        let port = direct.port();
        let mut forms = vec![
            (format!("[::1]:{port}"), true),
            (format!("grpcs://[0:0::1]:{port}"), true),
            (format!("https://[::1]:{port}/a"), false),
            (format!("http://{http}/a"), false),
        ];
        if kind == TransportKind::WebSocket {
            forms.extend([(format!("wss://[::1]:{port}"), false), (format!("ws://{http}"), false)]);
        }
        for (form, is_direct) in forms {
            let (dialled, accepted) = link(kind, &options, &form, &mut listener).await;
            let known = dialled.address.map(|address| address.ip());
            assert_eq!(known, is_direct.then_some(V6), "{kind} {form}");
            in_time(TransportNode::assert_open(dialled, accepted)).await;
        }
    }
}

#[tokio::test]
async fn a_proxy_and_what_lies_behind_it_may_have_ipv6_literals() {
    if !has_ipv6() {
        return;
    }
    let proxy = HttpProxy::start_at(SocketAddr::new(V6, 0), Manner::Tunnels([].into())).await;
    let mut options = GrpcOptions::default();
    options.proxy = Some(format!("http://{}", proxy.address));
    options.no_proxy.clear();
    for kind in rungs() {
        let server = rung(2, &GrpcOptions::default(), kind);
        let mut listener = server.listen(SocketAddr::new(V6, 0)).await.unwrap();
        let at = listener.local_addr();
        let (dialled, accepted) = link(kind, &options, &at.to_string(), &mut listener).await;
        assert_eq!(dialled.address, None, "it may be anywhere");
        in_time(TransportNode::assert_open(dialled, accepted)).await;
        let wanted = format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n");
        assert!(proxy.heads().contains(&wanted), "{kind}: {:?}", proxy.heads());
    }
}

#[tokio::test]
async fn one_socket_serves_both_families_and_shows_each_address_in_one_spelling() {
    if !has_ipv6() {
        return;
    }
    let options = GrpcOptions::default();
    for kind in rungs() {
        let server = rung(2, &options, kind);
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let mut listener = server.listen(any).await.unwrap();
        let port = listener.local_addr().port();
        for ip in [V4, V6] {
            let endpoint = Endpoint::from(SocketAddr::new(ip, port));
            let client = rung(1, &options, kind);
            let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
            let accept = TransportNode::accept(&mut listener);
            let (dialled, accepted) = in_time(join(dial, accept)).await;
            let dialled = dialled.unwrap_or_else(|error| panic!("{kind} {ip}: {error}"));
            assert_eq!(accepted.address.map(|from| from.ip()), Some(ip), "{kind}");
            in_time(TransportNode::assert_open(dialled, accepted)).await;
        }
    }
}
