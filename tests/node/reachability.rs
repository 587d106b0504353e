//! What a node learns of its addresses: from whom it asks, what it believes, and what it tells.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sorcha_peer::error::{ConfigError, FailureKind, ProbeError, StartError};
use sorcha_peer::ports::NatProber;
use sorcha_peer::types::ReachabilityReport;
use sorcha_peer::{Event, PeerNode, PeerNodeBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::common::{builder, config_with, event, soon, start, start_alone, stop};
use crate::stun_server::{response, serve};

/// A STUN server that sees this address, whoever asks.
async fn sees(address: &str) -> (String, JoinHandle<()>) {
    let seen: SocketAddr = address.parse().unwrap();
    let (server, task) =
        serve("127.0.0.1:0", move |request, _| response(request, seen)).await.unwrap();
    (server.to_string(), task)
}

/// A server that answers every HTTP request with this text.
async fn answers(text: &'static str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ip", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = socket.read_u8().await else { break };
                head.push(byte);
            }
            let length = text.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    (url, task)
}

/// A node that listens at every address of this machine.
fn everywhere() -> PeerNodeBuilder {
    PeerNode::builder().config(config_with(|c| {
        c.listen.address = Some(([0, 0, 0, 0], 0).into());
    }))
}

async fn report(node: &PeerNode) -> ReachabilityReport {
    node.reachability().await.expect("the node runs")
}

/// The report, once it is as it should be; nothing announces what candidates there are.
async fn until(
    node: &PeerNode,
    what: &str,
    holds: impl Fn(&ReachabilityReport) -> bool,
) -> ReachabilityReport {
    soon(what, async {
        loop {
            let report = report(node).await;
            if holds(&report) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Whether a report has a candidate from a source, with the port that the node listens at.
fn has(node: &PeerNode, report: &ReachabilityReport, source: &str, ip: &str) -> bool {
    let endpoint = format!("{ip}:{}", node.listen_addr().unwrap().port());
    report.candidates.iter().any(|it| it.source == source && it.endpoint == endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_servers_see_is_a_candidate_and_nothing_is_advertised_unproven() {
    let (a, first) = sees("203.0.113.7:40000").await;
    let (b, second) = sees("203.0.113.7:41000").await;
    let node = start(everywhere().stun_server(&a).stun_server(format!("stun:{b}"))).await;
    let mut events = node.events();
    let told = until(&node, "the candidate", |it| has(&node, it, "stun", "203.0.113.7")).await;
    assert!(!told.failed.contains_key("stun"), "{:?}", told.failed);
    let is_told = |address: &String| address.contains("203.0.113.7");
    assert!(!told.advertised.iter().any(is_told), "{:?}", told.advertised);
    let at = node.listen_addr().unwrap().to_string();
    assert_eq!(told.listening, [at]);
    let mut names = Vec::new();
    while names.len() < 2 {
        let seen = event(&mut events, "what was seen", |event| match event {
            Event::AddressObserved { address, prober, .. } => {
                Some((address.clone(), prober.clone()))
            }
            _ => None,
        });
        let (address, prober) = seen.await;
        assert!(address.starts_with("203.0.113.7:4"), "{address}");
        names.push(prober);
    }
    names.sort();
    let mut wanted = [format!("stun:{a}"), format!("stun:{b}")];
    wanted.sort();
    assert_eq!(names, wanted);
    let told = until(&node, "the NAT", |it| !it.nat.is_empty()).await;
    assert_eq!(told.nat[0].family, "ipv4");
    stop(&node).await;
    first.abort();
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_disagree_are_not_believed_until_a_third_decides() {
    let (a, first) = sees("203.0.113.7:1").await;
    let (b, second) = sees("198.51.100.9:1").await;
    let node = start(everywhere().stun_server(&a).stun_server(&b)).await;
    let told = until(&node, "the reason", |it| it.failed.contains_key("stun")).await;
    let why = &told.failed["stun"];
    assert!(why.contains("203.0.113.7") && why.contains("198.51.100.9"), "{why}");
    assert!(told.candidates.iter().all(|it| it.source != "stun"), "{:?}", told.candidates);
    stop(&node).await;

    let (url, third) = answers("198.51.100.9").await;
    let builder = everywhere().stun_server(&a).stun_server(&b).http_lookup(&url);
    let node = start(builder).await;
    until(&node, "the third", |it| has(&node, it, "http", "198.51.100.9")).await;
    stop(&node).await;
    for server in [first, second, third] {
        server.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_server_is_asked_after_the_stun_servers_and_does_not_outweigh_them() {
    let (url, page) = answers("203.0.113.8\n").await;
    let node = start(everywhere().http_lookup(&url)).await;
    until(&node, "its word", |it| has(&node, it, "http", "203.0.113.8")).await;
    stop(&node).await;

    let (server, stun) = sees("203.0.113.7:1").await;
    let node = start(everywhere().http_lookup(&url).stun_server(&server)).await;
    let told = until(&node, "the servers' word", |it| has(&node, it, "stun", "203.0.113.7")).await;
    assert!(!has(&node, &told, "http", "203.0.113.8"), "{:?}", told.candidates);
    let of_page = told.failed.iter().find(|(name, _)| name.starts_with("http")).unwrap().1;
    assert_eq!(of_page, "it sees 203.0.113.8, and the STUN servers 203.0.113.7");
    stop(&node).await;
    page.abort();
    stun.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_delays_neither_start_nor_shutdown_and_is_asked_no_more_then() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let (server, task) = serve("127.0.0.1:0", move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    })
    .await
    .unwrap();
    let since = Instant::now();
    let node = start(everywhere().stun_server(server.to_string())).await;
    soon("a question", async {
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    stop(&node).await;
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let before = asked.load(Ordering::SeqCst);
    // Longer than a question waits before it is repeated.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(asked.load(Ordering::SeqCst), before, "nobody asks for a node that has ended");

    let node = start(everywhere().stun_server(server.to_string())).await;
    let name = format!("stun:{server}");
    let told = until(&node, "the reason", |it| it.failed.contains_key(&name)).await;
    assert!(told.candidates.iter().all(|it| it.source != "stun"), "{:?}", told.candidates);
    stop(&node).await;
    task.abort();
}

/// Sees what a test says.
#[derive(Debug)]
struct Says(Result<&'static str, &'static str>);

#[async_trait]
impl NatProber for Says {
    fn name(&self) -> &str {
        if self.0.is_ok() { "metadata" } else { "broken" }
    }

    async fn probe(&self) -> Result<SocketAddr, ProbeError> {
        let failed = |why| ProbeError::new(FailureKind::Unreachable, why);
        self.0.map(|text| text.parse().unwrap()).map_err(failed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prober_of_the_host_names_candidates_too() {
    let found = Arc::new(Says(Ok("203.0.113.4:1")));
    let builder = everywhere().nat_prober(found).nat_prober(Arc::new(Says(Err("no such host"))));
    let node = start(builder).await;
    let mut events = node.events();
    let told = until(&node, "the candidate", |it| has(&node, it, "stun", "203.0.113.4")).await;
    assert_eq!(told.failed["broken"], "no such host");
    assert!(!told.failed.contains_key("metadata"), "{:?}", told.failed);
    let seen = event(&mut events, "the event", |event| match event {
        Event::AddressObserved { address, .. } => Some(address.clone()),
        _ => None,
    });
    assert_eq!(seen.await, "203.0.113.4:1");
    stop(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_asks_nobody_knows_what_it_listens_at() {
    let node = start_alone().await;
    let told = report(&node).await;
    let at = node.listen_addr().unwrap().to_string();
    assert_eq!((told.listening, told.advertised), (vec![at.clone()], vec![at]));
    assert_eq!((told.failed.len(), told.nat.len()), (0, 0));
    stop(&node).await;
    node.reachability().await.expect_err("it is closed");
}

#[tokio::test]
async fn a_server_that_cannot_be_asked_is_refused_at_the_start() {
    let refused = async |builder: PeerNodeBuilder| match builder.start().await {
        Err(StartError::Config(ConfigError::NatServer { field, .. })) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(builder().stun_server("http://h")).await, "nat.stun");
    assert_eq!(refused(builder().http_lookup("h")).await, "nat.http");
}
