//! Waking on real gateways: one message, and a check-in that is found at once.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a step that cannot go on has failed; these say where"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use openclaw_controller::gateway::{Client, Connector, DeviceIdentity, RpcMetrics, Target, WebSocketConnector};
use openclaw_controller::lab::{self, RealGateway};
use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType, GatewayId, SyncOptions};
use openclaw_controller::store::{PgOptions, PgStore, SyncStore};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use support::{Controller, Database, Options, PATIENCE, eventually};

/// One gateway at a time: two of them and a controller are more than two cores can serve within anyone's deadline.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How long the news of a check-in may take to be acted on, on a gateway that a run keeps busy; a resync comes after ten
/// minutes.
const AT_ONCE: Duration = Duration::from_mins(1);

/// How long an old gateway may be kept from answering by a run.
const BUSY: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_4_29_a_new_agent_gets_one_message_and_its_heartbeat_ends_the_deadline() {
    tell("2026.4.29", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_9_6_a_new_agent_gets_one_message_and_its_heartbeat_ends_the_deadline() {
    tell("2026.9.6", true).await;
}

/// An old gateway answers nobody for up to a minute while agents without credentials begin to run, so this is where a sync and
/// wakes are most in each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn on_2026_4_29_a_sync_beside_wakes_gives_everybody_a_new_token_and_all_are_woken_after_it() {
    const AGENTS: u32 = 4;
    let _turn = ONE_AT_A_TIME.lock().await;
    let gateway = RealGateway::start("2026.4.29", lab::Options::default()).await.unwrap();
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let root = gateway.workspace_root().display().to_string();
    let row = database
        .gateway(organization, &gateway.url(), gateway.token(), &root)
        .await;
    let board = database.board(organization, Some(row), "alpha").await;
    let mut agents = vec![database.agent(row, None, "Gatekeeper", false).await];
    for place in 1..AGENTS {
        let name = format!("Agent {place}");
        agents.push(database.agent(row, Some(board), &name, place == 1).await);
    }
    let options = Options {
        wake: true,
        ..Options::default()
    };
    let controller = Controller::start(&database.url, options).await;
    for agent in &agents {
        database.agent_ready(*agent).await;
    }
    let hashes = format!("SELECT string_agg(agent_token_hash, ' ' ORDER BY id) FROM agents WHERE gateway_id = '{row}'");
    let before = database.text(&hashes).await.unwrap();

    let store = PgStore::connect(&database.url.clone().into(), PgOptions::default())
        .await
        .unwrap();
    let options = SyncOptions {
        rotate_tokens: true,
        ..SyncOptions::default()
    };
    let begin = Instant::now();
    let sync = store.request_sync(row, &options).await.unwrap();
    let result = eventually("the sync ends", options.time_limit(), async || {
        store.sync_progress(sync).await.unwrap().unwrap().result
    })
    .await;
    eprintln!("2026.4.29: a sync beside wakes took {:?}", begin.elapsed());
    assert_eq!(result.errors, []);
    assert_eq!(
        (result.agents_updated, result.agents_skipped, result.main_updated),
        (3, 0, true)
    );
    let after = database.text(&hashes).await.unwrap();
    let replaced = before.split(' ').zip(after.split(' ')).filter(|(old, new)| old != new);
    assert_eq!(replaced.count(), agents.len());
    // Whoever had no turn before the sync has one after it.
    let unwoken = format!("SELECT count(*)::text FROM agents WHERE gateway_id = '{row}' AND last_wake_sent_at IS NULL");
    eventually("everybody is woken", PATIENCE, async || {
        (database.text(&unwoken).await.as_deref() == Some("0")).then_some(())
    })
    .await;
    controller.stop().await;
    store.close().await;
    gateway.stop().await.unwrap();
}

/// `keeps_messages`: whether a history holds the messages of runs that failed, and not only how they ended.
async fn tell(version: &str, keeps_messages: bool) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let gateway = RealGateway::start(version, lab::Options::default()).await.unwrap();
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let root = gateway.workspace_root().display().to_string();
    let row = database
        .gateway(organization, &gateway.url(), gateway.token(), &root)
        .await;
    let board = database.board(organization, Some(row), "alpha").await;
    let wren = database.agent(row, Some(board), "Wren", false).await;
    let options = Options {
        wake: true,
        ..Options::default()
    };
    let controller = Controller::start(&database.url, options).await;
    let awaiting = (ConditionStatus::Unknown, "AwaitingCheckIn");
    let waiting = database
        .agent_condition(wren, ConditionType::CheckedIn, awaiting.0, awaiting.1)
        .await;
    assert!(waiting.message.contains("1 of 3"), "{}", waiting.message);
    eventually("the row shows the wake", PATIENCE, async || {
        let shown = database
            .text(&format!(
                "SELECT concat_ws(' ', status, wake_attempts, checkin_deadline_at - last_wake_sent_at) FROM agents
                  WHERE id = '{wren}'"
            ))
            .await;
        (shown.as_deref() == Some("online 1 00:00:30")).then_some(())
    })
    .await;

    // As that backend writes it.
    database
        .execute(&format!(
            "UPDATE agents SET last_seen_at = clock_timestamp() AT TIME ZONE 'utc', status = 'online', wake_attempts = 0,
                    checkin_deadline_at = NULL, last_provision_error = NULL, updated_at = clock_timestamp() AT TIME ZONE 'utc'
              WHERE id = '{wren}'"
        ))
        .await;
    let checked_in = Instant::now();
    database
        .agent_condition(wren, ConditionType::CheckedIn, ConditionStatus::True, "CheckedIn")
        .await;
    let took = checked_in.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    eprintln!("{version}: a check-in was found within {took:?}");
    database.agent_ready(wren).await;

    let client = connect(&gateway).await;
    let key = format!("agent:mc-{wren}:main");
    heard(&client, &key, wren, 1, keeps_messages).await;
    let sessions = client.request("sessions.list", json!({}), BUSY).await.unwrap();
    let all = sessions["sessions"].as_array().unwrap();
    let session = all.iter().find(|session| session["key"] == key.as_str()).unwrap();
    assert!(
        session["label"] == "Wren" || session["displayName"] == "Wren",
        "{session}"
    );

    // Its row changes: one more, and nothing is repeated.
    database
        .execute(&format!(
            "UPDATE agents SET soul_template = 'Another soul.' WHERE id = '{wren}'"
        ))
        .await;
    database
        .agent_condition(wren, ConditionType::CheckedIn, awaiting.0, awaiting.1)
        .await;
    heard(&client, &key, wren, 2, keeps_messages).await;
    controller.stop().await;
    gateway.stop().await.unwrap();
}

/// Waits until the agent's history tells of that many runs that have ended, for want of credentials; there must be no more of
/// them, and one message of ours for each.
async fn heard(client: &Client, key: &str, agent: AgentId, times: usize, keeps_messages: bool) {
    let history = eventually(&format!("agent {agent} has had {times} runs"), PATIENCE, async || {
        let history = client
            .request("chat.history", json!({ "sessionKey": key }), BUSY)
            .await
            .ok()?;
        (count(&history, &["before reply", "before a reply"]) >= times).then_some(history)
    })
    .await;
    assert_eq!(count(&history, &["before reply", "before a reply"]), times, "{history}");
    if keeps_messages {
        assert_eq!(count(&history, &["Your workspace has been"]), times, "{history}");
        let updates = count(&history, &["Your workspace has been updated"]);
        assert_eq!(updates, times - 1, "{history}");
    }
}

/// How many messages of a history hold one of these texts.
fn count(history: &Value, texts: &[&str]) -> usize {
    let messages = history["messages"].as_array().expect("a history has messages");
    messages
        .iter()
        .map(ToString::to_string)
        .filter(|message| texts.iter().any(|text| message.contains(text)))
        .count()
}

async fn connect(gateway: &RealGateway) -> Client {
    let target = Target {
        gateway: GatewayId(uuid::Uuid::nil()),
        url: gateway.url(),
        token: Some(gateway.token().into()),
        disable_device_pairing: false,
        allow_insecure_tls: false,
    };
    eventually("the gateway lets us in", PATIENCE, async || {
        let identity = Arc::new(DeviceIdentity::generate());
        let connector = WebSocketConnector::new(identity, RpcMetrics::unregistered());
        connector.connect(&target).await.ok()
    })
    .await
}
