//! `sessions.*` and `chat.*`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::rpc::{Kind, Param, Params, RpcError, RpcResult};
use super::state::State;
use super::wake;

/// How long a run takes before it fails for want of model credentials.
const RUN: Duration = Duration::from_secs(3);

/// A session, as a test may want to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimSession {
    /// Its id; changes with every reset.
    pub id: String,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// How often it was reset.
    pub resets: usize,
}

/// A message that a run was started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// The session it went to.
    pub session_key: String,
    /// Its text.
    pub text: String,
    /// Whether the answer is delivered to the session's channel.
    pub deliver: bool,
    /// Its idempotency key.
    pub idempotency_key: String,
}

/// `sessions.list`.
#[expect(clippy::unnecessary_wraps, reason = "the shape of every method")]
pub(super) fn list(state: &mut State, _params: &Map<String, Value>) -> RpcResult {
    let sessions: Vec<Value> = state
        .sessions
        .iter()
        .map(|(key, session)| json!({ "key": key, "sessionId": session.id, "displayName": session.label }))
        .collect();
    Ok(json!({ "ts": state.clock.now_ms(), "count": sessions.len(), "sessions": sessions }))
}

/// `sessions.patch`. Makes the session where it is missing, even for an agent that does not exist.
pub(super) fn patch(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 5] = [
        ("key", Kind::NonEmpty, true),
        ("label", Kind::Any, false),
        ("model", Kind::Any, false),
        ("thinkingLevel", Kind::Any, false),
        ("verboseLevel", Kind::Any, false),
    ];
    let params = Params::check("sessions.patch", params, &SPEC)?;
    let key = params.required("key").to_owned();
    if agent_of(&key).is_some_and(|agent| state.deleted.contains(agent)) {
        let error = RpcError::unavailable("Session patch failed unexpectedly. Retry the request.");
        return Err(error.retry_after(1000));
    }
    let label = match params.value("label") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(label)) if (1..=512).contains(&label.chars().count()) => Some(Some(label.clone())),
        Some(_) => {
            let message = "invalid sessions.patch params: at /label: must match a schema in anyOf";
            return Err(RpcError::invalid(message));
        }
    };
    if let Some(Some(label)) = &label {
        let agent = agent_of(&key);
        let taken = state
            .sessions
            .iter()
            .any(|(other, session)| *other != key && agent_of(other) == agent && session.label.as_ref() == Some(label));
        if taken {
            return Err(RpcError::invalid(format!("label already in use: {label}")));
        }
    }
    let id = state.unique_id();
    let session = state.sessions.entry(key.clone()).or_insert_with(|| SimSession {
        id,
        label: None,
        resets: 0,
    });
    if let Some(label) = label {
        session.label = label;
    }
    let mut entry = json!({ "sessionId": session.id });
    if let Some(label) = &session.label {
        entry["label"] = json!(label);
    }
    Ok(json!({ "ok": true, "key": key, "entry": entry }))
}

/// `sessions.reset`. A missing session is made.
pub(super) fn reset(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 2] = [("key", Kind::NonEmpty, true), ("reason", Kind::Text, false)];
    let params = Params::check("sessions.reset", params, &SPEC)?;
    let key = params.required("key").to_owned();
    let id = state.unique_id();
    let old = state.sessions.get(&key);
    let session = SimSession {
        id: id.clone(),
        label: old.and_then(|session| session.label.clone()),
        resets: old.map_or(0, |session| session.resets) + 1,
    };
    state.sessions.insert(key.clone(), session);
    Ok(json!({ "ok": true, "key": key, "entry": { "sessionId": id } }))
}

/// `sessions.delete`. The default agent's main session stays, and on 2026.9.6 everybody's.
pub(super) fn delete(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 2] = [("key", Kind::NonEmpty, true), ("deleteTranscript", Kind::Flag, false)];
    let params = Params::check("sessions.delete", params, &SPEC)?;
    let key = params.required("key");
    let is_main = key.ends_with(":main") && key.matches(':').count() == 2;
    if is_main && (state.dialect.has_entries() || agent_of(key) == Some(&state.default_agent())) {
        return Err(RpcError::invalid(format!("Cannot delete the main session ({key}).")));
    }
    let deleted = state.sessions.remove(key).is_some();
    Ok(json!({ "ok": true, "key": key, "deleted": deleted, "archived": [] }))
}

/// `chat.send`. The same idempotency key starts one run only, for as long as the process remembers it.
pub(super) fn send(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 6] = [
        ("sessionKey", Kind::NonEmpty, true),
        ("message", Kind::Text, true),
        ("idempotencyKey", Kind::NonEmpty, true),
        ("deliver", Kind::Flag, false),
        ("thinking", Kind::Text, false),
        ("timeoutMs", Kind::Any, false),
    ];
    let params = Params::check("chat.send", params, &SPEC)?;
    let session_key = params.required("sessionKey");
    if let Some(agent) = agent_of(session_key)
        && !state.known_roster().iter().any(|entry| entry.id == agent)
    {
        return Err(RpcError::invalid(format!(
            "Agent \"{agent}\" no longer exists in configuration"
        )));
    }
    if let Some(agent) = agent_of(session_key)
        && state.deleted.contains(agent)
    {
        return Err(RpcError::unavailable(format!(
            "Error: OpenClaw agent database is unavailable while agent {agent} is deleted."
        )));
    }
    let key = params.required("idempotencyKey").to_owned();
    let now = state.clock.elapsed();
    if let Some(started) = state.runs.get(&key) {
        let status = if now < *started + RUN { "in_flight" } else { "ok" };
        return Ok(json!({ "runId": key, "status": status }));
    }
    state.runs.insert(key.clone(), now);
    let id = state.unique_id();
    state
        .sessions
        .entry(session_key.to_owned())
        .or_insert_with(|| SimSession {
            id,
            label: None,
            resets: 0,
        });
    state.messages.push(ChatMessage {
        session_key: session_key.to_owned(),
        text: params.required("message").to_owned(),
        deliver: params.flag("deliver", false),
        idempotency_key: key.clone(),
    });
    wake::tell(state, session_key);
    Ok(json!({ "runId": key, "status": "started" }))
}

/// The agent that a session belongs to.
fn agent_of(key: &str) -> Option<&str> {
    key.strip_prefix("agent:")?.split(':').next()
}
