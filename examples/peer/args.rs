//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use sorcha_peer::error::EndpointError;
use sorcha_peer::nat::StunProber;
use sorcha_peer::{Cursor, Endpoint, Invite, StartAt, Topic, TransportKind};
use tracing_subscriber::filter::Targets;

use crate::listen::ListenOn;

/// A whole sorcha-peer node as a program: JSON lines in on stdin, JSON lines out on stdout, logs
/// on stderr.
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, Parser)]
#[command(after_help = crate::CONTRACT)]
pub(crate) struct Args {
    /// Keep key, peers, bans, outbox and log in this directory; one process at a time.
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep nothing beyond this process, the key neither (the default without --data-dir).
    #[arg(long)]
    pub(crate) memory: bool,
    /// Where to listen: an IP address, or a name of this machine; port 0 picks a free one
    /// [default: 0.0.0.0:5001].
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<ListenOn>,
    /// An address under which others reach this node; repeatable, best first.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) advertise: Vec<Endpoint>,
    /// A first contact; port 5001 where none is given; repeatable. Addresses are `host:port`, behind a
    /// proxy `https://host/path`, `http://…` or `wss://…`, each also with `#PEER_ID` for who must answer.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bootstrap: Vec<Endpoint>,
    /// Name of the network [default: sorcha].
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Let in only who knows the secret in this file; repeatable once, for the move from one secret to
    /// the next. `openssl rand -hex 32` makes a good one.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Vec<PathBuf>,
    /// Join the network of this invite, which another node gave by the operation `invite`; or of the
    /// invite in this file, since others on this machine may see a command line.
    #[arg(long, value_name = "INVITE|FILE", conflicts_with = "network")]
    join: Option<String>,
    /// What `join` says.
    #[arg(skip)]
    pub(crate) invite: Option<Invite>,
    /// Deliver this topic; repeatable. Without it, all topics. Where the configuration says
    /// `[gossip] role = "edge"`, the node is sent nothing else.
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Vec<Topic>,
    /// Where deliveries start: `now`, `earliest`, or after a cursor of an earlier delivery.
    #[arg(long, value_name = "now|earliest|CURSOR", default_value = "now", value_parser = start)]
    pub(crate) from: StartAt,
    /// Answer requests of peers under this protocol with the same bytes; repeatable.
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) serve: Vec<String>,
    /// Transports to dial with, the preferred first, separated by commas [default: all].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    transports: Vec<Kind>,
    /// Where to take what an HTTP proxy in front passes on: HTTP/1.1 and HTTP/2 in clear text, peers'
    /// proofs inside it; port 0 picks a free one, which the log tells at level info.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// Dial by way of this HTTP proxy (CONNECT), as `http://[user:password@]host:port`.
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// No TLS; on loopback only, unless the configuration file says more.
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Serve clients of the original system too, who prove nothing: its gRPC services and REST paths, on
    /// the port that peers use.
    #[arg(long)]
    pub(crate) compat: bool,
    /// Where to serve health, figures, events, actions and a page over HTTP, for those who operate the node;
    /// port 0 picks a free one. On loopback only, unless there is a token.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) admin: Option<SocketAddr>,
    /// Token that callers of --admin have to show, 16 to 256 characters; better given in the environment
    /// variable `SORCHA_ADMIN_TOKEN`, since others on this machine may see a command line.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) admin_token: Option<String>,
    /// A STUN server to learn outside addresses from, how the NAT behaves (RFC 5780), and which mapping the
    /// listening port has (over TCP); repeatable. With several, an address counts on which two agree.
    #[arg(long, value_name = "HOST:PORT", value_parser = stun)]
    pub(crate) stun: Vec<String>,
    /// An HTTP server that answers with the address that asks, as `http://…` or `https://…`; repeatable.
    #[arg(long, value_name = "URL")]
    pub(crate) http_lookup: Vec<String>,
    /// A TURN server that listens for a node which nobody can dial, as `turn:USER:PASSWORD@HOST[:PORT]` or
    /// `turns:…`; repeatable. Better given in --config, since others on this machine may see a command line.
    #[arg(long, value_name = "SERVER")]
    pub(crate) relay: Vec<String>,
    /// Ask the router to pass the listening port on, for as long as the program runs.
    #[arg(long)]
    pub(crate) port_mapping: bool,
    /// Announce this node on the LAN by multicast DNS and find others of its network there; on loopback, on
    /// this machine. Needs a build with `--features mdns`.
    #[arg(long)]
    pub(crate) mdns: bool,
    /// The library's configuration in TOML; other flags win over it.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Deliver payloads too, in base64.
    #[arg(long)]
    pub(crate) payloads: bool,
    /// Deliver payloads as text, where they are UTF-8.
    #[arg(long)]
    pub(crate) text: bool,
    /// What to log on stderr: a level, `target=level`, or several with commas. Lines that nobody takes
    /// are dropped and counted.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub(crate) log: Targets,
}

impl Args {
    /// Reads the command line; ends the process where it is wrong.
    pub(crate) fn read() -> Self {
        let mut args = Self::parse();
        // Not by clap, which would show the text: most of a damaged invite is still the secret.
        if let Some(text) = args.join.take() {
            let refuse = |why| Self::command().error(ErrorKind::ValueValidation, why).exit();
            args.invite = Some(invite(&text).unwrap_or_else(refuse));
        }
        args
    }

    /// The transports to dial with; none stands for all.
    pub(crate) fn transports(&self) -> Vec<TransportKind> {
        self.transports.iter().copied().map(TransportKind::from).collect()
    }
}

/// The transports by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    GrpcStream,
    Websocket,
    GrpcUnary,
    Rest,
}

impl From<Kind> for TransportKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::GrpcStream => Self::GrpcStream,
            Kind::Websocket => Self::WebSocket,
            Kind::GrpcUnary => Self::GrpcUnary,
            Kind::Rest => Self::Rest,
        }
    }
}

/// Reads an invite or the file that holds it. Errors say nothing of the text: what is taken for the
/// name of a file may be an invite without its beginning.
fn invite(text: &str) -> Result<Invite, String> {
    if text.trim_start().starts_with("sorcha:") {
        return text.parse().map_err(|error| format!("--join: {error}"));
    }
    let read = std::fs::read_to_string(text).map_err(|error| {
        format!("--join: no invite, which begins with `sorcha:`, and no file: {error}")
    })?;
    read.parse().map_err(|error| format!("--join: in the file: {error}"))
}

/// Checks how a STUN server is written.
fn stun(text: &str) -> Result<String, EndpointError> {
    StunProber::new(text).map(|_| text.to_owned())
}

fn start(text: &str) -> Result<StartAt, String> {
    match text {
        "now" => Ok(StartAt::Now),
        "earliest" => Ok(StartAt::Earliest),
        cursor => cursor
            .parse()
            .map(|cursor| StartAt::After(Cursor(cursor)))
            .map_err(|_| "expected `now`, `earliest` or a cursor, which is a number".to_owned()),
    }
}
