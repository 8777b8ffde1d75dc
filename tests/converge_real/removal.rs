//! Agents are removed from a real gateway: because their rows ask for it, and because no row explains them any more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use openclaw_controller::model::{ConditionStatus, ConditionType, session_key};
use serde_json::Value;

use crate::binary::Running;
use crate::fixture::{Agent, Fixture, Shape, calls};
use crate::operator;
use crate::story::nothing_is_written;
use crate::support::{PATIENCE, eventually};

/// A prompt that is by far the most of the config.
const PROMPT: usize = 6_000;

pub(crate) async fn tell(version: &str, shape: Shape) {
    let clock = Instant::now();
    let step = |what: &str| println!("{version} {:6.1} s  {what}", clock.elapsed().as_secs_f64());
    let mut fixture = Fixture::with(version, shape, true).await;
    let root = fixture.gateway.workspace_root();
    let database = &fixture.database;
    let large = format!("heartbeat_config = json_build_object('every', '24h', 'prompt', repeat('x', {PROMPT}))");
    database.execute(&Fixture::set(&fixture.heron, &large)).await;
    let controller = Running::start(&fixture.environment);
    for agent in fixture.fleet() {
        fixture.database.agent_ready(agent.row).await;
    }
    fixture.database.gateway_ready(fixture.row).await;
    step("converged");
    let starts = fixture.starts();

    let others = [&fixture.main, &fixture.lead, &fixture.wren, &fixture.heron];
    let before = state(&fixture, &root, &others).await;
    request(&fixture, &fixture.finch).await;
    gone(&fixture, &root, &fixture.finch).await;
    assert_eq!(
        state(&fixture, &root, &others).await,
        before,
        "the others stay as they are"
    );
    step("one was removed");
    nothing_is_written(&fixture, &controller).await;
    step("and nothing is written after that");

    let others = [&fixture.main, &fixture.lead, &fixture.wren];
    let before = state(&fixture, &root, &others).await;
    request(&fixture, &fixture.heron).await;
    gone(&fixture, &root, &fixture.heron).await;
    assert_eq!(state(&fixture, &root, &others).await, before);
    let refused = |name: &str| name.contains(".rejected");
    assert_eq!(
        names(&fixture.gateway.state_dir())
            .into_iter()
            .filter(|name| refused(name))
            .count(),
        0
    );
    step("the one that was most of the config was removed, without a refused write");

    fixture
        .database
        .execute(&Fixture::set(&fixture.finch, "delete_requested_at = NULL"))
        .await;
    fixture.database.agent_ready(fixture.finch.row).await;
    let file = fs::read_to_string(workspace(&root, &fixture.finch).join(shape.token_file())).unwrap();
    assert!(file.contains("AUTH_TOKEN"), "it is provisioned anew");
    // Newer gateways refuse this for an agent that a patch alone has brought back.
    let client = operator::connect(&fixture.gateway).await;
    client
        .sessions_patch(&session_key(&name(&fixture.finch)), "Finch")
        .await
        .unwrap();
    client.close();
    step("the first one was taken back");
    nothing_is_written(&fixture, &controller).await;

    fixture
        .database
        .execute(&format!(
            "DELETE FROM agents WHERE id IN ('{}', '{}')",
            fixture.wren.row, fixture.heron.row
        ))
        .await;
    let told = fixture
        .database
        .gateway_condition(
            fixture.row,
            ConditionType::Leftovers,
            ConditionStatus::True,
            "NotExplained",
        )
        .await;
    assert!(
        told.message.starts_with("1 agent ") && told.message.contains(&fixture.wren.id),
        "{}",
        told.message
    );
    let (code, wide) = fixture.environment.run(&["get", "gateways", "-o", "json"]).await;
    assert!(code == 0 && wide.contains(&fixture.wren.id), "{wide}");
    controller.stop().await;
    let (code, text) = fixture.environment.run(&["diff"]).await;
    assert_eq!((code, text.as_str()), (0, ""), "it is left alone without --prune");
    fixture.environment.prune = true;
    let (code, text) = fixture.environment.run(&["diff"]).await;
    assert!(
        code == 1 && text.contains(&format!("- agent {}", fixture.wren.id)),
        "{text}"
    );
    let controller = Running::start(&fixture.environment);
    absent(&fixture, &root, &fixture.wren).await;
    fixture
        .database
        .gateway_condition(
            fixture.row,
            ConditionType::Leftovers,
            ConditionStatus::False,
            "NoLeftovers",
        )
        .await;
    let page = controller.page("/metrics").await;
    assert_eq!(calls(&page, "agents.delete"), 1);
    controller.stop().await;
    step("what no row explains was removed");
    assert_eq!(fixture.starts(), starts, "the gateway never restarted for it");
}

fn name(agent: &Agent) -> openclaw_controller::model::GatewayAgentId {
    openclaw_controller::model::GatewayAgentId::observed(&agent.id)
}

pub(crate) async fn request(fixture: &Fixture, agent: &Agent) {
    fixture
        .database
        .execute(&Fixture::set(agent, "delete_requested_at = now() AT TIME ZONE 'UTC'"))
        .await;
}

/// The agent is told to be deleted, and is.
pub(crate) async fn gone(fixture: &Fixture, root: &Path, agent: &Agent) {
    fixture
        .database
        .agent_condition(agent.row, ConditionType::Deleted, ConditionStatus::True, "Deleted")
        .await;
    assert_eq!(fixture.entry(&agent.id).await, None);
    assert_eq!(names(&workspace(root, agent)), [] as [String; 0]);
    eventually("its row says so", PATIENCE, async || {
        (fixture.column(agent, "status").await == "deleting").then_some(())
    })
    .await;
    assert_eq!(fixture.column(agent, "agent_token_hash").await, "");
}

async fn absent(fixture: &Fixture, root: &Path, agent: &Agent) {
    eventually(&format!("{} is gone", agent.id), PATIENCE, async || {
        (fixture.entry(&agent.id).await.is_none() && names(&workspace(root, agent)).is_empty()).then_some(())
    })
    .await;
}

fn workspace(root: &Path, agent: &Agent) -> PathBuf {
    root.join(format!("workspace-{}", agent.slug))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Roster entries and files of these agents, byte by byte, and the rest of the config.
pub(crate) async fn state(fixture: &Fixture, root: &Path, agents: &[&Agent]) -> BTreeMap<String, String> {
    let all: Vec<_> = fixture.fleet().into_iter().collect();
    let mut state = BTreeMap::from([("config".to_owned(), fixture.rest_of_config(&all).await.to_string())]);
    for agent in agents {
        let entry: Option<Value> = fixture.entry(&agent.id).await;
        state.insert(agent.id.clone(), entry.unwrap().to_string());
        for file in names(&workspace(root, agent)) {
            let path = workspace(root, agent).join(&file);
            if path.is_file() {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                state.insert(format!("{}/{file}", agent.id), text);
            }
        }
    }
    state
}
