//! Figures. Counters only rise; everything that is refused, dropped or shed has one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Direction, Mode, PeerId, Reachability, TransportKind};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts since the node started, always on. Of a number of transactions, links, messages, bytes
        /// or times, as each name says.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in declaration order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// What each counter counts, in the order of [`Counters::iter`].
            #[cfg(feature = "node")]
            pub(crate) fn descriptions() -> impl Iterator<Item = &'static str> {
                [$(concat!($($doc),*),)*].into_iter().map(str::trim)
            }

            /// Adds `other` to each counter.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Returns what was counted after `earlier`, a snapshot of the same run.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }
    };
}

counters! {
    /// Own transactions accepted by `publish`.
    transactions_published,
    /// Own transactions refused by `publish`.
    publishes_refused,
    /// Own transactions published again under the same id.
    publishes_repeated,
    /// Transactions of other origins accepted.
    transactions_accepted,
    /// Transactions of other origins accepted that are older than the link to the network: what was
    /// published before the node came, or while it was away.
    transactions_caught_up,
    /// Own transactions confirmed by `min_copies` peers.
    transactions_replicated,
    /// Own transactions offered again because too few peers confirmed them in time.
    outbox_retries,
    /// Own transactions that became dead letters.
    dead_letters,
    /// Refusals of own transactions that peers told, one for each peer and time.
    refusals_received,
    /// Own transactions that expired before anybody had them, and were published anew.
    transactions_renewed,
    /// Payload bytes accepted, own and others'.
    payload_bytes_accepted,
    /// Whole payloads received that were new at that moment.
    payloads_received,
    /// Whole payloads received that were already there.
    duplicates_received,
    /// Payload bytes received, duplicates included.
    payload_bytes_received,
    /// Whole payloads sent unasked.
    pushes_sent,
    /// Whole payloads sent because they were wanted.
    wants_served,
    /// Payload bytes sent.
    payload_bytes_sent,
    /// Pieces of large payloads sent.
    pieces_sent,
    /// Pieces of large payloads received.
    pieces_received,
    /// Pieces that fitted no running fetch.
    pieces_unexpected,
    /// Partial payloads moved from memory to the store because the room was needed.
    partials_spilled,
    /// Partial payloads that came back from the store and were fetched on from there.
    partials_resumed,
    /// Ids announced.
    announcements_sent,
    /// Ids heard of.
    announcements_received,
    /// Ids asked for.
    wants_sent,
    /// Ids that were asked of us.
    wants_received,
    /// Wants that we could not serve.
    wants_missed,
    /// Wants that a peer did not answer in time.
    wants_timed_out,
    /// Reservations that a busy peer put off.
    wants_put_off,
    /// Reservations that we put off because we served enough peers.
    wants_refused,
    /// Announcements of peers that did not serve them within 10 s of being asked.
    promises_broken,
    /// Ids dropped from the fetch table because it was full; found again by reconciliation.
    fetches_shed,
    /// Transactions of a replayed outbox that came out of their turn and waited for it.
    replay_deferred,
    /// The same that found no room to wait; they are fetched again in their turn.
    replay_dropped,
    /// Transactions refused: payload hash.
    refused_wrong_hash,
    /// Transactions refused: signature wrong or missing.
    refused_wrong_signature,
    /// Transactions refused: above the size limit.
    refused_too_large,
    /// Transactions refused: created too far from now.
    refused_skewed,
    /// Transactions refused: expired.
    refused_expired,
    /// Transactions refused: their origin has its share of the store.
    refused_over_share,
    /// Transactions refused: their origin has published as much as its rate allows.
    refused_over_rate,
    /// Transactions dropped: nobody here or behind this edge wants their topic.
    refused_unwanted,
    /// Transactions refused by the validator.
    refused_rejected,
    /// Transactions ignored by the validator.
    refused_ignored,
    /// Announcements, wants or records of a peer refused because it sent too many.
    refused_rate,
    /// Messages refused because they were malformed or out of order.
    refused_malformed,
    /// Connections that ended before they were authenticated.
    handshakes_failed,
    /// Connections refused before TLS because too many handshakes were under way.
    handshakes_shed,
    /// Times when an address was left alone for a minute, because of all the strangers that came from it.
    addresses_shunned,
    /// Links refused: another network.
    links_refused_network,
    /// Links refused: no common wire version.
    links_refused_version,
    /// Links refused: not on the allow-list.
    links_refused_not_allowed,
    /// Links refused: the peer proved no membership.
    links_refused_not_member,
    /// Links refused: banned.
    links_refused_banned,
    /// Links refused: our own address.
    links_refused_self,
    /// Links refused: no room.
    links_refused_full,
    /// Links closed: hello late or missing.
    links_refused_timeout,
    /// Links closed to make room for a newcomer.
    links_evicted,
    /// Links replaced by a newer one of the same peer.
    links_replaced,
    /// Links that went over to another connection, with all that they had.
    handovers,
    /// Connections that were to take a link over and could not be had, or did not come to it.
    handovers_failed,
    /// Connections of peers that were to take a link over, out of turn.
    handovers_refused,
    /// Connections of links that were about to be closed by the other end, or by a proxy, which said so.
    connections_leaving,
    /// Bounds that were found at which connections are cut on the way.
    link_limits_found,
    /// Times when an identity, this node's or a peer's, was seen in use by two processes at once.
    identities_in_use,
    /// Links opened, hello included.
    links_opened,
    /// Links closed after their hello.
    links_closed,
    /// Links closed for breaking the protocol.
    links_closed_violation,
    /// Links closed because the peer did not answer.
    links_closed_unresponsive,
    /// Links closed because the peer did not take what was sent.
    links_closed_slow,
    /// Dial attempts, of an endpoint by a transport.
    dials_started,
    /// Dial attempts that failed.
    dials_failed,
    /// Dial attempts given up, since another one led to the peer or the peer dialled us.
    dials_cancelled,
    /// Walks down the ladder: all dial attempts that lead to one peer together.
    walks_started,
    /// Walks that led to nobody.
    walks_failed,
    /// Walks that led to nobody for a passing reason and began anew.
    walks_retried,
    /// Walks that led to a peer by another transport than the best.
    walks_fallback,
    /// Circuit breakers that opened, or stayed open since their probe failed.
    breakers_opened,
    /// Probes let through by open circuit breakers.
    breaker_probes,
    /// Circuit breakers that closed.
    breakers_closed,
    /// Calls of `connect` refused since the circuit breaker was open.
    connects_refused_breaker,
    /// Times the node went back to its bootstrap peers.
    bootstraps_started,
    /// Peer records heard.
    records_received,
    /// Peer records refused: signature.
    records_forged,
    /// Peer records ignored: expired, older than what is known, or of a kind of address that the
    /// policy filters.
    records_ignored,
    /// Peer records dropped from a full address book.
    records_shed,
    /// Addresses heard on the LAN, from nodes that announce themselves there.
    nearby_received,
    /// Such addresses ignored: public, or of no kind that is dialled.
    nearby_ignored,
    /// Such addresses dropped, since there are too many.
    nearby_shed,
    /// Connections that relay servers told of and that were not taken: nobody let in, or too many at once.
    relayed_refused,
    /// Connections by way of relay servers that were taken and did not come about.
    relayed_failed,
    /// Pings sent.
    pings_sent,
    /// Pings that were not answered in time.
    pings_missed,
    /// Probes of peers that were answered: tests of the link.
    probes_answered,
    /// Probes of peers that were not answered, because there were too many, and answers to none of ours.
    probes_refused,
    /// Requests that the host made to single peers.
    requests_made,
    /// Own requests that were answered.
    requests_answered,
    /// Own requests that ended with an error.
    requests_failed,
    /// Own requests that the caller gave up.
    requests_cancelled,
    /// Requests of peers.
    requests_received,
    /// Requests of peers that a handler answered.
    requests_served,
    /// Requests of peers that a handler refused, or that it failed at.
    requests_refused,
    /// Requests of peers for what nobody serves here.
    requests_not_served,
    /// Requests of peers that were refused because there were too many, or too many bytes of them.
    requests_busy,
    /// Requests of peers that were refused for their size.
    requests_too_large,
    /// Requests of peers that were cancelled, ran out of time, or lost their link.
    requests_given_up,
    /// Answers of handlers that were dropped: too large, or too many bytes of them being sent.
    answers_shed,
    /// Parts, answers and cancellations that belong to no request; some may be of one that is over.
    messages_unexpected,
    /// Links closed that were dialled for requests alone, for want of use.
    errands_ended,
    /// Peers asked to have this node dialled by strangers.
    dial_backs_asked,
    /// Strangers that came as one of those had them do: proofs that this node can be dialled.
    dial_backs_seen,
    /// Dial-backs that came from a host that this node had a connection with lately, or by way of a proxy:
    /// they prove nothing.
    dial_backs_doubted,
    /// Connections that came as dial-backs and were not asked for.
    dial_backs_unasked,
    /// Peers asked that found nobody to dial, refused, or said nothing in time.
    dial_backs_unanswered,
    /// Rounds that proved an address of this node.
    addresses_proven,
    /// Rounds that found that others cannot dial an address of this node.
    addresses_not_reached,
    /// Rounds that found nothing out.
    addresses_undecided,
    /// Requests of peers to be dialled that were given to a third node.
    dial_back_requests_taken,
    /// Requests of peers to be dialled that were refused: too many, not direct, not such a port, or nobody
    /// there to dial.
    dial_back_requests_refused,
    /// Tasks of peers to dial a stranger that were carried out.
    dial_back_tasks_taken,
    /// Tasks of peers to dial a stranger that were refused: too many, no stranger, or not such an address.
    dial_back_tasks_refused,
    /// Results of dial-backs that belong to no request.
    dial_back_results_unasked,
    /// Frames sent.
    frames_sent,
    /// Frames received.
    frames_received,
    /// Bytes of frames sent.
    frame_bytes_sent,
    /// Bytes of frames received.
    frame_bytes_received,
    /// Bytes that the connections of links were given to send, with all that TLS and HTTP add, where the
    /// transport counts them. Connections that came to no link are not counted.
    link_bytes_sent,
    /// Bytes that the connections of links received, counted in the same way.
    link_bytes_received,
    /// Transactions forgotten because they expired.
    transactions_expired,
    /// Absences after which something may be missing for good.
    histories_missed,
    /// Times the clock of this machine leapt, by more than `max_clock_skew` beside monotonic time.
    clock_leaps,
    /// Storage operations that failed.
    storage_failures,
    /// Events that a slow host missed.
    events_lagged,
    /// Validator calls that ran out of time; the transaction is judged again, up to three times.
    validations_timed_out,
    /// Times this edge began to stand in for a relay, because it knew no way to one.
    stood_in,
    /// Times a peer became too slow for what was new and was skipped from there on.
    debts_opened,
    /// Times such a peer took frames again and a session over what it was skipped for was due.
    debts_repaid,
    /// Reconciliation sessions opened.
    reconcile_opened,
    /// Number of opened comparisons that compared everything they were opened for.
    reconcile_finished,
    /// Number of opened comparisons that ended before they were through: no answer, refused, too
    /// costly.
    reconcile_failed,
    /// Number of failed comparisons that cost more than what they found was worth.
    reconcile_abandoned,
    /// Number of opened comparisons that ended with their link.
    reconcile_broken_off,
    /// Reconciliation sessions of peers answered.
    reconcile_answered,
    /// Reconciliation questions and answers refused: too many, or nonsense.
    reconcile_refused,
    /// Reconciliation questions asked.
    reconcile_rounds,
    /// Bytes of reconciliation sent, about.
    reconcile_bytes_sent,
    /// Bytes of reconciliation received, about.
    reconcile_bytes_received,
    /// Ids that reconciliation found missing here.
    reconcile_missing_here,
    /// Ids that reconciliation found missing at a peer and announced to it.
    reconcile_missing_there,
    /// Requests of the original's clients that were let in, messages of streams included.
    compat_requests,
    /// Requests of the original's clients that were refused because their address had its share.
    compat_requests_refused,
    /// Registrations of the original's clients that were taken, hearsay included.
    compat_registrations,
    /// Registrations of the original's clients that were refused.
    compat_registrations_refused,
    /// Clients of the original that were dropped from the list because they did not answer.
    compat_peers_dropped,
    /// Pings of registered clients of the original.
    compat_pings_sent,
    /// Pings that registered clients of the original did not answer.
    compat_pings_missed,
    /// Messages from clients of the original, single and in streams.
    compat_messages,
    /// Notifications of transactions by clients of the original.
    compat_notifications_received,
    /// Transactions of the original's clients that were promised to be fetched.
    compat_fetches_started,
    /// Transactions that were promised to be fetched from the original's clients, and were not published.
    compat_fetches_failed,
    /// Payloads fetched from the original's clients that were others than they had told of.
    compat_fetched_wrong,
    /// Transactions published for the original's clients.
    compat_published,
    /// Notifications that registered clients of the original took.
    compat_notifications_sent,
    /// Notifications that did not reach a registered client of the original.
    compat_notifications_failed,
    /// Notifications dropped because too many waited for a client of the original.
    compat_notifications_dropped,
    /// Transactions that the original's clients no longer find by hash, because there were too many.
    compat_hashes_forgotten,
}

/// State of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinkState {
    /// The peer answers.
    Up,
    /// The peer missed an answer; one more and the link is closed.
    Suspect,
}

/// Linked peer, as `PeerNode::peers` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The id of the peer, as the handshake proved it.
    pub peer: PeerId,
    /// The transport that carries the link.
    pub transport: TransportKind,
    /// The address of the peer, as `host:port`, where the transport has one.
    pub address: Option<String>,
    /// The side that dialled.
    pub direction: Direction,
    /// The state of the link.
    pub state: LinkState,
    /// The smoothed round-trip time in microseconds; 0 until measured.
    pub rtt_us: u64,
    /// The mean deviation of round trips from the smoothed one, in microseconds.
    #[serde(default)]
    pub jitter_us: u64,
    /// The score of the link from 0 to 100, from what went over it anyway; 0 until measured. See
    /// [`LinkStatus::rating`], and the page on operating in the guide.
    #[serde(default)]
    pub quality: u8,
    /// Percentage of the transactions asked of the peer lately that it served; `None` where nothing was
    /// asked.
    #[serde(default)]
    pub served_percent: Option<u8>,
    /// Percentage of the payloads that came over the link lately and were new; `None` where none came.
    #[serde(default)]
    pub first_percent: Option<u8>,
    /// Number of seconds since the hello.
    pub connected_s: u64,
    /// Number of bytes waiting to be sent.
    pub queued_bytes: u64,
    /// Number of bytes sent of which the peer has not said that they arrived.
    #[serde(default)]
    pub under_way_bytes: u64,
    /// Number of bytes in a second that the link carried when there was much to send; 0 until measured.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// Number of bytes in a second that came in over the link while much did; 0 until measured.
    #[serde(default)]
    pub incoming_bytes_per_second: u64,
    /// Number of transactions that still have to be announced or pushed to the peer.
    #[serde(rename = "behind")]
    pub lag: u64,
    /// True: the peer is too slow for what is new. The peer is skipped, and everything is made up
    /// for as soon as it takes what waits for it.
    #[serde(default)]
    pub in_debt: bool,
    /// Number of links from the peer to the nearest relay, as it says; 0 for a relay and for an edge that
    /// stands in for one, 9 for an edge that knows none.
    #[serde(default)]
    pub depth: u8,
    /// True: the peer is a relay, and carries every topic by configuration.
    #[serde(default)]
    pub relay: bool,
    /// Number of milliseconds from this machine's clock to the peer's, with the time that its word took;
    /// `None` while the peer has not said its own.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
}

impl LinkStatus {
    /// Returns the rating of the link by its quality: `excellent` from 80 on, `good` from 60, `fair` from
    /// 40, else `poor`; `unknown` before the first ping is answered.
    pub fn rating(&self) -> &'static str {
        if self.rtt_us == 0 && self.quality == 0 { "unknown" } else { rating_of(self.quality) }
    }
}

/// Returns the rating of a score.
pub(crate) const fn rating_of(score: u8) -> &'static str {
    match score {
        80.. => "excellent",
        60.. => "good",
        40.. => "fair",
        _ => "poor",
    }
}

/// Snapshot of a node, as `PeerNode::stats` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "figures, each by its name")]
#[non_exhaustive]
pub struct Stats {
    /// The id of this node.
    pub peer_id: PeerId,
    /// Time of the snapshot in Unix milliseconds, by the clock that the node goes by: that of most
    /// peers where they find the machine's off.
    #[serde(default)]
    pub at_ms: u64,
    /// The connection of the node to its network.
    pub mode: Mode,
    /// Number of seconds since the node started.
    pub uptime_s: u64,
    /// Number of links whose hello is through.
    pub links: u32,
    /// Number of connections still in their hello.
    pub handshakes: u32,
    /// Number of peers in the address book.
    pub known_peers: u32,
    /// Number of circuit breakers that are open or half-open: peers and addresses that are left alone
    /// for a while.
    pub open_breakers: u32,
    /// Number of those that are half-open: one walk probes whether the peer can be reached.
    #[serde(default)]
    pub half_open_breakers: u32,
    /// Number of peers under a ban.
    pub banned_peers: u32,
    /// Number of links by the transport that carries them; a transport that carries none is not named.
    #[serde(default)]
    pub links_by_transport: BTreeMap<String, u32>,
    /// Number of links by who dialled, `outbound` for this node and `inbound` for the peer; where there
    /// is none the side is not named.
    #[serde(default)]
    pub links_by_direction: BTreeMap<String, u32>,
    /// Number of transactions retained in the log.
    pub retained: u64,
    /// Number of bytes of their payloads.
    #[serde(default)]
    pub retained_bytes: u64,
    /// Number of bytes that the store may take; `None` where it has no bound.
    #[serde(default)]
    pub store_max_bytes: Option<u64>,
    /// True: storage fails.
    #[serde(default)]
    pub storage_failing: bool,
    /// Number of own transactions not yet confirmed by `min_copies` peers.
    pub outbox: u64,
    /// Number of own transactions that were given up; kept until they are deleted or published again.
    pub dead_letters: u64,
    /// Number of own transactions that may wait or be kept as dead letters, together.
    #[serde(default)]
    pub outbox_limit: u64,
    /// Number of rounds that ended without any taker, over all own transactions that wait.
    #[serde(default)]
    pub outbox_attempts: u64,
    /// Number of milliseconds since the oldest of them was published, or published anew; `None` while
    /// none waits.
    #[serde(default)]
    pub outbox_oldest_age_ms: Option<u64>,
    /// Number of transactions being fetched.
    pub fetching: u64,
    /// Numbers of transactions of other origins accepted, by the hops that they came over: at index 1
    /// those that came from their origin; at the last, 15, also those that came over more.
    #[serde(default)]
    pub delivery_hops: Vec<u64>,
    /// Numbers of transactions of other origins accepted, by the time from being published to being
    /// accepted here: each up to one of [`Stats::latency_bounds_us`], and the last beyond all of them.
    /// Both times are read on the clocks that the two nodes go by, to the millisecond: clocks that
    /// differ by less than `max_clock_skew` are not told apart from the way. What is older than the
    /// link to the network is not in it (`transactions_caught_up`).
    #[serde(default)]
    pub delivery_latency: Vec<u64>,
    /// Number of microseconds of all these times together.
    #[serde(default)]
    pub delivery_latency_sum_us: u64,
    /// True: the node carries every topic; a relay always, an edge while it stands in for one or
    /// while that is what it or somebody behind it wants.
    #[serde(default)]
    pub carries_all: bool,
    /// Number of topics that the node carries, where it does not carry all.
    #[serde(default)]
    pub topics_carried: u32,
    /// True: the node is an edge that stands in for a relay, because it knows no way to one.
    #[serde(default)]
    pub stands_in: bool,
    /// True: most peers agree that the clock of this machine is off by more than `max_clock_skew`; the
    /// node goes by theirs.
    #[serde(default)]
    pub clock_off: bool,
    /// Number of milliseconds from this machine's clock to the median of its peers' clocks; 0 while no
    /// peer has said its own.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// Number of votes in that median: groups of addresses, or peers where all are of one group.
    #[serde(default)]
    pub clock_votes: u32,
    /// Number of links by their rating ([`LinkStatus::rating`]); those not measured yet are not counted.
    #[serde(default)]
    pub ratings: BTreeMap<String, u32>,
    /// Number of bytes of memory that payloads and caches take, by owner: `assemblies` (large payloads
    /// on their way in), `cache` (recent payloads), `checks`, `deferred` (replayed outboxes),
    /// `inbound` (frames not handled yet), `links` (what waits for peers), `proofs`, `publishes` (not
    /// taken yet), `requests` (bodies of requests and answers), `serving` (read for peers), `storing` (on
    /// the way to the stores), `stores` (caches of the stores), `trails` (what became of transactions). What two owners share counts for both.
    #[serde(default)]
    pub memory: BTreeMap<String, u64>,
    /// Number of bytes that each owner in `memory` may take: its share of
    /// [`LimitsConfig::memory`](crate::config::LimitsConfig::memory), and for `links` the sum of their
    /// bounds. One payload alone may take more than the share of its owner.
    #[serde(default)]
    pub memory_limits: BTreeMap<String, u64>,
    /// The addresses that the node listens on, as `ip:port`: the one for peers, and one for plain HTTP
    /// where there is one.
    #[serde(default)]
    pub listen: Vec<String>,
    /// The addresses in the node's own record, which peers pass on, the best first.
    #[serde(default)]
    pub advertised: Vec<String>,
    /// Whether others can dial this node, and where.
    #[serde(default)]
    pub reachability: Reachability,
    /// IP addresses from which peers see this node come, those that most name first.
    #[serde(default)]
    pub observed: Vec<String>,
    /// Number of clients of the original that are registered and answer.
    #[serde(default)]
    pub compat_peers: u32,
    /// Number of transactions that such clients find by the hash of their payload.
    #[serde(default)]
    pub compat_hashes: u64,
    /// Counts since the start.
    pub counters: Counters,
}
