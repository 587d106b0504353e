//! Scenarios over bands of seeds; see `seeds`.

use std::time::Duration;

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn a_small_mesh_delivers_everything_everywhere() {
    for seed in 0..4 {
        let mut world = World::new(WorldConfig::new(seed, 4).topology(Topology::Mesh));
        world.run_for(S(3));
        assert!(world.is_connected(), "seed {seed}");
        for node in 0..4 {
            world.publish_random(node, 1000);
        }
        let settled = world.settle(S(10));
        world.assert_clean();
        assert!(settled, "seed {seed}: {:?}", world.report());
        println!("{:#?}", world.report());
    }
}
