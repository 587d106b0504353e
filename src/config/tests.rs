use serde_json::json;

use super::ranges::{millis, secs};
use super::*;
use crate::error::ConfigError;
use crate::types::TransportKind;

#[test]
fn the_defaults_are_those_that_users_know() {
    let config = Config::default();
    config.validate().unwrap();
    Config::lan().validate().unwrap();
    assert_eq!(config.listen.address.unwrap().port(), 5001);
    assert_eq!(config.discovery.refresh_interval, secs(900));
    assert_eq!(config.gossip.max_transaction_size, 10 * 1024 * 1024);
    assert_eq!(config.outbox.max_entries, 10_000);
}

/// TOML is checked where it is read: in the package of the example `peer`.
#[test]
fn json_round_trips() {
    let config = Config::lan();
    let json = serde_json::to_string(&config).unwrap();
    assert!(json.contains(r#""interval":"2s""#), "{json}");
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
}

#[test]
fn a_part_is_enough_and_a_typo_is_an_error() {
    let read = |gossip| serde_json::from_value::<Config>(json!({ "gossip": gossip }));
    let part = json!({ "fanout": 4, "ttl": "auto", "retention": "10m", "role": "edge" });
    let part = read(part).unwrap();
    assert_eq!(part.gossip.fanout, Auto::Fixed(4));
    assert_eq!(part.gossip.role, Role::Edge);
    assert_eq!(part.gossip.retention, secs(600));
    assert!(read(json!({ "fanuot": 4 })).is_err());
    assert!(read(json!({ "retention": "10 parsecs" })).is_err());
}

#[test]
fn every_range_bites() {
    type Spoil = fn(&mut Config);
    let cases: &[(&str, Spoil)] = &[
        ("network.name", |c| c.network.name = String::new()),
        ("network.name", |c| c.network.name = "n".repeat(65)),
        ("network.max_clock_skew", |c| c.network.max_clock_skew = secs(0)),
        ("listen.max_handshakes", |c| c.listen.max_handshakes = 0),
        ("listen.max_handshakes_per_ip", |c| c.listen.max_handshakes_per_ip = 0),
        ("listen.admin_token", |c| c.listen.admin_token = Some("x".repeat(15))),
        ("listen.admin_token", |c| c.listen.admin_token = Some("x".repeat(257))),
        ("listen.admin_hosts", |c| c.listen.admin_hosts = vec![String::new(); 17]),
        ("discovery.refresh_interval", |c| c.discovery.refresh_interval = secs(59)),
        ("discovery.max_peers", |c| c.discovery.max_peers = 10_001),
        ("discovery.min_healthy_peers", |c| c.discovery.min_healthy_peers = 0),
        ("discovery.unhealthy_after", |c| c.discovery.unhealthy_after = 0),
        ("discovery.forget_after", |c| c.discovery.forget_after = 2),
        ("discovery.max_concurrent", |c| c.discovery.max_concurrent = 51),
        ("overlay.dial_target", |c| c.overlay.dial_target = 0),
        ("overlay.min_links", |c| c.overlay.min_links = 2),
        ("overlay.max_inbound", |c| c.overlay.max_inbound = 113),
        ("overlay.redial_min", |c| c.overlay.redial_min = secs(0)),
        ("overlay.redial_max", |c| c.overlay.redial_max = millis(10)),
        ("liveness.interval", |c| c.liveness.interval = secs(0)),
        ("liveness.timeout", |c| c.liveness.timeout = secs(121)),
        ("liveness.max_missed", |c| c.liveness.max_missed = 0),
        ("liveness.slow_after", |c| c.liveness.slow_after = secs(0)),
        ("connection.connect_timeout", |c| c.connection.connect_timeout = secs(4)),
        ("connection.handshake_timeout", |c| c.connection.handshake_timeout = secs(61)),
        ("connection.transports", |c| c.connection.transports = vec![TransportKind::Memory]),
        ("connection.max_retries", |c| c.connection.max_retries = 11),
        ("connection.retry_delay", |c| c.connection.retry_delay = secs(61)),
        ("connection.breaker_threshold", |c| c.connection.breaker_threshold = 2),
        ("connection.breaker_reset", |c| c.connection.breaker_reset = secs(59)),
        ("connection.upgrade_interval", |c| c.connection.upgrade_interval = secs(9)),
        ("connection.max_link_age", |c| c.connection.max_link_age = Some(secs(59))),
        ("gossip.fanout", |c| c.gossip.fanout = Auto::Fixed(21)),
        ("gossip.rounds", |c| c.gossip.rounds = Auto::Fixed(0)),
        ("gossip.ttl", |c| c.gossip.ttl = Auto::Fixed(0)),
        ("gossip.retention", |c| c.gossip.retention = secs(299)),
        ("gossip.retention", |c| c.gossip.retention = secs(30 * 86_400 + 1)),
        ("gossip.max_transaction_size", |c| c.gossip.max_transaction_size = 1),
        ("gossip.max_origin_share", |c| c.gossip.max_origin_share = 0),
        ("gossip.max_origin_rate", |c| c.gossip.max_origin_rate = u32::MAX),
        ("gossip.eager_limit", |c| c.gossip.eager_limit = 65_537),
        ("gossip.max_assembly_bytes", |c| c.gossip.max_assembly_bytes = Some(1)),
        ("gossip.max_spill_bytes", |c| c.gossip.max_spill_bytes = u64::MAX),
        ("gossip.cache_bytes", |c| c.gossip.cache_bytes = Some(1)),
        ("gossip.topics", |c| c.gossip.topics = vec![String::new(); 257]),
        ("gossip.topics", |c| c.gossip.topics = vec!["t".repeat(256)]),
        ("gossip.reconcile_interval", |c| c.gossip.reconcile_interval = millis(1)),
        ("gossip.reconcile_hot_window", |c| c.gossip.reconcile_hot_window = secs(9)),
        ("gossip.reconcile_hot_window", |c| c.gossip.reconcile_interval = secs(600)),
        ("gossip.reconcile_full_interval", |c| c.gossip.reconcile_full_interval = secs(0)),
        ("outbox.max_entries", |c| c.outbox.max_entries = 99),
        ("outbox.max_retries", |c| c.outbox.max_retries = 0),
        ("outbox.min_copies", |c| c.outbox.min_copies = 0),
        ("messages.max_bytes", |c| c.messages.max_bytes = 1023),
        ("messages.max_bytes", |c| c.messages.max_bytes = (16 << 20) + 1),
        ("messages.timeout", |c| c.messages.timeout = millis(999)),
        ("messages.timeout", |c| c.messages.timeout = secs(601)),
        ("messages.max_concurrent", |c| c.messages.max_concurrent = 0),
        ("messages.max_concurrent", |c| c.messages.max_concurrent = 1025),
        ("limits.memory", |c| c.limits.memory = 1),
        ("compat.default_topic", |c| c.compat.default_topic = String::new()),
        ("compat.max_peers", |c| c.compat.max_peers = 9),
        ("compat.max_requests_per_minute", |c| c.compat.max_requests_per_minute = 0),
        ("compat.max_bytes_per_minute", |c| c.compat.max_bytes_per_minute = 1),
        ("compat.max_transactions_per_minute", |c| c.compat.max_transactions_per_minute = 0),
    ];
    for (field, spoil) in cases {
        let mut config = Config::default();
        spoil(&mut config);
        let error = config.validate().expect_err(field).to_string();
        assert!(error.starts_with(field), "{field}: {error}");
        assert!(error.contains("allowed is"), "{field}: {error}");
    }
}

#[test]
fn a_transport_is_named_once() {
    let mut config = Config::default();
    config.connection.transports = vec![TransportKind::Rest, TransportKind::GrpcStream];
    config.validate().unwrap();
    config.connection.transports.push(TransportKind::Rest);
    let error = config.validate().unwrap_err().to_string();
    assert_eq!(error, "connection.transports names rest more than once");
}

#[test]
fn retention_goes_from_five_minutes_to_thirty_days() {
    let read = |retention| {
        let config = json!({ "gossip": { "retention": retention } });
        let config = serde_json::from_value::<Config>(config).unwrap();
        config.validate().map(|()| config.gossip.retention)
    };
    assert_eq!(read("5m"), Ok(secs(300)));
    assert_eq!(read("30days"), Ok(secs(30 * 86_400)));
    let error = read("31d").unwrap_err().to_string();
    assert_eq!(error, "gossip.retention is 31days, allowed is 5m to 30days");
}

#[test]
fn plaintext_beyond_loopback_needs_a_word() {
    let mut config = Config::default();
    config.network.plaintext = true;
    assert!(matches!(config.validate(), Err(ConfigError::PlaintextBeyondLoopback { .. })));
    // A proxy in front believes nobody more.
    config.listen.address = Some("127.0.0.1:5001".parse().unwrap());
    config.validate().unwrap();
    config.listen.http = Some("0.0.0.0:8080".parse().unwrap());
    assert!(matches!(config.validate(), Err(ConfigError::PlaintextBeyondLoopback { .. })));
    config.network.allow_plaintext_beyond_loopback = true;
    config.validate().unwrap();
}

#[test]
fn the_admin_token_is_neither_shown_nor_written() {
    let mut config = Config::default();
    config.listen.admin_token = Some("0123456789abcdef".to_owned());
    config.validate().unwrap();
    let json = serde_json::to_string(&config).unwrap();
    assert!(!format!("{config:?}{json}").contains("0123456789abcdef"), "{config:?} {json}");
    let read: Config = serde_json::from_str(&json).unwrap();
    // Without its token the listener would let in every program of the machine.
    let error = read.validate().unwrap_err().to_string();
    assert!(error.starts_with("listen.admin_token"), "{error}");
    config.listen.admin_token = Some("0123456789 abcdef".to_owned());
    assert_eq!(config.validate(), Err(ConfigError::AdminToken));
}

#[test]
#[cfg(feature = "admin")]
fn an_admin_listener_beyond_loopback_needs_a_token() {
    let mut config = Config::default();
    for address in ["127.0.0.1:0", "[::1]:7", "[::ffff:127.0.0.1]:7", "127.8.8.8:7"] {
        config.listen.admin = Some(address.parse().unwrap());
        config.validate().unwrap();
    }
    for address in ["0.0.0.0:7", "[::]:7", "10.0.0.1:7", "[::ffff:10.0.0.1]:7"] {
        config.listen.admin = Some(address.parse().unwrap());
        config.listen.admin_token = None;
        let error = config.validate().unwrap_err();
        assert!(matches!(error, ConfigError::AdminBeyondLoopback { .. }), "{error}");
        config.listen.admin_token = Some("0123456789abcdef".to_owned());
        config.validate().unwrap();
    }
}

#[test]
#[cfg(not(feature = "admin"))]
fn a_build_without_an_admin_listener_says_so() {
    let mut config = Config::default();
    config.listen.admin = Some("127.0.0.1:0".parse().unwrap());
    assert_eq!(config.validate(), Err(ConfigError::AdminNotBuilt));
}

#[test]
fn looking_for_nodes_on_the_lan_is_off_until_it_is_asked_for() {
    let mut config = Config::default();
    assert!(!config.discovery.mdns);
    config.discovery.mdns = true;
    let built = cfg!(feature = "mdns");
    let wanted = if built { Ok(()) } else { Err(ConfigError::MdnsNotBuilt) };
    assert_eq!(config.validate(), wanted);
}

#[test]
fn a_proxy_is_checked_and_its_password_not_shown() {
    let mut config = Config::default();
    config.connection.proxy = Some("http://user:hunter2@proxy.corp:3128".to_owned());
    config.validate().unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("http://***@proxy.corp:3128") && !shown.contains("hunter2"), "{shown}");
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    config.connection.no_proxy.push("no host".to_owned());
    assert!(matches!(config.validate(), Err(ConfigError::Proxy { .. })));
    config.connection.proxy = None;
    assert!(matches!(config.validate(), Err(ConfigError::Proxy { .. })));
    config.connection.no_proxy.clear();
    config.connection.proxy = Some("socks5://proxy.corp:1080".to_owned());
    assert!(matches!(config.validate(), Err(ConfigError::Proxy { .. })));
}

#[test]
fn an_address_nobody_can_dial_is_not_advertised() {
    let mut config = Config::default();
    config.listen.advertise = vec!["0.0.0.0:5001".parse().unwrap()];
    assert!(matches!(config.validate(), Err(ConfigError::Advertise { .. })));
}
