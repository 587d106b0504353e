//! Each rung of the ladder beside the others and beside a raw tonic stream.
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
//! The raw stream is tonic's client and server over hyper and TLS 1.3, as they come.

mod raw_tonic;

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use sorcha_peer::ports::{Accepted, FrameSink, FrameStream, Transport};
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Endpoint, Identity};
use sorcha_peer_benches::{cpu_seconds, is_smoke, median};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const SIZES: [(usize, &str); 2] = [(1024, "1KiB"), (64 * 1024, "64KiB")];
/// Bytes that are sent between two looks at the clock.
const BATCH_BYTES: usize = 8 << 20;
/// The row that nothing of ours is in.
const RAW: &str = "raw tonic stream";
/// The row that the others are compared with.
const DIRECT: &str = "grpc-stream";

/// One direction of an open link.
struct Path {
    name: &'static str,
    sink: FrameSink,
    stream: FrameStream,
    /// Halves that nothing travels on; dropped, they would end the link.
    _idle: Option<(FrameSink, FrameStream)>,
}

impl Path {
    /// The raw stream.
    async fn raw() -> Self {
        let (sink, stream) = raw_tonic::open().await;
        Self { name: RAW, sink, stream, _idle: None }
    }

    /// A link over our own transport.
    async fn open(name: &'static str) -> Self {
        let transport = || {
            let identity = Identity::generate().expect("random bytes");
            GrpcTransport::new(identity, GrpcOptions::default()).expect("a transport")
        };
        let (server, client) = (transport(), transport());
        let bind = "127.0.0.1:0".parse().expect("an address");
        let mut listener = server.listen(bind).await.expect("a listener");
        let endpoint = Endpoint::from(listener.local_addr());
        let (accepted, dialled) = futures::join!(listener.accept(), client.dial(&endpoint, None));
        let Accepted::Link(accepted) = accepted else { panic!("{name}: {accepted:?}") };
        let dialled = dialled.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sink, stream) = (dialled.sink, accepted.stream);
        Self { name, sink, stream, _idle: Some((accepted.sink, dialled.stream)) }
    }

    /// Sends frames and receives them.
    async fn pass(&mut self, frame: &Bytes, count: usize) {
        let Self { sink, stream, .. } = self;
        let send = async {
            for _ in 0..count {
                sink.send(frame.clone()).await.expect("sent");
            }
        };
        let receive = async {
            for _ in 0..count {
                let got = stream.next().await.expect("a frame").expect("a frame");
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

/// The paths that are built in, the raw stream first.
async fn paths(picked: &[String]) -> Vec<Path> {
    let is_picked =
        |name: &str| picked.is_empty() || picked.iter().any(|word| name.contains(&**word));
    let mut paths = vec![Path::raw().await, Path::open(DIRECT).await];
    paths.retain(|path| path.name == RAW || path.name == DIRECT || is_picked(path.name));
    paths
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let picked: Vec<_> = arguments.into_iter().filter(|a| !a.starts_with('-')).collect();
    let (rounds, span) = match (is_smoke(), is_quick) {
        (true, _) => (1, Duration::ZERO),
        (_, true) => (3, Duration::from_millis(500)),
        _ => (7, Duration::from_secs(1)),
    };
    let mut paths = runtime.block_on(paths(&picked));
    println!(
        "{:<20} {:>6} {:>12} {:>8} {:>10} {:>12} {:>14}",
        "path", "frame", "messages/s", "MB/s", "CPU us", "to raw tonic", "to grpc-stream"
    );
    for (size, label) in SIZES {
        let mut rows = vec![Vec::new(); paths.len()];
        for _ in 0..rounds {
            for (path, row) in paths.iter_mut().zip(&mut rows) {
                row.push(runtime.block_on(path.measure(size, span)));
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
