//! Which methods there are, who may call them, and how long they take.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::dialect::SimDialect;
use super::rpc::{RpcError, RpcResult};
use super::state::State;
use super::{agents, files, patch, schema, sessions};

type Handler = fn(&mut State, &Map<String, Value>) -> RpcResult;

/// What a caller must have been granted.
const READ: &str = "operator.read";
const WRITE: &str = "operator.write";
const ADMIN: &str = "operator.admin";

struct Method {
    name: &'static str,
    scope: &'static str,
    /// Of a small gateway on an idle machine, roughly as measured.
    takes_ms: u64,
    handler: Handler,
}

const METHODS: [Method; 18] = [
    method("agents.create", ADMIN, 300, agents::create),
    method("agents.delete", ADMIN, 1500, agents::delete),
    method("agents.files.get", READ, 3, files::get),
    method("agents.files.list", READ, 4, files::list),
    method("agents.files.set", ADMIN, 15, files::set),
    method("agents.list", READ, 10, agents::list),
    method("agents.update", ADMIN, 300, agents::update),
    method("chat.send", WRITE, 50, sessions::send),
    method("config.get", READ, 20, patch::get),
    method("config.patch", ADMIN, 250, patch::patch),
    method("config.schema.lookup", READ, 20, |state, params| {
        schema::lookup(state.dialect, params)
    }),
    method("health", READ, 5, health),
    method("sessions.delete", ADMIN, 60, sessions::delete),
    method("sessions.list", READ, 15, sessions::list),
    method("sessions.patch", WRITE, 20, sessions::patch),
    method("sessions.reset", ADMIN, 80, sessions::reset),
    method("status", READ, 5, health),
    method("connect", READ, 0, connect_again),
];

/// What a roster entry adds to the time that a patch takes (ms).
const PATCH_MS_PER_AGENT: u64 = 50;

const fn method(name: &'static str, scope: &'static str, takes_ms: u64, handler: Handler) -> Method {
    Method {
        name,
        scope,
        takes_ms,
        handler,
    }
}

/// The names that `hello-ok` tells.
pub(super) fn names() -> Vec<&'static str> {
    METHODS
        .iter()
        .map(|method| method.name)
        .filter(|name| *name != "connect")
        .collect()
}

/// How long a request takes before anything happens.
pub(super) fn duration(state: &State, name: &str) -> Duration {
    let ms = METHODS
        .iter()
        .find(|method| method.name == name)
        .map_or(1, |method| method.takes_ms);
    let roster = if name == "config.patch" {
        state.roster().len() as u64
    } else {
        0
    };
    Duration::from_millis(ms + roster * PATCH_MS_PER_AGENT)
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The scopes it was granted.
    pub(super) scopes: Vec<String>,
    /// Its device, or what stands for one.
    pub(super) device: String,
}

impl Caller {
    fn may(&self, scope: &str) -> bool {
        let has = |scope: &str| self.scopes.iter().any(|granted| granted == scope);
        has(scope) || has(ADMIN) || (scope == READ && has(WRITE))
    }
}

/// Carries out one request.
pub(super) fn call(state: &mut State, caller: &Caller, name: &str, params: &Map<String, Value>) -> RpcResult {
    let method = METHODS.iter().find(|method| method.name == name);
    let scope = match method {
        // The oldest dialect wants more for this one.
        Some(_) if name == "sessions.patch" && state.dialect.protocol() == 3 => ADMIN,
        Some(method) => method.scope,
        None => ADMIN,
    };
    if name != "connect" && !caller.may(scope) {
        return Err(missing_scope(state.dialect, scope));
    }
    let Some(method) = method else {
        return Err(RpcError::invalid(format!("unknown method: {name}")));
    };
    if name == "config.patch" {
        let (limit, now) = (state.dialect.writes_per_minute(), state.clock.elapsed());
        state.limits.count(name, &caller.device, limit, now)?;
    }
    (method.handler)(state, params)
}

fn missing_scope(dialect: SimDialect, scope: &str) -> RpcError {
    let message = format!("missing scope: {scope}");
    if dialect.has_entries() {
        RpcError::new("FORBIDDEN", message)
            .details(json!({ "code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope] }))
    } else {
        RpcError::invalid(message)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of every method")]
fn health(state: &mut State, _params: &Map<String, Value>) -> RpcResult {
    Ok(json!({ "ok": true, "ts": state.clock.now_ms(), "defaultAgentId": state.default_agent() }))
}

fn connect_again(_state: &mut State, _params: &Map<String, Value>) -> RpcResult {
    Err(RpcError::invalid("connect is only valid as the first request"))
}
