//! Publishing: one or many, once or repeatably.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use crate::config::SignaturePolicy;
use crate::error::{PublishError, StoreError};
use crate::node::clock::wall_now;
use crate::node::hashing::hash;
use crate::node::messages::{Draft, PublishAnswer, Published, SignedDraft, Unpublished};
use crate::node::room::Taken;
use crate::protocol::PublishRefusal;
use crate::types::{Header, InvalidTransaction, Signature, Topic, TraceContext, Transaction};

use super::peer_node::PeerNode;
use super::receipt::{Outcome, Receipt};

/// Maximum number of payloads of one [`PeerNode::publish_many`], and of their bytes together.
const MAX_MANY: (usize, usize) = (4096, 32 << 20);

impl PeerNode {
    /// Publishes a payload under a topic, a name of 1 to 255 bytes; the payload may have up to
    /// `gossip.max_transaction_size` bytes (10 MiB by default), or none. `Ok` means that the node's outbox and
    /// log have it; it is delivered to this node's own subscribers too, and to every other node sooner or
    /// later. Works offline.
    ///
    /// Publishing takes as long as the store takes to make the transaction durable; publishes that
    /// run at the same time share that, so have many under way rather than one after the other
    /// where they are many, or hand them over together ([`PeerNode::publish_many`]). A store of which no
    /// step ends for 4 s is waited for no longer: the answer is [`PublishError::Unsettled`] for what it has,
    /// and [`PublishError::Store`] at once for what comes while it hangs. Of large
    /// payloads, only as many as their share of the node's memory holds are handed over at once, an eighth
    /// of [`LimitsConfig::memory`](crate::config::LimitsConfig::memory) or one payload; others wait for their
    /// turn, in the order of the calls.
    ///
    /// Two publishes of the same bytes are two transactions. A payload above 256 KiB is hashed on
    /// another thread, so of publishes that run at the same time a small one may come before an
    /// earlier large one; publishes that are awaited one after the other keep their order. Not
    /// cancel safe in one respect: a future dropped before it is ready may or may not have
    /// published.
    ///
    /// A node that has a [`Validator`](crate::ports::Validator) asks it first.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was stored or sent, except where it is
    /// [`PublishError::Unsettled`].
    pub async fn publish(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, PublishError> {
        let mut receipts = self.publish_all(topic, vec![payload.into()], None).await?;
        receipts.pop().ok_or(PublishError::Closed)
    }

    /// Publishes as [`PeerNode::publish`] does, as part of a trace: `traceparent` is the text of W3C's
    /// trace context. It goes with the transaction, outside of what is signed, and is found again in
    /// [`Transaction::traceparent`] wherever that is delivered. Nothing is told of a trace that is not
    /// recorded (the last bit of the flags). See the guide's [traces](crate::guide::operating#traces).
    ///
    /// ```
    /// use sorcha_peer::{Item, PeerNode, StartAt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"; // from your tracer
    /// node.publish_traced("orders", "one widget", span).await?;
    ///
    /// let mut orders = node.subscribe("orders", StartAt::Earliest).await?;
    /// let Some(Item::Delivery(delivery)) = orders.next().await else { return Ok(()) };
    /// assert_eq!(delivery.transaction.traceparent().as_deref(), Some(span));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`PeerNode::publish`]; [`PublishError::InvalidTraceparent`].
    pub async fn publish_traced(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        traceparent: &str,
    ) -> Result<Receipt, PublishError> {
        let trace = trace_of(traceparent)?;
        let mut receipts = self.publish_all(topic, vec![payload.into()], trace).await?;
        receipts.pop().ok_or(PublishError::Closed)
    }

    /// Publishes many payloads under one topic, all or none: the outbox takes them in one durable
    /// commit, so that also after `kill -9` in the middle either all are there or none is (given a
    /// store that keeps its promise, as `SQLite` does). One receipt for each, in the order of the
    /// payloads, which is the order of publishing; no payload is none, and no receipt.
    ///
    /// At most 4,096 payloads of 32 MiB together, or of an eighth of
    /// [`LimitsConfig::memory`](crate::config::LimitsConfig::memory) where that is less; a single one may
    /// be larger, as for [`PeerNode::publish`]. One call costs one sync however many they are: a task that hands over 64
    /// at a time publishes about as fast as 64 tasks. Where some of them may fail without the others,
    /// take [`PeerNode::publish_each`].
    ///
    /// Not cancel safe in one respect: a future dropped before it is ready has published all or none.
    ///
    /// ```
    /// use sorcha_peer::PeerNode;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// let receipts = node.publish_many("orders", ["one widget", "two gadgets"]).await?;
    /// assert_eq!(receipts.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PublishError`] for the first reason that keeps any of them from being published, such as
    /// [`PublishError::QueueFull`] where the outbox has no room for all, and
    /// [`PublishError::TooMany`]. Nothing was stored or sent, except where it is
    /// [`PublishError::Unsettled`]: then all were, or none.
    pub async fn publish_many<I>(
        &self,
        topic: &str,
        payloads: I,
    ) -> Result<Vec<Receipt>, PublishError>
    where
        I: IntoIterator,
        I::Item: Into<Bytes>,
    {
        let (max_count, max_bytes) = MAX_MANY;
        let share = usize::try_from(self.0.publish_room.size()).unwrap_or(usize::MAX);
        let max_bytes = max_bytes.min(share);
        let payloads = payloads.into_iter().map(Into::into);
        // One more shows that there are too many; the rest of them is not looked at.
        let payloads: Vec<Bytes> = payloads.take(max_count + 1).collect();
        let bytes = bytes_of(&payloads);
        if payloads.len() > max_count || (payloads.len() > 1 && bytes > max_bytes) {
            return Err(PublishError::TooMany { max_count, max_bytes });
        }
        if payloads.is_empty() {
            return Ok(Vec::new());
        }
        self.publish_all(topic, payloads, None).await
    }

    /// Publishes many payloads under one topic, each for itself: one result for each, in their
    /// order. What is accepted keeps that order, payloads above 256 KiB included, and neighbours share
    /// a commit. Any number of any size; all of them are in memory meanwhile. Not cancel safe: a future
    /// dropped before it is ready may have published any of them.
    ///
    /// # Errors
    /// Those of [`PeerNode::publish`], for each.
    pub async fn publish_each<I>(
        &self,
        topic: &str,
        payloads: I,
    ) -> Vec<Result<Receipt, PublishError>>
    where
        I: IntoIterator,
        I::Item: Into<Bytes>,
    {
        let payloads: Vec<Bytes> = payloads.into_iter().map(Into::into).collect();
        let span = publish_span(topic, payloads.len(), bytes_of(&payloads));
        let publish = async {
            let mut under_way = Vec::with_capacity(payloads.len());
            for payload in payloads {
                under_way.push(self.hand_over(topic, vec![payload], None).await);
            }
            let mut results = Vec::with_capacity(under_way.len());
            for handed in under_way {
                let receipts = match handed {
                    Ok(handed) => self.receipts(handed).await,
                    Err(error) => Err(error),
                };
                let receipt = receipts.and_then(|mut all| all.pop().ok_or(PublishError::Closed));
                results.push(receipt);
            }
            results
        };
        publish.instrument(span).await
    }

    async fn publish_all(
        &self,
        topic: &str,
        payloads: Vec<Bytes>,
        trace: Option<TraceContext>,
    ) -> Result<Vec<Receipt>, PublishError> {
        let span = publish_span(topic, payloads.len(), bytes_of(&payloads));
        let publish = async {
            let handed = self.hand_over(topic, payloads, trace).await?;
            self.receipts(handed).await
        };
        publish.instrument(span).await
    }

    /// Makes headers and puts all into the queue to the signer.
    async fn hand_over(
        &self,
        topic: &str,
        payloads: Vec<Bytes>,
        trace: Option<TraceContext>,
    ) -> Result<HandedOver, PublishError> {
        let bytes = bytes_of(&payloads);
        let make_parts = self.parts(topic, payloads)?;
        let room = self.0.publish_room.take(bytes).await;
        let parts = hash(&self.0.runtime, bytes, make_parts).await;
        self.queue(parts.ok_or(PublishError::Closed)?, trace, room).await
    }

    async fn queue(
        &self,
        parts: Vec<(Header, Bytes)>,
        trace: Option<TraceContext>,
        room: Taken,
    ) -> Result<HandedOver, PublishError> {
        let (reply, answer) = oneshot::channel();
        let draft = Draft { parts: parts.clone(), trace, renews: None, reply, room };
        self.0.drafts.send(draft).await.map_err(|_| PublishError::Closed)?;
        Ok(HandedOver { parts, trace, answer })
    }

    /// Waits until what was handed over is durable.
    async fn receipts(&self, mut handed: HandedOver) -> Result<Vec<Receipt>, PublishError> {
        loop {
            match handed.answer.await.map_err(|_| PublishError::Closed)? {
                Ok(Published { is_new: true, entries }) => {
                    let off = self.clock_offset_ms();
                    let receipt =
                        |(id, status)| Receipt::new(id, Outcome::Published, status).dated_off(off);
                    return Ok(entries.into_iter().map(receipt).collect());
                }
                // An earlier process of this identity published the same bytes at the same time.
                Ok(Published { is_new: false, .. }) => {
                    let mut parts = handed.parts;
                    // Beyond those of the earlier process, which were as many perhaps.
                    let step = Duration::from_millis(parts.len() as u64);
                    for (header, _) in &mut parts {
                        header.expires = header.expires.plus(step);
                    }
                    let bytes = parts.iter().map(|(_, payload)| payload.len()).sum();
                    let room = self.0.publish_room.take(bytes).await;
                    handed = self.queue(parts, handed.trace, room).await?;
                }
                Err(unpublished) => return Err(publish_error(unpublished)),
            }
        }
    }

    /// Makes and signs a transaction without publishing it. A host that keeps it, as
    /// [`Transaction::to_bytes`], until [`PeerNode::publish_prepared`] has answered may publish it again after
    /// a crash, without publishing the same thing twice. It lives for `gossip.retention` from now on.
    ///
    /// Hashes the payload on the calling thread, at 2 to 11 GB a second: call it on a blocking thread
    /// where payloads are large.
    ///
    /// ```
    /// use sorcha_peer::{Outcome, PeerNode, Transaction};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// let transaction = node.prepare("orders", "one widget")?;
    /// let kept = transaction.to_bytes(); // … write them down beside the order, then:
    /// let receipt = node.publish_prepared(transaction).await?;
    /// assert_eq!(receipt.outcome(), Outcome::Published);
    ///
    /// // After a crash:
    /// let again = node.publish_prepared(Transaction::from_bytes(kept)?).await?;
    /// assert_eq!(again.outcome(), Outcome::AlreadyPublished);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::Topic`].
    pub fn prepare(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Transaction, PublishError> {
        let mut parts = self.parts(topic, vec![payload.into()])?();
        let (header, payload) = parts.pop().ok_or(PublishError::Closed)?;
        match self.0.config.network.signatures {
            SignaturePolicy::Required => self.0.identity.sign_transaction(header, payload),
            SignaturePolicy::Off => Transaction::new(header, Signature::None, payload),
        }
        .map_err(PublishError::Invalid)
    }

    /// Publishes what [`PeerNode::prepare`] made, as [`PeerNode::publish`] does. As often as it is
    /// called while the transaction lives, it is published once:
    /// [`Receipt::outcome`] tells whether by this call. Not cancel safe in the same respect.
    ///
    /// # Errors
    /// Those of [`PeerNode::publish`]; [`PublishError::Invalid`] for what is not of
    /// this node, [`PublishError::Expired`].
    pub async fn publish_prepared(
        &self,
        transaction: Transaction,
    ) -> Result<Receipt, PublishError> {
        let span = publish_span(transaction.topic().as_str(), 1, transaction.payload().len());
        self.publish_whole(transaction).instrument(span).await
    }

    /// Publishes what [`PeerNode::prepare`] made, as part of a trace: both
    /// [`PeerNode::publish_prepared`] and [`PeerNode::publish_traced`]. What was published before keeps
    /// the trace that it had.
    ///
    /// # Errors
    /// Those of [`PeerNode::publish_prepared`]; [`PublishError::InvalidTraceparent`].
    pub async fn publish_prepared_traced(
        &self,
        transaction: Transaction,
        traceparent: &str,
    ) -> Result<Receipt, PublishError> {
        let trace = trace_of(traceparent)?;
        self.publish_prepared(transaction.with_trace(trace)).await
    }

    async fn publish_whole(&self, transaction: Transaction) -> Result<Receipt, PublishError> {
        self.check_prepared(&transaction).await?;
        let (reply, answer) = oneshot::channel();
        let room = self.0.publish_room.take(transaction.payload().len()).await;
        let signed = SignedDraft { transactions: vec![transaction], renews: None, reply, room };
        self.0.publishes.send(vec![signed]).await.map_err(|_| PublishError::Closed)?;
        let answer = answer.await.map_err(|_| PublishError::Closed)?;
        let Published { is_new, mut entries } = answer.map_err(publish_error)?;
        let outcome = if is_new { Outcome::Published } else { Outcome::AlreadyPublished };
        let (id, status) = entries.pop().ok_or(PublishError::Closed)?;
        Ok(Receipt::new(id, outcome, status))
    }

    async fn check_prepared(&self, transaction: &Transaction) -> Result<(), PublishError> {
        let config = &self.0.config;
        let header = transaction.header();
        if header.origin != self.peer_id() {
            return Err(PublishError::Invalid(InvalidTransaction::Signature));
        }
        let required = config.network.signatures == SignaturePolicy::Required;
        let checked = transaction.clone();
        let check = move || checked.verify(required);
        let valid = hash(&self.0.runtime, transaction.payload().len(), check).await;
        valid.ok_or(PublishError::Closed)?.map_err(PublishError::Invalid)?;
        let now = self.0.clock.now();
        let end = header.expires.min(header.created.plus(config.gossip.retention));
        if end <= now || header.created > now.plus(config.network.max_clock_skew) {
            return Err(PublishError::Expired { expires: end });
        }
        Ok(())
    }

    /// Checks what new transactions are to be made of, and returns what makes their headers: that
    /// hashes the payloads.
    fn parts(
        &self,
        topic: &str,
        payloads: Vec<Bytes>,
    ) -> Result<impl FnOnce() -> Vec<(Header, Bytes)> + Send + use<>, PublishError> {
        let topic = Topic::new(topic)?;
        let limit = self.0.config.gossip.max_transaction_size;
        let mut sizes = payloads.iter().map(|payload| payload.len() as u64);
        if let Some(size) = sizes.find(|size| *size > limit) {
            return Err(PublishError::TooLarge { size, limit });
        }
        let retention = self.0.config.gossip.retention;
        let times = |_: &Bytes| self.0.clock.times(wall_now(), retention);
        let times: Vec<_> = payloads.iter().map(times).collect();
        let origin = self.peer_id();
        Ok(move || {
            let part = |((created, expires), payload): (_, Bytes)| {
                (Header::new(topic.clone(), origin, created, expires, &payload), payload)
            };
            times.into_iter().zip(payloads).map(part).collect()
        })
    }
}

/// Transactions on their way to the signer, and the answer that is to come.
struct HandedOver {
    parts: Vec<(Header, Bytes)>,
    trace: Option<TraceContext>,
    answer: oneshot::Receiver<PublishAnswer>,
}

fn bytes_of(payloads: &[Bytes]) -> usize {
    payloads.iter().map(Bytes::len).fold(0, usize::saturating_add)
}

/// Span of a call that publishes.
fn publish_span(topic: &str, count: usize, bytes: usize) -> Span {
    tracing::debug_span!(target: "sorcha_peer::gossip", "publish", topic, count, bytes)
}

/// Trace context that a host gives; `None` where its trace is not recorded.
fn trace_of(traceparent: &str) -> Result<Option<TraceContext>, PublishError> {
    let trace = TraceContext::parse(traceparent).ok_or(PublishError::InvalidTraceparent)?;
    Ok(trace.sampled())
}

fn publish_error(unpublished: Unpublished) -> PublishError {
    const CONSEQUENCE: &str = "the transaction was not stored";
    let refusal = match unpublished {
        Unpublished::Refused(refusal) => refusal,
        Unpublished::NotStored(failure) => return failure.to_error(CONSEQUENCE).into(),
        Unpublished::NotValid(reason) => return PublishError::NotValid { reason },
        Unpublished::Unsettled => return PublishError::Unsettled,
    };
    match refusal {
        PublishRefusal::TooLarge { size, limit } => PublishError::TooLarge { size, limit },
        PublishRefusal::QueueFull { limit } => PublishError::QueueFull { limit },
        PublishRefusal::OverShare { used, limit } => PublishError::OverShare { used, limit },
        PublishRefusal::OverRate { used, limit } => PublishError::OverRate { used, limit },
        PublishRefusal::Store(kind) => PublishError::Store(StoreError::new(kind, CONSEQUENCE)),
        PublishRefusal::Closed => PublishError::Closed,
    }
}
