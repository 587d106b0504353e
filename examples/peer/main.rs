//! A whole sorcha-peer node as a program that other programs drive: JSON lines in on stdin, JSON
//! lines out on stdout, logs on stderr.
//!
//! ```text
//! $ cargo run --release --example peer -- --listen 127.0.0.1:0 --topic orders
//! {"event":"ready","peer_id":"5f…","listen":"127.0.0.1:40123","admin":null}
//! {"event":"mode","mode":"offline"}
//! ⟨{"op":"publish","ref":1,"topic":"orders","text":"one widget"}⟩
//! {"event":"published","ref":1,"id":"c1…"}
//! {"event":"delivered","id":"c1…","topic":"orders","origin":"5f…","from":null,"hops":0,…}
//! ```
//!
//! `--help` has the whole contract, which is stable. How it is kept:
//!
//! * `input` turns every line into exactly one request, `session` sees to it that every request
//!   gets exactly one answer, and `output` writes lines whole, one after another.
//! * `publish` hands transactions to the node in the order of the lines, and answers each when it
//!   is durable.
//! * `feed` reports what the node does by itself: events and deliveries.
//! * `requests` answers what peers ask.
//! * `logs` writes logs, which nobody has to read.
//! * Everything that waits is bounded in bytes or number. A driver that does not read stdout is
//!   waited for, and after 64 MiB of lines the program stops reading its input.

mod args;
mod breakers;
mod feed;
mod input;
mod listen;
mod logs;
mod output;
mod publish;
mod requests;
mod session;
mod setup;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use args::Args;
use input::Ref;
use logs::Logs;
use output::{Line, Out};
use session::End;
use signals::Signals;
use tracing_subscriber::prelude::*;

/// Shown under the flags by `--help`.
const CONTRACT: &str = r#"LINES IN (one JSON object each, at most 64 MiB; "ref" is any JSON and optional):
  {"op":"publish","ref":R,"topic":T,"text"|"base64"|"file":…[,"traceparent":W3C]}
  {"op":"publish_random","ref":R,"topic":T,"size":BYTES,"count":N}
  {"op":"stats","ref":R}                    {"op":"peers","ref":R}
  {"op":"reachability","ref":R}
  {"op":"connect","ref":R,"address":A}      {"op":"disconnect","ref":R,"peer":P}
  {"op":"ban","ref":R,"peer":P,"reason":…}  {"op":"unban","ref":R,"peer":P}
  {"op":"test_peer","ref":R,"peer":P}       {"op":"reset_breaker","ref":R,"peer":P}
  {"op":"request","ref":R,"peer":P,"protocol":N,"text"|"base64":…[,"timeout_ms":MS]}
  {"op":"dead_letters","ref":R[,"after":SEQ][,"limit":N]}
  {"op":"redeliver","ref":R,"id":I}         {"op":"delete_dead_letter","ref":R,"id":I}
  {"op":"explain","ref":R,"id":I[,"across":true]}
  {"op":"invite","ref":R}                   {"op":"metrics","ref":R}
  {"op":"shutdown","ref":R}

ANSWERS (every line in gets exactly one, which echoes its "ref" as it was written; null where it
has none):
  published {ref,id}                   once it is durable; accepted in the order of the lines,
                                       answered in any order
  published {ref,id,ids,count,failed}  to publish_random: the last id, all ids in order, how many,
                                       and how many failed (with the first "error"). While the
                                       outbox is full and peers are linked, it waits up to 30 s;
                                       up to 64 are published together, all or none
  publish_failed {ref,error}           nothing was published; where the node stops in this moment,
                                       or the disk hangs, the error says that it may have been
  peers {ref,peers,breakers}           peers are links: transport, rtt_us, quality (0 to 100), rating, …;
                                       breakers [{peer,address,state,failures,retry_s}] are of those
                                       who cannot be reached: open, or half_open while one probe runs
  stats {ref,…}                        with `[gossip] role = "edge"` in --config, the node
                                       carries the topics of --topic, those in `[gossip] topics` and
                                       those that peers behind it want: see topics_carried, stands_in;
                                       memory and memory_limits: bytes by owner;
                                       log_lines_dropped are lines of --log that nobody took
  metrics {ref,text}                   the figures as Prometheus reads them (text format 0.0.4)
  invite {ref,invite}                  one line for --join of a newcomer: network, addresses, the id that
                                       must answer there, and the network's secret, if it has one
  dead_letters {ref,dead_letters}      own transactions that no peer took, in the order of publishing:
                                       [{seq,id,topic,size,created,expires,reason,since}], at most
                                       "limit" (1000) above "after"; empty: there are no more
  explained {ref,id,state,summary,steps,…}
                                       what became of a transaction here: state unknown, refused, pending,
                                       stored, confirmed, dead_letter or expired; summary says why in one
                                       sentence; steps [{at_ms,what,peer,transport,hop,reason}]. With
                                       "across" linked peers are asked too, up to 10 s: elsewhere
                                       {peer:{…}}, and not_told [peer] who do not tell
  response {ref,base64}                the peer's answer to request; error {ref,error} where there is none,
                                       as when nobody there serves the protocol, within 30 s unless
                                       "timeout_ms" says otherwise
  reachability {ref,state,…}           as the event below, as it is now
  tested {ref,peer,rtt_min_us,…}       a link measured now: five pings, and 256 KiB each way
  ok {ref,op,peer}                     connect, disconnect, ban, unban, reset_breaker
  ok {ref,op,id}                       redeliver (a new id if it had expired), delete_dead_letter
  ok {ref,op,unconfirmed,unflushed}    shutdown; the last line of all
  error {ref,error}                    bad JSON, not UTF-8, unknown operation or field, wrong field,
                                       line too long, or what went wrong

EVENTS:
  ready {peer_id,listen,admin}         the first line of all; admin is the address of --admin, or null
  mode {mode}                          offline, degraded or online; once at the start, then changes;
                                       online also when linked with all of a few peers, after 5 s
  delivered {id,topic,origin,from,hops,size,sha256,cursor[,payload][,text][,traceparent]}
                                       own transactions too ("from" is null), each once
  gap {after,until[,missed]}           cursors whose transactions are no longer retained; with missed
                                       {from,until}: what was created between these times (ms) is
                                       gone everywhere, since the node was away for too long
  requested {peer,protocol,size}       a peer's request under a protocol of --serve, which is answered with
                                       the same bytes
  replicated {id,peers}                so many other nodes have stored this own transaction; until it
                                       is enough (`[outbox] min_copies`, 2)
  renewed {id,renewed_as}              this own transaction expired before any other node had it, or
                                       was dated by a wrong clock, and was published anew
  refused {id,peer,reason}             a peer does not take this own transaction, which still waits:
                                       skewed, expired, over_share or over_rate for now; rejected,
                                       ignored or too_large for good
  dead_lettered {id,reason}            this own transaction was given up: see dead_letters
  clock_off {offset_ms,peers}          most peers agree on a time that is so far from this machine's
                                       clock; it is used instead of it (see clock_offset_ms in stats)
  clock_right {}                       the clock was off and is right again
  peer_up {peer,transport,address,direction}, peer_down {peer,reason}
  transport_changed {peer,from,to,reason}
                                       the link goes on over another connection, nothing lost: upgrade,
                                       max link age, proxy body limit, proxy time limit,
                                       closing, or peer
  breaker_opened {peer,address,failures,reset_s}, breaker_half_open, breaker_closed {peer,address}
                                       who cannot be reached is left alone for so long, but for a
                                       probe; "peer" or "address" is null
  identity_in_use {peer,address}       two processes have this peer id, as after a data directory was
                                       copied; "peer" may be this node's own
  reachability {address,prober}        what a server outside saw
  reachability {state,endpoint,until_ms,listening,advertised,candidates,nat,failed}
                                       each time it changes whether others can dial this node: public
                                       (at "endpoint"), private or unknown, as other nodes found
  error {ref:null,error}               events missed, storage failed, or the reason for status 1

STATUS: 0 after shutdown, end of input (what was read is done first), SIGTERM, SIGINT or SIGHUP; 1 if
the node could not start or stdout was closed; 2 for a wrong command line."#;

/// Maximum time for the last lines to be written.
const MAX_LAST_LINES: Duration = Duration::from_secs(5);
/// Maximum time for the last lines of the log to be written.
const MAX_LAST_LOGS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::read();
    let logs = Logs::start();
    // Nothing of this program waits for a reader of stderr.
    let of_panics = logs.clone();
    std::panic::set_hook(Box::new(move |panic| {
        of_panics.line(format!("{panic}\n").as_bytes());
        of_panics.finish(MAX_LAST_LOGS);
    }));
    let layer =
        tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(logs.clone());
    tracing_subscriber::registry().with(layer).with(args.log.clone()).init();
    let code = serve(&args, &logs);
    logs.finish(MAX_LAST_LOGS);
    code
}

fn serve(args: &Args, logs: &Logs) -> ExitCode {
    let tell = |error: &dyn std::fmt::Display| logs.line(format!("peer: {error}\n").as_bytes());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&error);
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let out = Out::start();
        let ended = run(args, &out, logs).await;
        if let Err(error) = &ended {
            tell(error);
            out.line(Line::error(Ref::NONE, error)).await;
        }
        out.finish(MAX_LAST_LINES).await;
        match ended {
            Ok(End::Shutdown(_) | End::Input | End::Signal) => ExitCode::SUCCESS,
            Ok(End::Output) | Err(_) => ExitCode::FAILURE,
        }
    });
    // Not to wait for what blocks.
    runtime.shutdown_background();
    code
}

async fn run(
    args: &Args,
    out: &Out,
    logs: &Logs,
) -> Result<End, Box<dyn std::error::Error + Send + Sync>> {
    let signals = Signals::new()?;
    let running = setup::start(args).await?;
    session::run(args, running, input::read_stdin(), signals, out, logs).await
}
