//! What `get unmanaged` shows, and a database that is new to a gateway that is not.

use openclaw_controller::model::{ConditionType, GatewayAgentId};
use openclaw_controller::sim::{SimDialect, SimGateway};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::process::command;
use crate::support::{Controller, Database, Options};
use crate::{Fleet, TOKEN, password};

/// The main agent of a gateway row that is not there any more.
const ORPHAN: &str = "mc-gateway-6b1f9d52-6a3e-4e0c-9f53-2f1f5a0d7c11";

/// Puts an agent on the gateway whose row is gone, and one that has the workspace of ours.
fn put_strangers(sim: &SimGateway, ours: &GatewayAgentId) {
    sim.edit_config(|config| {
        config["agents"] = json!({
            "ownership": "explicit",
            "entries": {
                "main": {},
                ORPHAN: { "name": "Old gateway", "workspace": "/elsewhere" },
                "copy": { "name": "Copy", "workspace": format!("/ws/workspace-{ours}") },
            },
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn get_unmanaged_lists_what_no_row_explains_and_writes_nothing() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    put_strangers(&fleet.sim, &GatewayAgentId::observed(fleet.gateway_agent()));

    // Before any controller ran: whoever adopts a gateway wants to know first.
    let table = command(&["get", "unmanaged"], &fleet.environment()).await;
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    for says in [
        "GATEWAY",
        "WHAT TO DO",
        ORPHAN,
        "Duplicate",
        "openclaw agents delete",
        "copy",
        "never touched",
    ] {
        assert!(table.stdout.contains(says), "{says:?} is not in\n{}", table.stdout);
    }
    assert!(!table.stdout.contains("/elsewhere"), "{}", table.stdout);
    let of_gateway = [
        "get",
        "unmanaged",
        "-o",
        "wide",
        "--gateway",
        &fleet.gateway.to_string(),
    ]
    .map(str::to_owned);
    let wide = command(&of_gateway.each_ref().map(String::as_str), &fleet.environment()).await;
    assert!(wide.stdout.contains("/elsewhere"), "{}", wide.stdout);
    assert_eq!(fleet.sim.writes(), 0);

    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.database.agent_ready(fleet.agent).await;
    controller.stop().await;
    fleet
        .database
        .execute(&format!("DELETE FROM agents WHERE id = '{}'", fleet.agent))
        .await;
    let writes = fleet.sim.writes();
    let got = command(&["get", "unmanaged", "-o", "json"], &fleet.environment()).await;
    let value: Value = serde_json::from_str(&got.stdout).unwrap();
    let items: Vec<_> = value["items"].as_array().unwrap().iter().collect();
    let listed: Vec<_> = items
        .iter()
        .map(|item| {
            (
                item["gatewayAgentId"].as_str().unwrap(),
                item["reason"].as_str().unwrap(),
            )
        })
        .collect();
    let ours = fleet.gateway_agent();
    let expected = [
        (ORPHAN, "Duplicate"),
        (&*ours, "Leftover"),
        ("copy", "Unmanaged"),
        ("main", "Unmanaged"),
    ];
    assert_eq!(listed, expected, "{}", got.stdout);
    assert_eq!(
        items[1]["message"]
            .as_str()
            .unwrap()
            .matches("whose row is gone")
            .count(),
        1
    );
    assert_eq!(items[0]["gatewayId"], fleet.gateway.to_string());
    assert_eq!(items[0]["gatewayName"], "Gateway");
    assert_eq!(value["errors"], json!([]));
    for secret in [TOKEN, &password(&fleet.database.url)] {
        assert!(!got.stdout.contains(secret) && !got.stderr.contains(secret));
    }
    assert_eq!(fleet.sim.writes(), writes, "looking writes nothing");

    let unknown = command(
        &["get", "unmanaged", "--gateway", &Uuid::nil().to_string()],
        &fleet.environment(),
    )
    .await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("get gateways"), "{}", unknown.stderr);

    // A gateway that cannot be asked: exit code 2, and what is known of it all the same.
    let Fleet { database, server, .. } = fleet;
    server.shutdown();
    let environment = [("DATABASE_URL", database.url.as_str())];
    let failed = command(&["get", "unmanaged", "-o", "json"], &environment).await;
    assert_eq!(failed.code, Some(2), "{}", failed.stdout);
    let value: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(value["items"][0]["gatewayAgentId"], *ours, "{value}");
    assert_eq!(value["errors"][0]["gatewayName"], "Gateway");
    let message = value["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("refused the connection"), "{message}");
    let failed = command(&["get", "unmanaged"], &environment).await;
    assert!(failed.stderr.contains("could not be asked"), "{}", failed.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_database_with_the_same_rows_adopts_the_gateway_without_a_write() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let first = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.database.agent_ready(fleet.agent).await;
    fleet.database.gateway_ready(fleet.gateway).await;
    first.stop().await;
    let (writes, config) = (fleet.sim.writes(), fleet.sim.config());

    let fresh = fleet.database.copy_of_rows().await;
    let options = Options {
        wake: true,
        ..Options::default()
    };
    let second = Controller::start(&fresh.url, options).await;
    fresh.agent_ready(fleet.agent).await;
    fresh.gateway_ready(fleet.gateway).await;
    assert!(
        fresh
            .gateway_conditions(fleet.gateway)
            .await
            .is_true(ConditionType::ConfigSynced)
    );
    assert!(
        second
            .metric("openclaw_controller_rpc_total", "method=\"config.get\"")
            .await
            > 0.0
    );
    second.stop().await;
    assert_eq!(fleet.sim.writes(), writes, "{:?}", fleet.sim.journal());
    assert_eq!(fleet.sim.config(), config);
}
