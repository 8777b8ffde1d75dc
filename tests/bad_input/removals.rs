//! Removals that are requested where they cannot be carried out.

use std::collections::HashMap;

use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};
use openclaw_controller::sim::Fault;
use openclaw_controller::token;
use secrecy::ExposeSecret;

use ConditionStatus::{False, True};
use ConditionType::{Deleted, Reachable};

use crate::support::{Controller, Options, PATIENCE, eventually};
use crate::{Fleet, Gateway, TOKEN};

const REQUEST: &str = "delete_requested_at = now() AT TIME ZONE 'UTC'";

/// The status of a check-in with the token in this agent's file.
async fn check_in(controller: &Controller, secret: &str) -> u16 {
    let answer = post(controller, secret).await;
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default()
}

/// One request over a connection of its own; its answer's first line.
async fn post(controller: &Controller, secret: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(controller.address).await.unwrap();
    let request = format!(
        "POST /api/v1/agent/heartbeat HTTP/1.1\r\nHost: x\r\nX-Agent-Token: {secret}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The token in an agent's file.
fn secret(gateway: &Gateway, agent: AgentId) -> String {
    let text = gateway.sim.file(&format!("mc-{agent}"), "AGENTS.md").unwrap();
    token::extract(&text).tokens()[0].expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_waits_for_a_gateway_that_is_away_or_whose_row_is_wrong() {
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let (away, wrong) = (Gateway::start().await, Gateway::start().await);
    let mut agents = HashMap::new();
    for (name, gateway) in [("away", &away), ("wrong", &wrong)] {
        let (id, agent) = fleet.gateway(&gateway.server.url(), TOKEN).await;
        fleet.database.agent_ready(agent).await;
        agents.insert(name, (id, agent, secret(gateway, agent)));
    }
    let goes = fleet.agent("Goes", "").await;
    fleet.database.agent_ready(goes).await;

    away.sim.faults().refuse_connects();
    away.sim.cut_connections();
    fleet.set_gateway(agents["wrong"].0, "url = 'ws://127.0.0.1:1'").await;
    for (id, ..) in agents.values() {
        let told = async || {
            fleet
                .database
                .gateway_conditions(*id)
                .await
                .get(Reachable)?
                .status
                .eq(&False)
                .then_some(())
        };
        eventually("the gateway is away", PATIENCE, told).await;
    }
    for agent in agents.values().map(|(_, agent, _)| *agent).chain([goes]) {
        fleet.set_agent(agent, REQUEST).await;
    }
    // Nobody waits for those that cannot be removed.
    fleet.database.agent_condition(goes, Deleted, True, "Deleted").await;
    fleet.goes_on(&controller).await;
    for (_, agent, secret) in agents.values() {
        fleet.database.agent_condition(*agent, Deleted, False, "Deleting").await;
        assert_eq!(check_in(&controller, secret).await, 200, "the agent is there");
    }

    away.sim.faults().clear();
    fleet
        .set_gateway(agents["wrong"].0, &format!("url = '{}'", wrong.server.url()))
        .await;
    for ((_, agent, secret), gateway) in [(&agents["away"], &away), (&agents["wrong"], &wrong)] {
        fleet.database.agent_condition(*agent, Deleted, True, "Deleted").await;
        assert!(!gateway.sim.roster().contains(&format!("mc-{agent}")));
        assert_eq!(
            check_in(&controller, secret).await,
            401,
            "a deleted agent's token is nobody's"
        );
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_removal_is_told_on_its_agent_and_holds_up_nobody() {
    let fleet = Fleet::new().await;
    let refused = fleet.agent("Refused", "").await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.database.agent_ready(refused).await;
    let refusal = Fault::Error {
        code: "INVALID_REQUEST".into(),
        message: "it owns inherited credentials and cannot be deleted".into(),
        retry_after_ms: None,
    };
    fleet.good.sim.faults().always("agents.delete", refusal);
    fleet.set_agent(refused, REQUEST).await;
    let told = fleet
        .database
        .agent_condition(refused, Deleted, False, "DeleteRejected")
        .await;
    assert!(told.message.contains("inherited credentials"), "{}", told.message);
    fleet.database.gateway_ready(fleet.gateway).await;
    fleet.good.sim.faults().clear();
    // The next agent changes the config, which is when the gateway is asked again.
    fleet.goes_on(&controller).await;
    fleet.database.agent_condition(refused, Deleted, True, "Deleted").await;
    controller.stop().await;
}
