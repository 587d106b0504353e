//! What each path answers with: private structures, of which serde makes JSON and utoipa the document.
//!
//! Public types are not written as they are: their keys would be those of the API for ever, and the document could not
//! describe them. A test beside each view compares it with what it shows.

pub(super) mod actions;
pub(super) mod dead_letters;
pub(super) mod events;
pub(super) mod explain;
pub(super) mod health;
pub(super) mod history;
pub(super) mod peers;
pub(super) mod reachability;
pub(super) mod stats;
pub(super) mod status;

use serde::Serialize;
use utoipa::ToSchema;

/// Problem document (RFC 9457): why a request was not answered as asked.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "described here, written by `web::Problem`")]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    r#type: String,
    /// The status in words.
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, as a sentence for people.
    detail: String,
    /// The path that was asked for.
    instance: String,
}

/// Keys of an object in JSON.
#[cfg(test)]
fn keys(value: &impl Serialize) -> std::collections::BTreeSet<String> {
    match serde_json::to_value(value).unwrap() {
        serde_json::Value::Object(map) => map.keys().cloned().collect(),
        other => panic!("{other} is no object"),
    }
}
