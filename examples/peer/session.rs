//! One session: from the first line in to the last line out.

use std::time::Duration;

use serde_json::Value;
use sorcha_peer::PeerNode;
use sorcha_peer::error::{BanError, ConnectError, DeadLetterError, NodeClosed, RedeliverError};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::args::Args;
use crate::feed::{Deliveries, report_events};
use crate::input::{Op, Request};
use crate::output::{Dead, Done, Line, Out};
use crate::publish::{Job, Lane};
use crate::setup::Running;
use crate::signals::Signals;

/// Operations other than publishing that may be under way.
const MAX_ASKED: usize = 256;
/// Dead letters in one answer.
const MAX_PAGE: usize = 10_000;
/// Time for publishing lines that were read to be done with, once no more are.
const FINISH: Duration = Duration::from_secs(30);
/// Time for what was published to reach others at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// Time for the last lines to leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// `shutdown`, with its `ref`.
    Asked(Value),
    /// The end of input.
    Input,
    /// SIGTERM or SIGINT.
    Signal,
    /// Nobody reads stdout.
    Output,
}

/// Serves `requests` until there is a reason to end, ends well, and says why.
pub(crate) async fn run(
    args: &Args,
    running: Running,
    mut requests: mpsc::Receiver<Request>,
    mut signals: Signals,
    out: &Out,
) -> Result<End, Box<dyn std::error::Error + Send + Sync>> {
    let Running { node, storage, max_payload } = running;
    let events = node.events();
    let deliveries = Deliveries::open(&node, &args.topic, args.from, args.payloads).await?;
    let (peer_id, listen) = (node.peer_id(), node.listen_addr());
    out.line(Line::Ready { peer_id, listen, admin: None }).await;

    let mut feeds = JoinSet::new();
    feeds.spawn(report_events(events, node.clone(), out.clone()));
    feeds.spawn(deliveries.run(out.clone()));
    let (lane, publisher) = Lane::start(node.clone(), max_payload, out.clone());
    let mut session = Session { node, lane, asked: JoinSet::new(), out: out.clone() };
    let end = session.serve(&mut requests, &mut signals).await;
    session.finish(&end, publisher, feeds, &mut signals).await;
    if let Some(storage) = storage {
        storage.close().await;
    }
    Ok(end)
}

struct Session {
    node: PeerNode,
    lane: Lane,
    /// Operations under way; each answers by itself.
    asked: JoinSet<()>,
    out: Out,
}

impl Session {
    async fn serve(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        signals: &mut Signals,
    ) -> End {
        loop {
            let request = tokio::select! {
                biased;
                () = signals.next() => return End::Signal,
                () = self.out.closed() => return End::Output,
                request = requests.recv() => request,
            };
            let Some(request) = request else { return End::Input };
            // Taking a request may wait for stdout or the node; a signal need not.
            let taken = tokio::select! {
                biased;
                () = signals.next() => return End::Signal,
                taken = self.take(request) => taken,
            };
            if let Some(end) = taken {
                return end;
            }
        }
    }

    /// Sees to it that a request is answered, later perhaps.
    async fn take(&mut self, request: Request) -> Option<End> {
        let Request { r#ref, size, op } = request;
        match op {
            Ok(Op::Publish(publish)) => self.lane.push(r#ref, Job::One(publish), size).await,
            Ok(Op::PublishRandom { topic, size: bytes, count }) => {
                let job = Job::Random { topic, size: bytes, count };
                self.lane.push(r#ref, job, size).await;
            }
            Ok(Op::Shutdown) => return Some(End::Asked(r#ref)),
            Ok(op) => {
                while self.asked.len() >= MAX_ASKED {
                    self.asked.join_next().await;
                }
                while self.asked.try_join_next().is_some() {}
                let (node, out) = (self.node.clone(), self.out.clone());
                self.asked.spawn(async move { out.line(answer(&node, op, r#ref).await).await });
            }
            Err(error) => self.out.line(Line::error(r#ref, &error)).await,
        }
        None
    }

    /// Answers what was read, stops the node, lets the feeds run dry, and answers `shutdown` last.
    async fn finish(
        self,
        end: &End,
        mut publisher: JoinHandle<()>,
        mut feeds: JoinSet<()>,
        signals: &mut Signals,
    ) {
        let Self { node, lane, mut asked, out } = self;
        drop(lane);
        let mut published = false;
        if matches!(end, End::Asked(_) | End::Input) {
            tokio::select! {
                _ = &mut publisher => published = true,
                () = signals.next() => {}
                () = tokio::time::sleep(FINISH) => {}
            }
        }
        let report = node.shutdown(FLUSH).await.unwrap_or_default();
        drop(node);
        // With the node gone, all of this ends by itself, unless stdout is stuck.
        let rest = async {
            if !published {
                let _ = publisher.await;
            }
            while asked.join_next().await.is_some() {}
            while feeds.join_next().await.is_some() {}
            if let End::Asked(r#ref) = end {
                let (r#ref, result) = (r#ref.clone(), Done::from(report));
                out.line(Line::Ok { r#ref, op: "shutdown", result }).await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, rest).await.is_err() {
            tracing::warn!("not everything was written to stdout in time");
        }
    }
}

/// Carries out an operation and says how it went.
async fn answer(node: &PeerNode, op: Op, r#ref: Value) -> Line {
    match perform(node, op, &r#ref).await {
        Ok(line) => line,
        Err(error) => Line::error(r#ref, &error),
    }
}

async fn perform(node: &PeerNode, op: Op, r#ref: &Value) -> Result<Line, Failure> {
    let done = |op, peer| Line::Ok { r#ref: r#ref.clone(), op, result: Done::Peer { peer } };
    let kept = |op, id| Line::Ok { r#ref: r#ref.clone(), op, result: Done::Transaction { id } };
    Ok(match op {
        Op::Stats => Line::Stats { r#ref: r#ref.clone(), stats: node.stats().await?.into() },
        Op::Peers => Line::Peers { r#ref: r#ref.clone(), peers: node.peers().await? },
        Op::Connect { address } => done("connect", node.connect(&address).await?),
        Op::Disconnect { peer } => {
            node.disconnect(peer).await?;
            done("disconnect", peer)
        }
        Op::Ban { peer, reason } => {
            node.ban(peer, None, &reason).await?;
            done("ban", peer)
        }
        Op::Unban { peer } => {
            node.unban(peer).await?;
            done("unban", peer)
        }
        Op::DeadLetters { after, limit } => {
            let page = node.dead_letters(after, limit.min(MAX_PAGE)).await?;
            let dead_letters = page.into_iter().map(Dead::from).collect();
            Line::DeadLetters { r#ref: r#ref.clone(), dead_letters }
        }
        Op::Redeliver { id } => {
            // Under this id or, where it had expired, under a new one.
            let id = node.redeliver(id).await?.id();
            kept("redeliver", id)
        }
        Op::DeleteDeadLetter { id } => {
            node.delete_dead_letter(id).await?;
            kept("delete_dead_letter", id)
        }
        // The last three never come here: `Session::take` sees to them.
        Op::Explain { .. } | Op::Publish(_) | Op::PublishRandom { .. } | Op::Shutdown => {
            return Err(Failure::NotYet);
        }
    })
}

/// Why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("not available yet")]
    NotYet,
    #[error(transparent)]
    Ban(#[from] BanError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    #[error(transparent)]
    Redeliver(#[from] RedeliverError),
    #[error(transparent)]
    Closed(#[from] NodeClosed),
}
