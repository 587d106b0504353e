//! Learning of peers: each link is asked once when it comes up, three are asked at every refresh,
//! and one is asked again and again (with growing pauses) while links are missing and nobody is
//! left to dial. Every node's own record travels in its hello, which is how it registers.
//!
//! Only records that their subject signed are believed or passed on, at most 32 at a time. A linked
//! subject that says less than it has signed before is shown that record, and signs a new one above
//! it: what it has signed itself is the furthest that its number can be pushed.
//!
//! Tested by: the tests below, `sim::tests::hostile`, `sim::tests::addresses`.

use std::time::Duration;

use crate::config::AddressPolicy;
use crate::protocol::env::{Env, Task};
use crate::protocol::guard::{Guard, Work};
use crate::protocol::io::{Output, Ticket};
use crate::protocol::link::{Link, Links};
use crate::protocol::timers::Timer;
use crate::types::{
    AddressScope, Endpoint, Event, LinkId, MAX_RECORDS_PER_MESSAGE, Message, PeerId, PeerRecord,
    RECORD_LIFETIME_MS,
};

use super::Membership;
use super::address_book::{Kind, Noted};

/// Minimum and maximum delay between asking for peers while links are missing.
const NEEDY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Minimum time between two tellings of peers on one link.
const TELL_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// Time after which the node's own record is signed anew: four times within its lifetime.
const RENEW_AFTER: Duration = Duration::from_millis(RECORD_LIFETIME_MS / 4);
/// Maximum number of answers whose signatures are being checked at once; each holds at most 32
/// records.
const MAX_CHECKING: u64 = 64;
/// Minimum time between two records signed because others hold one with a higher number. Two
/// processes with one identity outdo each other.
const OUTRANK_AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// Number of links asked at a refresh.
const ASK_AT_REFRESH: usize = 3;

impl Membership {
    pub(in crate::protocol) fn on_refresh(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &Guard,
    ) {
        let mut asked = links.up_ids();
        env.rng.shuffle(&mut asked);
        for link in asked.into_iter().take(ASK_AT_REFRESH) {
            ask_for_peers(env, links, link);
        }
        let issued = self.record.draft.issued;
        // From a clock that was ahead, it would be passed on by nobody for as long.
        let is_early = issued > env.wall.plus(env.config.network.max_clock_skew);
        if is_early || issued.plus(RENEW_AFTER) <= env.wall {
            env.push(Output::RenewRecord { above: self.record.seq() });
        }
        let interval = env.rng.about(env.config.discovery.refresh_interval);
        env.timers.set(Timer::Refresh, env.now + interval);
        self.maintain(env, links, guard);
    }

    pub(super) fn arm_needy(&mut self, env: &mut Env, links: &Links) {
        if !env.timers.is_set(Timer::Needy) && links.up_count() > 0 {
            let pause = super::address_book::backoff(self.needy_turns, NEEDY.0, NEEDY.1);
            let pause = pause / 4 + env.rng.jitter(pause);
            env.timers.set(Timer::Needy, env.now + pause);
        }
    }

    pub(in crate::protocol) fn on_needy(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &Guard,
    ) {
        let ups = links.up_ids();
        if let Some(link) = ups.get(env.rng.below(ups.len())) {
            ask_for_peers(env, links, *link);
        }
        self.needy_turns = self.needy_turns.saturating_add(1);
        self.maintain(env, links, guard);
    }

    pub(in crate::protocol) fn on_peers_request(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &Guard,
        link: LinkId,
        max: u32,
    ) {
        let now = env.now;
        let Some(l) = links.all.get_mut(&link) else { return };
        let remote = l.remote;
        let Some(up) = &mut l.up else { return };
        if up.told_peers.is_some_and(|at| now.since(at) < TELL_AT_MOST_EVERY) {
            env.counters.refused_rate += 1;
            return;
        }
        up.told_peers = Some(now);
        if max > 0 {
            self.tell_peers(env, links, guard, link, &remote);
        }
    }

    /// Names up to 32 peers that were really there, in random order.
    pub(in crate::protocol) fn tell_peers(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &Guard,
        link: LinkId,
        remote: &PeerId,
    ) {
        let (wall, skew) = (env.wall, env.config.network.max_clock_skew);
        let worth = |(id, k): (&PeerId, &super::address_book::Known)| {
            let record = k.record.as_ref()?;
            let good = *id != *remote
                && k.last_up.is_some()
                && k.failures < env.config.discovery.unhealthy_after
                && !record.draft.endpoints.is_empty()
                && record.is_current(wall, skew)
                && !guard.is_banned(id, env.corroborated());
            good.then(|| (k.kind, record.clone()))
        };
        let mut known: Vec<_> = self.book.known.iter().filter_map(worth).collect();
        env.rng.shuffle(&mut known);
        let mut relays = 0;
        if self.book.is_mixed() {
            // Relays find each other, also where only edges link them.
            known.sort_by_key(|(kind, _)| *kind);
            relays = known.iter().filter(|(kind, _)| *kind == Kind::Relay).count();
        }
        known.truncate(MAX_RECORDS_PER_MESSAGE);
        let records: Vec<_> = known.into_iter().map(|(_, record)| record).collect();
        let relays = u32::try_from(relays.min(records.len())).unwrap_or(u32::MAX);
        if !records.is_empty() {
            links.send(env, link, Message::Peers { records, relays });
        }
    }

    pub(in crate::protocol) fn on_peers(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &mut Guard,
        link: LinkId,
        records: Vec<PeerRecord>,
        relays: u32,
    ) {
        let named = records.iter().take(usize::try_from(relays).unwrap_or(usize::MAX));
        let relays: Vec<PeerId> = named.map(PeerRecord::peer).collect();
        for peer in &relays {
            self.book.hear_of_relay(peer);
        }
        env.counters.records_received += records.len() as u64;
        let teller = links.peer_of(link);
        let (wall, skew) = (env.wall, env.config.network.max_clock_skew);
        // Of a node whose clock is wrong every record seems to be, and without more peers it would
        // never find out.
        let theirs = env.clock.second_opinion(link);
        let news = |r: &PeerRecord| {
            if r.peer() == env.me {
                return r.seq() >= self.record.seq() && *r != self.record;
            }
            let known = self.book.known.get(&r.peer()).and_then(|k| k.record.as_ref());
            if teller == Some(r.peer()) {
                return known != Some(r);
            }
            let is_current =
                r.is_current(wall, skew) || theirs.is_some_and(|t| r.is_current(t, skew));
            is_current && known.is_none_or(|old| old.seq() < r.seq())
        };
        let (fresh, stale): (Vec<_>, Vec<_>) = records.into_iter().partition(news);
        env.counters.records_ignored += stale.len() as u64;
        self.verify_records(env, links, guard, link, fresh, relays);
    }

    /// Has the signatures of records checked; `relays` are said to be relays.
    pub(in crate::protocol) fn verify_records(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &mut Guard,
        link: LinkId,
        records: Vec<PeerRecord>,
        relays: Vec<PeerId>,
    ) {
        if records.is_empty() {
            return;
        }
        if self.checking_records.level() >= MAX_CHECKING {
            env.counters.refused_rate += records.len() as u64;
            return;
        }
        if !guard.allow(env, links, link, Work::Record, records.len()) {
            return;
        }
        let Some(l) = links.all.get(&link) else { return };
        self.checking_records.enter(1);
        let (scope, source) = (scope_of(l), l.remote);
        let ticket = env.ticket(Task::Records { source, scope, relays });
        env.push(Output::VerifyRecords { ticket, records });
    }

    /// Takes over what was signed by its subject; returns who told us of it.
    pub(in crate::protocol) fn on_records_verified(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &Guard,
        ticket: Ticket,
        valid: Vec<PeerRecord>,
        forged: usize,
    ) -> Option<PeerId> {
        let Some(Task::Records { source, scope, relays }) = env.tickets.remove(&ticket) else {
            return None;
        };
        self.checking_records.leave(1);
        for record in valid {
            self.note_record(env, links, guard, record, &source, scope);
        }
        for peer in relays {
            self.book.hear_of_relay(&peer);
        }
        if forged > 0 {
            env.counters.records_forged += forged as u64;
            env.emit(Event::RecordRefused { peer: source });
        }
        Some(source)
    }

    fn note_record(
        &mut self,
        env: &mut Env,
        links: &mut Links,
        guard: &Guard,
        record: PeerRecord,
        source: &PeerId,
        scope: AddressScope,
    ) {
        let peer = record.peer();
        if peer == env.me {
            self.note_own_record(env, &record);
            return;
        }
        if guard.is_banned(&peer, env.corroborated()) {
            env.counters.records_ignored += 1;
            return;
        }
        let policy = env.config.discovery.addresses;
        let places = record.places();
        let allowed = |e: &&Endpoint| policy_allows(policy, scope, e);
        let dialable: Vec<_> = places.iter().filter(allowed).cloned().collect();
        if dialable.len() < places.len() {
            env.counters.records_ignored += 1;
        }
        let told_by = (peer != *source).then_some(*source);
        let noted = self.book.note_record(record, dialable, told_by);
        match noted {
            Noted::New => {
                self.needy_turns = 0;
                self.save_peer(env, &peer);
            }
            Noted::Updated | Noted::Corrected => self.save_peer(env, &peer),
            Noted::Old => {}
            Noted::Shed => env.counters.records_shed += 1,
        }
        let by_subject = told_by.is_none();
        if (by_subject || noted == Noted::Updated)
            && let Some(link) = links.by_peer.get(&peer).copied()
            && let Some(higher) = self.book.unknown_to_subject(&peer)
        {
            let records = vec![higher.clone()];
            links.send(env, link, Message::Peers { records, relays: 0 });
        }
    }

    /// Takes in a record of this node that it did not sign in this run.
    fn note_own_record(&mut self, env: &mut Env, record: &PeerRecord) {
        if record.seq() >= self.record.seq() && *record != self.record {
            self.outranked_by = self.outranked_by.max(Some(record.seq()));
            self.outrank(env);
        }
    }

    /// Has the node's own record signed above what others hold, now or later.
    pub(in crate::protocol) fn outrank(&mut self, env: &mut Env) {
        let above = self.outranked_by.filter(|above| *above >= self.record.seq());
        if env.now < self.next_outranking {
            return;
        }
        self.outranked_by = None;
        if let Some(above) = above {
            self.next_outranking = env.now + OUTRANK_AT_MOST_EVERY;
            tracing::info!(
                target: "sorcha_peer::overlay",
                above,
                "signing the own record anew: others hold one with a higher number"
            );
            env.push(Output::RenewRecord { above });
        }
    }
}

/// Returns where a peer is: what to believe of it depends on that. A proxy in front of this node hides it,
/// and a transport of another kind without addresses is local.
pub(in crate::protocol) fn scope_of(l: &Link) -> AddressScope {
    match (l.address, &l.endpoint) {
        (Some(address), _) => AddressScope::of(address.ip()),
        (None, Some(endpoint)) => endpoint.scope(),
        (None, None) if l.kind.is_network() => AddressScope::Public,
        (None, None) => AddressScope::Loopback,
    }
}

/// Asks a peer whom it knows.
pub(in crate::protocol) fn ask_for_peers(env: &mut Env, links: &mut Links, link: LinkId) {
    let max = u32::try_from(MAX_RECORDS_PER_MESSAGE).unwrap_or(u32::MAX);
    links.send(env, link, Message::PeersRequest { max });
}

/// Reports whether an address heard from a peer of the given scope may be stored and dialled.
pub(in crate::protocol) fn policy_allows(
    policy: AddressPolicy,
    teller: AddressScope,
    endpoint: &Endpoint,
) -> bool {
    let scope = endpoint.scope();
    match policy {
        _ if scope == AddressScope::Unusable || endpoint.port() == 0 => false,
        AddressPolicy::Any => true,
        _ if teller == AddressScope::Public && endpoint.may_lead_inside() => false,
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
        for (text, from_afar) in [
            ("https://peer.example.com/a", true),
            ("peer.example.com:1", true),
            ("http://peer.example.com/a", false),
            ("ws://8.8.8.8", false),
            ("https://intranet./a", false),
        ] {
            for policy in [AddressPolicy::Auto, AddressPolicy::Public] {
                assert_eq!(allows(policy, S::Public, text), from_afar, "{text}");
            }
            assert!(allows(AddressPolicy::Auto, S::Private, text), "{text}");
        }
    }
}
