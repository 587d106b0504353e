//! Nodes that reach each other by requests alone, over a path that ends every connection.

use std::sync::Arc;
use std::time::Duration;

use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Event, PeerNode, StartAt, TransportKind};
use tokio::task::JoinSet;

use crate::common::{
    address, builder, config, config_with, identity, ids, noise, ready, rest, start, start_alone,
    stop, until, until_peers,
};
use crate::cutting_path::{Cut, cutting_path};

/// Number of transactions of each node, and the time between two.
const EACH: u64 = 80;
const PACE: Duration = Duration::from_millis(40);
/// Life of a connection, of which several pass meanwhile.
const LIFE: Duration = Duration::from_millis(900);

/// A node that only dials, by this rung.
async fn start_dialler(rung: TransportKind, contact: &str) -> PeerNode {
    let identity = identity(77);
    let transport = GrpcTransport::new(identity.clone(), GrpcOptions::from_config(&config()));
    let transport = transport.unwrap().rung(rung).unwrap();
    let config = config_with(|config| config.listen.address = None);
    let builder = builder().config(config).identity(identity).transport(Arc::new(transport));
    start(builder.bootstrap([contact])).await
}

/// Publishes at a steady pace: small ones, and now and then one of several pieces.
async fn publish(node: &PeerNode, seed: u64) {
    for n in 0..EACH {
        let size = if n % 16 == 7 { 200_000 } else { 500 };
        node.publish("orders", noise(1000 * seed + n, size)).await.unwrap();
        tokio::time::sleep(PACE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_ends_every_connection_loses_nothing_and_breaks_no_link() {
    let cases = [
        (TransportKind::GrpcUnary, Cut::Time(LIFE)),
        (TransportKind::Rest, Cut::Time(LIFE)),
        (TransportKind::Rest, Cut::Bytes(150_000)),
    ];
    for (rung, cut) in cases {
        let mut tasks = JoinSet::new();
        let a = start_alone().await;
        let server = address(&a).parse().unwrap();
        let path = cutting_path(server, cut, &mut tasks).await;
        let b = start_dialler(rung, &path.to_string()).await;
        ready(&a, 1).await;
        ready(&b, 1).await;
        let peers = until_peers(&b, "a link", |peers| !peers.is_empty()).await;
        assert_eq!(peers[0].transport, rung);

        let (mut down, mut other_down) = (a.events(), b.events());
        let breaks = async {
            loop {
                let event = tokio::select! {
                    event = down.next() => event,
                    event = other_down.next() => event,
                };
                if let Some(Event::PeerDown { reason, .. }) = event {
                    break reason;
                }
            }
        };
        let work = async {
            let mut heard = Vec::new();
            for node in [&a, &b] {
                heard.push(node.subscribe("orders", StartAt::Earliest).await.unwrap());
            }
            tokio::join!(publish(&a, 1), publish(&b, 2));
            for node in [&a, &b] {
                until(node, "everything is there", |s| s.retained == 2 * EACH).await;
            }
            heard
        };
        let heard = tokio::select! {
            heard = work => heard,
            reason = breaks => panic!("{rung}: a link broke: {reason}"),
        };
        tokio::join!(stop(&a), stop(&b));
        for subscription in heard {
            let delivered = rest(subscription).await;
            assert_eq!(delivered.len() as u64, 2 * EACH, "{rung}: each once");
            assert_eq!(ids(&delivered).len() as u64, 2 * EACH);
        }
    }
}
