//! Requests to peers that are known and not linked.

use crate::protocol::Assurance;
use crate::types::{FailureKind, Features, Hello, TransportKind, WallTime};

use super::super::single_node::greeting;
use super::*;

impl Asker {
    /// A peer that serves requests says hello.
    fn greeted(&mut self, link: LinkId, n: u8) {
        let hello = Hello { features: Features::SERVES_REQUESTS, ..greeting(n) };
        self.hear(link, Message::Hello(Box::new(hello)));
    }

    /// A dial of this node ends in a link.
    fn reached(&mut self, dial: DialId, link: LinkId, n: u8) {
        let (remote, kind) = (peer(n), TransportKind::GrpcStream);
        let (address, dial, assurance) = (None, Some(dial), Assurance::default());
        self.feed(Input::LinkOpened { link, remote, kind, address, dial, assurance });
    }

    fn not_reached(&mut self, dial: DialId, reason: FailureKind, detail: &str) {
        self.feed(Input::DialFailed { dial, reason, detail: detail.to_owned() });
    }
}

fn known(n: u8, address: Option<&str>) -> StoredPeer {
    let mut known = StoredPeer::new(peer(n));
    known.verified = address.map(|text| text.parse().unwrap());
    known.last_up = Some(WallTime::from_millis(1_600_000_000_000));
    known
}

/// A core that has the link it wants, and knows two peers more: one by its address.
fn with_known() -> Asker {
    let peers = vec![known(2, Some("10.0.0.2:5001")), known(3, None)];
    let tune = |c: &mut Config| c.discovery.forget_after = 100;
    let mut asker = Asker::with(tune, peers);
    asker.node.link_up(START, LinkId(9), true, 9);
    asker.greeted(LinkId(9), 9);
    asker.pass(secs(1));
    for dial in asker.dials() {
        asker.not_reached(dial, FailureKind::Timeout, "");
    }
    asker.pass(secs(100));
    asker.dials();
    asker
}

#[test]
fn a_known_peer_without_a_link_is_dialled() {
    let mut asker = with_known();
    let calls = [asker.ask(1, 2, "first"), asker.ask(2, 2, "second")];
    let dials = asker.dials();
    let [dial] = dials[..] else { panic!("{dials:?}") };
    asker.pass(millis(300));
    let link = LinkId(40);
    asker.reached(dial, link, 2);
    assert_eq!(asker.said(link), []);
    asker.greeted(link, 2);
    let said = asker.said(link);
    let bodies: Vec<_> = said.iter().map(|m| joined(std::slice::from_ref(m)).2).collect();
    assert_eq!(bodies, [&b"first"[..], b"second"]);
    let left = said.iter().map(|m| match m {
        Message::Request { timeout_ms, .. } => *timeout_ms,
        other => panic!("{other:?}"),
    });
    assert!(left.eq([4700, 4700]), "what is left of the time");
    assert_eq!(asker.told(), []);
    asker.hear(link, done(1, 1, "1"));
    assert_eq!(asker.told(), [Told::Answered(calls[0], Ok("1".into()))]);
}

#[test]
fn where_there_is_no_way_that_is_said() {
    let mut asker = with_known();
    let no_way = |asker: &mut Asker, call| match asker.failed(call) {
        RequestError::NoWay { reason } => reason,
        other => panic!("{other:?}"),
    };
    let call = asker.ask(1, 3, "x");
    assert!(no_way(&mut asker, call).contains("no address"));
    let calls = [asker.ask(1, 2, "x"), asker.ask(2, 2, "x")];
    let [dial] = asker.dials()[..] else { panic!() };
    asker.not_reached(dial, FailureKind::Unreachable, "connection refused");
    let told = asker.told();
    for (call, told) in calls.iter().zip(&told) {
        let Told::Answered(of, Err(RequestError::NoWay { reason })) = told else {
            panic!("{told:?}")
        };
        assert!(of == call && reason.contains("connection refused"), "{reason}");
    }
    // Its back-off is not over: nobody is dialled again and again for who asks.
    let call = asker.ask(1, 2, "x");
    assert!(no_way(&mut asker, call).contains("again in"));
    assert_eq!(asker.dials(), []);
    asker.is_empty();
    // With each walk that fails the back-off grows, and then the breaker opens.
    let mut reason = String::new();
    for _ in 0..20 {
        asker.pass(secs(15));
        let call = asker.ask(1, 2, "x");
        match asker.dials()[..] {
            [dial] => {
                asker.not_reached(dial, FailureKind::Unreachable, "");
                asker.told();
            }
            _ => match asker.failed(call) {
                RequestError::NoWay { reason: said } => reason = said,
                other => panic!("{other:?}"),
            },
        }
    }
    assert!(reason.contains("circuit breaker"), "{reason}");
    asker.is_empty();
}

#[test]
fn a_dial_that_takes_too_long_ends_with_the_time() {
    let mut asker = with_known();
    let call = asker.ask_within(1, 2, "x", secs(2));
    assert_eq!(asker.dials().len(), 1);
    asker.pass(secs(3));
    assert_eq!(asker.failed(call), RequestError::TimedOut { after: secs(2) });
    asker.is_empty();
}

#[test]
fn links_for_requests_alone_give_way_to_each_other() {
    let peers = (20..60).map(|n| known(n, Some(&format!("10.0.{n}.2:5001")))).collect();
    let mut asker = Asker::with(|_| {}, peers);
    asker.node.link_up(START, LinkId(9), true, 9);
    asker.hear(LinkId(9), Message::Hello(Box::new(greeting(9))));
    asker.pass(secs(1));
    asker.dials();
    for n in 20..60 {
        asker.pass(secs(200));
        let call = asker.ask(u64::from(n), n, "x");
        let Some(dial) = asker.dials().pop() else { continue };
        let link = LinkId(1000 + u64::from(n));
        asker.reached(dial, link, n);
        asker.greeted(link, n);
        let said = asker.said(link);
        assert!(!said.is_empty(), "{n}");
        asker.hear(link, done(1, 1, "1"));
        let told = asker.told();
        assert!(told.contains(&Told::Answered(call, Ok("1".into()))), "{told:?}");
    }
    let links = asker.node.protocol.stats().links;
    assert!((16..=24).contains(&links), "{links}");
    assert!(asker.count().errands_ended > 10, "{}", asker.count().errands_ended);
}

#[test]
fn dials_for_requests_are_bounded_and_go_on_as_they_end() {
    let peers = (20..60).map(|n| known(n, Some(&format!("10.0.{n}.2:5001")))).collect();
    let mut asker = Asker::with(|c| c.discovery.max_concurrent = 3, peers);
    let link = LinkId(9);
    asker.node.link_up(START, link, true, 9);
    asker.greeted(link, 9);
    asker.pass(secs(1));
    for dial in asker.dials() {
        asker.not_reached(dial, FailureKind::Timeout, "");
    }
    asker.pass(secs(100));
    asker.dials();
    for n in 20..60 {
        asker.ask_within(u64::from(n), n, "x", secs(60));
    }
    let mut under_way = asker.dials();
    assert_eq!(under_way.len(), 3, "as many as may be at once");
    asker.hear(link, whole(1));
    asker.ask_within(100, 59, "x", secs(60));
    assert_eq!(asker.dials(), []);
    // As soon as one ends, the next begins.
    for ended in 0..20 {
        asker.not_reached(under_way.remove(0), FailureKind::Unreachable, "");
        let begun = asker.dials();
        assert_eq!(begun.len(), 1, "{ended}");
        under_way.extend(begun);
    }
}
