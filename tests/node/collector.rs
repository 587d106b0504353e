//! The collector for registries of `prometheus-client`.

use std::time::Duration;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

use super::common::{soon, start_alone};

fn scraped(registry: &Registry) -> String {
    let mut scraped = String::new();
    prometheus_text::encode(&mut scraped, registry).expect("a text");
    scraped
}

#[tokio::test]
async fn a_collector_follows_its_node_and_does_not_keep_it() {
    let node = start_alone().await;
    let mut registry = Registry::default();
    registry.register_collector(node.metrics_collector().await.expect("a node"));
    let published = |n: u8| format!("sorcha_peer_transactions_published_total {n}.0\n");
    assert!(scraped(&registry).contains(&published(0)), "{}", scraped(&registry));
    node.publish("t", "x").await.expect("a receipt");
    let follows = async {
        while !scraped(&registry).contains(&published(1)) {
            // Nothing announces figures.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("what was published", follows).await;
    let mut events = node.events();
    drop(node);
    soon("the end", async { while events.next().await.is_some() {} }).await;
    assert!(!scraped(&registry).contains("sorcha_peer_"), "{}", scraped(&registry));
}
