//! The allocation as a machine, without sockets and clocks.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use stun_codec::MessageClass;

use super::super::allocation::{Allocation, MAX_DIALS, MAX_PERMITTED, Output};
use super::super::binding::Step;
use super::super::codec::{Challenge, Method};
use super::super::fault::Fault;
use super::fake::{Fake, relayed, server};
use crate::error::FailureKind;

const SECOND: Duration = Duration::from_secs(1);

/// A client and its server, and the time.
struct Desk {
    client: Allocation,
    server: Fake,
    now: Duration,
    /// What came out beside requests.
    out: Vec<Output>,
}

impl Desk {
    fn new() -> Self {
        Self::at("192.0.2.1:3478")
    }

    fn at(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let client = Allocation::new(server(address), address, [3; 32]).unwrap();
        Self { client, server: Fake::new(address), now: Duration::ZERO, out: Vec::new() }
    }

    fn allocated() -> Self {
        let mut desk = Self::new();
        desk.settle().unwrap();
        desk.client.permit(desk.now, &BTreeSet::new()).unwrap();
        desk.settle().unwrap();
        desk.server.asked.clear();
        desk.out.clear();
        desk
    }

    /// Has the server answer until nothing is asked.
    fn settle(&mut self) -> Result<(), Fault> {
        while let Some(output) = self.client.next_output() {
            match output {
                Output::Send(request) => {
                    let answer = self.server.answer(&request);
                    self.client.on_message(self.now, &answer)?;
                }
                other => self.out.push(other),
            }
        }
        Ok(())
    }

    /// Lets time pass, and all happen that is due.
    fn pass(&mut self, span: Duration) -> Result<(), Fault> {
        let end = self.now + span;
        while self.client.next_due() <= end {
            self.now = self.now.max(self.client.next_due());
            self.client.on_time(self.now)?;
            self.settle()?;
        }
        self.now = end;
        Ok(())
    }

    fn asked(&self, method: Method) -> usize {
        self.server.asked.iter().filter(|(asked, _)| *asked == method).count()
    }

    /// Requests that wait to be sent, of which nothing comes.
    fn lose(&mut self) -> Vec<Vec<u8>> {
        let mut lost = Vec::new();
        while let Some(output) = self.client.next_output() {
            match output {
                Output::Send(request) => lost.push(request),
                other => self.out.push(other),
            }
        }
        lost
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_allocation_is_made_with_the_account_and_lets_in_who_dials_from_the_server() {
    let mut desk = Desk::new();
    desk.settle().unwrap();
    assert!(matches!(desk.out[..], [Output::Allocated(address)] if address == relayed()));
    desk.client.permit(desk.now, &[ip("198.51.100.7"), ip("2001:db8::7")].into()).unwrap();
    desk.settle().unwrap();
    let asked: BTreeSet<_> =
        desk.server.asked[1..].iter().map(|(_, peer)| peer.unwrap().ip()).collect();
    let wanted = ["192.0.2.1", "203.0.113.5", "198.51.100.7"].map(ip);
    assert_eq!(asked, wanted.into(), "of the family that the address has");
}

#[test]
fn an_ipv6_address_is_asked_for_where_the_server_has_one_and_else_any() {
    let mut desk = Desk::at("[2001:db8::1]:3478");
    desk.server.refused = Some((Method::Allocate, 440));
    let request = desk.lose().remove(0);
    assert!(request.windows(2).any(|kind| kind == [0x00, 0x17]), "REQUESTED-ADDRESS-FAMILY");
    let challenge = desk.server.answer(&request);
    desk.client.on_message(desk.now, &challenge).unwrap();
    let proven = desk.lose().remove(0);
    let refusal = desk.server.answer(&proven);
    desk.client.on_message(desk.now, &refusal).unwrap();
    desk.server.refused = None;
    desk.settle().unwrap();
    assert!(matches!(desk.out[..], [Output::Allocated(_)]));
}

#[test]
fn allocation_and_permissions_are_renewed_in_time() {
    let mut desk = Desk::allocated();
    desk.pass(Duration::from_secs(239)).unwrap();
    assert_eq!(desk.asked(Method::CreatePermission), 0);
    desk.pass(2 * SECOND).unwrap();
    assert_eq!(desk.asked(Method::CreatePermission), 2, "before its 5 min are over");
    assert_eq!(desk.asked(Method::Refresh), 0);
    desk.pass(Duration::from_mins(1)).unwrap();
    assert_eq!(desk.asked(Method::Refresh), 1, "at half of 600 s");
    desk.server.lifetime = 60;
    desk.pass(Duration::from_mins(5)).unwrap();
    desk.server.asked.clear();
    desk.pass(Duration::from_mins(5)).unwrap();
    assert_eq!(desk.asked(Method::Refresh), 10, "at half of what the server grants now");
}

#[test]
fn a_stale_nonce_is_replaced_and_nothing_is_lost() {
    let mut desk = Desk::allocated();
    desk.server.challenge = Challenge::new("example.org", "another");
    let many: BTreeSet<_> = (0..40_u8).map(|n| IpAddr::from([198, 51, 100, n])).collect();
    desk.client.permit(desk.now, &many).unwrap();
    desk.settle().unwrap();
    assert_eq!(desk.asked(Method::CreatePermission), 40);
    desk.client.dial(desk.now, 1, relayed()).unwrap();
    desk.settle().unwrap();
    assert!(matches!(desk.out[..], [Output::Dialled { call: 1, result: Ok(_) }]));
}

#[test]
fn a_new_address_is_permitted_at_once_and_one_that_is_gone_is_not_renewed() {
    let mut desk = Desk::allocated();
    desk.client.permit(desk.now, &[ip("198.51.100.7")].into()).unwrap();
    desk.settle().unwrap();
    assert_eq!(
        desk.server.asked,
        [(Method::CreatePermission, Some("198.51.100.7:0".parse().unwrap()))]
    );
    desk.server.asked.clear();
    desk.client.permit(desk.now, &BTreeSet::new()).unwrap();
    desk.pass(Duration::from_mins(5)).unwrap();
    assert_eq!(desk.asked(Method::CreatePermission), 2, "those of the server");
}

#[test]
fn permissions_have_a_limit_and_a_refused_one_is_asked_for_again() {
    let mut desk = Desk::allocated();
    desk.server.refused = Some((Method::CreatePermission, 403));
    let many: BTreeSet<_> = (0..999_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            IpAddr::from([10, 0, high, low])
        })
        .collect();
    desk.client.permit(desk.now, &many).unwrap();
    desk.settle().unwrap();
    assert_eq!(desk.asked(Method::CreatePermission), MAX_PERMITTED - 2);
    desk.server.refused = None;
    desk.server.asked.clear();
    desk.pass(Duration::from_mins(4)).unwrap();
    assert_eq!(desk.asked(Method::CreatePermission), MAX_PERMITTED);
}

#[test]
fn a_server_that_falls_silent_is_lost_within_20_s() {
    let mut desk = Desk::allocated();
    let lost = (0..).find_map(|second| {
        desk.now += SECOND;
        desk.lose();
        let over = desk.client.on_time(desk.now);
        over.err().map(|fault| (second, fault.kind))
    });
    let (second, kind) = lost.unwrap();
    assert_eq!(kind, FailureKind::Timeout);
    assert!(second <= 20, "{second}");
}

#[test]
fn a_dropped_allocation_ends_the_connection() {
    for method in [Method::Refresh, Method::CreatePermission, Method::Connect] {
        let mut desk = Desk::allocated();
        desk.server.refused = Some((method, 437));
        desk.client.dial(desk.now, 1, relayed()).unwrap();
        let over = desk.settle().and_then(|()| desk.pass(Duration::from_mins(6)));
        assert_eq!(over.unwrap_err().kind, FailureKind::Closed, "{method:?}");
    }
}

#[test]
fn a_dial_that_fails_ends_nothing_but_itself() {
    for (code, kind) in [(403, FailureKind::Refused), (447, FailureKind::Unreachable)] {
        let mut desk = Desk::allocated();
        desk.server.refused = Some((Method::Connect, code));
        desk.client.dial(desk.now, 5, relayed()).unwrap();
        desk.settle().unwrap();
        let [Output::Dialled { call: 5, result: Err(fault) }] = &desk.out[..] else { panic!() };
        assert_eq!(fault.kind, kind);
        assert!(fault.why.contains(&code.to_string()) && fault.why.contains("203.0.113.5"));
    }
}

#[test]
fn dials_have_a_limit_and_their_time() {
    let mut desk = Desk::allocated();
    for call in 0..=MAX_DIALS as u64 {
        desk.client.dial(desk.now, call, relayed()).unwrap();
    }
    assert_eq!(desk.lose().len(), MAX_DIALS);
    let refused = |fault: &Fault| fault.kind == FailureKind::Refused;
    assert!(
        matches!(&desk.out[..], [Output::Dialled { result: Err(fault), .. }] if refused(fault))
    );
    desk.out.clear();
    desk.pass(Duration::from_secs(36)).unwrap();
    let late = |fault: &Fault| fault.kind == FailureKind::Timeout;
    assert_eq!(desk.out.len(), MAX_DIALS);
    for output in &desk.out {
        assert!(matches!(output, Output::Dialled { result: Err(fault), .. } if late(fault)));
    }
}

#[test]
fn a_connection_that_comes_in_is_bound_whatever_class_tells_of_it() {
    for class in [MessageClass::Indication, MessageClass::Request] {
        let mut desk = Desk::allocated();
        let peer: SocketAddr = "203.0.113.5:50001".parse().unwrap();
        let news = desk.server.attempt(class, peer);
        desk.client.on_message(desk.now, &news).unwrap();
        desk.settle().unwrap();
        let Some(Output::Incoming { peer: from, mut binding }) = desk.out.pop() else { panic!() };
        assert_eq!(from, peer);
        // A server may have nonces for each connection.
        desk.server.challenge = Challenge::new("example.org", "of this connection");
        let answer = desk.server.answer(&binding.request().unwrap());
        let Step::Ask(again) = binding.on_message(&answer).unwrap() else { panic!() };
        let answer = desk.server.answer(&again);
        assert!(matches!(binding.on_message(&answer).unwrap(), Step::Bound));
        assert_eq!(desk.asked(Method::ConnectionBind), 1);
    }
}

#[test]
fn what_has_no_permission_is_not_bound() {
    let mut desk = Desk::allocated();
    let news = desk.server.attempt(MessageClass::Indication, "198.51.100.1:9".parse().unwrap());
    desk.client.on_message(desk.now, &news).unwrap();
    desk.settle().unwrap();
    assert!(desk.out.is_empty());
    assert_eq!([desk.client.take_refused(), desk.client.take_refused()], [1, 0]);
}

#[test]
fn endless_attempts_are_bound_at_a_pace_and_then_end_the_connection() {
    let mut desk = Desk::allocated();
    let news = desk.server.attempt(MessageClass::Indication, "203.0.113.5:9".parse().unwrap());
    let flood = |desk: &mut Desk, count| {
        (0..count).try_for_each(|_| desk.client.on_message(desk.now, &news))
    };
    flood(&mut desk, 200).unwrap();
    desk.settle().unwrap();
    assert_eq!(desk.out.len(), 64);
    desk.now += SECOND;
    flood(&mut desk, 200).unwrap();
    desk.settle().unwrap();
    assert_eq!(desk.out.len(), 64 + 16);
    assert_eq!(desk.client.take_refused(), 400 - 64 - 16);
    assert_eq!(flood(&mut desk, 2_000).unwrap_err().kind, FailureKind::Protocol);
}

#[test]
fn a_bad_binding_is_no_connection() {
    let mut desk = Desk::allocated();
    desk.client.dial(desk.now, 1, relayed()).unwrap();
    desk.settle().unwrap();
    let Some(Output::Dialled { result: Ok(mut binding), .. }) = desk.out.pop() else { panic!() };
    // Ever new nonces.
    let mut request = binding.request().unwrap();
    let mut asked = 1;
    let fault = loop {
        desk.server.challenge = Challenge::new("example.org", &format!("nonce {asked}"));
        match binding.on_message(&desk.server.answer(&request)) {
            Ok(Step::Ask(next)) => request = next,
            Ok(Step::Bound) => panic!("bound"),
            Err(fault) => break fault,
        }
        asked += 1;
    };
    assert_eq!((asked, fault.kind), (4, FailureKind::Refused));
    // Somebody who does not know the password.
    let request = binding.request().unwrap();
    desk.server.account = crate::config::RelayServer::new("turn:alice:guess@192.0.2.1").unwrap();
    let id = super::super::codec::decode(&request).unwrap().id;
    let class = MessageClass::SuccessResponse;
    let forged = desk.server.encode(class, Method::ConnectionBind, id, Vec::new(), true);
    assert_eq!(binding.on_message(&forged).unwrap_err().kind, FailureKind::Identity);
}
