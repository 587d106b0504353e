//! The `OpenAPI` document: what the views say, and what all answers have in common.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::routes::ROUTES;
use super::views::{
    actions, dead_letters, events, explain, health, history, peers, reachability, stats, status,
};

/// Name of the token among the security schemes.
const TOKEN: &str = "token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "sorcha-peer admin",
        description = "What a node shows of itself to those who operate it, and what they may do.",
        version = "1",
    ),
    paths(
        health::page,
        health::live,
        health::ready,
        health::metrics,
        health::document,
        status::status,
        stats::stats,
        reachability::reachability,
        peers::peers,
        peers::peer,
        actions::ban,
        actions::unban,
        actions::disconnect,
        actions::reset_breaker,
        actions::test,
        dead_letters::list,
        dead_letters::redeliver,
        dead_letters::delete,
        events::follow,
        events::recent,
        explain::explain,
        history::history,
    ),
    components(schemas(super::views::Problem, history::SpanName))
)]
struct Document;

/// Refusals that any operation may answer with, and those of some.
fn refusals(route: &super::routes::Route) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("400", "The request is malformed, or a parameter is"),
        ("403", "The listener is not called so, or a page of another origin asks"),
    ];
    if !route.is_open() {
        all.push(("401", "The token is missing or wrong"));
    }
    if route.path.contains("{id}") {
        all.push(("404", "There is no such thing, or nothing known of it"));
    }
    if route.is_post {
        all.push(("408", "The body takes too long"));
        all.push(("413", "The body is too large"));
        all.push(("415", "The body is of another media type"));
    }
    all.push(("503", "The node stops, does not answer, or its storage fails"));
    all
}

fn refusal(description: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let content = json!({ "application/problem+json": { "schema": schema } });
    json!({ "description": description, "content": content })
}

/// The document, as it is served.
pub(super) fn document() -> Bytes {
    // What utoipa makes can be written.
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    // The build's package is not what the document is about.
    if let Some(info) = document["info"].as_object_mut() {
        for name in ["license", "contact"] {
            info.remove(name);
        }
    }
    document["components"]["securitySchemes"] =
        json!({ TOKEN: { "type": "http", "scheme": "bearer" } });
    for route in ROUTES {
        let method = if route.is_post { "post" } else { "get" };
        let operation = &mut document["paths"][route.path][method];
        let needed = if route.is_open() { json!([]) } else { json!([{ TOKEN: [] }]) };
        operation["security"] = needed;
        if let Some(responses) = operation["responses"].as_object_mut() {
            add_refusals(responses, route);
        }
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            without_null(&mut parameter["schema"]);
        }
    }
    document.to_string().into()
}

/// Makes the schema of what may be left out one of what it is when it is there: there is no null in a query.
fn without_null(schema: &mut Value) {
    let null = |kind: &Value| *kind == "null" || kind["type"] == "null";
    for key in ["type", "oneOf"] {
        let Some(kinds) = schema[key].as_array() else { continue };
        let kinds: Vec<_> = kinds.iter().filter(|kind| !null(kind)).cloned().collect();
        if let [only] = &kinds[..] {
            let only = only.clone();
            if key == "type" { schema[key] = only } else { *schema = only }
        }
    }
}

fn add_refusals(responses: &mut Map<String, Value>, route: &super::routes::Route) {
    for (status, description) in refusals(route) {
        responses.entry(status).or_insert_with(|| refusal(description));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn served() -> Value {
        serde_json::from_slice(&document()).unwrap()
    }

    #[test]
    fn the_document_has_the_paths_and_methods_of_the_table() {
        let generated = serde_json::to_value(Document::openapi()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, operations) in generated["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                documented.insert((path.clone(), method.clone()));
            }
        }
        let method =
            |route: &super::super::routes::Route| if route.is_post { "post" } else { "get" };
        let table = ROUTES.iter().map(|route| (route.path.to_owned(), method(route).to_owned()));
        assert_eq!(documented, table.collect());
    }

    #[test]
    fn it_is_of_version_3_1_and_every_reference_leads_somewhere() {
        let document = served();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{document}");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn every_answer_and_every_parameter_is_described() {
        let document = served();
        for route in ROUTES {
            let method = if route.is_post { "post" } else { "get" };
            let operation = &document["paths"][route.path][method];
            assert!(operation["summary"].is_string(), "{}: {operation}", route.path);
            let parameters = operation.get("parameters").map(|it| it.as_array().expect("a list"));
            let parameters = parameters.cloned().unwrap_or_default();
            let named = |name: &str| parameters.iter().any(|known| known["name"] == name);
            assert!(route.query().iter().all(|name| named(name)), "{}", route.path);
            assert_eq!(named("id"), route.path.contains("{id}"), "{}", route.path);
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let is_refusal = !status.starts_with(['2', '3']) && route.path != "/readyz";
                let is_problem = answer["content"]["application/problem+json"].is_object();
                assert!(!is_refusal || is_problem, "{} {status}", route.path);
            }
        }
    }
}
