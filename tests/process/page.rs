//! The page of the admin listener in Debian's Chromium, against the `peer` example. Left out aloud where there is no
//! browser: `.ci/run` installs it.

use serde_json::json;

use crate::admin::{TOKEN, node};
use crate::clients::{all_right, is_here};
use crate::peer::Peer;

const PAGE: [&str; 3] = ["node", "tests/process/clients/page.mjs", "--probe"];

#[test]
fn an_operator_finds_the_way_about_a_page_without_faults() {
    if !is_here(PAGE) {
        return;
    }
    let (mut node, admin) = node(&[]);
    let url = format!("http://{admin}/");
    // The network is open to all, so its nodes tell others only where they are asked to.
    let dir = tempfile::tempdir().unwrap();
    let telling = dir.path().join("telling.toml");
    std::fs::write(&telling, "[messages]\nexplain = true\n").unwrap();
    let flags = ["--memory", "--bootstrap", &node.listen, "--config", telling.to_str().unwrap()];
    let mut others = [(); 2].map(|()| Peer::start(flags));
    for other in &others {
        node.wait("peer_up", |line| line["peer"] == other.id);
    }
    let id = node.publish("orders", "what the page is asked of");
    let load = json!({ "op": "publish_random", "topic": "orders", "size": 1000, "count": 200 });
    assert_eq!(others[0].ask(load)["event"], "published");
    for other in &mut others {
        other.wait_for_delivery(&id);
    }
    node.wait("replicated", |line| line["id"] == id && line["peers"] == 2);
    all_right(PAGE, &[&url, id.as_str().unwrap(), &others[0].id, &others[1].id]);
    let banned = &others[1].id;
    node.wait("peer_down", |line| line["peer"] == *banned && line["reason"] == "banned");
    node.finish();
}

#[test]
fn a_page_of_a_node_with_a_token_asks_for_it_and_keeps_it_in_its_tab() {
    if is_here(PAGE) {
        let (node, admin) = node(&["--admin-token", TOKEN]);
        all_right(PAGE, &["--token", &format!("http://{admin}/"), TOKEN]);
        node.finish();
    }
}
