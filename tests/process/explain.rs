//! Why a transaction is here, or is not, asked of processes.

use serde_json::json;

use crate::peer::Peer;

#[test]
fn a_process_tells_what_became_of_a_transaction() {
    let mut a = Peer::start(["--memory"]);
    let mut b = Peer::start(["--memory", "--topic", "orders", "--bootstrap", &a.listen]);
    b.wait("peer_up", |line| line["peer"] == a.id);
    let published = a.ask(json!({ "op": "publish", "topic": "orders", "text": "one widget" }));
    let id = published["id"].clone();
    b.wait("delivered", |line| line["id"] == id);
    a.wait("replicated", |line| line["id"] == id);

    let told = a.ask(json!({ "op": "explain", "id": id }));
    assert_eq!(told["event"], "explained");
    assert_eq!(
        (&told["id"], &told["state"], &told["own"]),
        (&id, &json!("confirmed"), &json!(true))
    );
    assert_eq!(told["summary"], "Stored here and confirmed by 1 other node");
    let told = b.ask(json!({ "op": "explain", "id": id }));
    assert_eq!((&told["state"], &told["topic"]), (&json!("stored"), &json!("orders")));
    assert_eq!((&told["size"], &told["origin"]), (&json!(10), &json!(a.id)));
    let steps = told["steps"].as_array().unwrap();
    let accepted = steps.iter().find(|step| step["what"] == "accepted").unwrap();
    assert_eq!((&accepted["peer"], &accepted["hop"]), (&json!(a.id), &json!(1)));
    assert!(accepted["at_ms"].as_u64().is_some(), "{told}");

    // An open network tells nobody.
    let told = a.ask(json!({ "op": "explain", "id": id, "across": true }));
    assert_eq!((&told["elsewhere"], &told["not_told"]), (&json!({}), &json!([b.id])));
    let unknown = a.ask(json!({ "op": "explain", "id": "00".repeat(32) }));
    assert_eq!((&unknown["event"], &unknown["state"]), (&json!("explained"), &json!("unknown")));
    for (line, why) in [
        (json!({ "op": "explain" }), "missing field `id`"),
        (json!({ "op": "explain", "id": "00" }), "64 hexadecimal digits"),
        (json!({ "op": "explain", "id": id, "accross": true }), "unknown field"),
    ] {
        let refused = a.ask(line);
        assert!(refused["error"].as_str().unwrap().contains(why), "{why}: {refused}");
    }
}
