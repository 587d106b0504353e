//! What is concluded about NATs, against a server that plays the NAT too: it tells addresses as the NAT would
//! map them, and sends what the NAT would let through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::encoding::{masked, message, other, refusal};
use super::{Server, configured};
use crate::nat::classify;
use crate::nat::outside::{Family, StunServer};
use crate::types::{NatBehaviour, NatDependence};

/// Loopback addresses: of the server, of the NAT's outside where it forwards, and where it does not.
const SERVER: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
const FORWARDING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// Answers from where it is asked to.
    Yes,
    /// Refuses, as servers do that do not know the request.
    Refused,
    /// Answers from the address that was asked.
    Ignored,
}

#[derive(Debug, Clone, Copy)]
struct Nat {
    mapping: NatDependence,
    filtering: NatDependence,
    hairpins: bool,
    preserves_port: bool,
    changes: Changes,
    /// False: the server's other addresses hear nothing.
    others_live: bool,
}

impl Nat {
    fn of(mapping: NatDependence, filtering: NatDependence) -> Self {
        Self {
            mapping,
            filtering,
            hairpins: false,
            preserves_port: false,
            changes: Changes::Yes,
            others_live: true,
        }
    }
}

/// State of the NAT.
#[derive(Default)]
struct Table {
    mapped: BTreeMap<(SocketAddr, Option<SocketAddr>), SocketAddr>,
    /// To whom each client sent.
    sent: BTreeSet<(SocketAddr, SocketAddr)>,
}

struct Simulated {
    at: StunServer,
    _tasks: JoinSet<()>,
}

/// Two addresses with the same two ports.
async fn sockets() -> [[UdpSocket; 2]; 2] {
    loop {
        let first = [bind(SERVER[0], 0).await.unwrap(), bind(SERVER[0], 0).await.unwrap()];
        let port = |at: usize| first[at].local_addr().unwrap().port();
        if let (Some(a), Some(b)) = (bind(SERVER[1], port(0)).await, bind(SERVER[1], port(1)).await)
        {
            return [first, [a, b]];
        }
    }
}

async fn bind(ip: Ipv4Addr, port: u16) -> Option<UdpSocket> {
    UdpSocket::bind((ip, port)).await.ok()
}

async fn simulate(nat: Nat) -> Simulated {
    let sockets = sockets().await.map(|of_ip| of_ip.map(Arc::new));
    let at = sockets[0][0].local_addr().unwrap().to_string().parse().unwrap();
    let table = Arc::new(Mutex::new(Table::default()));
    let mut tasks = JoinSet::new();
    for (ip, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (sockets, table) = (sockets.clone(), Arc::clone(&table));
        tasks.spawn(async move {
            let mut buffer = [0; 2000];
            // What the NAT forwards with, for as long as the server lives.
            let mut forwards = JoinSet::new();
            loop {
                let (length, client) = sockets[ip][port].recv_from(&mut buffer).await.unwrap();
                if (ip, port) != (0, 0) && !nat.others_live {
                    continue;
                }
                let asked = sockets[ip][port].local_addr().unwrap();
                let seen = map(nat, &table, client, asked, &mut forwards).await;
                serve(nat, &table, &sockets, (ip, port), &buffer[..length], client, seen).await;
            }
        });
    }
    Simulated { at, _tasks: tasks }
}

/// Address that the NAT gives a client for a destination.
async fn map(
    nat: Nat,
    table: &Mutex<Table>,
    client: SocketAddr,
    asked: SocketAddr,
    forwards: &mut JoinSet<()>,
) -> SocketAddr {
    table.lock().unwrap().sent.insert((client, asked));
    let key = match nat.mapping {
        NatDependence::NoNat => return client,
        NatDependence::EndpointIndependent => None,
        NatDependence::AddressDependent => Some(SocketAddr::new(asked.ip(), 0)),
        _ => Some(asked),
    };
    if let Some(mapped) = table.lock().unwrap().mapped.get(&(client, key)) {
        return *mapped;
    }
    let mapped = if nat.preserves_port {
        SocketAddr::new(OUTSIDE.into(), client.port())
    } else if key.is_some() {
        let next = u16::try_from(table.lock().unwrap().mapped.len()).unwrap();
        SocketAddr::new(OUTSIDE.into(), 1024 + next)
    } else {
        let outside = bind(FORWARDING, 0).await.unwrap();
        let address = outside.local_addr().unwrap();
        forwards.spawn(forward(outside, client, nat.hairpins));
        address
    };
    *table.lock().unwrap().mapped.entry((client, key)).or_insert(mapped)
}

/// Passes on what comes to a mapped address from inside, or drops it.
async fn forward(outside: UdpSocket, client: SocketAddr, hairpins: bool) {
    let mut buffer = [0; 2000];
    loop {
        let (length, _) = outside.recv_from(&mut buffer).await.unwrap();
        if hairpins {
            outside.send_to(&buffer[..length], client).await.unwrap();
        }
    }
}

async fn serve(
    nat: Nat,
    table: &Mutex<Table>,
    sockets: &[[Arc<UdpSocket>; 2]; 2],
    (ip, port): (usize, usize),
    request: &[u8],
    client: SocketAddr,
    seen: SocketAddr,
) {
    let flags = request[20..].strip_prefix(&[0, 3, 0, 4, 0, 0, 0]).map_or(0, |flags| flags[0]);
    let (mut from_ip, mut from_port) = (ip, port);
    if flags != 0 && nat.changes == Changes::Refused {
        let refusal = refusal(request, 420, "Unknown Attribute");
        sockets[ip][port].send_to(&refusal, client).await.unwrap();
        return;
    }
    if flags != 0 && nat.changes == Changes::Yes {
        from_ip ^= usize::from(flags & 4 != 0);
        from_port ^= usize::from(flags & 2 != 0);
    }
    let from = sockets[from_ip][from_port].local_addr().unwrap();
    let asked = sockets[ip][port].local_addr().unwrap();
    let lets_in = |sent: &(SocketAddr, SocketAddr)| {
        sent.0 == client
            && match nat.filtering {
                NatDependence::AddressDependent => sent.1.ip() == from.ip(),
                _ => sent.1 == from,
            }
    };
    let passes = from == asked
        || nat.filtering == NatDependence::EndpointIndependent
        || table.lock().unwrap().sent.iter().any(lets_in);
    if passes {
        let elsewhere = sockets[1 - ip][1 - port].local_addr().unwrap();
        let attributes = [masked(request, seen), other(elsewhere)];
        let answer = message(0x0101, request, &attributes);
        sockets[from_ip][from_port].send_to(&answer, client).await.unwrap();
    }
}

async fn behaviour_of(nat: Nat) -> NatBehaviour {
    let simulated = simulate(nat).await;
    classify(std::slice::from_ref(&simulated.at), Family::V4).await
}

#[tokio::test]
async fn every_kind_of_nat_is_told_from_every_other() {
    use NatDependence as D;
    let mappings =
        [D::NoNat, D::EndpointIndependent, D::AddressDependent, D::AddressAndPortDependent];
    let filters = [D::EndpointIndependent, D::AddressDependent, D::AddressAndPortDependent];
    let kinds = mappings.into_iter().flat_map(|m| filters.map(|f| Nat::of(m, f)));
    join_all(kinds.map(|nat| async move {
        let found = behaviour_of(nat).await;
        assert_eq!(found.mapping, nat.mapping, "{nat:?}: {found:?}");
        assert_eq!(found.filtering, nat.filtering, "{nat:?}: {found:?}");
        assert_eq!((found.family.as_str(), found.confidence), ("ipv4", 80), "{found:?}");
        assert_eq!(found.preserves_port, Some(nat.mapping == D::NoNat), "{found:?}");
        let hairpins = (nat.mapping == D::EndpointIndependent).then_some(false);
        assert_eq!(found.hairpinning, hairpins, "{found:?}");
        let count = match nat.mapping {
            D::AddressDependent => 2,
            D::AddressAndPortDependent => 4,
            _ => 1,
        };
        assert_eq!(found.mapped.len(), count, "{found:?}");
    }))
    .await;
}

#[tokio::test]
async fn hairpinning_and_port_preservation_are_seen() {
    use NatDependence as D;
    let cone = Nat::of(D::EndpointIndependent, D::EndpointIndependent);
    let hairpins = behaviour_of(Nat { hairpins: true, ..cone }).await;
    assert_eq!(hairpins.hairpinning, Some(true), "{hairpins:?}");
    assert_eq!(hairpins.name(), "full cone");
    let preserves = behaviour_of(Nat { preserves_port: true, ..cone }).await;
    assert_eq!(preserves.preserves_port, Some(true), "{preserves:?}");
}

/// What cannot be tested is said, and is no block.
#[tokio::test]
async fn a_server_that_does_not_change_its_address_leaves_the_filter_open() {
    use NatDependence as D;
    let blocked = Nat::of(D::EndpointIndependent, D::AddressAndPortDependent);
    let kinds = [
        (Nat { changes: Changes::Refused, ..blocked }, "error 420"),
        (Nat { changes: Changes::Ignored, ..blocked }, "from the address that was asked"),
        (Nat { others_live: false, ..blocked }, "does not answer at all"),
    ];
    join_all(kinds.map(|(nat, why)| async move {
        let found = behaviour_of(nat).await;
        assert_eq!((found.filtering, found.name()), (D::NotTested, "unknown"), "{found:?}");
        assert!(found.notes.iter().any(|note| note.contains(why)), "{why}: {found:?}");
        let mapping = if nat.others_live { D::EndpointIndependent } else { D::NotTested };
        assert_eq!(found.mapping, mapping, "{found:?}");
        assert!(found.confidence <= 50, "{found:?}");
    }))
    .await;
}

/// Servers with one address each tell of the mapping, and together of what it depends on.
#[tokio::test]
async fn plain_servers_tell_of_the_mapping_alone() {
    let (own, own_too) = (Server::honest("127.0.0.1").await, Server::honest("127.0.0.2").await);
    let outside = |port: u16| {
        move |request: &[u8], from: SocketAddr| {
            let seen = SocketAddr::new(OUTSIDE.into(), port.max(from.port()));
            vec![super::encoding::success(request, seen)]
        }
    };
    let (mapped, alike) = (
        Server::start("127.0.0.1", outside(0)).await,
        Server::start("127.0.0.2", outside(0)).await,
    );
    let otherwise = Server::start("127.0.0.2", outside(u16::MAX)).await;
    for (servers, mapping, confidence) in [
        (&[&own][..], NatDependence::NoNat, 50),
        (&[&own, &own_too], NatDependence::NoNat, 65),
        (&[&mapped, &alike], NatDependence::EndpointIndependent, 65),
        (&[&mapped, &otherwise], NatDependence::AddressDependent, 65),
        (&[&mapped], NatDependence::NotTested, 10),
    ] {
        let found = classify(&configured(servers.iter().copied()), Family::V4).await;
        assert_eq!(found.mapping, mapping, "{found:?}");
        assert_eq!(found.filtering, NatDependence::NotTested, "{found:?}");
        assert_eq!(found.confidence, confidence, "{found:?}");
        assert!(!found.notes.is_empty(), "{found:?}");
    }
}

/// UDP is blocked where servers answer over TCP alone. Where they do not answer at all, nothing is known.
#[tokio::test]
async fn blocked_udp_is_told_from_a_dead_server() {
    let silent = Server::start("127.0.0.1", |_, _| Vec::new()).await;
    let over_tcp = TcpListener::bind(silent.address).await.unwrap();
    let tcp = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, from) = over_tcp.accept().await.unwrap();
            let mut request = [0; 20];
            stream.read_exact(&mut request).await.unwrap();
            let answer = super::encoding::success(&request, from);
            stream.write_all(&answer).await.unwrap();
        }
    });
    let dead = Server::start("127.0.0.2", |_, _| Vec::new()).await;
    let (silent, dead) = (configured([&silent, &dead]), configured([&dead]));
    let (blocked, unknown) =
        futures::future::join(classify(&silent, Family::V4), classify(&dead, Family::V4)).await;
    assert_eq!((blocked.name(), blocked.confidence), ("blocked", 80), "{blocked:?}");
    assert_eq!((unknown.name(), unknown.confidence), ("unknown", 0), "{unknown:?}");
    tcp.abort();
}

#[tokio::test]
async fn ipv6_is_asked_over_ipv6() {
    let v6: IpAddr = "::1".parse().unwrap();
    // Not every machine has it.
    if UdpSocket::bind((v6, 0)).await.is_ok() {
        let server = Server::honest("::1").await;
        let found = classify(&configured([&server]), Family::V6).await;
        assert_eq!((found.family.as_str(), found.mapping), ("ipv6", NatDependence::NoNat));
    }
    let server = Server::honest("127.0.0.1").await;
    let found = classify(&configured([&server]), Family::V6).await;
    assert_eq!(found.mapping, NatDependence::NotTested);
    assert_eq!(found.notes.len(), 1, "{found:?}");
}
