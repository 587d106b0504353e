//! Checks of the configuration in TOML, as `--config` reads it. The program itself is the example
//! `peer`.

// The tests of an example's own modules run here: the example itself is built as a program.
#[cfg(test)]
#[path = "logs.rs"]
#[expect(dead_code, reason = "the program uses all of it")]
mod logs;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sorcha_peer::Config;
    use sorcha_peer::config::{Auto, Role, Trust};

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
    #[test]
    fn trust_reads_as_a_person_writes_it() {
        let read = |trust: &str| {
            let config = toml::from_str::<Config>(&format!("[network]\ntrust = {trust}"));
            config.map(|config| config.network.trust).map_err(|error| error.to_string())
        };
        let files = |names: &[&str]| Trust::Secret {
            secrets: Vec::new(),
            files: names.iter().map(Into::into).collect(),
        };
        let id = "5f".repeat(32);
        let allowed = Trust::AllowList { peers: [id.parse().unwrap()].into() };
        let ca = Trust::Ca { ca_file: "ca.pem".into(), certificate_file: "node.pem".into() };
        for (text, wanted) in [
            ("\"open\"".to_owned(), Trust::Open),
            ("{ secret_file = \"a\" }".to_owned(), files(&["a"])),
            ("{ secret_files = [\"new\", \"old\"] }".to_owned(), files(&["new", "old"])),
            (format!("{{ allow = [\"{id}\"] }}"), allowed.clone()),
            (format!("{{ mode = \"allow_list\", peers = [\"{id}\"] }}"), allowed),
            ("{ ca_file = \"ca.pem\", certificate_file = \"node.pem\" }".to_owned(), ca),
        ] {
            assert_eq!(read(&text), Ok(wanted.clone()), "{text}");
            let mut config = Config::default();
            config.network.trust = wanted.clone();
            let written = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<Config>(&written).unwrap().network.trust, wanted);
        }
        let error = read("\"opne\"").unwrap_err();
        assert!(
            error.contains("trust is another word") && error.contains("secret_file"),
            "{error}"
        );
    }
}
