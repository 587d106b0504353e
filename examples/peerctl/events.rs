//! Events, as they happen or as the node remembers them.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::failure::Failure;
use crate::form::{Form, Tone, pair, write};
use crate::units;

/// Silence after which the node is taken for gone: it says something every 15 s.
const MAX_SILENCE: Duration = Duration::from_secs(40);
/// Number of lines that wait for a slow reader of stdout.
const MAX_WAITING: usize = 64;

/// One event: its name, and what it says in JSON.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
}

/// Puts lines of a stream (text/event-stream) together to events.
#[derive(Debug, Default)]
struct Reader {
    name: String,
    data: Vec<String>,
}

impl Reader {
    /// Takes a line; returns the event that it ends.
    fn line(&mut self, line: &str) -> Option<Event> {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push(value.to_owned()),
            "" if line.is_empty() => {
                let Self { name, data } = std::mem::take(self);
                return (!data.is_empty()).then(|| Event { name, data: data.join("\n") });
            }
            // A comment, or a field of no interest.
            _ => {}
        }
        None
    }
}

/// Writes events until the node or the reader ends it.
pub(crate) fn follow(client: &Client, form: Form) -> Result<(), Failure> {
    let lines = client.lines("/api/v1/events")?;
    let (sender, received) = sync_channel(MAX_WAITING);
    std::thread::spawn(move || {
        for line in lines {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut reader = Reader::default();
    loop {
        let line: io::Result<String> = received.recv_timeout(MAX_SILENCE).map_err(|why| {
            Failure::Unreachable(match why {
                RecvTimeoutError::Timeout => "the node has been silent for too long".to_owned(),
                RecvTimeoutError::Disconnected => "the node ended the stream of events".to_owned(),
            })
        })?;
        let line =
            line.map_err(|error| Failure::Unreachable(format!("the stream broke: {error}")))?;
        if let Some(event) = reader.line(&line) {
            write(&written(&event, form))?;
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Recent {
    events: Vec<Map<String, Value>>,
}

/// Writes the events that the node remembers.
pub(crate) fn recent(client: &Client, form: Form) -> Result<(), Failure> {
    let answer = client.get("/api/v1/events/recent?limit=500")?;
    let Recent { events } = answer.read()?;
    form.show(&answer, |form| {
        events.iter().rev().map(|event| line("", event, form)).collect::<String>()
    })
}

fn written(event: &Event, form: Form) -> String {
    match (form, serde_json::from_str(&event.data)) {
        (Form::Lines | Form::Tables { .. }, Ok(data)) => line(&event.name, &data, form),
        _ => format!("{}\n", event.data),
    }
}

/// A line of an event; `name` is for one that does not say its own.
fn line(name: &str, data: &Map<String, Value>, form: Form) -> String {
    let name = data.get("event").and_then(Value::as_str).unwrap_or(name);
    let at = data.get("at_ms").and_then(Value::as_u64);
    let is_said = |key: &str| matches!(key, "event" | "at_ms" | "seq");
    let said = data.iter().filter(|(key, value)| !value.is_null() && !is_said(key));
    let shown = said.map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match form {
            Form::Tables { .. } if units::is_id(&text) => format!("{key} {}", units::short(&text)),
            Form::Tables { .. } => format!("{key} {}", units::clean(&text)),
            _ => pair(key, &text),
        }
    });
    let (at, name) = match form {
        Form::Tables { .. } => {
            let name = format!("{:<20}", units::clean(&name.replace('_', " ")));
            (at.map(units::time), form.paint(tone_of(name.trim_end()), &name))
        }
        _ => (at.map(|at| pair("at_ms", &at.to_string())), pair("event", name)),
    };
    let parts: Vec<_> = at.into_iter().chain([name]).chain(shown).collect();
    format!("{}\n", parts.join(" ").trim_end())
}

fn tone_of(name: &str) -> Tone {
    match name {
        "peer up" | "clock right" | "breaker closed" => Tone::Good,
        "dead lettered" | "storage failed" | "identity in use" | "clock off" => Tone::Bad,
        "peer down"
        | "link refused"
        | "publish refused"
        | "transaction refused"
        | "lagged"
        | "breaker opened"
        | "history missed" => Tone::Doubtful,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_stream_are_events() {
        let mut reader = Reader::default();
        let stream = ": still here\n\nid: 7\nevent: peer_down\ndata: {\"a\":1,\ndata: \"b\":2}\n\n\
            event: lagged\ndata:{\"missed\":3}\n\nevent: without data\n\n";
        let events: Vec<_> = stream.lines().filter_map(|line| reader.line(line)).collect();
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        assert_eq!(
            events,
            [event("peer_down", "{\"a\":1,\n\"b\":2}"), event("lagged", "{\"missed\":3}")]
        );
    }

    #[test]
    fn an_event_is_one_line_in_each_form() {
        let id = "5f".repeat(32);
        let data = format!(
            r#"{{"at_ms":1796000000123,"event":"peer_down","peer":"{id}","reason":"a\nb","x":null}}"#
        );
        let event = Event { name: "peer_down".into(), data: data.clone() };
        let terminal = Form::Tables { width: 80, colour: false };
        let shown = written(&event, terminal);
        assert_eq!(
            shown,
            "00:53:20.123 peer down            peer 5f5f5f5f5f5f reason a\u{fffd}b\n"
        );
        let line = format!("at_ms=1796000000123 event=peer_down peer={id} reason=\"a\u{fffd}b\"\n");
        assert_eq!(written(&event, Form::Lines), line);
        assert_eq!(written(&event, Form::Json), data + "\n");
        let lagged = Event { name: "lagged".into(), data: r#"{"missed":3}"#.into() };
        assert_eq!(written(&lagged, Form::Lines), "event=lagged missed=3\n");
    }
}
