//! `agents.list`, `create`, `update` and `delete`.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::{self, MAIN};
use super::files;
use super::rpc::{Kind, Param, Params, RpcError, RpcResult};
use super::state::{HOME, STATE_DIR, State};
use super::validate::validate;
use crate::model::slug;

/// How long 2026.9.6 needs until an agent that was just created can be used.
const RELOAD: Duration = Duration::from_millis(400);

/// `agents.list`.
pub(super) fn list(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    Params::check("agents.list", params, &[])?;
    let agents: Vec<Value> = state
        .known_roster()
        .iter()
        .map(|entry| {
            let mut agent = json!({ "id": entry.id, "workspace": state.workspace(entry) });
            if let Some(name) = entry.text("name") {
                agent["name"] = json!(name);
            }
            agent
        })
        .collect();
    let mut answer = json!({
        "defaultId": state.default_agent(),
        "mainKey": "main",
        "scope": "per-sender",
        "agents": agents,
    });
    if state.dialect.has_entries() {
        let ownership = state.config.pointer("/agents/ownership").cloned();
        answer["ownership"] = ownership.unwrap_or_else(|| json!("sole"));
        answer["selectionRequired"] = json!(false);
    }
    Ok(answer)
}

/// `agents.create`.
pub(super) fn create(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    let spec: [Param; 5] = [
        ("name", Kind::NonEmpty, true),
        ("workspace", Kind::NonEmpty, state.dialect.protocol() == 3),
        ("model", Kind::Any, false),
        ("emoji", Kind::Text, false),
        ("avatar", Kind::Text, false),
    ];
    let params = Params::check("agents.create", params, &spec)?;
    let name = params.required("name").trim();
    let id = slug(name);
    if id == MAIN && !state.dialect.has_entries() {
        return Err(RpcError::invalid(format!("\"{MAIN}\" is reserved")));
    }
    if state.roster().iter().any(|entry| entry.id == id) {
        return Err(RpcError::invalid(format!("agent \"{id}\" already exists")));
    }
    if state.pending_removals.contains_key(&id) {
        return Err(RpcError::invalid(format!(
            "agent \"{id}\" deletion cleanup is still pending"
        )));
    }
    let workspace = match params.text("workspace") {
        Some(workspace) => workspace.to_owned(),
        None => format!("{STATE_DIR}/workspace-{id}"),
    };
    let revived = state.deleted.remove(&id);
    let mut next = state.config.clone();
    let entry = json!({
        "name": name,
        "workspace": workspace,
        "agentDir": format!("{STATE_DIR}/agents/{id}/agent"),
        "identity": { "name": name },
    });
    add_entry(state, &mut next, &id, entry);
    if let Err(error) = state.write_config(next) {
        if revived {
            state.deleted.insert(id);
        }
        return Err(error);
    }
    if state.dialect.has_entries() {
        let from = state.clock.elapsed() + RELOAD;
        state.visible_from.insert(id.clone(), from);
    }
    for file in state.dialect.seeded_files() {
        let is_there = state
            .workspaces
            .get(&workspace)
            .is_some_and(|files| files.contains_key(*file));
        if is_there {
            continue;
        }
        let text = match *file {
            "IDENTITY.md" if !state.dialect.has_entries() => format!("# IDENTITY.md - Who Am I?\n\n- Name: {name}\n"),
            other => format!("# {other}\n\nThe gateway's own text for a new workspace.\n"),
        };
        files::write(state, &workspace, file, &text);
    }
    Ok(json!({ "ok": true, "agentId": id, "name": name, "workspace": workspace }))
}

fn add_entry(state: &State, next: &mut Value, id: &str, entry: Value) {
    if state.dialect.has_entries() {
        let agents = config::object_at(next, &["agents"]);
        agents.insert("ownership".to_owned(), json!("explicit"));
        config::object_at(next, &["agents", "entries"]).insert(id.to_owned(), entry);
        settle_entries(next);
        config::object_at(next, &["agents", "defaults"]).insert("heartbeat".to_owned(), json!({ "agentId": MAIN }));
    } else {
        let mut entry = entry;
        entry["id"] = json!(id);
        let list = config::object_at(next, &["agents"])
            .entry("list")
            .or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            if list.is_empty() {
                list.push(json!({ "id": MAIN }));
            }
            list.push(entry);
        }
    }
}

/// What 2026.9.6 adds by itself when its roster gets a second agent.
pub(super) fn settle_entries(next: &mut Value) {
    let entries = config::object_at(next, &["agents", "entries"]);
    let main = entries.entry(MAIN).or_insert_with(|| json!({}));
    if let Value::Object(main) = main {
        main.entry("workspace")
            .or_insert_with(|| json!(format!("{STATE_DIR}/workspace")));
    }
    config::object_at(next, &["agents", "defaults"])
        .entry("systemAgent")
        .or_insert_with(|| json!({ "agentId": MAIN }));
    config::object_at(next, &["talk"])
        .entry("agentId")
        .or_insert_with(|| json!(MAIN));
}

/// `agents.update`.
pub(super) fn update(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 6] = [
        ("agentId", Kind::NonEmpty, true),
        ("name", Kind::NonEmpty, false),
        ("workspace", Kind::NonEmpty, false),
        ("model", Kind::Any, false),
        ("emoji", Kind::Text, false),
        ("avatar", Kind::Text, false),
    ];
    let params = Params::check("agents.update", params, &SPEC)?;
    let id = params.required("agentId");
    if !state.roster().iter().any(|entry| entry.id == id) {
        return Err(not_found(id));
    }
    let mut change = json!({});
    if let Some(name) = params.text("name") {
        change["name"] = json!(name);
        change["identity"] = json!({ "name": name });
    }
    if let Some(workspace) = params.text("workspace") {
        change["workspace"] = json!(workspace);
    }
    let mut next = state.config.clone();
    let patch = if state.dialect.has_entries() {
        json!({ "agents": { "entries": { id: change } } })
    } else {
        change["id"] = json!(id);
        json!({ "agents": { "list": [change] } })
    };
    config::merge(&mut next, &patch, "", &[]);
    if state.dialect.protocol() == 3
        && let Value::Object(root) = &mut next
    {
        // The oldest dialect writes its roster back without the channels, and restarts because they are gone.
        root.remove("channels");
    }
    validate(state.dialect, &next)?;
    state.write_config(next)?;
    if let Some(restart) = &mut state.pending_restart {
        restart.answers = true;
    }
    Ok(json!({ "ok": true, "agentId": id }))
}

/// `agents.delete`.
pub(super) fn delete(state: &mut State, params: &Map<String, Value>) -> RpcResult {
    const SPEC: [Param; 2] = [("agentId", Kind::NonEmpty, true), ("deleteFiles", Kind::Flag, false)];
    let params = Params::check("agents.delete", params, &SPEC)?;
    let id = params.required("agentId");
    let new = state.dialect.has_entries();
    if id == MAIN {
        return Err(RpcError::invalid(if new {
            format!(
                "Agent \"{MAIN}\" owns the legacy shared auth store and cannot be deleted. Run openclaw doctor --fix to \
                 migrate shared auth, then retry."
            )
        } else {
            format!("\"{MAIN}\" cannot be deleted")
        }));
    }
    let entry = state.roster().into_iter().find(|entry| entry.id == id);
    let workspace = match (&entry, state.pending_removals.get(id)) {
        (Some(entry), _) => state.workspace(entry),
        (None, Some(workspace)) => workspace.clone(),
        (None, None) => return Err(not_found(id)),
    };
    if entry.is_some() {
        let mut next = state.config.clone();
        remove_entry(state, &mut next, id);
        state.write_config(next)?;
    }
    if new {
        state.deleted.insert(id.to_owned());
    }
    let pinned = new && params.flag("deleteFiles", true) && state.pinned.contains(&workspace);
    if pinned {
        state.pending_removals.insert(id.to_owned(), workspace.clone());
    } else {
        state.pending_removals.remove(id);
    }
    state.visible_from.remove(id);
    // The old ones dare to remove only what lies below their home, and keep silent about the rest.
    let removable = new || Path::new(&workspace).starts_with(HOME);
    if params.flag("deleteFiles", true) && removable && !pinned {
        state.workspaces.remove(&workspace);
    }
    let prefix = format!("agent:{id}:");
    state.sessions.retain(|key, _| !key.starts_with(&prefix));
    let mut answer = json!({ "ok": true, "agentId": id, "removedBindings": 0 });
    if new {
        let (removed, failed) = if pinned {
            let reason = format!("Refusing to trash path outside allowed roots: {workspace}");
            (json!([]), json!([{ "path": workspace, "reason": reason }]))
        } else {
            (json!([{ "path": workspace, "method": "trash" }]), json!([]))
        };
        answer["removed"] = removed;
        answer["failed"] = failed;
    }
    Ok(answer)
}

/// Takes an agent out of a config.
pub(super) fn remove_entry(state: &State, next: &mut Value, id: &str) {
    let agents = config::object_at(next, &["agents"]);
    if state.dialect.has_entries() {
        if let Some(Value::Object(entries)) = agents.get_mut("entries") {
            entries.remove(id);
            if entries.keys().all(|id| id == MAIN) {
                agents.remove("ownership");
            }
        }
    } else if let Some(Value::Array(list)) = agents.get_mut("list") {
        list.retain(|entry| entry.get("id").and_then(Value::as_str) != Some(id));
    }
}

fn not_found(id: &str) -> RpcError {
    RpcError::invalid(format!("agent \"{id}\" not found"))
}
