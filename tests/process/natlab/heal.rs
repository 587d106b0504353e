//! Routers that lose all they know, and come back with another address.

use tokio::time::Instant;

use super::{Lab, advertised, public_of, report, side};
use crate::peer::Peer;

/// Number of the public node that looks from outside.
const OUTSIDE: usize = 1;

/// Cuts off these sides, gives each of their routers another life, and asserts that what waited goes out and
/// comes in, and that the first one, which others can dial, is found at its new address alone.
pub(super) fn all_at_once(
    lab: &mut Lab,
    sides: &[(usize, &str)],
    publics: &mut [Peer],
    nodes: &mut [Peer],
) {
    let routers: Vec<_> = sides.iter().map(|(n, _)| format!("nat{}", side(*n))).collect();
    let before = lab.address("PUBLIC_A").to_owned();
    for router in &routers {
        lab.run(&["cut", router]);
    }
    let lost: Vec<_> = sides.iter().map(|(n, _)| nodes[*n].publish("t", "while cut off")).collect();
    let restore = |router: &String| {
        lab.run(&["renew", router]);
        lab.run(&["restore", router]);
        Instant::now()
    };
    let restored: Vec<_> = routers.iter().map(restore).collect();
    lab.read_env();
    let news = publics[OUTSIDE].publish("t", "from outside");
    for (((n, kind), lost), restored) in sides.iter().zip(&lost).zip(&restored) {
        publics[OUTSIDE].wait_for_delivery(lost);
        let heard = restored.elapsed();
        nodes[*n].wait_for_delivery(&news);
        println!(
            "{kind}, back elsewhere: heard within {heard:?}, has heard within {:?}",
            restored.elapsed()
        );
    }
    let started = Instant::now();
    let (now, dialled) = (lab.address("PUBLIC_A"), &mut nodes[0]);
    assert_ne!(now, before);
    let is_new = |address: &&str| address.starts_with(&format!("{now}:"));
    let told = report(dialled, |report| {
        let all = advertised(report);
        let public = public_of(&all);
        !public.is_empty() && public.iter().all(is_new)
    });
    println!("full-cone, renewed: proven at {} after {:?}", told["endpoint"], started.elapsed());
    lab.assert_dialled(told["endpoint"].as_str().unwrap(), dialled);
}
