//! The command line.

use std::time::Duration;

use clap::{Parser, Subcommand};
use ureq::http::Uri;

/// Shown under the commands by `--help`.
const STATUS: &str = "\
PEER and ID are 64 hexadecimal digits. The first 4 or more do for a peer that `peers` lists, and for a
transaction that `dead-letters` lists.

FORMS: tables on a terminal, in colour unless NO_COLOR is set; elsewhere one line for each thing, as
key=value with whole ids and raw figures; with --json what the node answers.

STATUS: 0 it is so, or it is done; 1 the node is not ready (`status`), or it refused; 2 wrong command
line; 3 no node answers there; 4 the node wants a token, or another one.";

/// A node's admin listener from a terminal.
#[derive(Debug, Parser)]
#[command(name = "peerctl", after_help = STATUS)]
pub(crate) struct Args {
    /// The node's admin listener, as `http://host:port`.
    #[arg(long, value_name = "URL", env = "SORCHA_ADMIN", value_parser = listener)]
    pub(crate) admin: String,
    /// The node's admin token. Others on this machine may see a command line, and not the environment.
    #[arg(long, value_name = "TOKEN", env = "SORCHA_ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Write what the node answers, in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say how the node is, and why.
    Status,
    /// List links, and peers that were lost within an hour, with the reason.
    Peers,
    /// Tell why a transaction is or is not here.
    Explain {
        #[arg(value_parser = id)]
        id: String,
        /// Ask the linked peers too, those that tell.
        #[arg(long)]
        across: bool,
    },
    /// Let a peer in no more, by no path.
    Ban {
        #[arg(value_parser = start_of_id)]
        peer: String,
        /// Reason, kept with the ban.
        #[arg(long)]
        reason: String,
        /// How long, as `1h` or `2days`; for good without it.
        #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
        lasting: Option<Duration>,
    },
    /// Take a ban back.
    Unban {
        #[arg(value_parser = start_of_id)]
        peer: String,
    },
    /// Close the link to a peer, which may come back.
    Disconnect {
        #[arg(value_parser = start_of_id)]
        peer: String,
    },
    /// Dial a peer at once that is left alone because it could not be reached.
    ResetBreaker {
        #[arg(value_parser = start_of_id)]
        peer: String,
    },
    /// Measure a link now: five pings, and 256 KiB each way.
    Test {
        #[arg(value_parser = start_of_id)]
        peer: String,
    },
    /// Look after own transactions that nobody took.
    DeadLetters {
        #[command(subcommand)]
        command: Option<DeadLetters>,
    },
    /// Write each event as it happens.
    Events {
        /// Write those that the node remembers, the oldest first, and end.
        #[arg(long)]
        recent: bool,
    },
    /// Draw the figures once a second; `q` ends it. One line in a second where there is no terminal.
    Watch,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// List them; the same without a command.
    List,
    /// Offer one to the peers again.
    Redeliver {
        #[arg(value_parser = start_of_id)]
        id: String,
    },
    /// Give one up for good.
    Delete {
        #[arg(value_parser = start_of_id)]
        id: String,
    },
}

fn listener(text: &str) -> Result<String, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) if matches!(uri.path(), "" | "/") => {
            Ok(format!("http://{authority}"))
        }
        (Some("http"), _) => {
            Err("nothing stands behind the port, as in http://127.0.0.1:5090".into())
        }
        (Some("https"), _) => {
            Err("the listener speaks no TLS: use http:// where it runs, or a tunnel to there"
                .into())
        }
        _ => Err(format!("an address begins with http://, as in http://{text}")),
    }
}

fn lasting(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(lasting) if lasting >= Duration::from_secs(1) => Ok(lasting),
        Ok(_) => Err("a ban lasts a second at least".into()),
        Err(error) => Err(format!("{error}; say 30min, 1h or 2days")),
    }
}

fn id(text: &str) -> Result<String, String> {
    match start_of_id(text) {
        Ok(id) if id.len() == 64 => Ok(id),
        _ => Err("an id is 64 hexadecimal digits".into()),
    }
}

fn start_of_id(text: &str) -> Result<String, String> {
    if (4..=64).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("an id is 64 hexadecimal digits, or the first 4 or more of them".into())
    }
}
