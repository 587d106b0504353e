//! A chat between terminals: the first prints an invite, and whoever has it joins.
//!
//! ```text
//! $ cargo run --example chat
//! invite: sorcha:AQAEY2hhdA…
//! $ cargo run --example chat -- sorcha:AQAEY2hhdA…        # in another terminal
//! ```
//!
//! What is typed in one appears in all others, also what was said before they came. The invite holds
//! the network's secret: without it nobody gets in, and nobody reads along. Between machines, the
//! first listens with `--listen 0.0.0.0:5001`.

use std::io::BufRead;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use sorcha_peer::error::ParseIdError;
use sorcha_peer::{Invite, Item, NetworkSecret, PeerNode, StartAt};
use tokio::sync::mpsc;

/// Topic of all lines.
const TOPIC: &str = "chat";
/// Maximum time to wait for who invited.
const PATIENCE: Duration = Duration::from_secs(20);
/// Maximum time for the last lines to reach others.
const GOODBYE: Duration = Duration::from_secs(5);

/// Chats with everybody who has the invite.
#[derive(Debug, Parser)]
struct Args {
    /// Invite into a chat; without one a new chat begins. Its pieces, where it was broken into several,
    /// are put together.
    invite: Vec<String>,
    /// Address to listen on; port 0 picks a free one. Only this machine reaches the default.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: String,
}

impl Args {
    fn invite(&self) -> Result<Option<Invite>, ParseIdError> {
        let text = self.invite.concat();
        if self.invite.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // Not by clap, which would show the text: most of a damaged invite is still the secret.
    let refuse = |why| Args::command().error(ErrorKind::ValueValidation, why).exit();
    let invite = args.invite().unwrap_or_else(refuse);
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(chat(&args.listen, invite.as_ref()));
    // The thread that reads stdin may never come back.
    runtime.shutdown_background();
    ended
}

async fn chat(listen: &str, invite: Option<&Invite>) -> anyhow::Result<()> {
    let builder = PeerNode::builder().listen(listen);
    let builder = match invite {
        Some(invite) => builder.join(invite),
        None => builder.network("chat").secret(NetworkSecret::generate()?),
    };
    let node = builder.start().await?;
    if invite.is_some() {
        node.wait_ready(1, PATIENCE).await.context("nobody of this chat can be reached")?;
    }
    println!("invite: {}", node.invite().await?);

    let mut lines = node.subscribe(TOPIC, StartAt::Earliest).await?;
    let mut typed = read_stdin();
    loop {
        tokio::select! {
            line = typed.recv() => match line {
                // An empty line says nothing.
                Some(line) if line.trim().is_empty() => {}
                Some(line) => {
                    node.publish(TOPIC, line).await?;
                }
                None => break,
            },
            item = lines.next() => match item {
                Some(Item::Delivery(delivery)) if delivery.transaction.origin() != node.peer_id() => {
                    let said = String::from_utf8_lossy(delivery.transaction.payload());
                    // Whoever has the invite may send what a terminal obeys.
                    let shown: String = said.chars().filter(|c| !c.is_control()).collect();
                    println!("{}: {shown}", delivery.transaction.origin().short());
                }
                Some(_) => {}
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    node.shutdown(GOODBYE).await?;
    Ok(())
}

/// Reads what is typed, on a thread of its own that nobody has to wait for.
fn read_stdin() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.map_or(true, |line| sender.blocking_send(line).is_err()) {
                return;
            }
        }
    });
    lines
}
