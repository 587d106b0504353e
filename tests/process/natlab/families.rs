//! IPv6 alone, and both families at once.

use serde_json::{Value, json};

use super::{
    Family, Lab, PORT, advertised, behaviour, deliver_both_ways, is_decided, public_of, report,
    settings, side,
};

/// Kinds, and what a node behind each finds over IPv6, where only `symmetric` translates; and whether
/// others can dial it there.
const KINDS: [(&str, &str, &str, bool); 5] = [
    // Its firewall opens a port that sends, as the listening one does to a STUN server.
    ("full-cone", "no-nat", "endpoint-independent", true),
    ("restricted", "no-nat", "address-dependent", false),
    ("port-restricted", "no-nat", "address-and-port-dependent", false),
    ("symmetric", "address-and-port-dependent", "address-and-port-dependent", false),
    ("none", "no-nat", "endpoint-independent", true),
];

fn lab(ip: &str) -> Option<Lab> {
    let kinds: Vec<_> = KINDS.iter().map(|kind| kind.0).collect();
    Lab::up(&kinds.join(","), &["--ip", ip])
}

#[test]
fn ipv6_alone_and_both_families_serve_as_ipv4_does() {
    // Both wait most of the time.
    std::thread::scope(|scope| {
        scope.spawn(ipv6_alone);
        both_families();
    });
}

fn ipv6_alone() {
    let Some(lab) = lab("6") else { return };
    let family = Family::V6;
    let publics = lab.public_nodes(|_| family);
    let start = |(n, kind): (usize, &(&str, _, _, _))| {
        lab.peer(&format!("host{}", side(n)), family.learner(&lab, n, kind.0))
    };
    let mut nodes: Vec<_> = KINDS.iter().enumerate().map(start).collect();
    for (n, (kind, mapping, filtering, dialled)) in KINDS.iter().enumerate() {
        let is_whole = |report: &Value| is_decided(report) && behaviour(report, family).is_some();
        let told = report(&mut nodes[n], is_whole);
        let nat = behaviour(&told, family).unwrap();
        assert_eq!(
            (&nat["mapping"], &nat["filtering"]),
            (&json!(mapping), &json!(filtering)),
            "{told}"
        );
        let ip = lab.address(&format!("HOST_{}_6", side(n)));
        let wanted = dialled.then(|| format!("[{ip}]:{PORT}"));
        let all = advertised(&told);
        assert_eq!(public_of(&all), Vec::from_iter(wanted.as_deref()), "{kind}: {told}");
        println!("{kind} over IPv6: {mapping}, {filtering}, advertised {:?}", public_of(&all));
        for address in public_of(&all) {
            lab.assert_dialled(address, &nodes[n]);
        }
    }
    let (first, rest) = nodes.split_first_mut().unwrap();
    for node in rest {
        deliver_both_ways(first, node);
    }
    for node in nodes.into_iter().chain(publics) {
        node.finish();
    }
}

fn both_families() {
    let Some(lab) = lab("46") else { return };
    let families = [Family::V4, Family::V6];
    // Half of the public ones have one family, and half the other.
    let family = |n: usize| if n % 2 == 1 { Family::V4 } else { Family::V6 };
    let publics = lab.public_nodes(family);
    let n = KINDS.iter().position(|kind| kind.0 == "none").unwrap();
    let mut flags = vec!["--config".to_owned(), settings("dual")];
    flags.extend(["--listen".into(), format!("[::]:{PORT}")]);
    for asked in &publics[..6] {
        flags.extend(["--bootstrap".into(), asked.listen.clone()]);
    }
    flags.extend(families.iter().flat_map(|family| family.stun(&lab)));
    let mut node = lab.peer(&format!("host{}", side(n)), flags);
    let address =
        |family: Family| format!("{}:{PORT}", family.address(&lab, &format!("PUBLIC_{}", side(n))));
    // IPv6 is dialled first.
    let wanted = [address(Family::V6), address(Family::V4)];
    let told = report(&mut node, |report| {
        families.iter().all(|family| behaviour(report, *family).is_some())
            && advertised(report).len() == wanted.len()
    });
    println!("both families: {:?}", advertised(&told));
    assert_eq!(advertised(&told), wanted, "{told}");
    for address in &wanted {
        lab.assert_dialled(address, &node);
    }
    for node in publics.into_iter().chain([node]) {
        node.finish();
    }
}
