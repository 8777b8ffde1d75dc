//! What every version is checked for.

use std::time::Duration;

use openclaw_controller::gateway::{ErrorClass, GatewayError, Target, probe};
use openclaw_controller::model::{FileName, RosterShape};
use serde_json::{Value, json};

use crate::expected::Expected;
use crate::fixture::{BUSY, Fixture, PATCH, agent, connect, control_ui, patiently, read, target};

pub(crate) async fn the_handshake_grants_every_scope(fixture: &Fixture, expected: &Expected) {
    let (client, _running) = fixture.client().await;
    let hello = client.hello();
    assert_eq!(
        (hello.protocol, hello.server_version.as_str()),
        ((expected.dialect)().protocol, expected.version)
    );
    let scopes: Vec<_> = hello.scopes.iter().map(String::as_str).collect();
    let all = [
        "operator.admin",
        "operator.approvals",
        "operator.pairing",
        "operator.read",
        "operator.write",
    ];
    assert_eq!(scopes, all);
    assert_eq!(
        (hello.max_payload, hello.tick_interval),
        (26_214_400, Duration::from_secs(30))
    );
    assert!(hello.methods.contains("config.patch") && !hello.methods.contains("agents.files.delete"));
}

pub(crate) async fn probing_learns_the_dialect(fixture: &Fixture, expected: &Expected) {
    let (client, _running) = fixture.client().await;
    assert_eq!(probe(&client).await.unwrap(), (expected.dialect)());
}

pub(crate) async fn a_fresh_config_holds_no_agent_of_ours(fixture: &Fixture, expected: &Expected) {
    let fresh = &fixture.fresh;
    assert!(fresh.hash.is_some() && !fresh.has_exec_host && fresh.ownership.is_none());
    let roster: Vec<_> = fresh.roster.iter().map(|entry| entry.id.as_str()).collect();
    match (expected.dialect)().roster {
        RosterShape::List => assert_eq!((fresh.shape, roster), (None, vec![])),
        RosterShape::Entries => assert_eq!((fresh.shape, roster), (Some(RosterShape::Entries), vec!["main"])),
    }
}

pub(crate) async fn one_patch_adds_agents_and_is_read_back(fixture: &Fixture, expected: &Expected) {
    let (client, _running) = fixture.client().await;
    assert!(!fixture.patch.noop);
    assert_eq!(fixture.patch.requires_restart, expected.tells_effect.then_some(false));
    let answered = fixture
        .patch
        .config
        .as_ref()
        .expect("every version answers with the config");
    let config = client.config_get().await.unwrap();
    for id in ["files", "hashes"] {
        let entry = config.entry(&agent(id)).expect(id);
        assert_eq!(answered.entry(&agent(id)), Some(entry));
        assert_eq!(entry.name, Some(format!("Agent {id}")));
        assert_eq!(
            entry.heartbeat.clone().map(Value::from),
            Some(json!({"every": "10m", "target": "last"}))
        );
    }
    assert_eq!(config.shape, Some((expected.dialect)().roster));
    let list = client.agents_list().await.unwrap();
    assert_eq!(list.default_id, Some(agent("main")));
    assert!(list.ids.contains(&agent("hashes")));
}

pub(crate) async fn refused_patches_say_why(fixture: &Fixture, _expected: &Expected) {
    let (client, _running) = fixture.client().await;
    let patch = json!({"tools": {"exec": {"host": "gateway"}}});
    let stale = client
        .config_patch(&patch, Some("stale"), &[], PATCH)
        .await
        .unwrap_err();
    assert_eq!(
        (stale.class(), stale.outcome_unknown()),
        (ErrorClass::Conflict, false),
        "{stale}"
    );
    let none = client.config_patch(&patch, None, &[], PATCH).await.unwrap_err();
    assert_eq!(none.class(), ErrorClass::Conflict, "{none}");
    let hash = client.config_get().await.unwrap().hash;
    let wrong = json!({"agents": {"defaults": {"nonsense": 1}}});
    let invalid = client
        .config_patch(&wrong, hash.as_deref(), &[], PATCH)
        .await
        .unwrap_err();
    assert_eq!(
        (invalid.class(), invalid.is_transient()),
        (ErrorClass::Invalid, false),
        "{invalid}"
    );
    assert!(
        invalid.message().contains("agents.defaults") && invalid.message().contains("nonsense"),
        "{invalid}"
    );
}

pub(crate) async fn too_many_patches_are_told_to_wait(fixture: &Fixture, _expected: &Expected) {
    let (client, _running) = fixture.client().await;
    // Three a minute on old gateways, thirty on new ones; refused ones count.
    let mut limited = None;
    for _ in 0..40 {
        let error = client
            .config_patch(&json!({}), Some("stale"), &[], PATCH)
            .await
            .unwrap_err();
        if error.class() != ErrorClass::Conflict {
            limited = Some(error);
            break;
        }
    }
    let error = limited.expect("the gateway limits config writes");
    assert_eq!(
        (error.class(), error.is_transient()),
        (ErrorClass::RateLimited, true),
        "{error}"
    );
    let wait = error.retry_after().expect("the gateway says how long to wait");
    assert!(
        wait > Duration::from_secs(1) && wait <= Duration::from_mins(1),
        "{wait:?}"
    );
}

pub(crate) async fn files_are_set_listed_and_read_back(fixture: &Fixture, expected: &Expected) {
    let (client, _running) = fixture.client().await;
    let dialect = (expected.dialect)();
    // The one file that no gateway makes by itself when an agent first runs.
    assert!(read(&client, "files", FileName::Memory).await.missing);
    for file in FileName::ALL.into_iter().filter(|file| dialect.has_file(*file)) {
        let text = format!("# {file}\nünïcode\n");
        let outcome = client.files_set(&agent("files"), file, &text, None).await.unwrap();
        assert_eq!(
            outcome.text.as_ref(),
            Some(&text),
            "the answer carries what is there now"
        );
        let found = client.files_get(&agent("files"), file).await.unwrap();
        assert!(!found.missing && found.text == text, "{file}");
        assert_eq!((found.hash.is_some(), &found.hash), (expected.hashes, &outcome.hash));
        let listed = client.files_list(&agent("files")).await.unwrap();
        let stat = listed.iter().find(|stat| stat.name == file.as_str());
        assert_eq!(stat.is_none(), dialect.unlisted_files.contains(&file), "{file}");
        if let Some(stat) = stat {
            assert!(!stat.missing && stat.updated_at_ms.is_some());
            assert_eq!(stat.size, Some(text.len() as u64));
        }
        let on_disk = fixture.gateway.read_file("files", file.as_str()).unwrap();
        assert_eq!(on_disk.as_deref(), Some(text.as_str()));
    }
}

pub(crate) async fn a_file_that_somebody_else_changed_is_not_overwritten(fixture: &Fixture, expected: &Expected) {
    let (client, _running) = fixture.client().await;
    let agent = agent("hashes");
    read(&client, "hashes", FileName::Agents).await;
    let first = client.files_set(&agent, FileName::Agents, "one", None).await.unwrap();
    if expected.hashes {
        let second = client
            .files_set(&agent, FileName::Agents, "two", first.hash.as_deref())
            .await
            .unwrap();
        assert_ne!(first.hash, second.hash);
        let error = client
            .files_set(&agent, FileName::Agents, "three", first.hash.as_deref())
            .await
            .unwrap_err();
        assert_eq!(
            (error.class(), error.outcome_unknown()),
            (ErrorClass::Conflict, false),
            "{error}"
        );
        assert!(client.files_get(&agent, FileName::Agents).await.unwrap().text == "two");
    } else {
        let hash = "0".repeat(64);
        let error = client
            .files_set(&agent, FileName::Agents, "three", Some(&hash))
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
        assert!(client.files_get(&agent, FileName::Agents).await.unwrap().text == "one");
    }
}

pub(crate) async fn what_does_not_exist_is_told_apart(fixture: &Fixture, expected: &Expected) {
    let (client, _running) = fixture.client().await;
    let nobody = agent("nobody");
    let class = |error: GatewayError| error.class();
    assert_eq!(
        client.files_list(&nobody).await.map_err(class).unwrap_err(),
        ErrorClass::NotFound
    );
    assert_eq!(
        client.files_get(&nobody, FileName::Agents).await.err().map(class),
        Some(ErrorClass::NotFound)
    );
    assert_eq!(
        client
            .files_set(&nobody, FileName::Agents, "", None)
            .await
            .map_err(class),
        Err(ErrorClass::NotFound)
    );
    assert_eq!(client.agents_delete(&nobody).await.map_err(class), Ok(None));
    let sent = client.chat_send("agent:nobody:main", "hello", false, "nobody-1").await;
    assert_eq!(sent.map_err(class), Err(ErrorClass::NotFound));
    assert_eq!(client.schema_lookup("no.such.path").await.map_err(class), Ok(None));
    let unknown = client.request("no.such.method", json!({}), PATCH).await;
    assert_eq!(unknown.map_err(class), Err(ErrorClass::Invalid));
    for file in (expected.dialect)().retired_files {
        let error = client.files_set(&agent("main"), file, "", None).await.unwrap_err();
        assert_eq!(
            (error.class(), error.is_transient()),
            (ErrorClass::UnsupportedFile, false),
            "{error}"
        );
    }
}

pub(crate) async fn sessions_are_labelled_reset_woken_once_and_removed(fixture: &Fixture, _expected: &Expected) {
    // Alone, because a run can keep an old gateway from answering anybody for half a minute.
    let (client, _running) = fixture.alone().await;
    read(&client, "sessions", FileName::Agents).await;
    let key = "agent:sessions:main";
    client.sessions_patch(key, "A label").await.unwrap();
    assert!(client.sessions_reset(key).await.unwrap());
    client.sessions_delete(key).await.unwrap();
    assert!(!client.sessions_delete("agent:sessions:never-made").await.unwrap());

    let first = client.chat_send(key, "Hello.", true, "sessions-1").await.unwrap();
    assert_eq!(first.run_id.as_deref(), Some("sessions-1"));
    assert_eq!(first.status.as_deref(), Some("started"));
    let finished = async {
        loop {
            // By a connection of its own each time, for the run may outlast one.
            match patiently(&target(&fixture.gateway))
                .await
                .chat_send(key, "Hello.", true, "sessions-1")
                .await
            {
                Ok(again) if again.status.as_deref() == Some("in_flight") => {}
                Ok(again) => return assert_ne!(again.status.as_deref(), Some("started")),
                Err(error) if error.outcome_unknown() => {}
                // The outcome of a run without model credentials.
                Err(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(BUSY, finished).await.expect("the run ends");
}

pub(crate) async fn an_agent_is_removed_once(fixture: &Fixture, _expected: &Expected) {
    let (client, _running) = fixture.client().await;
    read(&client, "leaving", FileName::Agents).await;
    assert!(client.agents_delete(&agent("leaving")).await.unwrap().is_some());
    assert!(client.agents_delete(&agent("leaving")).await.unwrap().is_none());
    assert!(client.config_get().await.unwrap().entry(&agent("leaving")).is_none());
}

pub(crate) async fn a_wrong_token_is_unauthorized(fixture: &Fixture, _expected: &Expected) {
    let (_client, _running) = fixture.client().await;
    for token in [Some("wr0ng-token"), None] {
        let target = Target {
            token: token.map(Into::into),
            ..target(&fixture.gateway)
        };
        let error = connect(&target).await.unwrap_err();
        assert_eq!(
            (error.class(), error.is_transient()),
            (ErrorClass::Unauthorized, false),
            "{error}"
        );
        assert!(!error.to_string().contains("wr0ng-token"), "{error}");
    }
}

pub(crate) async fn a_control_ui_needs_an_operator_who_disabled_pairing(fixture: &Fixture, _expected: &Expected) {
    let (_client, _running) = fixture.client().await;
    let error = connect(&control_ui(&fixture.gateway)).await.unwrap_err();
    assert_eq!(
        (error.class(), error.is_transient()),
        (ErrorClass::PairingRequired, false),
        "{error}"
    );
    assert!(error.to_string().contains("disable_device_pairing"), "{error}");
}

pub(crate) async fn tls_to_a_plain_gateway_fails_as_tls(fixture: &Fixture, _expected: &Expected) {
    let (_client, _running) = fixture.client().await;
    let url = fixture.gateway.url().replace("ws://", "wss://");
    for allow_insecure_tls in [false, true] {
        let target = Target {
            url: url.clone(),
            allow_insecure_tls,
            ..target(&fixture.gateway)
        };
        let error = connect(&target).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::TlsFailed, "{error}");
    }
}

pub(crate) async fn a_restart_ends_the_connection_and_leaves_the_gateway_as_it_was(
    fixture: &Fixture,
    expected: &Expected,
) {
    let (client, _running) = fixture.alone().await;
    let before = client.config_get().await.unwrap();
    fixture.gateway.stop().await.unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(5), client.closed())
        .await
        .expect("the client notices");
    assert!(reason.restart, "{reason:?}");
    let error = connect(&target(&fixture.gateway)).await.unwrap_err();
    assert_eq!(
        (error.class(), error.is_transient()),
        (ErrorClass::ConnectionRefused, true),
        "{error}"
    );
    fixture
        .gateway
        .edit_config(|config| config["gateway"]["controlUi"] = json!({"dangerouslyDisableDeviceAuth": true}))
        .unwrap();
    fixture.gateway.start_again().await.unwrap();
    let ui = connect(&control_ui(&fixture.gateway)).await;
    assert_eq!(ui.as_ref().err().map(GatewayError::class), expected.control_ui_refused);
    if let Ok(ui) = ui {
        assert_eq!(ui.config_get().await.unwrap().roster, before.roster);
    }
    let client = connect(&target(&fixture.gateway)).await.unwrap();
    assert_eq!(client.config_get().await.unwrap().roster, before.roster);

    fixture.gateway.kill().await.unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(5), client.closed())
        .await
        .expect("the client notices");
    assert_eq!(
        (reason.restart, reason.class),
        (false, ErrorClass::ConnectionClosed),
        "{reason:?}"
    );
    fixture
        .gateway
        .edit_config(|config| {
            config["gateway"].as_object_mut().unwrap().remove("controlUi");
        })
        .unwrap();
    fixture.gateway.start_again().await.unwrap();
}
