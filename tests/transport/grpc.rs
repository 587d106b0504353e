//! The gRPC transport over real sockets and real TLS: the suite, and everything that hostile or
//! broken clients do. After each of them, the listener must serve the next.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use futures::{SinkExt, StreamExt};
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::{RawLink, Transport};
use sorcha_peer::testing::{self, TransportNode};
use sorcha_peer::transport::GrpcOptions;
use sorcha_peer::{Config, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::common::{
    HANG, Server, any_port, identity, impatient, in_time, node, plaintext, transport,
};
use crate::raw_grpc::{self, Certificate, LINK_PATH, Peer, RawStream};

/// Time for tests in which a time-out is what is waited for.
const SOON: Duration = Duration::from_millis(200);

/// A link by other means than our own transport.
async fn raw_link(server: &mut Server) -> (Peer, RawStream, RawLink) {
    let address = server.address;
    let client = async {
        let mut peer = Peer::connect(address, &identity(1)).await;
        let stream = peer.open(LINK_PATH).await;
        (peer, stream)
    };
    let ((peer, stream), link) =
        in_time(join(client, TransportNode::accept(&mut server.listener))).await;
    (peer, stream, link)
}

#[tokio::test]
async fn it_conforms() {
    let options = GrpcOptions::default();
    in_time(testing::transport(&node(1, &options), &node(2, &options), any_port())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_on_several_threads() {
    let options = GrpcOptions::default();
    in_time(testing::transport(&node(1, &options), &node(2, &options), any_port())).await;
}

#[tokio::test]
async fn it_conforms_in_plaintext() {
    let options = plaintext();
    let node = |seed| TransportNode::unproven(identity(seed).peer_id(), transport(seed, &options));
    in_time(testing::transport(&node(1), &node(2), any_port())).await;
}

#[test]
fn the_options_are_those_of_the_configuration() {
    let mut config = Config::default();
    config.connection.handshake_timeout = Duration::from_secs(3);
    config.listen.max_handshakes_per_ip = 7;
    let options = GrpcOptions::from_config(&config);
    assert_eq!(options.handshake_timeout, Duration::from_secs(3));
    assert_eq!(options.max_handshakes_per_ip, 7);
    assert_eq!(GrpcOptions::default(), GrpcOptions::from_config(&Config::default()));
}

#[tokio::test]
async fn a_name_is_dialled_at_all_its_addresses() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let endpoint: Endpoint = format!("localhost:{}", server.address.port()).parse().unwrap();
    let client = transport(1, &GrpcOptions::default());
    let dial = client.dial(&endpoint, None);
    let (dialled, accepted) =
        in_time(join(dial, TransportNode::accept(&mut server.listener))).await;
    in_time(TransportNode::assert_open(dialled.unwrap(), accepted)).await;
}

#[tokio::test]
async fn plaintext_against_tls_is_a_protocol_error_on_both_sides() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let client = transport(1, &plaintext());
    let endpoint = Endpoint::from(server.address);
    let (dialled, failure) = join(in_time(client.dial(&endpoint, None)), server.failure()).await;
    assert_eq!(failure.kind, FailureKind::Protocol);
    let error = dialled.unwrap_err();
    assert!(matches!(error.kind, FailureKind::Protocol | FailureKind::Closed), "{error:?}");
    server.serves().await;
}

#[tokio::test]
async fn tls_against_plaintext_is_a_protocol_error_on_both_sides() {
    let mut server = Server::start(plaintext()).await;
    let client = transport(1, &GrpcOptions::default());
    let endpoint = Endpoint::from(server.address);
    let (dialled, failure) = join(in_time(client.dial(&endpoint, None)), server.failure()).await;
    assert_eq!(failure.kind, FailureKind::Protocol);
    assert_eq!(dialled.unwrap_err().kind, FailureKind::Protocol);
    server.serves().await;
}

/// TLS does without, since what stands in front of a node has none that counts.
#[tokio::test]
async fn a_client_without_a_usable_certificate_gets_no_link() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.address;
    for certificate in [Certificate::None, Certificate::Ecdsa] {
        let attack = async {
            let mut peer = Peer::connect_with(address, &certificate).await;
            assert_eq!(peer.status(LINK_PATH).await, "16");
        };
        let ((), failure) = in_time(join(attack, server.failure())).await;
        assert_eq!(failure.kind, FailureKind::Identity, "{certificate:?}");
    }
    server.serves().await;
}

#[tokio::test]
async fn a_server_without_a_usable_certificate_is_refused() {
    let (address, server) = raw_grpc::ecdsa_server().await;
    let client = transport(1, &GrpcOptions::default());
    let endpoint = Endpoint::from(address);
    let (dialled, _) = in_time(join(client.dial(&endpoint, None), server)).await;
    let error = dialled.unwrap_err();
    assert!(matches!(error.kind, FailureKind::Protocol | FailureKind::Identity), "{error:?}");
}

#[tokio::test]
async fn another_application_protocol_is_refused() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let certificate = Certificate::Of(identity(1));
    let address = server.address;
    let attack = raw_grpc::tls(address, &certificate, b"spdy/1");
    let (_, failure) = join(attack, server.failure()).await;
    assert_eq!(failure.kind, FailureKind::Protocol);
    server.serves().await;
}

#[tokio::test]
async fn silent_connections_of_one_host_do_not_stop_another() {
    let mut options = GrpcOptions::default();
    options.handshake_timeout = HANG;
    options.max_handshakes_per_ip = 2;
    let mut server = Server::start(options).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(server.address).await.unwrap());
    }
    assert_eq!(server.failure().await.kind, FailureKind::Refused);
    assert_eq!(server.failure().await.kind, FailureKind::Refused);
    server.serves().await;
}

/// A link is a handshake no more: others from its host may come for as long as it lives.
#[tokio::test]
async fn a_link_gives_the_place_of_its_handshake_back() {
    for mut options in [GrpcOptions::default(), plaintext()] {
        options.max_handshakes = 1;
        options.max_handshakes_per_ip = 1;
        let mut server = Server::start(options.clone()).await;
        let mut open = Vec::new();
        for peer in 1..4 {
            let client = transport(peer, &options);
            let endpoint = Endpoint::from(server.address);
            let dial = client.dial(&endpoint, None);
            let (dialled, accepted) =
                in_time(join(dial, TransportNode::accept(&mut server.listener))).await;
            open.push((dialled.unwrap(), accepted));
        }
        for (dialled, accepted) in open {
            in_time(TransportNode::assert_open(dialled, accepted)).await;
        }
    }
}

#[tokio::test]
async fn silent_connections_are_dropped_in_time() {
    let mut server = Server::start(impatient(SOON)).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(server.failure().await.kind, FailureKind::Timeout);
    assert_eq!(in_time(silent.read(&mut [0])).await.unwrap(), 0, "the connection is closed");
}

#[tokio::test]
async fn a_flood_of_connections_is_bounded_and_counted() {
    let mut options = GrpcOptions::default();
    options.handshake_timeout = HANG;
    options.max_handshakes = 4;
    let mut server = Server::start(options).await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(TcpStream::connect(server.address).await.unwrap());
    }
    for _ in 0..16 {
        assert_eq!(server.failure().await.kind, FailureKind::Refused);
    }
    drop(flood);
    for _ in 0..4 {
        assert_eq!(server.failure().await.kind, FailureKind::Closed);
    }
    server.serves().await;
}

#[tokio::test]
async fn garbage_instead_of_http2_is_a_protocol_error() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let certificate = Certificate::Of(identity(1));
    let address = server.address;
    let attack = async {
        let mut tls = raw_grpc::tls(address, &certificate, b"h2").await.unwrap();
        tls.write_all(&[0xa5; 4096]).await.unwrap();
        tls
    };
    let (_tls, failure) = join(in_time(attack), server.failure()).await;
    assert_eq!(failure.kind, FailureKind::Protocol);
    server.serves().await;
}

#[tokio::test]
async fn a_connection_that_opens_no_stream_is_dropped_in_time() {
    let mut server = Server::start(impatient(SOON)).await;
    let address = server.address;
    let (_peer, failure) = join(Peer::connect(address, &identity(1)), server.failure()).await;
    assert_eq!(failure.kind, FailureKind::Timeout);
}

#[tokio::test]
async fn a_connection_that_ends_without_a_stream_is_counted() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.address;
    let attack = async { drop(Peer::connect(address, &identity(1)).await) };
    let ((), failure) = join(in_time(attack), server.failure()).await;
    assert_eq!(failure.kind, FailureKind::Closed);
    server.serves().await;
}

#[tokio::test]
async fn other_methods_are_unimplemented_and_one_connection_is_one_link() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let address = server.address;
    let client = async {
        let mut peer = Peer::connect(address, &identity(1)).await;
        assert_eq!(peer.status("/sorcha.peer.gossip.v1.PeerGossip/Other").await, "12");
        let first = peer.open(LINK_PATH).await;
        assert_eq!(peer.status(LINK_PATH).await, "8");
        (peer, first)
    };
    // The connection is driven by its link, so the link is kept while the client goes on.
    let (mut client, link) =
        in_time(join(client, TransportNode::accept(&mut server.listener))).await;
    assert_eq!(link.remote, identity(1).peer_id());
    client.1.send(Bytes::from_static(b"\0\0\0\0\x02hi"), false);
    let (_sink, mut stream) = (link.sink, link.stream);
    assert_eq!(in_time(stream.next()).await.unwrap().unwrap(), "hi");
    server.serves().await;
}

#[tokio::test]
async fn malformed_messages_end_the_stream_with_their_kind() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let oversize = u32::try_from(RawLink::MAX_FRAME_BYTES + 1).unwrap().to_be_bytes();
    let cases = [
        // Only the length is sent, so refusing means refusing before buffering.
        ([&[0][..], &oversize].concat(), false, FailureKind::Malformed),
        (vec![0, 0xff, 0xff, 0xff, 0xff], false, FailureKind::Malformed),
        // Compressed, though nothing was negotiated.
        (vec![1, 0, 0, 0, 1, 9], false, FailureKind::Protocol),
        (vec![7, 0, 0, 0, 1, 9], false, FailureKind::Protocol),
        // Ends within a message.
        (vec![0, 0, 0, 0, 9, 1, 2], true, FailureKind::Protocol),
    ];
    for (bytes, end, kind) in cases {
        let (_peer, mut raw, mut link) = raw_link(&mut server).await;
        raw.send(Bytes::copy_from_slice(b"\0\0\0\0\x02hi"), false);
        assert_eq!(in_time(link.stream.next()).await.unwrap().unwrap(), "hi");
        raw.send(Bytes::from(bytes.clone()), end);
        let error = in_time(link.stream.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind, kind, "{bytes:?}: {error:?}");
        assert!(in_time(link.stream.next()).await.is_none(), "{bytes:?}");
    }
    server.serves().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_a_timeout() {
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let client = transport(1, &impatient(SOON));
    let endpoint = Endpoint::from(silent.local_addr().unwrap());
    let error = in_time(client.dial(&endpoint, None)).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Timeout);
}

#[tokio::test]
async fn a_listener_that_expects_nobody_hears_of_a_dial_for_another() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let client = transport(1, &GrpcOptions::default());
    let endpoint = Endpoint::from(server.address);
    let dial = client.dial(&endpoint, Some(identity(7).peer_id()));
    let (dialled, failure) = join(in_time(dial), server.failure()).await;
    // The dialler went, and has shown a usable key: it is no stranger for that.
    assert_eq!(failure.kind, FailureKind::Closed);
    assert_eq!(dialled.unwrap_err().kind, FailureKind::Identity);
    server.serves().await;
}

/// A server that makes a link by hand: it says goodbye when it is told to, then a frame, and then gives the first frame
/// that comes.
async fn polite_server(
    socket: TcpListener,
    goodbye: oneshot::Receiver<()>,
    frame: oneshot::Sender<Bytes>,
) {
    let (tcp, _) = socket.accept().await.unwrap();
    let mut connection = h2::server::handshake(tcp).await.unwrap();
    let (request, mut answer) = connection.accept().await.unwrap().unwrap();
    let head = http::Response::builder().header("content-type", "application/grpc");
    let head = head.header("x-sorcha-peer-id", identity(2).peer_id().to_string());
    let mut sending = answer.send_response(head.body(()).unwrap(), false).unwrap();
    tokio::select! {
        more = connection.accept() => panic!("{more:?}"),
        told = goodbye => told.unwrap(),
    }
    connection.graceful_shutdown();
    sending.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
    let mut body = request.into_body();
    let receiving = async {
        let bytes = body.data().await.unwrap().unwrap();
        let _ = frame.send(bytes);
    };
    // Until the link is dropped.
    join(async { while connection.accept().await.is_some() {} }, receiving).await;
}

#[tokio::test]
async fn a_goodbye_is_told_and_the_link_goes_on() {
    let socket = TcpListener::bind(any_port()).await.unwrap();
    let endpoint = Endpoint::from(socket.local_addr().unwrap());
    let ((say, told), (frame, got)) = (oneshot::channel(), oneshot::channel());
    let server = tokio::spawn(polite_server(socket, told, frame));
    let client = transport(1, &plaintext());
    let dial = client.dial(&endpoint, Some(identity(2).peer_id()));
    let mut link = in_time(dial).await.unwrap();
    let mut leaving = link.leaving.take().expect("a notice");
    assert!(futures::poll!(&mut leaving).is_pending());
    say.send(()).unwrap();
    in_time(leaving).await;
    assert_eq!(in_time(link.stream.next()).await.unwrap().unwrap(), "hi");
    link.sink.send("and hello".into()).await.unwrap();
    assert_eq!(in_time(got).await.unwrap(), &b"\0\0\0\0\x09and hello"[..]);
    drop(link);
    in_time(server).await.unwrap();
}

/// Each link has one task on each side; none is left when the links are dropped, whether they
/// were idle, busy, stuck or not even open.
#[tokio::test]
async fn no_task_outlives_its_link() {
    let mut server = Server::start(GrpcOptions::default()).await;
    let client = transport(1, &GrpcOptions::default());
    let endpoint = Endpoint::from(server.address);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let mut links = Vec::new();
    for _ in 0..3 {
        let dial = client.dial(&endpoint, None);
        let (dialled, accepted) =
            in_time(join(dial, TransportNode::accept(&mut server.listener))).await;
        links.extend([dialled.unwrap(), accepted]);
    }
    assert_eq!(alive() - before, links.len());
    // One is stuck: its peer reads nothing.
    let stuck = async {
        loop {
            links[0].sink.send(Bytes::from(vec![0; 64 * 1024])).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(SOON, stuck).await.is_err(), "it never got stuck");
    // One has nobody at the other end any more.
    drop(links.remove(3));
    drop(links);
    drop(server);
    in_time(async {
        while alive() > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
