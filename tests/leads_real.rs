//! A board without a lead gets one on real gateways, and all that a lead has.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that cannot go on has failed; these say where"
)]

mod support;

use openclaw_controller::config::LeadBoards;
use openclaw_controller::lab::{self, RealGateway};
use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::Mutex;

use support::{Controller, Database, Options, PATIENCE, eventually};

/// One gateway at a time: two of them and a controller are more than two cores can serve within anyone's deadline.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_4_29_boards_without_a_lead_get_one_each_by_one_patch_and_it_is_woken() {
    tell("2026.4.29", "TOOLS.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_9_6_boards_without_a_lead_get_one_each_by_one_patch_and_it_is_woken() {
    tell("2026.9.6", "AGENTS.md").await;
}

async fn tell(version: &str, token_file: &str) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let gateway = RealGateway::start(version, lab::Options::default()).await.unwrap();
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let root = gateway.workspace_root().display().to_string();
    let row = database
        .gateway(organization, &gateway.url(), gateway.token(), &root)
        .await;
    let boards = [
        database.board(organization, Some(row), "alpha").await,
        database.board(organization, Some(row), "beta").await,
    ];
    // A goal that nobody has confirmed yet.
    let goal = database.board(organization, Some(row), "gamma").await;
    database
        .execute(&format!(
            "UPDATE boards SET board_type = 'goal' WHERE id = '{goal}';
             INSERT INTO openclaw_controller.board_settings (board_id, lead_name, lead_identity)
             VALUES ('{}', 'Marlow', '{{\"role\": \"Captain\"}}')",
            boards[1]
        ))
        .await;
    let wren = database.agent(row, Some(boards[0]), "Wren", false).await;
    let start = async || {
        let options = Options {
            wake: true,
            // As it is if nobody says anything: those that are confirmed.
            leads: None::<LeadBoards>,
            ..Options::default()
        };
        Controller::start(&database.url, options).await
    };
    let controller = start().await;
    for (board, name, role) in [
        (boards[0], "Lead Agent", "Board Lead"),
        (boards[1], "Marlow", "Captain"),
    ] {
        let lead = lead_of(&database, board.to_string()).await;
        // Woken: its session took the message, and its check-in is awaited.
        let awaiting = ConditionStatus::Unknown;
        database
            .agent_condition(lead, ConditionType::CheckedIn, awaiting, "AwaitingCheckIn")
            .await;
        database.agent_ready(lead).await;
        let slug = format!("lead-{board}");
        let read = |file: &str| gateway.read_file(&slug, file).unwrap().unwrap_or_default();
        assert!(read("IDENTITY.md").contains(role), "{}", read("IDENTITY.md"));
        assert!(read("SOUL.md").contains(name), "{}", read("SOUL.md"));
        // Not BOOTSTRAP.md: both versions remove it themselves when the first run of such an agent begins.
        let text = read(token_file);
        let found = token::extract(&text);
        let [token] = found.tokens() else {
            panic!("{} tokens in {token_file}", found.tokens().len())
        };
        let hash = database
            .text(&format!("SELECT agent_token_hash FROM agents WHERE id = '{lead}'"))
            .await
            .unwrap();
        let given = token.expose_secret().to_owned();
        let verified = tokio::task::spawn_blocking(move || token::verify(&given, &hash) == Ok(true));
        assert!(verified.await.unwrap(), "the lead's token belongs to its hash");
        let shown = database
            .text(&format!(
                "SELECT concat_ws(' ', name, status, openclaw_session_id, lifecycle_generation, wake_attempts) FROM agents
                  WHERE id = '{lead}'"
            ))
            .await;
        assert_eq!(shown, Some(format!("{name} online agent:{slug}:main 0 1")));
        check_in(&database, lead).await;
        database
            .agent_condition(lead, ConditionType::CheckedIn, ConditionStatus::True, "CheckedIn")
            .await;
    }
    check_in(&database, wren).await;
    database.agent_ready(wren).await;
    database.gateway_ready(row).await;
    let calls = async |controller: &Controller, method: &str| {
        let labels = format!("method=\"{method}\"");
        controller.metric("openclaw_controller_rpc_total", &labels).await
    };
    let patches = calls(&controller, "config.patch").await;
    assert!((patches - 1.0).abs() < 0.1, "{patches} patches: one for all");
    assert_eq!(leads(&database).await, "2");
    let config = gateway.config().unwrap();
    assert!(!config["agents"].to_string().contains(&goal.to_string()), "{config}");

    // Its goal is confirmed: found at once, without a resync.
    database
        .execute(&format!("UPDATE boards SET goal_confirmed = true WHERE id = '{goal}'"))
        .await;
    let late = lead_of(&database, goal.to_string()).await;
    database
        .agent_condition(
            late,
            ConditionType::CheckedIn,
            ConditionStatus::Unknown,
            "AwaitingCheckIn",
        )
        .await;
    check_in(&database, late).await;
    database
        .agent_condition(late, ConditionType::CheckedIn, ConditionStatus::True, "CheckedIn")
        .await;
    database.agent_ready(late).await;
    let roster = roster(&gateway.config().unwrap());
    assert!(roster.contains(&format!("lead-{goal}")), "{roster:?}");
    controller.stop().await;

    // Another controller finds nothing to do.
    let controller = start().await;
    database.gateway_ready(row).await;
    eventually("everything was looked at", PATIENCE, async || {
        (calls(&controller, "agents.files.list").await > 3.5).then_some(())
    })
    .await;
    for method in ["config.patch", "agents.files.set", "chat.send"] {
        let count = calls(&controller, method).await;
        assert!(count.abs() < 0.1, "{count} calls of {method}");
    }
    assert_eq!(leads(&database).await, "3");
    controller.stop().await;
    gateway.stop().await.unwrap();
}

/// Waits for the lead of a board.
async fn lead_of(database: &Database, board: String) -> AgentId {
    eventually(&format!("board {board} has a lead"), PATIENCE, async || {
        let sql = format!("SELECT id FROM agents WHERE is_board_lead AND board_id = '{board}'");
        let id = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_optional(&database.pool)
            .await
            .unwrap();
        id.map(AgentId)
    })
    .await
}

async fn leads(database: &Database) -> String {
    let sql = "SELECT count(*)::text FROM agents WHERE is_board_lead";
    database.text(sql).await.unwrap()
}

/// As a backend records a heartbeat.
async fn check_in(database: &Database, agent: AgentId) {
    database
        .execute(&format!(
            "UPDATE agents SET last_seen_at = clock_timestamp() AT TIME ZONE 'utc', status = 'online', wake_attempts = 0,
                    checkin_deadline_at = NULL, last_provision_error = NULL WHERE id = '{agent}'"
        ))
        .await;
}

/// The ids in a gateway's config.
fn roster(config: &Value) -> Vec<String> {
    let agents = &config["agents"];
    match (agents["entries"].as_object(), agents["list"].as_array()) {
        (Some(entries), _) => entries.keys().cloned().collect(),
        (None, Some(list)) => list
            .iter()
            .filter_map(|entry| entry["id"].as_str().map(ToOwned::to_owned))
            .collect(),
        (None, None) => Vec::new(),
    }
}
