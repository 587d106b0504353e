//! IPv6 on the command line, and on a system whose sockets on `[::]` serve IPv6 alone unless they are told.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::Command;

use crate::admin::TOKEN;
use crate::peer::{Peer, example};

/// Asserts that what either publishes is delivered by the other.
fn deliver_both_ways(a: &mut Peer, b: &mut Peer) {
    let (from_a, from_b) = (a.publish("t", "from a"), b.publish("t", "from b"));
    b.wait_for_delivery(&from_a);
    a.wait_for_delivery(&from_b);
}

/// A port of the loopback address of IPv6 that was free a moment ago, where there is one.
fn free_port() -> Option<u16> {
    Some(TcpListener::bind("[::1]:0").ok()?.local_addr().ok()?.port())
}

#[test]
fn flags_and_urls_take_ipv6_literals() {
    let Some(port) = free_port() else {
        println!("SKIPPED: this machine has no IPv6");
        return;
    };
    let http = format!("[::1]:{port}");
    let listen = ["--memory", "--listen", "[::1]:0", "--http", &http, "--admin", "[::1]:0"];
    let mut a = Peer::start(listen.into_iter().chain(["--advertise", "[2001:db8::1]:7"]));
    assert!(a.listen.starts_with("[::1]:"), "{}", a.listen);
    let contacts = [a.listen.clone(), format!("http://{http}"), format!("https://{}/x", a.listen)];
    for contact in contacts {
        let flags = ["--memory", "--listen", "[::1]:0", "--bootstrap", &contact];
        let mut b = Peer::start(flags);
        b.wait("peer_up", |line| line["peer"] == a.id.as_str());
        deliver_both_ways(&mut a, &mut b);
        b.finish();
    }
    let admin = format!("http://{}", a.admin.as_ref().expect("an admin listener"));
    assert!(admin.starts_with("http://[::1]:"), "{admin}");
    let mut ctl = Command::new(example("peerctl"));
    ctl.env_remove("SORCHA_ADMIN_TOKEN").args(["--admin", &admin, "--json", "status"]);
    let output = ctl.output().unwrap();
    // Its status is that of the node, which may have no link by now.
    let (said, errors) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(said).contains(&a.id), "{errors}");
    a.finish();
}

/// Network namespace in which sockets for IPv6 are for nothing else by default; it ends with this value.
struct Ipv6Only {
    name: String,
}

impl Ipv6Only {
    /// Makes one, or says aloud why there is none.
    fn up() -> Option<Self> {
        let this = Self { name: format!("sorcha-v6only-{}", std::process::id()) };
        let only = "echo 1 >/proc/sys/net/ipv6/bindv6only";
        let steps: [&[&str]; 3] = [
            &["netns", "add", &this.name],
            &["-n", &this.name, "link", "set", "lo", "up"],
            &["netns", "exec", &this.name, "sh", "-c", only],
        ];
        for step in steps {
            let done = Command::new("ip").args(step).output();
            if !done.as_ref().is_ok_and(|done| done.status.success()) {
                assert!(std::env::var_os("SORCHA_NATLAB").is_none(), "ip {step:?}: {done:?}");
                println!("SKIPPED: no network namespace: {done:?}");
                return None;
            }
        }
        Some(this)
    }

    /// A program in the namespace.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    fn peer<'a>(&self, flags: impl IntoIterator<Item = &'a str>) -> Peer {
        let mut command = self.command(example("peer"));
        command.env("SORCHA_ADMIN_TOKEN", TOKEN).arg("--memory");
        Peer::spawn_by(command, flags).ready()
    }
}

impl Drop for Ipv6Only {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[test]
fn an_unspecified_address_serves_both_families_whatever_the_system_prefers() {
    let Some(namespace) = Ipv6Only::up() else { return };
    let listen = ["--listen", "[::]:5001", "--http", "[::]:5080", "--admin", "[::]:5090"];
    let mut a = namespace.peer(listen);
    for contact in ["127.0.0.1:5001", "[::1]:5001", "http://127.0.0.1:5080", "http://[::1]:5080"] {
        let mut b = namespace.peer(["--listen", "127.0.0.1:0", "--bootstrap", contact]);
        b.wait("peer_up", |line| line["peer"] == a.id.as_str());
        deliver_both_ways(&mut a, &mut b);
        b.finish();
    }
    for admin in ["http://127.0.0.1:5090", "http://[::1]:5090"] {
        let mut ctl = namespace.command(example("peerctl"));
        ctl.env("SORCHA_ADMIN_TOKEN", TOKEN).args(["--admin", admin, "--json", "status"]);
        let output = ctl.output().unwrap();
        let (said, errors) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(said).contains(&a.id), "{admin}: {errors}");
    }
    a.finish();
}
