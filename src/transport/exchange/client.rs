//! The asking end: one request that sends and one that polls, again and again.
//!
//! Contract: a request that fails is repeated, after a delay with full jitter, until none was answered
//! for [`PATIENCE`]; then the pipe breaks. Refusals that no repeat changes break it at once. Of each kind
//! one request is under way, which time-outs bound. A poll that asks for nothing keeps the session while a
//! slow reader leaves no room. Once the pipe is dropped, what was written has [`LINGER`] to leave; then
//! the session is closed, as far as that can be said in time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use tokio::time::{Instant, sleep, timeout};

use super::end::{End, ExchangePipe, State};
use super::session::Pace;
use super::{Answer, Ask, Request, SessionId, TARGET};
use crate::error::{FailureKind, TransportError};
use crate::transport::metered::Traffic;

/// Time that a poll may be held. Proxies cut requests without an answer, the least patient after 15 s.
pub(super) const POLL_WAIT: Duration = Duration::from_secs(10);
/// Time for the way of a request and its answer, beyond what the server may hold it.
const WAY: Duration = Duration::from_secs(10);
/// Time without any answer after which a pipe is broken. The server forgets the session about then.
const PATIENCE: Duration = Duration::from_secs(30);
/// First and last upper bound of the delay before a request is repeated.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Least time between two requests of a kind of which the first brought nothing about.
const FRUITLESS: Duration = Duration::from_millis(100);
/// Time for what was written to leave after the pipe was dropped, and for the farewell.
const LINGER: Duration = Duration::from_secs(1);

/// Way of one request after the other to the server of a session.
///
/// Cancel safe: a dropped call is one that failed.
pub(super) trait Lane: Send + 'static {
    /// Opens a session.
    fn open(&mut self) -> impl Future<Output = Result<SessionId, Failure>> + Send;

    /// Carries one request.
    fn call(&mut self, request: Request) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

/// Reason why a request brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Worth a repeat: something on the way failed.
    Passing(TransportError),
    /// Told by the server of the session: no repeat helps.
    Final(TransportError),
}

impl Failure {
    pub(super) fn into_error(self) -> TransportError {
        let (Self::Passing(error) | Self::Final(error)) = self;
        error
    }
}

/// Opens a session, and gives its pipe with the bytes that pass there. A task carries it from then on.
pub(super) async fn open<L: Lane>(
    mut sender: L,
    poller: L,
) -> Result<(ExchangePipe, Traffic), TransportError> {
    let session = sender.open().await.map_err(Failure::into_error)?;
    let (end, pipe) = End::new();
    let traffic = end.traffic();
    tokio::spawn(carry(end, session, sender, poller));
    Ok((pipe, traffic))
}

/// Carries a session until it is over, one way or the other.
async fn carry<L: Lane>(end: Arc<End>, session: SessionId, sender: L, poller: L) {
    let mut sending = Asking::new(&end, session, sender);
    let mut polling = Asking::new(&end, session, poller);
    let send = async {
        let lingered = async {
            end.until(&end.written, State::is_dropped).await;
            sleep(LINGER).await;
        };
        tokio::select! {
            () = sending.send_all() => {}
            () = lingered => {}
        }
    };
    let poll = async {
        tokio::select! {
            () = polling.poll_all() => {}
            () = end.until(&end.drained, State::is_dropped) => {}
        }
    };
    join(send, poll).await;
    // Whoever holds the pipe may still read what came.
    end.break_off(io::ErrorKind::BrokenPipe, "the exchange is over");
    let farewell = sending.lane.call(Request { session, ack: end.ack(), ask: Ask::Close });
    let _ = timeout(LINGER, farewell).await;
}

/// Requests of one kind.
struct Asking<'a, L> {
    end: &'a End,
    session: SessionId,
    lane: L,
    pace: Pace,
    /// Number of failures in a row, and the beginning of the first request among them.
    failures: u32,
    failing_since: Instant,
}

impl<'a, L: Lane> Asking<'a, L> {
    fn new(end: &'a End, session: SessionId, lane: L) -> Self {
        let pace = Pace::default();
        Self { end, session, lane, pace, failures: 0, failing_since: Instant::now() }
    }

    /// Sends what is written until all of it has arrived, or nobody wants it.
    async fn send_all(&mut self) {
        loop {
            let is_over = |end: &State| end.is_sent() || end.is_broken();
            let is_due = |end: &State| end.has_unacknowledged() || is_over(end);
            self.end.until(&self.end.written, is_due).await;
            if self.end.is(is_over) {
                return;
            }
            let chunk = self.end.chunk(self.pace.chunk_bytes());
            let (bytes, begun) = (chunk.bytes.len(), Instant::now());
            let Some(answer) = self.ask(Ask::Send(chunk.clone()), POLL_WAIT + WAY).await else {
                continue;
            };
            if answer.gone {
                self.end.unwanted();
                return;
            }
            self.pace.arrived(bytes, begun.elapsed());
            if answer.ack <= chunk.offset {
                sleep(FRUITLESS.saturating_sub(begun.elapsed())).await;
            }
        }
    }

    /// Polls until all has come.
    async fn poll_all(&mut self) {
        // Only then does the time that a poll takes tell of the path.
        let mut more_was_there = false;
        loop {
            let mut limit = self.pace.chunk_bytes();
            let mut wait = POLL_WAIT;
            let has_room = |end: &State| end.has_room() || end.is_broken();
            let room = self.end.until(&self.end.drained, has_room);
            if timeout(POLL_WAIT, room).await.is_err() {
                (limit, wait) = (0, Duration::ZERO);
            }
            if self.end.is(|end| end.is_received() || end.is_broken()) {
                return;
            }
            let begun = Instant::now();
            let Some(answer) = self.ask(Ask::Poll { limit, wait }, wait + WAY).await else {
                continue;
            };
            if answer.gone {
                self.end.unwanted();
            }
            let (bytes, before) = (answer.chunk.bytes.len(), self.end.ack());
            if !matches!(self.end.take(&answer.chunk), Ok(true)) {
                self.end.break_off(io::ErrorKind::InvalidData, "a poll brought what was not due");
            }
            if self.end.ack() == before {
                sleep(FRUITLESS.saturating_sub(begun.elapsed())).await;
            } else if more_was_there {
                self.pace.arrived(bytes, begun.elapsed());
            }
            more_was_there = bytes >= limit;
        }
    }

    /// One request; `None` when there is no answer, after a delay.
    async fn ask(&mut self, ask: Ask, limit: Duration) -> Option<Answer> {
        if self.failures == 0 {
            self.failing_since = Instant::now();
        }
        let request = Request { session: self.session, ack: self.end.ack(), ask };
        let answer = timeout(limit, self.lane.call(request)).await.unwrap_or_else(|elapsed| {
            let message = format!("no answer within {limit:?}");
            let error = TransportError::with_source(FailureKind::Timeout, message, elapsed);
            Err(Failure::Passing(error))
        });
        match answer {
            Ok(answer) => {
                self.failures = 0;
                if self.end.acknowledge(answer.ack).is_err() {
                    let why = "what was never sent is acknowledged";
                    self.end.break_off(io::ErrorKind::InvalidData, why);
                }
                Some(answer)
            }
            Err(Failure::Final(error)) => {
                tracing::debug!(target: TARGET, reason = %error, "an exchange is refused");
                self.end.break_off(io::ErrorKind::ConnectionReset, "the exchange was refused");
                None
            }
            Err(Failure::Passing(error)) => {
                tracing::debug!(target: TARGET, reason = %error, "a request of an exchange failed");
                self.pace.shrink();
                if self.failing_since.elapsed() > PATIENCE {
                    self.end.break_off(io::ErrorKind::TimedOut, "no request was answered");
                    return None;
                }
                let (first, last) = DELAYS;
                let bound = first.saturating_mul(1 << self.failures.min(10)).min(last);
                self.failures += 1;
                sleep(jitter(bound)).await;
                None
            }
        }
    }
}

/// Full jitter; none where the operating system has no randomness.
fn jitter(bound: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or_default();
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
