//! What the whole core knows of one transaction, for whoever asks: the trail, and how matters stand
//! in log, outbox and fetches, and on each link. Only looks.
//!
//! Tested by: `protocol::tests::trail`, `sim::tests::trail`.

use crate::types::explanation::{state, what};
use crate::types::{Explanation, LinkId, MonoTime, Step, TransactionId, WallTime};

use super::Protocol;
use super::intake::{Pending, Stage};
use super::link::Link;
use super::log::Record;

/// Maximum number of bans that are told of.
const MAX_BANS: usize = 8;
/// Kinds of steps that only own transactions have.
const OF_OWN: [&str; 5] =
    [what::REFUSED_BY, what::DEAD_LETTERED, what::REDELIVERED, what::DELETED, what::RENEWED];

impl Protocol {
    /// Tells what is known of a transaction. The summary, which may need the topic's name, is left to
    /// whoever can look that up.
    pub fn explain(&self, id: &TransactionId) -> Explanation {
        let mut told = Explanation::new(*id);
        told.links = u32::try_from(self.links.up_count()).unwrap_or(u32::MAX);
        self.tell_acceptance(&mut told);
        let (steps, left_out) = self.trail.steps(id);
        told.left_out = left_out;
        told.steps.extend(steps.into_iter().map(|step| Step {
            peer: step.party.map(|(peer, _)| peer),
            transport: step.party.map(|(_, kind)| kind),
            reason: step.reason,
            ..Step::new(self.wall_of(step.at), step.what)
        }));
        told.steps.sort_by_key(|step| step.at);
        told.own |= has(&told, &OF_OWN);
        if let Some(facts) = self.trail.facts(id) {
            (told.origin, told.size) = (facts.origin, facts.size);
            told.topic.clone_from(&facts.topic);
        }
        let place = self.tell_place(&mut told);
        told.state = place.to_owned();
        if told.own {
            told.origin = Some(self.env.me);
        }
        if told.links == 0 {
            self.tell_bans(&mut told);
        }
        told
    }

    /// Returns the time by the clock of something that happened here.
    fn wall_of(&self, at: MonoTime) -> WallTime {
        self.env.wall.minus(self.env.now.since(at))
    }

    fn tell_acceptance(&self, told: &mut Explanation) {
        let Some((at, party, acceptance)) = self.trail.acceptance(&told.id) else { return };
        told.own = acceptance.hop == 0;
        let what = if told.own { what::PUBLISHED } else { what::ACCEPTED };
        let mut step = Step::new(self.wall_of(at), what);
        if let Some((peer, kind)) = party {
            step = step.with(peer, kind);
        }
        step.hop = (!told.own).then_some(u16::from(acceptance.hop));
        told.steps.push(step);
        if !self.log.contains(&told.id)
            && !self.log.is_refused(&told.id)
            && acceptance.keep_until <= self.env.wall
        {
            told.steps.push(Step::new(acceptance.keep_until, what::EXPIRED));
        }
    }

    /// Tells where a transaction is, and how matters stand there; returns its state.
    fn tell_place(&self, told: &mut Explanation) -> &'static str {
        let id = told.id;
        if self.outbox.contains(&id) || self.outbox.is_publishing(&id) {
            told.own = true;
        }
        if let Some(record) = self.log.find(&id) {
            self.tell_record(told, record);
        }
        self.tell_copies(told);
        if self.outbox.is_dead(&id) {
            return state::DEAD_LETTER;
        }
        if let Some(record) = self.log.find(&id) {
            return if self.outbox.is_waiting(&id) || !record.is_stored() {
                state::PENDING
            } else if !told.own || has(told, &[what::DELETED]) {
                state::STORED
            } else {
                state::CONFIRMED
            };
        }
        if self.outbox.contains(&id) {
            told.steps.push(Step::new(self.env.wall, what::STALE));
            return state::EXPIRED;
        }
        if let Some(pending) = self.intake.pending.get(&id) {
            self.tell_pending(told, pending);
            return state::PENDING;
        }
        if has(told, &[what::RENEWED, what::EXPIRED]) {
            state::EXPIRED
        } else if has(told, &[what::REFUSED, what::NOT_STORED]) || self.tell_refusal(told) {
            state::REFUSED
        } else if has(told, &[what::ACCEPTED, what::PUBLISHED]) {
            state::EXPIRED
        } else {
            state::UNKNOWN
        }
    }

    /// Tells of a refusal that is remembered longer than its trail; `false` where there is none.
    fn tell_refusal(&self, told: &mut Explanation) -> bool {
        let reason = self.intake.refusal(&told.id).or_else(|| self.log.refusal(&told.id));
        if let Some(reason) = reason {
            let mut step = Step::new(self.env.wall, what::REFUSED);
            step.reason = Some(reason.as_str().to_owned());
            told.steps.push(step);
        }
        reason.is_some() || self.log.is_refused(&told.id)
    }

    fn tell_record(&self, told: &mut Explanation, record: &Record) {
        told.own = record.is_own();
        told.size = Some(u64::from(record.size));
        if let Some(payload) = self.log.payload(&told.id) {
            told.origin = Some(payload.origin());
            told.topic = Some(payload.header().topic.clone());
        }
        let confirmed = self.outbox.confirmed_by(&told.id);
        for link in self.links.all.values() {
            let said = confirmed.contains(&link.remote);
            if let Some(standing) = self.standing(link, record).filter(|_| !said) {
                told.steps.push(standing);
            }
        }
    }

    /// Tells who has confirmed an own transaction of whom no step tells any more.
    fn tell_copies(&self, told: &mut Explanation) {
        for peer in self.outbox.confirmed_by(&told.id) {
            if told.all(what::CONFIRMED).all(|step| step.peer != Some(*peer)) {
                let mut step = Step::new(self.env.wall, what::CONFIRMED);
                step.peer = Some(*peer);
                told.steps.push(step);
            }
        }
    }

    /// Returns how matters stand between an entry of the log and a link.
    fn standing(&self, link: &Link, record: &Record) -> Option<Step> {
        let up = link.up.as_ref()?;
        let seq = self.log.seq_of(&record.id)?;
        let (what, reason) = if u64::from(record.size) > up.max_transaction {
            (what::OVER_LIMIT, Some(up.max_transaction.to_string()))
        } else if !self.takes(link.id, record) {
            (what::NOT_CARRIED, None)
        } else if up.feed.debt.is_some() {
            (what::IN_DEBT, None)
        } else if up.feed.cursor <= seq && !self.log.is_known(seq, up.slot) {
            (what::BEHIND, None)
        } else {
            (what::OFFERED, None)
        };
        let mut step = Step::new(self.env.wall, what).with(link.remote, link.kind);
        step.reason = reason;
        Some(step)
    }

    fn tell_pending(&self, told: &mut Explanation, pending: &Pending) {
        told.size = Some(pending.size);
        told.origin = told.origin.or(pending.origin());
        let mut tell = |at: MonoTime, what: &str, link: LinkId| {
            let step = Step::new(self.wall_of(at), what);
            let link = self.links.all.get(&link);
            told.steps.extend(link.map(|link| step.with(link.remote, link.kind)));
        };
        for source in &pending.sources {
            tell(source.at, what::ANNOUNCED_BY, source.link);
        }
        if let Some(link) = pending.asked_of {
            tell(self.env.now, what::ASKED, link);
        }
        if matches!(pending.stage, Stage::Verifying | Stage::Deferred) {
            told.steps.push(Step::new(self.env.wall, what::CHECKING));
        }
    }

    fn tell_bans(&self, told: &mut Explanation) {
        let now = self.env.corroborated();
        let banned = self.guard.bans.values().filter(|ban| self.guard.is_banned(&ban.peer, now));
        told.steps.extend(banned.take(MAX_BANS).map(|ban| Step {
            peer: Some(ban.peer),
            reason: Some(ban.reason.clone()).filter(|reason| !reason.is_empty()),
            ..Step::new(self.env.wall, what::BANNED)
        }));
    }
}

/// Reports whether a step of one of these kinds is told.
fn has(told: &Explanation, kinds: &[&str]) -> bool {
    told.steps.iter().any(|step| kinds.contains(&step.what.as_str()))
}
