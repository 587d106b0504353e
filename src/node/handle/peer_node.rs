//! The host's handle on a node.

use std::cmp::Reverse;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::config::Config;
use crate::error::{
    BanError, ConnectError, NodeClosed, PublishError, ReadyError, ShutdownReport, StoreErrorKind,
    SubscribeError, TestError,
};
use crate::identity::Identity;
use crate::node::clock::PublishClock;
use crate::node::handlers::Handlers;
use crate::node::late_news::LateNews;
use crate::node::messages::{CallIds, Command, Draft, NodeState, SignedDraft};
use crate::node::reachability::{Learned, RelayDrops};
use crate::node::room::Room;
use crate::node::subscribed_topics::{SubscribedTopics, TopicSelection};
use crate::ports::{Ban, TransactionQueue, TransactionStore};
use crate::protocol::ConnectFailure;
use crate::types::{Endpoint, Event, LinkStatus, Mode, PeerId, PeerTest, Stats, Topic};

use super::durable::{DurableNames, DurableSubscription};
use super::events::Events;
use super::subscription::{LogNews, Since, StartAt, Subscription};

/// State of a node that its handles share.
pub(in crate::node) struct Inner {
    pub(in crate::node) identity: Identity,
    pub(in crate::node) config: Config,
    pub(in crate::node) listening: Option<SocketAddr>,
    pub(in crate::node) listening_http: Option<SocketAddr>,
    pub(in crate::node) listening_admin: Option<SocketAddr>,
    /// Runtime of the node: a handle may be used from another one, or from none.
    pub(in crate::node) runtime: Handle,
    pub(in crate::node) clock: Arc<PublishClock>,
    pub(in crate::node) publishes: mpsc::Sender<Vec<SignedDraft>>,
    pub(in crate::node) commands: mpsc::Sender<Command>,
    pub(in crate::node) call_ids: CallIds,
    pub(in crate::node) handlers: Arc<Handlers>,
    pub(in crate::node) drafts: mpsc::Sender<Draft>,
    /// Room for payloads that are being published.
    pub(in crate::node) publish_room: Room,
    pub(in crate::node) events: broadcast::WeakSender<Event>,
    /// Shows that there are handles, as long as this lives.
    pub(in crate::node) _handles: Arc<()>,
    /// Number of events that slow readers missed.
    pub(in crate::node) lagged: Arc<AtomicU64>,
    /// Own transactions that the validator did not accept.
    pub(in crate::node) refused_publishes: Arc<AtomicU64>,
    /// Connections by way of relay servers that were dropped.
    pub(in crate::node) relay_drops: RelayDrops,
    pub(in crate::node) queue: Arc<dyn TransactionQueue>,
    pub(in crate::node) log: Arc<dyn TransactionStore>,
    pub(in crate::node) news: LogNews,
    /// Topics of the subscriptions that live.
    pub(in crate::node) late_news: Arc<LateNews>,
    pub(in crate::node) subscribed: SubscribedTopics,
    /// Durable subscriptions that live.
    pub(in crate::node) names: DurableNames,
    /// Reason for which storage fails, while it does.
    pub(in crate::node) failing: watch::Receiver<Option<StoreErrorKind>>,
    pub(in crate::node) state: watch::Receiver<NodeState>,
    /// What the node was told of its addresses and its NAT by whom it asked.
    pub(in crate::node) learned: watch::Receiver<Learned>,
    /// Report of the shutdown, once it is through.
    pub(in crate::node) ended: watch::Receiver<Option<ShutdownReport>>,
    /// Service for clients of the original, where there is one.
    #[cfg(feature = "compat")]
    pub(in crate::node) compat: Option<crate::compat::Ops>,
}

/// Handle of a running node. Cloning shares the node; when the last clone is dropped the node says
/// goodbye and stops. Give request handlers and tasks a [`WeakPeerNode`] where they should not keep it
/// alive.
///
/// Every method may be called from any task, thread and runtime, any number at the same time. Futures are
/// cancel safe unless their docs say what may have happened; none has a time limit of its own unless its
/// docs say so.
///
/// ```
/// use std::time::Duration;
/// use sorcha_peer::transport::MemoryNetwork;
/// use sorcha_peer::{StartAt, Identity, Item, PeerNode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = MemoryNetwork::new();
/// let (a, b) = (Identity::generate()?, Identity::generate()?);
/// let first = PeerNode::builder()
///     .transport(std::sync::Arc::new(network.transport(a.peer_id())))
///     .identity(a)
///     .listen("127.0.0.1:5001")
///     .start()
///     .await?;
/// let second = PeerNode::builder()
///     .transport(std::sync::Arc::new(network.transport(b.peer_id())))
///     .identity(b)
///     .listen("127.0.0.1:5002")
///     .bootstrap(["127.0.0.1:5001"])
///     .start()
///     .await?;
/// second.wait_ready(1, Duration::from_secs(10)).await?;
///
/// let mut orders = second.subscribe("orders", StartAt::Now).await?;
/// let receipt = first.publish("orders", "one widget").await?;
/// let Some(Item::Delivery(delivery)) = orders.next().await else { panic!("nothing came") };
/// assert_eq!(delivery.transaction.id(), receipt.id());
/// receipt.replicated(1).await?;
/// first.shutdown(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PeerNode(pub(in crate::node) Arc<Inner>);

/// Handle of a node that does not keep the node alive.
#[derive(Clone)]
pub struct WeakPeerNode(Weak<Inner>);

impl PeerNode {
    /// Subscribes to one topic, a name of 1 to 255 bytes.
    ///
    /// Any number of subscriptions may live, also to the same topic; each gets everything. On an edge the
    /// subscription makes the node carry the topic for as long as it lives. The call reads the newest
    /// cursor of the log and nothing else; a subscription that is not read costs no more than its handle.
    ///
    /// # Errors
    /// [`SubscribeError`] when the topic is not acceptable, the log has not given out the cursor, or
    /// the log cannot be read.
    pub async fn subscribe(
        &self,
        topic: &str,
        start: StartAt,
    ) -> Result<Subscription, SubscribeError> {
        self.subscription(TopicSelection::one(Topic::new(topic)?), start).await
    }

    /// Subscribes to several topics at once: one stream in which cursors rise over all of them. A gap
    /// may be told of that only other topics suffered.
    ///
    /// # Errors
    /// Those of [`PeerNode::subscribe`].
    pub async fn subscribe_topics<I>(
        &self,
        topics: I,
        start: StartAt,
    ) -> Result<Subscription, SubscribeError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let topics = topics.into_iter().map(|name| Topic::new(name.as_ref()));
        let topics = topics.collect::<Result<_, _>>()?;
        self.subscription(TopicSelection::Some(topics), start).await
    }

    /// Subscribes to every topic, as [`PeerNode::subscribe`] does to one; an edge carries everything then.
    ///
    /// # Errors
    /// [`SubscribeError`] when the log has not given out the cursor or cannot be read.
    pub async fn subscribe_all(&self, start: StartAt) -> Result<Subscription, SubscribeError> {
        self.subscription(TopicSelection::All, start).await
    }

    /// Subscribes to one topic under a name whose position the store keeps: after the last
    /// acknowledged delivery, or, where the name is new, from `start`.
    ///
    /// The name, of 1 to 255 bytes that do not begin with `sorcha-peer/`, stands for a position in the log and
    /// not for a topic: a host that
    /// subscribes the name to another topic goes on at the same position. One name has one subscription at
    /// a time. A dropped future leaves the name free, and perhaps its position kept.
    ///
    /// ```
    /// use sorcha_peer::{StartAt, Item, PeerNode, SqliteStorage};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let data = tempfile::tempdir()?;
    /// let node = PeerNode::builder()
    ///     .listen("127.0.0.1:0")
    ///     .storage(SqliteStorage::open(data.path()).await?)
    ///     .start()
    ///     .await?;
    /// node.publish("orders", "one widget").await?;
    /// let mut billing = node.subscribe_durable("billing", "orders", StartAt::Earliest).await?;
    /// if let Some(Item::Delivery(delivery)) = billing.next().await {
    ///     // … write the bill, then:
    ///     billing.ack(delivery.cursor).await?; // never again, also after a restart
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SubscribeError`]: a bad topic or name, [`SubscribeError::InUse`] while another
    /// subscription of this node has the name, a store that fails or keeps no more names.
    pub async fn subscribe_durable(
        &self,
        name: &str,
        topic: &str,
        start: StartAt,
    ) -> Result<DurableSubscription, SubscribeError> {
        self.durable(name, TopicSelection::one(Topic::new(topic)?), start).await
    }

    /// Subscribes to every topic like [`PeerNode::subscribe_durable`].
    ///
    /// # Errors
    /// Those of [`PeerNode::subscribe_durable`].
    pub async fn subscribe_durable_all(
        &self,
        name: &str,
        start: StartAt,
    ) -> Result<DurableSubscription, SubscribeError> {
        self.durable(name, TopicSelection::All, start).await
    }

    /// Forgets a durable subscription; an unknown name is no error. At most
    /// [`Page::MAX_CURSORS`](crate::ports::Page::MAX_CURSORS) names are kept, five of them for the node itself.
    ///
    /// # Errors
    /// [`SubscribeError::InUse`] while it is subscribed; [`SubscribeError::Store`].
    pub async fn remove_subscription(&self, name: &str) -> Result<(), SubscribeError> {
        let lease = self.0.names.lease(name)?;
        Ok(self.0.log.remove_cursor(&lease.name).await?)
    }

    async fn durable(
        &self,
        name: &str,
        topics: TopicSelection,
        start: StartAt,
    ) -> Result<DurableSubscription, SubscribeError> {
        if self.is_closed() {
            return Err(SubscribeError::Closed);
        }
        let lease = self.0.names.lease(name)?;
        let (log, news) = (Arc::clone(&self.0.log), self.0.news.clone());
        let topics = self.0.subscribed.enter(topics);
        let memory = self.0.config.limits.memory;
        DurableSubscription::new(log, news, lease, topics, start, memory).await
    }

    async fn subscription(
        &self,
        topics: TopicSelection,
        start: StartAt,
    ) -> Result<Subscription, SubscribeError> {
        if self.is_closed() {
            return Err(SubscribeError::Closed);
        }
        let (log, news) = (Arc::clone(&self.0.log), self.0.news.clone());
        let inner = &self.0;
        let since = (start == StartAt::Now)
            .then(|| Since::now(Arc::clone(&inner.clock), Arc::clone(&inner.late_news)));
        let topics = self.0.subscribed.enter(topics);
        let subscription = Subscription::new(log, news, topics, start).await?;
        Ok(subscription.within(self.0.config.limits.memory).leave_out_before(since))
    }

    /// Id of this node: the public key of its [`Identity`].
    pub fn peer_id(&self) -> PeerId {
        self.0.identity.peer_id()
    }

    /// Socket address that the node listens on, with the port that was picked where 0 was asked for; `None`
    /// when it only dials out.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.0.listening
    }

    /// Socket address for what a proxy in front passes on, with the port that was picked where 0 was asked
    /// for; `None` where [`PeerNodeBuilder::listen_http`](crate::PeerNodeBuilder::listen_http) asked for none.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.0.listening_http
    }

    /// Socket address of the admin listener, with the port that was picked where 0 was asked for; `None`
    /// where [`PeerNodeBuilder::admin`](crate::PeerNodeBuilder::admin) asked for none.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.0.listening_admin
    }

    /// Connection of the node to its network, as it is now. Does not wait.
    pub fn mode(&self) -> Mode {
        self.0.state.borrow().mode.unwrap_or(Mode::Offline)
    }

    /// Reason why storage fails, from the moment when it does until an operation on it works again;
    /// `None` while all is well. Meanwhile [`PeerNode::wait_ready`] waits, and every `publish` is
    /// tried and refused with [`PublishError::Store`], unless it is the store of peers alone that
    /// fails.
    pub fn storage_failure(&self) -> Option<StoreErrorKind> {
        *self.0.failing.borrow()
    }

    /// Number of milliseconds from this machine's clock to the time on which most peers agree, while they
    /// find the clock off by more than `network.max_clock_skew`; `None` while it is right, and while too
    /// few peers are linked to tell. Does not wait.
    ///
    /// Meanwhile the node goes by the peers' time: what it publishes is dated by that and spreads as
    /// usual. A health check should show it all the same, for the clock is to be set right. Changes come
    /// as [`Event::ClockOff`] and [`Event::ClockRight`].
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.0.state.borrow().clock_offset_ms
    }

    /// Events from now on. Any number may listen; each gets all.
    pub fn events(&self) -> Events {
        let events = match self.0.events.upgrade() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        };
        Events::new(events, Arc::clone(&self.0.lagged))
    }

    /// Peers that are linked now, one entry each. Waits for the node's driver: some microseconds, and
    /// longer under load.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn peers(&self) -> Result<Vec<LinkStatus>, NodeClosed> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Peers { reply }).await?;
        answer.await.map_err(|_| NodeClosed)
    }

    /// Lists up to `count` linked peers by the quality of their links, the best first; of equals the one
    /// with the shorter round trip. Peers that have not answered a ping yet are left out, and so are
    /// those that only failed. Waits as [`PeerNode::peers`] does.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn best_peers(&self, count: usize) -> Result<Vec<LinkStatus>, NodeClosed> {
        let mut peers = self.peers().await?;
        peers.retain(|peer| peer.quality > 0);
        peers.sort_by_key(|peer| (Reverse(peer.quality), peer.rtt_us, peer.peer));
        peers.truncate(count);
        Ok(peers)
    }

    /// Figures of the node at one moment: every counter and the present sizes. Waits as
    /// [`PeerNode::peers`] does, but never behind frames or publishes that wait to be handled. What
    /// happened between two of them tells [`Stats::since`].
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn stats(&self) -> Result<Stats, NodeClosed> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Stats { reply }).await?;
        let mut stats = answer.await.map_err(|_| NodeClosed)?;
        self.add_own_counts(&mut stats);
        Ok(stats)
    }

    /// Adds what handles count or know and the driver does not.
    pub(in crate::node) fn add_own_counts(&self, stats: &mut Stats) {
        stats.counters.events_lagged += self.0.lagged.load(Ordering::Relaxed);
        stats.counters.publishes_refused += self.0.refused_publishes.load(Ordering::Relaxed);
        self.0.relay_drops.add_to(&mut stats.counters);
        stats.storage_failing = self.storage_failure().is_some();
        stats.listen = self.listening();
        #[cfg(feature = "compat")]
        if let Some(compat) = &self.0.compat {
            compat.add_to(stats);
        }
    }

    /// Socket addresses at which the node listens for peers.
    pub(super) fn listening(&self) -> Vec<String> {
        let listening = self.0.listening.into_iter().chain(self.0.listening_http);
        listening.map(|address| address.to_string()).collect()
    }

    /// Waits until `links` links are up and storage works, for `timeout` at the most; with 0 links for the
    /// storage alone. Cancel safe.
    ///
    /// # Errors
    /// [`ReadyError::Closed`], and [`ReadyError::Timeout`] with a hint at what stands in the way; the
    /// node goes on trying.
    pub async fn wait_ready(&self, links: u32, timeout: Duration) -> Result<(), ReadyError> {
        let (mut state, mut failing) = (self.0.state.clone(), self.0.failing.clone());
        let ready = async {
            state.wait_for(|state| state.links >= links).await.map(drop)?;
            failing.wait_for(Option::is_none).await.map(drop)
        };
        match tokio::time::timeout(timeout, ready).await {
            Ok(Ok(())) if !self.is_closed() => Ok(()),
            Ok(_) => Err(ReadyError::Closed),
            Err(_) => {
                let state = self.0.state.borrow();
                let storage = self.storage_failure();
                let storage = storage.map(|kind| format!("storage fails: {}", kind.as_str()));
                let hint = storage.or_else(|| state.hint.clone()).unwrap_or_else(|| {
                    if self.0.config.discovery.bootstrap.is_empty() {
                        "no bootstrap peer is configured and nobody dialled in".to_owned()
                    } else {
                        "no dial has failed yet".to_owned()
                    }
                });
                Err(ReadyError::Timeout {
                    links: state.links,
                    wanted: links,
                    waited: timeout,
                    hint,
                })
            }
        }
    }

    /// Opens a link to an address now, whatever the overlay would do by itself, and returns the id that the
    /// peer proved. `address` is what [`Endpoint`] reads: `host:port`, `1.2.3.4:port`, `[v6]:port`, a URL
    /// without a path; the port is 5001 where none is given. A DNS name is resolved to all its addresses, and
    /// leads to the first at which a peer of this network answers; see the guide's
    /// [paths](crate::guide::paths).
    ///
    /// Every transport is tried, one after the other half a second apart, what worked last first. The
    /// dial is made at once, whatever was found at the address before, unless nobody answered there
    /// several times in a row ([`ConnectError::BreakerOpen`]), and is not counted against
    /// `discovery.max_concurrent`. It takes `connection.connect_timeout` and
    /// `connection.handshake_timeout` for the connection (40 s by default) and the latter once more for
    /// the hello, as a rule; longer where a name stands for several addresses whose peers refuse. Calls for one
    /// address at a time share one dial. A peer that is linked already keeps one link, as a rule the new one.
    ///
    /// A future dropped before it is ready does not end the dial: the link may come up.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing changed.
    pub async fn connect(&self, address: &str) -> Result<PeerId, ConnectError> {
        let endpoint: Endpoint = address.parse()?;
        let (reply, answer) = oneshot::channel();
        let address = endpoint.to_string();
        self.command(Command::Connect { endpoint, reply }).await?;
        answer.await.map_err(|_| ConnectError::Closed)?.map_err(|unconnected| {
            match unconnected.failure {
                ConnectFailure::Dial(kind) => {
                    let reason = unconnected.reason.unwrap_or_else(|| kind.to_string());
                    ConnectError::Dial { address, kind, reason }
                }
                ConnectFailure::Refused(reason) => ConnectError::Refused(reason),
                ConnectFailure::BreakerOpen { left } => {
                    ConnectError::BreakerOpen { address, retry_in: left }
                }
                ConnectFailure::Closed => ConnectError::Closed,
            }
        })
    }

    /// Measures the link to a peer now: five pings one after the other, and then 256 KiB each way, in
    /// pieces of 64 KiB. The pieces wait behind what else there is to be sent, so a test delays nothing
    /// by more than one of them, and of a busy link it shows what is left. It takes as long as that
    /// does, and 30 s at the most. A link is tested once in 10 s, and four of them at once; the peer
    /// answers no more.
    ///
    /// What [`PeerNode::peers`] says of a link is free: it comes from what goes over it anyway.
    ///
    /// A future dropped before it is ready does not end the test.
    ///
    /// # Errors
    /// [`TestError`].
    pub async fn test_peer(&self, peer: PeerId) -> Result<PeerTest, TestError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::TestPeer { peer, reply }).await?;
        answer.await.map_err(|_| TestError::Closed)?
    }

    /// Closes the circuit breaker of a peer: what could not be reached is dialled again at once, by the
    /// node itself and by [`PeerNode::connect`]. A breaker that is closed is no error.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn reset_breaker(&self, peer: PeerId) -> Result<(), NodeClosed> {
        self.command(Command::ResetBreaker { peer }).await
    }

    /// Ends the link to a peer; one that is not linked is no error. The overlay may open a link again;
    /// [`PeerNode::ban`] prevents that. Returns when the node has taken the command, before the link is
    /// gone.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), NodeClosed> {
        self.command(Command::Disconnect { peer }).await
    }

    /// Refuses a peer on every path, for a time or (`None`) for good, also after a restart: `Ok`
    /// means that the peer store has it. A link to the peer ends. Of `reason`, which is for people,
    /// 500 characters are kept; a second ban replaces the first. A ban holds from the call on; a
    /// future dropped before it is ready may or may not have banned.
    ///
    /// # Errors
    /// [`BanError`].
    pub async fn ban(
        &self,
        peer: PeerId,
        duration: Option<Duration>,
        reason: &str,
    ) -> Result<(), BanError> {
        if peer == self.peer_id() {
            return Err(BanError::Itself);
        }
        let until = duration.map(|d| self.0.clock.now().plus(d));
        let (reply, answer) = oneshot::channel();
        let ban = Ban { peer, until, reason: reason.to_owned() };
        self.command(Command::Ban { ban, reply }).await?;
        Ok(answer.await.map_err(|_| BanError::Closed)??)
    }

    /// Lifts a ban, as [`PeerNode::ban`] sets one; a peer that is not banned is no error.
    ///
    /// # Errors
    /// [`BanError`].
    pub async fn unban(&self, peer: PeerId) -> Result<(), BanError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Unban { peer, reply }).await?;
        Ok(answer.await.map_err(|_| BanError::Closed)??)
    }

    /// Handle that does not keep the node alive.
    pub fn downgrade(&self) -> WeakPeerNode {
        WeakPeerNode(Arc::downgrade(&self.0))
    }

    /// Stops: refuses new transactions, waits at most `deadline` for what is queued to leave and
    /// for own transactions to be confirmed, says goodbye, closes links, and waits until the stores
    /// have taken everything. The stores stay open for whoever still reads them: the directory of a
    /// [`SqliteStorage`](crate::SqliteStorage) is given free by its `close`, or when every handle of
    /// the node, every subscription and every clone of the storage is dropped.
    ///
    /// Calling it again, from any clone and at any time, waits for the same end and gives the same
    /// report; the earliest deadline counts. A dropped future does not stop the shutdown.
    ///
    /// # Errors
    /// [`NodeClosed`] when the node ended otherwise, with its runtime.
    pub async fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport, NodeClosed> {
        // Refused where a shutdown is through or nearly so: its report is what is waited for.
        let _ = self.command(Command::Shutdown { deadline }).await;
        let mut ended = self.0.ended.clone();
        let report = ended.wait_for(Option::is_some).await.map_err(|_| NodeClosed)?;
        report.clone().ok_or(NodeClosed)
    }

    /// Returns whether the node has stopped, or is about to.
    pub(in crate::node) fn is_closed(&self) -> bool {
        self.0.commands.is_closed()
    }

    pub(in crate::node) async fn command(&self, command: Command) -> Result<(), NodeClosed> {
        self.0.commands.send(command).await.map_err(|_| NodeClosed)
    }
}

impl WeakPeerNode {
    /// Node, while somebody still holds it.
    pub fn upgrade(&self) -> Option<PeerNode> {
        self.0.upgrade().map(PeerNode)
    }
}

impl From<NodeClosed> for PublishError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}

impl From<NodeClosed> for BanError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}

impl From<NodeClosed> for TestError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}

impl From<NodeClosed> for ConnectError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}

impl fmt::Debug for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNode")
            .field("peer_id", &self.peer_id())
            .field("listening", &self.0.listening)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakPeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPeerNode").finish_non_exhaustive()
    }
}
