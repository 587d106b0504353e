//! What concerns every part: a link comes or goes, a queue drains, interest changes, time passes.
//!
//! The order of the calls in here is the protocol's, and nowhere else does a part tell all others of
//! something. A part asks for the end of a link by `close`, `violation` or `punish`.
//!
//! | what happened | who is told |
//! |---|---|
//! | a link was opened, a hello came | `trust`: who may have it; `admission`: is there a place |
//! | a hello was accepted | `link_up` |
//! | a link ended, whoever ended it | `link_down` |
//! | a link goes over to another connection | `moves`: when, `handover`: how |
//! | some of a queue left, or has arrived | `resume`: reconcile, spread, serve |
//! | a peer wants something else | `adopt_interest`: membership, spread, outbox |
//! | links came or went | `links_changed`: the host, outbox, membership |
//! | the host or a peer tests a link | `probing` |
//! | ten seconds passed | `on_expire`: everybody who forgets |
//! | a clock was told, or leapt | `clock`: peers, the host, outbox |
//!
//! Tested by: `sim::tests::faults`, `sim::tests::topics`.

mod admission;
mod clock;
mod handover;
mod link_down;
mod link_up;
mod moves;
mod probing;
mod trust;

use std::time::Duration;

use crate::types::{CloseReason, Interest, LinkId, Message, PeerRecord};

use super::Protocol;
use super::guard::Work;
use super::io::Ticket;
use super::spread::SAY_EVERY;
use super::timers::Timer;

/// Time between two looks for expired transactions and bans.
pub(super) const EXPIRE_EVERY: Duration = Duration::from_secs(10);

impl Protocol {
    /// Accounts for what was queued and left for the wire.
    pub(super) fn on_sent(&mut self, link: LinkId, weight: usize, bytes: usize) {
        self.env.counters.frames_sent += 1;
        self.env.counters.frame_bytes_sent += bytes as u64;
        let now = self.env.now;
        let Some(link) = self.links.link_of(link) else { return };
        let Some(l) = self.links.all.get_mut(&link) else { return };
        l.queued_bytes = l.queued_bytes.saturating_sub(weight);
        l.progress = now;
        self.note_wire_bytes(link, bytes);
        self.resume(link);
    }

    /// Goes on with what waits for room on a link.
    pub(super) fn resume(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(l) = self.links.all.get(&link) else { return };
        let empty = l.queued_bytes == 0 && l.is_writable(now);
        self.answer_waiting(link);
        if empty {
            self.end_debt(link);
        }
        self.resume_sessions();
        // In turns, so that neither bulk nor small transactions starve the other.
        let bulk_first = self.links.up(link).is_some_and(|up| {
            up.serve.bulk_first = !up.serve.bulk_first;
            up.serve.bulk_first
        });
        if bulk_first {
            self.send_bulk(link);
            self.pump(link);
        } else {
            self.pump(link);
            self.send_bulk(link);
        }
        self.answer_probes(link);
        self.go_on_testing(link);
    }

    /// Sends pieces of transactions and bodies of requests, by turns.
    fn send_bulk(&mut self, link: LinkId) {
        let goes_first = |core: &mut Self, set: Option<bool>| {
            core.links.up(link).is_some_and(|up| {
                up.messages.goes_first = set.unwrap_or(up.messages.goes_first);
                up.messages.goes_first
            })
        };
        let queued = |core: &Self| core.links.all.get(&link).map_or(0, |l| l.queued_bytes);
        if goes_first(self, None) {
            if self.send_bodies(link) {
                goes_first(self, Some(false));
            }
            self.serve(link);
        } else {
            let before = queued(self);
            self.serve(link);
            if queued(self) > before {
                goes_first(self, Some(true));
            }
            self.send_bodies(link);
        }
    }

    /// Links came or went.
    fn links_changed(&mut self) {
        self.watch_past();
        self.membership.update_mode(&mut self.env, &self.links, &self.guard);
        self.recheck_outbox();
        self.maintain();
    }

    /// The signatures of what a peer told us of other peers were checked.
    pub(super) fn on_records_verified(
        &mut self,
        ticket: Ticket,
        valid: Vec<PeerRecord>,
        forged: usize,
    ) {
        let teller = self.membership.on_records_verified(
            &mut self.env,
            &mut self.links,
            &self.guard,
            ticket,
            valid,
            forged,
        );
        let Some(teller) = teller else { return };
        if forged > 0 {
            self.punish(&teller, "forged peer record");
        }
        self.maintain();
    }

    /// Dials what is missing.
    pub(super) fn maintain(&mut self) {
        self.membership.maintain(&mut self.env, &self.links, &self.guard);
    }

    /// A peer says what it wants from now on. One that says so all the time is heard now and then.
    pub(super) fn on_interest(&mut self, link: LinkId, theirs: Interest) {
        let allowed = self.allow(link, Work::Interest, 1);
        let (now, later) = (self.env.now, (!allowed).then(|| theirs.clone()));
        let Some(up) = self.links.up(link) else { return };
        up.interest.later = later;
        if up.interest.later.is_some() {
            self.env.timers.set_earlier(Timer::Interest, now + SAY_EVERY);
        } else {
            self.adopt_interest(link, theirs);
        }
    }

    fn adopt_interest(&mut self, link: LinkId, theirs: Interest) {
        let Some(up) = self.links.up(link) else { return };
        up.interest.theirs = theirs;
        self.membership.note_kind(&self.links, link);
        self.settle_interest();
        self.owe_upwards();
        self.recheck_outbox();
        self.maintain();
        self.pump(link);
    }

    /// Time to say what has changed, or to stand in.
    pub(super) fn on_interest_due(&mut self) {
        for link in self.links.up_ids() {
            if let Some(later) = self.links.up(link).and_then(|up| up.interest.later.take()) {
                self.adopt_interest(link, later);
            }
        }
        self.settle_interest();
        if let Some((_, at)) = self.spread.carrying.waits {
            self.env.timers.set_earlier(Timer::Interest, at);
        }
    }

    /// Tells linked peers at once that our addresses changed; others hear of it by peer exchange.
    pub(super) fn on_record(&mut self, record: PeerRecord) {
        // What a peer says is our address is no proof of it: only a dial that ends at ourselves is.
        self.membership.record = record;
        for link in self.links.up_ids() {
            let records = vec![self.membership.record.clone()];
            self.send(link, Message::Peers { records, relays: 0 });
        }
    }

    pub(super) fn on_shutdown(&mut self) {
        self.env.shutting_down = true;
        self.end_calls();
        for link in self.links.all.keys().copied().collect::<Vec<_>>() {
            self.close(link, CloseReason::Shutdown);
        }
    }

    pub(super) fn on_expire(&mut self) {
        self.judge_clock();
        self.forget_expired();
        let own = self.log.take_expired_own();
        // Noted before the store forgets them, so that a crash between the two loses no dead letter.
        self.bury_expired(&own);
        self.make_use_of_expired();
        self.judge_past();
        self.expire_bans();
        self.membership.outrank(&mut self.env);
        self.settle_reachability();
        self.renew_stale();
        self.expire_partials();
        self.settle_promises();
        self.retry_unsaved();
        self.owe_again();
        self.env.timers.set(Timer::Expire, self.env.now + EXPIRE_EVERY);
    }
}
