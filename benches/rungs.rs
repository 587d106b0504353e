//! Each rung of the ladder, by each outside that it may have, beside the others and beside a raw tonic stream.
//!
//! `cargo bench --bench rungs` (`-- --quick` for a short run, words to pick rungs)
//!
//! One link over loopback, one direction: frames are sent one by one, each flushed, and received at the
//! other end of it in this process. No node is above: what is measured is the path alone. A row gives the
//! median over several rounds of messages per second, megabytes per second, and CPU of the whole process
//! (so of both ends) for each message, and the ratio of that CPU to the raw stream and to the direct gRPC
//! stream. All rows take turns within a round and ratios are of one round: the machine may be noisy,
//! ratios are less so.
//!
//! `direct` dials `host:port` as peers dial each other: the gRPC stream in its one TLS, every other rung in
//! one TLS for the outside and another, end to end, within. `https` and `http` are what a proxy dials
//! behind which a node listens, without the proxy: encrypted outside or plain, and end to end within.
//!
//! With the word `request`, requests of one node to another are measured instead: see `requests`.
//!
//! The raw stream is tonic's client and server over hyper and TLS 1.3, as they come.

mod raw_tonic;
mod requests;

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use sorcha_peer::error::FailureKind;
use sorcha_peer::ports::{Accepted, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Endpoint, Identity, TransportKind};
use sorcha_peer_benches::{cpu_seconds, is_smoke, median};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use raw_tonic::{FrameSink, FrameStream};

const SIZES: [(usize, &str); 2] = [(1024, "1KiB"), (64 * 1024, "64KiB")];
/// Bytes that are sent between two looks at the clock.
const BATCH_BYTES: usize = 8 << 20;
/// The row that nothing of ours is in.
const RAW: &str = "raw tonic stream";
/// The row that the others are compared with.
const DIRECT: &str = "grpc-stream direct";
const RUNGS: [TransportKind; 4] = [
    TransportKind::GrpcStream,
    TransportKind::WebSocket,
    TransportKind::GrpcUnary,
    TransportKind::Rest,
];
const OUTSIDES: [&str; 3] = ["direct", "https", "http"];

/// One direction of an open link.
struct Path {
    name: String,
    sink: FrameSink,
    stream: FrameStream,
    _idle: Option<Idle>,
}

/// What nothing travels on; dropped, it would end the link.
type Idle = (FrameSink, FrameStream);

fn parse(text: &str) -> Endpoint {
    text.parse().expect("an endpoint")
}

impl Path {
    /// The raw stream.
    async fn raw() -> Self {
        let (sink, stream) = raw_tonic::open().await;
        Self { name: RAW.to_owned(), sink, stream, _idle: None }
    }

    /// A link over our own transport; `None` where the rung is not built in.
    async fn open(rung: TransportKind, outside: &str) -> Option<Self> {
        let name = format!("{rung} {outside}");
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let mut options = GrpcOptions::default();
        options.http = Some(loopback);
        let transport = || {
            let identity = Identity::generate().expect("random bytes");
            GrpcTransport::new(identity, options.clone()).expect("a transport")
        };
        let client = match transport().rung(rung) {
            Err(error) if error.kind == FailureKind::Unsupported => return None,
            client => client.expect("a transport"),
        };
        let mut listener = transport().listen(loopback).await.expect("a listener");
        let endpoint = match outside {
            "direct" => Endpoint::from(listener.local_addr()),
            "https" => parse(&format!("https://{}", listener.local_addr())),
            _ => parse(&format!("http://{}", listener.http_addr().expect("an address"))),
        };
        let (accepted, dialled) = futures::join!(listener.accept(), client.dial(&endpoint, None));
        let Accepted::Link(accepted) = accepted else { panic!("{name}: {accepted:?}") };
        let dialled = dialled.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sink, stream) = (dialled.sink, accepted.stream);
        // REST makes further connections for its link.
        tokio::spawn(async move { while !matches!(listener.accept().await, Accepted::Closed) {} });
        let idle = Some((accepted.sink, dialled.stream));
        Some(Self { name, sink, stream, _idle: idle })
    }

    /// Sends frames and receives them.
    async fn pass(&mut self, frame: &Bytes, count: usize) {
        let Self { name, sink, stream, .. } = self;
        let send = async {
            for _ in 0..count {
                sink.send(frame.clone()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        };
        let receive = async {
            for _ in 0..count {
                let got = stream.next().await.unwrap_or_else(|| panic!("{name}: the end"));
                let got = got.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(got.len(), frame.len());
            }
        };
        futures::join!(send, receive);
    }

    async fn measure(&mut self, size: usize, span: Duration) -> Figures {
        let frame = Bytes::from(vec![7; size]);
        let batch = (BATCH_BYTES / size).min(4096);
        let (cpu, start) = (cpu_seconds("self"), Instant::now());
        let mut messages = 0;
        while messages == 0 || start.elapsed() < span {
            self.pass(&frame, batch).await;
            messages += batch;
        }
        let cpu = cpu_seconds("self") - cpu;
        let messages = messages as f64;
        Figures { rate: messages / start.elapsed().as_secs_f64(), cpu: cpu * 1e6 / messages }
    }
}

/// One row in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Messages per second.
    rate: f64,
    /// CPU microseconds for each.
    cpu: f64,
}

/// Extent of a run.
struct Run {
    /// Words that pick rungs; none picks all.
    picked: Vec<String>,
    rounds: usize,
    span: Duration,
}

impl Run {
    fn picks(&self, name: &str) -> bool {
        self.picked.is_empty() || self.picked.iter().any(|word| name.contains(&**word))
    }
}

/// The paths that are built in, the raw stream first and the direct one second.
async fn paths(run: &Run) -> Vec<Path> {
    let mut paths = vec![Path::raw().await];
    for rung in RUNGS {
        for outside in OUTSIDES {
            let name = format!("{rung} {outside}");
            if name == DIRECT || run.picks(&name) {
                paths.extend(Path::open(rung, outside).await);
            }
        }
    }
    paths
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let mut picked: Vec<_> = arguments.into_iter().filter(|a| !a.starts_with('-')).collect();
    let words = picked.len();
    picked.retain(|word| word != "request");
    let asks = picked.len() < words;
    let (rounds, span) = match (is_smoke(), is_quick) {
        (true, _) => (1, Duration::ZERO),
        (_, true) => (3, Duration::from_millis(500)),
        _ => (7, Duration::from_secs(1)),
    };
    let run = Run { picked, rounds, span };
    if asks {
        requests::main(&runtime, &run);
    } else {
        frames(&runtime, &run);
    }
}

fn frames(runtime: &Runtime, run: &Run) {
    let mut paths = runtime.block_on(paths(run));
    println!(
        "{:<20} {:>6} {:>12} {:>8} {:>10} {:>12} {:>14}",
        "path", "frame", "messages/s", "MB/s", "CPU us", "to raw tonic", "to grpc-stream"
    );
    for (size, label) in SIZES {
        let mut rows = vec![Vec::new(); paths.len()];
        for _ in 0..run.rounds {
            for (path, row) in paths.iter_mut().zip(&mut rows) {
                row.push(runtime.block_on(path.measure(size, run.span)));
            }
        }
        for (path, row) in paths.iter().zip(&rows) {
            // Of the same round.
            let to = |other: usize| {
                let pairs: Vec<_> = row.iter().zip(&rows[other]).collect();
                median(&pairs, |(ours, theirs)| ours.cpu / theirs.cpu)
            };
            let (rate, cpu) = (median(row, |row| row.rate), median(row, |row| row.cpu));
            println!(
                "{:<20} {label:>6} {rate:>12.0} {:>8.0} {cpu:>10.2} {:>12.2} {:>14.2}",
                path.name,
                rate * size as f64 / 1e6,
                to(0),
                to(1),
            );
        }
    }
}
