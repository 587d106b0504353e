//! A web service that embeds a node: orders posted to any instance appear at all of them.
//!
//! The service brings its own runtime, its own router and its own lifetime; the node is one more
//! value in it. `main` starts two instances on loopback, posts an order to each over HTTP, waits
//! until both list both, prints what it saw, and ends with status 0 only if all of that holds:
//!
//! ```text
//! cargo run --example embed
//! ```
//!
//! What to copy: handlers hold a [`WeakPeerNode`], so that a request that is still running never
//! keeps a node alive that `main` wants to stop; the reader of the subscription ends by itself
//! when the node does; and the order of stopping is web server first, node last.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sorcha_peer::{Cursor, Item, PeerId, PeerNode, StartAt, Subscription, WeakPeerNode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const TOPIC: &str = "orders";
/// Maximum number of orders that an instance lists; the newest win.
const MAX_LISTED: usize = 1000;
/// Maximum time for an order to get from one instance to the other.
const PATIENCE: Duration = Duration::from_secs(20);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Order as it is posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    quantity: u32,
}

/// Order as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Listed {
    cursor: Cursor,
    origin: PeerId,
    #[serde(flatten)]
    order: Order,
}

/// State that the handlers share.
#[derive(Clone)]
struct App {
    node: WeakPeerNode,
    orders: Arc<Mutex<Vec<Listed>>>,
}

impl App {
    fn node(&self) -> Result<PeerNode, Refusal> {
        self.node.upgrade().ok_or_else(|| unavailable(&"the service is stopping"))
    }

    fn listed(&self) -> Vec<Listed> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Collects what is delivered until the node is shut down.
    async fn collect(self, mut orders: Subscription) {
        while let Some(item) = orders.next().await {
            let Item::Delivery(delivery) = item else { continue };
            // Others publish on this topic too: what is no order is not ours to trip over.
            let Ok(order) = serde_json::from_slice(delivery.transaction.payload()) else {
                continue;
            };
            let origin = delivery.transaction.origin();
            let listed = Listed { cursor: delivery.cursor, origin, order };
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            if orders.len() == MAX_LISTED {
                orders.remove(0);
            }
            orders.push(listed);
        }
    }
}

type Refusal = (StatusCode, Json<Value>);

fn unavailable(why: &impl ToString) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": why.to_string() })))
}

/// `POST /orders`: answered once the order is in the node's outbox, also while it is offline.
async fn post_order(
    State(app): State<App>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let payload = serde_json::to_vec(&order).map_err(|error| unavailable(&error))?;
    let receipt = app.node()?.publish(TOPIC, payload).await.map_err(|error| unavailable(&error))?;
    Ok((StatusCode::CREATED, Json(json!({ "id": receipt.id() }))))
}

/// `GET /orders`: everybody's orders, in the order in which this instance accepted them.
async fn list_orders(State(app): State<App>) -> Json<Vec<Listed>> {
    Json(app.listed())
}

/// `GET /health`: how well this instance is connected.
async fn health(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let node = app.node()?;
    let stats = node.stats().await.map_err(|error| unavailable(&error))?;
    Ok(Json(json!({ "peer": stats.peer_id, "mode": stats.mode, "links": stats.links })))
}

/// One instance of the service.
struct Service {
    http: SocketAddr,
    node: PeerNode,
    collector: JoinHandle<()>,
    server: JoinHandle<std::io::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Service {
    async fn start(bootstrap: Option<SocketAddr>) -> Result<Self, Error> {
        let node = PeerNode::builder()
            .network("embed-example")
            .listen("127.0.0.1:0")
            .bootstrap(bootstrap.map(|address| address.to_string()))
            .start()
            .await?;
        let app = App { node: node.downgrade(), orders: Arc::default() };
        let orders = node.subscribe(TOPIC, StartAt::Earliest).await?;
        let collector = tokio::spawn(app.clone().collect(orders));

        let router = Router::new()
            .route("/orders", post(post_order).get(list_orders))
            .route("/health", get(health))
            .with_state(app);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let http = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(async move { serve.await });
        Ok(Self { http, node, collector, server, stop })
    }

    /// Ends the web server first, then the node.
    async fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        self.server.await??;
        self.node.shutdown(Duration::from_secs(5)).await?;
        self.collector.await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let first = Service::start(None).await?;
    let second = Service::start(first.node.listen_addr()).await?;
    println!("two instances: http://{} and http://{}", first.http, second.http);
    second.node.wait_ready(1, PATIENCE).await?;

    let widgets = Order { item: "widget".to_owned(), quantity: 3 };
    let gears = Order { item: "gear".to_owned(), quantity: 7 };
    for (service, order) in [(&first, &widgets), (&second, &gears)] {
        let answer = http(service.http, "POST", "/orders", Some(order)).await?;
        println!("posted {order:?} to {}: {answer}", service.http);
    }
    for service in [&first, &second] {
        let listed = wait_for_orders(service, &[&widgets, &gears]).await?;
        println!("{} lists {listed:?}", service.http);
        println!("{} is {}", service.http, http(service.http, "GET", "/health", None).await?);
    }
    second.stop().await?;
    first.stop().await?;
    println!("both instances have both orders");
    Ok(())
}

/// Asks an instance for its list until every one of `wanted` is on it, once.
async fn wait_for_orders(service: &Service, wanted: &[&Order]) -> Result<Vec<Order>, Error> {
    let ask = async {
        loop {
            let listed = http(service.http, "GET", "/orders", None).await?;
            let listed: Vec<Listed> = serde_json::from_value(listed)?;
            let orders: Vec<Order> = listed.into_iter().map(|listed| listed.order).collect();
            if wanted.iter().all(|order| orders.contains(order)) {
                let exact = orders.len() == wanted.len();
                return if exact { Ok(orders) } else { Err("an order is listed twice".into()) };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.map_err(|_| "the orders did not arrive")?
}

/// Sends one request over one connection: the smallest HTTP client that will do.
async fn http(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Order>,
) -> Result<Value, Error> {
    let body = body.map(serde_json::to_string).transpose()?.unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 20") {
        return Err(format!("{method} {path}: {status}: {body}").into());
    }
    Ok(serde_json::from_str(body)?)
}
