//! One core, and nothing around it but a test that says what its peers say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::config::Config;
use crate::error::StoreErrorKind;
use crate::identity::Identity;
use crate::protocol::{
    Assurance, Input, Judgement, Output, Protocol, PublishRefusal, Restored, Ticket,
};
use crate::types::{
    Cursor, Event, Features, Head, Header, Hello, IndexEntry, Interest, LinkId, Message, MonoTime,
    PeerId, PeerRecord, Proofs, RecordDraft, Signature, Topic, TopicKey, Transaction,
    TransactionId, TransportKind, Verdict, WallTime, verify_piece,
};

use super::*;

pub(super) const START: u64 = 1_700_000_000_000;

pub(super) fn record(n: u8) -> PeerRecord {
    let identity = Identity::from_seed([n; 32]);
    let issued = WallTime::from_millis(START);
    let peer = identity.peer_id();
    identity.sign_record(RecordDraft { peer, seq: 1, issued, endpoints: Vec::new() })
}

/// The hello of the `n`-th peer.
pub(super) fn greeting(n: u8) -> Hello {
    Hello {
        network: Config::lan().network.name,
        version_min: 1,
        version_max: 1,
        features: Features(0),
        incarnation: 1,
        max_transaction: 1 << 30,
        record: record(n),
        observed: None,
        interest: Interest::default(),
        owes: false,
        clock: None,
        complete_since: None,
        takes_over: false,
        proofs: Vec::new(),
        dial_back: 0,
    }
}

/// The `n`-th transaction, created `age` milliseconds before the start.
pub(super) fn transaction(n: u32, age: u64) -> Transaction {
    let created = WallTime::from_millis(START - age);
    let topic = Topic::new("t").unwrap();
    let payload = n.to_le_bytes().to_vec();
    let origin = PeerId::from_bytes([9; 32]);
    let header = Header::new(topic, origin, created, created.plus(secs(86_400)), &payload);
    Transaction::new(header, Signature::None, payload.into()).unwrap()
}

pub(super) fn index(held: &[Transaction], retention: Duration) -> Vec<IndexEntry> {
    let entry = |(at, t): (usize, &Transaction)| IndexEntry {
        cursor: Cursor(at as u64),
        id: t.id(),
        origin: t.origin(),
        topic: TopicKey::of(t.topic()),
        size: t.header().payload_len,
        hops: 1,
        created: t.header().created,
        keep_until: t.header().created.plus(retention),
    };
    held.iter().enumerate().map(entry).collect()
}

/// A node whose every effect succeeds at once and whose peers answer pings, but for the checks of
/// headers: those wait for the test.
pub(super) struct SingleNode {
    pub(super) protocol: Protocol,
    table: BTreeMap<TransactionId, Transaction>,
    pub(super) verdict: fn(&Transaction) -> Judgement,
    pub(super) sent: VecDeque<(LinkId, Message)>,
    pub(super) heads: VecDeque<(Ticket, Head)>,
    pub(super) closed: Vec<LinkId>,
    /// Hosts that are to be left alone.
    pub(super) shunned: Vec<IpAddr>,
    /// Links that take what is sent, and never say so.
    pub(super) stuck: BTreeSet<LinkId>,
    pub(super) judged: u64,
    /// Stores that wait for the test, where they do not succeed at once.
    pub(super) unstored: Option<Vec<Ticket>>,
    /// Checks that will break off.
    pub(super) breaks: u32,
    pub(super) announced: BTreeSet<TransactionId>,
    /// Links whose pings are answered by hand.
    pub(super) mute: BTreeSet<LinkId>,
    /// Bytes that the transport of every link says to have read and written.
    pub(super) traffic: (u64, u64),
    /// What the next hello of a peer says of its clock.
    pub(super) peer_clock: Option<WallTime>,
    /// Dials, answers to the host, and changes of the own record.
    pub(super) outside: Vec<Output>,
    /// What the store was given of other origins, and whether it was news.
    pub(super) stored: Vec<(TransactionId, bool)>,
    /// Answer of the store to own transactions.
    pub(super) store_own: Result<(), StoreErrorKind>,
    /// Answers to publishes.
    pub(super) published: Vec<Result<bool, PublishRefusal>>,
    pub(super) events: Vec<Event>,
    /// Copies counted of what had left the outbox.
    pub(super) copied: Vec<u32>,
}

impl SingleNode {
    pub(super) fn new(n: u8, config: &Config, held: Vec<Transaction>) -> Self {
        let index = index(&held, config.gossip.retention);
        let restored = Restored { index, ..Restored::default() };
        Self::restored(n, config, held, restored)
    }

    pub(super) fn restored(
        n: u8,
        config: &Config,
        held: Vec<Transaction>,
        restored: Restored,
    ) -> Self {
        let protocol = Protocol::new(config, 1, record(n), [n; 32], restored);
        Self {
            protocol,
            table: held.into_iter().map(|t| (t.id(), t)).collect(),
            verdict: |_| Judgement::Verdict(Verdict::Accept),
            sent: VecDeque::new(),
            heads: VecDeque::new(),
            closed: Vec::new(),
            shunned: Vec::new(),
            stuck: BTreeSet::new(),
            judged: 0,
            unstored: None,
            breaks: 0,
            announced: BTreeSet::new(),
            mute: BTreeSet::new(),
            traffic: (0, 0),
            peer_clock: None,
            outside: Vec::new(),
            stored: Vec::new(),
            store_own: Ok(()),
            published: Vec::new(),
            events: Vec::new(),
            copied: Vec::new(),
        }
    }

    /// A link with the `n`-th peer comes up, without its hello.
    pub(super) fn link_up(&mut self, now: Duration, link: LinkId, dialled: bool, n: u8) {
        let dial = dialled.then_some(crate::protocol::DialId(77));
        let remote = Identity::from_seed([n; 32]).peer_id();
        let kind = TransportKind::Memory;
        let assurance = Assurance::default();
        self.feed(now, Input::LinkOpened { link, remote, kind, address: None, dial, assurance });
    }

    /// The same, with a hello.
    pub(super) fn meet(&mut self, now: Duration, n: u8) -> LinkId {
        self.meet_on(now, n, u64::from(n), false)
    }

    /// The same with a peer that says since when it is whole.
    pub(super) fn meet_whole(
        &mut self,
        now: Duration,
        n: u8,
        complete_since: Option<WallTime>,
    ) -> LinkId {
        let link = LinkId(u64::from(n));
        self.link_up(now, link, true, n);
        let hello = Hello { complete_since, ..greeting(n) };
        self.hear(now, link, vec![Message::Hello(Box::new(hello))]);
        link
    }

    /// The same on a link of this number, with a peer that owes something or not.
    pub(super) fn meet_on(&mut self, now: Duration, n: u8, link: u64, owes: bool) -> LinkId {
        let link = LinkId(link);
        self.link_up(now, link, true, n);
        let hello = Hello { owes, clock: self.peer_clock, ..greeting(n) };
        self.hear(now, link, vec![Message::Hello(Box::new(hello))]);
        link
    }

    /// A link with a peer that takes requests comes up.
    pub(super) fn meet_asking(&mut self, now: Duration, n: u8) -> LinkId {
        let link = LinkId(u64::from(n));
        self.link_up(now, link, false, n);
        let hello = Hello { features: Features::SERVES_REQUESTS, ..greeting(n) };
        self.hear(now, link, vec![Message::Hello(Box::new(hello))]);
        link
    }

    pub(super) fn hear(&mut self, now: Duration, link: LinkId, messages: Vec<Message>) {
        let bytes = messages.iter().map(Message::weight).sum();
        self.feed(now, Input::Received { link, messages, bytes });
    }

    /// Answers the checks of headers that wait, truthfully.
    pub(super) fn check_heads(&mut self, now: Duration) {
        while let Some((ticket, head)) = self.heads.pop_front() {
            let result = head.verify(true);
            let input = self.checked(ticket, Input::HeadVerified { ticket, result });
            self.feed(now, input);
        }
    }

    /// Returns what comes of a check, or that the check broke off.
    fn checked(&mut self, ticket: Ticket, input: Input) -> Input {
        match self.breaks.checked_sub(1) {
            Some(left) => {
                self.breaks = left;
                Input::Unchecked { ticket }
            }
            None => input,
        }
    }

    /// Returns what the node said to a peer since the last look.
    pub(super) fn said_to(&mut self, link: LinkId) -> Vec<Message> {
        let (theirs, others) = self.sent.drain(..).partition(|(to, _)| *to == link);
        self.sent = others;
        let theirs: VecDeque<(LinkId, Message)> = theirs;
        theirs.into_iter().map(|(_, message)| message).collect()
    }

    pub(super) fn feed(&mut self, now: Duration, input: Input) {
        self.feed_at(now, now, input);
    }

    /// The same with a wall clock of its own, which `wall` has passed since the start.
    pub(super) fn feed_at(&mut self, now: Duration, wall: Duration, input: Input) {
        let mut todo = VecDeque::from([input]);
        while let Some(input) = todo.pop_front() {
            let wall = WallTime::from_millis(START).plus(wall);
            self.protocol.handle(MonoTime::from_duration(now), wall, input);
            while let Some(output) = self.protocol.poll_output() {
                match output {
                    Output::Send { link, message } => {
                        let weight = message.weight();
                        if let Message::Ping { nonce } = message
                            && !self.mute.contains(&link)
                        {
                            let messages = vec![Message::Pong { nonce }];
                            todo.push_back(Input::Received { link, messages, bytes: weight });
                        }
                        if let Message::Announce(list) = &message {
                            self.announced.extend(list.iter().map(|a| a.id));
                        }
                        self.sent.push_back((link, message));
                        if self.stuck.contains(&link) {
                            continue;
                        }
                        todo.push_back(Input::Sent { link, weight, bytes: weight });
                    }
                    Output::Verify { ticket, transaction, .. } => {
                        self.judged += 1;
                        let judgement = (self.verdict)(&transaction);
                        self.table.insert(transaction.id(), transaction);
                        todo.push_back(self.checked(ticket, Input::Verified { ticket, judgement }));
                    }
                    Output::Measure { link } => {
                        let (received, taken) = self.traffic;
                        todo.push_back(Input::Measured { link, received, taken });
                    }
                    Output::Close { link } => self.closed.push(link),
                    Output::Shun { address, .. } => self.shunned.push(address),
                    Output::VerifyPiece { ticket, root, len, piece } => {
                        let valid =
                            verify_piece(&root, len, piece.index, &piece.bytes, &piece.proof);
                        let checked = Input::PieceVerified { ticket, valid };
                        todo.push_back(self.checked(ticket, checked));
                    }
                    Output::VerifyHead { ticket, head } => self.heads.push_back((ticket, head)),
                    Output::VerifyRecords { ticket, records } => {
                        let (valid, forged) = (records, 0);
                        todo.push_back(Input::RecordsVerified { ticket, valid, forged });
                    }
                    Output::Prove { ticket, transaction } => {
                        let proofs = Proofs::of(transaction.payload());
                        todo.push_back(self.checked(ticket, Input::Proved { ticket, proofs }));
                    }
                    Output::Store { ticket, entry, is_news } => {
                        self.stored.push((entry.transaction.id(), is_news));
                        if let Some(unstored) = &mut self.unstored {
                            unstored.push(ticket);
                            continue;
                        }
                        todo.push_back(Input::Stored { ticket, result: Ok(()) });
                    }
                    Output::StoreOwn { ticket, .. } => {
                        if let Some(unstored) = &mut self.unstored {
                            unstored.push(ticket);
                            continue;
                        }
                        todo.push_back(Input::Stored { ticket, result: self.store_own });
                    }
                    Output::Published { result, .. } => self.published.push(result),
                    Output::Emit(event) => self.events.push(event),
                    Output::Copied { peers, .. } => self.copied.push(peers),
                    Output::Load { ticket, ids } => {
                        let found = ids.iter().map(|id| self.table.get(id).cloned());
                        let transactions = found.collect();
                        todo.push_back(Input::Loaded { ticket, transactions });
                    }
                    asked @ (Output::Dial { .. }
                    | Output::CancelDial { .. }
                    | Output::SavePeer(_)
                    | Output::Connected { .. }
                    | Output::Tested { .. }
                    | Output::Requested { .. }
                    | Output::RequestCancelled { .. }
                    | Output::Answered { .. }
                    | Output::OwnEndpoints { .. }
                    | Output::RenewRecord { .. }) => self.outside.push(asked),
                    _ => {}
                }
            }
        }
        for gauge in self.protocol.gauges() {
            assert!(gauge.value <= gauge.bound, "{gauge:?}");
        }
    }

    /// Fires what is due.
    pub(super) fn wake(&mut self, now: Duration) {
        if self.protocol.poll_timeout().is_some_and(|at| at.as_duration() <= now) {
            self.feed(now, Input::Timeout);
        }
    }
}
