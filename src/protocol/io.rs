//! What goes into the core and what comes out.
//!
//! Tested by: `protocol::tests::property`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::error::{RequestError, StoreErrorKind, TestError};
use crate::types::{
    Ban, CandidateDraft, Endpoint, EntryState, Event, FailureKind, Head, InvalidTransaction,
    LinkId, Message, NewEntry, Partial, PeerId, PeerRecord, PeerTest, Piece, Proofs, StoredPeer,
    TopicKey, TraceContext, Transaction, TransactionId, TransportKind, Verdict, WallTime,
};

use super::refusal::{AnswerRefusal, ConnectFailure, PublishRefusal};

/// Names a dial attempt; minted by the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// Names an effect whose completion comes back; minted by the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a waiting caller; minted by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a transport vouches for, of one link, beyond the id of its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Assurance {
    /// Value that both ends of this link have and no other link ever has, where there is one: what
    /// is proven about it is proven for this link alone.
    pub binding: Option<[u8; 32]>,
    /// True: the peer's key is certified by the CA that the node trusts.
    pub certified: bool,
}

/// Result of the check of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Hash and signature are right; this is the validator's verdict.
    Verdict(Verdict),
    /// Hash or signature is wrong.
    Invalid(InvalidTransaction),
    /// The validator did not answer in time.
    TimedOut,
}

/// Occurrence outside of the core.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// [`Protocol::poll_timeout`](super::Protocol::poll_timeout) has come.
    Timeout,
    /// The node's own record, newly signed; before anything else at start, and again when its
    /// addresses change.
    Record(PeerRecord),
    /// Sources beside peers name these addresses of this node now, and no others.
    Candidates(Vec<CandidateDraft>),
    /// A transport opened a link; the hello is still to come.
    LinkOpened {
        /// Number of the link, never used before.
        link: LinkId,
        /// Peer id that the transport has proven.
        remote: PeerId,
        /// Transport that carries the link.
        kind: TransportKind,
        /// The remote address, where there is one.
        address: Option<SocketAddr>,
        /// The dial that made it; `None` for an accepted one.
        dial: Option<DialId>,
        /// What the transport vouches for beyond the peer id.
        assurance: Assurance,
    },
    /// A dial failed.
    DialFailed {
        /// Number of the dial.
        dial: DialId,
        /// The kind of failure.
        reason: FailureKind,
        /// The failure in words, for the log.
        detail: String,
    },
    /// A connection failed before it was authenticated.
    HandshakeFailed {
        /// Address that the connection came from, where there is one.
        address: Option<SocketAddr>,
        /// The kind of failure.
        reason: FailureKind,
    },
    /// A link ended by itself.
    LinkClosed {
        /// Number of the link.
        link: LinkId,
    },
    /// The connection of a link takes nothing new any more, and is about to be closed.
    Leaving {
        /// Number of the link.
        link: LinkId,
    },
    /// A frame came and was decoded.
    Received {
        /// Number of the link that the frame came on.
        link: LinkId,
        /// Messages of the frame, in order.
        messages: Vec<Message>,
        /// Length of the frame in bytes.
        bytes: usize,
    },
    /// A link's queue could not take a message: the peer provokes more than it reads.
    Overrun {
        /// Number of the link whose queue is full.
        link: LinkId,
    },
    /// A frame that did not decode.
    Malformed {
        /// Number of the link that the frame came on.
        link: LinkId,
    },
    /// Messages left the link's queue for the wire.
    Sent {
        /// Number of the link whose messages left.
        link: LinkId,
        /// Sum of the [`Message::weight`] of these messages.
        weight: usize,
        /// Length of the frame in bytes.
        bytes: usize,
    },
    /// [`Output::Measure`] is done, or a link ends, which is told next.
    Measured {
        /// Number of the link.
        link: LinkId,
        /// Bytes read since the link opened, those of frames that are not complete too; 0 where the
        /// transport cannot tell.
        received: u64,
        /// Bytes that the operating system took from the transport since the link opened; 0 where
        /// the transport cannot tell.
        taken: u64,
    },
    /// The host publishes: all of these, or none.
    Publish {
        /// Caller that waits for [`Output::Published`].
        call: CallId,
        /// The transactions, signed by this node, in the order of publishing; at least one.
        transactions: Vec<Transaction>,
        /// The outbox entry that the only transaction takes the place of, if [`Output::Renew`]
        /// asked for it.
        renews: Option<TransactionId>,
    },
    /// [`Output::Renew`] could not be carried out: nothing was published.
    NotRenewed {
        /// The id of the entry.
        id: TransactionId,
        /// The outbox does not have it.
        removed: bool,
    },
    /// [`Output::Store`] or [`Output::StoreOwn`] is done.
    Stored {
        /// The ticket of that output.
        ticket: Ticket,
        /// Result of the store.
        result: Result<(), StoreErrorKind>,
    },
    /// [`PartialOp::Spill`] is done.
    Spilled {
        /// The ticket of that output.
        ticket: Ticket,
        /// True: the store has the pieces.
        kept: bool,
    },
    /// [`PartialOp::Unspill`] is done.
    Unspilled {
        /// The ticket of that output.
        ticket: Ticket,
        /// Pieces that were there and are right.
        pieces: Vec<Piece>,
    },
    /// [`Output::Verify`] is done.
    Verified {
        /// The ticket of that output.
        ticket: Ticket,
        /// Result of the check.
        judgement: Judgement,
    },
    /// [`Output::VerifyRecords`] is done.
    RecordsVerified {
        /// The ticket of that output.
        ticket: Ticket,
        /// Records whose signature is right.
        valid: Vec<PeerRecord>,
        /// Number of records whose signature is wrong.
        forged: usize,
    },
    /// [`Output::Load`] is done.
    Loaded {
        /// The ticket of that output.
        ticket: Ticket,
        /// Transactions in the order of the ids that were asked for; `None` for one that is gone or
        /// could not be read.
        transactions: Vec<Option<Transaction>>,
    },
    /// The log had no room for this own transaction of an earlier run, which is in the outbox; now
    /// it has it.
    Relogged(Transaction),
    /// [`Output::VerifyHead`] is done.
    HeadVerified {
        /// The ticket of that output.
        ticket: Ticket,
        /// Result of the check of the signature.
        result: Result<(), InvalidTransaction>,
    },
    /// [`Output::VerifyPiece`] is done.
    PieceVerified {
        /// The ticket of that output.
        ticket: Ticket,
        /// True: the piece is what the payload hash says.
        valid: bool,
    },
    /// The check of a transaction, header or piece, or the making of proofs, broke off: it failed
    /// itself. Nobody is to blame; what it was for is fetched or asked for again later.
    Unchecked {
        /// The ticket of that output.
        ticket: Ticket,
    },
    /// [`Output::Prove`] is done.
    Proved {
        /// The ticket of that output.
        ticket: Ticket,
        /// The proofs of all pieces.
        proofs: Proofs,
    },
    /// The host wants a link to an address.
    Connect {
        /// Caller that waits for [`Output::Connected`].
        call: CallId,
        /// Address to dial.
        endpoint: Endpoint,
    },
    /// Somebody announces on this LAN that nodes of the network are at these addresses. That proves
    /// nothing; whatever is neither private nor of this machine is ignored.
    Nearby {
        /// Addresses that may be dialled.
        endpoints: Vec<Endpoint>,
    },
    /// The host wants the link to a peer measured.
    TestPeer {
        /// Caller that waits for [`Output::Tested`].
        call: CallId,
        /// Peer at the other end.
        peer: PeerId,
    },
    /// The host wants a peer's breaker closed.
    ResetBreaker {
        /// Peer whose breaker is closed.
        peer: PeerId,
    },
    /// The host ends the link to a peer.
    Disconnect {
        /// Peer whose link ends.
        peer: PeerId,
    },
    /// The host asks one peer.
    Request {
        /// Caller that waits for [`Output::Answered`]; of no other request that is not answered.
        call: CallId,
        /// Peer that is asked.
        peer: PeerId,
        /// Name of what is asked for.
        protocol: String,
        /// Body of the request.
        body: Bytes,
        /// Time that the caller waits, at most 10 min.
        within: Duration,
        /// Trace context that the peer is told.
        trace: Option<TraceContext>,
    },
    /// The host does not wait for the answer to a request any more: there will be no [`Output::Answered`].
    CancelRequest {
        /// Caller that waited.
        call: CallId,
    },
    /// The host's handlers have changed.
    Serving(BTreeSet<String>),
    /// [`Output::Requested`] is done; one of which [`Output::RequestCancelled`] was told is not answered
    /// to anybody.
    Answer {
        /// The ticket of that output.
        ticket: Ticket,
        /// The body of the answer, or why there is none.
        result: Result<Bytes, AnswerRefusal>,
    },
    /// The host's subscriptions have changed.
    Subscribed {
        /// The topics of all live subscriptions; `None` when one is to everything.
        topics: Option<BTreeSet<TopicKey>>,
    },
    /// The host wants a dead letter to be offered to peers again.
    Redeliver(TransactionId),
    /// The host has deleted a dead letter.
    DropDeadLetter(TransactionId),
    /// The host bans a peer.
    Ban(Ban),
    /// The host lifts a ban.
    Unban(PeerId),
    /// The node is going down: no new links, no new transactions, goodbye to all.
    Shutdown,
}

/// Action to be done outside, in this order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Open a link; answer with [`Input::LinkOpened`] or [`Input::DialFailed`].
    Dial {
        /// Number of the dial.
        dial: DialId,
        /// Address to dial.
        endpoint: Endpoint,
        /// Transport to dial with.
        rung: TransportKind,
        /// Peer that must be there, where that is known.
        expected: Option<PeerId>,
        /// Addresses that are left out of those that a name stands for; a dial for which no other is
        /// left fails with [`FailureKind::NoneLeft`].
        avoid: Vec<SocketAddr>,
    },
    /// Give a dial up: nothing of it is expected any more, and a link that it has made meanwhile is
    /// closed unseen.
    CancelDial {
        /// Number of the dial.
        dial: DialId,
    },
    /// Queue a message on a link; answer with [`Input::Sent`] when it leaves for the wire.
    Send {
        /// Number of the link that the message goes on.
        link: LinkId,
        /// Message to be queued.
        message: Message,
    },
    /// Say what the transport of a link has carried by now; answer with [`Input::Measured`].
    Measure {
        /// Number of the link.
        link: LinkId,
    },
    /// Send what is queued, then close. Nothing of this link is expected any more.
    Close {
        /// Number of the link.
        link: LinkId,
    },
    /// Check hash and signature, then ask the validator; answer with [`Input::Verified`].
    Verify {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Transaction to be checked.
        transaction: Transaction,
        /// Peer that sent the transaction.
        from: PeerId,
        /// Hash and signature are known to be right: only the validator is to be asked.
        proven: bool,
    },
    /// Check the signature of a header by the network's policy; answer with
    /// [`Input::HeadVerified`].
    VerifyHead {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Header and signature to be checked.
        head: Head,
    },
    /// Check a piece with [`verify_piece`](crate::types::verify_piece); answer with
    /// [`Input::PieceVerified`].
    VerifyPiece {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The payload hash.
        root: [u8; 32],
        /// Length of the payload.
        len: u64,
        /// Piece to be checked, with its proof.
        piece: Piece,
    },
    /// Make the proofs of all pieces of a payload; answer with [`Input::Proved`].
    Prove {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Transaction whose payload the proofs are of.
        transaction: Transaction,
    },
    /// Check the signatures of records; answer with [`Input::RecordsVerified`].
    VerifyRecords {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Records to be checked.
        records: Vec<PeerRecord>,
    },
    /// Keep a transaction of another origin in the log; answer with [`Input::Stored`] when it is
    /// safe. Done in the order given, also beside [`Output::StoreOwn`].
    Store {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The transaction, and how long it is kept.
        entry: NewEntry,
        /// True: the transaction was offered as news. What a comparison found or its origin
        /// replayed may be of any age.
        is_news: bool,
    },
    /// Keep transactions of this node, all or none, in the outbox first and then in the log;
    /// answer with [`Input::Stored`] when all are safe.
    StoreOwn {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The transactions in the order of publishing, and how long each is kept.
        entries: Vec<NewEntry>,
    },
    /// Take confirmed transactions out of the outbox.
    Confirmed {
        /// Ids of the confirmed transactions.
        ids: Vec<TransactionId>,
        /// Transactions confirmed long ago of which no more copies are counted from now on.
        forgotten: Vec<TransactionId>,
    },
    /// So many other nodes have an own transaction by now, which left the outbox before: for who waits
    /// for more copies than that takes.
    Copied {
        /// Id of the transaction.
        id: TransactionId,
        /// Number of other nodes that have confirmed it up to now.
        peers: u32,
    },
    /// Publish an entry of the outbox anew, with times of now; answer with [`Input::Publish`], or with
    /// [`Input::NotRenewed`] when there is nothing to publish.
    Renew {
        /// The id of the entry.
        id: TransactionId,
    },
    /// Another transaction has taken the place of an entry: take that out of the outbox.
    Renewed {
        /// The id of the entry.
        id: TransactionId,
        /// Id of the transaction that takes the entry's place.
        renewed_as: TransactionId,
    },
    /// Note where own transactions stand.
    UpdateOutbox {
        /// The id of each, and its state.
        states: Vec<(TransactionId, EntryState)>,
    },
    /// Read retained transactions, all at once; answer with [`Input::Loaded`].
    Load {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Ids of the transactions to be read.
        ids: Vec<TransactionId>,
    },
    /// Do something with a partial payload; in order with [`Output::Store`].
    Partial(PartialOp),
    /// Forget retained transactions that may go.
    Expire {
        /// The time now.
        now: WallTime,
    },
    /// Remember since when the node has all that others knew, and until when.
    SavePast {
        /// Time since which everything retained is here.
        since: WallTime,
        /// Time until which that is so; `None` for a node that was never linked.
        until: Option<WallTime>,
    },
    /// Remember a peer.
    SavePeer(Box<StoredPeer>),
    /// Forget a peer.
    ForgetPeer(PeerId),
    /// Remember a ban.
    SaveBan(Ban),
    /// Forget a ban.
    LiftBan(PeerId),
    /// Answer a `publish`.
    Published {
        /// Caller that waits for the answer.
        call: CallId,
        /// True for new transactions; false where one of them was published before, so that
        /// nothing was done; or the reason of the refusal.
        result: Result<bool, PublishRefusal>,
    },
    /// Answer a `connect`.
    Connected {
        /// Caller that waits for the answer.
        call: CallId,
        /// The peer there, or why not.
        result: Result<PeerId, ConnectFailure>,
        /// The failure in the transport's words, where it said some.
        detail: String,
    },
    /// Answer a test.
    Tested {
        /// Caller that waits for the answer.
        call: CallId,
        /// What the test has found, or why it found nothing.
        result: Result<PeerTest, TestError>,
    },
    /// Have a peer's request handled; answer with [`Input::Answer`], also where that is refused.
    Requested {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Peer that asks.
        peer: PeerId,
        /// Name of what is asked for: one of the last [`Input::Serving`].
        protocol: String,
        /// Body of the request.
        body: Bytes,
        /// Time that the peer still waits.
        within: Duration,
        /// Trace context that the peer told.
        trace: Option<TraceContext>,
    },
    /// Break the handling of a request off: nobody waits for the answer any more.
    RequestCancelled {
        /// The ticket of [`Output::Requested`].
        ticket: Ticket,
    },
    /// Answer the host's request.
    Answered {
        /// Caller that waits for the answer.
        call: CallId,
        /// The body of the answer, or why there is none.
        result: Result<Bytes, RequestError>,
    },
    /// Others are to be told of other endpoints than before; answer with [`Input::Record`] if that
    /// makes a new record.
    OwnEndpoints {
        /// Endpoints at which others can dial this node, best first.
        endpoints: Vec<Endpoint>,
    },
    /// Sign the node's own record anew, with the time now; answer with [`Input::Record`].
    RenewRecord {
        /// Number that the new one exceeds, besides all of this node's earlier ones.
        above: u64,
    },
    /// Add this to the machine's clock for what is signed and published from now on.
    CorrectClock {
        /// Number of milliseconds to add; 0 is none.
        correction_ms: i64,
    },
    /// Leave a host alone that strangers come from: refuse what comes from there before any
    /// handshake, where a transport can.
    Shun {
        /// Address of the host; all of its /64 where it is IPv6.
        address: IpAddr,
        /// Time from now.
        time: Duration,
    },
    /// Tell the host.
    Emit(Event),
}

/// Action on partial payloads in the store.
#[derive(Debug)]
pub enum PartialOp {
    /// Keep pieces, beside those that are there; answer with [`Input::Spilled`].
    Spill {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Pieces to be kept, and what they belong to.
        partial: Partial,
        /// The most bytes of pieces and proofs to be kept of all payloads together.
        max_bytes: u64,
    },
    /// Read what is there and check it with [`verify_piece`](crate::types::verify_piece); answer
    /// with [`Input::Unspilled`].
    Unspill {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The id of the payload's transaction.
        id: TransactionId,
        /// The payload hash.
        root: [u8; 32],
        /// Length of the payload.
        len: u64,
    },
    /// Forget the partial payloads of some transactions.
    Drop {
        /// Ids of the transactions whose partial payloads go.
        ids: Vec<TransactionId>,
    },
}
