//! What can be wrong with gateways.

use std::time::Duration;

use openclaw_controller::config::{GatewayArgs, LeadBoards};
use openclaw_controller::sim::{Fault, SimDialect};

use crate::fleet::{Fleet, TOKEN, refusal};
use crate::stage::Stage;
use crate::support::{Controller, Database, Options};

/// One controller, and a gateway for each trouble, all of them well at first.
pub(crate) async fn gateways_are_out_of_order(stage: &Stage) {
    const FLEET: &str = "gateways";
    let fleet = Fleet::new().await;
    let (away, locked, foreign, refusing, leaderless, left) = tokio::join!(
        fleet.place(),
        fleet.place(),
        fleet.place(),
        fleet.place(),
        fleet.place(),
        fleet.place(),
    );
    let renamed = fleet.agent_at(&refusing, "Wren").await;
    let forgotten = fleet.agent_at(&left, "Pascal").await;
    let options = Options {
        resync: Duration::from_secs(3),
        leads: Some(LeadBoards::Confirmed),
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    for place in [&away, &locked, &foreign, &refusing, &leaderless, &left] {
        fleet.database.gateway_ready(place.gateway).await;
    }
    for agent in [renamed, forgotten] {
        fleet.database.agent_ready(agent).await;
    }
    stage.watch(FLEET, "controller-0", controller.address).await;

    let unreachable = async {
        stage.quiet("OpenClawGatewayUnreachable", FLEET).await;
        away.sim.faults().refuse_connects();
        away.sim.cut_connections();
        stage.fires("OpenClawGatewayUnreachable", FLEET).await;
        away.sim.faults().clear();
        stage.resolves("OpenClawGatewayUnreachable", FLEET).await;
    };
    let unauthorized = async {
        stage.quiet("OpenClawGatewayUnauthorized", FLEET).await;
        fleet.set_gateway(locked.gateway, "token = 'wrong'").await;
        stage.fires("OpenClawGatewayUnauthorized", FLEET).await;
        fleet.set_gateway(locked.gateway, &format!("token = '{TOKEN}'")).await;
        stage.resolves("OpenClawGatewayUnauthorized", FLEET).await;
    };
    let incompatible = async {
        stage.quiet("OpenClawGatewayIncompatible", FLEET).await;
        foreign.sim.faults().always("connect", refusal("protocol mismatch"));
        foreign.sim.cut_connections();
        stage.fires("OpenClawGatewayIncompatible", FLEET).await;
        foreign.sim.faults().clear();
        stage.resolves("OpenClawGatewayIncompatible", FLEET).await;
    };
    let not_synced = async {
        stage.quiet("OpenClawGatewayConfigNotSynced", FLEET).await;
        refusing.sim.faults().always("config.patch", refusal("invalid config"));
        fleet.set_agent(renamed, "name = 'Ada'").await;
        stage.fires("OpenClawGatewayConfigNotSynced", FLEET).await;
        refusing.sim.faults().clear();
        stage.resolves("OpenClawGatewayConfigNotSynced", FLEET).await;
    };
    let no_leads = async {
        stage.quiet("OpenClawGatewayLeadsMissing", FLEET).await;
        // The board and what makes its lead impossible come together.
        let board = uuid::Uuid::new_v4();
        fleet
            .database
            .execute(&format!(
                "BEGIN;
                 INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, goal_confirmed, description,
                     max_agents, created_at, updated_at)
                 VALUES ('{board}', '{}', 'odd', 'odd', '{}', 'general', false, 'A board.', 5, now(), now());
                 INSERT INTO openclaw_controller.board_settings (board_id, lead_identity) VALUES ('{board}', '\"captain\"');
                 COMMIT",
                fleet.organization, leaderless.gateway
            ))
            .await;
        stage.fires("OpenClawGatewayLeadsMissing", FLEET).await;
        fleet
            .database
            .execute("DELETE FROM openclaw_controller.board_settings")
            .await;
        stage.resolves("OpenClawGatewayLeadsMissing", FLEET).await;
    };
    let leftovers = async {
        stage.quiet("OpenClawGatewayLeftovers", FLEET).await;
        fleet
            .database
            .execute(&format!(
                "CREATE TABLE public.kept AS SELECT * FROM agents WHERE id = '{forgotten}';
                 DELETE FROM agents WHERE id = '{forgotten}'"
            ))
            .await;
        stage.fires("OpenClawGatewayLeftovers", FLEET).await;
        fleet
            .database
            .execute("INSERT INTO agents SELECT * FROM public.kept")
            .await;
        stage.resolves("OpenClawGatewayLeftovers", FLEET).await;
    };
    tokio::join!(unreachable, unauthorized, incompatible, not_synced, no_leads, leftovers);
    controller.stop().await;
}

/// A setting that only a restart brings in is taken out again and again.
pub(crate) async fn a_gateway_is_restarted_too_often(stage: &Stage) {
    const FLEET: &str = "restarts";
    let database = Database::migrated().await;
    let controller = Controller::start(&database.url, restarting_at_most(1000)).await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.quiet("OpenClawGatewayRestarts", FLEET).await;
    let fleet = Fleet::on(database, SimDialect::V2026_4_29).await;
    fleet.ready_agent("Wren").await;
    let mut edits = 0;
    stage
        .fires_while("OpenClawGatewayRestarts", FLEET, async || {
            let sim = &fleet.place.sim;
            if !sim.is_down() && sim.config()["channels"]["defaults"]["heartbeat"].is_object() {
                sim.edit_config(|config| config["channels"] = serde_json::json!({}));
                // What was undone before the row's newest word is no fight.
                edits += 1;
                fleet
                    .set_gateway(fleet.place.gateway, &format!("name = 'Gateway {edits}'"))
                    .await;
            }
        })
        .await;
    stage.resolves("OpenClawGatewayRestarts", FLEET).await;
    controller.stop().await;
}

/// A setting that only a restart brings in, and no restart is allowed.
pub(crate) async fn a_gateway_may_not_be_restarted(stage: &Stage) {
    const FLEET: &str = "budget";
    const ALERT: &str = "OpenClawRestartBudgetExhausted";
    let database = Database::migrated().await;
    let controller = Controller::start(&database.url, restarting_at_most(0)).await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.quiet(ALERT, FLEET).await;
    let fleet = Fleet::on(database, SimDialect::V2026_4_29).await;
    fleet.agent("Wren").await;
    stage.fires(ALERT, FLEET).await;
    // It is allowed now.
    controller.stop().await;
    let controller = Controller::start(&fleet.database.url, restarting_at_most(4)).await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    fleet.database.gateway_ready(fleet.place.gateway).await;
    stage.resolves(ALERT, FLEET).await;
    controller.stop().await;
}

fn restarting_at_most(max_restarts_per_hour: u32) -> Options {
    Options {
        gateways: GatewayArgs {
            max_restarts_per_hour,
            ..GatewayArgs::default()
        },
        ..Options::default()
    }
}

/// A gateway writes no file: looks fail, calls fail, and tokens cannot be replaced.
pub(crate) async fn a_gateway_writes_no_files(stage: &Stage) {
    const FLEET: &str = "files";
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let (first, second) = (fleet.ready_agent("Wren").await, fleet.ready_agent("Pascal").await);
    stage.watch(FLEET, "controller-0", controller.address).await;
    let alerts = [
        "OpenClawTokenRotationsFail",
        "OpenClawGatewayCallsFail",
        "OpenClawReconcileErrors",
    ];
    for alert in alerts {
        stage.quiet(alert, FLEET).await;
    }
    let full = Fault::Error {
        code: "UNAVAILABLE".into(),
        message: "no space left on device".into(),
        retry_after_ms: None,
    };
    fleet.place.sim.faults().always("agents.files.set", full);
    for alert in alerts {
        stage
            .fires_while(alert, FLEET, async || {
                // Asked for anew, so that the backoff does not grow longer than what is looked at.
                for agent in [first, second] {
                    fleet.rotate(agent).await;
                }
            })
            .await;
    }
    fleet.place.sim.faults().clear();
    for alert in alerts {
        stage.resolves(alert, FLEET).await;
    }
    controller.stop().await;
}
