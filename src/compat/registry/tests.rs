//! Registrations without their pings: what is kept, what gives way, and who is told.

#![allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

use super::*;

const WALL: WallTime = WallTime::from_millis(7000);
const ANSWERED: Option<(Way, String)> = Some((Way::H2c, String::new()));

fn candidate(id: &str, port: u16, caller: Option<u8>) -> Candidate {
    let caller = caller.map(|n| IpAddr::from([10, 0, 0, n]));
    Candidate {
        id: id.to_owned(),
        endpoint: format!("10.0.0.1:{port}").parse().unwrap(),
        caller,
        is_hearsay: false,
        by: caller,
        scope: AddressScope::Private,
        protocols: Vec::new(),
        capabilities: None,
        registers: Vec::new(),
    }
}

fn answer(registry: &mut Registry, now: Instant) {
    loop {
        let due = registry.take_due(now, 10_000);
        if due.is_empty() {
            return;
        }
        for entry in due {
            registry.pinged(&entry, ANSWERED, now, WALL);
        }
    }
}

fn ids(registry: &Registry) -> Vec<String> {
    registry.list().map(|info| info.peer_id).collect()
}

#[test]
fn who_answers_is_listed_and_who_stops_is_dropped() {
    let (mut registry, mut now) = (Registry::new(10), Instant::now());
    registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
    assert!(ids(&registry).is_empty() && registry.answering("a").is_none());
    answer(&mut registry, now);
    assert_eq!(ids(&registry), ["a"]);
    assert_eq!(registry.answering("a").unwrap().way, Some(Way::H2c));
    assert!(registry.take_due(now, 10).is_empty());
    for missed in 1..=MAX_MISSES {
        now += PING_INTERVAL;
        let due = registry.take_due(now, 10);
        assert_eq!(due.len(), 1);
        let is_gone = registry.pinged(&due[0], None, now, WALL);
        assert_eq!(is_gone, missed == MAX_MISSES);
        assert!(registry.answering("a").is_none());
    }
    assert!(!registry.contains("a"));
}

#[test]
fn an_id_is_kept_by_who_answers() {
    let (mut registry, now) = (Registry::new(10), Instant::now());
    registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
    // Nobody has answered yet.
    registry.register(candidate("a", 2, Some(2)), now, WALL).unwrap();
    answer(&mut registry, now);
    let refused = registry.register(candidate("a", 3, Some(3)), now, WALL);
    assert_eq!(refused, Err(ID_IN_USE));
    let proxied = registry.register(candidate("a", 3, None), now, WALL);
    assert_eq!(proxied, Err(ID_IN_USE));
    registry.register(candidate("a", 2, Some(3)), now, WALL).unwrap();
    assert_eq!(registry.register(candidate("a", 4, Some(3)), now, WALL), Err(ID_IN_USE));
    assert_eq!(ids(&registry), ["a"]);
    registry.register(candidate("a", 4, Some(2)), now, WALL).unwrap();
    assert!(ids(&registry).is_empty(), "another place has to answer first");
}

#[test]
fn what_comes_of_an_earlier_registration_is_no_answer_of_this_one() {
    let (mut registry, now) = (Registry::new(10), Instant::now());
    registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
    let old = registry.take_due(now, 1).remove(0);
    registry.register(candidate("a", 2, Some(1)), now, WALL).unwrap();
    assert!(!registry.pinged(&old, ANSWERED, now, WALL));
    assert!(ids(&registry).is_empty());
    registry.remove(&old);
    assert!(registry.contains("a"));
}

#[test]
fn a_full_list_makes_room_for_nobody_but_in_place_of_the_silent() {
    let (mut registry, now) = (Registry::new(10), Instant::now());
    for n in 0..10u16 {
        let id = format!("client {n}");
        registry.register(candidate(&id, n + 1, Some((n / 8) as u8)), now, WALL).unwrap();
    }
    let share = registry.register(candidate("more", 99, Some(0)), now, WALL);
    assert_eq!(share, Err(LIST_FULL), "a host has its share");
    let more = || candidate("more", 99, Some(2));
    assert_eq!(registry.register(more(), now, WALL), Err(LIST_FULL));
    answer(&mut registry, now);
    let later = now + FIRST_ANSWER;
    assert_eq!(registry.register(more(), later, WALL), Err(LIST_FULL));
    registry.register(candidate("client 3", 4, Some(0)), later, WALL).unwrap();
    registry.register(more(), now + SILENT, WALL).unwrap();
    registry.register(candidate("last", 98, Some(3)), now + SILENT + FIRST_ANSWER, WALL).unwrap();
    assert!(registry.contains("more") && registry.peers.len() == 10);
}

#[test]
fn who_is_refused_has_nobody_give_way() {
    let (mut registry, now) = (Registry::new(100), Instant::now());
    registry.register(candidate("silent", 1, Some(2)), now, WALL).unwrap();
    for n in 0..MIN_SHARE as u16 {
        registry.register(candidate(&n.to_string(), n + 10, Some(1)), now, WALL).unwrap();
    }
    // The id is free, and this caller has its share.
    let refused = registry.register(candidate("silent", 2, Some(1)), now, WALL);
    assert_eq!(refused, Err(LIST_FULL));
    assert!(registry.contains("silent"));
    // So is the place, which is the caller's own.
    answer(&mut registry, now);
    let refused = registry.register(candidate("owner", 1, Some(1)), now, WALL);
    assert_eq!(refused, Err(LIST_FULL));
    assert!(ids(&registry).contains(&"silent".to_owned()));
}

#[test]
fn hearsay_changes_nothing_and_leaves_room() {
    let (mut registry, now) = (Registry::new(12), Instant::now());
    registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
    assert!(!registry.hear(candidate("a", 2, None), now, WALL));
    let heard = (0..20u16).filter(|n| {
        let candidate = candidate(&format!("heard {n}"), n + 10, None);
        registry.hear(candidate, now, WALL)
    });
    assert_eq!(heard.count(), 8);
    assert!(ids(&registry).is_empty());
    assert!(!registry.hear(candidate("new", 10, None), now, WALL), "a place that is known");
    let heard = Candidate { is_hearsay: true, ..candidate("squatted", 50, None) };
    let mut registry = Registry::new(12);
    assert!(registry.hear(heard, now, WALL));
    answer(&mut registry, now);
    registry.register(candidate("squatted", 51, Some(2)), now, WALL).unwrap();
}

#[test]
fn a_place_has_one_id() {
    let (mut registry, now) = (Registry::new(100), Instant::now());
    for id in ["a", "b"] {
        registry.register(candidate(id, 1, Some(1)), now, WALL).unwrap();
    }
    let first = registry.take_due(now, 1).remove(0);
    registry.pinged(&first, ANSWERED, now, WALL);
    assert_eq!(ids(&registry), [first.id], "whose ping was answered first");
    assert_eq!(registry.peers.len(), 1);
    let other = registry.register(candidate("c", 1, Some(2)), now, WALL);
    assert_eq!(other, Err(ADDRESS_IN_USE));
    registry.register(candidate("renamed", 1, Some(1)), now, WALL).unwrap();
    answer(&mut registry, now);
    assert_eq!(ids(&registry), ["renamed"]);
}

#[test]
fn whoever_is_at_a_place_gets_it_back_from_who_named_it_first() {
    let now = Instant::now();
    let squatted = |by: Option<u8>, answered_as: &str| {
        let mut registry = Registry::new(100);
        registry.register(candidate("x", 1, by), now, WALL).unwrap();
        let entry = registry.take_due(now, 1).remove(0);
        let answer = Some((Way::H2c, answered_as.to_owned()));
        registry.pinged(&entry, answer, now, WALL);
        registry
    };
    // Its caller has the address 10.0.0.1, which is the one that is named.
    let mut registry = squatted(Some(9), "x");
    assert_eq!(registry.register(candidate("y", 1, Some(8)), now, WALL), Err(ADDRESS_IN_USE));
    registry.register(candidate("y", 1, Some(1)), now, WALL).unwrap();
    assert!(!registry.contains("x"));
    // By way of a proxy that shows nothing, but it answers by this id.
    let mut registry = squatted(Some(9), "y");
    registry.register(candidate("y", 1, None), now, WALL).unwrap();
    assert!(!registry.contains("x"));
}

#[test]
fn names_that_one_caller_made_up_are_one_host() {
    let (mut registry, now) = (Registry::new(1000), Instant::now());
    for n in 0..70u16 {
        let mut named = candidate(&n.to_string(), 1, Some(1));
        named.endpoint = format!("a{n}.example.com:1").parse().unwrap();
        let registered = registry.register(named, now, WALL);
        assert_eq!(registered.is_ok(), n < 62, "a sixteenth");
    }
    assert_eq!(registry.take_due(now, MAX_PINGS).len(), MAX_PINGS_OF_HOST);
    let mut proxied = candidate("p", 1, None);
    proxied.endpoint = "b.example.com:1".parse().unwrap();
    for port in 1..70u16 {
        proxied.endpoint = format!("b.example.com:{port}").parse().unwrap();
        proxied.id = format!("p{port}");
        let registered = registry.register(proxied.clone(), now, WALL);
        assert_eq!(registered.is_ok(), port <= 62);
    }
}

#[test]
fn pings_come_by_their_time_and_few_for_one_host() {
    let (mut registry, mut now) = (Registry::new(1000), Instant::now());
    for n in 0..40u16 {
        let slow = candidate(&format!("! {n}"), n + 1, Some(1));
        registry.register(slow, now, WALL).unwrap();
    }
    let mut other = candidate("z", 1, Some(2));
    other.endpoint = "10.0.0.9:1".parse().unwrap();
    registry.register(other, now, WALL).unwrap();
    let due = registry.take_due(now, MAX_PINGS);
    let of_other = due.iter().filter(|entry| entry.id == "z").count();
    assert_eq!((due.len(), of_other), (MAX_PINGS_OF_HOST + 1, 1));
    assert!(registry.take_due(now, MAX_PINGS).is_empty());
    assert_eq!(registry.next_due(now), None, "an answer is what is waited for");
    let first = due.iter().find(|entry| entry.id != "z").unwrap();
    registry.pinged(first, None, now, WALL);
    assert_eq!(registry.take_due(now, MAX_PINGS).len(), 1);
    // Saying it again brings no ping forward.
    now += Duration::from_secs(1);
    let again = registry.peers[&first.id].candidate.clone();
    registry.register(again, now, WALL).unwrap();
    let due_at = registry.peers[&first.id].due.unwrap();
    assert_eq!(due_at, now + FIRST_INTERVAL - Duration::from_secs(1));
}

#[test]
fn a_sign_of_life_counts_from_where_the_client_registered() {
    let (mut registry, now) = (Registry::new(10), Instant::now());
    registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
    answer(&mut registry, now);
    let seen = |registry: &Registry| registry.list().next().unwrap().last_seen;
    registry.touch("a", [10, 0, 0, 2].into(), WallTime::from_millis(9000));
    assert_eq!(seen(&registry), 7);
    registry.touch("a", [10, 0, 0, 1].into(), WallTime::from_millis(9000));
    assert_eq!(seen(&registry), 9);
}

fn news(size: u64) -> Arc<News> {
    Arc::new(News { hash: "h".to_owned(), topic: "t".to_owned(), size })
}

#[test]
fn news_goes_to_all_in_turn_and_waits_for_who_fails() {
    let (mut registry, mut now) = (Registry::new(10), Instant::now());
    for (n, id) in ["a", "b", "c", "unlisted"].into_iter().enumerate() {
        if id == "unlisted" {
            answer(&mut registry, now);
        }
        let mut candidate = candidate(id, n as u16 + 1, Some(1));
        candidate.endpoint = format!("10.0.0.{n}:1").parse().unwrap();
        registry.register(candidate, now, WALL).unwrap();
    }
    assert_eq!(registry.tell(&news(1), &["b".to_owned()]), 0);
    let (first, one) = registry.take_news(now).unwrap();
    let (second, two) = registry.take_news(now).unwrap();
    assert_eq!((first.id.as_str(), second.id.as_str()), ("a", "c"));
    assert!(registry.take_news(now).is_none(), "one at a time each");
    registry.told(&first, &one, true, now);
    assert!(registry.take_news(now).is_none());
    let mut failing = (second, two);
    for _ in 0..MAX_FAILURES {
        registry.told(&failing.0, &failing.1, false, now);
        now += FIRST_DELAY * 64;
        if let Some(again) = registry.take_news(now) {
            failing = again;
        }
    }
    assert!(registry.take_news(now + SILENT).is_none(), "left alone");
    assert_eq!(registry.next_news(now), None);
    registry.pinged(&failing.0, ANSWERED, now, WALL);
    assert_eq!(registry.take_news(now).unwrap().0.id, "c");
}

#[test]
fn those_of_one_host_are_told_few_at_a_time() {
    let (mut registry, now) = (Registry::new(100), Instant::now());
    for n in 0..5u16 {
        registry.register(candidate(&n.to_string(), n + 1, Some(1)), now, WALL).unwrap();
    }
    answer(&mut registry, now);
    registry.tell(&news(1), &[]);
    let taken: Vec<_> = std::iter::from_fn(|| registry.take_news(now)).collect();
    assert_eq!((taken.len(), registry.next_news(now)), (MAX_TOLD_OF_HOST, None));
    registry.told(&taken[0].0, &taken[0].1, true, now);
    assert!(registry.take_news(now).is_some());
}

#[test]
fn news_is_bounded_and_no_larger_than_a_client_takes() {
    let (mut registry, now) = (Registry::new(10), Instant::now());
    let mut small = candidate("small", 1, Some(1));
    small.capabilities = Some(PeerCapabilities { max_transaction_size: 10, ..Default::default() });
    registry.register(small, now, WALL).unwrap();
    let mut odd = candidate("odd", 2, Some(1));
    odd.capabilities = Some(PeerCapabilities { max_transaction_size: -1, ..Default::default() });
    registry.register(odd, now, WALL).unwrap();
    answer(&mut registry, now);
    let dropped: u64 = (0..MAX_NEWS as u64 + 3).map(|_| registry.tell(&news(11), &[])).sum();
    assert_eq!(dropped, 3);
    assert_eq!(registry.peers["odd"].news.len(), MAX_NEWS);
    assert!(registry.peers["small"].news.is_empty());
}
