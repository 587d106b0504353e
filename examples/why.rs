//! Seven ways in which a transaction does not arrive, and what the nodes say of each.
//!
//! `cargo run --release --example why`
//!
//! For each the node where the transaction stopped is asked, and the one that published it, which asks
//! its linked peers in turn. Ends with status 1 if one of the two does not name the cause.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use sorcha_peer::config::{Role, Trust};
use sorcha_peer::types::{CloseReason, Explanation, Header, WallTime};
use sorcha_peer::{
    Config, Event, Events, Identity, PeerId, PeerNode, PeerNodeBuilder, Storage, Topic,
    Transaction, TransactionId, Validator, Verdict,
};

/// Maximum time to wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "orders";
const KIB: usize = 1024;
const MINUTE: Duration = Duration::from_mins(1);

/// What two nodes say of one transaction.
struct Told {
    /// Where it stopped.
    stopped: Explanation,
    /// Where it was published; peers were asked.
    publisher: Explanation,
}

/// A node on this machine that tells its peers what became of transactions.
fn builder(change: impl FnOnce(&mut Config)) -> PeerNodeBuilder {
    let mut config = Config::lan();
    "why".clone_into(&mut config.network.name);
    config.listen.address = Some(([127, 0, 0, 1], 0).into());
    // In a network that not everybody may join, this is the default.
    config.messages.explain = Some(true);
    change(&mut config);
    PeerNode::builder().config(config)
}

/// Has `second` start with `first` as its contact, and waits until they are linked.
async fn link(first: &PeerNode, second: PeerNodeBuilder) -> anyhow::Result<PeerNode> {
    let address = first.listen_addr().context("it listens")?.to_string();
    let second = second.bootstrap([address]).start().await?;
    second.wait_ready(1, PATIENCE).await?;
    first.wait_ready(1, PATIENCE).await?;
    Ok(second)
}

/// Waits for an event.
async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> anyhow::Result<()> {
    let come = async {
        while let Some(event) = events.next().await {
            if wanted(&event) {
                return Ok(());
            }
        }
        bail!("the node stopped")
    };
    tokio::time::timeout(PATIENCE, come).await.context("waited in vain for an event")?
}

/// Asks both nodes, the first as soon as it is of this state.
async fn ask(
    id: TransactionId,
    stopped: &PeerNode,
    state: &str,
    publisher: &PeerNode,
) -> anyhow::Result<Told> {
    let asked = async {
        loop {
            let told = stopped.explain(id).await?;
            if told.state == state {
                return anyhow::Ok(told);
            }
        }
    };
    let stopped = tokio::time::timeout(PATIENCE, asked).await;
    let stopped = stopped.with_context(|| format!("it is never {state}"))??;
    Ok(Told { stopped, publisher: publisher.explain_across(id, PATIENCE).await? })
}

/// A transaction of this node, as if published some time ago or from now.
fn dated(identity: &Identity, shift: impl Fn(WallTime) -> WallTime) -> anyhow::Result<Transaction> {
    #[expect(clippy::disallowed_methods, reason = "a date is what this is about")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = WallTime::from_millis(u64::try_from(now.as_millis())?);
    let (created, expires) = (shift(now), now.plus(30 * MINUTE));
    let (topic, payload) = (Topic::new(TOPIC)?, Bytes::from_static(b"one widget"));
    let header = Header::new(topic, identity.peer_id(), created, expires, &payload);
    Ok(identity.sign_transaction(header, payload)?)
}

/// Rejects everything.
#[derive(Debug)]
struct RejectAll;

#[async_trait::async_trait]
impl Validator for RejectAll {
    async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
        Verdict::Reject
    }
}

async fn rejected() -> anyhow::Result<Told> {
    let publisher = builder(|_| ()).start().await?;
    let strict = link(&publisher, builder(|_| ()).validator(Arc::new(RejectAll))).await?;
    let mut events = publisher.events();
    let id = publisher.publish(TOPIC, "one widget").await?.id();
    until(&mut events, |event| matches!(event, Event::DeadLettered { .. })).await?;
    ask(id, &strict, "refused", &publisher).await
}

async fn expired() -> anyhow::Result<Told> {
    let identity = Identity::generate()?;
    let publisher = builder(|_| ()).identity(identity.clone()).start().await?;
    // It keeps nothing for longer than five minutes.
    let short = link(&publisher, builder(|config| config.gossip.retention = 5 * MINUTE)).await?;
    let mut events = publisher.events();
    let transaction = dated(&identity, |now| now.minus(6 * MINUTE))?;
    let id = publisher.publish_prepared(transaction).await?.id();
    until(&mut events, |event| matches!(event, Event::PublishRefused { .. })).await?;
    ask(id, &short, "refused", &publisher).await
}

async fn over_size() -> anyhow::Result<Told> {
    // A line of three: the ends let in nobody but the middle.
    let ids = [Identity::generate()?, Identity::generate()?, Identity::generate()?];
    let [end, middle, far] = [0, 1, 2].map(|at: usize| ids[at].peer_id());
    let only = |peers: &[PeerId]| {
        let peers: BTreeSet<_> = peers.iter().copied().collect();
        move |config: &mut Config| config.network.trust = Trust::AllowList { peers }
    };
    let [first, second, third] = ids;
    let relay = builder(only(&[end, far])).identity(second).start().await?;
    let publisher = link(&relay, builder(only(&[middle])).identity(first)).await?;
    let small = builder(|config| {
        only(&[middle])(config);
        config.gossip.max_transaction_size = 4 * KIB as u64;
    });
    let _small = link(&relay, small.identity(third)).await?;
    relay.wait_ready(2, PATIENCE).await?;
    let receipt = publisher.publish(TOPIC, vec![7; 5 * KIB]).await?;
    tokio::time::timeout(PATIENCE, receipt.replicated(1)).await.context("a copy")??;
    ask(receipt.id(), &relay, "stored", &publisher).await
}

async fn banned() -> anyhow::Result<Told> {
    let identity = Identity::generate()?;
    let strict = builder(|_| ()).start().await?;
    strict.ban(identity.peer_id(), None, "sold us unicorns").await?;
    let address = strict.listen_addr().context("it listens")?.to_string();
    let publisher = builder(|_| ()).identity(identity).start().await?;
    let mut events = publisher.events();
    let _ = publisher.connect(&address).await;
    let refused =
        |event: &Event| matches!(event, Event::LinkRefused { reason: CloseReason::Banned, .. });
    until(&mut events, refused).await?;
    let id = publisher.publish(TOPIC, "one widget").await?.id();
    ask(id, &strict, "unknown", &publisher).await
}

async fn store_full() -> anyhow::Result<Told> {
    let publisher = builder(|_| ()).start().await?;
    let store = Storage::memory_transactions(Some(64 * KIB as u64));
    let full = link(&publisher, builder(|_| ()).transaction_store(store)).await?;
    let mut events = full.events();
    let id = publisher.publish(TOPIC, vec![7; 100 * KIB]).await?.id();
    until(&mut events, |event| matches!(event, Event::StorageFailed { .. })).await?;
    ask(id, &full, "refused", &publisher).await
}

async fn clock_wrong() -> anyhow::Result<Told> {
    let identity = Identity::generate()?;
    // As with a clock that is a quarter of an hour ahead; the publisher itself would not take that.
    let publisher = builder(|config| config.network.max_clock_skew = 20 * MINUTE);
    let publisher = publisher.identity(identity.clone()).start().await?;
    let right = link(&publisher, builder(|_| ())).await?;
    let mut events = publisher.events();
    let transaction = dated(&identity, |now| now.plus(15 * MINUTE))?;
    let id = publisher.publish_prepared(transaction).await?.id();
    until(&mut events, |event| matches!(event, Event::PublishRefused { .. })).await?;
    ask(id, &right, "refused", &publisher).await
}

async fn not_carried() -> anyhow::Result<Told> {
    let publisher = builder(|_| ()).start().await?;
    // It carries what its host subscribes to, which is nothing.
    let _edge = link(&publisher, builder(|config| config.gossip.role = Role::Edge)).await?;
    let id = publisher.publish(TOPIC, "one widget").await?.id();
    ask(id, &publisher, "pending", &publisher).await
}

/// Prints what two nodes say; `false` when one does not name the cause.
fn show(kind: &str, cause: (&str, &str), told: anyhow::Result<Told>) -> bool {
    println!("{kind}");
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            println!("  FAILED: {error:#}");
            return false;
        }
    };
    let (stopped, publisher) = (&told.stopped.summary, &told.publisher.summary);
    println!("  where it stopped: {stopped}");
    println!("  the publisher:    {publisher}");
    let named = stopped.contains(cause.0) && publisher.contains(cause.1);
    if !named {
        println!("  FAILED: expected {:?} and {:?}", cause.0, cause.1);
    }
    named
}

#[tokio::main]
async fn main() -> ExitCode {
    let same = |cause| (cause, cause);
    let all = [
        show("rejected by a validator", same("the validator rejected it"), rejected().await),
        show("expired", same("it had expired"), expired().await),
        show("over size", same("5120 bytes are over the size limit"), over_size().await),
        show("peer banned", ("1 peer is banned here", "was refused: banned"), banned().await),
        show("store full", same("the store is full"), store_full().await),
        show("clock wrong", same("its date is ahead of the clock"), clock_wrong().await),
        show("topic not carried", same("no linked peer carries topic orders"), not_carried().await),
    ];
    if all.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
