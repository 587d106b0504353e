//! Every scenario of the `sim` example, over a band of seeds in small worlds.

use super::*;

/// Runs a scenario per seed and demands that nothing is wrong.
fn good(scenario: Scenario, spoil: fn(&mut ScenarioConfig)) {
    seeds(scenario.name(), 2, |seed| {
        let mut config = ScenarioConfig::new(scenario, 12, seed);
        (config.transactions, config.warm_up) = (8, 8);
        config.verification = Verification::Trusted;
        spoil(&mut config);
        let report = config.run();
        assert!(report.is_good(), "{scenario}, seed {seed}: {:#?}", report.problems);
        assert!((report.coverage - 1.0).abs() < f64::EPSILON);
    });
}

macro_rules! scenarios {
    ($($name:ident: $scenario:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            good(Scenario::$scenario, |_| {});
        }
    )*};
}

scenarios! {
    recurring: Recurring,
    random: Random,
    mid: Mid,
    loss: Loss,
    churn: Churn,
    nat: Nat,
    partition: Partition,
    late: Late,
    slow: Slow,
    stall: Stall,
    proxies: Proxies,
}

#[test]
fn checkers_look_at_the_same_nodes_to_the_end() {
    // `late` of 10,000, seed 1: when nodes joined, others were looked at than before, and what
    // these had been sent earlier seemed never to have been checked.
    let mut config = WorldConfig::new(1, 1000).topology(Topology::Empty);
    config.verification = Verification::Trusted;
    let mut world = World::new(config);
    let watched = |world: &World| (0..1000).filter(|n| world.is_watched(*n)).count();
    assert_eq!(watched(&world), 1000);
    let _ = world.add_node(NodeOptions::default());
    assert_eq!(watched(&world), 1000);
}

#[test]
fn large() {
    // A megabyte is much to copy for an unoptimised build.
    good(Scenario::Large, |config| (config.transactions, config.warm_up) = (2, 1));
}

#[test]
fn loss_by_resets() {
    good(Scenario::Loss, |config| {
        config.resets = true;
        config.transactions = 60;
    });
}

#[test]
fn equal_configurations_give_equal_reports() {
    let run = |seed| {
        let mut config = ScenarioConfig::new(Scenario::Churn, 10, seed);
        (config.transactions, config.warm_up) = (5, 5);
        config.run()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).latency_ms, run(4).latency_ms);
}

#[test]
fn a_fault_that_never_strikes_is_a_problem() {
    let mut config = ScenarioConfig::new(Scenario::Loss, 8, 1);
    (config.transactions, config.warm_up) = (0, 0);
    config.resets = true;
    let report = config.run();
    assert_eq!(report.problems[0], "the fault of loss never struck");
    assert!(!report.is_good());
}

#[test]
fn what_is_missing_in_the_end_is_a_problem() {
    // Nobody talks to anybody.
    let mut config = ScenarioConfig::new(Scenario::Random, 6, 1);
    (config.transactions, config.warm_up) = (1, 0);
    let peers = std::collections::BTreeSet::new();
    config.node.network.trust = crate::config::Trust::AllowList { peers };
    let report = config.run();
    assert_eq!(report.problems[..2], ["the overlay did not connect", "5 deliveries are missing"]);
    assert!(report.coverage < 0.5 && report.recovery_s.is_none());
}

#[test]
fn churn_in_a_network_with_a_secret() {
    good(Scenario::Churn, |config| {
        let secret = crate::config::NetworkSecret::new([7; 32]).unwrap();
        config.node.network.trust = crate::config::Trust::secret(secret);
    });
}

#[test]
fn names_are_read_as_they_are_written() {
    for scenario in Scenario::ALL {
        assert_eq!(scenario.to_string().parse(), Ok(scenario));
    }
    let error = "storm".parse::<Scenario>().unwrap_err().to_string();
    assert!(error.starts_with("there is no scenario \"storm\"; there are recurring, "), "{error}");
}
