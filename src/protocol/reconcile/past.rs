//! What of the past is here, and what was missed.
//!
//! ```text
//!  fresh ──► whole ◄──────compared, nothing is gone──────┐
//!              │                                         │
//!              ├─the last link is gone─────────────────► away ──compared, and some of it is gone
//!              └─a start after an earlier run────────────►│                 everywhere: the host is
//!                                                         └──► whole        told the span
//! ```
//!
//! A node is *whole* since a time: of what was created after that, is retained and was known to
//! anybody whom it was linked with, all is here. It says that time in its hello. While it is *away*,
//! linked with nobody, others publish what it hears of later by comparing, as long as anybody has
//! it: they forget after their retention, as this node would. What was created after it went away
//! and before that is missed, and nobody can tell what it was. So the span is told, once, when
//! all who are linked were compared with and had time to come: a peer that has been whole for longer
//! makes the span smaller or the matter none.
//!
//! What a peer says is believed as far as it makes others' word weaker, not stronger: the peer that is
//! whole for the longest time decides, a time to come counts as now, and what differs by less than
//! `SLACK` as nothing. So a liar can hide that peers have forgotten; that this node's own
//! retention is over, it cannot hide. It can raise an alarm only where it is the only peer, once for
//! each time that the node was away. Edges have what they want only and say nothing; who is away
//! says nothing either.
//!
//! Bounds: two times, and two for each link.
//!
//! Tested by: `sim::tests::past`, `protocol::tests::past`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::types::{Event, MonoTime, WallTime};

/// Minimum time with a link after which what is gone is told: others may come who have it.
const GRACE: Duration = Duration::from_secs(30);
/// Maximum time with a link for which a peer is waited for that was not compared with yet.
const PATIENCE: Duration = Duration::from_mins(2);
/// Minimum span that is told on the word of others.
const SLACK: Duration = Duration::from_secs(10);
/// Time between two notes of what the node is whole until: what a crash may add to the span.
const SAVE_EVERY: Duration = Duration::from_mins(1);

/// What is known of the past.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Past {
    /// Time since which the node is whole; `None` before the first input.
    since: Option<WallTime>,
    /// Time until which it was when that was last looked at, if it ever was linked.
    until: Option<WallTime>,
    away: Option<Away>,
    saved: MonoTime,
}

/// Absence that is not over.
#[derive(Debug)]
struct Away {
    /// Time when it began.
    from: WallTime,
    /// Time when the first link of now came up.
    linked: Option<MonoTime>,
}

impl Past {
    /// Takes up what an earlier run noted.
    pub(in crate::protocol) fn restored(since: Option<WallTime>, until: Option<WallTime>) -> Self {
        let away = until.map(|from| Away { from, linked: None });
        Self { since, until, away, saved: MonoTime::ZERO }
    }
}

impl Protocol {
    /// Begins with the first input. Who has no note of the past has none.
    pub(in crate::protocol) fn begin_past(&mut self) {
        let past = &mut self.repairs.past;
        if past.since.is_none() {
            past.since = Some(self.env.wall);
            self.save_past();
        }
    }

    /// Returns the time since which this node is whole, for peers; `None` where it cannot say.
    pub(in crate::protocol) fn complete_since(&self) -> Option<WallTime> {
        let past = &self.repairs.past;
        let is_partial = self.spread.carrying.ours().topics.is_some();
        let since = past.since.filter(|_| past.away.is_none() && !is_partial)?;
        Some(since.max(self.horizon(Duration::ZERO).created))
    }

    /// Links came or went.
    pub(in crate::protocol) fn watch_past(&mut self) {
        let (now, wall) = (self.env.now, self.env.wall);
        let is_sure = self.env.corroborated() == wall;
        let is_linked = self.links.up_count() > 0;
        let past = &mut self.repairs.past;
        match (&mut past.away, past.until) {
            (Some(away), _) if is_linked => away.linked = away.linked.or(Some(now)),
            (Some(away), _) => away.linked = None,
            // Who was never linked has missed nothing.
            (None, Some(noted)) if !is_linked => {
                let from = if is_sure { wall } else { noted };
                past.until = Some(from);
                past.away = Some(Away { from, linked: None });
                self.save_past();
            }
            (None, _) => {}
        }
    }

    /// Looks whether an absence is over, and notes that the node is whole.
    pub(in crate::protocol) fn judge_past(&mut self) {
        if self.env.corroborated() < self.env.wall {
            // By a clock that nobody confirms any span could be told.
            return;
        }
        let (now, wall) = (self.env.now, self.env.wall);
        let ups = || self.links.all.values().filter_map(|l| l.up.as_ref());
        let compared = ups().filter(|up| up.repair.is_compared);
        let said = compared.clone().filter(|up| up.interest.theirs.is_relay());
        let said = said.filter_map(|up| up.repair.complete_since).min();
        let said = said.map(|said| said.min(wall));
        let (all, compared) = (ups().count(), compared.count());
        if compared == 0 {
            return;
        }
        let retention = self.env.config.gossip.retention;
        let past = &mut self.repairs.past;
        if let Some(Away { from, linked: Some(linked) }) = past.away {
            // By the clock of now: that of then may have been wrong.
            let began = wall.minus(now.since(linked));
            let others = said.filter(|said| *said > from.plus(SLACK)).unwrap_or_default();
            let gone = others.max(began.minus(retention));
            let waited = now.since(linked);
            let is_settled = waited >= PATIENCE || (compared == all && waited >= GRACE);
            if gone > from && !is_settled {
                return;
            }
            past.away = None;
            past.saved = MonoTime::ZERO;
            if gone > from {
                past.since = Some(gone);
                self.env.counters.histories_missed += 1;
                tracing::warn!(
                    target: "sorcha_peer::gossip", %from, until = %gone,
                    "away for too long: what was published in this span is gone"
                );
                self.env.emit(Event::HistoryMissed { from, until: gone });
            }
        }
        let past = &mut self.repairs.past;
        if past.away.is_none() {
            // All that they have is here now.
            past.since = past.since.min(said.or(past.since)).map(|since| since.min(wall));
            let is_first = past.until.is_none();
            past.until = Some(wall);
            if is_first || past.saved == MonoTime::ZERO || now.since(past.saved) >= SAVE_EVERY {
                self.save_past();
            }
        }
    }

    fn save_past(&mut self) {
        let past = &mut self.repairs.past;
        past.saved = self.env.now;
        if let Some(since) = past.since {
            let until = past.until;
            self.env.push(Output::SavePast { since, until });
        }
    }
}
