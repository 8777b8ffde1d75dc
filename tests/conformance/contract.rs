//! The protocol's machine-readable contract.

use openclaw_controller::gateway::{ErrorClass, probe};
use openclaw_controller::model::{FileName, GatewayAgentId, session_key};
use secrecy::SecretString;
use serde_json::json;

use crate::contract::Watch;
use crate::contract::relay::Relay;
use crate::env::{CALL, Env, until};

/// Everything that the client ever sends, once, with what the gateway has to say about it.
pub(crate) async fn every_frame_keeps_the_contract(env: &Env) {
    // What differs rightly is listed for these.
    let dialect = env.facts.simulated().expect("a version that is simulated as well");
    let watch = Watch::new(dialect);
    let relay = Relay::start(&env.target().url, &watch).await;
    let mut target = env.target();
    target.url = relay.url();

    let mut stranger = target.clone();
    stranger.token = Some(SecretString::from("wrong"));
    let error = env.connect(&stranger).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unauthorized, "{error}");

    let client = env.connect(&target).await.unwrap();
    probe(&client).await.unwrap();
    client.agents_list().await.unwrap();
    let agent = env.agent();
    let soul = client.files_get(&agent, FileName::Soul).await.unwrap();
    client
        .files_set(&agent, FileName::Soul, "text", soul.hash.as_deref())
        .await
        .unwrap();
    let soul = client.files_get(&agent, FileName::Soul).await.unwrap();
    client
        .files_set(&agent, FileName::Soul, "other text", soul.hash.as_deref())
        .await
        .unwrap();
    client.files_list(&agent).await.unwrap();
    let nobody = GatewayAgentId::observed("nobody");
    assert_eq!(
        client.files_list(&nobody).await.unwrap_err().class(),
        ErrorClass::NotFound
    );
    let config = env.observed(&client).await;
    let patch = env.roster_patch([(agent.as_str().to_owned(), json!({ "name": "Renamed" }))]);
    let replace = ["logging.redactPatterns".to_owned()];
    let replace = if env.facts.replace_paths { &replace } else { &[][..] };
    client
        .config_patch(&patch, config.hash.as_deref(), replace, CALL)
        .await
        .unwrap();
    let key = session_key(&agent);
    client.sessions_patch(&key, "Label").await.unwrap();
    client.sessions_reset(&key).await.unwrap();
    let other = format!("agent:{agent}:other");
    client.sessions_patch(&other, "Other").await.unwrap();
    assert!(client.sessions_delete(&other).await.unwrap());
    assert!(client.agents_delete(&agent).await.unwrap().is_some());
    client
        .agents_create(&agent, &env.workspace(agent.as_str()))
        .await
        .unwrap();
    until("the agent can be used again", || async {
        client.files_list(&agent).await.is_ok()
    })
    .await;
    client.chat_send(&key, "Hello.", true, "a key").await.unwrap();
    client.close();

    // Whatever the client can call was called; a method that is new here has to be called above.
    let called = watch.methods();
    let expected = [
        "agents.create",
        "agents.delete",
        "agents.files.get",
        "agents.files.list",
        "agents.files.set",
        "agents.list",
        "chat.send",
        "config.get",
        "config.patch",
        "config.schema.lookup",
        "connect",
        "sessions.delete",
        "sessions.patch",
        "sessions.reset",
    ];
    assert_eq!(called.iter().collect::<Vec<_>>(), expected);
    watch.assert_every_difference_is_needed();
}
