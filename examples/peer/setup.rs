//! From the command line to a running node.

use std::path::Path;

use sorcha_peer::config::Trust;
use sorcha_peer::{Config, Identity, Invite, PeerNode, SqliteStorage};

use crate::args::Args;

/// Environment variable with the token of the admin listener.
const ADMIN_TOKEN: &str = "SORCHA_ADMIN_TOKEN";

/// A running node and what belongs to it.
pub(crate) struct Running {
    pub(crate) node: PeerNode,
    pub(crate) storage: Option<SqliteStorage>,
    pub(crate) max_payload: u64,
    /// Memory of the node, in bytes.
    pub(crate) memory: u64,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Starts the node that `args` describe.
pub(crate) async fn start(args: &Args) -> Result<Running, Error> {
    let config = configure(args).await?;
    for endpoint in &config.discovery.bootstrap {
        tracing::info!(%endpoint, "bootstrap peer");
    }
    let (max_payload, memory) = (config.gossip.max_transaction_size, config.limits.memory);
    warn_of_replaced(&config.network.trust, args);
    let mut builder = PeerNode::builder().config(config);
    if let Some(invite) = &args.invite {
        builder = builder.join(invite);
    }
    for path in &args.secret_file {
        builder = builder.secret_file(path);
    }
    let mut storage = None;
    if let Some(dir) = &args.data_dir {
        // The key first: where it cannot be made, no databases are left behind.
        let identity = Identity::load_or_create(dir.join("node.key"))?;
        let opened = SqliteStorage::open(dir).await?;
        builder = builder.identity(identity).storage(opened.clone());
        storage = Some(opened);
    } else if !args.memory {
        tracing::warn!("no --data-dir: key, peers and transactions end with this process");
    }
    Ok(Running { node: builder.start().await?, storage, max_payload, memory })
}

/// The configuration file, with the flags on top.
async fn configure(args: &Args) -> Result<Config, Error> {
    let mut config = args.config.as_deref().map_or_else(|| Ok(Config::default()), read_config)?;
    if let Some(listen) = &args.listen {
        config.listen.address = Some(listen.resolve().await?);
    }
    if !args.advertise.is_empty() {
        config.listen.advertise.clone_from(&args.advertise);
    }
    if !args.bootstrap.is_empty() {
        config.discovery.bootstrap.clone_from(&args.bootstrap);
    }
    if let Some(name) = &args.network {
        config.network.name.clone_from(name);
    }
    if args.http.is_some() {
        config.listen.http = args.http;
    }
    if args.admin.is_some() {
        config.listen.admin = args.admin;
    }
    if let Some(token) = args.admin_token.clone().or_else(|| std::env::var(ADMIN_TOKEN).ok()) {
        config.listen.admin_token = Some(token);
    }
    let transports = args.transports();
    if !transports.is_empty() {
        config.connection.transports = transports;
    }
    if args.proxy.is_some() {
        config.connection.proxy.clone_from(&args.proxy);
    }
    for (given, configured) in [
        (&args.stun, &mut config.nat.stun),
        (&args.http_lookup, &mut config.nat.http),
        (&args.relay, &mut config.nat.relays),
    ] {
        if !given.is_empty() {
            configured.clone_from(given);
        }
    }
    config.nat.port_mapping |= args.port_mapping;
    config.network.plaintext |= args.plaintext;
    config.compat.enabled |= args.compat;
    config.discovery.mdns |= args.mdns;
    Ok(config)
}

/// Warns where flags replace the trust of the configuration file.
fn warn_of_replaced(configured: &Trust, args: &Args) {
    let by_invite = args.invite.as_ref().is_some_and(Invite::has_secret);
    let by = match configured {
        Trust::Open => return,
        _ if by_invite => "--join",
        // A secret more is not in place of another.
        Trust::Secret { .. } => return,
        _ if !args.secret_file.is_empty() => "--secret-file",
        _ => return,
    };
    tracing::warn!("{by} replaces the `trust` of --config, which has no effect");
}

fn read_config(path: &Path) -> Result<Config, Error> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    // Without the line itself, which may hold a secret.
    let placed = |error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{shown}, line {line}, column {column}: {}", error.message())
    };
    Ok(toml::from_str(&text).map_err(placed)?)
}
