//! `sessions.*` and `chat.send`.

use openclaw_controller::gateway::ErrorClass;
use openclaw_controller::model::{GatewayAgentId, session_key};
use serde_json::json;
use uuid::Uuid;

use crate::env::{CALL, Env, until};

pub(crate) async fn a_label_is_set_and_unique_within_its_agent(env: &Env) {
    // Sessions may be made for agents that do not exist.
    let agent = format!("nobody-{}", Uuid::new_v4().simple());
    let client = env.client().await;
    let key = format!("agent:{agent}:main");
    let answer = env
        .call(&client, "sessions.patch", json!({ "key": key, "label": "One" }))
        .await;
    assert_eq!(answer["key"], key.as_str());
    assert_eq!(answer["entry"]["label"], "One");
    client.sessions_patch(&key, "One").await.unwrap();
    client
        .sessions_patch(&format!("agent:{agent}:long"), &"x".repeat(env.facts.label_limit))
        .await
        .unwrap();
    let error = client
        .sessions_patch(&format!("agent:{agent}:other"), "One")
        .await
        .unwrap_err();
    assert!(error.message().contains("label already in use: One"), "{error}");
    client
        .sessions_patch(&format!("agent:{agent}-too:main"), "One")
        .await
        .unwrap();
    let cleared = env
        .call(&client, "sessions.patch", json!({ "key": key, "label": null }))
        .await;
    assert_eq!(cleared["entry"].get("label"), None);
    for label in [String::new(), "x".repeat(env.facts.label_limit + 1)] {
        let error = client.sessions_patch(&key, &label).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
    }
    let error = client
        .request("sessions.patch", json!({ "key": key, "labelx": "x" }), CALL)
        .await
        .unwrap_err();
    assert!(error.message().contains("unexpected property 'labelx'"), "{error}");
}

pub(crate) async fn a_session_is_reset_even_if_it_was_missing(env: &Env) {
    let client = env.client().await;
    let key = session_key(&GatewayAgentId::observed(format!("reset-{}", Uuid::new_v4().simple())));
    for _ in 0..2 {
        let answer = match client.request("sessions.reset", json!({ "key": key }), CALL).await {
            // Where a dependency's script would have installed a module, it fails without one.
            Err(error) if error.message().contains("Cannot find module") => {
                assert_ne!(env.facts.session_delete, Some(true), "{error}");
                return;
            }
            answer => answer.unwrap(),
        };
        assert_eq!(answer["key"], key.as_str());
        assert!(answer["entry"]["sessionId"].is_string());
    }
}

pub(crate) async fn main_sessions_are_kept_where_the_dialect_keeps_them(env: &Env) {
    let client = env.client().await;
    let agent = GatewayAgentId::observed(format!("gone-{}", Uuid::new_v4().simple()));
    let key = session_key(&agent);
    client.sessions_patch(&key, "Label").await.unwrap();
    let removed = client.request("sessions.delete", json!({ "key": key }), CALL).await;
    match removed {
        Ok(answer) => {
            assert_eq!(answer["deleted"], true);
            assert!(!env.facts.main_sessions_stay);
        }
        Err(error) if env.facts.main_sessions_stay => {
            assert!(error.message().contains("Cannot delete the main session"), "{error}");
        }
        // Where a dependency's script would have installed a module, it fails without one.
        Err(error) => {
            assert_ne!(env.facts.session_delete, Some(true), "{error}");
            assert!(error.message().contains("Cannot find module"), "{error}");
        }
    }
    // The default agent's main session is kept everywhere.
    let main = client
        .request("sessions.delete", json!({ "key": "agent:main:main" }), CALL)
        .await;
    let error = main.unwrap_err();
    assert!(error.message().contains("Cannot delete the main session"), "{error}");
    let missing = env
        .call(
            &client,
            "sessions.delete",
            json!({ "key": format!("agent:{agent}:zzz") }),
        )
        .await;
    assert_eq!(missing["deleted"], false);
}

pub(crate) async fn a_message_is_taken_once(env: &Env) {
    let agent = env.agent();
    let client = env.client().await;
    let key = Uuid::new_v4().to_string();
    let send = |session_key: String| {
        let params = json!({
            "sessionKey": session_key, "message": "Hello", "deliver": true, "idempotencyKey": key,
        });
        client.request("chat.send", params, CALL)
    };
    chat_with_nobody(env).await;
    let first = send(session_key(&agent)).await.unwrap();
    assert_eq!(first["runId"], key.as_str());
    assert_eq!(first["status"], "started");
    let second = send(session_key(&agent)).await.unwrap();
    assert_eq!(second["runId"], key.as_str());
    assert_ne!(second["status"], "started", "taken once");
    let bare = json!({ "sessionKey": session_key(&agent), "message": "Hello" });
    let error = client.request("chat.send", bare, CALL).await.unwrap_err();
    assert!(
        error.message().contains("must have required property 'idempotencyKey'"),
        "{error}"
    );
    // Later the same key answers how the run ended, and starts no other.
    until("the run is over", || async {
        match send(session_key(&agent)).await {
            Ok(answer) => {
                assert_ne!(answer["status"], "started");
                answer["status"] != "in_flight"
            }
            Err(_) => true,
        }
    })
    .await;
}

/// Refused, but by the oldest gateways.
async fn chat_with_nobody(env: &Env) {
    let nobody = session_key(&GatewayAgentId::observed("nobody"));
    let params = json!({
        "sessionKey": nobody, "message": "Hello", "deliver": false, "idempotencyKey": Uuid::new_v4().to_string(),
    });
    let client = env.client().await;
    match client.request("chat.send", params, CALL).await {
        Ok(_) => assert_ne!(env.facts.chat_knows_agents, Some(true)),
        Err(error) => {
            assert_ne!(env.facts.chat_knows_agents, Some(false), "{error}");
            let expected = "Agent \"nobody\" no longer exists in configuration";
            assert!(error.message().contains(expected), "{error}");
            assert_eq!(error.class(), ErrorClass::NotFound, "{error}");
        }
    }
}
