//! Requests to one peer, and handlers of those of peers.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::error::{NodeClosed, RequestError};
use crate::node::messages::{Ask, Command};
use crate::protocol::CallId;
use crate::types::{PeerId, TraceContext, is_protocol_name};

use super::peer_node::{Inner, PeerNode};

/// Request of a peer, as a handler gets it.
///
/// ```
/// use sorcha_peer::{PeerNode, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
/// node.handle_requests("greet", |request: Request| async move {
///     let name = std::str::from_utf8(request.body()).map_err(|error| error.to_string())?;
///     Ok(format!("{name}, you are {}", request.caller()).into())
/// })?;
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub struct Request {
    protocol: String,
    body: Bytes,
    peer: Option<PeerId>,
    /// Made where it is asked for: most handlers do not.
    caller: OnceLock<String>,
    within: Duration,
    trace: Option<TraceContext>,
}

impl Request {
    pub(in crate::node) fn of_peer(
        peer: PeerId,
        protocol: String,
        body: Bytes,
        within: Duration,
        trace: Option<TraceContext>,
    ) -> Self {
        Self { protocol, body, peer: Some(peer), caller: OnceLock::new(), within, trace }
    }

    /// Request of a client of the original, who calls itself so.
    #[cfg(feature = "compat")]
    pub(in crate::node) fn of_client(
        caller: String,
        protocol: String,
        body: Bytes,
        within: Duration,
    ) -> Self {
        Self { protocol, body, peer: None, caller: caller.into(), within, trace: None }
    }

    /// Name of the protocol that is asked for.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Body of the request. Cloning shares the bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Peer that asks, whose key the link has proven. `None` for who is no peer, such as a client of the
    /// original's protocol.
    pub fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// Name of who asks: the id of the peer in hex, which is proven, or what a client says of itself, which is
    /// not. What a client says is never the hex of an id.
    pub fn caller(&self) -> &str {
        self.caller.get_or_init(|| self.peer.map(|peer| peer.to_string()).unwrap_or_default())
    }

    /// Time that the caller still waited when the request was here. After it the handler is dropped.
    pub fn within(&self) -> Duration {
        self.within
    }

    /// W3C trace context of the request, as the text of a `traceparent`; `None` where the caller gave none,
    /// or its trace is not recorded. The caller says so, and nothing proves it.
    pub fn traceparent(&self) -> Option<String> {
        self.trace.map(|trace| trace.to_string())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("protocol", &self.protocol)
            .field("caller", &self.caller())
            .field("body_bytes", &self.body.len())
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

impl PeerNode {
    /// Asks one peer, and returns the answer of its host's handler. Waits at most
    /// [`MessagesConfig::timeout`](crate::config::MessagesConfig::timeout), 30 s by default.
    ///
    /// The request goes over the link with the peer, whichever side opened it and whatever carries it. A peer
    /// that is known and not linked is dialled, within the same time. Bodies have up to
    /// [`MessagesConfig::max_bytes`](crate::config::MessagesConfig::max_bytes), 1 MiB by default, at both ends;
    /// `protocol` is a name of 1 to 128 printable ASCII characters without spaces, which the two hosts
    /// agree on. Of requests that run at the same time any may be answered first.
    ///
    /// The request is sent at most once and stored nowhere: an error after it was sent leaves open whether the
    /// peer has done what it was asked, so a host that repeats it should ask for what may be done twice. What
    /// must not be lost is [published](PeerNode::publish) instead. See the guide's
    /// [messages](crate::guide::messages).
    ///
    /// Cancel safe: when the future is dropped, the peer is told and its handler is dropped too, unless the
    /// answer is on its way already.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sorcha_peer::{PeerNode, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let first = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// first.handle_requests("stock", |request: Request| async move {
    ///     match &request.body()[..] {
    ///         b"widgets" => Ok("42".into()),
    ///         _ => Err("no such thing".to_owned()),
    ///     }
    /// })?;
    ///
    /// let address = first.listen_addr().ok_or("it listens")?.to_string();
    /// let second = PeerNode::builder().listen("127.0.0.1:0").bootstrap([address]).start().await?;
    /// second.wait_ready(1, Duration::from_secs(10)).await?;
    /// let answer = second.request(first.peer_id(), "stock", "widgets").await?;
    /// assert_eq!(answer, "42");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RequestError`]: each says whether the peer may have done what it was asked.
    pub async fn request(
        &self,
        peer: PeerId,
        protocol: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes, RequestError> {
        self.request_within(peer, protocol, body, self.0.config.messages.timeout).await
    }

    /// Asks one peer as [`PeerNode::request`] does, and waits at most `time`, of which 10 min count. The peer
    /// is told the time, so that its handler gives up too.
    ///
    /// # Errors
    /// Those of [`PeerNode::request`].
    pub async fn request_within(
        &self,
        peer: PeerId,
        protocol: &str,
        body: impl Into<Bytes>,
        time: Duration,
    ) -> Result<Bytes, RequestError> {
        self.ask(peer, protocol, body.into(), time, None).await
    }

    /// Asks one peer as [`PeerNode::request_within`] does, as part of a trace: the handler finds the text
    /// again in [`Request::traceparent`]. Nothing is told of a trace that is not recorded (the last bit of
    /// the flags), nor to a peer whose version knows no traces.
    ///
    /// # Errors
    /// Those of [`PeerNode::request`]; [`RequestError::InvalidTraceparent`].
    pub async fn request_traced(
        &self,
        peer: PeerId,
        protocol: &str,
        body: impl Into<Bytes>,
        time: Duration,
        traceparent: &str,
    ) -> Result<Bytes, RequestError> {
        let trace = TraceContext::parse(traceparent).ok_or(RequestError::InvalidTraceparent)?;
        self.ask(peer, protocol, body.into(), time, trace.sampled()).await
    }

    async fn ask(
        &self,
        peer: PeerId,
        protocol: &str,
        body: Bytes,
        time: Duration,
        trace: Option<TraceContext>,
    ) -> Result<Bytes, RequestError> {
        let span = tracing::debug_span!(
            target: "sorcha_peer::messages",
            "request",
            %peer,
            protocol,
            bytes = body.len()
        );
        let (call, protocol) = (self.0.call_ids.next(), protocol.to_owned());
        let (reply, answer) = oneshot::channel();
        let within = time.min(MAX_TIME);
        let ask = Ask { call, peer, protocol, body, within, trace, reply };
        self.asked(ask, answer).instrument(span).await
    }

    async fn asked(
        &self,
        ask: Ask,
        answer: oneshot::Receiver<Result<Bytes, RequestError>>,
    ) -> Result<Bytes, RequestError> {
        let call = ask.call;
        self.command(Command::Request(Box::new(ask))).await?;
        let mut waiting = Waiting { inner: &self.0, call: Some(call) };
        let answer = answer.await.map_err(|_| RequestError::Closed)?;
        waiting.call = None;
        answer
    }

    /// Has `handler` answer what peers ask under a protocol, from now on until
    /// [`PeerNode::stop_handling`] or the end of the node. Does not wait.
    ///
    /// Each request is a call of `handler`, as a task of its own on the node's runtime: one that takes long
    /// holds up no other and nothing of the node, as long as it does not block the thread. `Ok` is the body of
    /// the answer. `Err` refuses, and its text, of which 256 bytes are told, is what the caller sees as
    /// [`RequestError::Refused`]. A handler that panics is [`RequestError::Failed`] for the caller, and an
    /// error in the log.
    ///
    /// The future of a call is dropped where it stands when the caller does not wait any more, by
    /// its own choice, because its time is over or since the link ended, and when the node stops.
    /// Up to [`MessagesConfig::max_concurrent`](crate::config::MessagesConfig::max_concurrent)
    /// requests of one peer are received, handled and answered at once (16 by default, of large
    /// bodies fewer), and 16 times as many of all peers together; others are refused as
    /// [`RequestError::Busy`]. A call may ask others in turn, also the one that asks.
    ///
    /// A handler that holds a [`PeerNode`] keeps the node alive: give it a
    /// [`WeakPeerNode`](crate::WeakPeerNode) instead.
    ///
    /// ```
    /// use sorcha_peer::{PeerNode, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// let weak = node.downgrade();
    /// node.handle_requests("links", move |_: Request| {
    ///     let weak = weak.clone();
    ///     async move {
    ///         let node = weak.upgrade().ok_or("stopping")?;
    ///         let peers = node.peers().await.map_err(|error| error.to_string())?;
    ///         Ok(peers.len().to_string().into())
    ///     }
    /// })?;
    /// assert!(node.stop_handling("links"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RequestError::InvalidProtocol`], [`RequestError::ProtocolTaken`] while another handler has the
    /// protocol and for names that begin with `sorcha.`, which are the node's (`sorcha.message.` apart, for
    /// what clients of the original say), and [`RequestError::Closed`].
    pub fn handle_requests<F, Fut>(&self, protocol: &str, handler: F) -> Result<(), RequestError>
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, String>> + Send + 'static,
    {
        if !is_protocol_name(protocol) {
            return Err(RequestError::InvalidProtocol);
        }
        if self.is_closed() {
            return Err(RequestError::Closed);
        }
        if is_reserved(protocol) {
            return Err(RequestError::ProtocolTaken { protocol: protocol.to_owned() });
        }
        let handler = move |request| handler(request).boxed();
        self.0.handlers.add(protocol, Arc::new(handler))
    }

    /// Takes the handler of a protocol away; returns whether there was one. Calls that run go on and are
    /// answered. Does not wait.
    pub fn stop_handling(&self, protocol: &str) -> bool {
        !is_reserved(protocol) && self.0.handlers.remove(protocol)
    }
}

/// Reports whether a protocol is one of the node's own. What clients of the original ask is the host's.
fn is_reserved(protocol: &str) -> bool {
    protocol.starts_with("sorcha.") && !protocol.starts_with("sorcha.message.")
}

/// Maximum time that a request waits for its answer.
pub(super) const MAX_TIME: Duration = Duration::from_mins(10);

/// Request that waits for its answer. Dropped meanwhile, the request is taken back.
struct Waiting<'a> {
    inner: &'a Inner,
    call: Option<CallId>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(call) = self.call else { return };
        let Err(full) = self.inner.commands.try_send(Command::CancelRequest { call }) else {
            return;
        };
        // Closed, there is nobody to be told.
        let (commands, command) = (self.inner.commands.clone(), full.into_inner());
        if !commands.is_closed() {
            self.inner.runtime.spawn(async move { commands.send(command).await });
        }
    }
}

impl From<NodeClosed> for RequestError {
    fn from(_: NodeClosed) -> Self {
        Self::Closed
    }
}
