//! Whom a node asks about its addresses, and who holds some open for it: where the worker meets the
//! modules of `nat`.
//!
//! STUN servers are asked first, for both families of addresses, and HTTP servers then; probers of the host
//! beside them. What an HTTP server sees counts where no STUN server sees otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join, join_all};
use tokio::sync::watch;
use tokio::time::timeout;

use super::holders::{Holders, RelayDrops, Relays};
use super::{Answers, Ask, Mapped, Ways, Worker, draft, reason, takes};
use crate::config::NatConfig;
use crate::error::{FailureKind, ProbeError, StartError};
#[cfg(all(feature = "stun", feature = "grpc"))]
use crate::nat::HttpProber;
#[cfg(feature = "stun")]
use crate::nat::{Family, StunServer, addresses, classify, mapped, tcp_mapped};
use crate::ports::NatProber;
use crate::types::{CandidateSource, NatBehaviour, canonical};

/// Maximum time of one prober.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answer of one server or prober, by its name.
type Answer = (String, Result<SocketAddr, ProbeError>);

/// Whom the host named.
#[derive(Default)]
pub(in crate::node) struct Outside {
    interval: Duration,
    servers: Servers,
    relays: Relays,
    #[cfg(feature = "port-mapping")]
    maps_port: bool,
}

/// Who is asked.
#[derive(Default)]
struct Servers {
    #[cfg(feature = "stun")]
    stun: Vec<StunServer>,
    http: Vec<Arc<dyn NatProber>>,
    probers: Vec<Arc<dyn NatProber>>,
    /// Socket address at which the node listens.
    listening: Option<SocketAddr>,
}

/// Tasks that a node runs.
#[derive(Default)]
pub(in crate::node) struct Tasks {
    /// Those that are dropped when the node stops listening.
    pub(in crate::node) sources: Vec<BoxFuture<'static, ()>>,
    /// Those that end by themselves once the node is about to end.
    pub(in crate::node) keepers: Vec<BoxFuture<'static, ()>>,
}

impl Outside {
    /// Reads who is named in the configuration.
    ///
    /// # Errors
    /// [`StartError::Address`].
    pub(in crate::node) fn new(
        config: &NatConfig,
        probers: Vec<Arc<dyn NatProber>>,
        relays: Relays,
    ) -> Result<Self, StartError> {
        #[cfg(feature = "stun")]
        let stun = config.stun.iter().map(|text| {
            let named = text.parse::<StunServer>();
            named.map_err(|source| StartError::Address { text: text.clone(), source })
        });
        #[cfg(all(feature = "stun", feature = "grpc"))]
        let http = config.http.iter().map(|text| {
            let prober = HttpProber::new(text);
            let prober = prober.map(|prober| Arc::new(prober) as Arc<dyn NatProber>);
            prober.map_err(|source| StartError::Address { text: text.clone(), source })
        });
        #[cfg(not(all(feature = "stun", feature = "grpc")))]
        let http = std::iter::empty::<Result<_, StartError>>();
        let servers = Servers {
            #[cfg(feature = "stun")]
            stun: stun.collect::<Result<_, _>>()?,
            http: http.collect::<Result<_, _>>()?,
            probers,
            listening: None,
        };
        Ok(Self {
            interval: config.interval,
            servers,
            relays,
            #[cfg(feature = "port-mapping")]
            maps_port: config.port_mapping,
        })
    }

    /// Where it is counted what came by way of relays and was dropped.
    pub(in crate::node) fn relay_drops(&self) -> RelayDrops {
        self.relays.drops.clone()
    }

    /// Tasks that learn the addresses of a node which listens at this address.
    #[cfg_attr(
        not(feature = "port-mapping"),
        allow(unused_variables, clippy::needless_pass_by_value)
    )]
    pub(in crate::node) fn tasks(
        self,
        listening: Option<SocketAddr>,
        is_running: watch::Receiver<bool>,
        ways: Ways,
    ) -> Tasks {
        let (interval, relays) = (self.interval, self.relays);
        let is_anywhere = listening.is_some_and(|address| address.ip().is_unspecified());
        let (mut tasks, mut holders) = (Tasks::default(), Holders::default());
        let permitted = (!relays.servers.is_empty()).then_some(relays.permitted);
        for relay in relays.servers {
            holders.add_relay(relay.name, relay.relayed);
            tasks.sources.push(relay.run);
        }
        #[cfg(feature = "port-mapping")]
        if let Some(listening) = listening.filter(|_| self.maps_port) {
            tasks.keepers.push(holders.map_port(listening.port(), is_running));
        }
        let servers = Arc::new(Servers { listening, ..self.servers });
        let holds = !tasks.sources.is_empty() || !tasks.keepers.is_empty();
        if is_anywhere || holds || servers.has_servers() {
            let worker =
                Worker::new(servers, Box::new(holders), permitted, listening, interval, ways);
            tasks.sources.push(worker.run().boxed());
        }
        tasks
    }
}

impl Ask for Servers {
    fn interfaces(&self) -> Vec<IpAddr> {
        #[cfg(feature = "stun")]
        {
            addresses()
        }
        #[cfg(not(feature = "stun"))]
        {
            Vec::new()
        }
    }

    fn has_servers(&self) -> bool {
        self.has_stun() || !self.http.is_empty() || !self.probers.is_empty()
    }

    fn ask(self: Arc<Self>) -> BoxFuture<'static, Answers> {
        async move {
            let (stun, probed) = join(self.stun(), probe(&self.probers)).await;
            let looked_up = probe(&self.http).await;
            compare(self.listening, &stun, &looked_up, &probed)
        }
        .boxed()
    }

    fn behaviours(self: Arc<Self>, answers: &Answers) -> BoxFuture<'static, Vec<NatBehaviour>> {
        #[cfg(feature = "stun")]
        {
            let asked = Family::BOTH.into_iter().zip(answers.asked).filter(|(_, asked)| *asked);
            let families: Vec<_> = asked.map(|(family, _)| family).collect();
            async move {
                let servers = &self.stun;
                join_all(families.into_iter().map(|family| classify(servers, family))).await
            }
            .boxed()
        }
        #[cfg(not(feature = "stun"))]
        {
            let _ = answers;
            futures::future::ready(Vec::new()).boxed()
        }
    }

    fn has_mapping(&self) -> bool {
        self.listening.is_some() && self.has_stun()
    }

    fn mapping(self: Arc<Self>) -> BoxFuture<'static, Mapped> {
        async move {
            #[cfg(feature = "stun")]
            if let Some(listening) = self.listening {
                // IPv6 is rarely translated, but firewalls open a port that sends there, too.
                let [v4, v6] = Family::BOTH.map(|it| tcp_mapped(listening, &self.stun, it));
                return join(v4, v6).await.into();
            }
            [None, None]
        }
        .boxed()
    }
}

/// Answers of STUN servers about one family of addresses.
#[derive(Debug, Default)]
struct Seen {
    /// Address on which they agree.
    agreed: Option<SocketAddr>,
    answers: Vec<Answer>,
}

impl Seen {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.answers.iter().filter_map(|(_, answer)| Some(answer.as_ref().ok()?.ip()))
    }
}

impl Servers {
    fn has_stun(&self) -> bool {
        #[cfg(feature = "stun")]
        {
            !self.stun.is_empty()
        }
        #[cfg(not(feature = "stun"))]
        {
            false
        }
    }

    /// Asks the STUN servers, for IPv4 and for IPv6.
    async fn stun(&self) -> Vec<Seen> {
        #[cfg(feature = "stun")]
        if !self.stun.is_empty() {
            let asked = Family::BOTH.map(|family| mapped(&self.stun, family));
            let seen = join_all(asked).await.into_iter();
            return seen.map(|it| Seen { agreed: it.agreed, answers: it.answers }).collect();
        }
        Vec::new()
    }
}

/// Asks probers, all beside each other.
async fn probe(probers: &[Arc<dyn NatProber>]) -> Vec<Answer> {
    let asked = probers.iter().map(|prober| async move {
        let answer = timeout(PROBE_TIMEOUT, prober.probe())
            .await
            .unwrap_or_else(|_| Err(ProbeError::new(FailureKind::Timeout, "no answer in 10 s")));
        (prober.name().to_owned(), answer.map(canonical))
    });
    join_all(asked).await
}

/// Makes of all answers what is believed, and the reasons for what is not.
fn compare(
    listening: Option<SocketAddr>,
    stun: &[Seen],
    looked_up: &[Answer],
    probed: &[Answer],
) -> Answers {
    let mut answers = Answers::default();
    for (asked, seen) in answers.asked.iter_mut().zip(stun) {
        *asked = !seen.answers.is_empty();
    }
    let mut believe = |ip: IpAddr, source| {
        let at = listening.filter(|at| takes_family(at.ip(), ip));
        answers.candidates.extend(at.map(|at| draft((ip, at.port()).into(), source)));
    };
    let mut failed = BTreeMap::new();
    for seen in stun {
        match seen.agreed {
            Some(agreed) => believe(agreed.ip(), CandidateSource::Stun),
            None => failed.extend(disagreement(seen).map(|why| ("stun".to_owned(), why))),
        }
    }
    for (name, answer) in looked_up {
        let Ok(address) = answer else { continue };
        match contradiction(address.ip(), stun, looked_up) {
            None => believe(address.ip(), CandidateSource::Http),
            Some(why) => drop(failed.insert(name.clone(), why)),
        }
    }
    for (name, answer) in probed {
        let is_http = name.starts_with("http");
        let source = if is_http { CandidateSource::Http } else { CandidateSource::Stun };
        if let Ok(address) = answer {
            believe(address.ip(), source);
        }
    }
    answers.failed = failed;
    let asked = stun.iter().flat_map(|seen| &seen.answers).chain(looked_up).chain(probed);
    let mut silent: BTreeMap<String, String> = BTreeMap::new();
    for (name, answer) in asked {
        match answer {
            Ok(address) => answers.seen.push((name.clone(), *address)),
            Err(error) => {
                silent.entry(name.clone()).or_insert_with(|| reason(name, error));
            }
        }
    }
    // A server that has addresses of one family only has answered.
    let answered: BTreeSet<_> = answers.seen.iter().map(|(name, _)| name.clone()).collect();
    silent.retain(|name, _| !answered.contains(name));
    answers.failed.extend(silent);
    answers
}

/// Says why nothing that STUN servers see is believed; `None` where they see nothing.
fn disagreement(seen: &Seen) -> Option<String> {
    let said = seen.answers.iter().filter_map(|(name, answer)| {
        let address = answer.as_ref().ok()?;
        Some(format!("{name} sees {}", address.ip()))
    });
    let said: Vec<_> = said.collect();
    match said.len() {
        0 => None,
        1 => Some(format!("{}, and nobody confirms it", said[0])),
        _ => Some(format!("the servers disagree: {}", said.join(", "))),
    }
}

/// Says who sees otherwise than an HTTP server does.
fn contradiction(ip: IpAddr, stun: &[Seen], looked_up: &[Answer]) -> Option<String> {
    let is_other = |other: &IpAddr| other.is_ipv4() == ip.is_ipv4() && *other != ip;
    let same = |other: IpAddr| other == ip;
    let agreed = stun.iter().filter_map(|seen| Some(seen.agreed?.ip()));
    let other = agreed.clone().find(is_other);
    if let Some(other) = other {
        return Some(format!("it sees {ip}, and the STUN servers {other}"));
    }
    if agreed.clone().any(same) || stun.iter().flat_map(Seen::addresses).any(same) {
        return None;
    }
    let others = stun.iter().flat_map(Seen::addresses);
    let others = others.chain(looked_up.iter().filter_map(|(_, it)| Some(it.as_ref().ok()?.ip())));
    let other = others.into_iter().find(is_other)?;
    Some(format!("it sees {ip}, and somebody else {other}"))
}

/// Reports whether a node that listens at one address can be dialled by way of another's family.
fn takes_family(listening: IpAddr, ip: IpAddr) -> bool {
    takes(listening, ip) || !listening.is_unspecified() && listening.is_ipv4() == ip.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(agreed: Option<&str>, answers: &[(&str, Result<&str, &str>)]) -> Seen {
        let address = |text: &str| text.parse().unwrap();
        Seen { agreed: agreed.map(address), answers: answers_of(answers) }
    }

    fn answers_of(answers: &[(&str, Result<&str, &str>)]) -> Vec<Answer> {
        let answer = |(name, answer): &(&str, Result<&str, &str>)| {
            let failure = |why: &str| ProbeError::new(FailureKind::Timeout, why);
            ((*name).to_owned(), answer.map(|text| text.parse().unwrap()).map_err(failure))
        };
        answers.iter().map(answer).collect()
    }

    fn told(answers: &Answers) -> Vec<String> {
        let text =
            |it: &crate::types::CandidateDraft| format!("{} {}", it.source.as_str(), it.endpoint);
        answers.candidates.iter().map(text).collect()
    }

    const ANY: &str = "0.0.0.0:7";

    fn compared(
        listening: &str,
        stun: &[Seen],
        looked_up: &[(&str, Result<&str, &str>)],
    ) -> Answers {
        let listening = Some(listening.parse().unwrap());
        compare(listening, stun, &answers_of(looked_up), &[])
    }

    #[test]
    fn what_stun_servers_agree_on_is_a_candidate_with_the_listening_port() {
        let two = [("a", Ok("192.0.2.1:9")), ("b", Ok("192.0.2.1:11")), ("c", Ok("192.0.2.9:1"))];
        let stun = [seen(Some("192.0.2.1:9"), &two), seen(None, &[("a", Err("no IPv6"))])];
        let answers = compared(ANY, &stun, &[("http", Ok("192.0.2.1:0"))]);
        assert_eq!(told(&answers), ["stun 192.0.2.1:7", "http 192.0.2.1:7"]);
        assert_eq!((answers.seen.len(), answers.failed.len()), (4, 0), "{answers:?}");
        let none = compare(None, &stun, &[], &[]);
        assert_eq!((none.candidates.len(), none.seen.len()), (0, 3), "nobody listens");
    }

    #[test]
    fn servers_that_disagree_are_not_believed_and_the_report_says_so() {
        let stun = [seen(None, &[("a", Ok("192.0.2.1:9")), ("b", Ok("192.0.2.2:9"))])];
        let answers = compared(ANY, &stun, &[("http", Ok("192.0.2.3:0"))]);
        assert_eq!(answers.candidates, []);
        let why = "the servers disagree: a sees 192.0.2.1, b sees 192.0.2.2";
        assert_eq!(answers.failed["stun"], why);
        assert_eq!(answers.failed["http"], "it sees 192.0.2.3, and somebody else 192.0.2.1");
        let settled = compared(ANY, &stun, &[("http", Ok("192.0.2.2:0"))]);
        assert_eq!(told(&settled), ["http 192.0.2.2:7"], "two of three agree");
        let alone = [seen(None, &[("a", Ok("192.0.2.1:9")), ("b", Err("no answer"))])];
        let answers = compared(ANY, &alone, &[]);
        assert_eq!(answers.failed["stun"], "a sees 192.0.2.1, and nobody confirms it");
        assert!(answers.failed["b"].contains("no answer"), "{answers:?}");
    }

    #[test]
    fn an_http_server_against_the_stun_servers_loses_and_two_of_them_have_to_agree() {
        let stun = [seen(Some("192.0.2.1:9"), &[("a", Ok("192.0.2.1:9"))])];
        let answers = compared(ANY, &stun, &[("http", Ok("192.0.2.2:0"))]);
        assert_eq!(told(&answers), ["stun 192.0.2.1:7"]);
        assert_eq!(answers.failed["http"], "it sees 192.0.2.2, and the STUN servers 192.0.2.1");
        let two = [("http:x", Ok("192.0.2.1:0")), ("http:y", Ok("192.0.2.2:0"))];
        let answers = compared(ANY, &[], &two);
        assert_eq!((answers.candidates.len(), answers.failed.len()), (0, 2), "{answers:?}");
    }

    #[test]
    fn families_that_nobody_listens_on_are_no_candidates() {
        let looked_up = [("x", Ok("192.0.2.1:0")), ("y", Ok("[2001:db8::1]:0"))];
        let of = |listening| told(&compared(listening, &[], &looked_up)).len();
        let counts = [ANY, "[::]:7", "10.0.0.1:7", "[2001:db8::9]:7"].map(of);
        assert_eq!(counts, [1, 2, 1, 1]);
    }
}
