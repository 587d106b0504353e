//! Requests of one node to another over each rung, beside bare tonic unary calls: both are answered with
//! their own bodies.
//!
//! `cargo bench --bench rungs -- request` (with `--quick` for a short run, words to pick rungs)
//!
//! A row gives the median over several rounds of requests per second, of the 50th and 99th percentile of
//! the time that one takes, and of CPU of the whole process (so of both ends), and the ratio of the rate to
//! that of the bare call in the same round.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sorcha_peer::error::FailureKind;
use sorcha_peer::transport::{GrpcOptions, GrpcTransport};
use sorcha_peer::{Config, Identity, PeerId, PeerNode, Request, TransportKind};
use sorcha_peer_benches::{cpu_seconds, median};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::raw_tonic::Unary;
use super::{RUNGS, Run};

/// Numbers of requests under way at once.
const AT_ONCE: [usize; 2] = [1, 64];
const BODY_BYTES: usize = 1024;
const PROTOCOL: &str = "echo";
/// Row that nothing of ours is in.
const RAW: &str = "bare tonic unary";

/// Two ends of what requests take.
#[derive(Clone)]
enum Way {
    Raw(Unary),
    Nodes { asker: PeerNode, peer: PeerId, _server: PeerNode },
}

impl Way {
    /// Links two nodes by this rung; `None` where it is not built in.
    async fn nodes(rung: TransportKind) -> Option<Self> {
        let mut config = Config::default();
        config.messages.max_concurrent = 64;
        config.listen.address = Some("127.0.0.1:0".parse().expect("an address"));
        let server = PeerNode::builder().config(config.clone()).start().await.expect("a node");
        let echo = async |request: Request| Ok(request.body().clone());
        server.handle_requests(PROTOCOL, echo).expect("a free name");
        config.listen.address = None;
        let identity = Identity::generate().expect("random bytes");
        let transport = GrpcTransport::new(identity.clone(), GrpcOptions::from_config(&config));
        let transport = match transport.expect("a transport").rung(rung) {
            Err(error) if error.kind == FailureKind::Unsupported => return None,
            rung => rung.expect("a rung"),
        };
        let asker = PeerNode::builder().config(config).identity(identity);
        let address = server.listen_addr().map(|address| address.to_string());
        let asker = asker.transport(Arc::new(transport)).bootstrap(address);
        let asker = asker.start().await.expect("a node");
        asker.wait_ready(1, Duration::from_mins(1)).await.expect("a link");
        Some(Self::Nodes { asker, peer: server.peer_id(), _server: server })
    }

    async fn ask(&self, body: &Bytes) {
        let answer = match self {
            Self::Raw(client) => client.call(body.clone()).await,
            Self::Nodes { asker, peer, .. } => {
                asker.request(*peer, PROTOCOL, body.clone()).await.expect("an answer")
            }
        };
        assert_eq!(answer.len(), body.len());
    }

    /// Asks for this long, so many at once.
    async fn measure(&self, at_once: usize, span: Duration) -> Figures {
        let body = Bytes::from(vec![7; BODY_BYTES]);
        let (cpu, start) = (cpu_seconds("self"), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let (way, body) = (self.clone(), body.clone());
            tasks.spawn(async move {
                let mut times = Vec::new();
                while times.is_empty() || start.elapsed() < span {
                    let asked = Instant::now();
                    way.ask(&body).await;
                    times.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                times
            });
        }
        let mut times = tasks.join_all().await.concat();
        times.sort_by(f64::total_cmp);
        let cpu = cpu_seconds("self") - cpu;
        let (count, at) = (times.len() as f64, |part: usize| times[times.len() * part / 100]);
        Figures {
            rate: count / start.elapsed().as_secs_f64(),
            p50: at(50),
            p99: at(99),
            cpu: cpu * 1e6 / count,
        }
    }
}

/// One row in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Requests per second.
    rate: f64,
    /// Percentiles of the time in microseconds.
    p50: f64,
    p99: f64,
    /// CPU microseconds for each.
    cpu: f64,
}

pub(crate) fn main(runtime: &Runtime, run: &Run) {
    let mut ways = vec![(RAW.to_owned(), Way::Raw(runtime.block_on(Unary::open())))];
    for rung in RUNGS {
        let name = rung.to_string();
        if run.picks(&name)
            && let Some(way) = runtime.block_on(Way::nodes(rung))
        {
            ways.push((name, way));
        }
    }
    println!(
        "{:<18} {:>7} {:>11} {:>9} {:>9} {:>9} {:>14}",
        "1 KiB echo", "at once", "requests/s", "p50 us", "p99 us", "CPU us", "of bare tonic"
    );
    for at_once in AT_ONCE {
        let mut rows = vec![Vec::new(); ways.len()];
        for _ in 0..run.rounds {
            for ((_, way), row) in ways.iter().zip(&mut rows) {
                row.push(runtime.block_on(way.measure(at_once, run.span)));
            }
        }
        for ((name, _), row) in ways.iter().zip(&rows) {
            // Of the same round.
            let pairs: Vec<_> = row.iter().zip(&rows[0]).collect();
            println!(
                "{name:<18} {at_once:>7} {:>11.0} {:>9.0} {:>9.0} {:>9.1} {:>14.2}",
                median(row, |row| row.rate),
                median(row, |row| row.p50),
                median(row, |row| row.p99),
                median(row, |row| row.cpu),
                median(&pairs, |(ours, raw)| ours.rate / raw.rate),
            );
        }
    }
}
