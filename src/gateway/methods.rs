//! The gateway's methods with types.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, REQUEST_DEADLINE};
use super::config::{self, PatchOutcome};
use super::error::{ErrorClass, GatewayError};
use super::files::{self, SetOutcome};
use super::redact::clean;
use crate::model::{Effect, FileContent, FileName, FileStat, GatewayAgentId, ObservedConfig};

/// How long making or removing an agent may take: removing took 5 s on an idle gateway, and waits for a reload of the whole roster.
const DELETE_DEADLINE: Duration = Duration::from_mins(2);

/// How gateways say that a workspace file is none that they open.
const UNSAFE_FILE: &str = "unsafe workspace file";

/// How often, and after what time, a file that was refused like that is tried again.
const UNSAFE_RETRIES: usize = 2;
const UNSAFE_PAUSE: Duration = Duration::from_millis(300);

/// How 2026.8.2 says that an agent cannot be made because its last removal is not finished.
const REMOVAL_PENDING: &str = "deletion cleanup is still pending";

/// The agents that a gateway serves: those of its config, or an implied `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentsList {
    /// The agent that is meant where none is named.
    pub default_id: Option<GatewayAgentId>,
    /// All of them.
    pub ids: Vec<GatewayAgentId>,
}

/// A place in the schema of a gateway's config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaNode {
    /// What a change of it does to the gateway, where the gateway tells.
    pub reload: Option<Effect>,
    /// What may be below it.
    pub children: Vec<SchemaChild>,
}

impl SchemaNode {
    /// The child with this key.
    pub fn child(&self, key: &str) -> Option<&SchemaChild> {
        self.children.iter().find(|child| child.key == key)
    }
}

/// A key below a [`SchemaNode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaChild {
    /// The key.
    pub key: String,
    /// What a change of it does to the gateway, where the gateway tells.
    pub reload: Option<Effect>,
}

/// What became of the removal of an agent that was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// What the gateway says that it could not remove with it: each a path and a reason. Only the newest tell. 2026.8.2 keeps the
    /// removal pending then.
    pub left: Vec<String>,
}

impl Removal {
    fn of(payload: &Value) -> Self {
        let failed = payload.get("failed").and_then(Value::as_array);
        let left = failed.into_iter().flatten().map(|failed| {
            let text = |key: &str| clean(failed.get(key).and_then(Value::as_str).unwrap_or("?"));
            format!("{}: {}", text("path"), text("reason"))
        });
        Self { left: left.collect() }
    }
}

/// What the gateway said of a chat message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatReceipt {
    /// The run that answers it: the idempotency key, on the gateways measured.
    pub run_id: Option<String>,
    /// `started`; `in_flight` for a key that was sent before.
    pub status: Option<String>,
}

impl Client {
    async fn call(&self, method: &str, about: &str, params: Value) -> Result<Value, GatewayError> {
        self.call_within(method, about, params, REQUEST_DEADLINE).await
    }

    /// Calls, and names the object in the error.
    async fn call_within(
        &self,
        method: &str,
        about: &str,
        params: Value,
        deadline: Duration,
    ) -> Result<Value, GatewayError> {
        let result = self.request(method, params, deadline).await;
        result.map_err(|error| error.about(about))
    }

    /// The part of the gateway's config that matters here.
    pub async fn config_get(&self) -> Result<ObservedConfig, GatewayError> {
        let payload = self.request("config.get", json!({}), REQUEST_DEADLINE).await?;
        config::observed(&payload).map_err(|error| error.during("config.get"))
    }

    /// Applies a JSON merge patch to the gateway's config.
    ///
    /// `base_hash` is the hash of the config that the patch was decided on; `replace_paths` are arrays to be replaced rather
    /// than merged by id (leave it empty on gateways that do not know it). Such writes are limited, on old gateways to three
    /// a minute, refused ones included. The answer may come minutes later where the roster is large, and never if the patch
    /// restarts the gateway.
    ///
    /// # Errors
    /// [`ErrorClass::Conflict`] if the config has changed since; [`ErrorClass::RateLimited`];
    /// [`ErrorClass::Invalid`] naming every refused path.
    pub async fn config_patch(
        &self,
        patch: &Value,
        base_hash: Option<&str>,
        replace_paths: &[String],
        deadline: Duration,
    ) -> Result<PatchOutcome, GatewayError> {
        let mut params = json!({"raw": patch.to_string()});
        if let Some(hash) = base_hash {
            params["baseHash"] = hash.into();
        }
        if !replace_paths.is_empty() {
            params["replacePaths"] = json!(replace_paths);
        }
        let payload = self.request("config.patch", params, deadline).await?;
        Ok(config::patched(&payload))
    }

    /// The agents that the gateway serves.
    pub async fn agents_list(&self) -> Result<AgentsList, GatewayError> {
        let payload = self.request("agents.list", json!({}), REQUEST_DEADLINE).await?;
        let ids = payload
            .get("agents")
            .and_then(Value::as_array)
            .ok_or_else(|| {
                GatewayError::protocol("the gateway's list of agents is not an array").during("agents.list")
            })?
            .iter()
            .filter_map(|agent| agent.get("id").and_then(Value::as_str))
            .map(GatewayAgentId::observed)
            .collect();
        let default_id = payload
            .get("defaultId")
            .and_then(Value::as_str)
            .map(GatewayAgentId::observed);
        Ok(AgentsList { default_id, ids })
    }

    /// Makes an agent; its name is its id. Where it was removed before, this alone brings it back. Returns the id that the
    /// gateway gave it.
    ///
    /// A gateway that has not finished that removal, because it could not remove the files, is asked to finish it first: 2026.8.2
    /// makes no agent before.
    pub async fn agents_create(&self, agent: &GatewayAgentId, workspace: &str) -> Result<GatewayAgentId, GatewayError> {
        match self.agents_create_once(agent, workspace).await {
            Err(error) if error.message().contains(REMOVAL_PENDING) => {
                let finished = self.agents_delete(agent).await?;
                if finished.is_some_and(|removal| !removal.left.is_empty()) {
                    return Err(error);
                }
                self.agents_create_once(agent, workspace).await
            }
            made => made,
        }
    }

    async fn agents_create_once(
        &self,
        agent: &GatewayAgentId,
        workspace: &str,
    ) -> Result<GatewayAgentId, GatewayError> {
        let params = json!({"name": agent.as_str(), "workspace": workspace});
        let payload = self
            .call_within("agents.create", &format!("agent {agent}"), params, DELETE_DEADLINE)
            .await?;
        let id = payload.get("agentId").and_then(Value::as_str);
        id.map(GatewayAgentId::observed)
            .ok_or_else(|| GatewayError::protocol("the gateway names no agent that it made").during("agents.create"))
    }

    /// Removes an agent and its files. `None` if it was not there.
    ///
    /// Never without its files: a 2026.8.2 that keeps the database of an agent's sessions does not start any more.
    pub async fn agents_delete(&self, agent: &GatewayAgentId) -> Result<Option<Removal>, GatewayError> {
        let params = json!({"agentId": agent.as_str(), "deleteFiles": true});
        let result = self
            .call_within("agents.delete", &format!("agent {agent}"), params, DELETE_DEADLINE)
            .await;
        match result {
            Err(error) if error.class() == ErrorClass::NotFound => Ok(None),
            result => result.map(|payload| Some(Removal::of(&payload))),
        }
    }

    /// What the gateway lists of an agent's files. Not every file that can be read is listed everywhere.
    pub async fn files_list(&self, agent: &GatewayAgentId) -> Result<Vec<FileStat>, GatewayError> {
        let about = format!("agent {agent}");
        let payload = self
            .call("agents.files.list", &about, json!({"agentId": agent.as_str()}))
            .await?;
        files::listed(&payload).map_err(|error| error.during("agents.files.list").about(&about))
    }

    /// Reads a file. One that does not exist is no error: it is [`FileContent::missing`].
    ///
    /// # Errors
    /// [`ErrorClass::UnsupportedFile`] where the gateway has no such file; [`ErrorClass::NotFound`] for an unknown agent.
    pub async fn files_get(&self, agent: &GatewayAgentId, file: FileName) -> Result<FileContent, GatewayError> {
        let about = format!("{file} of agent {agent}");
        let params = json!({"agentId": agent.as_str(), "name": file.as_str()});
        let payload = self.call_for_file("agents.files.get", &about, params).await?;
        files::content(&payload).map_err(|error| error.during("agents.files.get").about(&about))
    }

    /// Writes a file; the gateway makes the directory if needed.
    ///
    /// `expected_hash` is the hash that [`Client::files_get`] gave. Give none where it gave none: older gateways refuse it.
    ///
    /// # Errors
    /// [`ErrorClass::Conflict`] if the file is no longer the one with that hash; otherwise as [`Client::files_get`].
    pub async fn files_set(
        &self,
        agent: &GatewayAgentId,
        file: FileName,
        text: &str,
        expected_hash: Option<&str>,
    ) -> Result<SetOutcome, GatewayError> {
        let mut params = json!({"agentId": agent.as_str(), "name": file.as_str(), "content": text});
        if let Some(hash) = expected_hash {
            params["expectedHash"] = hash.into();
        }
        let payload = self
            .call_for_file("agents.files.set", &format!("{file} of agent {agent}"), params)
            .await?;
        Ok(files::written(&payload))
    }

    /// Calls a method that opens a workspace file. One that is written just then, by whomever, is refused in the same words as one
    /// that leads out of the workspace (seen on 2026.4.29, which answered a write after it was waited for no longer): only what is
    /// refused again is refused.
    async fn call_for_file(&self, method: &str, about: &str, params: Value) -> Result<Value, GatewayError> {
        for _ in 0..UNSAFE_RETRIES {
            match self.call(method, about, params.clone()).await {
                Err(error) if error.message().contains(UNSAFE_FILE) => tokio::time::sleep(UNSAFE_PAUSE).await,
                result => return result,
            }
        }
        self.call(method, about, params).await
    }

    /// Looks up a place in the schema of the gateway's config; `None` if there is no such place.
    ///
    /// # Errors
    /// [`ErrorClass::Invalid`] on gateways without this method (see [`Hello::offers`](super::Hello::offers)).
    pub async fn schema_lookup(&self, path: &str) -> Result<Option<SchemaNode>, GatewayError> {
        match self.call("config.schema.lookup", path, json!({"path": path})).await {
            Ok(payload) => Ok(Some(schema_node(&payload))),
            Err(error) if error.class() == ErrorClass::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ensures a session and its label.
    pub async fn sessions_patch(&self, key: &str, label: &str) -> Result<(), GatewayError> {
        let params = json!({"key": key, "label": label});
        self.call("sessions.patch", &format!("session {key}"), params)
            .await
            .map(drop)
    }

    /// Resets a session. `false` if it was not there.
    pub async fn sessions_reset(&self, key: &str) -> Result<bool, GatewayError> {
        let result = self
            .call("sessions.reset", &format!("session {key}"), json!({"key": key}))
            .await;
        found(result.map(|_| true))
    }

    /// Removes a session. `false` if nothing was removed: it was not there, or the gateway lets an agent's main session go
    /// only with the agent.
    pub async fn sessions_delete(&self, key: &str) -> Result<bool, GatewayError> {
        let result = self
            .call("sessions.delete", &format!("session {key}"), json!({"key": key}))
            .await;
        match found(result.map(|payload| payload.get("deleted").and_then(Value::as_bool).unwrap_or(true))) {
            Err(error) if error.message().starts_with("Cannot delete the main session") => Ok(false),
            result => result,
        }
    }

    /// Sends a chat message to a session. The same idempotency key is taken once.
    ///
    /// # Errors
    /// [`ErrorClass::NotFound`] where the session's agent is not in the config. If
    /// [`outcome_unknown`](GatewayError::outcome_unknown), the message may have arrived: do not repeat it under another key.
    pub async fn chat_send(
        &self,
        session_key: &str,
        message: &str,
        deliver: bool,
        idempotency_key: &str,
    ) -> Result<ChatReceipt, GatewayError> {
        let params = json!({
            "sessionKey": session_key, "message": message, "deliver": deliver, "idempotencyKey": idempotency_key,
        });
        let payload = self
            .call("chat.send", &format!("session {session_key}"), params)
            .await?;
        let text = |key: &str| payload.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(ChatReceipt {
            run_id: text("runId"),
            status: text("status"),
        })
    }
}

/// "Not found" as `false`.
fn found(result: Result<bool, GatewayError>) -> Result<bool, GatewayError> {
    match result {
        Err(error) if error.class() == ErrorClass::NotFound => Ok(false),
        result => result,
    }
}

fn effect(value: &Value) -> Option<Effect> {
    match value.get("reloadKind")?.as_str()? {
        "none" => Some(Effect::None),
        "hot" => Some(Effect::Hot),
        "restart" => Some(Effect::Restart),
        _ => None,
    }
}

pub(super) fn schema_node(payload: &Value) -> SchemaNode {
    let children = payload
        .get("children")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let child = |child: &Value| {
        let key = child.get("key")?.as_str()?.to_owned();
        Some(SchemaChild {
            key,
            reload: effect(child),
        })
    };
    SchemaNode {
        reload: effect(payload),
        children: children.iter().filter_map(child).collect(),
    }
}
