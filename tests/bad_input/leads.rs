//! Leads that cannot be made.

use openclaw_controller::config::LeadBoards;
use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};

use ConditionStatus::{False, True};
use ConditionType::{LeadsEnsured, MainAgent, Ready};

use crate::Fleet;
use crate::support::{Controller, Options, PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_their_tables_refuse_is_told_on_its_gateway_and_made_once_they_take_it() {
    let fleet = Fleet::new().await;
    let database = &fleet.database;
    let beside = fleet.agent("Wren", "").await;
    let main = database.agent(fleet.gateway, None, "main", false).await;
    // A column that we know nothing of.
    database
        .execute(
            "ALTER TABLE agents ADD COLUMN colour text; UPDATE agents SET colour = 'red';
             ALTER TABLE agents ALTER COLUMN colour SET NOT NULL",
        )
        .await;
    // A board whose lead cannot be made for want of an object, at the same time.
    let odd = database.board(fleet.organization, Some(fleet.gateway), "odd").await;
    database
        .execute(&format!(
            "INSERT INTO openclaw_controller.board_settings (board_id, lead_identity) VALUES ('{odd}', '\"captain\"')"
        ))
        .await;
    let options = Options {
        leads: Some(LeadBoards::Confirmed),
        ..Options::default()
    };
    let controller = Controller::start(&database.url, options).await;
    let condition = database
        .gateway_condition(fleet.gateway, LeadsEnsured, False, "LeadNotCreated")
        .await;
    for says in ["board_settings.lead_identity", &odd.to_string(), "colour"] {
        assert!(condition.message.contains(says), "{says:?}: {}", condition.message);
    }
    database
        .gateway_condition(fleet.gateway, Ready, False, "LeadNotCreated")
        .await;
    database
        .gateway_condition(fleet.gateway, MainAgent, True, "RecordFound")
        .await;
    // Everybody else has what they need.
    for agent in [beside, main] {
        database.agent_ready(agent).await;
    }
    database.execute("DELETE FROM openclaw_controller.board_settings").await;
    let refused = eventually("the refusal is told", PATIENCE, async || {
        let conditions = database.gateway_conditions(fleet.gateway).await;
        let found = conditions.get(LeadsEnsured)?.clone();
        found.message.contains("colour").then_some(found)
    })
    .await;
    assert!(
        refused.message.contains(&fleet.board.to_string()),
        "{}",
        refused.message
    );
    assert!(refused.message.contains("23502"), "{}", refused.message);
    let event = "SELECT string_agg(kind || ' ' || message, E'\\n') FROM openclaw_controller.events WHERE reason = 'LeadNotCreated'";
    eventually("an event tells it too", PATIENCE, async || {
        database.text(event).await.filter(|told| told.contains("Warning"))
    })
    .await;

    database.execute("ALTER TABLE agents DROP COLUMN colour").await;
    database
        .gateway_condition(fleet.gateway, LeadsEnsured, True, "EveryBoardHasOne")
        .await;
    database.gateway_ready(fleet.gateway).await;
    for board in [fleet.board, odd] {
        let sql = format!("SELECT id::text FROM agents WHERE is_board_lead AND board_id = '{board}'");
        let lead = AgentId(database.text(&sql).await.unwrap().parse().unwrap());
        database.agent_ready(lead).await;
    }
    fleet.goes_on(&controller).await;
    controller.stop().await;
}
