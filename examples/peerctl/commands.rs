//! What each command asks of the node.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::answers::{DeadLetter, Explanation, LetterPage, PeerList, Status, Test};
use crate::args::{self, Args, Command};
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::form::{Form, Tone};
use crate::table::{Cell, Column, Table};
use crate::units::{is_id, short};
use crate::{events, explain, tables, watch};

/// Maximum number of dead letters in one answer.
const PAGE: u64 = 1000;

/// Does what the command line says.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.admin, args.token.as_deref());
    let form = Form::of_stdout(args.json);
    match &args.command {
        Command::Status => return status(&client, form),
        Command::Peers => peers(&client, form),
        Command::Explain { id, across } => explained(&client, form, id, *across),
        Command::Ban { peer, reason, lasting } => {
            let body = json!({ "reason": reason, "for_s": lasting.map(|time| time.as_secs()) });
            act(&client, form, peer, "ban", Some(&body))
        }
        Command::Unban { peer } => act(&client, form, peer, "unban", None),
        Command::Disconnect { peer } => act(&client, form, peer, "disconnect", None),
        Command::ResetBreaker { peer } => act(&client, form, peer, "reset-breaker", None),
        Command::Test { peer } => test(&client, form, peer),
        Command::DeadLetters { command } => match command {
            None | Some(args::DeadLetters::List) => list_dead_letters(&client, form),
            Some(args::DeadLetters::Redeliver { id }) => settle(&client, form, id, "redeliver"),
            Some(args::DeadLetters::Delete { id }) => settle(&client, form, id, "delete"),
        },
        Command::Events { recent: true } => events::recent(&client, form),
        Command::Events { recent: false } => events::follow(&client, form),
        Command::Watch => watch::watch(&client, form),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn status(client: &Client, form: Form) -> Result<ExitCode, Failure> {
    let answer = client.get("/api/v1/status")?;
    let status: Status = answer.read()?;
    form.show(&answer, |form| tables::status(&status, form))?;
    Ok(ExitCode::from(u8::from(!status.ready)))
}

fn peers(client: &Client, form: Form) -> Result<(), Failure> {
    let answer = client.get("/api/v1/peers")?;
    let peers: PeerList = answer.read()?;
    // The node's own time, since that is what its dates go by.
    let now: Status = client.get("/api/v1/status")?.read()?;
    form.show(&answer, |form| tables::peers(&peers, now.now_ms, form))
}

fn explained(client: &Client, form: Form, id: &str, across: bool) -> Result<(), Failure> {
    let across = if across { "?across=true" } else { "" };
    let answer = client.get(&format!("/api/v1/transactions/{id}/explain{across}"))?;
    let explanation: Explanation = answer.read()?;
    form.show(&answer, |form| explain::shown(&explanation, form))
}

/// Asks for an action on a peer that has no other answer than that it is done.
fn act(
    client: &Client,
    form: Form,
    peer: &str,
    action: &str,
    body: Option<&Value>,
) -> Result<(), Failure> {
    let peer = whole_peer(client, peer)?;
    let answer = client.post(&format!("/api/v1/peers/{peer}/{action}"), body)?;
    form.show(&answer, |form| done("peer", &peer, action, form))
}

fn test(client: &Client, form: Form, peer: &str) -> Result<(), Failure> {
    let peer = whole_peer(client, peer)?;
    let answer = client.post(&format!("/api/v1/peers/{peer}/test"), None)?;
    let test: Test = answer.read()?;
    form.show(&answer, |form| tables::test(&peer, &test, form))
}

fn list_dead_letters(client: &Client, form: Form) -> Result<(), Failure> {
    let (all, raw) = dead_letters(client)?;
    form.show(&raw, |form| tables::dead_letters(&all, form))
}

fn settle(client: &Client, form: Form, id: &str, action: &str) -> Result<(), Failure> {
    let id = whole_letter(client, id)?;
    let answer = client.post(&format!("/api/v1/dead-letters/{id}/{action}"), None)?;
    // A transaction that has expired meanwhile goes on under another id.
    let told: Value = answer.read()?;
    let id = told["id"].as_str().unwrap_or(&id);
    form.show(&answer, |form| done("id", id, action, form))
}

fn done(what: &'static str, id: &str, action: &str, form: Form) -> String {
    let mut card = Table::new(&[Column::text("done", "done"), Column::text(what, what)]);
    card.row(Tone::Plain, [Cell::text(action), Cell::text(id)]);
    form.card(&card)
}

/// Every dead letter, page after page, and the same as one answer.
fn dead_letters(client: &Client) -> Result<(Vec<DeadLetter>, Answer), Failure> {
    let (mut all, mut raw, mut after) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/api/v1/dead-letters?limit={PAGE}{after}"))?;
        let mut value: Value = page.read()?;
        if let Some(Value::Array(letters)) = value.get_mut("dead_letters").map(Value::take) {
            raw.extend(letters);
        }
        let page: LetterPage = page.read()?;
        let is_empty = page.dead_letters.is_empty();
        all.extend(page.dead_letters);
        match page.next.filter(|_| !is_empty) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let raw = json!({ "dead_letters": raw, "next": null });
    Ok((all, Answer(raw.to_string())))
}

fn whole_peer(client: &Client, start: &str) -> Result<String, Failure> {
    if is_id(start) {
        return Ok(start.to_owned());
    }
    let PeerList { peers, lost } = client.get("/api/v1/peers")?.read()?;
    let ids = peers.into_iter().map(|peer| peer.peer).chain(lost.into_iter().map(|peer| peer.peer));
    the_one(start, ids.collect(), "peer", "peers")
}

fn whole_letter(client: &Client, start: &str) -> Result<String, Failure> {
    if is_id(start) {
        return Ok(start.to_owned());
    }
    let (letters, _) = dead_letters(client)?;
    let ids = letters.into_iter().map(|letter| letter.id);
    the_one(start, ids.collect(), "dead letter", "dead-letters")
}

/// The only id that begins so.
fn the_one(start: &str, mut ids: Vec<String>, what: &str, list: &str) -> Result<String, Failure> {
    ids.retain(|id| id.starts_with(start));
    ids.sort();
    ids.dedup();
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::Refused(format!(
            "no {what} of `peerctl {list}` begins with {start}: give all 64 digits of another"
        ))),
        [one, another, ..] => Err(Failure::Usage(format!(
            "{start} begins {} and {}: give more digits",
            short(one),
            short(another)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_an_id_names_one_or_none() {
        let ids = || ["5f10", "5f20", "5f20", "a100"].map(|start| start.repeat(16)).to_vec();
        let named = |start| the_one(start, ids(), "peer", "peers").map_err(|error| error.status());
        assert_eq!(named("a100"), Ok("a100".repeat(16)));
        assert_eq!(named("5f20"), Ok("5f20".repeat(16)), "linked and lost");
        assert_eq!(named("5f"), Err(2));
        assert_eq!(named("5f30"), Err(1));
    }
}
