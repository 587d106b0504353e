//! Checks of the configuration in TOML, as `--config` reads it. The program itself is the example
//! `peer`.

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sorcha_peer::Config;
    use sorcha_peer::config::{Auto, Role};

    #[test]
    fn toml_round_trips() {
        let config = Config::lan();
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("interval = \"2s\""), "{text}");
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn a_part_is_enough_and_a_typo_is_an_error() {
        let part: Config = toml::from_str(
            "[gossip]\nfanout = 4\nttl = \"auto\"\nretention = \"10m\"\nrole = \"edge\"",
        )
        .unwrap();
        assert_eq!(part.gossip.fanout, Auto::Fixed(4));
        assert_eq!(part.gossip.role, Role::Edge);
        assert_eq!(part.gossip.retention, Duration::from_mins(10));
        assert!(toml::from_str::<Config>("[gossip]\nfanuot = 4").is_err());
        assert!(toml::from_str::<Config>("[gossip]\nretention = \"10 parsecs\"").is_err());
    }
}
