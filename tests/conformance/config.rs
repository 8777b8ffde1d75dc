//! `config.get`, `config.patch`, `config.schema.lookup`.

use std::time::Duration;

use openclaw_controller::gateway::ErrorClass;
use openclaw_controller::model::RosterShape;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::env::{CALL, Env};

pub(crate) async fn secrets_are_never_shown_and_survive_being_written_back(env: &Env) {
    let client = env.client().await;
    let payload = env.call(&client, "config.get", json!({})).await;
    let mut shown = Vec::new();
    places(&payload, env.token(), "", &mut shown);
    assert_eq!(!shown.is_empty(), env.facts.shows_token, "shown in {shown:?}");
    let token = &payload["parsed"]["gateway"]["auth"]["token"];
    assert_eq!(token, "__OPENCLAW_REDACTED__");
    let outcome = env
        .patch(&json!({ "gateway": { "auth": { "token": token } } }))
        .await
        .unwrap();
    assert_eq!(outcome.noop, !env.facts.every_patch_restarts);
    env.client().await;
}

/// Where a text is in a value.
fn places(value: &Value, text: &str, path: &str, found: &mut Vec<String>) {
    match value {
        Value::String(string) if string.contains(text) => found.push(path.to_owned()),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                places(item, text, &format!("{path}[{i}]"), found);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                places(field, text, &format!("{path}.{key}"), found);
            }
        }
        _ => {}
    }
}

pub(crate) async fn a_patch_needs_the_hash_of_what_it_changes(env: &Env) {
    let agent = env.agent();
    let patch = env.roster_patch([(agent.to_string(), json!({ "name": "Changed" }))]);
    let client = env.client().await;
    let error = client.config_patch(&patch, None, &[], CALL).await.unwrap_err();
    assert!(error.message().contains("base hash required"), "{error}");
    let error = client.config_patch(&patch, Some("stale"), &[], CALL).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict, "{error}");
    assert_ne!(env.entry(&agent).await.unwrap()["name"], "Changed");
}

pub(crate) async fn a_patch_that_changes_nothing_is_no_write(env: &Env) {
    let agent = env.agent();
    let name = env.entry(&agent).await.unwrap()["name"].clone();
    for patch in [
        json!({}),
        env.roster_patch([(agent.to_string(), json!({ "name": name }))]),
    ] {
        let before = env.entry(&agent).await;
        let outcome = env.patch(&patch).await.unwrap();
        // The oldest write it all the same, and restart.
        assert_eq!(outcome.noop, !env.facts.every_patch_restarts, "{patch}");
        assert_eq!(outcome.hash, None, "{patch}");
        assert_eq!(outcome.changed_paths, env.facts.patch_paths.then(Vec::new), "{patch}");
        assert_eq!(env.entry(&agent).await, before, "{patch}");
    }
}

pub(crate) async fn a_patch_that_is_no_object_is_refused(env: &Env) {
    let client = env.client().await;
    let hash = env.observed(&client).await.hash;
    let error = client.config_patch(&json!([1]), hash.as_deref(), &[], CALL).await;
    let error = error.unwrap_err();
    // Another check may have been faster; then the hash is what is wrong.
    assert!(
        error.message().contains("config.patch raw must be an object") || error.class() == ErrorClass::Conflict,
        "{error}"
    );
}

/// The path of an agent of this index in messages, as a prefix that is the same in all dialects is not to be had.
fn roster_prefix(env: &Env) -> &'static str {
    if env.facts.has_entries() {
        "agents.entries."
    } else {
        "agents.list."
    }
}

pub(crate) async fn an_invalid_patch_names_every_path(env: &Env) {
    let agent = env.agent();
    let before = env.entry(&agent).await;
    let entry = |entry: Value| env.roster_patch([(agent.to_string(), entry)]);
    let root = if env.facts.issue_in_message { "<root>" } else { "" };
    let auto = if env.facts.host_auto { "\"auto\"|" } else { "" };
    let hosts = format!("Invalid option: expected one of {auto}\"sandbox\"|\"gateway\"|\"node\"");
    for (patch, path, message) in [
        (json!({ "nope": 1 }), root, "Unrecognized key: \"nope\""),
        (json!({ "tools": { "nope": 1 } }), "tools", "Unrecognized key: \"nope\""),
        (
            json!({ "tools": { "exec": { "host": "mars" } } }),
            "tools.exec.host",
            hosts.as_str(),
        ),
        (
            entry(json!({ "heartbeat": { "zork": 1 } })),
            ".heartbeat",
            "Unrecognized key: \"zork\"",
        ),
        (
            entry(json!({ "heartbeat": { "every": "tenminutes" } })),
            ".heartbeat.every",
            "invalid duration (use ms, s, m, h)",
        ),
        (
            entry(json!({ "heartbeat": { "every": 10 } })),
            ".heartbeat.every",
            "Invalid input: expected string, received number",
        ),
    ] {
        let error = env.patch(&patch).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{patch}: {error}");
        let text = error.message();
        assert!(text.contains(message), "{patch}: {text}");
        assert!(text.contains(path), "{patch}: {text}");
        if path.starts_with('.') {
            assert!(text.contains(roster_prefix(env)), "{patch}: {text}");
        }
    }
    assert_eq!(env.entry(&agent).await, before);
}

pub(crate) async fn include_reasoning_is_taken_by_old_gateways_only(env: &Env) {
    let agent = env.agent();
    let patch = env.roster_patch([(agent.to_string(), json!({ "heartbeat": { "includeReasoning": false } }))]);
    let result = env.patch(&patch).await;
    if env.facts.has_entries() {
        let error = result.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid);
        let expected = format!("agents.entries.{agent}.heartbeat: Unrecognized key: \"includeReasoning\"");
        assert!(error.message().contains(&expected), "{error}");
    } else {
        result.unwrap();
        assert_eq!(env.entry(&agent).await.unwrap()["heartbeat"]["includeReasoning"], false);
    }
}

pub(crate) async fn a_patch_merges_an_agent_key_by_key(env: &Env) {
    let agent = env.agent();
    let workspace = env.workspace(agent.as_str());
    let hours = json!({ "start": "08:00", "end": "20:00", "timezone": "UTC" });
    let change = json!({ "name": "Renamed", "heartbeat": { "every": "20m", "target": null, "activeHours": hours } });
    let outcome = env
        .patch(&env.roster_patch([(agent.to_string(), change)]))
        .await
        .unwrap();
    assert!(!outcome.noop);
    let entry = env.entry(&agent).await.unwrap();
    assert_eq!(entry["name"], "Renamed");
    assert_eq!(entry["workspace"], workspace.as_str(), "untouched");
    assert_eq!(
        entry["heartbeat"],
        json!({ "every": "20m", "activeHours": hours }),
        "null deletes"
    );
    let change = json!({ "heartbeat": { "activeHours": { "start": "09:00", "timezone": null } } });
    env.patch(&env.roster_patch([(agent.to_string(), change)]))
        .await
        .unwrap();
    let entry = env.entry(&agent).await.unwrap();
    let hours = json!({ "start": "09:00", "end": "20:00" });
    assert_eq!(
        entry["heartbeat"],
        json!({ "every": "20m", "activeHours": hours }),
        "at every depth"
    );
    assert_eq!(outcome.hash.is_some(), env.facts.patch_hash);
    assert_eq!(outcome.changed_paths.is_some(), env.facts.patch_paths);
    let observed = env.observed(&env.client().await).await;
    let shape = if env.facts.has_entries() {
        RosterShape::Entries
    } else {
        RosterShape::List
    };
    assert_eq!(observed.shape, Some(shape));
    assert_eq!(observed.entry(&agent).unwrap().name.as_deref(), Some("Renamed"));
}

pub(crate) async fn an_agent_is_not_lost_by_a_patch(env: &Env) {
    let agent = env.agent();
    if env.facts.has_entries() {
        let patch = json!({ "agents": { "entries": { agent.as_str(): null } } });
        let error = env.patch(&patch).await.unwrap_err();
        let expected = format!("would drop agent roster entries without an explicit deletion: {agent}");
        assert!(error.message().contains(&expected), "{error}");
    } else {
        let outcome = env.patch(&json!({ "agents": { "list": [] } })).await.unwrap();
        assert_eq!(outcome.noop, !env.facts.every_patch_restarts, "lists merge by id");
        let nameless = json!({ "agents": { "list": [{ "name": "nameless" }] } });
        let error = env.patch(&nameless).await.unwrap_err();
        let expected = ".id: Invalid input: expected string, received undefined";
        assert!(error.message().contains(expected), "{error}");
    }
    assert!(env.entry(&agent).await.is_some());
}

pub(crate) async fn several_agents_need_explicit_ownership(env: &Env) {
    let patch = json!({ "agents": { "ownership": null } });
    let result = env.patch(&patch).await;
    if env.facts.has_entries() {
        let error = result.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid);
        assert!(
            error
                .message()
                .contains("agents.ownership: multi-agent rosters require agents.ownership=\"explicit\""),
            "{error}"
        );
    } else {
        assert_eq!(
            result.unwrap().noop,
            !env.facts.every_patch_restarts,
            "nothing to delete"
        );
        let error = env
            .patch(&json!({ "agents": { "ownership": "explicit" } }))
            .await
            .unwrap_err();
        assert!(
            error.message().contains("agents: Unrecognized key: \"ownership\""),
            "{error}"
        );
    }
}

pub(crate) async fn replace_paths_are_unknown_to_the_oldest_gateway(env: &Env) {
    let result = env.patch_replacing(&json!({}), &["tools.allow".to_owned()]).await;
    if env.facts.replace_paths {
        assert!(result.unwrap().noop);
    } else {
        let error = result.unwrap_err();
        assert!(
            error.message().contains("unexpected property 'replacePaths'"),
            "{error}"
        );
    }
}

pub(crate) async fn config_writes_are_limited_per_device(env: &Env) {
    let client = env.client().await;
    let nothing = json!({});
    let refused = || client.config_patch(&nothing, Some("stale"), &[], CALL);
    for i in 0..env.facts.writes_per_minute {
        let error = refused().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Conflict, "write {i}: {error}");
    }
    let error = refused().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::RateLimited, "{error}");
    assert!(error.is_transient());
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_mins(1) && wait > Duration::ZERO, "{wait:?}");
    assert!(
        error.message().contains("rate limit exceeded for config.patch"),
        "{error}"
    );
    // Another device is not held up.
    assert_eq!(
        env.patch(&json!({})).await.unwrap().noop,
        !env.facts.every_patch_restarts
    );
}

pub(crate) async fn the_schema_tells_what_the_dialect_has(env: &Env) {
    let client = env.client().await;
    let facts = &env.facts;
    if !facts.schema {
        let error = client.schema_lookup("channels").await.unwrap_err();
        assert!(error.message().contains("unknown method"), "{error}");
        return;
    }
    let new = facts.has_entries();
    for (path, known) in [
        ("agents.entries.*.heartbeat", new),
        ("agents.list[].heartbeat", !new),
        ("agents.list.0", !new),
        ("channels", true),
        ("channels.defaults", facts.schema_channel_defaults),
        (
            "channels.defaults.heartbeatVisibility",
            new && facts.schema_channel_defaults,
        ),
        ("channels.defaults.heartbeat", false),
        ("tools.exec.host", true),
        ("nope.nope", false),
        (".", facts.schema_root),
    ] {
        let node = client.schema_lookup(path).await.unwrap();
        assert_eq!(node.is_some(), known, "{path}");
    }
    let tells = client.schema_lookup("channels").await.unwrap().unwrap().reload;
    assert_eq!(tells.is_some(), facts.schema_effects);
}

pub(crate) async fn channel_visibility_restarts_old_gateways_once(env: &Env) {
    let restarts = env.facts.channels_restart() || env.facts.every_patch_restarts;
    let (key, other) = if env.facts.has_entries() {
        ("heartbeatVisibility", "heartbeat")
    } else {
        ("heartbeat", "heartbeatVisibility")
    };
    let patch = |key: &str| json!({ "channels": { "defaults": { key: { "showOk": false, "showAlerts": true } } } });
    let error = env.patch(&patch(other)).await.unwrap_err();
    assert!(
        error
            .message()
            .contains(&format!("channels.defaults: Unrecognized key: \"{other}\"")),
        "{error}"
    );

    let watcher = env.client().await;
    let result = env.patch(&patch(key)).await;
    // The oldest is gone before it has answered; 2026.7.1 is where the machine is busy.
    match result {
        Err(error) => {
            assert!(restarts, "{error}");
            assert!(error.outcome_unknown(), "{error}");
        }
        Ok(outcome) => assert!(!outcome.noop),
    }
    let closed = timeout(Duration::from_secs(if restarts { 60 } else { 8 }), watcher.closed()).await;
    match closed {
        Ok(reason) => {
            assert!(restarts, "closed: {reason:?}");
            assert!(reason.restart, "{reason:?}");
        }
        Err(_) => assert!(!restarts, "no restart within a minute"),
    }

    let observed = env.observed(&env.client().await).await;
    let found = if env.facts.has_entries() {
        observed.heartbeat_visibility
    } else {
        observed.heartbeat
    };
    assert_eq!(found.get("showOk"), Some(&json!(false)), "written");
    let again = env.client().await;
    let outcome = env.patch(&patch(key)).await.unwrap();
    assert_eq!(outcome.noop, !env.facts.every_patch_restarts);
    if outcome.noop {
        let quiet = timeout(Duration::from_secs(4), again.closed()).await;
        assert!(quiet.is_err(), "a second restart: {quiet:?}");
    }

    // 2026.4.29 loses its channels when an agent is updated, and restarts for it.
    let agent = env.agent();
    let params = json!({ "agentId": agent.as_str(), "name": "Updated" });
    let client = env.client().await;
    env.call(&client, "agents.update", params).await;
    let channels = env.config().await.get("channels").cloned();
    if let Some(loses) = env.facts.update_loses_channels {
        assert_eq!(channels.is_none(), loses, "{channels:?}");
    }
    if channels.is_none() {
        let closed = timeout(Duration::from_mins(1), client.closed()).await;
        assert!(closed.expect("restarts again").restart);
    }
}
