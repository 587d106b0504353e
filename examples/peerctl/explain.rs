//! The life of a transaction: why it is or is not here, and step by step how that came.

use crate::answers::{Explanation, Step};
use crate::form::{Form, Tone, pair};
use crate::table::{Cell, Column, Table};
use crate::units;

/// Shows what this node knows, and in a sentence each what others do.
pub(crate) fn shown(explanation: &Explanation, form: Form) -> String {
    let tone = tone_of(&explanation.state);
    let mut shown = form.sentence("summary", &explanation.summary, tone);
    shown += &form.card(&facts(explanation));
    shown += &match form {
        Form::Tables { .. } => time_line(&explanation.steps, form),
        _ => form.table(&steps(&explanation.steps)),
    };
    if explanation.left_out > 0 {
        shown += &form.remark(&format!("{} steps were not kept.", explanation.left_out));
    }
    if !explanation.elsewhere.is_empty() {
        shown += &form.remark("\nElsewhere");
        shown += &form.table(&elsewhere(explanation));
    }
    shown + &not_told(&explanation.not_told, form)
}

/// Linked peers that were asked in vain.
fn not_told(peers: &[String], form: Form) -> String {
    match (form, peers.len()) {
        (_, 0) => String::new(),
        (Form::Tables { .. }, 1) => form.remark("One linked peer does not tell."),
        (Form::Tables { .. }, count) => form.remark(&format!("{count} linked peers do not tell.")),
        _ => peers.iter().map(|peer| pair("not_told", peer) + "\n").collect(),
    }
}

fn tone_of(state: &str) -> Tone {
    match state {
        "stored" | "confirmed" => Tone::Good,
        "refused" | "dead_letter" => Tone::Bad,
        _ => Tone::Doubtful,
    }
}

fn facts(explanation: &Explanation) -> Table {
    let columns = [
        Column::text("id", "id"),
        Column::text("state", "state"),
        Column::text("topic", "topic"),
        Column::text("size", "size"),
        Column::text("origin", "published by"),
    ];
    let mut card = Table::new(&columns);
    let state = explanation.state.replace('_', " ");
    let origin =
        |id: &String| Cell::new(id, if explanation.own { "this node" } else { id.as_str() });
    let cells = [
        Cell::text(&explanation.id),
        Cell::new(&explanation.state, state),
        Cell::maybe(explanation.topic.as_ref(), Cell::text),
        Cell::maybe(explanation.size, |size| Cell::new(size, units::bytes(size))),
        Cell::maybe(explanation.origin.as_ref(), origin),
    ];
    card.row(Tone::Plain, cells);
    card
}

fn steps(steps: &[Step]) -> Table {
    let columns = [
        Column::text("at_ms", "AT"),
        Column::text("what", "WHAT"),
        Column::text("peer", "PEER"),
        Column::text("transport", "VIA"),
        Column::text("hop", "HOP"),
        Column::text("reason", "WHY"),
    ];
    let mut table = Table::new(&columns);
    for step in steps {
        let cells = [
            Cell::new(step.at_ms, units::time(step.at_ms)),
            Cell::text(&step.what),
            Cell::maybe(step.peer.as_ref(), |peer| Cell::id(peer)),
            Cell::maybe(step.transport.as_ref(), Cell::text),
            Cell::maybe(step.hop, Cell::text),
            Cell::maybe(step.reason.as_ref(), Cell::text),
        ];
        table.row(Tone::Plain, cells);
    }
    table
}

/// A line of its own for each step, drawn along the time from the first to the last.
fn time_line(steps: &[Step], form: Form) -> String {
    let Some(first) = steps.first() else { return String::new() };
    let mut shown =
        format!("\nUTC, {}\n", units::date(first.at_ms).split(' ').next().unwrap_or(""));
    for (n, step) in steps.iter().enumerate() {
        let after = step.at_ms.saturating_sub(first.at_ms);
        let at = match n {
            _ if is_standing(&step.what) => "now".to_owned(),
            0 => units::time(step.at_ms),
            _ => format!("+{}", units::millis(after)),
        };
        let mark = match (n, n + 1 == steps.len()) {
            (0, true) => '─',
            (0, false) => '┬',
            (_, false) => '├',
            (_, true) => '└',
        };
        let what = form.paint(tone_of_step(&step.what), &format!("{:<14}", said(&step.what)));
        let line = format!("{at:>12} {mark} {what} {}", circumstances(step));
        shown += line.trim_end();
        shown.push('\n');
    }
    shown
}

fn said(what: &str) -> String {
    units::clean(&what.replace('_', " "))
}

/// Whether a step did not happen, but says how matters stand with a peer.
fn is_standing(what: &str) -> bool {
    matches!(
        what,
        "offered" | "behind" | "in_debt" | "not_carried" | "over_limit" | "banned" | "stale"
    )
}

fn tone_of_step(what: &str) -> Tone {
    match what {
        "stored" | "confirmed" => Tone::Good,
        "retried" | "behind" | "in_debt" | "not_carried" | "over_limit" | "stale" => Tone::Doubtful,
        "refused" | "refused_by" | "not_stored" | "dead_lettered" | "expired" | "banned" => {
            Tone::Bad
        }
        _ => Tone::Plain,
    }
}

/// Where, how and why a step was done.
fn circumstances(step: &Step) -> String {
    let peer = step.peer.as_ref().map(|peer| units::short(peer));
    let transport = step.transport.as_ref().map(|transport| format!("over {transport}"));
    let hop = step.hop.map(|hop| format!("hop {hop}"));
    let known = [peer, transport, hop, step.reason.clone()].into_iter().flatten();
    units::clean(&known.collect::<Vec<_>>().join(", "))
}

fn elsewhere(explanation: &Explanation) -> Table {
    let columns = [
        Column::text("elsewhere", "PEER"),
        Column::text("state", "STATE"),
        Column::text("summary", "WHY"),
    ];
    let mut table = Table::new(&columns);
    for (peer, there) in &explanation.elsewhere {
        let state = Cell::new(&there.state, there.state.replace('_', " "));
        table.row(tone_of(&there.state), [Cell::id(peer), state, Cell::text(&there.summary)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON_TERMINAL: Form = Form::Tables { width: 80, colour: false };

    fn explanation() -> Explanation {
        let (id, origin, other) = ("c1".repeat(32), "5f".repeat(32), "a1".repeat(32));
        serde_json::from_value(serde_json::json!({
            "id": id, "state": "refused", "origin": origin, "topic": "orders", "size": 2048,
            "own": false, "summary": "Refused here: its date is 5 minutes ahead.",
            "steps": [
                { "at_ms": 1_796_000_000_123_u64, "what": "received", "peer": origin,
                  "transport": "grpc-stream", "hop": 2, "reason": null },
                { "at_ms": 1_796_000_000_125_u64, "what": "refused", "reason": "skewed" },
                { "at_ms": 1_796_000_900_000_u64, "what": "not_carried", "peer": other },
            ],
            "elsewhere": { other: { "id": id, "state": "stored", "summary": "Stored \u{1b}here." } },
            "not_told": [origin],
        }))
        .unwrap()
    }

    #[test]
    fn the_sentence_comes_first_and_then_the_time_line() {
        let shown = shown(&explanation(), ON_TERMINAL);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], "Refused here: its date is 5 minutes ahead.");
        let at = lines.iter().position(|line| *line == "UTC, 2026-11-30").unwrap();
        assert_eq!(
            lines[at + 1..],
            [
                "00:53:20.123 ┬ received       5f5f5f5f5f5f, over grpc-stream, hop 2",
                "     +2.0 ms ├ refused        skewed",
                "         now └ not carried    a1a1a1a1a1a1",
                "",
                "Elsewhere",
                "PEER          STATE   WHY",
                "a1a1a1a1a1a1  stored  Stored \u{fffd}here.",
                "One linked peer does not tell.",
            ]
        );
    }

    #[test]
    fn elsewhere_than_on_a_terminal_each_step_is_a_line() {
        let shown = shown(&explanation(), Form::Lines);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[0], "summary=\"Refused here: its date is 5 minutes ahead.\"");
        assert!(lines[1].ends_with(&format!("size=2048 origin={}", "5f".repeat(32))));
        assert_eq!(lines[3], "at_ms=1796000000125 what=refused reason=skewed");
        assert_eq!(lines[6], format!("not_told={}", "5f".repeat(32)));
    }

    #[test]
    fn what_is_unknown_is_one_sentence() {
        let unknown = Explanation {
            state: "unknown".to_owned(),
            summary: "Never heard of.".to_owned(),
            ..Explanation::default()
        };
        let shown = shown(&unknown, ON_TERMINAL);
        assert!(shown.starts_with("Never heard of.\n") && !shown.contains("UTC"), "{shown}");
    }
}
