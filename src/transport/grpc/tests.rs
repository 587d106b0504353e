//! Names that stand for several addresses, over real sockets: 127.0.0.2 and so on, on one port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{GrpcOptions, GrpcTransport};
use crate::error::FailureKind;
use crate::identity::Identity;
use crate::ports::{Accepted, Listener, Transport};
use crate::types::Endpoint;

/// Ends a test that hangs; no test waits for it.
const HANG: Duration = Duration::from_mins(2);
const NAME: &str = "peers.example.com";

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn at(n: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, n])
}

/// Behaviour of an address that is not the peer's.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Nobody,
    Closes,
    Silent,
    Http,
}

/// Lets an address answer in the wrong way.
async fn misbehave(wrong: Wrong, address: SocketAddr, tasks: &mut JoinSet<()>) {
    if matches!(wrong, Wrong::Nobody) {
        return;
    }
    let socket = TcpListener::bind(address).await.unwrap();
    tasks.spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = socket.accept().await {
            match wrong {
                Wrong::Closes | Wrong::Nobody => drop(stream),
                Wrong::Silent => held.push(stream),
                Wrong::Http => {
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
            }
        }
    });
}

async fn listen(seed: u8, address: SocketAddr) -> Box<dyn Listener> {
    let transport = GrpcTransport::new(identity(seed), GrpcOptions::default()).unwrap();
    transport.listen(address).await.unwrap()
}

fn dialler(addresses: &[IpAddr]) -> GrpcTransport {
    GrpcTransport::with_name(identity(1), GrpcOptions::default(), NAME, addresses).unwrap()
}

fn endpoint(port: u16) -> Endpoint {
    format!("{NAME}:{port}").parse().unwrap()
}

/// Accepts until the listener is dropped.
fn serve(mut listener: Box<dyn Listener>, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let mut links = Vec::new();
        loop {
            if let Accepted::Link(link) = listener.accept().await {
                links.push(link);
            }
        }
    });
}

#[tokio::test]
async fn a_name_leads_to_a_peer_whatever_else_answers_there() {
    for wrong in [Wrong::Nobody, Wrong::Closes, Wrong::Silent, Wrong::Http] {
        let mut tasks = JoinSet::new();
        let listener = listen(2, SocketAddr::new(at(22), 0)).await;
        let port = listener.local_addr().port();
        serve(listener, &mut tasks);
        misbehave(wrong, SocketAddr::new(at(23), port), &mut tasks).await;
        let transport = dialler(&[at(23), at(22)]);
        let name = endpoint(port);
        let link = tokio::time::timeout(HANG, transport.dial(&name, None)).await.unwrap();
        let link = link.unwrap_or_else(|error| panic!("{wrong:?}: {error}"));
        assert_eq!((link.remote, link.address.unwrap().ip()), (identity(2).peer_id(), at(22)));
    }
}

/// A whole family is often a black hole, or leads to somebody else.
#[tokio::test]
async fn a_name_with_both_families_leads_to_a_peer_by_either() {
    let v6: IpAddr = [0, 0, 0, 0, 0, 0, 0, 1].into();
    if TcpListener::bind((v6, 0)).await.is_err() {
        println!("SKIPPED: this machine has no IPv6");
        return;
    }
    for wrong in [Wrong::Nobody, Wrong::Closes, Wrong::Silent, Wrong::Http] {
        for (right_ip, wrong_ip) in [(v6, at(28)), (at(28), v6)] {
            let mut tasks = JoinSet::new();
            let listener = listen(2, SocketAddr::new(right_ip, 0)).await;
            let port = listener.local_addr().port();
            serve(listener, &mut tasks);
            misbehave(wrong, SocketAddr::new(wrong_ip, port), &mut tasks).await;
            for addresses in [[wrong_ip, right_ip], [right_ip, wrong_ip]] {
                let transport = dialler(&addresses);
                let name = endpoint(port);
                let link = tokio::time::timeout(HANG, transport.dial(&name, None)).await.unwrap();
                let link = link.unwrap_or_else(|error| panic!("{wrong:?} {wrong_ip}: {error}"));
                assert_eq!(link.address.unwrap().ip(), right_ip);
            }
        }
    }
}

#[tokio::test]
async fn another_peer_than_expected_does_not_win() {
    let mut tasks = JoinSet::new();
    let other = listen(3, SocketAddr::new(at(24), 0)).await;
    let port = other.local_addr().port();
    serve(other, &mut tasks);
    serve(listen(2, SocketAddr::new(at(25), port)).await, &mut tasks);
    let transport = dialler(&[at(24), at(25)]);
    let expected = identity(2).peer_id();
    let link = transport.dial(&endpoint(port), Some(expected)).await.unwrap();
    assert_eq!(link.remote, expected);
    let nobody = transport.dial(&endpoint(port), Some(identity(9).peer_id())).await;
    assert_eq!(nobody.unwrap_err().kind, FailureKind::Identity);
}

#[tokio::test]
async fn addresses_are_left_out_on_request_in_any_spelling() {
    let mut tasks = JoinSet::new();
    let first = listen(2, SocketAddr::new(at(26), 0)).await;
    let port = first.local_addr().port();
    serve(first, &mut tasks);
    serve(listen(3, SocketAddr::new(at(27), port)).await, &mut tasks);
    // A resolver may spell an IPv4 address as an IPv6 one.
    let mapped: IpAddr = "::ffff:127.0.0.26".parse().unwrap();
    let transport = dialler(&[mapped, at(26), at(27)]);
    let (name, first) = (endpoint(port), SocketAddr::new(at(26), port));
    let link = transport.dial_avoiding(&name, None, &[]).await.unwrap();
    assert_eq!((link.remote, link.address), (identity(2).peer_id(), Some(first)));
    let link = transport.dial_avoiding(&name, None, &[first]).await.unwrap();
    assert_eq!(link.remote, identity(3).peer_id());
    let both = [first, SocketAddr::new(at(27), port)];
    let none = transport.dial_avoiding(&name, None, &both).await;
    assert_eq!(none.unwrap_err().kind, FailureKind::NoneLeft);
}
