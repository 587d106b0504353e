//! Client and sessions without HTTP between them, over lanes that fail.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::client::{self, Failure, Lane};
use super::end::ExchangePipe;
use super::session::{Chunk, MAX_BUFFERED_BYTES, MAX_CHUNK_BYTES, Refusal};
use super::{Answer, Ask, Request, SessionId, Sessions};
use crate::error::{FailureKind, TransportError};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
/// Ends a test that hangs; no test waits for it. The clock of these tests is not real.
const HANG: Duration = Duration::from_hours(1);
/// Maximum number of requests in a row that come to harm where not all do: their repeats take less time
/// than an exchange has patience, whatever the jitter.
const MAX_HARMED: u32 = 15;

/// Lane without a network, which loses requests and answers, and repeats requests.
struct Faulty {
    sessions: Arc<Sessions>,
    pipes: mpsc::Sender<ExchangePipe>,
    rng: ChaCha8Rng,
    /// Requests in a hundred that come to harm.
    harm: u64,
    /// Number of those in a row until now.
    harmed: u32,
    calls: Arc<AtomicUsize>,
}

impl Faulty {
    fn pair(sessions: &Arc<Sessions>, harm: u64) -> ([Self; 2], mpsc::Receiver<ExchangePipe>) {
        let (pipes, accepted) = mpsc::channel(1);
        let lane = |seed| Self {
            sessions: Arc::clone(sessions),
            pipes: pipes.clone(),
            rng: ChaCha8Rng::from_seed([seed; 32]),
            harm,
            harmed: 0,
            calls: Arc::default(),
        };
        ([lane(1), lane(2)], accepted)
    }
}

fn lost() -> Failure {
    Failure::Passing(TransportError::new(FailureKind::Closed, "lost"))
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Final(TransportError::with_source(FailureKind::Protocol, "refused", refusal))
    }
}

async fn serve(sessions: &Sessions, request: &Request) -> Result<Answer, Failure> {
    let unknown = || Failure::Final(TransportError::new(FailureKind::Closed, "no such session"));
    let visit = sessions.visit(request.session).ok_or_else(unknown)?;
    match &request.ask {
        Ask::Send(chunk) => visit.send(request.ack, async { Ok(chunk.clone()) }).await,
        Ask::Poll { limit, wait } => Ok(visit.poll(request.ack, *limit, *wait).await?),
        Ask::Close => {
            visit.close();
            Ok(Answer { chunk: Chunk::default(), ack: 0, gone: true })
        }
    }
}

impl Lane for Faulty {
    async fn open(&mut self) -> Result<SessionId, Failure> {
        let (session, pipe, _) = self.sessions.open(CLIENT).ok_or_else(lost)?;
        self.pipes.send(pipe).await.map_err(|_| lost())?;
        Ok(session)
    }

    async fn call(&mut self, request: Request) -> Result<Answer, Failure> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(self.rng.next_u64() % 20)).await;
        let spared = self.harm < 100 && self.harmed == MAX_HARMED;
        let harmed = self.rng.next_u64() % 100 < self.harm && !spared;
        self.harmed = if harmed { self.harmed + 1 } else { 0 };
        match self.rng.next_u64() % 3 {
            0 if harmed => return Err(lost()),
            1 if harmed => drop(serve(&self.sessions, &request).await?),
            _ => {}
        }
        let answer = serve(&self.sessions, &request).await?;
        if harmed { Err(lost()) } else { Ok(answer) }
    }
}

fn pattern(seed: u8, bytes: usize) -> Vec<u8> {
    let mut pattern = vec![0; bytes];
    ChaCha8Rng::from_seed([seed; 32]).fill_bytes(&mut pattern);
    pattern
}

/// Waits until no session is left. Time is paused, so that a glance costs none.
async fn sessions_end(sessions: &Sessions, within: Duration) {
    let ended = async {
        while sessions.counts().0 > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(within, ended).await.expect("sessions end");
}

/// Both ends of an exchange.
async fn connected(harm: u64) -> (ExchangePipe, ExchangePipe, Arc<Sessions>) {
    let sessions = Arc::default();
    let ([sender, poller], mut accepted) = Faulty::pair(&sessions, harm);
    let (client, _) = client::open(sender, poller).await.unwrap();
    (client, accepted.recv().await.unwrap(), sessions)
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_lose_and_double_nothing() {
    for harm in [0, 10, 50, 80] {
        let (client, server, sessions) = connected(harm).await;
        let mut tasks = tokio::task::JoinSet::new();
        for (seed, pipe) in [(1_u8, client), (2, server)] {
            tasks.spawn(async move {
                let (mut reader, mut writer) = split(pipe);
                let write = async {
                    for part in pattern(seed, 3_000_000).chunks(7_919) {
                        writer.write_all(part).await.unwrap();
                    }
                    writer.shutdown().await.unwrap();
                };
                let read = async {
                    let mut read = Vec::new();
                    reader.read_to_end(&mut read).await.unwrap();
                    assert!(read == pattern(3 - seed, 3_000_000), "{harm} %: other bytes arrived");
                };
                tokio::join!(write, read);
                reader.unsplit(writer)
            });
        }
        // The first to have all keeps its pipe: a dropped one has only so long to deliver what it took.
        drop(timeout(HANG, tasks.join_all()).await.unwrap());
        sessions_end(&sessions, HANG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pipe_delivers_what_it_took_and_ends_the_session() {
    for client_drops in [true, false] {
        let (client, server, sessions) = connected(0).await;
        let (mut dropper, mut other) =
            if client_drops { (client, server) } else { (server, client) };
        dropper.write_all(b"last words").await.unwrap();
        drop(dropper);
        let mut read = Vec::new();
        timeout(HANG, other.read_to_end(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, b"last words");
        // Where the server dropped, its client learns so with the next send.
        let refused = async {
            while other.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(HANG, refused).await.unwrap();
        drop(other);
        sessions_end(&sessions, Duration::from_secs(15)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_pipe_has_no_time_to_deliver_is_no_end() {
    for client_drops in [true, false] {
        let (client, server, _sessions) = connected(100).await;
        let (mut dropper, mut other) =
            if client_drops { (client, server) } else { (server, client) };
        let data = pattern(1, MAX_CHUNK_BYTES / 2);
        dropper.write_all(&data).await.unwrap();
        drop(dropper);
        let mut read = Vec::new();
        assert!(timeout(HANG, other.read_to_end(&mut read)).await.unwrap().is_err());
        assert!(read.len() < data.len() && data.starts_with(&read), "{} bytes", read.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_holds_the_writer_back_and_keeps_the_session() {
    for client_writes in [true, false] {
        let (client, server, _sessions) = connected(0).await;
        let (mut writer, mut reader) =
            if client_writes { (client, server) } else { (server, client) };
        let data = pattern(1, 100_000);
        let mut written = 0;
        while let Ok(done) = timeout(Duration::from_mins(1), writer.write(&data)).await {
            written += done.unwrap();
        }
        assert!(written <= 2 * MAX_BUFFERED_BYTES, "{written}");
        assert!(written >= MAX_CHUNK_BYTES, "{written}");
        let mut read = vec![0; written];
        timeout(HANG, reader.read_exact(&mut read)).await.unwrap().unwrap();
        timeout(HANG, writer.write_all(b"more")).await.unwrap().unwrap();
        timeout(HANG, reader.read_exact(&mut read[..4])).await.unwrap().unwrap();
        assert_eq!(&read[..4], b"more");
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_exchanges_cost_six_requests_a_minute_and_live() {
    let sessions = Arc::default();
    let ([sender, poller], mut accepted) = Faulty::pair(&sessions, 0);
    let calls = [&sender.calls, &poller.calls].map(Arc::clone);
    let (mut client, _) = client::open(sender, poller).await.unwrap();
    let mut server = accepted.recv().await.unwrap();
    sleep(Duration::from_mins(10)).await;
    let [sends, polls] = calls.map(|calls| calls.load(Ordering::Relaxed));
    assert!(sends == 0 && (50..=61).contains(&polls), "{sends} sends, {polls} polls");
    server.write_all(b"still there").await.unwrap();
    let mut read = [0; 11];
    timeout(HANG, client.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"still there");
}

#[tokio::test(start_paused = true)]
async fn a_session_without_requests_ends_and_its_client_is_told() {
    let (mut client, mut server, sessions) = connected(100).await;
    let mut read = [0; 1];
    let began = tokio::time::Instant::now();
    let error = timeout(HANG, server.read(&mut read)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(timeout(HANG, client.read(&mut read)).await.unwrap().is_err());
    assert!(began.elapsed() < Duration::from_mins(2), "{:?}", began.elapsed());
    assert_eq!(sessions.counts().0, 0);
}

#[tokio::test(start_paused = true)]
async fn sessions_are_bounded_and_those_left_over_give_way() {
    let sessions = Arc::<Sessions>::default();
    let host = |n: u32| IpAddr::from(n.to_be_bytes());
    let mut pipes = Vec::new();
    while let Some((_, pipe, _)) = sessions.open(CLIENT) {
        pipes.push(pipe);
    }
    assert_eq!(pipes.len(), 1024);
    let mut others = 0;
    while let Some((_, pipe, _)) = sessions.open(host(others / 1000)) {
        pipes.push(pipe);
        others += 1;
    }
    assert_eq!(sessions.counts().0, 4096);
    drop(pipes.remove(0));
    assert!(sessions.open(host(77)).is_some_and(|(_, pipe, _)| {
        pipes.push(pipe);
        true
    }));
    assert!(sessions.open(host(78)).is_none());
    drop(pipes);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(sessions.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_newer_request_has_the_older_answered() {
    let sessions = Arc::<Sessions>::default();
    let (session, _pipe, _) = sessions.open(CLIENT).unwrap();
    let visit = || sessions.visit(session).unwrap();
    let (first, second) = (visit(), visit());
    let wait = Duration::from_mins(10);
    let began = tokio::time::Instant::now();
    let polls = async {
        tokio::join!(first.poll(0, 10, wait), async {
            sleep(Duration::from_secs(1)).await;
            let answered = second.poll(0, 10, wait).await;
            (answered, began.elapsed())
        })
    };
    let (older, (newer, took)) = timeout(HANG, polls).await.unwrap();
    assert_eq!(older.unwrap().chunk.bytes.len() + newer.unwrap().chunk.bytes.len(), 0);
    assert_eq!(took.as_secs(), 11, "no poll is held for longer");
    let never = async { std::future::pending::<Result<Chunk, Refusal>>().await };
    let chunk = Chunk { offset: 0, bytes: "abc".into(), end: false };
    let sends = async {
        tokio::join!(first.send(0, never), async {
            sleep(Duration::from_secs(1)).await;
            second.send(0, async { Ok::<_, Refusal>(chunk) }).await
        })
    };
    let (older, newer) = timeout(Duration::from_secs(5), sends).await.unwrap();
    assert_eq!((older.unwrap().ack, newer.unwrap().ack), (3, 3));
}
