//! From an empty database and a file to agents on a gateway, and from an edited file to their files.

use std::time::Duration;

use openclaw_controller::model::AgentId;
use openclaw_controller::sim::{SimDialect, SimGateway};

use crate::support::contract::Watch;
use crate::support::process::Process;
use crate::support::{PATIENCE, eventually};
use crate::{Desk, EXAMPLE};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_an_empty_database_makes_a_gateway_converge_and_follow_its_edits() {
    let desk = Desk::new().await;
    let sim = SimGateway::new(SimDialect::V2026_7_1, "the-token-of-the-quay");
    let _watch = Watch::simulated(&sim);
    let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let yaml = EXAMPLE.replace("ws://127.0.0.1:18789", &server.url());
    let mut process = Process::run_in(
        &desk.database.url,
        &[],
        &[("OPENCLAW_GATEWAY_TOKEN_QUAY", "the-token-of-the-quay")],
    );
    process.is_leader(true, PATIENCE).await;
    // While the controller runs.
    desk.applied(&yaml, &[]).await;
    let agents = desk
        .one("SELECT string_agg(id::text, ' ' ORDER BY name) FROM agents")
        .await;
    for agent in agents.split(' ') {
        desk.database.agent_ready(AgentId(agent.parse().unwrap())).await;
    }
    let wren = desk.one("SELECT id::text FROM agents WHERE name = 'Wren'").await;
    let soul = || sim.file(&format!("mc-{wren}"), "SOUL.md").unwrap();
    assert!(
        soul().contains("You are Wren: Writer. You take your time."),
        "{}",
        soul()
    );
    assert!(
        sim.file(&format!("mc-{wren}"), "USER.md")
            .unwrap()
            .contains("Robin Keeper")
    );
    let board = desk.one("SELECT id::text FROM boards WHERE name = 'Website'").await;
    assert!(sim.file(&format!("lead-{board}"), "SOUL.md").is_some());

    let edited = yaml.replace("You take your time.", "You are quick.");
    let printed = desk.applied(&edited, &[]).await;
    assert!(printed.contains("0 to add, 2 to change"), "{printed}");
    eventually("the edit is on the gateway", PATIENCE, async || {
        soul().contains("You are quick.").then_some(())
    })
    .await;
    desk.agrees().await;
    assert!(!process.log().contains("the-token-of-the-quay"));
    process.signal(rustix::process::Signal::TERM);
    process.ended(Duration::from_mins(1)).await;
}
