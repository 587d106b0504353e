//! The sessions that are served, and what a request does to one, whatever its face.
//!
//! Contract: a session begins with a request and has an id that nobody can guess; it ends 30 s after its
//! last request, [`LEFTOVER`] after its pipe was dropped, or when that pipe is dropped and the client has
//! all, or when the client closes it. There are at most [`MAX_SESSIONS`], and [`MAX_PER_HOST`] from one
//! host. Of each kind one request at a time is held for a session: a newer one has the older answered at
//! once, as its client has given it up.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::client::POLL_WAIT;
use super::end::{End, ExchangePipe, State};
use super::session::{Chunk, MAX_CHUNK_BYTES, Refusal};
use super::{Answer, SessionId};
use crate::transport::metered::Traffic;
use crate::transport::port::Busy;
use crate::types::host_of;

/// Maximum number of sessions of one transport.
const MAX_SESSIONS: usize = 4096;
/// Maximum number of them from one host, which may be a proxy in front of many peers.
const MAX_PER_HOST: u32 = 1024;
/// Time without a request after which a session is over.
const IDLE: Duration = Duration::from_secs(30);
/// Time for a client to fetch what is left after the pipe of its session was dropped.
const LEFTOVER: Duration = Duration::from_secs(10);

/// All sessions that a transport serves.
#[derive(Debug, Default)]
pub(in crate::transport) struct Sessions {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<SessionId, Arc<Served>>,
    /// Number of sessions of each host that has any.
    hosts: HashMap<IpAddr, u32>,
}

impl Table {
    /// Adds a session; false where there is no room. One whose pipe was dropped gives way.
    fn enter(&mut self, session: SessionId, served: Arc<Served>) -> bool {
        let host = served.host;
        let is_full = |table: &Self| {
            let count = table.hosts.get(&host).copied().unwrap_or_default();
            (count >= MAX_PER_HOST, table.sessions.len() >= MAX_SESSIONS)
        };
        let (of_host, in_all) = is_full(self);
        if of_host || in_all {
            let left = self.sessions.iter().find(|(_, other)| {
                (other.host == host || !of_host) && other.end.is(State::is_dropped)
            });
            let left = left.map(|(session, _)| *session);
            if let Some(other) = left.and_then(|session| self.forget(session)) {
                other.end.break_off(io::ErrorKind::TimedOut, "others need the room");
            }
        }
        if is_full(self) != (false, false) || self.sessions.contains_key(&session) {
            return false;
        }
        *self.hosts.entry(host).or_default() += 1;
        self.sessions.insert(session, served);
        true
    }

    fn forget(&mut self, session: SessionId) -> Option<Arc<Served>> {
        let served = self.sessions.remove(&session)?;
        if let Some(count) = self.hosts.get_mut(&served.host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&served.host);
            }
        }
        Some(served)
    }
}

/// One session.
#[derive(Debug)]
struct Served {
    end: Arc<End>,
    host: IpAddr,
    activity: Mutex<Activity>,
    sends: watch::Sender<u64>,
    polls: watch::Sender<u64>,
    holds: Mutex<Holds>,
}

/// What keeps the connections alive that the last requests of a session came by, of each kind.
type Holds = [Option<Busy>; 2];

/// Kind of a request. Of each a client has one under way, and a connection of its own where it needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Send,
    Poll,
}

#[derive(Debug)]
struct Activity {
    requests: u32,
    last: Instant,
}

impl Sessions {
    /// Begins a session of a client at this address; `None` where there is no room.
    pub(super) fn open(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Option<(SessionId, ExchangePipe, Traffic)> {
        let session = SessionId::random()?;
        let (end, pipe) = End::new();
        let traffic = end.traffic();
        let host = host_of(address);
        let activity = Mutex::new(Activity { requests: 0, last: Instant::now() });
        let (sends, polls) = (watch::Sender::new(0), watch::Sender::new(0));
        let served =
            Arc::new(Served { end, host, activity, sends, polls, holds: Mutex::default() });
        let mut table = self.lock();
        if !table.enter(session, Arc::clone(&served)) {
            return None;
        }
        drop(table);
        tokio::spawn(Arc::clone(self).keep(session, served));
        Some((session, pipe, traffic))
    }

    /// The session of a request, which counts as one for as long as the visit lasts.
    pub(super) fn visit(&self, session: SessionId) -> Option<Visit> {
        let served = Arc::clone(self.lock().sessions.get(&session)?);
        served.activity().requests += 1;
        Some(Visit { served })
    }

    /// Ends a session that was just opened and cannot be served.
    pub(super) fn refuse(&self, session: SessionId) {
        if let Some(served) = self.lock().forget(session) {
            served.end.break_off(io::ErrorKind::TimedOut, "there is no room for the session");
        }
    }

    /// Keeps a session until it is over.
    async fn keep(self: Arc<Self>, session: SessionId, served: Arc<Served>) {
        let end = &served.end;
        let is_over = |end: &State| end.is_broken() || (end.is_dropped() && end.is_sent());
        let over = end.until(&end.written, is_over);
        let left = async {
            end.until(&end.written, State::is_dropped).await;
            tokio::time::sleep(LEFTOVER).await;
        };
        tokio::select! {
            () = over => {}
            () = left => {}
            () = served.idle() => {}
        }
        self.lock().forget(session);
        *served.holds() = Holds::default();
        end.break_off(io::ErrorKind::TimedOut, "no request came for too long");
    }

    /// Number of sessions, and of hosts that have any.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let table = self.lock();
        (table.sessions.len(), table.hosts.len())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Served {
    /// Completes when no request came for too long.
    async fn idle(&self) {
        loop {
            let now = Instant::now();
            let until = {
                let activity = self.activity();
                if activity.requests > 0 { now + IDLE } else { activity.last + IDLE }
            };
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request at its session.
#[derive(Debug)]
pub(super) struct Visit {
    served: Arc<Served>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut activity = self.served.activity();
        activity.requests -= 1;
        activity.last = Instant::now();
    }
}

impl Visit {
    /// Keeps the connection of this request alive until the session is over or another brings the next
    /// one of its kind. So links live on where the listener is gone.
    pub(super) fn hold(&self, kind: Kind, busy: Busy) {
        let mut holds = self.served.holds();
        let before = holds[kind as usize].replace(busy);
        drop(holds);
        drop(before);
    }

    /// Collects the bytes of a send, unless a newer one comes meanwhile, and takes them in.
    ///
    /// # Errors
    /// That of `bytes`, or the refusal; `None` in place of an answer where a newer send took over.
    pub(super) async fn send<E: From<Refusal>>(
        &self,
        ack: u64,
        chunk: impl Future<Output = Result<Chunk, E>>,
    ) -> Result<Answer, E> {
        let newer = newer(&self.served.sends);
        let end = &self.served.end;
        end.acknowledge(ack)?;
        let take = async {
            let chunk = chunk.await?;
            let patience = Instant::now() + POLL_WAIT;
            while !end.take(&chunk)? {
                let has_room = |end: &State| end.has_room() || end.is_broken();
                let room = end.until(&end.drained, has_room);
                if timeout_at(patience, room).await.is_err() || end.is(State::is_broken) {
                    break;
                }
            }
            Ok::<_, E>(())
        };
        tokio::select! {
            taken = take => taken?,
            () = newer => {}
        }
        Ok(self.answer(Chunk::default()))
    }

    /// What there is to send, which is awaited for some time.
    pub(super) async fn poll(
        &self,
        ack: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Answer, Refusal> {
        let newer = newer(&self.served.polls);
        let end = &self.served.end;
        end.acknowledge(ack)?;
        let is_due = |end: &State| end.has_unacknowledged() || end.is_broken();
        let due = end.until(&end.written, is_due);
        tokio::select! {
            _ = timeout(wait.min(POLL_WAIT), due) => {}
            () = newer => {}
        }
        Ok(self.answer(end.chunk(limit.min(MAX_CHUNK_BYTES))))
    }

    /// Ends the session, as its client asks.
    pub(super) fn close(&self) {
        self.served.end.break_off(io::ErrorKind::ConnectionReset, "the client closed the exchange");
    }

    fn answer(&self, chunk: Chunk) -> Answer {
        let end = &self.served.end;
        Answer { chunk, ack: end.ack(), gone: end.is(State::is_dropped) }
    }
}

/// Completes when another request of the same kind comes.
fn newer(turns: &watch::Sender<u64>) -> impl Future<Output = ()> + use<> {
    turns.send_modify(|turn| *turn += 1);
    let mut changes = turns.subscribe();
    async move {
        let changed = pin!(changes.changed());
        let _ = changed.await;
    }
}
