//! Which topics a node carries, and whom it tells.
//!
//! A *relay* (`gossip.role = "all"`) carries every topic. An *edge* carries the topics that its
//! host wants and those that peers *downstream* of it want, and tells its peers so:
//!
//! ```text
//!   relay 0 ◄── edge 1 ◄── edge 2          depth: links to the nearest relay
//!     all        a, b        b             interest: own topics and those downstream
//!        ──── what is wanted ───►
//!        ◄─── everything held ───
//! ```
//!
//! **Depth.** That of an edge is one more than the least among its peers, at most `MAX_DEPTH`; a
//! peer whose own way leads over this node is no way, and one whose way ends at a real relay is
//! preferred. An edge that comes up waits a moment (`LOOK`) for a relay before it hangs off another
//! edge. One that has links and no way for `GRACE` *stands in* for a relay: depth 0, carries
//! everything, says that it is a stand-in (`makeshift` on the wire). It steps down for a way to a
//! real relay only, so that two of them never wait for each other. So whatever fails ends in
//! carrying everything, and a network of edges alone works like one of relays.
//!
//! **Interest** flows towards relays: an edge adds that of peers *downstream* of it, which say that their way
//! leads over it. Ways form a forest whenever depths are at rest, so no topic keeps itself alive in a
//! cycle; while they change, depth counts up to its bound and ends one. Interest is full state, said
//! at most about once a second, and more than `MAX_INTERESTS` topics are everything.
//!
//! **Travel.** Down a link goes what the peer wants. Up a link goes everything held, and who is
//! nearer to a relay takes it, wanted or not: thus what an edge publishes reaches a relay, and from
//! there everybody who wants it. Relays keep links with each other (`membership::overlay`).
//!
//! **Repair.** A link compares the topics that both sides said they want. When this node wants more,
//! it compares everything with all who carry that. What it holds and does not want (own publishes,
//! what came from downstream) is in no comparison: it is announced on every new way up, and again until
//! a peer up there confirms that it has stored it. A race between what is said and what is sent costs
//! bytes: what nobody here wants and does not come from downstream is dropped, and not fetched again from
//! that side until this node wants more.
//!
//! Invariant of an edge, together with `spread` and `reconcile`: each live entry is wanted here and
//! under the invariant of every link whose peer wants it, or it is stored at a peer nearer to a relay,
//! or it will be announced to one.
//!
//! Tested by: `sim::tests::topics`, `protocol::tests::greedy`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{GossipConfig, Role};
use crate::protocol::Protocol;
use crate::protocol::link::{Established, Link};
use crate::protocol::log::Record;
use crate::protocol::outbox::ReplayCursor;
use crate::protocol::timers::Timer;
use crate::types::{
    Event, Header, Interest, LinkId, MAX_DEPTH, MAX_INTERESTS, Message, MonoTime, NOWHERE, Topic,
    TopicKey, TransactionId,
};

/// Time, up to twice, for which an edge looks for a way to a relay before it stands in for one.
const GRACE: Duration = Duration::from_secs(4);
/// Time, up to twice, for which an edge waits for a relay before it hangs off another edge.
const LOOK: Duration = Duration::from_secs(1);
/// Minimum time between two changes that peers are told of.
pub(in crate::protocol) const SAY_EVERY: Duration = Duration::from_secs(1);

/// Topics that this node carries, and what peers were told of them.
#[derive(Debug)]
pub(in crate::protocol) struct Carrying {
    /// True: this node carries not everything, if it can be helped.
    edge: bool,
    /// Topics carried without a subscriber.
    fixed: BTreeSet<TopicKey>,
    /// Topics that the host subscribes to; `None` is everything.
    live: Option<BTreeSet<TopicKey>>,
    /// Interest that counts now; peers know what was last said to them.
    ours: Interest,
    /// Knowledge of some way, and time until which an edge at `NOWHERE` waits for better.
    pub(in crate::protocol) waits: Option<(bool, MonoTime)>,
    /// True: some peer was not told yet.
    unsaid: bool,
    said: Option<MonoTime>,
}

impl Carrying {
    pub(in crate::protocol) fn new(config: &GossipConfig) -> Self {
        let topics = config.topics.iter().filter_map(|name| Topic::new(name).ok());
        let fixed: BTreeSet<_> = topics.map(|topic| TopicKey::of(&topic)).collect();
        let edge = config.role == Role::Edge;
        let ours = if edge {
            let topics = Some(fixed.iter().copied().collect());
            Interest { depth: NOWHERE, topics, ..Interest::default() }
        } else {
            Interest::default()
        };
        let live = Some(BTreeSet::new());
        Self { edge, fixed, live, ours, waits: None, unsaid: false, said: None }
    }

    pub(in crate::protocol) fn ours(&self) -> &Interest {
        &self.ours
    }

    /// Reports whether this is an edge that carries everything for want of a relay.
    pub(in crate::protocol) fn stands_in(&self) -> bool {
        self.edge && self.ours.depth == 0
    }
}

/// Interest of a peer, as it says.
#[derive(Debug)]
pub(in crate::protocol) struct PeerInterest {
    /// Interest that counts now.
    pub(in crate::protocol) theirs: Interest,
    /// Interest that the peer told since, too soon.
    pub(in crate::protocol) later: Option<Interest>,
    /// True: the peer is nearer to a relay, as of the last change.
    pub(in crate::protocol) uphill: bool,
}

impl PeerInterest {
    pub(in crate::protocol) fn new(theirs: Interest) -> Self {
        Self { theirs, later: None, uphill: false }
    }
}

/// The best way to a relay: over a peer of this depth and name.
#[derive(Debug, Clone, Copy)]
struct Way {
    makeshift: bool,
    depth: u8,
    via: u64,
}

/// Direction of a peer, seen on the way to a relay.
impl Protocol {
    /// Reports whether a peer is nearer to a relay: it takes everything.
    pub(in crate::protocol) fn is_uphill(&self, link: LinkId) -> bool {
        let Some((ours, theirs)) = self.sides(link) else { return false };
        theirs.depth < ours.depth && !self.leads_here(theirs)
    }

    /// Reports whether a peer's way to a relay leads here, or may: what it sends is taken.
    pub(in crate::protocol) fn is_downstream(&self, link: LinkId) -> bool {
        let Some((ours, theirs)) = self.sides(link) else { return false };
        theirs.depth > ours.depth || self.leads_here(theirs)
    }

    /// Returns what both sides of a link were last told: so both see alike which of them is nearer.
    pub(in crate::protocol) fn sides(&self, link: LinkId) -> Option<(&Interest, &Interest)> {
        let l = self.links.all.get(&link)?;
        Some((&l.said, &l.up.as_ref()?.interest.theirs))
    }

    fn leads_here(&self, theirs: &Interest) -> bool {
        theirs.via != 0 && theirs.via == Interest::short(&self.env.me)
    }

    fn up_of(&self, link: LinkId) -> Option<&Established> {
        self.links.all.get(&link)?.up.as_ref()
    }

    /// Reports whether an entry travels on a link.
    pub(in crate::protocol) fn takes(&self, link: LinkId, record: &Record) -> bool {
        let wanted =
            |up: &Established| self.log.topics.is_wanted(record.topic, &up.interest.theirs);
        self.up_of(link).is_some_and(wanted) || self.is_uphill(link)
    }

    /// Reports whether a topic travels on a link.
    pub(in crate::protocol) fn takes_topic(&self, link: LinkId, topic: &Topic) -> bool {
        let wanted = |up: &Established| {
            up.interest.theirs.topics.is_none() || up.interest.theirs.wants(TopicKey::of(topic))
        };
        self.up_of(link).is_some_and(wanted) || self.is_uphill(link)
    }

    /// Reports whether a transaction that came on a link is to be kept: somebody here or downstream
    /// wants it, or it is on its way to a relay.
    pub(in crate::protocol) fn is_welcome(
        &self,
        link: LinkId,
        id: &TransactionId,
        header: &Header,
    ) -> bool {
        let ours = &self.spread.carrying.ours;
        let sources = || self.intake.pending.get(id).into_iter().flat_map(|p| &p.sources);
        ours.topics.is_none()
            || ours.wants(TopicKey::of(&header.topic))
            || self.is_downstream(link)
            || sources().any(|source| self.is_downstream(source.link))
    }

    /// Reports whether a peer that has an entry of ours waits to hear that we have stored it: its
    /// origin, and an edge for which it is only passing through.
    pub(in crate::protocol) fn waits_for_word(
        &self,
        link: LinkId,
        hop: u16,
        record: &Record,
    ) -> bool {
        let passing =
            |up: &Established| !self.log.topics.is_wanted(record.topic, &up.interest.theirs);
        hop == 0 || self.is_downstream(link) && self.up_of(link).is_some_and(passing)
    }

    /// Reports whether an entry is here only on its way to a relay.
    pub(in crate::protocol) fn is_passing(&self, record: &Record) -> bool {
        !self.log.topics.is_wanted(record.topic, &self.spread.carrying.ours)
    }
}

impl Protocol {
    /// The topics that the host subscribes to have changed.
    pub(in crate::protocol) fn on_subscribed(&mut self, topics: Option<BTreeSet<TopicKey>>) {
        self.spread.carrying.live = topics;
        self.settle_interest();
    }

    /// Links, or what peers or the host want, have changed: works out what follows from it.
    pub(in crate::protocol) fn settle_interest(&mut self) {
        if !self.spread.carrying.edge {
            return;
        }
        let new = self.work_out();
        let old = std::mem::replace(&mut self.spread.carrying.ours, new);
        if self.spread.carrying.ours.exceeds(&old) {
            self.intake.unwanted.clear();
        }
        let ours = &self.spread.carrying.ours;
        if (old.depth == 0) != (ours.depth == 0) {
            let stands_in = ours.depth == 0;
            tracing::info!(target: "sorcha_peer::overlay", stands_in, "an edge without a relay");
            self.env.counters.stood_in += u64::from(stands_in);
            self.env.emit(Event::StandInChanged { stands_in });
        }
        let told = |l: &Link| l.up.is_none() || l.said == self.spread.carrying.ours;
        self.spread.carrying.unsaid = !self.links.all.values().all(told);
    }

    fn work_out(&mut self) -> Interest {
        let (linked, way) = (self.links.up_count() > 0, self.way());
        let nowhere = self.spread.carrying.ours.depth == NOWHERE;
        // A relay at once, an edge only if no relay comes up beside it.
        let sure = way.as_ref().is_some_and(|way| way.depth == 0 && !way.makeshift || !nowhere);
        let patience = if way.is_some() { LOOK } else { GRACE };
        let stands_in = way.is_none() && self.spread.carrying.ours.depth == 0;
        let decided = linked && (sure || stands_in || self.has_waited(way.is_some(), patience));
        if decided || !linked {
            self.spread.carrying.waits = None;
        }
        match way {
            Some(way) if decided => Interest {
                depth: way.depth + 1,
                makeshift: way.makeshift,
                via: way.via,
                topics: self.wanted(),
            },
            None if decided => Interest { makeshift: true, ..Interest::default() },
            _ => Interest { depth: NOWHERE, topics: self.wanted(), ..Interest::default() },
        }
    }

    /// The best way to a relay. Who stands in looks for a real one only.
    fn way(&self) -> Option<Way> {
        let ours = &self.spread.carrying.ours;
        let stands_in = ours.depth == 0;
        let fit = |theirs: &Interest| {
            theirs.depth < MAX_DEPTH && !self.leads_here(theirs) && !(stands_in && theirs.makeshift)
        };
        let ups = self.links.all.values().filter_map(|l| Some((&l.remote, l.up.as_ref()?)));
        let fitting = ups.filter(|(_, up)| fit(&up.interest.theirs));
        let ranked = fitting.map(|(peer, up)| {
            let short = Interest::short(peer);
            // The way that it has is kept while another is no better.
            (up.interest.theirs.makeshift, up.interest.theirs.depth, short != ours.via, short)
        });
        ranked.min().map(|(makeshift, depth, _, via)| Way { makeshift, depth, via })
    }

    /// Reports whether an edge has known a way, or none, for long enough.
    fn has_waited(&mut self, knows_way: bool, patience: Duration) -> bool {
        let now = self.env.now;
        if let Some((_, at)) = self.spread.carrying.waits.filter(|(knew, _)| *knew == knows_way) {
            return at <= now;
        }
        let at = now + patience + self.env.rng.jitter(patience);
        self.spread.carrying.waits = Some((knows_way, at));
        self.env.timers.set_earlier(Timer::Interest, at);
        false
    }

    /// The topics of the host, and of peers whose way leads over this node.
    fn wanted(&self) -> Option<Vec<TopicKey>> {
        let mut wanted = self.spread.carrying.fixed.clone();
        wanted.extend(self.spread.carrying.live.as_ref()?);
        for up in self.links.all.values().filter_map(|l| l.up.as_ref()) {
            if self.leads_here(&up.interest.theirs) {
                wanted.extend(up.interest.theirs.topics.as_ref()?);
            }
        }
        (wanted.len() <= MAX_INTERESTS).then(|| wanted.into_iter().collect())
    }

    /// Ends a turn: tells peers what has changed, at once unless they were told of something a moment
    /// ago.
    pub(in crate::protocol) fn say_interest(&mut self) {
        if !self.spread.carrying.unsaid {
            return;
        }
        let due = self.spread.carrying.said.map_or(self.env.now, |at| at + SAY_EVERY);
        if due > self.env.now {
            self.env.timers.set_earlier(Timer::Interest, due);
            return;
        }
        (self.spread.carrying.unsaid, self.spread.carrying.said) = (false, Some(self.env.now));
        for link in self.links.up_ids() {
            let ours = self.spread.carrying.ours.clone();
            let Some(l) = self.links.all.get_mut(&link) else { continue };
            if l.said == ours {
                continue;
            }
            let before = std::mem::replace(&mut l.said, ours.clone());
            self.send(link, Message::Interest(ours.clone()));
            if self.gains(link, &before) {
                self.need_more(link);
            }
        }
        self.owe_upwards();
    }

    /// Reports whether this node now wants of a link's topics more than before.
    fn gains(&self, link: LinkId, before: &Interest) -> bool {
        let Some(up) = self.up_of(link) else { return false };
        match &self.spread.carrying.ours.topics {
            None => before.topics.is_some(),
            Some(topics) => {
                topics.iter().any(|t| up.interest.theirs.wants(*t) && !before.wants(*t))
            }
        }
    }

    /// Announces what is only passing through on ways up that are new.
    pub(in crate::protocol) fn owe_upwards(&mut self) {
        let (head, now) = (self.log.head(), self.env.now);
        for link in self.links.up_ids() {
            let uphill = self.is_uphill(link);
            let Some(up) = self.links.up(link) else { continue };
            if uphill && !std::mem::replace(&mut up.interest.uphill, uphill) {
                match &mut up.feed.replay {
                    Some(replay) => replay.restart(head),
                    None => up.feed.replay = Some(ReplayCursor::untold(head, false, now)),
                }
                self.pump(link);
            } else {
                up.interest.uphill = uphill;
            }
        }
    }

    /// Announces what is only passing through again, as far as nobody up there has confirmed it.
    pub(in crate::protocol) fn owe_again(&mut self) {
        if self.spread.carrying.ours.topics.is_none() {
            return;
        }
        let mut ways = self.links.up_ids();
        ways.retain(|link| self.is_uphill(*link));
        if ways.is_empty() {
            return;
        }
        let (link, now) = (ways[self.env.rng.below(ways.len())], self.env.now);
        if let Some(up) = self.links.up(link).filter(|up| up.feed.replay.is_none()) {
            up.feed.replay = Some(ReplayCursor::untold(up.feed.cursor, true, now));
        }
        self.pump(link);
    }

    /// A transaction is stored: who only passed it on to us is told.
    pub(in crate::protocol) fn confirm_passed(&mut self, id: &TransactionId) {
        let Some(seq) = self.log.seq_of(id) else { return };
        let Some(record) = self.log.at(seq).copied() else { return };
        for link in self.links.up_ids() {
            let known = self.links.slot_of(link).is_some_and(|slot| self.log.is_known(seq, slot));
            if known && self.waits_for_word(link, u16::MAX, &record) {
                self.confirm_to(link, *id);
            }
        }
    }
}
