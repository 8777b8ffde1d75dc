//! The gateway client against real gateways of every supported version, one of each for all tests here.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests are tests; clippy knows only functions that carry the attribute"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openclaw_controller::gateway::{
    Client, Connector, DeviceIdentity, ErrorClass, GatewayError, PatchOutcome, RpcMetrics, Target, WebSocketConnector,
    probe,
};
use openclaw_controller::lab::{Options, RealGateway};
use openclaw_controller::model::{
    Dialect, Effect, FileContent, FileName, GatewayAgentId, GatewayId, ObservedConfig, RosterShape, Visibility,
};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A patch waits for the reload of the whole roster, on a machine that runs two other gateways and their tests.
const PATCH: Duration = Duration::from_mins(2);

/// How long a run may keep an old gateway from answering: more than a minute was seen, with ten busy processes on two cores.
const BUSY: Duration = Duration::from_mins(3);

/// Agents that the one patch at the start adds, one for each test that needs one for itself.
const AGENTS: [&str; 4] = ["files", "hashes", "sessions", "leaving"];

/// What differs between the versions.
struct Expected {
    version: &'static str,
    dialect: fn() -> Dialect,
    /// Whether `agents.files.get` gives a hash and `set` takes one.
    hashes: bool,
    /// Why a control UI without a device is refused where the config lets it in; newer gateways ignore that key.
    control_ui_refused: Option<ErrorClass>,
    /// Whether the answer of a patch tells its effect.
    tells_effect: bool,
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

const OLD_HEARTBEAT: [&str; 17] = [
    "every",
    "activeHours",
    "model",
    "session",
    "includeReasoning",
    "target",
    "directPolicy",
    "to",
    "accountId",
    "prompt",
    "includeSystemPromptSection",
    "ackMaxChars",
    "suppressToolErrorWarnings",
    "timeoutSeconds",
    "lightContext",
    "isolatedSession",
    "skipWhenBusy",
];

fn dialect_of_2026_4_29() -> Dialect {
    Dialect {
        protocol: 3,
        roster: RosterShape::List,
        heartbeat_keys: Some(keys(&OLD_HEARTBEAT)),
        visibility: Some(Visibility::Heartbeat),
        retired_files: BTreeSet::new(),
        unlisted_files: BTreeSet::new(),
        channels_effect: Effect::Restart,
        roster_effect: Effect::Hot,
        tools_effect: Effect::Hot,
    }
}

fn dialect_of_2026_7_1() -> Dialect {
    Dialect {
        protocol: 4,
        tools_effect: Effect::None,
        ..dialect_of_2026_4_29()
    }
}

fn dialect_of_2026_9_6() -> Dialect {
    Dialect {
        protocol: 4,
        roster: RosterShape::Entries,
        heartbeat_keys: Some(keys(&[
            "every",
            "activeHours",
            "model",
            "session",
            "target",
            "directPolicy",
            "to",
            "accountId",
            "prompt",
            "timeoutSeconds",
            "lightContext",
            "isolatedSession",
        ])),
        visibility: Some(Visibility::HeartbeatVisibility),
        retired_files: [FileName::Tools, FileName::Heartbeat].into(),
        unlisted_files: [FileName::Identity].into(),
        channels_effect: Effect::None,
        roster_effect: Effect::Hot,
        tools_effect: Effect::Hot,
    }
}

/// A running gateway, and what was seen of it while it was fresh.
struct Fixture {
    gateway: RealGateway,
    fresh: ObservedConfig,
    patch: PatchOutcome,
    /// Held for writing by whoever stops the gateway, for reading by everybody else.
    running: RwLock<()>,
}

impl Fixture {
    async fn start(expected: &Expected) -> Self {
        let gateway = RealGateway::start(expected.version, Options::default()).await.unwrap();
        let client = connect(&target(&gateway)).await.unwrap();
        let fresh = client.config_get().await.unwrap();
        let root = gateway.workspace_root();
        let agent = |id: &str| {
            json!({
                "name": format!("Agent {id}"),
                "workspace": root.join(format!("workspace-{id}")),
                "heartbeat": {"every": "10m", "target": "last"},
            })
        };
        let patch = match (expected.dialect)().roster {
            RosterShape::Entries => {
                let entries: Map<String, Value> = AGENTS.iter().map(|id| ((*id).to_owned(), agent(id))).collect();
                json!({"agents": {"ownership": "explicit", "entries": entries}})
            }
            RosterShape::List => {
                // Without `main` the first of ours would become the gateway's default agent.
                let mut list = vec![json!({"id": "main"})];
                list.extend(AGENTS.iter().map(|id| {
                    let mut entry = agent(id);
                    entry["id"] = json!(id);
                    entry
                }));
                json!({"agents": {"list": list}})
            }
        };
        let patch = client
            .config_patch(&patch, fresh.hash.as_deref(), &[], PATCH)
            .await
            .unwrap();
        Self {
            gateway,
            fresh,
            patch,
            running: RwLock::new(()),
        }
    }

    async fn client(&self) -> (Client, RwLockReadGuard<'_, ()>) {
        let guard = self.running.read().await;
        (patiently(&target(&self.gateway)).await, guard)
    }

    async fn alone(&self) -> (Client, RwLockWriteGuard<'_, ()>) {
        let guard = self.running.write().await;
        (patiently(&target(&self.gateway)).await, guard)
    }
}

fn target(gateway: &RealGateway) -> Target {
    Target {
        gateway: GatewayId(uuid::Uuid::nil()),
        url: gateway.url(),
        token: Some(gateway.token().into()),
        disable_device_pairing: false,
        allow_insecure_tls: false,
    }
}

fn control_ui(gateway: &RealGateway) -> Target {
    Target {
        disable_device_pairing: true,
        ..target(gateway)
    }
}

/// Connects as a device of its own: gateways count config writes per device.
async fn connect(target: &Target) -> Result<Client, GatewayError> {
    let identity = Arc::new(DeviceIdentity::generate());
    WebSocketConnector::new(identity, RpcMetrics::unregistered())
        .connect(target)
        .await
}

/// Connects again and again, as the controller does: a busy gateway on a busy machine may miss a deadline.
async fn patiently(target: &Target) -> Client {
    let attempts = async {
        loop {
            match connect(target).await {
                Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(200)).await,
                result => return result.unwrap(),
            }
        }
    };
    tokio::time::timeout(BUSY, attempts)
        .await
        .expect("the gateway answers again")
}

fn agent(id: &str) -> GatewayAgentId {
    GatewayAgentId::observed(id)
}

/// The text of a file, as soon as the gateway has taken up the agent.
async fn read(client: &Client, id: &str, file: FileName) -> FileContent {
    let attempt = async {
        loop {
            match client.files_get(&agent(id), file).await {
                Err(error) if error.class() == ErrorClass::NotFound => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return result.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), attempt)
        .await
        .expect("the gateway takes up the new agent")
}

async fn the_handshake_grants_every_scope(fixture: &Fixture, expected: &Expected) {
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

async fn probing_learns_the_dialect(fixture: &Fixture, expected: &Expected) {
    let (client, _running) = fixture.client().await;
    assert_eq!(probe(&client).await.unwrap(), (expected.dialect)());
}

async fn a_fresh_config_holds_no_agent_of_ours(fixture: &Fixture, expected: &Expected) {
    let fresh = &fixture.fresh;
    assert!(fresh.hash.is_some() && !fresh.has_exec_host && fresh.ownership.is_none());
    let roster: Vec<_> = fresh.roster.iter().map(|entry| entry.id.as_str()).collect();
    match (expected.dialect)().roster {
        RosterShape::List => assert_eq!((fresh.shape, roster), (None, vec![])),
        RosterShape::Entries => assert_eq!((fresh.shape, roster), (Some(RosterShape::Entries), vec!["main"])),
    }
}

async fn one_patch_adds_agents_and_is_read_back(fixture: &Fixture, expected: &Expected) {
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

async fn refused_patches_say_why(fixture: &Fixture, _expected: &Expected) {
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

async fn too_many_patches_are_told_to_wait(fixture: &Fixture, _expected: &Expected) {
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

async fn files_are_set_listed_and_read_back(fixture: &Fixture, expected: &Expected) {
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

async fn a_file_that_somebody_else_changed_is_not_overwritten(fixture: &Fixture, expected: &Expected) {
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

async fn what_does_not_exist_is_told_apart(fixture: &Fixture, expected: &Expected) {
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
    assert_eq!(client.agents_delete(&nobody).await.map_err(class), Ok(false));
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

async fn sessions_are_labelled_reset_woken_once_and_removed(fixture: &Fixture, _expected: &Expected) {
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

async fn an_agent_is_removed_once(fixture: &Fixture, _expected: &Expected) {
    let (client, _running) = fixture.client().await;
    read(&client, "leaving", FileName::Agents).await;
    assert!(client.agents_delete(&agent("leaving")).await.unwrap());
    assert!(!client.agents_delete(&agent("leaving")).await.unwrap());
    assert!(client.config_get().await.unwrap().entry(&agent("leaving")).is_none());
}

async fn a_wrong_token_is_unauthorized(fixture: &Fixture, _expected: &Expected) {
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

async fn a_control_ui_needs_an_operator_who_disabled_pairing(fixture: &Fixture, _expected: &Expected) {
    let (_client, _running) = fixture.client().await;
    let error = connect(&control_ui(&fixture.gateway)).await.unwrap_err();
    assert_eq!(
        (error.class(), error.is_transient()),
        (ErrorClass::PairingRequired, false),
        "{error}"
    );
    assert!(error.to_string().contains("disable_device_pairing"), "{error}");
}

async fn tls_to_a_plain_gateway_fails_as_tls(fixture: &Fixture, _expected: &Expected) {
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

async fn a_restart_ends_the_connection_and_leaves_the_gateway_as_it_was(fixture: &Fixture, expected: &Expected) {
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

macro_rules! versions {
    ($($module:ident: $expected:expr;)+) => {$(
        mod $module {
            use super::{Expected, Fixture, OnceCell};

            const EXPECTED: Expected = $expected;
            static FIXTURE: OnceCell<Fixture> = OnceCell::const_new();

            versions!(@tests
                the_handshake_grants_every_scope
                probing_learns_the_dialect
                a_fresh_config_holds_no_agent_of_ours
                one_patch_adds_agents_and_is_read_back
                refused_patches_say_why
                too_many_patches_are_told_to_wait
                files_are_set_listed_and_read_back
                a_file_that_somebody_else_changed_is_not_overwritten
                what_does_not_exist_is_told_apart
                sessions_are_labelled_reset_woken_once_and_removed
                an_agent_is_removed_once
                a_wrong_token_is_unauthorized
                a_control_ui_needs_an_operator_who_disabled_pairing
                tls_to_a_plain_gateway_fails_as_tls
                a_restart_ends_the_connection_and_leaves_the_gateway_as_it_was
            );
        }
    )+};
    (@tests $($test:ident)+) => {$(
        #[tokio::test]
        async fn $test() {
            let fixture = FIXTURE.get_or_init(|| Fixture::start(&EXPECTED)).await;
            super::$test(fixture, &EXPECTED).await;
        }
    )+};
}

versions! {
    v2026_4_29: Expected {
        version: "2026.4.29",
        dialect: super::dialect_of_2026_4_29,
        hashes: false,
        control_ui_refused: None,
        tells_effect: false,
    };
    v2026_7_1: Expected {
        version: "2026.7.1",
        dialect: super::dialect_of_2026_7_1,
        hashes: false,
        control_ui_refused: None,
        tells_effect: true,
    };
    v2026_9_6: Expected {
        version: "2026.9.6",
        dialect: super::dialect_of_2026_9_6,
        hashes: true,
        control_ui_refused: Some(super::ErrorClass::PairingRequired),
        tells_effect: true,
    };
}

fn nowhere(url: impl Into<String>) -> Target {
    Target {
        gateway: GatewayId(uuid::Uuid::nil()),
        url: url.into(),
        token: None,
        disable_device_pairing: false,
        allow_insecure_tls: false,
    }
}

#[tokio::test]
async fn every_way_not_to_reach_a_gateway_has_its_own_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    for (url, class, transient) in [
        (String::new(), ErrorClass::NotConfigured, false),
        ("gateway.example".to_owned(), ErrorClass::InvalidUrl, false),
        (
            "ws://no-such-host.invalid:18789".to_owned(),
            ErrorClass::DnsFailed,
            true,
        ),
        (format!("ws://{closed}"), ErrorClass::ConnectionRefused, true),
    ] {
        let error = connect(&nowhere(url.clone())).await.unwrap_err();
        assert_eq!(
            (error.class(), error.is_transient()),
            (class, transient),
            "{url}: {error}"
        );
    }
}

#[tokio::test]
async fn a_web_server_is_no_gateway_and_a_bad_proxy_is_transient() {
    for (status, transient) in [
        ("404 Not Found", false),
        ("502 Bad Gateway", true),
        ("503 Service Unavailable", true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = connect(&nowhere(format!("ws://{address}"))).await.unwrap_err();
        assert_eq!(
            (error.class(), error.is_transient()),
            (ErrorClass::HandshakeFailed, transient),
            "{error}"
        );
        assert!(error.message().contains(status), "{error}");
        server.await.unwrap();
    }
}
