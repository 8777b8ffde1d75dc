//! Reading a gateway's config, and what a patch of it answered.

use serde_json::{Map, Value};

use super::error::{ErrorClass, GatewayError};
use super::redact::clean;
use super::size;
use crate::model::{ConfigSizes, GatewayAgentId, ObservedConfig, RosterEntry, RosterShape};

/// What the gateway said of a patch that it took.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchOutcome {
    /// Whether the patch changed nothing, as far as the gateway says.
    pub noop: bool,
    /// The config's hash afterwards, where the gateway tells it.
    pub hash: Option<String>,
    /// The paths that changed, where the gateway tells them.
    pub changed_paths: Option<Vec<String>>,
    /// Whether the gateway will restart for it, where it tells: by `requiresRestart`, or (2026.2 and 2026.3, which restart for
    /// every patch) by the restart that it has scheduled.
    pub requires_restart: Option<bool>,
    /// The config afterwards, where the gateway tells it and it can be understood: as good as reading it back. Its hash is
    /// this outcome's.
    pub config: Option<ObservedConfig>,
}

/// The observed part of what `config.get` answered.
pub(super) fn observed(payload: &Value) -> Result<ObservedConfig, GatewayError> {
    if payload.get("valid") == Some(&Value::Bool(false)) {
        // What the gateway shows then is not what its file says; deciding anything from it could undo an operator's work.
        let issues: Vec<String> = issues(payload);
        let message = format!(
            "the gateway's own config file is invalid ({}): run `openclaw doctor` on its host",
            if issues.is_empty() {
                "no issues told".to_owned()
            } else {
                issues.join("; ")
            }
        );
        return Err(GatewayError::new(ErrorClass::Invalid, message));
    }
    let config = [payload.get("config"), payload.get("parsed")]
        .into_iter()
        .flatten()
        .find_map(Value::as_object)
        .ok_or_else(|| GatewayError::protocol("the gateway's config is not an object"))?;
    let mut observed = observe(config, payload.get("hash").and_then(Value::as_str).map(str::to_owned))?;
    observed.sizes = size::sizes(payload, config);
    Ok(observed)
}

fn issues(payload: &Value) -> Vec<String> {
    let issues = payload
        .get("issues")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text = |issue: &Value, key| issue.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    issues
        .iter()
        .take(5)
        .map(|issue| format!("{}: {}", text(issue, "path"), text(issue, "message")))
        .collect()
}

fn observe(config: &Map<String, Value>, hash: Option<String>) -> Result<ObservedConfig, GatewayError> {
    let empty = Map::new();
    let agents = object(config.get("agents"), "agents")?.unwrap_or(&empty);
    let (shape, roster) = roster(agents)?;
    let defaults = match object(config.get("channels"), "channels")? {
        Some(channels) => object(channels.get("defaults"), "channels.defaults")?.unwrap_or(&empty),
        None => &empty,
    };
    let visibility = |key: &str| {
        object(defaults.get(key), &format!("channels.defaults.{key}")).map(|found| found.cloned().unwrap_or_default())
    };
    let exec = match object(config.get("tools"), "tools")? {
        Some(tools) => object(tools.get("exec"), "tools.exec")?,
        None => None,
    };
    let there = |key: &str| agents.get(key).is_some_and(|value| !value.is_null());
    Ok(ObservedConfig {
        hash,
        shape,
        both_shapes: there("list") && there("entries"),
        written_by: config
            .get("meta")
            .and_then(|meta| meta.get("lastTouchedVersion"))
            .and_then(Value::as_str)
            .map(clean),
        roster,
        ownership: string(agents.get("ownership"), "agents.ownership")?,
        has_exec_host: exec
            .and_then(|exec| exec.get("host"))
            .is_some_and(|host| !host.is_null()),
        heartbeat: visibility("heartbeat")?,
        heartbeat_visibility: visibility("heartbeatVisibility")?,
        sizes: ConfigSizes::default(),
    })
}

fn roster(agents: &Map<String, Value>) -> Result<(Option<RosterShape>, Vec<RosterEntry>), GatewayError> {
    if let Some(entries) = object(agents.get("entries"), "agents.entries")? {
        let roster: Result<_, _> = entries
            .iter()
            .map(|(id, value)| entry(id, value, "agents.entries"))
            .collect();
        return Ok((Some(RosterShape::Entries), roster?));
    }
    match agents.get("list") {
        None | Some(Value::Null) => Ok((None, Vec::new())),
        Some(Value::Array(items)) => {
            let parse = |(at, value): (usize, &Value)| match value.get("id").and_then(Value::as_str) {
                Some(id) => entry(id, value, "agents.list"),
                None => Err(unexpected(&format!("agents.list[{at}].id"), "a string")),
            };
            let roster: Result<_, _> = items.iter().enumerate().map(parse).collect();
            Ok((Some(RosterShape::List), roster?))
        }
        Some(_) => Err(unexpected("agents.list", "an array")),
    }
}

fn entry(id: &str, value: &Value, parent: &str) -> Result<RosterEntry, GatewayError> {
    let at = |key: &str| format!("{parent}.{id}.{key}");
    let Some(object_) = value.as_object() else {
        return Err(unexpected(&format!("{parent}.{id}"), "an object"));
    };
    Ok(RosterEntry {
        id: GatewayAgentId::observed(id),
        name: string(object_.get("name"), &at("name"))?,
        workspace: string(object_.get("workspace"), &at("workspace"))?,
        heartbeat: object(object_.get("heartbeat"), &at("heartbeat"))?.cloned(),
    })
}

/// An object, or nothing (absent or null).
fn object<'a>(value: Option<&'a Value>, path: &str) -> Result<Option<&'a Map<String, Value>>, GatewayError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(unexpected(path, "an object")),
    }
}

/// A string, or nothing (absent or null).
fn string(value: Option<&Value>, path: &str) -> Result<Option<String>, GatewayError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(unexpected(path, "a string")),
    }
}

/// Names the place, never the value: a config is full of secrets.
fn unexpected(path: &str, expected: &str) -> GatewayError {
    GatewayError::protocol(format!("in the gateway's config, {path} is not {expected}"))
}

/// What a successful `config.patch` answered. Old gateways tell nearly nothing.
pub(super) fn patched(payload: &Value) -> PatchOutcome {
    let hash = payload.get("hash").and_then(Value::as_str).map(str::to_owned);
    let changed = payload.get("changedPaths").and_then(Value::as_array);
    PatchOutcome {
        noop: payload.get("noop").and_then(Value::as_bool).unwrap_or(false),
        changed_paths: changed.map(|paths| paths.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        requires_restart: payload
            .pointer("/sentinel/payload/stats/requiresRestart")
            .or_else(|| payload.pointer("/restart/ok"))
            .and_then(Value::as_bool),
        config: payload
            .get("config")
            .and_then(Value::as_object)
            .and_then(|config| observe(config, hash.clone()).ok()),
        hash,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fresh_config_of_an_old_gateway_has_no_roster_and_no_shape() {
        let config = observed(&json!({"hash": "h", "valid": true, "config": {
            "agents": {"defaults": {"maxConcurrent": 4}}, "gateway": {"auth": {"token": "__OPENCLAW_REDACTED__"}}
        }}))
        .unwrap();
        assert_eq!(
            (config.shape, config.roster.len(), config.hash.as_deref()),
            (None, 0, Some("h"))
        );
        assert!(!config.has_exec_host);
    }

    #[test]
    fn both_roster_shapes_are_read() {
        let entry = json!({"id": "mc-1", "name": "One", "workspace": "/w", "heartbeat": {"every": "10m"}, "new": [1]});
        let list = observed(&json!({"config": {"agents": {"list": [{"id": "main"}, entry]}}})).unwrap();
        let entries =
            observed(&json!({"config": {"agents": {"ownership": "explicit", "entries": {"main": {}, "mc-1": entry}}}}))
                .unwrap();
        assert_eq!(
            (list.shape, entries.shape),
            (Some(RosterShape::List), Some(RosterShape::Entries))
        );
        assert_eq!(list.roster, entries.roster);
        assert_eq!(entries.ownership.as_deref(), Some("explicit"));
        let one = entries.entry(&GatewayAgentId::observed("mc-1")).unwrap();
        assert_eq!(
            (one.name.as_deref(), one.workspace.as_deref()),
            (Some("One"), Some("/w"))
        );
        assert_eq!(one.heartbeat.as_ref().unwrap()["every"], "10m");
    }

    #[test]
    fn the_parsed_file_serves_where_there_is_no_config() {
        let config = observed(&json!({"config": null, "parsed": {
            "tools": {"exec": {"host": "sandbox"}},
            "channels": {"defaults": {"heartbeat": {"showOk": true}, "heartbeatVisibility": {"showAlerts": false}}}
        }}))
        .unwrap();
        assert!(config.has_exec_host);
        assert_eq!(config.heartbeat["showOk"], true);
        assert_eq!(config.heartbeat_visibility["showAlerts"], false);
    }

    #[test]
    fn wrong_types_are_named_and_never_shown() {
        for (payload, place) in [
            (json!("s3cret"), "config"),
            (json!({"config": [], "parsed": "s3cret"}), "config"),
            (json!({"config": {"agents": "s3cret"}}), "agents"),
            (json!({"config": {"agents": {"list": {"s3cret": 1}}}}), "agents.list"),
            (
                json!({"config": {"agents": {"list": [{"id": 7, "x": "s3cret"}]}}}),
                "agents.list[0].id",
            ),
            (json!({"config": {"agents": {"list": ["s3cret"]}}}), "agents.list[0].id"),
            (json!({"config": {"agents": {"entries": ["s3cret"]}}}), "agents.entries"),
            (
                json!({"config": {"agents": {"entries": {"a": "s3cret"}}}}),
                "agents.entries.a",
            ),
            (
                json!({"config": {"agents": {"entries": {"a": {"heartbeat": "s3cret"}}}}}),
                "agents.entries.a.heartbeat",
            ),
            (json!({"config": {"agents": {"ownership": 5}}}), "agents.ownership"),
            (
                json!({"config": {"channels": {"defaults": "s3cret"}}}),
                "channels.defaults",
            ),
            (json!({"config": {"tools": {"exec": "s3cret"}}}), "tools.exec"),
        ] {
            let error = observed(&payload).unwrap_err();
            assert_eq!(error.class(), ErrorClass::ProtocolError, "{payload}");
            assert!(
                error.message().contains(place) && !error.to_string().contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_invalid_config_file_is_not_taken_for_an_empty_one() {
        let error =
            observed(&json!({"valid": false, "config": {}, "issues": [{"path": "a", "message": "b"}]})).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid);
        assert!(error.message().contains("a: b"), "{error}");
    }

    #[test]
    fn a_patch_answer_is_read_with_whatever_it_has() {
        let old = patched(&json!({"ok": true, "path": "/x"}));
        assert_eq!(
            (old.noop, old.hash, old.changed_paths, old.requires_restart),
            (false, None, None, None)
        );
        let new = patched(&json!({"ok": true, "hash": "h2", "changedPaths": ["tools"],
            "config": {"tools": {"exec": {"host": "gateway"}}},
            "sentinel": {"payload": {"stats": {"requiresRestart": false}}}}));
        assert_eq!((new.hash.as_deref(), new.requires_restart), (Some("h2"), Some(false)));
        let config = new.config.unwrap();
        assert!(config.has_exec_host);
        assert_eq!(config.hash.as_deref(), Some("h2"));
        assert!(patched(&json!({"noop": true, "changedPaths": [], "config": {"agents": 1}})).noop);
        // The oldest restart after every patch, and say so in their own way.
        let oldest = patched(&json!({"ok": true, "restart": {"ok": true, "signal": "SIGUSR1", "delayMs": 2000}}));
        assert_eq!(oldest.requires_restart, Some(true));
    }
}
