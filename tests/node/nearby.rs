//! Nodes that find each other on this machine by multicast DNS, and what strangers who listen learn.
//!
//! Skipped aloud where the loopback interface carries no multicast.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent, ServiceInfo};
use socket2::{Domain, Protocol, Socket, Type};
use sorcha_peer::{NetworkSecret, PeerNode, PeerNodeBuilder};

use crate::common::{address, assert_spreads, builder, counters, noise, ready, soon, start, stop};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
const SERVICE: &str = "_sorcha-peer._tcp.local.";

/// Reports whether multicast works here; says aloud if not.
fn is_possible() -> bool {
    let heard = || -> std::io::Result<bool> {
        let socket = loopback_socket()?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let port = socket.local_addr()?.as_socket_ipv4().map_or(0, |own| own.port());
        socket.send_to(b"?", &SocketAddrV4::new(GROUP, port).into())?;
        let socket: std::net::UdpSocket = socket.into();
        Ok(socket.recv_from(&mut [0; 8]).is_ok())
    };
    let heard = heard();
    let is_possible = matches!(heard, Ok(true));
    if !is_possible {
        println!("SKIPPED: no multicast on the loopback interface: {heard:?}");
    }
    is_possible
}

/// A socket that sends to the group over loopback and hears what comes for its port.
fn loopback_socket() -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    socket.join_multicast_v4(&GROUP, &Ipv4Addr::LOCALHOST)?;
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    Ok(socket)
}

/// Name of a network that no other test has.
fn network() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("lan-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn on_lan(network: &str) -> PeerNodeBuilder {
    builder().network(network).mdns(true)
}

fn member(network: &str, secret: &NetworkSecret) -> PeerNodeBuilder {
    on_lan(network).secret(secret.clone())
}

/// Nodes that have found each other.
async fn found<const N: usize>(builders: [PeerNodeBuilder; N]) -> [PeerNode; N] {
    let nodes = futures::future::join_all(builders.map(start)).await;
    for node in &nodes {
        ready(node, u32::try_from(N - 1).unwrap()).await;
    }
    nodes.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_network_find_each_other_and_no_others() {
    if !is_possible() {
        return;
    }
    let (one, other) = (network(), network());
    let ours = found([(); 4].map(|()| on_lan(&one)));
    let theirs = found([(); 2].map(|()| on_lan(&other)));
    let (ours, theirs) = tokio::join!(ours, theirs);
    assert_spreads(&ours[0], &ours[3]).await;
    let late = start(on_lan(&one)).await;
    ready(&late, 4).await;
    for node in ours.iter().chain(&theirs).chain([&late]) {
        assert_eq!(counters(node).await.links_refused_network, 0, "strangers are not dialled");
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_tells_members_from_who_knows_the_name() {
    if !is_possible() {
        return;
    }
    let name = network();
    let secrets = [(); 3].map(|()| NetworkSecret::generate().unwrap());
    let ours = found([(); 2].map(|()| member(&name, &secrets[0])));
    let theirs = found([(); 2].map(|()| member(&name, &secrets[1])));
    let (ours, theirs) = tokio::join!(ours, theirs);
    let open = found([(); 2].map(|()| on_lan(&name))).await;
    for node in ours.iter().chain(&theirs).chain(&open) {
        assert_eq!(counters(node).await.links_refused_not_member, 0, "strangers are not dialled");
    }
    // One that is on the move from one secret to the next finds those on both sides.
    let moving = start(member(&name, &secrets[2]).secret(secrets[0].clone())).await;
    ready(&moving, 2).await;
    let moved = start(member(&name, &secrets[2])).await;
    ready(&moved, 1).await;
    ready(&moving, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_found_again_after_a_restart_on_another_port() {
    if !is_possible() {
        return;
    }
    let name = network();
    let [a, b] = found([(); 2].map(|()| on_lan(&name))).await;
    let before = address(&b);
    stop(&b).await;
    let again = start(on_lan(&name)).await;
    ready(&again, 1).await;
    assert_ne!(address(&again), before);
    assert_spreads(&a, &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nothing_is_announced_or_looked_for() {
    if !is_possible() {
        return;
    }
    let name = network();
    let silent = start(builder().network(&name)).await;
    let [a, b] = found([(); 2].map(|()| on_lan(&name))).await;
    for node in [&a, &b] {
        assert_eq!(node.peers().await.unwrap().len(), 1);
    }
    let counters = counters(&silent).await;
    assert_eq!((counters.dials_started, counters.nearby_received), (0, 0));
    assert_eq!(silent.peers().await.unwrap().len(), 0);
}

/// Somebody who listens on this machine.
struct Stranger {
    daemon: ServiceDaemon,
    events: mdns_sd::Receiver<ServiceEvent>,
}

impl Stranger {
    fn new() -> Self {
        let daemon = ServiceDaemon::new().unwrap();
        daemon.disable_interface(IfKind::All).unwrap();
        daemon.enable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6]).unwrap();
        let events = daemon.browse(SERVICE).unwrap();
        Self { daemon, events }
    }

    /// All that is announced by whoever listens at this port, and its name.
    async fn hears_of(&self, port: u16) -> (String, String) {
        soon("an announcement", async {
            loop {
                let event = self.events.recv_async().await.unwrap();
                if let ServiceEvent::ServiceResolved(service) = event
                    && service.port == port
                {
                    return (format!("{service:?}"), service.fullname);
                }
            }
        })
        .await
    }

    async fn hears_goodbye_of(&self, name: &str) {
        soon("a goodbye", async {
            loop {
                let event = self.events.recv_async().await.unwrap();
                if matches!(event, ServiceEvent::ServiceRemoved(_, gone) if gone == name) {
                    return;
                }
            }
        })
        .await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_learn_where_a_node_is_and_neither_its_network_nor_who_it_is() {
    if !is_possible() {
        return;
    }
    let (stranger, name) = (Stranger::new(), network());
    let node = start(on_lan(&name)).await;
    let port = node.listen_addr().unwrap().port();
    let (said, announced) = stranger.hears_of(port).await;
    let id = node.peer_id().to_string();
    for private in [name.as_str(), &id, &id[..8]] {
        assert!(!said.contains(private), "{private}: {said}");
    }
    // The announcement is withdrawn before the shutdown is through, which another node takes the
    // place of at the same port.
    stop(&node).await;
    stranger.hears_goodbye_of(&announced).await;
    let again = start(on_lan(&name).listen(&format!("127.0.0.1:{port}"))).await;
    let (anew, renamed) = stranger.hears_of(port).await;
    let words = |said: &str| -> Vec<String> {
        let words = said.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(|word| word.len() >= 16).map(str::to_owned).collect()
    };
    let (before, after) = (words(&said), words(&anew));
    assert!(before.len() >= 4, "{said}");
    assert!(before.iter().all(|word| !after.contains(word)), "{said} {anew}");
    // The last handle says goodbye too.
    drop(again);
    stranger.hears_goodbye_of(&renamed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_wire_and_liars_keep_nobody_apart() {
    if !is_possible() {
        return;
    }
    let name = network();
    let liar = Stranger::new();
    for n in 0..100_u16 {
        let said = [("s", "0".repeat(64)), ("a", format!("{n:064x}"))];
        let (instance, host) = (format!("liar {n}"), format!("liar-{n}.local."));
        let (ip, port) = ("127.0.0.1", 10_000 + n);
        let mut lie = ServiceInfo::new(SERVICE, &instance, &host, ip, port, &said[..]).unwrap();
        lie.set_requires_probe(false);
        // Its queue is short.
        while liar.daemon.register(lie.clone()).is_err() {
            tokio::task::yield_now().await;
        }
    }
    let socket = loopback_socket().unwrap();
    let to = SocketAddrV4::new(GROUP, PORT).into();
    for seed in 0..2000 {
        let mut garbage = noise(seed, 12 + usize::try_from(seed).unwrap() % 500);
        // A response that promises records, so that they are looked for.
        garbage[..12].copy_from_slice(&[0, 0, 0x84, 0, 0, 0, 0, 9, 0, 0, 0, 9]);
        let _ = socket.send_to(&garbage, &to);
    }
    let [a, b] = found([(); 2].map(|()| on_lan(&name))).await;
    assert_spreads(&a, &b).await;
    for node in [&a, &b] {
        let counters = counters(node).await;
        assert!(counters.dials_started < 10, "no liar is dialled: {counters:?}");
    }
}
