//! Rows in a real Postgres converge on a simulated gateway over a real socket.
#![cfg(feature = "sim")]

mod support;

use openclaw_controller::sim::{SimDialect, SimGateway};
use support::contract::Watch;
use support::{Controller, Database, Options, PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_inserted_agent_reaches_the_gateway_and_an_edit_follows() {
    for dialect in [SimDialect::V2026_4_29, SimDialect::V2026_7_1, SimDialect::V2026_9_6] {
        let gateway = SimGateway::new(dialect, "gateway-token");
        let _watch = Watch::simulated(&gateway);
        let server = gateway.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let gateway_id = database
            .gateway(organization, &server.url(), "gateway-token", "/ws")
            .await;
        let board = database.board(organization, Some(gateway_id), "board").await;
        let controller = Controller::start(&database.url, Options::default()).await;
        database.gateway_ready(gateway_id).await;
        let agent = database.agent(gateway_id, Some(board), "Wren", false).await;
        database.agent_ready(agent).await;
        let id = format!("mc-{agent}");
        assert!(gateway.roster().contains(&id));
        assert!(gateway.file(&id, "AGENTS.md").is_some_and(|text| text.contains("Wren")));
        database
            .execute(&format!(
                "UPDATE agents SET soul_template = 'You are {{{{ agent_name }}}}.' WHERE id = '{agent}'"
            ))
            .await;
        eventually("the edit arrives", PATIENCE, async || {
            (gateway.file(&id, "SOUL.md").as_deref() == Some("You are Wren.")).then_some(())
        })
        .await;
        assert!(
            gateway.restarts() <= 1,
            "{dialect:?} restarted {} times",
            gateway.restarts()
        );
        controller.stop().await;
        server.shutdown();
    }
}
