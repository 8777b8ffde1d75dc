//! `agents.files.*`.

use openclaw_controller::gateway::ErrorClass;
use openclaw_controller::model::{FileName, GatewayAgentId};
use serde_json::{Value, json};

use crate::env::{CALL, Env};

pub(crate) async fn the_list_names_what_the_dialect_has(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    let listed = client.files_list(&agent).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|file| file.name.as_str()).collect();
    let expected: &[&str] = if env.facts.has_entries() {
        &["AGENTS.md", "SOUL.md", "USER.md", "BOOTSTRAP.md", "MEMORY.md"]
    } else {
        &[
            "AGENTS.md",
            "SOUL.md",
            "TOOLS.md",
            "IDENTITY.md",
            "USER.md",
            "HEARTBEAT.md",
            "BOOTSTRAP.md",
            "MEMORY.md",
        ]
    };
    assert_eq!(names, expected);
    // An agent that came with a patch has no files yet.
    assert!(listed.iter().all(|file| file.missing), "{listed:?}");
    let file = client.files_get(&agent, FileName::Soul).await.unwrap();
    assert!(file.missing && file.text.is_empty() && file.hash.is_none());
}

pub(crate) async fn a_file_reads_back_as_it_was_written(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    let mut last = None;
    for text in ["hello\n", "", "héllo ✓\r\n\u{0}tail", &"z".repeat(100_000)] {
        let outcome = client.files_set(&agent, FileName::Soul, text, None).await.unwrap();
        assert_eq!(outcome.text.as_deref(), Some(text));
        assert_eq!(outcome.size, Some(text.len() as u64));
        assert_eq!(outcome.hash.is_some(), env.facts.file_hashes);
        let file = client.files_get(&agent, FileName::Soul).await.unwrap();
        assert!(!file.missing);
        assert!(
            file.text == text,
            "{} bytes read, {} written",
            file.text.len(),
            text.len()
        );
        assert_eq!(file.hash, outcome.hash);
        let listed = client.files_list(&agent).await.unwrap();
        let stat = listed.iter().find(|file| file.name == "SOUL.md").unwrap().clone();
        assert_eq!(stat.size, Some(text.len() as u64));
        assert!(stat.updated_at_ms >= last, "{:?} after {last:?}", stat.updated_at_ms);
        last = stat.updated_at_ms;
    }
}

pub(crate) async fn a_retired_file_is_refused(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    for file in [FileName::Tools, FileName::Heartbeat] {
        let set = client.files_set(&agent, file, "text", None).await;
        let get = client.files_get(&agent, file).await;
        if env.facts.has_entries() {
            assert_eq!(set.unwrap_err().class(), ErrorClass::UnsupportedFile, "{file}");
            assert_eq!(get.err().unwrap().class(), ErrorClass::UnsupportedFile, "{file}");
        } else {
            set.unwrap();
            assert_eq!(get.unwrap().text, "text", "{file}");
        }
    }
    for name in ["NOPE.md", "agents.md", "../x.md"] {
        let params = json!({ "agentId": agent.as_str(), "name": name, "content": "text" });
        let error = client.request("agents.files.set", params, CALL).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::UnsupportedFile, "{name}: {error}");
        assert!(
            error.message().contains(&format!("unsupported file \"{name}\"")),
            "{error}"
        );
    }
}

pub(crate) async fn identity_can_be_written_even_where_it_is_not_listed(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    client
        .files_set(&agent, FileName::Identity, "- Name: X\n", None)
        .await
        .unwrap();
    assert_eq!(
        client.files_get(&agent, FileName::Identity).await.unwrap().text,
        "- Name: X\n"
    );
    let listed = client.files_list(&agent).await.unwrap();
    let named = listed.iter().any(|file| file.name == "IDENTITY.md");
    assert_eq!(named, !env.facts.has_entries());
}

pub(crate) async fn an_unknown_agent_has_no_files(env: &Env) {
    let nobody = GatewayAgentId::observed("nobody");
    let client = env.client().await;
    let expected = if env.facts.has_entries() {
        "agent \"nobody\" not found"
    } else {
        "unknown agent id"
    };
    for error in [
        client.files_list(&nobody).await.unwrap_err(),
        client.files_get(&nobody, FileName::Agents).await.err().unwrap(),
        client
            .files_set(&nobody, FileName::Agents, "x", None)
            .await
            .unwrap_err(),
        // The agent is looked for first.
        client.files_get(&nobody, FileName::Tools).await.err().unwrap(),
    ] {
        assert_eq!(error.class(), ErrorClass::NotFound, "{error}");
        assert!(error.message().contains(expected), "{error}");
    }
    // Ids are compared without regard to case.
    client.files_list(&GatewayAgentId::observed("MAIN")).await.unwrap();
}

pub(crate) async fn a_stale_hash_is_a_conflict_where_hashes_exist(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    let first = client.files_set(&agent, FileName::Agents, "one", None).await.unwrap();
    let Some(hash) = first.hash else {
        let error = client
            .files_set(&agent, FileName::Agents, "two", Some("00"))
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
        assert!(
            error.message().contains("at root: unexpected property 'expectedHash'"),
            "{error}"
        );
        assert!(!env.facts.file_hashes);
        return;
    };
    let second = client
        .files_set(&agent, FileName::Agents, "two", Some(&hash))
        .await
        .unwrap();
    let error = client
        .files_set(&agent, FileName::Agents, "three", Some(&hash))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict, "{error}");
    assert_eq!(
        client.files_get(&agent, FileName::Agents).await.unwrap().hash,
        second.hash
    );
    // A file that is gone is a conflict too.
    let error = client
        .files_set(&agent, FileName::User, "x", Some(&hash))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict, "{error}");
    let params = json!({ "agentId": agent.as_str(), "name": "USER.md", "content": "x", "expectedHash": Value::Null });
    let error = client.request("agents.files.set", params, CALL).await.unwrap_err();
    assert!(error.message().contains("at /expectedHash: must be string"), "{error}");
}
