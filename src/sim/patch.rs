//! `config.get` and `config.patch`.

use serde_json::{Map, Value, json};

use super::agents;
use super::config;
use super::dialect::SimDialect;
use super::rpc::{Kind, Param, Params, RpcError, RpcResult};
use super::state::State;
use super::validate::validate;

/// `config.get`.
pub(super) fn get(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    Params::check("config.get", params, &[])?;
    Ok(shown_config(state.dialect, &state.config))
}

/// What `config.get` answers where the config file holds this.
pub fn shown_config(dialect: SimDialect, file: &Value) -> Value {
    let hash = config::hash(dialect, file);
    let effective = config::redacted(&config::effective(dialect, file));
    let file = config::redacted(file);
    json!({
        "path": State::config_path(),
        "exists": true,
        "raw": config::text(&file),
        "parsed": file,
        "sourceConfig": file,
        "resolved": file,
        "valid": true,
        "runtimeConfig": effective,
        "config": effective,
        "hash": hash,
        "issues": [],
        "warnings": [],
        "legacyIssues": [],
    })
}

/// What a config file holds after a patch, by the rules by which gateways merge; whether they would take it is another matter.
pub fn merged_config(file: &Value, patch: &Value) -> Value {
    let mut next = file.clone();
    config::merge(&mut next, patch, "", &[]);
    next
}

/// `config.patch`.
pub(super) fn patch(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 6] = [
        ("raw", Kind::NonEmpty, true),
        ("baseHash", Kind::NonEmpty, false),
        ("sessionKey", Kind::Text, false),
        ("note", Kind::Text, false),
        ("restartDelayMs", Kind::Any, false),
        ("replacePaths", Kind::Any, false),
    ];
    let old = state.dialect.protocol() == 3;
    let params = Params::check("config.patch", params, if old { &SPEC[..5] } else { &SPEC })?;
    let replace: Vec<String> = params
        .value("replacePaths")
        .and_then(Value::as_array)
        .map(|paths| paths.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    let parsed = serde_json::from_str::<Value>(params.required("raw"));
    let new = state.dialect.has_entries();
    let base_hash = params.text("baseHash");
    if let Some(base) = base_hash
        && base != config::hash(state.dialect, &state.config)
    {
        return Err(RpcError::invalid(
            "config changed since last load; re-run config.get and retry",
        ));
    }
    if base_hash.is_none() && !new {
        return Err(RpcError::invalid(
            "config base hash required; re-run config.get and retry",
        ));
    }
    let patch = parsed.map_err(|error| RpcError::invalid(format!("SyntaxError: JSON5: {error}")))?;
    if !patch.is_object() {
        return Err(RpcError::invalid("config.patch raw must be an object"));
    }
    let mut next = state.config.clone();
    config::merge(&mut next, &patch, "", &replace);
    let changed = config::changed_paths(&state.config, &next);
    if base_hash.is_none()
        && let Some(path) = changed.first()
    {
        return Err(RpcError::invalid(format!(
            "config base hash required for {path}; re-run config.get and retry"
        )));
    }
    if changed.is_empty() {
        let effective = config::redacted(&config::effective(state.dialect, &state.config));
        let mut answer = json!({ "ok": true, "noop": true, "path": State::config_path(), "config": effective });
        if new {
            answer["changedPaths"] = json!([]);
        }
        return Ok(answer);
    }
    validate(state.dialect, &next)?;
    if new {
        let (before, after) = (state.roster(), config::roster(state.dialect, &next));
        if let Some(lost) = before
            .iter()
            .find(|entry| !after.iter().any(|other| other.id == entry.id))
        {
            return Err(RpcError::unavailable(format!(
                "Error: Config write would drop agent roster entries without an explicit deletion: {}.",
                lost.id
            )));
        }
        if after.len() > 1 {
            agents::settle_entries(&mut next);
        }
    }
    state.write_config(next)?;
    let restarts = state.pending_restart.is_some();
    if new && restarts {
        // Written all the same.
        return Err(RpcError::unavailable(
            "config.patch persisted and updated the active Gateway, but a recovery restart is required; wait for the Gateway \
             to restart, then run config.get to confirm the active revision",
        ));
    }
    let mut answer = json!({
        "ok": true,
        "path": State::config_path(),
        "config": config::redacted(&state.config),
        "sentinel": { "payload": { "kind": "config-patch", "status": "ok", "stats": { "mode": "config.patch" } } },
    });
    if new {
        answer["hash"] = json!(config::hash(state.dialect, &state.config));
        answer["changedPaths"] = json!(changed);
        answer["sentinel"]["payload"]["stats"]["requiresRestart"] = json!(false);
    }
    Ok(answer)
}
