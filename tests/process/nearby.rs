//! Programs on two hosts of one LAN, which find each other by multicast DNS: two network namespaces, and a
//! cable between them.
//!
//! Root only, with `ip`; skipped aloud elsewhere, but not where `SORCHA_NATLAB` says that everything has
//! to be there. The program has to be built with the feature `mdns`.

use std::process::Command;

use crate::peer::{Peer, example};

/// Two hosts and a cable, which end with this value.
struct Lan {
    hosts: [String; 2],
}

impl Lan {
    /// Lays the cable, or says aloud why there is none.
    fn up() -> Option<Self> {
        let host = |n: u8| format!("mdns-{}-{n}", std::process::id());
        let lan = Self { hosts: [host(1), host(2)] };
        let [a, b] = &lan.hosts;
        let script = format!(
            "set -e
            ip netns add {a}
            ip netns add {b}
            ip link add lan0 netns {a} type veth peer name lan0 netns {b}
            ip -n {a} addr add 10.77.0.1/24 dev lan0
            ip -n {b} addr add 10.77.0.2/24 dev lan0
            for host in {a} {b}; do
                ip -n $host link set lo up
                ip -n $host link set lan0 up
            done"
        );
        let laid = Command::new("sh").args(["-c", &script]).output().unwrap();
        if laid.status.success() {
            return Some(lan);
        }
        let said = String::from_utf8_lossy(&laid.stderr).into_owned();
        assert!(std::env::var_os("SORCHA_NATLAB").is_none(), "no LAN: {said}");
        println!("SKIPPED: no LAN: {said}");
        None
    }

    /// Starts the program on a host.
    fn peer(&self, host: usize, flags: &[&str]) -> Peer {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.hosts[host]]).arg(example("peer"));
        let always = ["--memory", "--mdns"];
        Peer::spawn_by(command, always.iter().chain(flags)).ready()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = Command::new("ip").args(["netns", "del", host]).output();
        }
    }
}

#[test]
fn programs_on_one_lan_find_each_other_without_any_address() {
    let Some(lan) = Lan::up() else { return };
    let mut a = lan.peer(0, &["--listen", "0.0.0.0:5001"]);
    let mut b = lan.peer(1, &["--listen", "0.0.0.0:5001"]);
    let mut stranger = lan.peer(1, &["--listen", "0.0.0.0:5002", "--network", "another"]);
    let mut companion = lan.peer(0, &["--listen", "0.0.0.0:5002", "--network", "another"]);
    for (peer, other) in [(&mut a, b.id.clone()), (&mut stranger, companion.id.clone())] {
        peer.wait("peer_up", |line| line["peer"] == other);
    }
    let (from_a, from_b) = (a.publish("t", "from a"), b.publish("t", "from b"));
    b.wait_for_delivery(&from_a);
    a.wait_for_delivery(&from_b);
    for peer in [&mut a, &mut b, &mut stranger, &mut companion] {
        let stats = peer.until_stats(|stats| stats["links"] == 1);
        assert_eq!(stats["counters"]["links_refused_network"], 0, "strangers are not dialled");
    }
    // Killed, it said no goodbye; its successor is found all the same, and on both families of host.
    a.kill();
    let mut a = lan.peer(0, &["--listen", "[::]:5003"]);
    b.wait("peer_up", |line| line["peer"] == a.id.as_str());
    let late = a.publish("t", "from its successor");
    b.wait_for_delivery(&late);
    for peer in [a, b, stranger, companion] {
        peer.finish();
    }
}
