//! `agents.files.*`: the workspace files.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::config::{self, Entry};
use super::rpc::{Kind, Param, Params, RpcError, RpcResult};
use super::state::{File, State};

/// `agents.files.list`.
pub(super) fn list(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    let params = Params::check("agents.files.list", params, &[("agentId", Kind::NonEmpty, true)])?;
    let entry = agent(state, params.required("agentId"))?;
    let workspace = state.workspace(&entry);
    let files: Vec<Value> = state
        .dialect
        .listed_files()
        .iter()
        .map(|name| {
            let mut file = describe(state, &workspace, name);
            if let Some(map) = file.as_object_mut() {
                map.remove("content");
                map.remove("hash");
            }
            file
        })
        .collect();
    Ok(json!({ "agentId": entry.id, "workspace": workspace, "files": files }))
}

/// `agents.files.get`.
pub(super) fn get(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 2] = [("agentId", Kind::NonEmpty, true), ("name", Kind::NonEmpty, true)];
    let params = Params::check("agents.files.get", params, &SPEC)?;
    let (entry, name) = agent_and_file(state, &params)?;
    let workspace = state.workspace(&entry);
    let file = describe(state, &workspace, name);
    Ok(json!({ "agentId": entry.id, "workspace": workspace, "file": file }))
}

/// `agents.files.set`.
pub(super) fn set(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 4] = [
        ("agentId", Kind::NonEmpty, true),
        ("name", Kind::NonEmpty, true),
        ("content", Kind::Text, true),
        ("expectedHash", Kind::Text, false),
    ];
    let spec = if state.dialect.has_entries() {
        &SPEC[..]
    } else {
        &SPEC[..3]
    };
    let params = Params::check("agents.files.set", params, spec)?;
    let (entry, name) = agent_and_file(state, &params)?;
    let workspace = state.workspace(&entry);
    if let Some(expected) = params.text("expectedHash") {
        let current = state.workspaces.get(&workspace).and_then(|files| files.get(name));
        let current = current.map(|file| hash(&file.text));
        if current.as_deref() != Some(expected) {
            let mut details = json!({ "type": "agent_file_conflict", "name": name });
            if let Some(current) = current {
                details["currentHash"] = json!(current);
            }
            let message = format!("agent file \"{name}\" changed since it was read");
            return Err(RpcError::invalid(message).details(details));
        }
    }
    let content = params.required("content");
    write(state, &workspace, name, content);
    if let Some(theirs) = state.overwrite.take() {
        write(state, &workspace, name, &theirs);
    }
    let mut file = describe(state, &workspace, name);
    // The text and hash that a real one answers are those of what it was sent; only size and time are of what is there.
    file["content"] = json!(content);
    if file.get("hash").is_some() {
        file["hash"] = json!(hash(content));
    }
    Ok(json!({ "ok": true, "agentId": entry.id, "workspace": workspace, "file": file }))
}

/// Puts a text into a workspace.
pub(super) fn write(state: &mut State, workspace: &str, name: &str, text: &str) {
    let updated_ms = state.update_ms();
    let file = File {
        text: text.to_owned(),
        updated_ms,
    };
    state
        .workspaces
        .entry(workspace.to_owned())
        .or_default()
        .insert(name.to_owned(), file);
}

/// The agent with this id, which is compared without regard to case.
fn agent(state: &State, id: &str) -> Result<Entry, RpcError> {
    let id = id.trim().to_ascii_lowercase();
    let found = state
        .known_roster()
        .into_iter()
        .find(|entry| entry.id.eq_ignore_ascii_case(&id));
    found.ok_or_else(|| {
        RpcError::invalid(if state.dialect.has_entries() {
            format!("agent \"{id}\" not found")
        } else {
            "unknown agent id".to_owned()
        })
    })
}

fn agent_and_file<'a>(state: &State, params: &Params<'a>) -> Result<(Entry, &'a str), RpcError> {
    let entry = agent(state, params.required("agentId"))?;
    let name = params.required("name");
    if state.dialect.supports_file(name) {
        Ok((entry, name))
    } else {
        Err(RpcError::invalid(format!("unsupported file \"{name}\"")))
    }
}

fn describe(state: &State, workspace: &str, name: &str) -> Value {
    let path = format!("{workspace}/{name}");
    let new = state.dialect.has_entries();
    match state.workspaces.get(workspace).and_then(|files| files.get(name)) {
        Some(file) => {
            let mut json = json!({
                "name": name,
                "path": path,
                "missing": false,
                "size": file.text.len(),
                "updatedAtMs": file.updated_ms,
                "content": file.text,
            });
            if new {
                json["hash"] = json!(hash(&file.text));
            }
            json
        }
        None if new => {
            let expected = !matches!(name, "AGENTS.md" | "BOOTSTRAP.md");
            json!({ "name": name, "path": path, "missing": true, "expectedAbsent": expected })
        }
        None => json!({ "name": name, "path": path, "missing": true }),
    }
}

fn hash(text: &str) -> String {
    config::hex(&Sha256::digest(text))
}
