//! Why a transaction is here, or is not: what this node knows, and what its linked peers do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::NodeClosed;
use crate::node::messages::Command;
use crate::types::explanation::state;
use crate::types::{Explanation, LinkStatus, PeerId, Topic, TransactionId};
use crate::wire::{decode_explanation, encode_explanation};

use super::peer_node::{PeerNode, WeakPeerNode};
use super::requests::Request;

/// Name of the protocol by which peers are asked.
const PROTOCOL: &str = "sorcha.explain";
/// Maximum number of peers that are asked at once.
const MAX_ASKED: usize = 16;
/// Maximum time for the store to tell the topic.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

impl PeerNode {
    /// Linked peer of this id, as [`PeerNode::peers`] shows it; `None` where there is no link.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn peer(&self, id: PeerId) -> Result<Option<LinkStatus>, NodeClosed> {
        Ok(self.peers().await?.into_iter().find(|status| status.peer == id))
    }

    /// Tells what became of a transaction on this node: from whom it came, who was offered it and has
    /// confirmed it, why it was refused or waits. [`Explanation::summary`] says it in one sentence. An id
    /// that the node knows nothing of is no error: its state is `unknown`.
    ///
    /// What the node remembers takes at most 1/64 of
    /// [`LimitsConfig::memory`](crate::config::LimitsConfig::memory), and 4 MiB: the steps of some ten
    /// thousand transactions, and apart from them of some thousand refusals. It is forgotten with the
    /// process. Reads the transaction from the store where its topic is not in memory. Cancel safe.
    ///
    /// ```
    /// use sorcha_peer::PeerNode;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = PeerNode::builder().listen("127.0.0.1:0").start().await?;
    /// let id = node.publish("orders", "one widget").await?.id();
    /// let told = node.explain(id).await?;
    /// assert_eq!((told.state.as_str(), told.own), ("pending", true));
    /// assert_eq!(told.summary, "Waits in the outbox: no peer is linked");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn explain(&self, id: TransactionId) -> Result<Explanation, NodeClosed> {
        let mut told = self.explain_from_memory(id).await?;
        if told.topic.is_none() {
            self.look_up(&mut told).await;
        }
        let hint = self.0.state.borrow().hint.clone();
        told.summarise(hint.as_deref());
        Ok(told)
    }

    /// Tells what became of a transaction here, as [`PeerNode::explain`], and asks each linked peer what it
    /// knows, for `within` at the most: so one call on the node that published it says where it stopped. A
    /// peer tells of itself alone, and asks nobody in turn. Up to 16 are asked at once.
    ///
    /// A peer answers where [`MessagesConfig::explain`](crate::config::MessagesConfig::explain) allows it:
    /// by default in networks that are not open to everybody. Who does not tell stands in
    /// [`Explanation::not_told`]. What a peer says is as good as the peer.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub async fn explain_across(
        &self,
        id: TransactionId,
        within: Duration,
    ) -> Result<Explanation, NodeClosed> {
        let until = Instant::now() + within.min(super::requests::MAX_TIME);
        let mut told = self.explain(id).await?;
        let peers = self.peers().await?;
        let ask = |peer: PeerId| {
            let (node, topic) = (self.clone(), told.topic.clone());
            async move { (peer, node.explanation_of(peer, id, topic, until).await) }
        };
        let asks: Vec<_> = peers.into_iter().map(|status| ask(status.peer)).collect();
        let mut answers = stream::iter(asks).buffer_unordered(MAX_ASKED);
        while let Some((peer, answer)) = answers.next().await {
            match answer {
                Some(answer) => {
                    told.elsewhere.insert(peer, answer);
                }
                None => told.not_told.push(peer),
            }
        }
        told.not_told.sort_unstable();
        told.summarise_across();
        Ok(told)
    }

    /// Asks one peer; `None` where it does not tell.
    async fn explanation_of(
        &self,
        peer: PeerId,
        id: TransactionId,
        topic: Option<Topic>,
        until: Instant,
    ) -> Option<Explanation> {
        let (body, left) = (
            Bytes::copy_from_slice(id.as_bytes()),
            until.saturating_duration_since(Instant::now()),
        );
        let answer = self.request_within(peer, PROTOCOL, body, left).await.ok()?;
        let mut told = decode_explanation(id, &answer).ok()?;
        told.topic = topic;
        told.summarise(None);
        Some(told)
    }

    /// Tells what the protocol knows, without topic and summary as a rule.
    async fn explain_from_memory(&self, id: TransactionId) -> Result<Explanation, NodeClosed> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Explain { id, reply }).await?;
        answer.await.map_err(|_| NodeClosed)
    }

    /// Reads from the store what only that knows.
    async fn look_up(&self, told: &mut Explanation) {
        if matches!(told.state.as_str(), state::UNKNOWN | state::REFUSED) {
            return;
        }
        let find = async {
            if let Some(found) = self.0.log.get(&told.id).await.ok()? {
                return Some(found);
            }
            let entry = self.0.queue.get(&told.id).await.ok()?;
            entry.filter(|_| told.own).map(|entry| entry.transaction)
        };
        if let Ok(Some(found)) = tokio::time::timeout(LOOK_UP_TIMEOUT, find).await {
            let header = found.header();
            (told.origin, told.topic) = (Some(header.origin), Some(header.topic.clone()));
            told.size = Some(header.payload_len);
        }
    }
}

/// Answers peers that ask what became of a transaction here, where that is allowed.
pub(in crate::node) fn serve(node: &PeerNode) {
    if !node.0.config.explains() {
        return;
    }
    let weak = node.downgrade();
    let handler = move |request: Request| answer(weak.clone(), request).boxed();
    // The first handler of all: nobody has taken the name.
    let _ = node.0.handlers.add(PROTOCOL, Arc::new(handler));
}

async fn answer(node: WeakPeerNode, request: Request) -> Result<Bytes, String> {
    let id = <[u8; 32]>::try_from(&request.body()[..]).map_err(|_| "no id".to_owned())?;
    let (Some(_), Some(node)) = (request.peer(), node.upgrade()) else {
        return Err("not told".to_owned());
    };
    let told = node.explain_from_memory(TransactionId::from_bytes(id)).await;
    told.map(|told| encode_explanation(&told)).map_err(|error| error.to_string())
}
