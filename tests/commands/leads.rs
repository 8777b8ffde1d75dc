//! Leads that nobody made: `--ensure-leads`, its default beside an existing installation, `diff` and `get boards`.

use openclaw_controller::config::LeadBoards;
use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};
use openclaw_controller::sim::SimDialect;
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::Fleet;
use crate::support::process::bare_command;
use crate::support::{Controller, Database, Options, PATIENCE, eventually};

const EXISTING: &str = include_str!("../existing_installation.sql");

async fn leads(fleet: &Fleet) -> String {
    let sql = "SELECT count(*)::text FROM agents WHERE is_board_lead";
    fleet.database.text(sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_shows_the_leads_that_would_be_made_and_get_boards_those_that_are_there() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let id = format!("lead-{}", fleet.board);
    let env = fleet.environment();
    let default = bare_command(&["diff", "--base-url", "http://mission.test"], &env).await;
    assert_eq!(default.code, Some(1), "{default:?}");
    let shown = format!(
        "+ lead of board {} (Board): a row \"Lead Agent\", then {id}",
        fleet.board
    );
    let entry = format!("+ agent {id} \"Lead Agent\"");
    for says in [&shown, &entry] {
        assert!(default.stdout.contains(says), "{says:?} is not in\n{}", default.stdout);
    }
    let none = bare_command(&["diff", "--ensure-leads", "none"], &env).await;
    assert!(!none.stdout.contains(&id), "{}", none.stdout);
    // A goal that nobody has confirmed.
    let goal = format!("UPDATE boards SET board_type = 'goal' WHERE id = '{}'", fleet.board);
    fleet.database.execute(&goal).await;
    for (ensure, there) in [("confirmed", false), ("all", true)] {
        let environment = [env[0], ("OPENCLAW_CONTROLLER_ENSURE_LEADS", ensure)];
        let diff = bare_command(&["diff", "-o", "json"], &environment).await;
        let value: Value = serde_json::from_str(&diff.stdout).unwrap();
        assert_eq!(
            value[0]["leads"].as_array().unwrap().len(),
            usize::from(there),
            "{ensure}"
        );
        if there {
            assert_eq!(value[0]["leads"][0]["board"], json!(fleet.board));
            assert_eq!(value[0]["leads"][0]["identity"]["role"], "Board Lead");
        }
    }
    let wrong = bare_command(&["diff", "--ensure-leads", "some"], &env).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("confirmed, all, none"), "{}", wrong.stderr);
    assert_eq!(leads(&fleet).await, "0", "a dry run made a row");
    assert_eq!(fleet.sim.writes(), 0, "a dry run wrote something");

    let listed = bare_command(&["get", "boards", "-o", "json"], &env).await;
    let board: Value = serde_json::from_str(&listed.stdout).unwrap();
    let board = &board["items"][0];
    assert_eq!(
        (&board["leadId"], &board["qualifiesForLead"]),
        (&Value::Null, &json!(false))
    );

    let options = Options {
        leads: Some(LeadBoards::All),
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    eventually("the board has a lead", PATIENCE, async || {
        (leads(&fleet).await == "1").then_some(())
    })
    .await;
    let lead = fleet
        .database
        .text("SELECT id::text FROM agents WHERE is_board_lead")
        .await;
    let lead = lead.unwrap();
    fleet.database.agent_ready(AgentId(lead.parse().unwrap())).await;
    fleet.database.agent_ready(fleet.agent).await;
    fleet.database.gateway_ready(fleet.gateway).await;
    controller.stop().await;
    let patches = fleet
        .sim
        .journal()
        .iter()
        .filter(|entry| entry.method == "config.patch")
        .count();
    assert_eq!(patches, 1, "one patch for all");

    fleet
        .database
        .execute(&format!(
            "UPDATE boards SET goal_confirmed = true WHERE id = '{}'",
            fleet.board
        ))
        .await;
    let after = bare_command(
        &["diff", "--base-url", "http://mission.test", "--ensure-leads", "all"],
        &env,
    )
    .await;
    assert_eq!(after.code, Some(1), "{after:?}");
    assert!(!after.stdout.contains("lead of board"), "{}", after.stdout);
    let listed = bare_command(&["get", "boards", "-o", "json"], &env).await;
    let board: Value = serde_json::from_str(&listed.stdout).unwrap();
    let board = &board["items"][0];
    assert_eq!(
        (&board["leadId"], &board["qualifiesForLead"]),
        (&json!(lead), &json!(true))
    );
    let wide = bare_command(&["get", "boards", "-o", "wide"], &env).await;
    assert!(wide.stdout.contains("QUALIFIES"), "{}", wide.stdout);
    assert!(wide.stdout.contains("Lead Agent"), "{}", wide.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_existing_installation_no_lead_is_made_unless_somebody_says_so() {
    let database = Database::empty().await;
    database.execute(EXISTING).await;
    let fleet = Fleet::on(database, SimDialect::V2026_7_1).await;
    let migrated = bare_command(&["migrate"], &fleet.environment()).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let gateway = fleet.gateway.to_string();
    let diff = bare_command(&["diff", "--gateway", &gateway], &fleet.environment()).await;
    assert!(!diff.stdout.contains("lead of board"), "{}", diff.stdout);

    let with = |leads: Option<LeadBoards>| Options {
        leads,
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, with(None)).await;
    fleet.database.gateway_ready(fleet.gateway).await;
    fleet.database.agent_ready(fleet.agent).await;
    controller.stop().await;
    assert_eq!(leads(&fleet).await, "0");
    let conditions = fleet.database.gateway_conditions(fleet.gateway).await;
    assert!(conditions.get(ConditionType::LeadsEnsured).is_none(), "{conditions:?}");

    // Asked for, it is made as their tables want it, and its token is one that their backend can verify.
    let controller = Controller::start(&fleet.database.url, with(Some(LeadBoards::Confirmed))).await;
    fleet
        .database
        .gateway_condition(
            fleet.gateway,
            ConditionType::LeadsEnsured,
            ConditionStatus::True,
            "EveryBoardHasOne",
        )
        .await;
    let lead = fleet
        .database
        .text("SELECT id::text FROM agents WHERE is_board_lead")
        .await;
    let lead = AgentId(lead.unwrap().parse().unwrap());
    fleet.database.agent_ready(lead).await;
    let hash = format!("SELECT agent_token_hash FROM agents WHERE id = '{lead}'");
    let hash = fleet.database.text(&hash).await.unwrap();
    assert!(hash.starts_with("pbkdf2_sha256$200000$"), "{hash}");
    let text = fleet.sim.file(&format!("lead-{}", fleet.board), "TOOLS.md").unwrap();
    let token = token::extract(&text).tokens()[0].expose_secret().to_owned();
    assert_eq!(token::verify(&token, &hash), Ok(true));
    assert_eq!(
        leads(&fleet).await,
        "1",
        "their own board is paused and cannot be reached"
    );
    controller.stop().await;
}
