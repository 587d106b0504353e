//! Equal seeds and calls give equal runs, to the byte, in this process and in another.

use super::*;

const CHILD: &str = "SORCHA_REPLAY_CHILD";
const NAME: &str = "sim::tests::replay::two_processes_do_exactly_the_same";

/// A run with some of everything; its digest.
fn eventful(seed: u64) -> String {
    let config = WorldConfig::new(seed, 6).digest(true).latency(Latency::Regions);
    let mut world = World::new(config.uplink(4_000_000));
    world.run_for(secs(5));
    world.set_loss(Loss { reset: 5_000, drop: 1_000, ..Loss::default() });
    for n in 0..10 {
        world.publish_random(n % 6, 1 + n * n * 1000);
        world.run_for(millis(200));
    }
    world.partition(&[vec![0, 1, 2], vec![3, 4, 5]]);
    world.crash(2, Disk::Kept);
    world.crash(4, Disk::Lost);
    world.run_for(secs(3));
    world.heal();
    world.start(2);
    world.start(4);
    world.run_for(secs(10));
    world.digest()
}

#[test]
fn two_processes_do_exactly_the_same() {
    let digest = eventful(11);
    if std::env::var_os(CHILD).is_some() {
        println!("digest={digest}");
        return;
    }
    assert_eq!(digest, eventful(11), "in one process");
    assert_ne!(digest, eventful(12), "the seed matters");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains(&format!("digest={digest}")), "another process: {said}");
}
