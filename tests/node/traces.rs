//! Traces: contexts that go from publish to delivery and from request to handler, and the spans that the
//! guide lists.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sorcha_peer::error::{PublishError, RequestError};
use sorcha_peer::{Delivery, Outcome, Request, StartAt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::common::{
    linked_pair, next, noise, ready, soon, start_alone, start_beside, stats, stop, take,
};

const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const KIB: usize = 1024;
const TIME: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_has_the_context_of_its_publish() {
    let (a, b) = linked_pair().await;
    let mut own = a.subscribe("t", StartAt::Now).await.unwrap();
    let mut arrived = b.subscribe("t", StartAt::Now).await.unwrap();
    // Pushed, and in pieces.
    for (seed, size) in [(1, 100), (2, 300 * KIB)] {
        a.publish_traced("t", noise(seed, size), TEXT).await.unwrap();
        a.publish("t", noise(seed, size + 1)).await.unwrap();
        a.publish_traced("t", noise(seed, size + 2), UNSAMPLED).await.unwrap();
        for subscription in [&mut own, &mut arrived] {
            for delivery in take(subscription, 3).await {
                let is_traced = delivery.transaction.payload().len() == size;
                let expected = is_traced.then(|| TEXT.to_owned());
                assert_eq!(delivery.transaction.traceparent(), expected, "{size}");
            }
        }
    }
    // What it carries is the same for who comes later, and asks.
    let c = start_beside(&b).await;
    let mut all = c.subscribe("t", StartAt::Earliest).await.unwrap();
    let traced = |d: &&Delivery| d.transaction.traceparent().is_some();
    assert_eq!(take(&mut all, 6).await.iter().filter(traced).count(), 2);
    stop(&c).await;
    stop(&b).await;
    stop(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_has_the_context_of_its_first_publish() {
    let node = start_alone().await;
    let mut own = node.subscribe("t", StartAt::Now).await.unwrap();
    let transaction = node.prepare("t", "once").unwrap();
    let receipt = node.publish_prepared_traced(transaction.clone(), TEXT).await.unwrap();
    assert_eq!(receipt.outcome(), Outcome::Published);
    let other = TEXT.replace("4bf9", "0000");
    let again = node.publish_prepared_traced(transaction.clone(), &other).await.unwrap();
    assert_eq!(again.outcome(), Outcome::AlreadyPublished);
    let delivered = next(&mut own).await.transaction;
    assert_eq!((delivered.traceparent().as_deref(), &delivered), (Some(TEXT), &transaction));
    stop(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_context_is_refused_and_nothing_is_published() {
    let (a, b) = linked_pair().await;
    b.handle_requests("p", async |_: Request| Ok("".into())).unwrap();
    for text in ["", "x", &TEXT[1..], &TEXT.to_uppercase(), &TEXT.replace("4bf9", "4bfg")] {
        let error = a.publish_traced("t", "x", text).await.unwrap_err();
        assert!(matches!(error, PublishError::InvalidTraceparent), "{error}");
        let prepared = a.prepare("t", "x").unwrap();
        let error = a.publish_prepared_traced(prepared, text).await.unwrap_err();
        assert!(matches!(error, PublishError::InvalidTraceparent), "{error}");
        let answer = a.request_traced(b.peer_id(), "p", "", TIME, text).await;
        assert_eq!(answer, Err(RequestError::InvalidTraceparent));
    }
    assert_eq!(stats(&a).await.retained, 0);
    stop(&b).await;
    stop(&a).await;
}

/// What was read back from a file has its context too.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn stores_need_not_keep_a_context() {
    use crate::common::{address, builder, config_with, start};

    let dir = tempfile::tempdir().unwrap();
    let storage = sorcha_peer::SqliteStorage::open(dir.path()).await.unwrap();
    let config = config_with(|config| {
        config.gossip.max_transaction_size = 1 << 20;
        config.limits.memory = 16 << 20;
    });
    let a = start(builder().config(config).storage(storage)).await;
    let receipt = a.publish_traced("t", "traced", TEXT).await.unwrap();
    // More than node and store keep in memory of what is new.
    for seed in 0..6 {
        a.publish("other", noise(seed, KIB * KIB)).await.unwrap();
    }
    let mut own = a.subscribe("t", StartAt::Earliest).await.unwrap();
    assert_eq!(next(&mut own).await.transaction.traceparent().as_deref(), Some(TEXT));
    let late = start(builder().bootstrap([address(&a)])).await;
    let mut arrived = late.subscribe("t", StartAt::Earliest).await.unwrap();
    let transaction = next(&mut arrived).await.transaction;
    assert_eq!(transaction.id(), receipt.id());
    assert_eq!(transaction.traceparent().as_deref(), Some(TEXT));
    stop(&late).await;
    stop(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_has_the_context_of_the_request() {
    let (a, b) = linked_pair().await;
    let handler = async |request: Request| Ok(request.traceparent().unwrap_or_default().into());
    b.handle_requests("p", handler).unwrap();
    let ask = async |text: &str, size: usize| {
        let answer = a.request_traced(b.peer_id(), "p", noise(1, size), TIME, text);
        soon("an answer", answer).await.unwrap()
    };
    // Whole, and in parts.
    assert_eq!(ask(TEXT, 10).await, TEXT);
    assert_eq!(ask(TEXT, 200 * KIB).await, TEXT);
    assert_eq!(ask(UNSAMPLED, 10).await, "");
    assert_eq!(soon("an answer", a.request(b.peer_id(), "p", "")).await.unwrap(), "");
    stop(&b).await;
    stop(&a).await;
}

/// Spans and events of this crate that a subscriber has seen, as rows of the guide.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeSet<String>>>);

impl Seen {
    fn note(&self, kind: &str, name: &str, metadata: &Metadata<'_>) {
        if metadata.target().starts_with("sorcha_peer::") {
            let mut fields = String::new();
            for field in metadata.fields().iter().filter(|field| field.name() != "message") {
                let comma = if fields.is_empty() { "" } else { ", " };
                let _ = write!(fields, "{comma}`{}`", field.name());
            }
            let level = metadata.level().as_str().to_lowercase();
            let row =
                format!("| `{name}` | {kind} | `{}` | {level} | {fields} |", metadata.target());
            self.0.lock().unwrap().insert(row);
        }
    }
}

impl<S: Subscriber> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let metadata = attributes.metadata();
        self.note("span", metadata.name(), metadata);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        if text.0 == "delivered" {
            self.note("event", &text.0, event.metadata());
        }
    }
}

/// Rows of the guide's table, without what is for people alone.
fn listed() -> BTreeSet<String> {
    const HEADING: &str = "| name | kind | target | level | fields | covers |\n";
    let guide = include_str!("../../src/guide/operating.md");
    let (_, table) = guide.split_once(HEADING).expect("the guide has the table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let cut = |row: &str| row.rsplitn(3, '|').nth(2).map(|row| format!("{row}|"));
    rows.filter_map(cut).collect()
}

/// On one thread, so that the subscriber is that of everything that the nodes do.
#[tokio::test]
async fn spans_are_those_that_the_guide_lists() {
    let seen = Seen::default();
    let subscriber = Registry::default().with(seen.clone());
    let guard = tracing::subscriber::set_default(subscriber);
    let (a, b) = linked_pair().await;
    let mut arrived = b.subscribe("t", StartAt::Now).await.unwrap();
    a.publish_traced("t", "x", TEXT).await.unwrap();
    next(&mut arrived).await;
    b.handle_requests("p", async |_: Request| Ok("".into())).unwrap();
    soon("an answer", a.request(b.peer_id(), "p", "x")).await.unwrap();
    stop(&b).await;
    stop(&a).await;
    drop(guard);
    assert_eq!(*seen.0.lock().unwrap(), listed());
}

/// What runs in a task of its own is in the span of what it is for.
#[tokio::test]
async fn a_handler_runs_in_a_span_of_its_node() {
    let guard = tracing::subscriber::set_default(Registry::default());
    let a = start_alone().await;
    let b = start_beside(&a).await;
    for node in [&a, &b] {
        ready(node, 1).await;
    }
    let handler = async |_: Request| {
        let name = tracing::Span::current().metadata().map_or("none", Metadata::name);
        Ok(name.into())
    };
    b.handle_requests("p", handler).unwrap();
    assert_eq!(soon("an answer", a.request(b.peer_id(), "p", "")).await.unwrap(), "serve_request");
    stop(&b).await;
    stop(&a).await;
    drop(guard);
}
