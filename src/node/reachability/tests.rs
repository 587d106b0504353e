use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::ready;
use tokio::task::JoinHandle;

use super::*;
use crate::error::FailureKind;

const PORT: u16 = 7;
const INTERVAL: Duration = Duration::from_mins(15);

/// Servers that answer what a test says, and count.
struct Scripted {
    interfaces: Mutex<Vec<IpAddr>>,
    answer: Mutex<Option<IpAddr>>,
    /// Mapping of the listening port for IPv4, and for IPv6, for which there is no server at first.
    mapped: Mutex<Option<SocketAddr>>,
    mapped_v6: Mutex<Option<Result<SocketAddr, ()>>>,
    asked: AtomicU32,
    asked_mapping: AtomicU32,
}

impl Scripted {
    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Ask for Scripted {
    fn interfaces(&self) -> Vec<IpAddr> {
        self.interfaces.lock().unwrap().clone()
    }

    fn has_servers(&self) -> bool {
        true
    }

    fn ask(self: Arc<Self>) -> BoxFuture<'static, Answers> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = Answers::default();
        match *self.answer.lock().unwrap() {
            Some(ip) => {
                answers.seen.push(("stun:h".to_owned(), (ip, 9999).into()));
                answers.candidates.push(draft((ip, PORT).into(), CandidateSource::Stun));
            }
            None => drop(answers.failed.insert("stun:h".to_owned(), "no answer".to_owned())),
        }
        ready(answers).boxed()
    }

    fn behaviours(self: Arc<Self>, answers: &Answers) -> BoxFuture<'static, Vec<NatBehaviour>> {
        let family = |(_, at): &(String, SocketAddr)| NatBehaviour {
            family: if at.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned(),
            ..NatBehaviour::default()
        };
        ready(answers.seen.iter().map(family).collect()).boxed()
    }

    fn has_mapping(&self) -> bool {
        true
    }

    fn mapping(self: Arc<Self>) -> BoxFuture<'static, Mapped> {
        self.asked_mapping.fetch_add(1, Ordering::SeqCst);
        let v4 = self.mapped.lock().unwrap().ok_or(());
        let asked = [Some(v4), *self.mapped_v6.lock().unwrap()];
        let silent = |()| ProbeError::new(FailureKind::Timeout, "no answer");
        ready(asked.map(|mapped| mapped.map(|mapped| mapped.map_err(silent)))).boxed()
    }
}

/// Holds what a test says.
struct Scribe(watch::Receiver<Held>);

impl Hold for Scribe {
    fn held(&mut self) -> Held {
        self.0.borrow_and_update().clone()
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        async {
            if self.0.changed().await.is_err() {
                futures::future::pending::<()>().await;
            }
        }
        .boxed()
    }
}

/// A worker, and the rest of its node.
struct Setting {
    servers: Arc<Scripted>,
    held: watch::Sender<Held>,
    state: watch::Sender<NodeState>,
    events: broadcast::Receiver<Event>,
    inputs: mpsc::Receiver<Completion>,
    learned: watch::Receiver<Learned>,
    worker: JoinHandle<()>,
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Setting {
    /// A node that listens everywhere, with one interface, whose servers see `answer`.
    fn new(answer: Option<&str>) -> Self {
        let servers = Arc::new(Scripted {
            interfaces: Mutex::new(vec![ip("10.0.0.1")]),
            answer: Mutex::new(answer.map(ip)),
            mapped: Mutex::default(),
            mapped_v6: Mutex::default(),
            asked: AtomicU32::new(0),
            asked_mapping: AtomicU32::new(0),
        });
        let (held, holds) = watch::channel(Held::default());
        let (state, states) = watch::channel(NodeState::default());
        let (sender, events) = broadcast::channel(16);
        let (done, inputs) = mpsc::channel(16);
        let (learn, learned) = watch::channel(Learned::default());
        let ways = Ways { state: states, events: sender, done, learned: learn };
        let listening = Some((ip("0.0.0.0"), PORT).into());
        let hold = Box::new(Scribe(holds));
        let worker = Worker::new(servers.clone(), hold, None, listening, INTERVAL, ways);
        let worker = tokio::spawn(worker.run());
        Self { servers, held, state, events, inputs, learned, worker }
    }

    /// The next list of candidates.
    async fn told(&mut self) -> Vec<String> {
        let Some(Completion::Inputs(inputs)) = self.inputs.recv().await else { panic!("no list") };
        let [Input::Candidates(all)] = &inputs[..] else { panic!("{inputs:?}") };
        let text = |it: &CandidateDraft| format!("{} {}", it.source.as_str(), it.endpoint);
        all.iter().map(text).collect()
    }

    /// Lists of candidates until one has this in it.
    async fn told_of(&mut self, candidate: &str) -> Vec<String> {
        loop {
            let told = self.told().await;
            if told.iter().any(|there| there == candidate) {
                return told;
            }
        }
    }

    /// Lists of candidates until one has this not in it.
    async fn told_without(&mut self, candidate: &str) -> Vec<String> {
        loop {
            let told = self.told().await;
            if told.iter().all(|there| there != candidate) {
                return told;
            }
        }
    }

    fn link(&self, links: u32) {
        self.state.send_modify(|state| state.links = links);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn servers_are_asked_at_the_start_and_again_when_their_answers_are_old() {
    let mut node = Setting::new(Some("192.0.2.1"));
    let told = node.told_of("stun 192.0.2.1:7").await;
    assert_eq!(told, ["interface 10.0.0.1:7", "stun 192.0.2.1:7"]);
    pass(INTERVAL.saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(node.servers.asked(), 1, "an answer is believed for a while");
    *node.servers.answer.lock().unwrap() = Some(ip("192.0.2.2"));
    node.told_of("stun 192.0.2.2:7").await;
    assert_eq!(node.servers.asked(), 2);
    for address in ["192.0.2.1:9999", "192.0.2.2:9999"] {
        let event = node.events.recv().await.unwrap();
        let prober = "stun:h".to_owned();
        assert_eq!(event, Event::AddressObserved { address: address.to_owned(), prober });
    }
    pass(INTERVAL + Duration::from_secs(1)).await;
    assert!(node.servers.asked() > 2 && node.events.try_recv().is_err(), "the same is told once");
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_changes_is_noticed_and_all_are_asked_again() {
    let mut node = Setting::new(Some("192.0.2.1"));
    node.told_of("stun 192.0.2.1:7").await;
    let since = Instant::now();
    *node.servers.interfaces.lock().unwrap() = vec![ip("10.9.9.9"), ip("2001:db8::9")];
    *node.servers.answer.lock().unwrap() = Some(ip("192.0.2.9"));
    let told = node.told_of("stun 192.0.2.9:7").await;
    assert_eq!(told, ["interface 10.9.9.9:7", "stun 192.0.2.9:7"], "no socket is at IPv6");
    assert!(since.elapsed() <= LOOK_INTERVAL, "{:?}", since.elapsed());
    // Another order is no change.
    let asked = node.servers.asked();
    node.servers.interfaces.lock().unwrap().reverse();
    pass(2 * LOOK_INTERVAL).await;
    assert_eq!(node.servers.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn all_are_asked_again_when_the_last_link_is_lost() {
    let mut node = Setting::new(Some("192.0.2.1"));
    node.told_of("stun 192.0.2.1:7").await;
    pass(Duration::from_mins(1)).await;
    for links in [2, 1] {
        node.link(links);
        pass(MIN_PAUSE).await;
        assert_eq!(node.servers.asked(), 1, "with {links} links");
    }
    *node.servers.answer.lock().unwrap() = Some(ip("192.0.2.2"));
    let since = Instant::now();
    node.link(0);
    node.told_of("stun 192.0.2.2:7").await;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    pass(Duration::from_mins(1)).await;
    let asked = node.servers.asked();
    *node.servers.answer.lock().unwrap() = Some(ip("192.0.2.3"));
    node.link(1);
    node.told_of("stun 192.0.2.3:7").await;
    assert_eq!(node.servers.asked(), asked + 1, "and again when there is a way out again");
    // However often that happens, nobody is asked at each time.
    for _ in 0..20 {
        node.link(1);
        pass(Duration::from_millis(100)).await;
        node.link(0);
        pass(Duration::from_millis(100)).await;
    }
    assert!(node.servers.asked() <= asked + 2, "{}", node.servers.asked());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_asked_again_ever_later_and_what_was_known_stays_for_its_time() {
    let mut node = Setting::new(Some("192.0.2.1"));
    node.told_of("stun 192.0.2.1:7").await;
    *node.servers.answer.lock().unwrap() = None;
    node.link(1);
    pass(MIN_PAUSE).await;
    node.link(0);
    pass(Duration::from_secs(1)).await;
    assert_eq!(node.servers.asked(), 2);
    assert_eq!(node.learned.borrow().failed["stun:h"], "no answer");
    pass(Duration::from_mins(10)).await;
    let asked = node.servers.asked();
    assert!((7..=9).contains(&asked), "after 5, 10, 20, … s: {asked}");
    assert!(node.inputs.try_recv().is_err(), "the old answer is still believed");
    node.told_without("stun 192.0.2.1:7").await;
    *node.servers.answer.lock().unwrap() = Some(ip("192.0.2.3"));
    node.told_of("stun 192.0.2.3:7").await;
    let learned = node.learned.borrow();
    assert!(!learned.failed.contains_key("stun:h"));
    assert_eq!(learned.nat.iter().map(|it| &*it.family).collect::<Vec<_>>(), ["ipv4"]);
}

#[tokio::test(start_paused = true)]
async fn the_mapping_of_the_port_is_kept_alive_and_given_up_after_two_questions() {
    let mut node = Setting::new(None);
    *node.servers.mapped.lock().unwrap() = Some("192.0.2.1:4444".parse().unwrap());
    node.told_of("tcp-mapping 192.0.2.1:4444").await;
    pass(Duration::from_mins(10)).await;
    assert!(node.servers.asked_mapping.load(Ordering::SeqCst) >= 10, "each minute");
    *node.servers.mapped.lock().unwrap() = Some("192.0.2.1:5555".parse().unwrap());
    node.told_of("tcp-mapping 192.0.2.1:5555").await;
    *node.servers.mapped.lock().unwrap() = None;
    let since = Instant::now();
    node.told_without("tcp-mapping 192.0.2.1:5555").await;
    assert!(since.elapsed() >= MIN_PAUSE, "one question may be lost");
    assert!(node.learned.borrow().failed["tcp-mapping"].contains("no answer"));
}

#[tokio::test(start_paused = true)]
async fn the_port_has_a_mapping_for_each_family_and_loses_each_alone() {
    let mut node = Setting::new(None);
    let set = |node: &Setting, v4: Option<&str>, v6: Option<&str>| {
        let at = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        *node.servers.mapped.lock().unwrap() = at(v4);
        *node.servers.mapped_v6.lock().unwrap() = Some(at(v6).ok_or(()));
    };
    let (v4, v6) = ("192.0.2.1:4444", "[2001:db8::1]:7");
    set(&node, Some(v4), Some(v6));
    let told = node.told_of("tcp-mapping [2001:db8::1]:7").await;
    assert!(told.contains(&"tcp-mapping 192.0.2.1:4444".to_owned()), "{told:?}");
    assert!(!node.learned.borrow().failed.contains_key("tcp-mapping"));
    set(&node, Some(v4), None);
    let told = node.told_without("tcp-mapping [2001:db8::1]:7").await;
    assert!(told.contains(&"tcp-mapping 192.0.2.1:4444".to_owned()), "{told:?}");
    assert_eq!(node.learned.borrow().failed["tcp-mapping"], "ipv6: no answer");
    // What is gone for good is no reason to ask more often.
    let asked = node.servers.asked_mapping.load(Ordering::SeqCst);
    pass(Duration::from_mins(10)).await;
    let more = node.servers.asked_mapping.load(Ordering::SeqCst) - asked;
    assert!((9..=11).contains(&more), "{more}");
}

#[tokio::test(start_paused = true)]
async fn what_others_hold_open_is_told_when_it_changes() {
    let mut node = Setting::new(None);
    let at = |text: &str| draft(text.parse().unwrap(), CandidateSource::Upnp);
    let failed = BTreeMap::from([("pcp".to_owned(), "nobody answers".to_owned())]);
    node.held.send_replace(Held { candidates: vec![at("192.0.2.1:7")], failed });
    let told = node.told_of("upnp 192.0.2.1:7").await;
    assert_eq!(told, ["interface 10.0.0.1:7", "upnp 192.0.2.1:7"]);
    assert_eq!(node.learned.borrow().failed["pcp"], "nobody answers");
    let event = node.events.recv().await.unwrap();
    let (address, prober) = ("192.0.2.1:7".to_owned(), "upnp".to_owned());
    assert_eq!(event, Event::AddressObserved { address, prober });
    node.held.send_replace(Held::default());
    assert_eq!(node.told_without("upnp 192.0.2.1:7").await, ["interface 10.0.0.1:7"]);
}

#[test]
fn sockets_are_at_the_addresses_of_their_family() {
    let at = |listening, address| takes(ip(listening), ip(address));
    assert!(at("0.0.0.0", "10.0.0.1") && at("::", "10.0.0.1") && at("::", "2001:db8::1"));
    assert!(!at("0.0.0.0", "2001:db8::1") && !at("10.0.0.1", "10.0.0.1"));
}
