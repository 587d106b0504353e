//! Thin links behind deep buffers: control is behind one piece at the most, and what carries bytes
//! lives.

use super::large::{MIB, counter, honest, linked};
use super::*;
use crate::types::{PIECE_BYTES, TransactionId};

/// What transports and kernels take from a node at once, as measured over gRPC.
const BUFFERS: usize = 512 * 1024;

/// Two nodes; the first one sends so many bytes per second once they are linked.
fn thin(seed: u64, rate: u64) -> World {
    let config = WorldConfig::new(seed, 0).buffers(BUFFERS);
    let mut world = linked(config, honest(2), &[(1, 0)]);
    world.throttle(0, Some(rate), None);
    world
}

/// Returns the longest time from publishing on node 0 to arrival on node 1.
fn slowest(world: &World, published: &[(TransactionId, Duration)]) -> Duration {
    let took = |(id, at): &(TransactionId, Duration)| {
        let delivery = world.deliveries(1).iter().find(|d| d.id == *id).expect("it arrived");
        delivery.at.saturating_sub(*at)
    };
    published.iter().map(took).max().expect("something was published")
}

fn times(n: usize, rate: u64) -> Duration {
    Duration::from_secs(n as u64) / u32::try_from(rate).expect("a thin link")
}

#[test]
fn small_ones_wait_for_one_piece() {
    seeds("thin link", 4, |seed| {
        for rate in [5_000, 20_000, 100_000] {
            let mut world = thin(seed, rate);
            world.publish_random(0, MIB);
            world.publish_random(0, MIB / 2);
            let mut small = Vec::new();
            for _ in 0..6 {
                world.run_for(times(PIECE_BYTES, rate) * 2 / 3);
                small.push((world.publish_random(0, 500), world.now()));
            }
            let last = small.last().expect("some").0;
            assert!(world.run_until(|w| w.holds(1, &last), secs(200)), "{:?}", world.report());
            assert_eq!(world.deliveries(1).len(), small.len(), "bulk came first");
            // One piece with its proof, and what is small itself.
            let limit = times(PIECE_BYTES + 8 * 1024, rate).max(secs(1));
            let slowest = slowest(&world, &small);
            assert!(slowest < limit, "{slowest:?} at {rate} B/s, where {limit:?} is one piece");
            settle(&mut world, secs(900));
        }
    });
}

#[test]
fn a_link_that_carries_bytes_stays_up_whichever_way_they_go() {
    seeds("thin both ways", 4, |seed| {
        let mut world = thin(seed, 5_000);
        world.throttle(1, Some(5_000), None);
        world.publish_random(0, MIB / 2);
        world.publish_random(1, MIB / 2);
        settle(&mut world, secs(900));
        let counters = world.report().counters;
        assert_eq!((counters.links_closed, counters.pings_missed), (0, 0), "{counters:?}");
        assert_eq!(counters.dead_letters, 0, "what is being fetched is given up");
        assert_eq!(counters.pieces_sent, 16, "each piece once: {counters:?}");
    });
}

#[test]
fn a_link_that_becomes_thin_gets_nothing_on_top_of_what_it_holds() {
    seeds("a link becomes thin", 4, |seed| {
        let mut world = thin(seed, 4_000_000);
        world.publish_random(0, 8 * MIB);
        super::large::until_pieces(&mut world, 1, 40);
        world.throttle(0, Some(20_000), None);
        let small = world.publish_random(0, 500);
        let limit = times(BUFFERS + 2 * PIECE_BYTES, 20_000);
        assert!(world.run_until(|w| w.holds(1, &small), limit), "{:?}", world.report());
        let small = [(world.publish_random(0, 500), world.now())];
        assert!(world.run_until(|w| w.holds(1, &small[0].0), secs(60)));
        let one_piece = times(PIECE_BYTES + 8 * 1024, 20_000);
        assert!(slowest(&world, &small) < one_piece, "{:?}", slowest(&world, &small));
        settle(&mut world, secs(900));
        assert_eq!(world.report().counters.links_closed, 0);
    });
}

#[test]
fn who_vanishes_behind_bulk_is_found_all_the_same() {
    for rate in [5_000, 4_000_000] {
        let mut world = thin(1, rate);
        world.publish_random(0, 8 * MIB);
        super::large::until_pieces(&mut world, 1, 2);
        world.vanish(1, Disk::Kept);
        let gone = |w: &World| counter(w, 0, "links_closed_unresponsive") == 1;
        assert!(world.run_until(gone, secs(60)), "{rate}: {:?}", world.report());
    }
}

#[test]
fn a_fast_link_is_filled() {
    // 10 MB/s over 100 ms each way: what is under way must be more than one piece.
    let config = WorldConfig::new(1, 0).latency(Latency::Fixed(millis(100))).buffers(BUFFERS);
    let mut world = linked(config.uplink(10_000_000), honest(2), &[(1, 0)]);
    let id = world.publish_random(0, 10 * MIB);
    // With one piece at a time, it would take 160 round trips, which is 32 s.
    assert!(world.run_until(|w| w.holds(1, &id), secs(3)), "{:?}", world.report());
    settle(&mut world, secs(10));
}
