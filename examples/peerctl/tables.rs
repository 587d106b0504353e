//! What is shown of each answer.

use crate::answers::{DeadLetter, LinkedPeer, LostPeer, PeerList, Status, Test};
use crate::form::{Form, Tone};
use crate::table::{Cell, Column, Table};
use crate::units;

/// Colour of a mode and of what it asks for.
pub(crate) fn tone_of(status: &Status) -> Tone {
    match status.mode.as_str() {
        _ if !status.ready => Tone::Bad,
        "online" => Tone::Good,
        "degraded" => Tone::Doubtful,
        _ => Tone::Bad,
    }
}

pub(crate) fn status(status: &Status, form: Form) -> String {
    let columns = [
        Column::text("ready", "ready"),
        Column::text("mode", "mode"),
        Column::text("peer_id", "peer id"),
        Column::text("network", "network"),
        Column::text("version", "version"),
        Column::text("uptime_s", "up for"),
        Column::text("listen", "listens at"),
        Column::text("http", "for proxies"),
        Column::text("advertised", "advertises"),
        Column::text("actions", "you may act"),
    ];
    let mut card = Table::new(&columns);
    let ready = match status.reasons.join("; ") {
        reasons if status.ready || reasons.is_empty() => Cell::yes(status.ready),
        reasons => Cell::new(status.ready, format!("no: {reasons}")),
    };
    let cells = [
        ready,
        Cell::text(&status.mode),
        Cell::text(&status.peer_id),
        Cell::text(&status.network),
        Cell::text(&status.version),
        Cell::new(status.uptime_s, units::seconds(status.uptime_s)),
        list(&status.listen),
        Cell::maybe(status.http.as_ref(), Cell::text),
        list(&status.advertised),
        Cell::yes(status.actions),
    ];
    card.row(Tone::Plain, cells);
    form.sentence("sentence", &status.sentence, tone_of(status)) + &form.card(&card)
}

fn list(texts: &[String]) -> Cell {
    if texts.is_empty() { Cell::none() } else { Cell::new(texts.join(","), texts.join(", ")) }
}

pub(crate) fn peers(peers: &PeerList, now_ms: u64, form: Form) -> String {
    let mut shown = if peers.peers.is_empty() {
        form.remark("No peer is linked.")
    } else {
        form.table(&linked(&peers.peers))
    };
    if !peers.lost.is_empty() {
        shown += &form.remark("\nLost within the last hour");
        shown += &form.table(&lost(&peers.lost, now_ms));
    }
    shown
}

/// Peers that are linked; what matters most stands first, since the last columns may not fit.
pub(crate) fn linked<'a>(peers: impl IntoIterator<Item = &'a LinkedPeer>) -> Table {
    let columns = [
        Column::text("peer", "PEER"),
        Column::text("state", "STATE"),
        Column::text("transport", "VIA"),
        Column::figure("rtt_us", "RTT"),
        Column::text("quality", "QUALITY"),
        Column::text("address", "ADDRESS"),
        Column::text("direction", "SIDE"),
        Column::figure("queued_bytes", "QUEUED"),
        Column::figure("behind", "BEHIND"),
        Column::figure("clock_offset_ms", "CLOCK"),
        Column::figure("connected_s", "UP FOR"),
    ];
    let mut table = Table::new(&columns);
    for peer in peers {
        let state = if peer.in_debt { "in debt" } else { &peer.state };
        let measured = |us| Cell::new(us, units::micros(us));
        let cells = [
            Cell::id(&peer.peer),
            Cell::text(state),
            Cell::text(&peer.transport),
            Cell::maybe((peer.rtt_us > 0).then_some(peer.rtt_us), measured),
            Cell::new(peer.quality, format!("{} {}", peer.quality, peer.rating)),
            Cell::maybe(peer.address.as_ref(), Cell::text),
            Cell::text(&peer.direction),
            Cell::new(peer.queued_bytes, units::bytes(peer.queued_bytes)),
            Cell::text(peer.behind),
            Cell::maybe(peer.clock_offset_ms, |ms| Cell::new(ms, units::offset(ms))),
            Cell::new(peer.connected_s, units::seconds(peer.connected_s)),
        ];
        let is_well = peer.state == "up" && !peer.in_debt && peer.rating != "poor";
        table.row(if is_well { Tone::Plain } else { Tone::Doubtful }, cells);
    }
    table
}

pub(crate) fn lost<'a>(peers: impl IntoIterator<Item = &'a LostPeer>, now_ms: u64) -> Table {
    let columns = [
        Column::text("peer", "PEER"),
        Column::text("state", "STATE"),
        Column::text("reason", "WHY"),
        Column::figure("lost_at_ms", "GONE FOR"),
        Column::text("breaker", "BREAKER"),
        Column::text("transport", "VIA"),
        Column::text("address", "ADDRESS"),
        Column::text("direction", "SIDE"),
    ];
    let mut table = Table::new(&columns);
    for peer in peers {
        let since = now_ms.saturating_sub(peer.lost_at_ms) / 1000;
        let cells = [
            Cell::id(&peer.peer),
            Cell::text("lost"),
            Cell::new(&peer.reason, peer.reason.replace('_', " ")),
            Cell::new(peer.lost_at_ms, units::seconds(since)),
            Cell::maybe(peer.breaker.as_ref(), |state| Cell::new(state, state.replace('_', " "))),
            Cell::maybe(peer.transport.as_ref(), Cell::text),
            Cell::maybe(peer.address.as_ref(), Cell::text),
            Cell::maybe(peer.direction.as_ref(), Cell::text),
        ];
        table.row(Tone::Faint, cells);
    }
    table
}

pub(crate) fn test(peer: &str, test: &Test, form: Form) -> String {
    let columns = [
        Column::text("peer", "peer"),
        Column::text("transport", "via"),
        Column::text("rtt_min_us", "shortest round trip"),
        Column::text("rtt_avg_us", "mean"),
        Column::text("rtt_max_us", "longest"),
        Column::text("jitter_us", "jitter"),
        Column::text("sent", "pings"),
        Column::text("lost", "lost"),
        Column::text("bytes_per_second", "to the peer"),
        Column::text("incoming_bytes_per_second", "from the peer"),
    ];
    let mut card = Table::new(&columns);
    let time = |us| Cell::new(us, units::micros(us));
    let pace = |bytes| Cell::new(bytes, format!("{}/s", units::bytes(bytes)));
    let cells = [
        Cell::text(peer),
        Cell::text(&test.transport),
        time(test.rtt_min_us),
        time(test.rtt_avg_us),
        time(test.rtt_max_us),
        time(test.jitter_us),
        Cell::text(test.sent),
        Cell::text(test.lost),
        pace(test.bytes_per_second),
        pace(test.incoming_bytes_per_second),
    ];
    card.row(Tone::Plain, cells);
    form.card(&card)
}

pub(crate) fn dead_letters(letters: &[DeadLetter], form: Form) -> String {
    if letters.is_empty() {
        return form.remark("There are no dead letters.");
    }
    let columns = [
        Column::text("id", "ID"),
        Column::text("topic", "TOPIC"),
        Column::figure("size", "SIZE"),
        Column::text("since_ms", "DEAD SINCE"),
        Column::text("reason", "WHY"),
        Column::text("created_ms", "CREATED"),
        Column::text("expires_ms", "EXPIRES"),
        Column::figure("seq", "SEQ"),
    ];
    let mut table = Table::new(&columns);
    let date = |ms| Cell::new(ms, units::date(ms));
    for letter in letters {
        let cells = [
            Cell::id(&letter.id),
            Cell::text(&letter.topic),
            Cell::new(letter.size, units::bytes(letter.size)),
            date(letter.since_ms),
            Cell::text(&letter.reason),
            date(letter.created_ms),
            date(letter.expires_ms),
            Cell::text(letter.seq),
        ];
        table.row(Tone::Plain, cells);
    }
    form.table(&table)
}
