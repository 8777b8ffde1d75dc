//! `rotate-token`: what it asks for, how it waits, and what it says.

use std::process::Stdio;

use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};
use openclaw_controller::sim::SimDialect;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use crate::Fleet;
use crate::support::process::command;
use crate::support::{Controller, Database, Options, PATIENCE, eventually};

const ASKED: &str =
    "SELECT count(*)::text FROM openclaw_controller.agent_requests WHERE rotate_requested_at IS NOT NULL";

#[tokio::test(flavor = "multi_thread")]
async fn rotate_token_asks_and_waits_until_every_agent_has_its_new_token() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_7_1).await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let (gateway, board) = (fleet.gateway, fleet.board);
    let mut agents = vec![fleet.agent];
    for name in ["Finch", "Heron"] {
        agents.push(fleet.database.agent(gateway, Some(board), name, false).await);
    }
    agents.push(fleet.database.agent(gateway, None, "Main", false).await);
    for agent in &agents {
        fleet.database.agent_ready(*agent).await;
    }
    let old = fleet.agent_token();

    let waited = command(&["rotate-token", "--all", "--wait"], &fleet.environment()).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert!(
        waited.stdout.contains("new tokens were requested for 4 agents"),
        "{waited:?}"
    );
    assert!(waited.stdout.contains("4 agents have a new token"), "{waited:?}");
    // No terminal: lines rather than a bar.
    assert!(waited.stderr.contains("4 of 4 new tokens\n"), "{waited:?}");
    assert!(!waited.stderr.contains("no controller is running"), "{waited:?}");
    let new = fleet.agent_token();
    assert_ne!(old, new);
    let shown = format!(
        "{}{}{}",
        waited.stdout,
        waited.stderr,
        fleet.database.everything_told().await
    );
    assert!(!shown.contains(&old) && !shown.contains(&new), "a token was shown");
    let told = "SELECT count(*)::text FROM openclaw_controller.events
                 WHERE reason = 'TokenRotated' AND kind = 'Normal' AND message LIKE '%(requested)%'";
    assert_eq!(fleet.database.text(told).await.as_deref(), Some("4"));
    assert!(
        controller
            .metric("openclaw_controller_token_rotations_total", "promoted")
            .await
            >= 8.0
    );

    // One, twice named, and without waiting for it.
    let id = fleet.agent.to_string();
    let one = command(&["rotate-token", "--agent", &id, "--agent", &id], &fleet.environment()).await;
    assert_eq!(
        (one.code, one.stdout.as_str()),
        (Some(0), "a new token was requested for 1 agent\n")
    );
    eventually("the token is rotated", PATIENCE, async || {
        (fleet.agent_token() != new).then_some(())
    })
    .await;
    for (flag, id, count) in [("--board", board.to_string(), 3), ("--gateway", gateway.to_string(), 4)] {
        let some = command(&["rotate-token", flag, &id, "--wait"], &fleet.environment()).await;
        assert_eq!(some.code, Some(0), "{some:?}");
        assert!(
            some.stdout.contains(&format!("requested for {count} agents")),
            "{some:?}"
        );
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_token_says_which_agents_have_none_in_time_and_why() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let paused = fleet
        .database
        .agent(fleet.gateway, Some(fleet.board), "Sleeper", false)
        .await;
    let free = fleet.database.agent(fleet.gateway, None, "Main", false).await;
    for agent in [fleet.agent, paused, free] {
        fleet.database.agent_ready(agent).await;
    }
    fleet
        .database
        .execute(&format!(
            "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)
             VALUES (gen_random_uuid(), '{}', '/pause', true, now())",
            fleet.board
        ))
        .await;
    fleet
        .database
        .agent_condition(paused, ConditionType::Paused, ConditionStatus::True, "BoardPaused")
        .await;
    let waited = command(
        &["rotate-token", "--all", "--wait", "--timeout", "5s"],
        &fleet.environment(),
    )
    .await;
    assert_eq!(waited.code, Some(1), "{waited:?}");
    assert!(waited.stdout.contains("1 agent has a new token"), "{waited:?}");
    assert!(
        waited.stderr.contains("2 agents have no new token after 5s"),
        "{waited:?}"
    );
    let line = format!("Sleeper ({paused}): BoardPaused: ");
    assert!(waited.stderr.contains(&line), "{waited:?}");
    assert!(waited.stderr.contains("goes on without this command"), "{waited:?}");
    controller.stop().await;

    // Nobody works on it: it says so, and what was asked for is honoured when somebody does.
    let one = fleet.agent.to_string();
    let alone = command(
        &["rotate-token", "--agent", &one, "--wait", "--timeout", "1s"],
        &fleet.environment(),
    )
    .await;
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(
        alone.stderr.contains("no controller is running on this database"),
        "{alone:?}"
    );
    let old = fleet.agent_token();
    fleet
        .database
        .execute(&format!(
            "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)
             VALUES (gen_random_uuid(), '{}', '/resume', true, now() + interval '1 second')",
            fleet.board
        ))
        .await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    eventually("the token is rotated", PATIENCE, async || {
        (fleet.agent_token() != old).then_some(())
    })
    .await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_token_takes_exactly_one_selector_and_known_ids() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let (known, unknown) = (fleet.agent.to_string(), AgentId(Uuid::new_v4()).to_string());
    for arguments in [
        &["rotate-token"] as &[&str],
        &["rotate-token", "--all", "--agent", &known],
        &["rotate-token", "--agent", "Wrenn"],
        &["rotate-token", "--all", "--timeout", "5s"],
        &["rotate-token", "--agent", &known, "--agent", &unknown],
        &["rotate-token", "--board", &unknown],
        &["rotate-token", "--gateway", &unknown, "--wait"],
    ] {
        let refused = command(arguments, &fleet.environment()).await;
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{arguments:?}");
        if arguments.contains(&unknown.as_str()) {
            assert!(refused.stderr.contains(&unknown), "{refused:?}");
            assert!(!refused.stderr.contains(&known), "{refused:?}");
        }
    }
    assert_eq!(fleet.database.text(ASKED).await.as_deref(), Some("0"));
    // Whoever is being deleted gets none.
    fleet
        .database
        .execute(&format!(
            "UPDATE agents SET delete_requested_at = now() WHERE id = '{known}'"
        ))
        .await;
    let none = command(&["rotate-token", "--all", "--wait"], &fleet.environment()).await;
    assert_eq!(none.code, Some(0), "{none:?}");
    assert!(none.stdout.contains("1 being deleted left out"), "{none:?}");
    assert_eq!(fleet.database.text(ASKED).await.as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_waiting_and_not_the_rotation() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_openclaw-controller"))
        .args(["rotate-token", "--all", "--wait"])
        .env_clear()
        .envs(fleet.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "0 of 1 new tokens" {
                return;
            }
        }
    };
    timeout(PATIENCE, waits).await.unwrap();
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    let said = lines.next_line().await.unwrap().unwrap();
    assert!(said.contains("goes on without this command"), "{said}");
    assert_eq!(fleet.database.text(ASKED).await.as_deref(), Some("1"));
}
