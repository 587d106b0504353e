//! Two nodes behind any two kinds of router, and one public node.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{Lab, exchange, side};

/// Number of transactions that each of two nodes publishes.
pub(super) const COUNT: usize = 1_000;
/// Number of pairs that are under way at once.
const AT_ONCE: usize = 2;

/// Has each pair of these kinds exchange transactions through a public node of their own. The laboratory
/// has each kind twice, in this order. Returns how many each delivered.
pub(super) fn every_pair(lab: &Lab, kinds: &[&str]) -> BTreeMap<(usize, usize), usize> {
    let all = (0..kinds.len()).flat_map(|a| (a..kinds.len()).map(move |b| (a, b)));
    let left = Mutex::new(all.collect::<Vec<_>>());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((a, b)) = left.lock().unwrap().pop() else { return };
                    let count = pair(lab, (a, kinds[a]), (kinds.len() + b, kinds[b]));
                    done.lock().unwrap().insert((a, b), count);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// Two private nodes, at these sides and behind these kinds of router, and a public one.
fn pair(lab: &Lab, a: (usize, &str), b: (usize, &str)) -> usize {
    static PORTS: AtomicU16 = AtomicU16::new(6_000);
    let port = PORTS.fetch_add(2, Ordering::Relaxed);
    let ip = lab.address("PUB1");
    let (listen, http) = (format!("{ip}:{port}"), format!("{ip}:{}", port + 1));
    let mut middle = lab.peer("pub1", ["--listen", &listen, "--http", &http]);
    let [mut first, mut second] = [a, b].map(|(n, kind)| {
        let seed = if kind == "http1-only" { format!("http://{http}") } else { listen.clone() };
        let flags = ["--listen", "0.0.0.0:0", "--bootstrap", &seed];
        let mut node = lab.peer(&format!("host{}", side(n)), flags);
        node.wait("peer_up", |line| line["peer"] == middle.id.as_str());
        node
    });
    middle.count_deliveries();
    exchange(&mut first, &mut second, COUNT);
    let delivered = middle.wait_for_count(2 * COUNT).len();
    for node in [first, second, middle] {
        node.finish();
    }
    delivered
}
