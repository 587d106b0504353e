//! Behaviour of the NAT between this host and STUN servers, for UDP (RFC 5780).
//!
//! Contract: what is reported was seen. Silence is a filter only where the silent address of the server
//! answers when it is asked directly; a server that refuses, or does not change the address it answers from,
//! leaves the filter "not tested"; and UDP is blocked only where a server answers over TCP and none over UDP.
//! Where servers contradict each other, the majority counts, and without one nothing is reported. The tests
//! of mapping and filter run at the same time over sockets of their own, since a question opens the filter
//! for its answer. Ends within 20 s, with at most 12 datagrams to each address; cancel safe.
//!
//! Tested by: `src/nat/tests/behaviour.rs`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{join, join_all};
use tokio::time::timeout;

use super::interfaces::towards;
use super::message::{AnswerFrom, Request};
use super::outside::{Family, StunServer, addresses_of, majority};
use super::query::{Answer, Failure, Line, Question};
use super::tcp_mapping;
use crate::types::{AddressScope, NatBehaviour, NatDependence};

/// Maximum number of servers whose other addresses are asked.
const MAX_TESTED: usize = 2;
/// Number of times that the two ends of the hairpin test send.
const HAIRPIN_TRIES: u32 = 3;
/// Time between them.
const HAIRPIN_WAIT: Duration = Duration::from_millis(300);

/// Finds out how the NAT maps and filters, by asking servers. Mapping and filter of a server that has two
/// addresses (RFC 5780) are tested in full; several that have one each tell of the mapping alone.
pub(crate) async fn classify(servers: &[StunServer], family: Family) -> NatBehaviour {
    let mut report = NatBehaviour { family: family.as_str().to_owned(), ..NatBehaviour::default() };
    let mut targets = Vec::new();
    for (server, addresses) in addresses_of(servers, family).await {
        match addresses {
            // Others of its addresses are the same server's.
            Ok(addresses) => {
                targets
                    .extend(addresses.first().map(|address| Target { server, address: *address }));
            }
            Err(error) => report.notes.push(error.to_string()),
        }
    }
    if targets.is_empty() {
        report.notes.push(format!("no server with an address of {} was asked", family.as_str()));
    } else if let Err(error) = fill(&mut report, &targets, family).await {
        report.notes.push(format!("this host cannot ask: {error}"));
    }
    report
}

/// Server that is asked, at one address.
#[derive(Debug, Clone, Copy)]
struct Target<'a> {
    server: &'a StunServer,
    address: SocketAddr,
}

/// Server that answered.
#[derive(Debug)]
struct Heard<'a> {
    target: Target<'a>,
    /// What was asked, and the address that was seen there.
    observed: Vec<(SocketAddr, SocketAddr)>,
    /// Its other address and other port, where it has them and they may be asked.
    other: Option<SocketAddr>,
}

async fn fill(report: &mut NatBehaviour, targets: &[Target<'_>], family: Family) -> io::Result<()> {
    let line = Line::open(family).await?;
    let local_port = line.local_port()?;
    let questions: io::Result<Vec<_>> =
        targets.iter().map(|target| Question::plain(target.address)).collect();
    let outcomes = line.ask(&questions?).await;
    let (mut heard, mut failures) = (Vec::new(), Vec::new());
    for (target, outcome) in targets.iter().zip(outcomes) {
        match outcome {
            Ok(answer) => heard.push(Heard::new(*target, &answer, &mut report.notes)),
            Err(failure) => failures.push((*target, failure)),
        }
    }
    for (target, failure) in &failures {
        report.notes.push(failure.of(target.server.name()).to_string());
    }
    if heard.is_empty() {
        report_silence(report, &failures).await;
        return Ok(());
    }
    let filters: Vec<_> =
        heard.iter().filter_map(|heard| Some((heard.target, heard.other?))).collect();
    let filters = filters.into_iter().take(MAX_TESTED);
    let filters = join_all(filters.map(|(target, other)| test_filter(target, other, family)));
    let (more, filters) = join(ask_others(&line, &heard), filters).await;
    for (at, asked, seen) in more? {
        heard[at].observed.push((asked, seen));
    }
    let filters: io::Result<Vec<_>> = filters.into_iter().collect();
    let filters_agree = conclude_filter(report, &heard, filters?);
    let local = towards(heard[0].target.address).map(|ip| SocketAddr::new(ip, local_port));
    let counted = of_majority(&heard);
    let mappings_agree = conclude_mapping(report, &counted, local);
    if let Some((asked, seen)) = counted.first().map(|heard| heard.observed[0]) {
        let all = counted.iter().flat_map(|heard| &heard.observed);
        report.preserves_port = Some(all.into_iter().all(|(_, seen)| seen.port() == local_port));
        match report.mapping {
            NatDependence::EndpointIndependent => {
                report.hairpinning = test_hairpin(&line, seen, asked).await?;
            }
            NatDependence::NoNat => {}
            _ => report.notes.push("hairpinning was not tested: others see another address".into()),
        }
    }
    let agree = filters_agree && mappings_agree && counted.len() == heard.len();
    report.confidence = confidence(report, heard.len(), agree);
    Ok(())
}

impl<'a> Heard<'a> {
    fn new(target: Target<'a>, answer: &Answer, notes: &mut Vec<String>) -> Self {
        let name = target.server.name();
        let scope = |address: SocketAddr| AddressScope::of(address.ip());
        let other = match answer.seen.other {
            None => {
                notes.push(format!("{name} has no other address (RFC 5780)"));
                None
            }
            // Whoever runs a server far away has no say in what is asked near by.
            Some(other)
                if Family::of(other.ip()) != Family::of(target.address.ip())
                    || scope(other) != scope(target.address)
                    || other.port() == target.address.port() =>
            {
                notes.push(format!("{name} names {other} as its other address: of no use"));
                None
            }
            other => other,
        };
        Self { target, observed: vec![(target.address, answer.seen.mapped)], other }
    }

    /// Reports whether the server answered when it was asked at this address.
    fn answers_at(&self, address: SocketAddr) -> bool {
        self.observed.iter().any(|(asked, _)| *asked == address)
    }
}

/// Asks the other addresses of servers over the same socket: other IP address, other port, both.
async fn ask_others(
    line: &Line,
    heard: &[Heard<'_>],
) -> io::Result<Vec<(usize, SocketAddr, SocketAddr)>> {
    let (mut whose, mut questions) = (Vec::new(), Vec::new());
    let with_other =
        heard.iter().enumerate().filter_map(|(at, heard)| Some((at, heard, heard.other?)));
    for (at, heard, other) in with_other.take(MAX_TESTED) {
        let asked = heard.target.address;
        let mut to = vec![SocketAddr::new(asked.ip(), other.port())];
        if other.ip() != asked.ip() {
            to.extend([SocketAddr::new(other.ip(), asked.port()), other]);
        }
        for to in to {
            whose.push((at, to));
            questions.push(Question::plain(to)?);
        }
    }
    let outcomes = line.ask(&questions).await;
    let answered = whose.into_iter().zip(outcomes);
    Ok(answered
        .filter_map(|((at, to), outcome)| Some((at, to, outcome.ok()?.seen.mapped)))
        .collect())
}

/// What came of the two questions that another address was to answer.
struct Filter<'a> {
    target: Target<'a>,
    other: SocketAddr,
    by_other_address: Result<Answer, Failure>,
    by_other_port: Result<Answer, Failure>,
}

/// Asks a server to answer from its other addresses, each over a socket that has not sent to them.
async fn test_filter(
    target: Target<'_>,
    other: SocketAddr,
    family: Family,
) -> io::Result<Filter<'_>> {
    let ask = |from: SocketAddr, answer_from: AnswerFrom| async move {
        let line = Line::open(family).await?;
        let question = Question::to_be_answered_by(from, target.address, answer_from)?;
        let outcome = line.ask(&[question]).await.pop();
        Ok::<_, io::Error>(outcome.unwrap_or(Err(Failure::Silent)))
    };
    let other_port = SocketAddr::new(target.address.ip(), other.port());
    let (by_other_address, by_other_port) =
        join(ask(other, AnswerFrom::OtherAddress), ask(other_port, AnswerFrom::OtherPort)).await;
    let (by_other_address, by_other_port) = (by_other_address?, by_other_port?);
    Ok(Filter { target, other, by_other_address, by_other_port })
}

impl Filter<'_> {
    /// What the filter depends on.
    ///
    /// # Errors
    /// The reason why that is not known.
    fn dependence(&self, heard: &Heard<'_>) -> Result<NatDependence, String> {
        let name = self.target.server.name();
        let other_port = SocketAddr::new(self.target.address.ip(), self.other.port());
        for (outcome, from) in
            [(&self.by_other_address, self.other), (&self.by_other_port, other_port)]
        {
            match outcome {
                Ok(answer) if answer.from != from => {
                    return Err(format!("{name} answers from the address that was asked"));
                }
                Ok(_) | Err(Failure::Silent) => {}
                Err(failure) => {
                    return Err(format!("{name} does not answer from another address: {failure}"));
                }
            }
        }
        let has_two_ips = self.other.ip() != self.target.address.ip();
        if has_two_ips && self.by_other_address.is_ok() {
            return Ok(NatDependence::EndpointIndependent);
        }
        if has_two_ips && !heard.answers_at(self.other) {
            return Err(format!("the other address of {name} does not answer at all"));
        }
        match self.by_other_port {
            Ok(_) if has_two_ips => Ok(NatDependence::AddressDependent),
            Ok(_) => Err(format!("{name} has one IP address: the filter may depend on it or not")),
            Err(_) if heard.answers_at(other_port) => Ok(NatDependence::AddressAndPortDependent),
            Err(_) => Err(format!("the other port of {name} does not answer at all")),
        }
    }
}

/// Those servers that see the IP address that most see. Where one alone was heard, that one.
fn of_majority<'a, 'b>(heard: &'b [Heard<'a>]) -> Vec<&'b Heard<'a>> {
    let ip = |heard: &Heard<'_>| heard.observed[0].1.ip();
    let ips: Vec<_> = heard.iter().map(ip).collect();
    let most = if let [only] = ips[..] { Some(only) } else { majority(&ips) };
    heard.iter().filter(|heard| Some(ip(heard)) == most).collect()
}

/// Concludes what the mapping depends on, from servers that see one IP address. Reports whether they agree.
fn conclude_mapping(
    report: &mut NatBehaviour,
    counted: &[&Heard<'_>],
    local: Option<SocketAddr>,
) -> bool {
    if counted.is_empty() {
        report.notes.push("the servers see different addresses, and no two the same".to_owned());
        return false;
    }
    let all: Vec<_> = counted.iter().flat_map(|heard| heard.observed.iter().copied()).collect();
    for (_, seen) in &all {
        let seen = seen.to_string();
        if !report.mapped.contains(&seen) {
            report.mapped.push(seen);
        }
    }
    // One that answers at several addresses tells most by itself.
    let tested = counted.iter().filter(|heard| heard.observed.len() > 1);
    let mut conclusions: Vec<_> = tested.map(|heard| mapping(&heard.observed, local)).collect();
    if conclusions.is_empty() {
        conclusions.push(mapping(&all, local));
    }
    let known = conclusions.iter().map(|(mapping, _)| *mapping).collect();
    let (mapping, agree) = concluded(&mut report.notes, known, "mapping");
    // What one server leaves open another one may have told.
    let open = conclusions.iter().filter(|(known, _)| *known == mapping);
    report.notes.extend(open.filter_map(|(_, note)| note.map(str::to_owned)));
    report.mapping = mapping;
    agree
}

/// What the mapping depends on, from the addresses that were asked over one socket and what was seen there;
/// and what that leaves open.
fn mapping(
    observed: &[(SocketAddr, SocketAddr)],
    local: Option<SocketAddr>,
) -> (NatDependence, Option<&'static str>) {
    let pairs = || {
        let each = observed.iter().enumerate();
        each.flat_map(|(at, a)| observed[at + 1..].iter().map(move |b| (a, b)))
    };
    let Some((_, first)) = observed.first() else { return (NatDependence::NotTested, None) };
    if observed.iter().all(|(_, seen)| Some(*seen) == local) {
        return (NatDependence::NoNat, None);
    }
    let ports_were_asked = pairs().any(|(a, b)| a.0.ip() == b.0.ip());
    if observed.iter().all(|(_, seen)| seen == first) {
        if pairs().any(|(a, b)| a.0.ip() != b.0.ip()) {
            return (NatDependence::EndpointIndependent, None);
        }
        let note = if ports_were_asked {
            "the mapping does not depend on the port that is asked; whether on the IP address, a server with one IP address cannot tell"
        } else {
            "one address of one server cannot tell what the mapping depends on"
        };
        return (NatDependence::NotTested, Some(note));
    }
    if pairs().any(|(a, b)| a.0.ip() == b.0.ip() && a.1 != b.1) {
        return (NatDependence::AddressAndPortDependent, None);
    }
    let note = "whether the mapping depends on the port too was not tested";
    (NatDependence::AddressDependent, (!ports_were_asked).then_some(note))
}

/// Concludes what the filter depends on. Reports whether the servers agree.
fn conclude_filter(
    report: &mut NatBehaviour,
    heard: &[Heard<'_>],
    filters: Vec<Filter<'_>>,
) -> bool {
    let (mut known, mut untested) = (Vec::new(), Vec::new());
    for filter in filters {
        let of = heard.iter().find(|heard| heard.target.address == filter.target.address);
        match of.map(|heard| filter.dependence(heard)) {
            Some(Ok(dependence)) => known.push(dependence),
            Some(Err(why)) => untested.push(format!("the filter was not tested: {why}")),
            None => {}
        }
    }
    if known.is_empty() {
        report.notes.append(&mut untested);
    }
    let (filtering, agree) = concluded(&mut report.notes, known, "filter");
    report.filtering = filtering;
    agree
}

/// What several servers conclude, and whether they agree.
fn concluded(
    notes: &mut Vec<String>,
    mut known: Vec<NatDependence>,
    what: &str,
) -> (NatDependence, bool) {
    known.retain(|dependence| *dependence != NatDependence::NotTested);
    match known[..] {
        [] => (NatDependence::NotTested, true),
        [first, ref rest @ ..] if rest.iter().all(|other| *other == first) => (first, true),
        _ => {
            notes.push(format!("the servers contradict each other about the {what}"));
            (majority(&known).unwrap_or(NatDependence::NotTested), false)
        }
    }
}

/// Reports that no server answers: UDP is blocked where one answers over TCP.
async fn report_silence(report: &mut NatBehaviour, failures: &[(Target<'_>, Failure)]) {
    if !failures.iter().all(|(_, failure)| matches!(failure, Failure::Silent)) {
        return;
    }
    let over_tcp =
        failures.iter().map(|(target, _)| tcp_mapping::answers(target.server, target.address));
    let answering = join_all(over_tcp).await.into_iter().filter(|answers| *answers).count();
    if answering == 0 {
        report.notes.push("no server answers over TCP either: it may be the servers".to_owned());
        return;
    }
    report.notes.push("servers answer over TCP, and none over UDP".to_owned());
    (report.mapping, report.filtering) = (NatDependence::Blocked, NatDependence::Blocked);
    report.confidence = if answering > 1 { 95 } else { 80 };
}

/// Finds out whether the host reaches its own mapped address: two sockets send to each other's, so that the
/// filter of either is open.
async fn test_hairpin(
    line: &Line,
    seen: SocketAddr,
    server: SocketAddr,
) -> io::Result<Option<bool>> {
    let second = Line::open(Family::of(server.ip())).await?;
    let Some(Ok(answer)) = second.ask(&[Question::plain(server)?]).await.pop() else {
        return Ok(None);
    };
    let to_first = Request::new(AnswerFrom::Asked)?;
    let to_second = Request::new(AnswerFrom::Asked)?;
    for _ in 0..HAIRPIN_TRIES {
        // An error says that the way is closed, as silence does.
        let _ = second.send(&to_first, seen).await;
        let _ = line.send(&to_second, answer.seen.mapped).await;
        let either = async {
            tokio::select! {
                () = line.hear(&to_first) => {}
                () = second.hear(&to_second) => {}
            }
        };
        if timeout(HAIRPIN_WAIT, either).await.is_ok() {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

/// Confidence in percent.
fn confidence(report: &NatBehaviour, heard: usize, agree: bool) -> u8 {
    let is_known = |dependence| dependence != NatDependence::NotTested;
    let base = match (is_known(report.mapping), is_known(report.filtering)) {
        (true, true) => 80,
        (true, false) => 50,
        (false, true) => 40,
        (false, false) => 10,
    };
    match (heard, agree) {
        (1, true) => base,
        (_, true) => base + 15,
        (_, false) => base / 2,
    }
}
