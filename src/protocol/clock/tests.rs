//! One core's view of clocks, vote by vote.

use super::*;

const START: u64 = 1_700_000_000_000;
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A clock, and the true time beside it.
struct Bench {
    clock: Clock,
    now: Duration,
    /// Milliseconds by which the clock is ahead.
    ahead: i64,
}

impl Bench {
    fn new(ahead: i64) -> Self {
        Self::stored(ahead, None)
    }

    fn stored(ahead: i64, newest: Option<WallTime>) -> Self {
        let mut clock = Clock::new(&Config::lan());
        if let Some(newest) = newest {
            clock.note_stored(newest, false);
        }
        let mut bench = Self { clock, now: Duration::ZERO, ahead };
        bench.pass(0);
        bench
    }

    fn truth(&self) -> WallTime {
        WallTime::from_millis(START).plus(self.now)
    }

    fn pass(&mut self, seconds: u64) -> bool {
        self.now += Duration::from_secs(seconds);
        let reading = shift(self.truth(), self.ahead);
        self.clock.read(MonoTime::from_duration(self.now), reading)
    }

    fn hear(&mut self, link: u64, group: u64, off: i64) {
        let clock = shift(self.truth(), off);
        assert!(self.clock.note_sample(LinkId(link), group, false, clock));
        self.clock.judge();
    }

    /// Seconds by which `wall` is ahead of the truth.
    fn error(&self) -> i64 {
        between(self.truth(), self.clock.wall()) / SECOND
    }

    /// Seconds by which `settled` is ahead of the truth.
    fn settled(&self) -> i64 {
        between(self.truth(), self.clock.settled()) / SECOND
    }
}

#[test]
fn several_peers_of_different_groups_tell_a_clock_that_it_is_off() {
    for ahead in [600 * SECOND, HOUR, -2 * HOUR, DAY, 10 * YEAR, -10 * YEAR] {
        let mut bench = Bench::new(ahead);
        bench.hear(1, 1, 0);
        assert_eq!((bench.clock.standing(), bench.error()), (Standing::Unknown, ahead / SECOND));
        bench.hear(2, 2, SECOND);
        assert_eq!(bench.clock.standing(), Standing::Off, "{ahead}");
        assert!((0..=1).contains(&bench.error()), "{}", bench.error());
        // It is set right, which is seen before anybody has said so.
        bench.ahead = 0;
        assert!(bench.pass(1));
        assert_eq!((bench.clock.standing(), bench.error()), (Standing::Right, 0));
        assert_eq!(bench.clock.correction(), 0);
    }
}

#[test]
fn few_liars_and_a_crowd_in_one_group_change_nothing() {
    let mut bench = Bench::new(0);
    bench.hear(1, 1, 5 * SECOND);
    assert_eq!(bench.clock.standing(), Standing::Right);
    for crowd in 0..40 {
        bench.hear(100 + crowd, 7, DAY);
        assert_eq!(bench.error(), 0);
    }
    bench.hear(2, 2, 0);
    assert_eq!(bench.clock.standing(), Standing::Right, "two of three groups");
    // As many liars as others, each with an hour of its own.
    for (liar, ahead) in [(8, 2 * HOUR), (9, 3 * HOUR)] {
        bench.hear(200 + liar, liar, ahead);
    }
    bench.hear(3, 3, 0);
    assert_eq!((bench.clock.standing(), bench.error()), (Standing::Right, 0));
}

#[test]
fn who_only_comes_in_cannot_outvote_those_whom_we_chose() {
    for (crowd, truth) in [(DAY, 0), (0, DAY)] {
        let mut bench = Bench::new(0);
        for link in 0..40 {
            let clock = shift(bench.truth(), crowd);
            bench.clock.note_sample(LinkId(100 + link), 100 + link, false, clock);
        }
        for link in 0..3 {
            let clock = shift(bench.truth(), truth);
            bench.clock.note_sample(LinkId(link), link, true, clock);
        }
        bench.clock.judge();
        assert_eq!(bench.error(), truth / SECOND);
    }
}

#[test]
fn on_one_lan_each_peer_has_a_vote() {
    let mut bench = Bench::new(HOUR);
    for peer in 0..3 {
        bench.hear(peer, 1, 0);
    }
    assert_eq!((bench.clock.standing(), bench.error()), (Standing::Off, 0));
}

#[test]
fn a_leap_is_not_obeyed_before_peers_were_asked_nor_where_they_contradict() {
    let mut bench = Bench::new(0);
    bench.hear(1, 1, 0);
    bench.ahead = DAY;
    assert!(bench.pass(1));
    assert_eq!(bench.error(), 0, "as if nothing had happened");
    assert_eq!(bench.clock.outdated(), [LinkId(1)], "to be asked again");
    // One peer and the time before the leap are two that agree.
    bench.hear(1, 1, 0);
    assert_eq!((bench.clock.standing(), bench.error()), (Standing::Off, 0));
    assert!(bench.settled() <= 0);
    // Monotonic time stood still while the machine slept: the peer agrees with the new reading.
    let mut bench = Bench::new(0);
    bench.hear(1, 1, 0);
    bench.ahead = 8 * HOUR;
    assert!(bench.pass(1));
    bench.hear(1, 1, 8 * HOUR);
    assert_eq!(bench.error(), 8 * 3600, "which is right");
    assert_eq!(bench.clock.standing(), Standing::Right);
    assert!(bench.settled() > 7 * 3600);
}

#[test]
fn liars_that_say_it_is_later_make_nothing_forgotten_before_the_retention_is_over() {
    let mut bench = Bench::new(0);
    bench.pass(600);
    for liar in 1..=2 {
        bench.hear(liar, liar, 10 * YEAR);
    }
    assert_eq!((bench.clock.standing(), bench.settled() <= 0), (Standing::Off, true));
    bench.pass(3000);
    for liar in 1..=2 {
        bench.hear(liar, liar, 10 * YEAR);
    }
    assert!(bench.settled() <= 0);
    // Nobody has contradicted them by then.
    bench.pass(600);
    assert!(bench.settled() > 9 * YEAR / SECOND);
    // Further lies begin anew.
    for liar in 1..=2 {
        bench.hear(liar, liar, 20 * YEAR);
    }
    assert!(bench.settled() < 11 * YEAR / SECOND);
}

#[test]
fn nothing_is_settled_by_one_reading() {
    // Nobody is there to ask, and the clock is a day ahead for a while.
    let mut bench = Bench::new(0);
    for (ahead, seconds) in [(DAY, 150), (0, 60), (-DAY, 150), (0, 60), (10 * YEAR, 3000)] {
        bench.ahead = ahead;
        bench.pass(1);
        for _ in 0..seconds / 10 {
            bench.pass(10);
            bench.clock.judge();
            assert!(bench.settled() <= 120, "{} s ahead", bench.settled());
        }
    }
    assert_eq!(bench.error(), 10 * YEAR / SECOND, "it is believed for what can be undone");
    // In the end it is obeyed: else nothing would ever go.
    for _ in 0..100 {
        bench.pass(10);
        bench.clock.judge();
    }
    assert!(bench.settled() > 9 * YEAR / SECOND);
}

#[test]
fn at_the_start_the_store_knows_what_time_it_was() {
    let newest = WallTime::from_millis(START).minus(Duration::from_mins(50));
    let mut bench = Bench::stored(DAY, Some(newest));
    bench.pass(8);
    assert!(bench.settled() <= -2800, "{}", bench.settled());
    bench.ahead = 0;
    assert!(bench.pass(1));
    assert!(bench.settled() <= -2800);
    bench.hear(1, 1, 0);
    assert!((-130..=0).contains(&bench.settled()), "a peer confirms it: {}", bench.settled());
    // A clock that is far behind what the store knows settles nothing either.
    let bench = Bench::stored(-10 * YEAR, Some(newest));
    assert!(bench.settled() < -9 * YEAR / SECOND);
}

#[test]
fn a_peer_that_says_its_clock_all_the_time_is_heard_once_a_second() {
    let mut bench = Bench::new(0);
    bench.hear(1, 1, 0);
    for _ in 0..100 {
        assert!(!bench.clock.note_sample(LinkId(1), 1, false, WallTime::from_millis(7)));
    }
    bench.pass(1);
    bench.hear(1, 1, 0);
    // What was dated by a wrong clock of our own says nothing where others' is there.
    let mut clock = Clock::new(&Config::lan());
    clock.note_stored(WallTime::from_millis(START + 10 * 365 * 86_400_000), true);
    clock.note_stored(WallTime::from_millis(START), false);
    let day = Duration::from_hours(24);
    clock.read(MonoTime::ZERO, WallTime::from_millis(START).plus(day));
    assert!(clock.settled() <= WallTime::from_millis(START).plus(Duration::from_mins(2)));
}

#[test]
fn what_was_off_stays_so_while_nobody_is_there() {
    let mut bench = Bench::new(HOUR);
    bench.hear(1, 1, 0);
    bench.hear(2, 2, 0);
    for link in [1, 2] {
        bench.clock.forget_sample(LinkId(link));
    }
    for _ in 0..1000 {
        bench.pass(10);
        bench.clock.judge();
    }
    assert_eq!((bench.clock.standing(), bench.error()), (Standing::Off, 0));
}

#[test]
fn clocks_at_the_ends_of_their_type_overflow_nothing() {
    let ends = [0, 1, i64::MAX as u64, u64::MAX - 1, u64::MAX];
    for reading in ends {
        for (first, second) in ends.into_iter().zip(ends.into_iter().rev()) {
            let mut clock = Clock::new(&Config::lan());
            clock.note_stored(WallTime::from_millis(second), reading % 2 == 0);
            let at = |s| MonoTime::from_duration(Duration::from_secs(s));
            clock.read(at(1), WallTime::from_millis(first));
            clock.read(at(2), WallTime::from_millis(reading));
            for (link, said) in [(1, first), (2, second), (3, first)] {
                clock.note_sample(LinkId(link), link, link == 2, WallTime::from_millis(said));
                clock.judge();
            }
            clock.read(MonoTime::from_duration(Duration::MAX), WallTime::from_millis(second));
            clock.judge();
            assert!(clock.settled() <= clock.wall());
        }
    }
}
