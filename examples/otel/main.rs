//! Traces across nodes: what publishes at one node and what handles it at another are one trace, and so
//! are a request and its handler.
//!
//! ```text
//! cargo run --example otel              # to OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318
//! cargo run --example otel -- --check   # to itself; ends with status 0 only if it is one trace
//! ```
//!
//! What to copy:
//!
//! - [`traceparent`] takes the text out of the span that publishes or asks, [`follow`] makes a span that
//!   handles go on with it.
//! - [`is_exported`] leaves out spans that last as long as a node or a link: nothing in them would be
//!   exported before they end, and all would be one trace.
//! - The end: shutting the provider down waits for its thread, which exports what is left. On the only
//!   thread of a runtime that an exporter needs, that would wait for ever: take a runtime with several
//!   threads, and `spawn_blocking`.

mod otlp;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use sorcha_peer::{Item, PeerNode, Request, StartAt, Subscription};
use tracing::{Instrument, Metadata, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

use otlp::{PlainHttp, Receiver};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Maximum time for anything that the two nodes do together.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        None => export_to(None).await,
        Some("--check") => check().await,
        Some(other) => Err(format!("unknown argument {other:?}; there is only --check").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otel: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Exports to itself, and looks at what comes.
async fn check() -> Result<(), Error> {
    let receiver = Receiver::start()?;
    export_to(Some(receiver.endpoint())).await?;
    for (first, then) in
        [("place_order", "publish"), ("place_order", "handle_order"), ("ask", "answer")]
    {
        receiver.check_child(first, then)?;
        println!("{first} → {then}: one trace");
    }
    Ok(())
}

/// Runs the nodes and exports their spans.
async fn export_to(endpoint: Option<String>) -> Result<(), Error> {
    let provider = provider(endpoint)?;
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("otel"));
    // A program may set the subscriber of its whole process; the library never does.
    tracing_subscriber::registry().with(layer.with_filter(filter_fn(is_exported))).try_init()?;
    run().await?;
    tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    Ok(())
}

/// Exports in batches, from a thread of its own.
fn provider(endpoint: Option<String>) -> Result<SdkTracerProvider, Error> {
    // A service takes a feature of `opentelemetry-otlp` instead, which brings a client.
    let exporter = SpanExporter::builder().with_http().with_http_client(PlainHttp);
    let exporter = exporter.with_protocol(Protocol::HttpBinary);
    let exporter = match endpoint {
        Some(endpoint) => exporter.with_endpoint(endpoint).build()?,
        None => exporter.build()?,
    };
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).build())
}

/// Own spans, and those of the library that cover one piece of work.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let is_work = matches!(metadata.name(), "publish" | "request" | "serve_request");
    metadata.target().starts_with("otel") || is_work
}

/// Text of a span's trace context; `None` where nobody traces.
fn traceparent(span: &Span) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove("traceparent")
}

/// Makes a new span a child of what a text says, on whatever node that is. Where one publish has very many
/// readers, `span.add_link(parent.span().span_context().clone())` makes a trace of each instead.
fn follow(span: &Span, traceparent: Option<String>) {
    let Some(text) = traceparent else { return };
    let carrier = HashMap::from([("traceparent".to_owned(), text)]);
    // Refused only where the span has begun, or nobody traces.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}

async fn run() -> Result<(), Error> {
    let shop = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    let address = shop.listen_addr().map(|address| address.to_string());
    let warehouse = PeerNode::builder().listen("127.0.0.1:0").bootstrap(address).start().await?;
    warehouse.wait_ready(1, PATIENCE).await?;
    shop.wait_ready(1, PATIENCE).await?;

    let mut orders = warehouse.subscribe("orders", StartAt::Now).await?;
    place_order(&shop).await?;
    tokio::time::timeout(PATIENCE, handle_order(&mut orders)).await??;

    warehouse.handle_requests("stock", answer)?;
    ask(&shop, &warehouse).await?;

    warehouse.shutdown(PATIENCE).await?;
    shop.shutdown(PATIENCE).await?;
    Ok(())
}

async fn place_order(shop: &PeerNode) -> Result<(), Error> {
    let span = info_span!("place_order");
    let publish = async {
        match traceparent(&Span::current()) {
            Some(text) => shop.publish_traced("orders", "one widget", &text).await,
            None => shop.publish("orders", "one widget").await,
        }
    };
    publish.instrument(span).await?;
    Ok(())
}

async fn handle_order(orders: &mut Subscription) -> Result<(), Error> {
    let Some(Item::Delivery(delivery)) = orders.next().await else {
        return Err("no order came".into());
    };
    let span = info_span!("handle_order", id = %delivery.transaction.id());
    follow(&span, delivery.transaction.traceparent());
    span.in_scope(|| println!("order: {} bytes", delivery.transaction.payload().len()));
    Ok(())
}

async fn ask(shop: &PeerNode, warehouse: &PeerNode) -> Result<(), Error> {
    let span = info_span!("ask");
    let peer = warehouse.peer_id();
    let request = async {
        match traceparent(&Span::current()) {
            Some(text) => shop.request_traced(peer, "stock", "widgets", PATIENCE, &text).await,
            None => shop.request_within(peer, "stock", "widgets", PATIENCE).await,
        }
    };
    let answer = request.instrument(span).await?;
    println!("stock: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

async fn answer(request: Request) -> Result<opentelemetry_http::Bytes, String> {
    let span = info_span!("answer");
    follow(&span, request.traceparent());
    Ok(span.in_scope(|| "42".into()))
}
