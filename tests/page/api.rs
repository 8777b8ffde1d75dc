//! The API keeps what its document promises, and the document is a good one.

use std::collections::BTreeSet;

use jsonschema::Validator;
use openclaw_controller::lab;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Answer, Fleet, get};
use crate::support::Options;

/// The document as served.
struct Document(Value);

impl Document {
    /// What answers of a path, as the document writes it, must look like. References are looked up in the whole document.
    fn validator(&self, path: &str, status: u16) -> Validator {
        let answer = &self.0["paths"][path]["get"]["responses"][status.to_string()];
        let answer = self.resolve(answer);
        let schema = &answer["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} has no answer {status}: {answer}");
        let mut whole = schema.clone();
        whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        whole["components"] = self.0["components"].clone();
        jsonschema::options()
            .should_validate_formats(true)
            .build(&whole)
            .expect("a valid schema")
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let found = self
                    .0
                    .pointer(reference.strip_prefix('#').expect("a reference inside the document"));
                found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => value,
        }
    }

    fn holds(&self, path: &str, answer: &Answer) {
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
        let value = answer.json();
        let errors: Vec<_> = self
            .validator(path, answer.status)
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{path} {}: {errors:#?}\n{value:#}", answer.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let fleet = Fleet::new().await;
    let (broken, waiting) = fleet.add_broken().await;
    let nameless = fleet.database.board(fleet.organization, None, "").await;
    fleet
        .database
        .execute(&format!(
            "UPDATE boards SET name = NULL, board_type = NULL WHERE id = '{nameless}'"
        ))
        .await;
    let controller = fleet.converged(Options::default()).await;
    let address = controller.address;
    let document = Document(get(address, "/api/v1/openapi.json").await.json());
    let event = get(address, "/api/v1/events").await.json()["items"][0]["id"].clone();
    assert!(event.is_i64(), "something has happened");
    let (unknown, gateway, agent) = (Uuid::new_v4(), fleet.gateway, fleet.agent);
    let mut seen = BTreeSet::new();
    for (path, real, status) in [
        ("/status", "/status".to_owned(), 200),
        ("/status", "/status?x=1".to_owned(), 400),
        ("/openapi.json", "/openapi.json".to_owned(), 200),
        ("/gateways", "/gateways".to_owned(), 200),
        (
            "/gateways",
            "/gateways?limit=1&search=light&ready=false".to_owned(),
            200,
        ),
        ("/gateways", "/gateways?board=x".to_owned(), 400),
        ("/gateways/{id}", format!("/gateways/{gateway}"), 200),
        ("/gateways/{id}", format!("/gateways/{broken}"), 200),
        ("/gateways/{id}", format!("/gateways/{unknown}"), 404),
        ("/boards", "/boards".to_owned(), 200),
        ("/boards", format!("/boards?gateway={gateway}"), 200),
        ("/boards", "/boards?gateway=x".to_owned(), 400),
        ("/boards/{id}", format!("/boards/{}", fleet.board), 200),
        ("/boards/{id}", format!("/boards/{nameless}"), 200),
        ("/boards/{id}", "/boards/none".to_owned(), 404),
        ("/agents", "/agents?limit=2&offset=1".to_owned(), 200),
        ("/agents", format!("/agents?gateway={broken}&board={unknown}"), 200),
        ("/agents", "/agents?limit=many".to_owned(), 400),
        ("/agents/{id}", format!("/agents/{agent}"), 200),
        ("/agents/{id}", format!("/agents/{waiting}"), 200),
        ("/agents/{id}", format!("/agents/{unknown}"), 404),
        ("/events", "/events?type=Normal".to_owned(), 200),
        ("/events", format!("/events?agent={agent}&limit=1"), 200),
        ("/events", "/events?type=Odd".to_owned(), 400),
        ("/events/{id}", format!("/events/{event}"), 200),
        ("/events/{id}", "/events/0".to_owned(), 404),
        ("/events/stream", "/events/stream?x=1".to_owned(), 400),
    ] {
        let answer = get(address, &format!("/api/v1{real}")).await;
        assert_eq!(answer.status, status, "{real}: {answer:?}");
        document.holds(path, &answer);
        seen.insert(path);
    }
    let documented: BTreeSet<_> = document.0["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(seen, documented, "every path of the document was asked for");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_come_in_parts_that_make_up_the_whole() {
    let fleet = Fleet::new().await;
    let (broken, waiting) = fleet.add_broken().await;
    let controller = fleet.converged(Options::default()).await;
    let address = controller.address;
    let ids = async |query: &str| -> Vec<String> {
        let list = get(address, &format!("/api/v1/agents{query}")).await.json();
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ids("").await;
    assert_eq!(all.len(), 4);
    let (mut parts, mut path) = (Vec::new(), "/api/v1/agents?limit=1".to_owned());
    loop {
        let list = get(address, &path).await.json();
        assert_eq!(list["total"], 4);
        parts.push(list["items"][0]["id"].as_str().unwrap().to_owned());
        match list["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(parts, all);
    let beyond = get(address, "/api/v1/agents?offset=1000").await.json();
    assert_eq!(
        (&beyond["total"], &beyond["items"], &beyond["next"]),
        (&json!(4), &json!([]), &Value::Null)
    );
    let (ready, not_ready) = (ids("?ready=true").await, ids("?ready=false").await);
    assert_eq!(
        all,
        [not_ready.clone(), ready.clone()].concat(),
        "those that are not ready come first"
    );
    assert!(not_ready.contains(&waiting.to_string()) && ready.contains(&fleet.agent.to_string()));
    assert_eq!(ids(&format!("?gateway={broken}")).await.len(), 2);
    assert_eq!(ids(&format!("?board={}", fleet.board)).await.len(), 2);
    assert_eq!(
        ids("?search=LIGHTHOUSE&limit=500").await.len(),
        2,
        "the gateway's name counts"
    );
    assert_eq!(ids("?search=egr").await, [waiting.to_string()]);
    assert_eq!(ids(&format!("?search={waiting}")).await, [waiting.to_string()]);
    for wildcard in ["%25", "_", "%5C"] {
        assert!(
            ids(&format!("?search={wildcard}")).await.is_empty(),
            "{wildcard} stands for itself"
        );
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_a_valid_openapi_document_whose_references_lead_somewhere() {
    let text = include_str!("../../src/serve/page/openapi.json");
    let document = Document(serde_json::from_str(text).unwrap());
    let path = lab::openapi_schema().await.unwrap();
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).expect("the schema of OpenAPI documents");
    let errors: Vec<_> = validator
        .iter_errors(&document.0)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // The schema takes what is no document, if it takes anything.
    let mut broken = document.0.clone();
    broken["paths"]["/agents"]["get"]["responses"] = json!([]);
    assert!(!validator.is_valid(&broken), "the schema finds mistakes");
    let mut pending = vec![&document.0];
    let mut operations = BTreeSet::new();
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(fields) => {
                if fields.get("$ref").is_some_and(Value::is_string) {
                    document.resolve(value);
                }
                if let Some(id) = fields.get("operationId") {
                    assert!(operations.insert(id.to_string()), "{id} is there twice");
                }
                pending.extend(fields.values());
            }
            Value::Array(items) => pending.extend(items),
            _ => {}
        }
    }
    for (name, schema) in document.0["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::meta::is_valid(schema), "{name} is a schema");
    }
}
