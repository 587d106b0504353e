//! Nodes that ask each other, while links break, move and fill up.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::check::InOrder;
use super::large::MIB;
use super::*;
use crate::config::Config;
use crate::error::RequestError;
use crate::protocol::{AnswerRefusal, CallId};
use crate::types::CloseReason;

const KIB: usize = 1024;

/// Answers with the body turned round; of bodies that say so it fails or refuses.
fn turned(body: &Bytes) -> Result<Bytes, AnswerRefusal> {
    match body.last() {
        Some(b'!') => Err(AnswerRefusal::Failed),
        Some(b'?') => Err(AnswerRefusal::Refused("no".to_owned())),
        _ => Ok(body.iter().rev().copied().collect()),
    }
}

fn handler(delay: Duration) -> Handler {
    Handler { protocols: ["turn".to_owned()].into(), delay, answer: turned }
}

/// Small numbers by chance.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// What was asked, and is not looked at yet.
struct Asking {
    dice: Dice,
    asked: u64,
    made: BTreeMap<(usize, CallId), Bytes>,
}

impl Asking {
    fn new(seed: u64) -> Self {
        Self { dice: Dice(seed), asked: 0, made: BTreeMap::new() }
    }

    /// A body that no other request has.
    fn body(&mut self, bytes: usize) -> Bytes {
        self.asked += 1;
        let mut body = self.asked.to_le_bytes().to_vec();
        body.resize(bytes.max(8), u8::try_from(self.asked % 23).unwrap());
        body.into()
    }

    fn ask(
        &mut self,
        world: &mut World,
        from: usize,
        to: usize,
        bytes: usize,
        within: Duration,
    ) -> CallId {
        let body = self.body(bytes);
        let call = world.request(from, to, "turn", body.clone(), within);
        self.made.insert((from, call), body);
        call
    }

    /// A random pair, and a body of a random size, small or large.
    fn ask_somebody(&mut self, world: &mut World, within: Duration) -> (usize, CallId) {
        let from = self.dice.below(world.len());
        let to = (from + 1 + self.dice.below(world.len() - 1)) % world.len();
        let most = [100, 3000, 70 * KIB, 400 * KIB][self.dice.below(4)];
        let bytes = self.dice.below(most);
        (from, self.ask(world, from, to, bytes, within))
    }

    /// Demands that every request was answered as it should; returns how many.
    fn all_answered(&self, world: &World) -> usize {
        for ((from, call), body) in &self.made {
            let answer = world.answers(*from).get(call);
            let Some(Ok(answer)) = answer else { panic!("{from} {call:?}: {answer:?}") };
            assert!(answer.iter().eq(body.iter().rev()), "{from} {call:?}");
        }
        self.made.len()
    }

    /// Counts how the requests ended.
    fn outcomes(&self, world: &World) -> BTreeMap<&'static str, usize> {
        let mut outcomes = BTreeMap::new();
        for (from, call) in self.made.keys() {
            let kind = match world.answers(*from).get(call) {
                Some(Ok(_)) => "answered",
                Some(Err(RequestError::LinkLost { .. })) => "link lost",
                Some(Err(RequestError::TimedOut { .. })) => "timed out",
                Some(Err(RequestError::Busy)) => "busy",
                Some(Err(RequestError::NoWay { .. })) => "no way",
                Some(Err(_)) => "other",
                None => "none",
            };
            *outcomes.entry(kind).or_default() += 1;
        }
        outcomes
    }
}

/// A world whose nodes have fewer links than there are nodes, and know of each other.
fn asking_world(config: WorldConfig, delay: Duration) -> World {
    asking_nodes(World::new(config), delay)
}

fn asking_nodes(world: World, delay: Duration) -> World {
    let mut world = joined(world);
    for node in 0..world.len() {
        world.serve(node, handler(delay));
    }
    // Until everybody has heard of everybody.
    let knows_all = |w: &World| {
        (0..w.len())
            .all(|n| w.protocol(n).is_none_or(|p| p.stats().known_peers as usize >= w.len() - 1))
    };
    assert!(world.run_until_every(secs(1), knows_all, secs(600)), "{:?}", world.report());
    world
}

fn few_links() -> Config {
    let mut node = Config::lan();
    (node.overlay.dial_target, node.overlay.min_links) = (2, 3);
    node.discovery.min_healthy_peers = 2;
    node
}

#[test]
fn whoever_is_asked_answers_linked_or_not() {
    seeds("requests", 4, |seed| {
        let mut world = asking_world(WorldConfig::new(seed, 10).node(few_links()), millis(300));
        let linked = |world: &World, a, b| world.linked(a, b);
        let (mut asking, mut unlinked) = (Asking::new(seed), 0);
        for _ in 0..200 {
            let (from, _) = asking.ask_somebody(&mut world, secs(20));
            unlinked +=
                u64::from(!(0..world.len()).all(|to| to == from || linked(&world, from, to)));
            world.run_for(millis(100));
        }
        world.run_for(secs(21));
        assert_eq!(asking.all_answered(&world), 200);
        assert!(unlinked > 0, "all were linked");
        let counters = world.report().counters;
        assert_eq!((counters.requests_answered, counters.requests_served), (200, 200));
        assert_eq!(counters.refused_malformed, 0);
        world.assert_clean();
        assert!(world.checks()["requests_once"] >= 600, "{:?}", world.checks());
    });
}

#[test]
fn requests_go_along_where_links_go_over_to_other_connections() {
    seeds("requests and rotation", 2, |seed| {
        let mut node = Config::lan();
        node.connection.max_link_age = Some(secs(60));
        let config = WorldConfig::new(seed, 4).node(node).uplink(2_000_000);
        let mut world = World::new(config);
        // From the start, since what is on its way already would come to it unannounced.
        world.add_checker(Box::new(InOrder::default()));
        let mut world = asking_nodes(world, secs(3));
        let mut asking = Asking::new(seed);
        for _ in 0..600 {
            asking.ask_somebody(&mut world, secs(60));
            world.run_for(millis(200));
        }
        world.run_for(secs(61));
        let counters = world.report().counters;
        assert!(counters.handovers > 4, "{counters:?}");
        asking.all_answered(&world);
        world.assert_clean();
    });
}

#[test]
fn every_request_ends_once_whatever_breaks() {
    seeds("requests and faults", 6, |seed| {
        let config = WorldConfig::new(seed, 8).node(few_links()).uplink(1_000_000);
        let mut world = asking_world(config, secs(4));
        let mut asking = Asking::new(seed);
        world.set_loss(Loss { reset: 2000, delay: 5000, ..Loss::default() });
        let mut down = None;
        for second in 0..120 {
            for _ in 0..4 {
                let within = millis(200 + 100 * asking.dice.below(100) as u64);
                let (from, call) = asking.ask_somebody(&mut world, within);
                if asking.dice.below(5) == 0 {
                    world.run_for(millis(asking.dice.below(400) as u64));
                    world.cancel_request(from, call);
                    asking.made.remove(&(from, call));
                }
            }
            let (a, b) = (asking.dice.below(8), asking.dice.below(8));
            match second % 12 {
                3 => world.reset_link(a, b),
                5 => world.throttle(a, Some(20_000), None),
                7 => world.throttle(a, Some(1_000_000), None),
                8 => {
                    world.crash(a, Disk::Kept);
                    down = Some(a);
                }
                10 => down.take().into_iter().for_each(|node| world.start(node)),
                11 => drop(world.publish_random(b, MIB)),
                _ => {}
            }
            world.run_for(secs(1));
        }
        world.set_loss(Loss::default());
        (0..8).for_each(|node| world.start(node));
        world.run_for(secs(12));
        let outcomes = asking.outcomes(&world);
        println!("{outcomes:?}");
        assert!(outcomes["answered"] > 100, "{outcomes:?}");
        assert!(outcomes.contains_key("link lost") && outcomes.contains_key("timed out"));
        world.assert_clean();
        for node in 0..8 {
            let gauges = world.protocol(node).unwrap().gauges();
            let held = gauges.iter().filter(|g| g.name.contains("requests"));
            held.for_each(|g| assert_eq!(g.value, 0, "{node}: {g:?}"));
        }
    });
}

#[test]
fn bodies_and_payloads_take_turns_on_a_thin_way() {
    let mut world = overlay(WorldConfig::new(1, 2).uplink(500_000));
    let short = |body: &Bytes| Ok(body.slice(..8));
    world.serve(1, Handler { answer: short, ..handler(Duration::ZERO) });
    world.run_for(secs(1));
    // Ten seconds of payloads, and eight of bodies behind most of them.
    let mut payloads = vec![world.publish_random(0, 2 * MIB), world.publish_random(0, 2 * MIB)];
    world.run_for(millis(500));
    let (mut asking, began) = (Asking::new(1), world.now());
    for _ in 0..4 {
        asking.ask(&mut world, 0, 1, MIB, secs(60));
    }
    payloads.push(world.publish_random(0, MIB));
    let mut ended = [None, None];
    let both = world.run_until(
        |w| {
            let done = [w.answers(0).len() == 4, payloads.iter().all(|id| w.holders(id) == 2)];
            for (ended, _) in ended.iter_mut().zip(done).filter(|(_, done)| *done) {
                ended.get_or_insert(w.now().saturating_sub(began));
            }
            done == [true, true]
        },
        secs(60),
    );
    assert!(both && asking.outcomes(&world)["answered"] == 4, "{ended:?}");
    // Together they take 18 s, and each by itself about half of that.
    let [bodies, payloads] = ended.map(Option::unwrap);
    println!("bodies after {bodies:?}, payloads after {payloads:?}");
    assert!((secs(12)..secs(21)).contains(&bodies), "{bodies:?}");
    assert!((secs(12)..secs(22)).contains(&payloads), "{payloads:?}");
    world.assert_clean();
}

#[test]
fn a_peer_that_is_gone_is_no_way_and_one_behind_nat_is_reached_over_its_own_link() {
    let mut nodes = vec![NodeOptions::default(); 3];
    nodes.push(NodeOptions::hidden());
    let config = WorldConfig::new(3, 0).node(few_links());
    let mut world = World::with_nodes(config, nodes);
    assert!(world.run_until(World::is_connected, secs(60)));
    (0..4).for_each(|node| world.serve(node, handler(Duration::ZERO)));
    world.run_for(secs(120));
    let mut asking = Asking::new(3);
    let hidden: Vec<_> = (0..3).filter(|n| world.linked(*n, 3)).collect();
    for from in hidden.clone() {
        asking.ask(&mut world, from, 3, 100, secs(10));
    }
    world.run_for(secs(2));
    assert!(asking.all_answered(&world) > 0);
    world.crash(2, Disk::Kept);
    world.run_for(secs(30));
    let call = world.request(0, 2, "turn", asking.body(9), secs(60));
    world.run_for(secs(61));
    let answer = world.answers(0).get(&call);
    assert!(matches!(answer, Some(Err(RequestError::NoWay { .. }))), "{answer:?}");
    let events = Recorder::of(&mut world);
    world.run_for(secs(1));
    let closed = |event: &Event| match event {
        Event::PeerDown { reason: CloseReason::Violation, .. } => Some(()),
        _ => None,
    };
    assert!(events.of_node(0, closed).is_empty());
    world.assert_clean();
}
