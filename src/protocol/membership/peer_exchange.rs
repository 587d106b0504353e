//! Learning of peers: each link is asked once when it comes up, three are asked at every refresh,
//! and one is asked again and again (with growing pauses) while links are missing and nobody is
//! left to dial. Every node's own record travels in its hello, which is how it registers.
//!
//! Only records that their subject signed are believed or passed on, at most 32 at a time.

use std::time::Duration;

use crate::config::AddressPolicy;
use crate::types::{
    AddressScope, Endpoint, Event, LinkId, MAX_RECORDS_PER_MESSAGE, Message, PeerId, PeerRecord,
    RECORD_LIFETIME_MS,
};

use super::address_book::{Kind, Noted};
use crate::protocol::guard::Work;
use crate::protocol::io::{Output, Ticket};
use crate::protocol::timers::Timer;
use crate::protocol::{Protocol, env::Task};

/// First and longest pause between asking for peers while links are missing.
const NEEDY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A link is told of peers at most this often.
const TELL_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// The node's own record is signed anew after this: four times within its lifetime.
const RENEW_AFTER: Duration = Duration::from_millis(RECORD_LIFETIME_MS / 4);
/// Answers whose signatures are being checked at once; each holds at most 32 records.
const MAX_CHECKING: u64 = 64;
/// Links asked at a refresh.
const ASK_AT_REFRESH: usize = 3;

impl Protocol {
    pub(in crate::protocol) fn ask_for_peers(&mut self, link: LinkId) {
        let max = u32::try_from(MAX_RECORDS_PER_MESSAGE).unwrap_or(u32::MAX);
        self.send(link, Message::PeersRequest { max });
    }

    pub(in crate::protocol) fn on_refresh(&mut self) {
        let mut links = self.links.up_ids();
        self.env.rng.shuffle(&mut links);
        for link in links.into_iter().take(ASK_AT_REFRESH) {
            self.ask_for_peers(link);
        }
        if self.membership.record.draft.issued.plus(RENEW_AFTER) <= self.env.wall {
            self.env.push(Output::RenewRecord);
        }
        let interval = self.env.rng.about(self.env.config.discovery.refresh_interval);
        self.env.timers.set(Timer::Refresh, self.env.now + interval);
        self.maintain();
    }

    pub(super) fn arm_needy(&mut self) {
        if !self.env.timers.is_set(Timer::Needy) && self.links.up_count() > 0 {
            let pause = super::address_book::backoff(self.membership.needy_turns, NEEDY.0, NEEDY.1);
            let pause = pause / 4 + self.env.rng.jitter(pause);
            self.env.timers.set(Timer::Needy, self.env.now + pause);
        }
    }

    pub(in crate::protocol) fn on_needy(&mut self) {
        let links = self.links.up_ids();
        if let Some(link) = links.get(self.env.rng.below(links.len())) {
            self.ask_for_peers(*link);
        }
        self.membership.needy_turns = self.membership.needy_turns.saturating_add(1);
        self.maintain();
    }

    pub(in crate::protocol) fn on_peers_request(&mut self, link: LinkId, max: u32) {
        let now = self.env.now;
        let Some(l) = self.links.all.get_mut(&link) else { return };
        let remote = l.remote;
        let Some(up) = &mut l.up else { return };
        if up.told_peers.is_some_and(|at| now.since(at) < TELL_AT_MOST_EVERY) {
            self.env.counters.refused_rate += 1;
            return;
        }
        up.told_peers = Some(now);
        if max > 0 {
            self.tell_peers(link, &remote);
        }
    }

    /// Names up to 32 peers that were really there, in random order.
    pub(in crate::protocol) fn tell_peers(&mut self, link: LinkId, remote: &PeerId) {
        let (wall, skew) = (self.env.wall, self.env.config.network.max_clock_skew);
        let worth = |(id, k): (&PeerId, &super::address_book::Known)| {
            let record = k.record.as_ref()?;
            let good = *id != *remote
                && k.last_up.is_some()
                && k.failures < self.env.config.discovery.unhealthy_after
                && !record.draft.endpoints.is_empty()
                && record.is_current(wall, skew)
                && !self.guard.is_banned(id, wall);
            good.then(|| (k.kind, record.clone()))
        };
        let mut known: Vec<_> = self.membership.book.known.iter().filter_map(worth).collect();
        self.env.rng.shuffle(&mut known);
        let mut relays = 0;
        if self.membership.book.is_mixed() {
            // Relays find each other, also where only edges link them.
            known.sort_by_key(|(kind, _)| *kind);
            relays = known.iter().filter(|(kind, _)| *kind == Kind::Relay).count();
        }
        known.truncate(MAX_RECORDS_PER_MESSAGE);
        let records: Vec<_> = known.into_iter().map(|(_, record)| record).collect();
        let relays = u32::try_from(relays.min(records.len())).unwrap_or(u32::MAX);
        if !records.is_empty() {
            self.send(link, Message::Peers { records, relays });
        }
    }

    pub(in crate::protocol) fn on_peers(
        &mut self,
        link: LinkId,
        records: Vec<PeerRecord>,
        relays: u32,
    ) {
        let named = records.iter().take(usize::try_from(relays).unwrap_or(usize::MAX));
        let relays: Vec<PeerId> = named.map(PeerRecord::peer).collect();
        for peer in &relays {
            self.membership.book.hear_of_relay(peer);
        }
        self.env.counters.records_received += records.len() as u64;
        let (wall, skew) = (self.env.wall, self.env.config.network.max_clock_skew);
        let news = |r: &PeerRecord| {
            let known = self.membership.book.known.get(&r.peer()).and_then(|k| k.record.as_ref());
            r.peer() != self.env.me
                && r.is_current(wall, skew)
                && known.is_none_or(|old| old.draft.seq < r.draft.seq)
        };
        let (fresh, stale): (Vec<_>, Vec<_>) = records.into_iter().partition(news);
        self.env.counters.records_ignored += stale.len() as u64;
        self.verify_records(link, fresh, relays);
    }

    /// Has the signatures of records checked; `relays` are said to be relays.
    pub(in crate::protocol) fn verify_records(
        &mut self,
        link: LinkId,
        records: Vec<PeerRecord>,
        relays: Vec<PeerId>,
    ) {
        if records.is_empty() {
            return;
        }
        if self.membership.checking_records.level() >= MAX_CHECKING {
            self.env.counters.refused_rate += records.len() as u64;
            return;
        }
        if !self.allow(link, Work::Record, records.len()) {
            return;
        }
        let Some(l) = self.links.all.get(&link) else { return };
        self.membership.checking_records.enter(1);
        // What to believe depends on where the teller is; a transport without addresses is local.
        let scope = l.address.map_or(AddressScope::Loopback, |a| AddressScope::of(a.ip()));
        let source = l.remote;
        let ticket = self.env.ticket(Task::Records { source, scope, relays });
        self.env.push(Output::VerifyRecords { ticket, records });
    }

    pub(in crate::protocol) fn on_records_verified(
        &mut self,
        ticket: Ticket,
        valid: Vec<PeerRecord>,
        forged: usize,
    ) {
        let Some(Task::Records { source, scope, relays }) = self.env.tickets.remove(&ticket) else {
            return;
        };
        self.membership.checking_records.leave(1);
        for record in valid {
            self.note_record(record, &source, scope);
        }
        for peer in relays {
            self.membership.book.hear_of_relay(&peer);
        }
        if forged > 0 {
            self.env.counters.records_forged += forged as u64;
            self.env.emit(Event::RecordRefused { peer: source });
            self.punish(&source, "forged peer record");
        }
        self.maintain();
    }

    fn note_record(&mut self, record: PeerRecord, source: &PeerId, scope: AddressScope) {
        let peer = record.peer();
        if peer == self.env.me || self.guard.is_banned(&peer, self.env.wall) {
            self.env.counters.records_ignored += 1;
            return;
        }
        let policy = self.env.config.discovery.addresses;
        let endpoints = &record.draft.endpoints;
        let believed =
            |e: &&Endpoint| policy_allows(policy, scope, e) && !self.membership.book.is_own(e);
        let dialable: Vec<_> = endpoints.iter().filter(believed).cloned().collect();
        if dialable.len() < endpoints.len() {
            self.env.counters.records_ignored += 1;
        }
        let told_by = (peer != *source).then_some(*source);
        match self.membership.book.note_record(record, dialable, told_by) {
            Noted::New => {
                self.membership.needy_turns = 0;
                self.save_peer(&peer);
            }
            Noted::Updated => self.save_peer(&peer),
            Noted::Old => {}
            Noted::Shed => self.env.counters.records_shed += 1,
        }
    }
}

/// Whether an address heard from a peer of the given scope may be stored and dialled.
fn policy_allows(policy: AddressPolicy, teller: AddressScope, endpoint: &Endpoint) -> bool {
    let scope = endpoint.scope();
    match policy {
        _ if scope == AddressScope::Unusable || endpoint.port() == 0 => false,
        AddressPolicy::Any => true,
        AddressPolicy::Public => scope == AddressScope::Public,
        AddressPolicy::Auto => scope >= teller,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_point_us_at_our_own_machine_from_afar() {
        use AddressScope as S;
        let allows = |policy, teller, text: &str| {
            policy_allows(policy, teller, &text.parse::<Endpoint>().unwrap())
        };
        assert!(!allows(AddressPolicy::Auto, S::Public, "127.0.0.1:22"));
        assert!(!allows(AddressPolicy::Auto, S::Public, "10.0.0.1:22"));
        assert!(allows(AddressPolicy::Auto, S::Public, "8.8.8.8:1"));
        assert!(!allows(AddressPolicy::Auto, S::Private, "127.0.0.1:22"));
        assert!(allows(AddressPolicy::Auto, S::Private, "10.0.0.1:1"));
        assert!(allows(AddressPolicy::Auto, S::Loopback, "127.0.0.1:1"));
        assert!(!allows(AddressPolicy::Any, S::Loopback, "224.0.0.1:1"));
        assert!(!allows(AddressPolicy::Public, S::Loopback, "127.0.0.1:1"));
    }
}
