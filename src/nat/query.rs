//! Questions to STUN servers over UDP whose answers hold against liars.
//!
//! Contract: an answer counts that carries the transaction id of the question and comes from where the
//! question expects it; all else is heard and dropped. A question is sent at most [`TRIES`] times, and each
//! ends within 3.5 s, whatever comes in. What is over early answers early: the questions of one call are
//! asked at the same time, over one socket. All of it is cancel safe: a dropped future leaves nothing behind.
//!
//! Tested by: `src/nat/tests/hostile.rs`, `src/nat/tests/behaviour.rs`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::message::{AnswerFrom, MAX_MESSAGE_BYTES, Reading, Refusal, Request, Seen};
use super::outside::{Family, StunServer, addresses_of, failure, majority, socket_failure};
use crate::error::{FailureKind, ProbeError};
use crate::types::canonical;

/// Number of times that a question is sent.
const TRIES: u32 = 3;
/// Time to wait for an answer before the second try; it doubles with each (RFC 8489).
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Addresses of this host as STUN servers see them.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// Address that counts: one that two servers name, by its IP address, and no two others outweigh. Where
    /// one server alone is configured for the family, its word.
    pub(crate) agreed: Option<SocketAddr>,
    /// Answer of each server, by its name.
    pub(crate) answers: Vec<(String, Result<SocketAddr, ProbeError>)>,
}

/// Asks servers which address of this family they see: all at once, each over a socket of its own, at most
/// eight of them. Those that have no address of the family are left out.
///
/// Ends within 9 s, cancel safe.
pub(crate) async fn mapped(servers: &[StunServer], family: Family) -> Mapped {
    let found = addresses_of(servers, family).await;
    let is_alone = found.len() == 1;
    let answers = join_all(found.into_iter().map(|(server, addresses)| async move {
        let name = server.name().to_owned();
        let answer = match addresses {
            Ok(addresses) => ask_server(&name, addresses).await,
            Err(error) => Err(error),
        };
        (name, answer)
    }));
    let answers: Vec<_> = answers.await;
    let said: Vec<_> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    let agreed = match said[..] {
        [only] if is_alone => Some(*only),
        _ => {
            let votes: Vec<_> = said.iter().map(|seen| seen.ip()).collect();
            let ip = majority(&votes);
            said.into_iter().find(|seen| Some(seen.ip()) == ip).copied()
        }
    };
    Mapped { agreed, answers }
}

/// What a server says. One that is asked at several addresses has to say one thing.
async fn ask_server(name: &str, addresses: Vec<SocketAddr>) -> Result<SocketAddr, ProbeError> {
    let answers = join_all(addresses.into_iter().map(|address| async move {
        let line = Line::to(address).await.map_err(|error| socket_failure(name, &error))?;
        let question = Question::plain(address).map_err(|error| socket_failure(name, &error))?;
        let mut outcomes = line.ask(&[question]).await;
        let outcome = outcomes.pop().unwrap_or(Err(Failure::Silent));
        outcome.map(|answer| answer.seen.mapped).map_err(|failure| failure.of(name))
    }));
    let mut said: Option<SocketAddr> = None;
    let mut failed = None;
    for answer in answers.await {
        match (answer, said) {
            (Ok(seen), Some(other)) if seen.ip() != other.ip() => {
                let what = format!("it says both {} and {}", other.ip(), seen.ip());
                return Err(failure(name, FailureKind::Malformed, &what));
            }
            (Ok(seen), _) => said = Some(seen),
            (Err(error), _) => failed = failed.or(Some(error)),
        }
    }
    let silent = || failure(name, FailureKind::Timeout, &"no answer");
    said.ok_or_else(|| failed.unwrap_or_else(silent))
}

/// Question to one address.
#[derive(Debug)]
pub(super) struct Question {
    to: SocketAddr,
    /// Address that is to answer.
    from: SocketAddr,
    request: Request,
}

/// Answer to a question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) seen: Seen,
    /// Address that answered: the one that was to, or the one that was asked.
    pub(super) from: SocketAddr,
}

/// Reason why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing came back.
    Silent,
    /// What came back cannot be used.
    Broken(&'static str),
    /// The server refuses.
    Refused(Refusal),
    /// The operating system did not send it, or heard that nobody is there.
    Socket(io::Error),
}

impl Question {
    /// # Errors
    /// The operating system has no random bytes.
    pub(super) fn plain(to: SocketAddr) -> io::Result<Self> {
        Ok(Self { to, from: to, request: Request::new(AnswerFrom::Asked)? })
    }

    /// A question that another address of the server is to answer.
    ///
    /// # Errors
    /// The operating system has no random bytes.
    pub(super) fn to_be_answered_by(
        from: SocketAddr,
        to: SocketAddr,
        answer_from: AnswerFrom,
    ) -> io::Result<Self> {
        Ok(Self { to, from, request: Request::new(answer_from)? })
    }

    /// Takes a datagram: an outcome, or nothing where it is none of this question's.
    fn hear(&self, bytes: &[u8], from: SocketAddr) -> Option<Result<Answer, Failure>> {
        if from != self.from && from != self.to {
            return None;
        }
        match self.request.read(bytes) {
            Reading::Foreign => None,
            Reading::Broken(why) => Some(Err(Failure::Broken(why))),
            Reading::Refused(refusal) => Some(Err(Failure::Refused(refusal))),
            Reading::Seen(seen) if Family::of(seen.mapped.ip()) != Family::of(self.to.ip()) => {
                Some(Err(Failure::Broken("the answer's address is of the other family")))
            }
            Reading::Seen(seen) => Some(Ok(Answer { seen, from })),
        }
    }
}

impl Failure {
    pub(super) fn of(&self, prober: &str) -> ProbeError {
        let kind = match self {
            Self::Silent => FailureKind::Timeout,
            Self::Broken(_) => FailureKind::Malformed,
            Self::Refused(_) => FailureKind::Refused,
            Self::Socket(error) => return socket_failure(prober, error),
        };
        failure(prober, kind, &self.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent => f.write_str("no answer"),
            Self::Broken(why) => f.write_str(why),
            Self::Refused(Refusal { code, reason }) if reason.is_empty() => {
                write!(f, "it refuses with error {code}")
            }
            Self::Refused(Refusal { code, reason }) => {
                write!(f, "it refuses with error {code} ({reason})")
            }
            Self::Socket(error) => error.fmt(f),
        }
    }
}

/// UDP socket that questions are asked over.
#[derive(Debug)]
pub(super) struct Line {
    socket: UdpSocket,
    /// Bound to one server, and so told when nobody is there.
    is_bound: bool,
}

impl Line {
    /// A socket for questions to anybody.
    pub(super) async fn open(family: Family) -> io::Result<Self> {
        let socket = UdpSocket::bind((family.unspecified(), 0)).await?;
        Ok(Self { socket, is_bound: false })
    }

    /// A socket for questions to this server alone.
    async fn to(server: SocketAddr) -> io::Result<Self> {
        let Self { socket, .. } = Self::open(Family::of(server.ip())).await?;
        socket.connect(server).await?;
        Ok(Self { socket, is_bound: true })
    }

    pub(super) fn local_port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Sends a request that no answer is awaited to here.
    pub(super) async fn send(&self, request: &Request, to: SocketAddr) -> io::Result<()> {
        let bytes = request.bytes();
        let sent = if self.is_bound {
            self.socket.send(bytes).await
        } else {
            self.socket.send_to(bytes, to).await
        };
        sent.map(drop)
    }

    /// Waits until a datagram comes that carries this request's transaction id, from wherever.
    pub(super) async fn hear(&self, request: &Request) {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        loop {
            // An error tells of what was sent earlier.
            if let Ok((length, _)) = self.socket.recv_from(&mut buffer).await
                && request.is_named_by(&buffer[..length])
            {
                return;
            }
        }
    }

    /// Asks all questions at once, and again while they are open.
    pub(super) async fn ask(&self, questions: &[Question]) -> Vec<Result<Answer, Failure>> {
        let mut asked = Asked::new(questions);
        let mut wait = FIRST_WAIT;
        for _ in 0..TRIES {
            for (question, outcome) in asked.open() {
                if let Err(error) = self.send(&question.request, question.to).await {
                    *outcome = Some(Err(Failure::Socket(error)));
                }
            }
            self.listen(&mut asked, Instant::now() + wait).await;
            if asked.is_over() {
                break;
            }
            wait *= 2;
        }
        asked.outcomes()
    }

    async fn listen(&self, asked: &mut Asked<'_>, until: Instant) {
        // One byte more than is read, so that what is too long shows.
        let mut buffer = [0; MAX_MESSAGE_BYTES + 1];
        while !asked.is_over() && Instant::now() < until {
            match timeout_at(until, self.socket.recv_from(&mut buffer)).await {
                Ok(Ok((length, from))) => asked.hear(&buffer[..length], canonical(from)),
                // Of a socket for anybody, an error does not say whom it concerns.
                Ok(Err(error)) if self.is_bound => asked.fail(&error),
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

/// Questions under way.
struct Asked<'a> {
    questions: &'a [Question],
    outcomes: Vec<Option<Result<Answer, Failure>>>,
    /// What came back and could not be used. The next try may bring better.
    broken: Vec<Option<&'static str>>,
}

impl<'a> Asked<'a> {
    fn new(questions: &'a [Question]) -> Self {
        let outcomes = questions.iter().map(|_| None).collect();
        Self { questions, outcomes, broken: vec![None; questions.len()] }
    }

    fn open(
        &mut self,
    ) -> impl Iterator<Item = (&'a Question, &mut Option<Result<Answer, Failure>>)> {
        let all = self.questions.iter().zip(&mut self.outcomes);
        all.filter(|(_, outcome)| outcome.is_none())
    }

    fn is_over(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    fn hear(&mut self, bytes: &[u8], from: SocketAddr) {
        for (at, question) in self.questions.iter().enumerate() {
            if self.outcomes[at].is_some() {
                continue;
            }
            match question.hear(bytes, from) {
                None => {}
                Some(Err(Failure::Broken(why))) => self.broken[at] = Some(why),
                Some(outcome) => self.outcomes[at] = Some(outcome),
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        for (_, outcome) in self.open() {
            *outcome = Some(Err(Failure::Socket(error.kind().into())));
        }
    }

    fn outcomes(self) -> Vec<Result<Answer, Failure>> {
        let all = self.outcomes.into_iter().zip(self.broken);
        let unanswered = |broken: Option<&'static str>| match broken {
            Some(why) => Err(Failure::Broken(why)),
            None => Err(Failure::Silent),
        };
        all.map(|(outcome, broken)| outcome.unwrap_or_else(|| unanswered(broken))).collect()
    }
}
