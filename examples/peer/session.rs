//! One session: from the first line in to the last line out.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sorcha_peer::PeerNode;
use sorcha_peer::error::{
    BanError, ConnectError, DeadLetterError, NodeClosed, ReadyError, RedeliverError, RequestError,
    TestError,
};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::args::Args;
use crate::breakers::Breakers;
use crate::feed::{Content, Deliveries, report_events};
use crate::input::{Ask, Op, Ref, Request};
use crate::logs::Logs;
use crate::output::{Dead, Done, Line, Linked, Out};
use crate::publish::{Job, PublishQueue};
use crate::requests::serve;
use crate::setup::Running;
use crate::signals::Signals;

/// Maximum number of operations other than publishing that are under way.
const MAX_IN_FLIGHT: usize = 256;
/// Maximum time for linked peers to tell what became of a transaction there.
const MAX_ACROSS: Duration = Duration::from_secs(10);
/// Maximum number of dead letters in one answer.
const MAX_PAGE: usize = 10_000;
/// Maximum time to publish what was read, once nothing more is.
const MAX_PUBLISH: Duration = Duration::from_secs(30);
/// Maximum time for what was published to reach others at the end.
const MAX_SHUTDOWN: Duration = Duration::from_secs(5);
/// Maximum time for the last lines to leave.
const MAX_LAST_LINES: Duration = Duration::from_secs(5);

/// Reason why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// `shutdown`, with its `ref`.
    Shutdown(Ref),
    /// The end of input.
    Input,
    /// SIGTERM, SIGINT or SIGHUP.
    Signal,
    /// The end of stdout: nobody reads it.
    Output,
}

/// Serves `requests` until there is a reason to end, ends well, and says why.
pub(crate) async fn run(
    args: &Args,
    running: Running,
    mut requests: mpsc::Receiver<Request>,
    mut signals: Signals,
    out: &Out,
    logs: &Logs,
) -> Result<End, Box<dyn std::error::Error + Send + Sync>> {
    let Running { node, storage, max_payload, memory } = running;
    let events = node.events();
    let content = Content { base64: args.payloads, text: args.text };
    let deliveries = Deliveries::open(&node, &args.topic, args.from, content).await?;
    serve(&node, &args.serve, out).map_err(|error| format!("--serve: {error}"))?;
    let (peer_id, listen, admin) = (node.peer_id(), node.listen_addr(), node.admin_addr());
    out.line(Line::Ready { peer_id, listen, admin }).await;

    let mut feeds = JoinSet::new();
    let breakers = Breakers::default();
    feeds.spawn(report_events(events, node.clone(), breakers.clone(), out.clone()));
    feeds.spawn(deliveries.run(out.clone()));
    let (queue, publisher) = PublishQueue::start(node.clone(), max_payload, memory, out.clone());
    let (out, logs) = (out.clone(), logs.clone());
    let known = Known { logs, breakers };
    let mut session = Session { node, queue, in_flight: JoinSet::new(), out, known };
    let end = session.serve(&mut requests, &mut signals).await;
    session.finish(&end, publisher, feeds, &mut signals).await;
    if let Some(storage) = storage {
        storage.close().await;
    }
    Ok(end)
}

struct Session {
    node: PeerNode,
    queue: PublishQueue,
    /// Operations under way; each writes its answer by itself.
    in_flight: JoinSet<()>,
    out: Out,
    known: Known,
}

/// What answers tell that the node does not know.
#[derive(Clone)]
struct Known {
    logs: Logs,
    breakers: Breakers,
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
            let end = tokio::select! {
                biased;
                () = signals.next() => return End::Signal,
                end = self.dispatch(request) => end,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Has a request answered, now or later.
    async fn dispatch(&mut self, request: Request) -> Option<End> {
        let Request { r#ref, size, op } = request;
        match op {
            Ok(Op::Publish(publish)) => self.queue.push(r#ref, Job::One(publish), size).await,
            Ok(Op::PublishRandom { topic, size: bytes, count }) => {
                let job = Job::Random { topic, size: bytes, count };
                self.queue.push(r#ref, job, size).await;
            }
            Ok(Op::Shutdown {}) => return Some(End::Shutdown(r#ref)),
            Ok(op) => {
                while self.in_flight.len() >= MAX_IN_FLIGHT {
                    self.in_flight.join_next().await;
                }
                while self.in_flight.try_join_next().is_some() {}
                let (node, out, known) = (self.node.clone(), self.out.clone(), self.known.clone());
                self.in_flight
                    .spawn(async move { out.line(answer(&node, &known, op, r#ref).await).await });
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
        let Self { node, queue, mut in_flight, out, known: _ } = self;
        drop(queue);
        let mut published = false;
        if matches!(end, End::Shutdown(_) | End::Input) {
            let done = async {
                let _ = (&mut publisher).await;
                published = true;
                // Whoever ends the program is not kept by what peers take time for.
                while matches!(end, End::Input) && in_flight.join_next().await.is_some() {}
            };
            tokio::select! {
                () = done => {}
                () = signals.next() => {}
                () = tokio::time::sleep(MAX_PUBLISH) => {}
            }
        }
        let report = node.shutdown(MAX_SHUTDOWN).await.unwrap_or_default();
        drop(node);
        // With the node gone, all of this ends by itself, unless stdout is stuck.
        let rest = async {
            if !published {
                let _ = publisher.await;
            }
            while in_flight.join_next().await.is_some() {}
            while feeds.join_next().await.is_some() {}
            if let End::Shutdown(r#ref) = end {
                let (r#ref, result) = (r#ref.clone(), Done::from(report));
                out.line(Line::Ok { r#ref, op: "shutdown", result }).await;
            }
        };
        if tokio::time::timeout(MAX_LAST_LINES, rest).await.is_err() {
            tracing::warn!("not everything was written to stdout in time");
        }
    }
}

/// Carries out an operation and says how it went.
async fn answer(node: &PeerNode, known: &Known, op: Op, r#ref: Ref) -> Line {
    match perform(node, known, op, &r#ref).await {
        Ok(line) => line,
        Err(error) => Line::error(r#ref, &error),
    }
}

async fn perform(node: &PeerNode, known: &Known, op: Op, r#ref: &Ref) -> Result<Line, Failure> {
    let done = |op, peer| Line::Ok { r#ref: r#ref.clone(), op, result: Done::Peer { peer } };
    let kept = |op, id| Line::Ok { r#ref: r#ref.clone(), op, result: Done::Transaction { id } };
    Ok(match op {
        Op::Stats {} => Line::Stats {
            r#ref: r#ref.clone(),
            stats: node.stats().await?.into(),
            log_lines_dropped: known.logs.dropped(),
        },
        Op::Reachability {} => Line::Reachability {
            r#ref: Some(r#ref.clone()),
            report: Box::new(node.reachability().await?),
        },
        Op::Peers {} => {
            let peers = node.peers().await?.into_iter().map(Linked::from).collect();
            Line::Peers { r#ref: r#ref.clone(), peers, breakers: known.breakers.list() }
        }
        Op::Metrics {} => Line::Metrics { r#ref: r#ref.clone(), text: node.metrics_text().await? },
        Op::Invite {} => {
            let invite = node.invite().await?.to_string();
            Line::Invite { r#ref: r#ref.clone(), invite }
        }
        Op::Explain { id, across } => {
            let told = if across {
                node.explain_across(id, MAX_ACROSS).await?
            } else {
                node.explain(id).await?
            };
            Line::Explained { r#ref: r#ref.clone(), told: Box::new(told) }
        }
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
        Op::TestPeer { peer } => {
            Line::Tested { r#ref: r#ref.clone(), test: node.test_peer(peer).await? }
        }
        Op::Request(Ask { peer, protocol, body, time }) => {
            let answer = match time {
                Some(time) => node.request_within(peer, &protocol, body, time).await?,
                None => node.request(peer, &protocol, body).await?,
            };
            Line::Response { r#ref: r#ref.clone(), base64: STANDARD.encode(answer) }
        }
        Op::ResetBreaker { peer } => {
            node.reset_breaker(peer).await?;
            done("reset_breaker", peer)
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
        Op::Publish(_) | Op::PublishRandom { .. } | Op::Shutdown {} => {
            unreachable!("`Session::dispatch` sees to these")
        }
    })
}

/// Reason why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ban(#[from] BanError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    #[error(transparent)]
    Invite(#[from] ReadyError),
    #[error(transparent)]
    Redeliver(#[from] RedeliverError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Test(#[from] TestError),
    #[error(transparent)]
    Closed(#[from] NodeClosed),
}
