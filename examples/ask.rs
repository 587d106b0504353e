//! One node asks another: `cargo run --example ask` prints the question and the answer.

use std::time::Duration;

use sorcha_peer::{PeerNode, Request};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shop = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    shop.handle_requests("price", async |request: Request| match &request.body()[..] {
        b"widgets" => Ok("3 for a crown".into()),
        _ => Err("we have none".to_owned()),
    })?;

    let address = shop.listen_addr().map(|address| address.to_string());
    let buyer = PeerNode::builder().listen("127.0.0.1:0").bootstrap(address).start().await?;
    buyer.wait_ready(1, Duration::from_secs(10)).await?;
    for question in ["widgets", "unicorns"] {
        match buyer.request(shop.peer_id(), "price", question).await {
            Ok(answer) => println!("{question}? {}", String::from_utf8_lossy(&answer)),
            Err(error) => println!("{question}? {error}"),
        }
    }
    Ok(())
}
