//! A node behind an ingress that speaks HTTP/1.1 and nothing newer.

use std::net::SocketAddr;

use sorcha_peer::{Endpoint, TransportKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::common::{assert_spreads, builder, config_with, ready, start};

/// Passes on to `target` what is no HTTP/2.
async fn serve(ingress: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = ingress.accept().await {
        connections.spawn(async move {
            let mut first = [0; 4];
            if from.read_exact(&mut first).await.is_err() || first == *b"PRI " {
                let _ = from.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                return;
            }
            let Ok(mut to) = TcpStream::connect(target).await else { return };
            if to.write_all(&first).await.is_ok() {
                let _ = copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_http1_alone_is_passed_by_websocket() {
    let any = || TcpListener::bind("127.0.0.1:0");
    let ingress = any().await.unwrap();
    let endpoint = format!("http://{}/some/where", ingress.local_addr().unwrap());
    let http = any().await.unwrap().local_addr().unwrap();
    let behind = config_with(|config| {
        config.listen.http = Some(http);
        // Else the ingress would be left for the direct way, which is better.
        config.listen.advertise = vec![endpoint.parse::<Endpoint>().unwrap()];
    });
    let behind = start(builder().config(behind)).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(ingress, http));
    let outside = start(builder().dial_only().bootstrap([endpoint])).await;
    for node in [&outside, &behind] {
        ready(node, 1).await;
        let peers = node.peers().await.unwrap();
        assert_eq!(peers[0].transport, TransportKind::WebSocket);
    }
    assert_spreads(&outside, &behind).await;
}
