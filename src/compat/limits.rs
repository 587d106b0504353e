//! What one address may have of the node, and all of them together.
//!
//! Contract: a request is let in while its address has requests and bytes left of its minute, and
//! while fewer than so many are being answered, for the address and in all. Bytes may be overdrawn
//! by one request, which the next ones then wait for: how large one is shows only as it comes.
//! Bytes that are kept for requests being answered are at most [`MAX_HELD`], or those of one
//! request that holds more by itself. What comes by way of a proxy has one address for all, and
//! half of what all addresses have together, which is [`ALL`] times as much. Nobody owes more than
//! a minute's worth, whatever is announced.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ops::{Ops, Refusal};
use crate::config::CompatConfig;
use crate::transport::Visitor;
use crate::types::host_of;

/// Number of addresses' worth that all addresses have together.
const ALL: f64 = 10.0;
/// Maximum number of requests being answered, for one address and in all.
/// More than the messages of one stream that may be unanswered.
const MAX_UNDER_WAY: (u32, u32) = (256, 1024);
/// Maximum number of bytes kept for requests being answered, for one address and in all.
const MAX_HELD: (u64, u64) = (64 << 20, 256 << 20);
/// Maximum number of requests that handlers are at work on, for one address and in all.
const MAX_HANDLING: (u32, u32) = (16, 64);
/// Maximum number of addresses that are counted. Those that had nothing for a minute give way.
const MAX_ADDRESSES: usize = 8192;
const MINUTE: f64 = 60.0;

/// Place of a request among those that are answered at a time; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    table: Arc<Mutex<Table>>,
    key: Key,
    /// Number of bytes that were counted for the request.
    charged: u64,
    /// Number of bytes that are kept for it.
    held: u64,
}

/// Place of a request among those that handlers are at work on; given back when dropped.
#[derive(Debug)]
pub(super) struct Handling {
    table: Arc<Mutex<Table>>,
    key: Key,
}

/// Limits of all addresses.
#[derive(Debug)]
pub(super) struct Limits(Arc<Mutex<Table>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Host(IpAddr),
    /// A proxy: many callers behind one address.
    Proxy,
}

#[derive(Debug)]
struct Table {
    rates: Rates,
    all: Account,
    accounts: HashMap<Key, Account>,
}

/// What an address may have in a minute.
#[derive(Debug, Clone, Copy)]
struct Rates {
    requests: f64,
    bytes: f64,
    transactions: f64,
}

/// What an address has left, and when that was worked out.
#[derive(Debug)]
struct Account {
    share: f64,
    requests: f64,
    bytes: f64,
    transactions: f64,
    at: Instant,
    under_way: u32,
    held: u64,
    /// Number of requests that the host's handlers are at work on.
    handling: u32,
}

impl Account {
    fn new(rates: &Rates, share: f64, now: Instant) -> Self {
        let Rates { requests, bytes, transactions } = *rates;
        Self {
            share,
            requests: requests * share,
            bytes: bytes * share,
            transactions: transactions * share,
            at: now,
            under_way: 0,
            held: 0,
            handling: 0,
        }
    }

    fn refill(&mut self, rates: &Rates, now: Instant) {
        let minutes = now.saturating_duration_since(self.at).as_secs_f64() / MINUTE;
        self.at = now;
        let share = self.share;
        let more = |left: &mut f64, rate: f64| {
            *left = (*left + rate * share * minutes).min(rate * share);
        };
        more(&mut self.requests, rates.requests);
        more(&mut self.bytes, rates.bytes);
        more(&mut self.transactions, rates.transactions);
    }

    /// Time until another request is let in; zero where it is now.
    fn wait(&self, rates: &Rates) -> Duration {
        let requests = until(self.requests, 1.0, rates.requests * self.share);
        requests.max(until(self.bytes, 1.0, rates.bytes * self.share))
    }

    fn is_idle(&self, rates: &Rates, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.at).as_secs_f64() >= MINUTE;
        self.under_way == 0 && quiet && self.wait(rates).is_zero()
    }
}

/// Time until there is `wanted` of something of which `left` is there and `rate` comes in a minute.
fn until(left: f64, wanted: f64, rate: f64) -> Duration {
    Duration::from_secs_f64(((wanted - left).max(0.0) / rate * MINUTE).min(3600.0))
}

/// Refuses with a time to come again, in whole seconds as both faces say it.
fn busy(wait: Duration) -> Refusal {
    let begun = u64::from(wait.subsec_nanos() > 0);
    Refusal::Busy { retry_after: Duration::from_secs((wait.as_secs() + begun).max(1)) }
}

impl Table {
    /// The account of an address, up to date; `None` where there is no room for one more.
    fn account(&mut self, key: Key, now: Instant) -> Option<&mut Account> {
        let rates = self.rates;
        self.all.refill(&rates, now);
        if !self.accounts.contains_key(&key) && self.accounts.len() >= MAX_ADDRESSES {
            self.accounts.retain(|_, account| !account.is_idle(&rates, now));
            if self.accounts.len() >= MAX_ADDRESSES {
                return None;
            }
        }
        let share = if key == Key::Proxy { ALL / 2.0 } else { 1.0 };
        let account = self.accounts.entry(key).or_insert_with(|| Account::new(&rates, share, now));
        account.refill(&rates, now);
        Some(account)
    }

    fn admit(&mut self, key: Key, bytes: u64, now: Instant) -> Result<(), Refusal> {
        let rates = self.rates;
        let most = if key == Key::Proxy { MAX_UNDER_WAY.1 / 2 } else { MAX_UNDER_WAY.0 };
        let account = self.account(key, now).ok_or_else(|| busy(Duration::from_secs(10)))?;
        let (wait, under_way) = (account.wait(&rates), account.under_way);
        let wait = wait.max(self.all.wait(&rates));
        if !wait.is_zero() {
            return Err(busy(wait));
        }
        if under_way >= most || self.all.under_way >= MAX_UNDER_WAY.1 {
            return Err(busy(Duration::ZERO));
        }
        self.each(key, |account| {
            account.requests -= 1.0;
            account.under_way += 1;
        });
        self.spend(key, bytes);
        Ok(())
    }

    /// Takes bytes from an address and from all, at most down to a minute's worth of the address below zero: so much
    /// is announced by nobody who then sends it.
    fn spend(&mut self, key: Key, bytes: u64) {
        let rate = self.rates.bytes;
        let mut spent = 0.0;
        if let Some(account) = self.accounts.get_mut(&key) {
            let left = (account.bytes - bytes as f64).max(-rate * account.share);
            spent = (account.bytes - left).max(0.0);
            account.bytes = left;
        }
        self.all.bytes = (self.all.bytes - spent).max(-rate * ALL);
    }

    /// Counts more bytes of a request of which `own` were counted before. Those are not held against it: a request that
    /// was let in may overdraw its minute.
    fn charge(&mut self, key: Key, own: u64, bytes: u64, now: Instant) -> Result<(), Refusal> {
        let rates = self.rates;
        let Some(account) = self.account(key, now) else { return Ok(()) };
        let left = until(account.bytes + own as f64, 1.0, rates.bytes * account.share);
        if !left.is_zero() {
            return Err(busy(left));
        }
        self.spend(key, bytes);
        Ok(())
    }

    /// Makes room for more bytes of a request that holds `own` already.
    fn hold(&mut self, key: Key, own: u64, bytes: u64, now: Instant) -> Result<(), Refusal> {
        let most = if key == Key::Proxy { MAX_HELD.1 / 2 } else { MAX_HELD.0 };
        let of_address = self.account(key, now).map_or(0, |account| account.held);
        let is_full = |held: u64, most: u64| held > own && held.saturating_add(bytes) > most;
        if is_full(of_address, most) || is_full(self.all.held, MAX_HELD.1) {
            return Err(busy(Duration::ZERO));
        }
        self.each(key, |account| account.held += bytes);
        Ok(())
    }

    fn transaction(&mut self, key: Key, now: Instant) -> Result<(), Refusal> {
        let rates = self.rates;
        let Some(account) = self.account(key, now) else { return Ok(()) };
        let of = |account: &Account| {
            until(account.transactions, 1.0, rates.transactions * account.share)
        };
        let wait = of(account);
        let wait = wait.max(of(&self.all));
        if !wait.is_zero() {
            return Err(busy(wait));
        }
        self.each(key, |account| account.transactions -= 1.0);
        Ok(())
    }

    fn handle(&mut self, key: Key, now: Instant) -> Result<(), Refusal> {
        let most = if key == Key::Proxy { MAX_HANDLING.1 / 2 } else { MAX_HANDLING.0 };
        let of_address = self.account(key, now).map_or(0, |account| account.handling);
        if of_address >= most || self.all.handling >= MAX_HANDLING.1 {
            return Err(busy(Duration::ZERO));
        }
        self.each(key, |account| account.handling += 1);
        Ok(())
    }

    /// Changes the account of an address, and that of all.
    fn each(&mut self, key: Key, change: impl Fn(&mut Account)) {
        change(&mut self.all);
        if let Some(account) = self.accounts.get_mut(&key) {
            change(account);
        }
    }
}

impl Limits {
    pub(super) fn new(config: &CompatConfig) -> Self {
        let rates = Rates {
            requests: config.max_requests_per_minute.into(),
            bytes: config.max_bytes_per_minute as f64,
            transactions: config.max_transactions_per_minute.into(),
        };
        let all = Account::new(&rates, ALL, Instant::now());
        Self(Arc::new(Mutex::new(Table { rates, all, accounts: HashMap::new() })))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0)
    }

    /// Counts a transaction that a visitor has published or fetched.
    pub(super) fn transaction(&self, visitor: &Visitor) -> Result<(), Refusal> {
        self.table().transaction(key(visitor), Instant::now())
    }

    /// Counts bytes that were read for a visitor and are not sent.
    pub(super) fn read(&self, visitor: &Visitor, bytes: u64) -> Result<(), Refusal> {
        self.table().charge(key(visitor), bytes, bytes, Instant::now())
    }

    /// Lets a request of a visitor be handled by the host.
    pub(super) fn handling(&self, visitor: &Visitor) -> Result<Handling, Refusal> {
        let key = key(visitor);
        self.table().handle(key, Instant::now())?;
        Ok(Handling { table: Arc::clone(&self.0), key })
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        lock(&self.table).each(self.key, |account| {
            account.handling = account.handling.saturating_sub(1);
        });
    }
}

impl Permit {
    /// Counts more bytes of the same request, sent or received, and holds them.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.charge(bytes)?;
        self.hold(bytes)
    }

    /// Counts more bytes of the same request, sent or received.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Refusal> {
        lock(&self.table).charge(self.key, self.charged, bytes, Instant::now())?;
        self.charged = self.charged.saturating_add(bytes);
        Ok(())
    }

    /// Makes room for bytes that are kept until the request is answered.
    pub(crate) fn hold(&mut self, bytes: u64) -> Result<(), Refusal> {
        lock(&self.table).hold(self.key, self.held, bytes, Instant::now())?;
        self.held += bytes;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.table).each(self.key, |account| {
            account.under_way = account.under_way.saturating_sub(1);
            account.held = account.held.saturating_sub(self.held);
        });
    }
}

impl Ops {
    /// Lets a request in, of this many bytes as far as known, or says when to come again. Each face calls
    /// it before anything else, and keeps the permit until the answer is sent; for a stream, once
    /// for the stream and once for each message, with its bytes.
    pub(crate) fn admit(&self, visitor: &Visitor, bytes: u64) -> Result<Permit, Refusal> {
        let key = key(visitor);
        let limits = &self.0.limits;
        let admitted = limits.table().admit(key, bytes, Instant::now());
        self.0.count(|c| match &admitted {
            Ok(()) => c.compat_requests += 1,
            Err(_) => c.compat_requests_refused += 1,
        });
        admitted?;
        Ok(Permit { table: Arc::clone(&limits.0), key, charged: bytes, held: 0 })
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(visitor: &Visitor) -> Key {
    if visitor.is_proxied { Key::Proxy } else { Key::Host(host_of(visitor.address.ip())) }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::needless_pass_by_value,
        reason = "numbers of tests are small"
    )]

    use super::*;

    const HOST: Key = Key::Host(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn limits() -> (Limits, Instant) {
        let config = CompatConfig {
            max_requests_per_minute: 6,
            max_bytes_per_minute: 6000,
            max_transactions_per_minute: 2,
            ..CompatConfig::default()
        };
        (Limits::new(&config), Instant::now())
    }

    fn seconds(refused: Result<(), Refusal>) -> u64 {
        let Err(Refusal::Busy { retry_after }) = refused else { panic!("{refused:?}") };
        retry_after.as_secs()
    }

    fn host(n: u16) -> Key {
        Key::Host([10, 1, (n >> 8) as u8, n as u8].into())
    }

    fn done(table: &mut Table, key: Key) {
        table.each(key, |account| account.under_way -= 1);
    }

    #[test]
    fn a_minute_has_so_many_requests_and_says_when_there_are_more() {
        let (limits, now) = limits();
        let mut table = limits.table();
        for _ in 0..6 {
            table.admit(HOST, 0, now).unwrap();
        }
        assert_eq!(seconds(table.admit(HOST, 0, now)), 10);
        table.admit(host(1), 0, now).unwrap();
        table.admit(HOST, 0, now + Duration::from_secs(11)).unwrap();
        assert_eq!(seconds(table.admit(HOST, 0, now + Duration::from_secs(11))), 9);
    }

    #[test]
    fn one_request_may_overdraw_its_bytes_and_the_next_waits_for_that() {
        let (limits, now) = limits();
        let mut table = limits.table();
        table.admit(HOST, 12_000, now).unwrap();
        assert_eq!(seconds(table.admit(HOST, 0, now)), 61);
        assert_eq!(seconds(table.charge(HOST, 0, 100, now)), 61);
        table.charge(HOST, 12_000, 0, now).unwrap();
        table.admit(HOST, 0, now + Duration::from_secs(63)).unwrap();
        // A lie costs the liar a minute, and all others nothing.
        table.admit(host(1), u64::MAX, now).unwrap();
        assert_eq!(seconds(table.admit(host(1), 0, now)), 61);
        table.admit(host(2), 1, now).unwrap();
    }

    #[test]
    fn transactions_are_counted_apart_and_a_proxy_has_half_of_what_all_have() {
        let (limits, now) = limits();
        let mut table = limits.table();
        for _ in 0..2 {
            table.transaction(HOST, now).unwrap();
        }
        assert_eq!(seconds(table.transaction(HOST, now)), 30);
        for _ in 0..10 {
            table.transaction(Key::Proxy, now).unwrap();
        }
        assert!(seconds(table.transaction(Key::Proxy, now)) > 0, "half of what all have");
        for n in 0..8 {
            table.transaction(host(n), now).unwrap();
        }
        assert!(seconds(table.transaction(host(9), now)) > 0, "all have used up theirs");
    }

    #[test]
    fn bytes_that_are_held_are_bounded_and_given_back() {
        let (limits, now) = limits();
        let mut table = limits.table();
        let (most, all) = MAX_HELD;
        for key in [HOST, host(1), Key::Proxy] {
            table.admit(key, 0, now).unwrap();
        }
        table.hold(HOST, 0, most, now).unwrap();
        assert_eq!(seconds(table.hold(HOST, 0, 1, now)), 1, "another request of the address");
        table.hold(host(1), 0, most, now).unwrap();
        table.hold(Key::Proxy, 0, all - 2 * most, now).unwrap();
        assert_eq!(seconds(table.hold(host(1), most, 1, now)), 1, "another address");
        table.each(HOST, |account| account.held -= most);
        table.hold(host(1), most, 1, now).unwrap();
        drop(table);

        let permit = || Permit { table: Arc::clone(&limits.0), key: HOST, charged: 0, held: 0 };
        let mut large = permit();
        limits.table().each(host(1), |account| account.held = 0);
        assert!(large.hold(2 * all).is_ok(), "one request alone");
        assert!(permit().hold(1).is_err());
        drop(large);
        assert!(permit().hold(1).is_ok());
    }

    #[test]
    fn requests_under_way_are_bounded_and_given_back() {
        let config = CompatConfig::default();
        let (limits, now) = (Limits::new(&config), Instant::now());
        let mut table = limits.table();
        for _ in 0..MAX_UNDER_WAY.0 {
            table.admit(HOST, 0, now).unwrap();
        }
        assert_eq!(seconds(table.admit(HOST, 0, now)), 1);
        done(&mut table, HOST);
        table.admit(HOST, 0, now).unwrap();
        for _ in 0..MAX_HANDLING.0 {
            table.handle(HOST, now).unwrap();
        }
        assert_eq!(seconds(table.handle(HOST, now)), 1);
        table.handle(host(1), now).unwrap();
        for n in 0..MAX_UNDER_WAY.1 - MAX_UNDER_WAY.0 {
            table.admit(host(n as u16), 0, now).unwrap();
        }
        assert_eq!(seconds(table.admit(host(999), 0, now)), 1);
    }

    #[test]
    fn addresses_are_bounded_and_idle_ones_give_way() {
        let config = CompatConfig { max_requests_per_minute: 1_000_000, ..Default::default() };
        let (limits, now) = (Limits::new(&config), Instant::now());
        let mut table = limits.table();
        for n in 0..MAX_ADDRESSES {
            table.admit(host(n as u16), 0, now).unwrap();
            done(&mut table, host(n as u16));
        }
        assert_eq!(seconds(table.admit(HOST, 0, now)), 10);
        let later = now + Duration::from_secs(61);
        table.admit(HOST, 0, later).unwrap();
        assert_eq!(table.accounts.len(), 1);
    }

    #[test]
    fn a_permit_gives_its_place_back() {
        let (limits, now) = limits();
        limits.table().admit(HOST, 1, now).unwrap();
        let permit = Permit { table: Arc::clone(&limits.0), key: HOST, charged: 0, held: 0 };
        assert_eq!(limits.table().all.under_way, 1);
        drop(permit);
        assert_eq!(limits.table().all.under_way, 0);
        assert_eq!(limits.table().accounts[&HOST].under_way, 0);
    }
}
