//! Runs a simulated network and prints its report as JSON: how a change of the protocol is judged.
//!
//! `cargo run --release --no-default-features --features sim --example simulate -- NODES recurring|random BYTES COUNT SEED`

use std::time::Duration;

use sorcha_peer::sim::{Latency, Verification, World, WorldConfig};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: usize| args.get(at).and_then(|a| a.parse().ok()).unwrap_or(or);
    let (nodes, bytes, count) = (number(0, 50), number(2, 1024), number(3, 200));
    let origins = if args.get(1).is_some_and(|a| a == "random") { nodes } else { 10.min(nodes) };
    let config = WorldConfig::new(number(4, 1) as u64, nodes)
        .latency(Latency::Regions)
        .verification(Verification::Trusted)
        .uplink(50_000_000 / 8)
        .checks(false);
    let mut world = World::new(config);
    world.run_for(Duration::from_mins(1));
    let spread = |world: &mut World| {
        for n in 0..count {
            world.publish_random(n * 7919 % origins, bytes);
            world.run_for(Duration::from_millis(50));
        }
        world.settle(Duration::from_mins(1))
    };
    // The first half is the warm-up in which nodes learn where pushing pays.
    spread(&mut world);
    world.reset_figures();
    assert!(spread(&mut world), "not everybody has everything");
    let report = world.report();
    eprintln!(
        "N={nodes} origins={origins} {bytes} B: redundancy {:.3}, p50 {} p95 {} max {} ms, \
         control {:.0} B per delivery, {:.1} links, coverage {}",
        report.redundancy,
        report.latency_p50.as_millis(),
        report.latency_p95.as_millis(),
        report.latency_max.as_millis(),
        report.control_bytes,
        report.mean_links,
        report.coverage,
    );
    println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
}
