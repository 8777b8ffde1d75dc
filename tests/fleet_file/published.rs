//! What is published for people and editors is current, and says what the program does.

use openclaw_controller::fleet::{self, SCHEMA_FILE};
use serde_json::Value;

use crate::{Desk, EXAMPLE, command};

/// YAML as an editor sees it.
fn as_json(yaml: &str) -> Value {
    let file = fleet::read(yaml.as_bytes()).unwrap();
    serde_json::to_value(&file).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_schema_is_current_and_printed() {
    let committed = std::fs::read_to_string(format!("{}/{SCHEMA_FILE}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let hint = format!("run `openclaw-controller apply --schema >{SCHEMA_FILE}`");
    assert_eq!(committed, fleet::schema(), "{hint}");
    let printed = command(&["apply", "--schema"], &[]).await;
    assert_eq!((printed.code, printed.stdout), (Some(0), committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_taken_keep_to_the_schema() {
    let schema: Value = serde_json::from_str(&fleet::schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let desk = Desk::new().await;
    desk.applied(EXAMPLE, &[]).await;
    for yaml in [EXAMPLE.to_owned(), desk.exported().await] {
        let json = as_json(&yaml);
        let problems: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{problems:#?}\n{yaml}");
    }
    for (pointer, value) in [
        ("/organizations/0/colour", Value::from("red")),
        ("/organizations/0/id", Value::from(7)),
        ("/organizations/0/gateways/0/token", Value::from("hunter2")),
        ("/organizations/0/boards/0/max_agents", Value::from("many")),
        (
            "/organizations/0/boards/0/agents/0/heartbeat_config",
            Value::from("10m"),
        ),
        ("/version", Value::from(2)),
    ] {
        let mut json = as_json(EXAMPLE);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[key] = value;
        assert!(!validator.is_valid(&json), "{pointer}");
    }
}

#[test]
fn the_schema_and_the_reader_know_the_same_fields() {
    let schema: Value = serde_json::from_str(&fleet::schema()).unwrap();
    for (object, before) in [
        (None, ""),
        (Some("Organization"), "organizations: [{name: a, "),
        (Some("Owner"), "organizations: [{name: a, owner: {user: b, "),
        (Some("Gateway"), "organizations: [{name: a, gateways: [{name: b, "),
        (Some("Board"), "organizations: [{name: a, boards: [{name: b, "),
        (
            Some("Agent"),
            "organizations: [{name: a, boards: [{name: b, agents: [{name: c, ",
        ),
    ] {
        let definition = object.map_or(&schema, |name| &schema["$defs"][name]);
        let mut published: Vec<&str> = definition["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let closing: String = before
            .chars()
            .rev()
            .filter_map(|char| match char {
                '{' => Some('}'),
                '[' => Some(']'),
                _ => None,
            })
            .collect();
        let yaml = format!("{before}unheard_of: 1{closing}");
        let told = fleet::read(yaml.as_bytes()).unwrap_err();
        let told = told
            .iter()
            .find(|problem| problem.message.contains("`unheard_of`"))
            .unwrap();
        let (_, known) = told.message.split_once("there are: ").unwrap();
        let mut known: Vec<&str> = known.split(", ").collect();
        published.sort_unstable();
        known.sort_unstable();
        assert_eq!(published, known, "{object:?}");
        assert_eq!(definition["additionalProperties"], false, "{object:?}");
    }
}
