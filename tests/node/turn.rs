//! Nodes that nobody dials, and a TURN server that listens for them: coturn, where it is installed.

use sorcha_peer::{PeerNode, PeerNodeBuilder};

use crate::common::{assert_spreads, builder, ready, soon, start};
use crate::coturn_process::Coturn;

fn hidden(server: &str) -> PeerNodeBuilder {
    builder().listen("127.0.0.1:0").relay(server)
}

/// Waits until a node has an address at its server, and returns it.
async fn relayed(node: &PeerNode) -> String {
    let told = async {
        let mut events = node.events();
        loop {
            let report = node.reachability().await.unwrap();
            if let Some(found) = report.candidates.iter().find(|c| c.source == "relay") {
                assert_eq!(report.advertised.last(), Some(&found.endpoint), "last of all");
                return found.endpoint.clone();
            }
            events.next().await;
        }
    };
    soon("a relayed address", told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_exchange_by_way_of_a_turn_server() {
    let Some(server) = Coturn::start(&[]).await else { return };
    let account = server.account("turn", "s3cret");
    let a = start(hidden(&account)).await;
    let to_a = relayed(&a).await;
    let b = start(hidden(&account)).await;
    relayed(&b).await;
    b.connect(to_a.as_str()).await.unwrap();
    ready(&a, 1).await;
    let (of_a, of_b) = (a.peers().await.unwrap(), b.peers().await.unwrap());
    assert_eq!(of_b[0].address.as_deref(), Some(to_a.as_str()));
    assert_eq!(of_a[0].address, None, "it came from the server");
    assert_spreads(&a, &b).await;
}
