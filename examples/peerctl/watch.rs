//! The figures of a node, once a second: drawn on a terminal, one line each elsewhere.
//!
//! On a terminal three threads feed one queue: one asks the node, one hears keys, one hears signals. So
//! a node that does not answer holds up neither `q` nor Ctrl-C, and the last that it said stays.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::answers::{History, PeerList, Series, Stats, Status};
use crate::client::Client;
use crate::failure::Failure;
use crate::form::{Form, Tone, write};
use crate::sparkline::sparkline;
use crate::table::{Cell, Column, Table};
use crate::tables;
use crate::units;

const INTERVAL: Duration = Duration::from_secs(1);
/// Lines for lost peers, at most, where the linked ones would fill the window.
const MOST_LOST: usize = 5;
/// Number of reasons for drops that are named.
const MOST_REASONS: usize = 3;

/// What the node says at one moment.
#[derive(Debug, Default)]
struct View {
    status: Status,
    peers: PeerList,
    series: Series,
    drops: BTreeMap<String, u64>,
    /// The same in JSON.
    json: Value,
}

impl View {
    fn take(client: &Client) -> Result<Self, Failure> {
        let status = client.get("/api/v1/status")?;
        let peers = client.get("/api/v1/peers")?;
        let stats = client.get("/api/v1/stats")?;
        let history = client.get("/api/v1/history?span=5m")?;
        let json: Value =
            json!({ "status": status.read::<Value>()?, "stats": stats.read::<Value>()? });
        let (History { series }, Stats { drops }) = (history.read()?, stats.read()?);
        Ok(Self { status: status.read()?, peers: peers.read()?, series, drops, json })
    }
}

pub(crate) fn watch(client: &Client, form: Form) -> Result<(), Failure> {
    // What is wrong from the start is said on a terminal as it was.
    let first = View::take(client)?;
    #[cfg(unix)]
    if let Form::Tables { colour, .. } = form {
        return on_terminal::watch(client, first, colour);
    }
    let mut view: Result<View, Failure> = Ok(first);
    loop {
        write(&match &view {
            Ok(view) if form == Form::Json => format!("{}\n", view.json),
            Ok(view) => Form::Lines.table(&line(view)),
            Err(failure) => Form::Lines.sentence("error", failure.text(), Tone::Bad),
        })?;
        std::thread::sleep(INTERVAL);
        view = View::take(client);
    }
}

/// The last value that was taken.
fn last(series: &[Option<f64>]) -> Option<f64> {
    series.iter().rev().flatten().next().copied()
}

/// A figure without the fraction that it does not have.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts and times")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

fn line(view: &View) -> Table {
    let columns = [
        Column::text("at_ms", ""),
        Column::text("mode", ""),
        Column::text("ready", ""),
        Column::text("links", ""),
        Column::text("delivered_per_s", ""),
        Column::text("published_per_s", ""),
        Column::text("latency_p99_us", ""),
        Column::text("outbox", ""),
        Column::text("outbox_oldest_ms", ""),
        Column::text("dropped_per_s", ""),
        Column::text("sentence", ""),
    ];
    let mut table = Table::new(&columns);
    let series = &view.series;
    let figure = |series: &[Option<f64>]| Cell::maybe(last(series), Cell::text);
    let cells = [
        Cell::text(view.status.now_ms),
        Cell::text(&view.status.mode),
        Cell::yes(view.status.ready),
        Cell::text(view.peers.peers.len()),
        figure(&series.delivered_per_s),
        figure(&series.published_per_s),
        figure(&series.latency_p99_us),
        figure(&series.outbox),
        figure(&series.outbox_oldest_ms),
        figure(&series.dropped_per_s),
        Cell::text(&view.status.sentence),
    ];
    table.row(Tone::Plain, cells);
    table
}

/// Everything in a window of this size. `before` are the drops when it began, and `failure` says why
/// nothing newer is shown.
fn frame(
    view: &View,
    before: &BTreeMap<String, u64>,
    failure: Option<&str>,
    (width, height): (usize, usize),
    colour: bool,
) -> Vec<String> {
    let form = Form::Tables { width, colour };
    let paint = |tone, text: &str| form.paint(tone, &cut(&units::clean(text), width));
    let status = &view.status;
    let up = units::seconds(status.uptime_s);
    let (id, now) = (units::short(&status.peer_id), units::date(status.now_ms));
    let head = format!("{} · {id} · {} · up for {up} · {now}", status.network, status.version);
    let mut lines = vec![paint(Tone::Faint, &head)];
    lines.push(match failure {
        None => paint(tables::tone_of(status), &status.sentence),
        Some(failure) => paint(Tone::Bad, &format!("As it was then: {failure}")),
    });
    lines.push(String::new());
    lines.extend(figures(view, before).map(|(name, value, note, series)| {
        let start = format!("{name:<10} {value:<18}");
        let note = if note.is_empty() { note } else { format!(" {note}") };
        let room = width.saturating_sub(start.chars().count() + note.chars().count() + 1);
        paint(Tone::Plain, &format!("{start} {}{note}", sparkline(series, room)))
    }));
    lines.push(String::new());
    lines.extend(peers(view, form, height.saturating_sub(lines.len() + 2)));
    lines.truncate(height.saturating_sub(2));
    lines.resize(height.saturating_sub(1), String::new());
    lines.push(paint(Tone::Faint, "q ends it"));
    lines
}

/// The five numbers: name, value, what else there is to say, and course.
fn figures<'a>(
    view: &'a View,
    before: &BTreeMap<String, u64>,
) -> impl Iterator<Item = (&'static str, String, String, &'a [Option<f64>])> {
    let series = &view.series;
    let known = |series, shown: fn(f64) -> String| last(series).map_or("–".to_owned(), shown);
    let outbox = known(&series.outbox, |count| whole(count).to_string());
    let outbox = match last(&series.outbox_oldest_ms) {
        Some(oldest) if oldest > 0.0 => {
            format!("{outbox}, oldest {}", units::millis(whole(oldest)))
        }
        _ => outbox,
    };
    let none = String::new;
    [
        ("delivered", known(&series.delivered_per_s, units::rate), none(), &series.delivered_per_s),
        ("published", known(&series.published_per_s, units::rate), none(), &series.published_per_s),
        (
            "p99",
            known(&series.latency_p99_us, |us| units::micros(whole(us))),
            none(),
            &series.latency_p99_us,
        ),
        ("outbox", outbox, none(), &series.outbox),
        (
            "dropped",
            known(&series.dropped_per_s, units::rate),
            reasons(&view.drops, before),
            &series.dropped_per_s,
        ),
    ]
    .into_iter()
    .map(|(name, value, note, series)| (name, value, note, series.as_slice()))
}

/// Why things were dropped since then, the most frequent reasons first.
fn reasons(drops: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> String {
    let since = |(reason, count): (&String, &u64)| {
        let more = count.saturating_sub(before.get(reason).copied().unwrap_or_default());
        (more > 0).then(|| (more, reason.replace('_', " ")))
    };
    let mut all: Vec<_> = drops.iter().filter_map(since).collect();
    all.sort_by(|a, b| b.cmp(a));
    let named = all.iter().take(MOST_REASONS).map(|(count, reason)| format!("{reason} {count}"));
    named.collect::<Vec<_>>().join(", ")
}

/// Peers in so many lines: linked ones that are not well, the other linked ones, lost ones.
fn peers(view: &View, form: Form, room: usize) -> Vec<String> {
    let PeerList { peers, lost } = &view.peers;
    let Form::Tables { width, .. } = form else { return Vec::new() };
    let paint = |tone, row: &str| form.paint(tone, &cut(row, width));
    let mut linked: Vec<_> = peers.iter().collect();
    linked.sort_by_key(|peer| (peer.state == "up" && !peer.in_debt, &peer.peer));
    // One line for a heading, one for what does not fit, one for space between.
    let of_lost = if lost.is_empty() { 0 } else { lost.len().min(MOST_LOST) + 2 };
    let fit = room.saturating_sub(of_lost + 1);
    let cut_off = if linked.len() > fit { linked.len() - fit.saturating_sub(1) } else { 0 };
    linked.truncate(peers.len() - cut_off);
    let mut lines = match peers.len() {
        0 => vec![paint(Tone::Faint, "No peer is linked.")],
        _ => tables::linked(linked).rows(width, paint),
    };
    if cut_off > 0 {
        lines.push(paint(Tone::Faint, &format!("and {cut_off} more")));
    }
    if !lost.is_empty() {
        lines.push(String::new());
        let newest = lost.iter().take(MOST_LOST);
        lines.extend(tables::lost(newest, view.status.now_ms).rows(width, paint));
    }
    lines
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(unix)]
mod on_terminal {
    use std::sync::mpsc::sync_channel;

    use super::{INTERVAL, View, frame};
    use crate::client::Client;
    use crate::failure::Failure;
    use crate::screen::{self, Screen, Wish};

    enum Input {
        Wish(Wish),
        View(Box<Result<View, Failure>>),
    }

    pub(super) fn watch(client: &Client, first: View, colour: bool) -> Result<(), Failure> {
        let (sender, inputs) = sync_channel(16);
        let wishes = sender.clone();
        screen::hear(move |wish| wishes.send(Input::Wish(wish)).is_ok())?;
        let client = client.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(INTERVAL);
                if sender.send(Input::View(Box::new(View::take(&client)))).is_err() {
                    break;
                }
            }
        });
        let before = first.drops.clone();
        let (mut view, mut failure) = (first, None);
        let screen = Screen::enter()?;
        loop {
            let size = screen::size().unwrap_or((80, 24));
            screen.draw(&frame(&view, &before, failure.as_deref(), size, colour))?;
            match inputs.recv() {
                Ok(Input::Wish(Wish::Redraw)) => {}
                Ok(Input::View(taken)) => match *taken {
                    Ok(taken) => (view, failure) = (taken, None),
                    Err(why) => failure = Some(why.text().to_owned()),
                },
                Ok(Input::Wish(Wish::Quit)) | Err(_) => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(linked: usize, lost: usize) -> View {
        let peer = |n: usize| format!("{n:064x}");
        let linked = (0..linked).map(|n| {
            let state = if n == 7 { "suspect" } else { "up" };
            json!({ "peer": peer(n), "state": state, "transport": "grpc-stream", "rtt_us": 1200,
                "quality": 92, "rating": "excellent", "address": "10.0.0.1:5001" })
        });
        let lost = (0..lost).map(
            |n| json!({ "peer": peer(1000 + n), "reason": "wrong_network", "lost_at_ms": 1_000 }),
        );
        let read = |value| serde_json::from_value(value).unwrap();
        let peers =
            json!({ "peers": linked.collect::<Vec<_>>(), "lost": lost.collect::<Vec<_>>() });
        View {
            status: serde_json::from_value(json!({
                "network": "orders", "mode": "degraded", "ready": true, "now_ms": 61_000,
                "sentence": "Degraded: 2 of 5 healthy peers"
            }))
            .unwrap(),
            peers: serde_json::from_value(peers).unwrap(),
            series: read(json!({
                "delivered_per_s": [0.0, null, 12.0, 6.0], "outbox": [3], "outbox_oldest_ms": [12_000]
            })),
            drops: BTreeMap::from([("refused_expired".into(), 5), ("refused_skewed".into(), 2)]),
            json: Value::Null,
        }
    }

    fn shown(view: &View, failure: Option<&str>, size: (usize, usize)) -> Vec<String> {
        let before = BTreeMap::from([("refused_skewed".to_owned(), 2)]);
        let lines = frame(view, &before, failure, size, false);
        assert_eq!(lines.len(), size.1, "{lines:#?}");
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= size.0, "{lines:#?}");
        lines
    }

    #[test]
    fn the_window_has_the_sentence_the_numbers_and_the_peers() {
        let lines = shown(&view(3, 1), None, (100, 24));
        assert_eq!(lines[1], "Degraded: 2 of 5 healthy peers");
        assert_eq!(lines[3], "delivered  6.0/s              ▁ █▅");
        assert_eq!(lines[6], "outbox     3, oldest 12 s     █");
        assert!(lines[7].ends_with("refused expired 5"), "{}", lines[7]);
        assert!(lines[9].starts_with("PEER") && lines[10].starts_with("000000000000  up"));
        assert!(lines[15].contains("lost") && lines[15].contains("wrong network"));
        assert_eq!(lines[23], "q ends it");
    }

    #[test]
    fn what_does_not_fit_is_counted_and_who_is_not_well_stands_first() {
        for (linked, lost) in [(1000, 0), (1000, 200), (0, 200), (10, 3)] {
            for size in [(100, 24), (40, 18), (10, 12), (3, 3), (1, 1)] {
                shown(&view(linked, lost), None, size);
            }
        }
        let lines = shown(&view(1000, 200), None, (100, 24));
        assert!(lines[10].contains("suspect"), "{}", lines[10]);
        assert!(lines.iter().any(|line| line == "and 996 more"), "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains("wrong network")).count(), 5);
    }

    #[test]
    fn a_node_that_does_not_answer_is_told_of_beside_what_it_said_last() {
        let lines = shown(&view(1, 0), Some("no node answers"), (100, 24));
        assert_eq!(lines[1], "As it was then: no node answers");
        assert!(lines.iter().any(|line| line.starts_with("delivered")));
    }

    #[test]
    fn elsewhere_a_second_is_a_line() {
        let lines = line(&view(2, 0)).lines();
        assert_eq!(
            lines,
            ["at_ms=61000 mode=degraded ready=true links=2 delivered_per_s=6 outbox=3 \
              outbox_oldest_ms=12000 sentence=\"Degraded: 2 of 5 healthy peers\""]
        );
    }
}
