//! A real gateway that may not be restarted gets all that needs no restart, and is not restarted; what is foreseen is what comes.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a step that cannot go on has failed; these say where")]

mod support;

use std::fs;
use std::time::Duration;

use openclaw_controller::config::GatewayArgs;
use openclaw_controller::lab::{Options, RealGateway};
use openclaw_controller::model::{ConditionStatus, ConditionType};
use tokio::sync::Mutex;

use support::{Controller, Database, PATIENCE, eventually};

/// One gateway at a time: two of them and a controller are more than two cores can serve within anyone's deadline.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How often the gateway began to serve.
fn starts(gateway: &RealGateway) -> usize {
    let log = fs::read_to_string(gateway.log_path()).unwrap();
    log.lines().filter(|line| line.contains("[gateway] ready")).count()
}

fn options(restarts: u32) -> support::Options {
    support::Options {
        resync: Duration::from_secs(2),
        gateways: GatewayArgs {
            max_restarts_per_hour: restarts,
            ..GatewayArgs::default()
        },
        ..support::Options::default()
    }
}

/// First no restart is allowed, then one; `restarts`: how many the gateway needs.
async fn tell(version: &str, restarts: usize) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let gateway = RealGateway::start(version, Options::default()).await.unwrap();
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let root = gateway.workspace_root().display().to_string();
    let row = database
        .gateway(organization, &gateway.url(), gateway.token(), &root)
        .await;
    let board = database.board(organization, Some(row), "alpha").await;
    let agents = [
        database.agent(row, Some(board), "Wren", false).await,
        database.agent(row, None, "Gateway Agent", false).await,
    ];
    let begun = starts(&gateway);
    let controller = Controller::start(&database.url, options(0)).await;
    for agent in agents {
        database.agent_ready(agent).await;
    }
    if restarts > 0 {
        let told = database
            .gateway_condition(
                row,
                ConditionType::ConfigSynced,
                ConditionStatus::False,
                "RestartBudgetExhausted",
            )
            .await;
        assert!(told.message.contains("channels.defaults."), "{}", told.message);
    } else {
        database.gateway_ready(row).await;
    }
    let looks = async || controller.metric("controller_runtime_reconcile_total", "").await;
    let looked = looks().await;
    eventually("three resyncs", PATIENCE, async || {
        (looks().await >= looked + 9.0).then_some(())
    })
    .await;
    assert_eq!(starts(&gateway), begun, "{version} was not restarted");
    controller.stop().await;

    let controller = Controller::start(&database.url, options(1)).await;
    database.gateway_ready(row).await;
    for agent in agents {
        database.agent_ready(agent).await;
    }
    let count = async |name: &str| controller.metric(name, "").await;
    assert_eq!(
        starts(&gateway),
        begun + restarts,
        "{version} was restarted for its channels alone"
    );
    assert!((count("openclaw_controller_gateway_restarts_caused_total").await - restarts as f64).abs() < 0.1);
    assert!(
        count("openclaw_controller_restart_prediction_mismatches_total").await < 0.1,
        "{version}"
    );
    controller.stop().await;
}

/// Per version, whether it restarts for its channels.
mod a_gateway_that_may_not_be_restarted_gets_all_that_needs_no_restart {
    #[tokio::test(flavor = "multi_thread")]
    async fn on_2026_4_29() {
        super::tell("2026.4.29", 1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_2026_7_1() {
        super::tell("2026.7.1", 1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_2026_9_6() {
        super::tell("2026.9.6", 0).await;
    }
}
