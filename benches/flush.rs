//! Replay of an outbox, filled while alone, to a peer that appears: transactions per second, beside
//! what is published to a linked peer with everything in memory.
//!
//! `cargo bench --bench flush` (`-- --quick` for a short run)
//!
//! A node without peers publishes 100,000 transactions of 1 KiB, as many as an outbox may hold, into
//! `SQLite` files and is started again on them, so that nothing of them is in memory. A peer, a process
//! of its own, dials it over gRPC with mutual TLS. A replay lasts from the peer's process saying that it
//! is ready to dial until the peer has delivered everything to a subscriber and nothing is left in
//! the node's outbox. The rows:
//!
//! - `flush, peer in memory` and `flush, peer on disk`: where the peer keeps what it gets;
//! - `memory`: both in memory and linked before, 512 publishers at once, until the peer has delivered
//!   everything; what a replay is compared with.
//!
//! Order is checked in each row. CPU time is that of each end's process; rates are wall clock,
//! medians over rounds in which all rows take turns.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use sorcha_peer::{
    Config, Identity, Item, PeerNode, PeerNodeBuilder, SqliteStorage, StartAt, Storage,
};
use sorcha_peer_benches::{cpu_seconds, is_smoke, median};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const TOPIC: &str = "bench";
const PAYLOAD: usize = 1024;
const PUBLISHERS: usize = 512;
/// Maximum number of entries of an outbox.
const OUTBOX: u32 = 100_000;
const MEMORY: u64 = 8 << 30;

fn builder() -> PeerNodeBuilder {
    let mut config = Config::lan();
    config.outbox.max_entries = OUTBOX;
    PeerNode::builder().config(config)
}

fn in_memory(builder: PeerNodeBuilder) -> PeerNodeBuilder {
    builder
        .queue(Storage::memory_queue(OUTBOX as usize))
        .transaction_store(Storage::memory_transactions(Some(MEMORY)))
}

/// Payload that tells its number and does not compress.
fn payload(number: u32) -> Bytes {
    let mut bytes = Vec::with_capacity(PAYLOAD);
    bytes.extend(number.to_le_bytes());
    let mut state = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while bytes.len() < PAYLOAD {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(&state.to_le_bytes()[..4]);
    }
    bytes.into()
}

/// Publishes in the order of the numbers.
async fn publish(node: &PeerNode, count: u32) {
    let publish = |number| {
        let node = node.clone();
        tokio::task::unconstrained(async move {
            node.publish(TOPIC, payload(number)).await.expect("accepted");
        })
    };
    stream::iter(0..count).map(publish).buffered(PUBLISHERS).for_each(async |()| {}).await;
}

/// Runs the peer: says when it is ready to dial and dials when it is told to, says when it is linked, and
/// when it has everything, in order.
async fn be_the_peer(address: &str, count: u32, dir: Option<&Path>) {
    let identity = Identity::generate().expect("random bytes");
    let builder = builder().identity(identity).dial_only();
    let node = match dir {
        Some(dir) => builder.storage(SqliteStorage::open(dir).await.expect("storage")),
        None => in_memory(builder),
    };
    let node = node.start().await.expect("a node");
    let mut inbox = node.subscribe(TOPIC, StartAt::Earliest).await.expect("a subscription");
    println!("ready");
    let mut line = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await.expect("a word");
    node.connect(address).await.expect("a link");
    println!("linked");
    for number in 0..count {
        let item = inbox.next().await.expect("a running node");
        let Item::Delivery(delivery) = item else { panic!("{item:?}") };
        let arrived = delivery.transaction.payload();
        assert_eq!(arrived[..4], number.to_le_bytes(), "out of order");
    }
    println!("done");
    // Until the parent has measured.
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await.expect("the end of input");
}

/// The peer's process.
struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    async fn start(address: &str, count: u32, dir: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("--peer").arg(address).arg(count.to_string()).args(dir);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = piped.spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut peer = Self { child, lines };
        peer.says("ready").await;
        peer
    }

    async fn says(&mut self, word: &str) {
        let line = self.lines.next_line().await.expect("readable");
        assert_eq!(line.as_deref(), Some(word));
    }

    /// Lets it dial, until it is linked.
    async fn link(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("its input");
        stdin.write_all(b"dial\n").await.expect("written");
        self.says("linked").await;
    }

    fn cpu(&self) -> f64 {
        self.child.id().map_or(0.0, |id| cpu_seconds(&id.to_string()))
    }
}

/// One row of one round.
#[derive(Debug, Clone, Copy)]
struct Measured {
    per_second: f64,
    /// CPU microseconds a transaction, at the node.
    node: f64,
    peer: f64,
}

/// Measures from here until `work` is done, everything is delivered, and the outbox is empty.
async fn measure(
    node: &PeerNode,
    peer: &mut Peer,
    count: u32,
    work: impl AsyncFnOnce(&mut Peer),
) -> Measured {
    let (start, ours, theirs) = (Instant::now(), cpu_seconds("self"), peer.cpu());
    work(peer).await;
    peer.says("done").await;
    while node.stats().await.expect("a running node").outbox > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let count = f64::from(count);
    Measured {
        per_second: count / start.elapsed().as_secs_f64(),
        node: (cpu_seconds("self") - ours) * 1e6 / count,
        peer: (peer.cpu() - theirs) * 1e6 / count,
    }
}

async fn replay(below: &Path, count: u32, on_disk: bool) -> Measured {
    let dir = tempfile::tempdir_in(below).expect("a directory");
    let open = async || SqliteStorage::open(dir.path()).await.expect("storage");
    let identity = Identity::generate().expect("random bytes");
    let storage = open().await;
    let alone = builder().identity(identity.clone()).storage(storage.clone()).dial_only();
    let node = alone.start().await.expect("a node");
    publish(&node, count).await;
    node.shutdown(Duration::ZERO).await.expect("a running node");
    storage.close().await;

    let storage = open().await;
    let again = builder().identity(identity).storage(storage.clone()).listen("127.0.0.1:0");
    let node = again.start().await.expect("a node");
    let address = node.listen_addr().expect("listening").to_string();
    let theirs = tempfile::tempdir_in(below).expect("a directory");
    let mut peer = Peer::start(&address, count, on_disk.then_some(theirs.path())).await;
    let measured = measure(&node, &mut peer, count, async |peer| peer.link().await).await;
    node.shutdown(Duration::ZERO).await.expect("a running node");
    storage.close().await;
    measured
}

async fn memory(count: u32) -> Measured {
    let identity = Identity::generate().expect("random bytes");
    let node = in_memory(builder()).identity(identity).listen("127.0.0.1:0");
    let node = node.start().await.expect("a node");
    let address = node.listen_addr().expect("listening").to_string();
    let mut peer = Peer::start(&address, count, None).await;
    peer.link().await;
    let measured = measure(&node, &mut peer, count, async |_| publish(&node, count).await).await;
    node.shutdown(Duration::ZERO).await.expect("a running node");
    measured
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let runtime = Runtime::new().expect("a runtime");
    if let [_, flag, address, count, rest @ ..] = arguments.as_slice()
        && flag == "--peer"
    {
        let count = count.parse().expect("a number");
        return runtime.block_on(be_the_peer(address, count, rest.first().map(Path::new)));
    }
    let (rounds, count) = match () {
        () if is_smoke() => (1, 300),
        () if has("--quick") => (1, OUTBOX),
        () => (5, OUTBOX),
    };
    // Beside the build, since the directory for temporary files may be in memory.
    let below = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let names = ["memory", "flush, peer in memory", "flush, peer on disk"];
    let mut rows = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        rows[0].push(runtime.block_on(memory(count)));
        rows[1].push(runtime.block_on(replay(below, count, false)));
        rows[2].push(runtime.block_on(replay(below, count, true)));
    }
    let least = median(&rows[0], |m| m.per_second);
    for (name, measured) in names.iter().zip(&rows) {
        let rate = median(measured, |m| m.per_second);
        println!(
            "{name:<22} {rate:>7.0}/s, {:.2} of memory; CPU us a transaction: node {:.1}, peer {:.1}",
            rate / least,
            median(measured, |m| m.node),
            median(measured, |m| m.peer),
        );
    }
}
