//! Fifty tokens rotated at once, and the controller killed in the middle of it.

use std::collections::BTreeMap;

use crate::binary::Running;
use crate::fixture::{Agent, Fixture, Shape};
use crate::support::{PATIENCE, eventually};

/// How many agents there are in all.
const AGENTS: usize = 50;

/// Rotates all tokens, kills the controller when some are new and some are not, and starts it again.
pub(crate) async fn tell(version: &str, shape: Shape) {
    let fixture = Fixture::new(version, shape).await;
    let database = &fixture.database;
    let mut agents: Vec<Agent> = fixture.fleet().into_iter().cloned().collect();
    while agents.len() < AGENTS {
        let name = format!("Agent {}", agents.len());
        let row = database.agent(fixture.row, Some(fixture.beta), &name, false).await;
        agents.push(Agent::worker(row));
    }
    let running = Running::start(&fixture.environment);
    for agent in &agents {
        database.agent_ready(agent.row).await;
    }
    let mut before = BTreeMap::new();
    for agent in &agents {
        before.insert(agent.id.clone(), fixture.token(agent).await);
    }

    let (code, printed) = fixture.environment.run(&["rotate-token", "--all"]).await;
    assert_eq!(code, 0, "{printed}");
    let rotated = async || -> usize {
        let sql = "SELECT count(*)::text FROM openclaw_controller.agent_records WHERE rotated_for IS NOT NULL";
        database.text(sql).await.unwrap().parse().unwrap()
    };
    eventually("some tokens are new", PATIENCE, async || {
        (rotated().await >= 5).then_some(())
    })
    .await;
    running.kill().await;
    let done = rotated().await;
    assert!(
        done < AGENTS,
        "killed only after all {done} were done: not in the middle"
    );

    let running = Running::start(&fixture.environment);
    eventually("all tokens are new", PATIENCE, async || {
        (rotated().await == AGENTS).then_some(())
    })
    .await;
    for agent in &agents {
        let token = fixture.token(agent).await;
        assert_ne!(token, before[&agent.id], "{}", agent.id);
        for file in [
            "AGENTS.md",
            "SOUL.md",
            "IDENTITY.md",
            "USER.md",
            "TOOLS.md",
            "HEARTBEAT.md",
            "MEMORY.md",
        ] {
            let text = fixture.file(agent, file).unwrap_or_default();
            assert!(
                !text.contains(&before[&agent.id]),
                "{file} of {} still has the old token",
                agent.id
            );
        }
    }
    running.stop().await;
}
