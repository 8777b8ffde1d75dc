//! `agents.*`.

use std::fs;

use openclaw_controller::gateway::{Client, ErrorClass};
use openclaw_controller::model::{FileName, GatewayAgentId, session_key};
use serde_json::{Value, json};

use crate::env::{CALL, Env, until};

pub(crate) async fn the_default_agent_is_main(env: &Env) {
    let agent = env.agent();
    let list = env.client().await.agents_list().await.unwrap();
    assert_eq!(list.default_id, Some(GatewayAgentId::observed("main")));
    assert_eq!(list.ids.first(), list.default_id.as_ref());
    assert!(list.ids.contains(&agent));
}

pub(crate) async fn an_agent_is_removed_with_its_files(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    client.files_set(&agent, FileName::Soul, "text", None).await.unwrap();
    let workspace = env.entry(&agent).await.unwrap()["workspace"]
        .as_str()
        .unwrap()
        .to_owned();
    let removal = env
        .call(
            &client,
            "agents.delete",
            json!({ "agentId": agent, "deleteFiles": true }),
        )
        .await;
    let left: Vec<_> = removal["failed"].as_array().into_iter().flatten().collect();
    // A busy gateway answers by its former config for a moment longer.
    until("it is gone", || async { env.entry(&agent).await.is_none() }).await;
    until("its files are not found", || async {
        matches!(client.files_list(&agent).await, Err(error) if error.class() == ErrorClass::NotFound)
    })
    .await;
    let pending = !left.is_empty();
    if let Some(finish) = env.facts.removals_finish {
        assert_eq!(pending, !finish, "{removal}");
    }
    if pending {
        assert!(left.iter().any(|left| left["path"] == workspace), "{removal}");
        let error = client.agents_create(&agent, &workspace).await.unwrap_err();
        assert!(error.message().contains("deletion cleanup is still pending"), "{error}");
        // Somebody does it by hand; then the removal is finished by the way.
        fs::remove_dir_all(&workspace).unwrap();
    } else {
        assert!(!delete(&client, &agent).await, "not found is no error");
    }
    // Created anew it lives. The old gateways have kept the files, for the workspace is not below their home.
    let made = client
        .agents_create(&agent, &env.workspace(agent.as_str()))
        .await
        .unwrap();
    assert_eq!(made, agent, "its name is its id");
    until("the agent can be used again", || async {
        client.files_list(&agent).await.is_ok()
    })
    .await;
    let soul = client.files_get(&agent, FileName::Soul).await.unwrap();
    if let Some(removes) = env.facts.removes_any_workspace {
        assert_eq!(soul.text != "text", removes || pending);
    }
    // A 2026.8.2 that has just made it asks to try again.
    until("it has a session", || async {
        match client.sessions_patch(&session_key(&agent), "Label").await {
            Err(error) if error.class() == ErrorClass::Unavailable => false,
            patched => patched.is_ok(),
        }
    })
    .await;
}

/// The oldest gateway writes back its own copy of the config: it must not be one of before the last removal.
pub(crate) async fn agents_are_removed_one_right_after_the_other_with_their_sessions(env: &Env) {
    let (agents, stays) = ([env.agent(), env.agent(), env.agent()], env.agent());
    let client = env.client().await;
    let entry = env.entry(&stays).await;
    for agent in agents.iter().chain([&stays]) {
        client.sessions_patch(&session_key(agent), "Label").await.unwrap();
    }
    for agent in &agents {
        assert!(delete(&client, agent).await);
    }
    for agent in &agents {
        // 2026.2.26 removes from the config that it has loaded, and forgets a removal that it has not loaded yet. The others
        // go by their former config for a moment if they are busy, and have to come to it by themselves.
        let again = env.facts.removals_stay != Some(true);
        until("it is removed for good", || async {
            env.entry(agent).await.is_none()
                || (again && delete(&client, agent).await && env.entry(agent).await.is_none())
        })
        .await;
    }
    until("the others are as they were", || async {
        env.entry(&stays).await == entry
    })
    .await;
    until("the sessions of the removed ones are gone, and no other", || async {
        let Some(keys) = session_keys(&client).await else {
            return false;
        };
        let gone = |agent| !keys.contains(&json!(session_key(agent)));
        agents.iter().all(gone) && !gone(&stays)
    })
    .await;
    // What was just written is not undone by the next removal.
    let last = env.agent();
    env.patch(&env.roster_patch([(stays.to_string(), json!({ "name": "Renamed" }))]))
        .await
        .unwrap();
    let client = env.client().await;
    assert!(delete(&client, &last).await);
    until("it keeps its new name", || async {
        env.entry(&stays).await.is_some_and(|entry| entry["name"] == "Renamed")
    })
    .await;
}

/// The keys of all sessions; none while the gateway cannot read them, as 2026.9.6 while it removes an agent.
async fn session_keys(client: &Client) -> Option<Vec<Value>> {
    let mut sessions = match client.request("sessions.list", json!({}), CALL).await {
        Err(error) if error.code() == Some("UNAVAILABLE") => return None,
        result => result.unwrap(),
    };
    let sessions = sessions["sessions"].as_array_mut().unwrap();
    Some(sessions.iter_mut().map(|session| session["key"].take()).collect())
}

pub(crate) async fn an_entry_may_lose_all_but_its_place_before_it_is_removed(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    client.files_set(&agent, FileName::Soul, "text", None).await.unwrap();
    let before = env.entry(&agent).await.unwrap();
    let bare = json!({ "name": null, "heartbeat": null });
    env.patch(&env.roster_patch([(agent.to_string(), bare)])).await.unwrap();
    let client = env.client().await;
    let entry = env.entry(&agent).await.unwrap();
    assert_eq!(entry["workspace"], before["workspace"]);
    assert!(
        entry.get("name").is_none() && entry.get("heartbeat").is_none(),
        "{entry}"
    );
    let soul = client.files_get(&agent, FileName::Soul).await.unwrap();
    assert!(soul.text == "text", "its files are where they were");
    assert!(delete(&client, &agent).await);
    until("it is gone", || async { env.entry(&agent).await.is_none() }).await;
}

/// Needs the gateway for itself: on the newest one this costs restarts.
pub(crate) async fn a_removed_agent_is_not_brought_back_by_a_patch_alone(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    assert!(delete(&client, &agent).await);
    let entry = json!({ "name": "Again", "workspace": env.workspace(agent.as_str()) });
    let (_, result) = env
        .patch_once(&env.roster_patch([(agent.to_string(), entry)]), &[])
        .await;
    if let Some(remembers) = env.facts.remembers_removed {
        assert_eq!(result.is_err(), remembers, "{:?}", result.err());
    }
    if let Err(error) = result {
        // 2026.8.2 does not even restart.
        let stays = error.message().contains("persisted but was not applied");
        if !stays {
            assert!(error.message().contains("a recovery restart is required"), "{error}");
            assert!(client.closed().await.restart);
        }
        assert!(env.entry(&agent).await.is_some(), "written all the same");
        let client = env.client().await;
        let error = client.sessions_patch(&session_key(&agent), "Label").await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
        // Removed once more, the gateway is as before. One that has stayed may not know what to remove: asked to make it, it
        // says that it has it, has forgotten from then on that it was removed, and applies the next patch.
        if !delete(&client, &agent).await {
            assert!(stays, "{error}");
            let workspace = env.workspace(agent.as_str());
            let error = client.agents_create(&agent, &workspace).await.unwrap_err();
            assert!(error.message().contains("already exists"), "{error}");
            let patch = env.roster_patch([(agent.to_string(), json!({ "name": "Once more" }))]);
            env.patch(&patch).await.unwrap();
            until("it is removed", || async { delete(&client, &agent).await }).await;
        }
    } else {
        let client = env.client().await;
        client.sessions_patch(&session_key(&agent), "Label").await.unwrap();
    }
    let agent = env.agent();
    let patch = env.roster_patch([(agent.to_string(), json!({ "name": "Another" }))]);
    env.patch(&patch).await.unwrap();
}

async fn delete(client: &Client, agent: &GatewayAgentId) -> bool {
    client.agents_delete(agent).await.unwrap().is_some()
}

pub(crate) async fn main_and_unknown_agents_are_not_removed(env: &Env) {
    let client = env.client().await;
    for (agent, expected) in [("nobody", "agent \"nobody\" not found"), ("main", "cannot be deleted")] {
        let params = json!({ "agentId": agent, "deleteFiles": true });
        let error = client.request("agents.delete", params, CALL).await.unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
    let params = json!({ "agentId": "nobody", "name": "Nobody" });
    let error = client.request("agents.update", params, CALL).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound, "{error}");
}

pub(crate) async fn a_created_agent_has_a_workspace_with_files(env: &Env) {
    let client = env.client().await;
    let workspace = env.workspace("created");
    let params = json!({ "name": "Made Here", "workspace": workspace });
    let made = env.call(&client, "agents.create", params.clone()).await;
    assert_eq!(made["agentId"], "made-here");
    assert_eq!(made["workspace"], workspace.as_str());
    let agent = GatewayAgentId::observed("made-here");
    until("the agent can be used", || async {
        client.files_list(&agent).await.is_ok()
    })
    .await;
    let identity = client.files_get(&agent, FileName::Identity).await.unwrap();
    let named = identity.text.contains("- Name: Made Here\n");
    assert_eq!(named, !env.facts.has_entries(), "{}", identity.text);
    let listed = client.files_list(&agent).await.unwrap();
    let missing: Vec<&str> = listed
        .iter()
        .filter(|file| file.missing)
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(missing, ["MEMORY.md"]);
    let entry = env.entry(&agent).await.unwrap();
    assert_eq!(entry["name"], "Made Here");
    if let Some(notes) = env.facts.notes_identity {
        assert_eq!(entry["identity"]["name"] == "Made Here", notes, "{entry}");
    }

    let error = client.request("agents.create", params, CALL).await.unwrap_err();
    assert!(
        error.message().contains("agent \"made-here\" already exists"),
        "{error}"
    );
    let main = json!({ "name": "main", "workspace": workspace });
    let error = client.request("agents.create", main, CALL).await.unwrap_err();
    let expected = if env.facts.has_entries() {
        "agent \"main\" already exists"
    } else {
        "\"main\" is reserved"
    };
    assert!(error.message().contains(expected), "{error}");
    let bare = client
        .request("agents.create", json!({ "name": "" }), CALL)
        .await
        .unwrap_err();
    assert_eq!(bare.class(), ErrorClass::Invalid, "{bare}");
    assert!(delete(&client, &agent).await);
}

pub(crate) async fn a_config_that_would_lose_half_its_size_is_not_written(env: &Env) {
    let agent = env.agent();
    let size = serde_json::to_string_pretty(&env.config().await).unwrap().len();
    let prompt = async |length: Option<usize>| {
        let prompt = length.map(|length| "x".repeat(length));
        let entry = json!({ "heartbeat": { "every": "24h", "prompt": prompt } });
        env.patch(&env.roster_patch([(agent.to_string(), entry)])).await
    };
    prompt(Some(2 * size)).await.unwrap();
    let dropped = prompt(None).await;
    if let Some(guarded) = env.facts.size_guard {
        assert_eq!(dropped.is_err(), guarded, "{:?}", dropped.err());
    }
    let Err(error) = dropped else { return };
    assert!(error.message().contains("size-drop:"), "{error}");
    let client = env.client().await;
    let error = client.agents_delete(&agent).await.unwrap_err();
    assert!(error.message().contains("size-drop:"), "{error}");
    assert!(env.entry(&agent).await.is_some());
    // Step by step it may shrink.
    prompt(Some(size)).await.unwrap();
    prompt(Some(size / 3)).await.unwrap();
    prompt(None).await.unwrap();
}
