//! Names instead of ids, lists, descriptions, and what is asked for agents and boards.

use std::process::Stdio;

use openclaw_controller::model::{AgentId, BoardId, ConditionStatus, ConditionType};
use openclaw_controller::sim::SimDialect;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::process::{Finished, command};
use crate::support::{Controller, Database, Options, PATIENCE, eventually};
use crate::{Fleet, TOKEN, password};

/// Gateway Red with the boards Website (Wren and a lead) and Newsletter (a lead), and a main agent.
pub(crate) async fn named_fleet() -> (Fleet, BoardId) {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let Fleet {
        database,
        gateway,
        board,
        ..
    } = &fleet;
    database
        .execute(&format!(
            "UPDATE gateways SET name = 'Red'; UPDATE boards SET name = 'Website', slug = 'web' WHERE id = '{board}'"
        ))
        .await;
    let organization = database.text("SELECT id::text FROM organizations").await.unwrap();
    let newsletter = database
        .board(organization.parse().unwrap(), Some(*gateway), "Newsletter")
        .await;
    database.agent(*gateway, Some(*board), "Lead Agent", true).await;
    database.agent(*gateway, Some(newsletter), "Lead Agent", true).await;
    database.agent(*gateway, None, "Gatekeeper", false).await;
    (fleet, newsletter)
}

/// Waits until everybody is as desired.
pub(crate) async fn all_ready(fleet: &Fleet) {
    fleet.database.gateway_ready(fleet.gateway).await;
    let agents = fleet
        .database
        .text("SELECT string_agg(id::text, ' ') FROM agents")
        .await
        .unwrap();
    for agent in agents.split(' ') {
        fleet.database.agent_ready(AgentId(agent.parse().unwrap())).await;
    }
}

async fn run(fleet: &Fleet, arguments: &[&str]) -> Finished {
    command(arguments, &fleet.environment()).await
}

/// What a command prints that must succeed.
async fn printed(fleet: &Fleet, arguments: &[&str]) -> String {
    let done = run(fleet, arguments).await;
    assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
    done.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_takes_names_and_says_what_it_does_not_know() {
    let (fleet, newsletter) = named_fleet().await;
    let (gateway, agent) = (fleet.gateway.to_string(), fleet.agent.to_string());
    for reference in ["Red", "red", &gateway, &gateway[..8]] {
        let got = printed(&fleet, &["get", "gateways", reference, "-o", "json"]).await;
        let got: Value = serde_json::from_str(&got).unwrap();
        assert_eq!(got["items"][0]["id"], gateway.as_str(), "{reference}");
    }
    for reference in ["Wren", "Website/Wren", &agent, &agent[..8], &fleet.gateway_agent()] {
        let got = printed(&fleet, &["describe", "agent", reference, "--plan=never", "-o", "json"]).await;
        let got: Value = serde_json::from_str(&got).unwrap();
        assert_eq!(got["id"], agent.as_str(), "{reference}");
    }
    let asked = printed(&fleet, &["rotate-token", "--agent", "Wren", "--agent", &agent]).await;
    assert_eq!(asked, "a new token was requested for 1 agent\n");

    let unknown: [&[&str]; 12] = [
        &["get", "agents", "Wrenn"],
        &["get", "agents", "--gateway", "Wrenn"],
        &["get", "agents", "--board", "Wrenn"],
        &["get", "events", "Wrenn"],
        &["get", "unmanaged", "--gateway", "Wrenn"],
        &["describe", "agent", "Wrenn"],
        &["diff", "--gateway", "Wrenn"],
        &["sync", "--gateway", "Wrenn"],
        &["rotate-token", "--agent", "Wrenn"],
        &["wake", "--agent", "Wrenn"],
        &["pause", "--board", "Wrenn"],
        &["resume", "--gateway", "Wrenn"],
    ];
    for arguments in unknown {
        let refused = run(&fleet, arguments).await;
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {refused:?}"
        );
        assert!(refused.stderr.contains("there is no "), "{arguments:?}: {refused:?}");
        assert!(
            refused.stderr.contains("`openclaw-controller get "),
            "{arguments:?}: {refused:?}"
        );
    }
    let closest = run(&fleet, unknown[0]).await;
    assert!(
        closest.stderr.contains(&format!("do you mean \"Wren\" ({agent})?")),
        "{closest:?}"
    );
    let ambiguous = run(&fleet, &["wake", "--agent", "Lead Agent"]).await;
    assert_eq!(ambiguous.code, Some(2), "{ambiguous:?}");
    for says in ["any of 2 agents", "of Website", "of Newsletter", "BOARD/NAME"] {
        assert!(ambiguous.stderr.contains(says), "{says}: {ambiguous:?}");
    }
    let one = printed(&fleet, &["wake", "--agent", "Newsletter/Lead Agent"]).await;
    assert_eq!(one, "a wake was requested for 1 agent\n");
    let woken = "SELECT string_agg(agent_id::text, ' ') FROM openclaw_controller.agent_requests WHERE wake_requested_at IS NOT NULL";
    let lead = format!("SELECT id::text FROM agents WHERE board_id = '{newsletter}'");
    assert_eq!(fleet.database.text(woken).await, fleet.database.text(&lead).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_narrowed_and_printed_in_every_form() {
    let (fleet, _) = named_fleet().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    all_ready(&fleet).await;
    printed(&fleet, &["pause", "--board", "Newsletter"]).await;
    eventually("the board is seen to be paused", PATIENCE, async || {
        let paused = printed(&fleet, &["get", "agents", "--condition", "paused=true"]).await;
        (paused.contains("Lead Agent") && paused.contains("Newsletter")).then_some(())
    })
    .await;
    controller.stop().await;

    let names = async |arguments: &[&str]| {
        let got = printed(&fleet, &[&["get"], arguments, &["-o", "json"]].concat()).await;
        let got: Value = serde_json::from_str(&got).unwrap();
        let items = got["items"].as_array().unwrap().iter();
        let mut names: Vec<_> = items.map(|item| item["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&["agents"]).await, "Gatekeeper Lead Agent Lead Agent Wren");
    assert_eq!(names(&["agents", "--board", "web"]).await, "Lead Agent Wren");
    assert_eq!(
        names(&["agents", "--gateway", "Red", "--not-ready"]).await,
        "Lead Agent"
    );
    assert_eq!(
        names(&[
            "agents",
            "--condition",
            "Ready=True",
            "--condition",
            "TokenValid=True",
            "Wren"
        ])
        .await,
        "Wren"
    );
    assert_eq!(names(&["boards", "--not-ready"]).await, "Newsletter");
    assert_eq!(names(&["gateways", "--condition", "Ready=False"]).await, "");

    let events = printed(&fleet, &["get", "events", "Wren", "--limit", "1"]).await;
    assert!(events.contains("agent/Wren") && events.lines().count() == 2, "{events}");
    let of_board = printed(&fleet, &["get", "events", "--board", "Newsletter", "-o", "json"]).await;
    assert!(!of_board.contains(&fleet.agent.to_string()), "{of_board}");

    let yaml = printed(&fleet, &["get", "boards", "-o", "yaml"]).await;
    assert!(
        yaml.starts_with("items:\n") && yaml.contains("name: Website\n"),
        "{yaml}"
    );
    assert!(yaml.contains("paused: true\n"), "{yaml}");
    for (arguments, says) in [
        (
            &["gateways", "--board", "web"] as &[_],
            "--board says nothing about gateways",
        ),
        (&["boards", "--condition", "Ready=True"], "it is for gateways, agents"),
        (&["unmanaged", "--watch"], "--watch says nothing about unmanaged agents"),
        (&["agents", "--condition", "Redy=True"], "TokenValid"),
        (&["agents", "--interval", "1s"], "--watch"),
    ] {
        let refused = run(&fleet, &[&["get"], arguments].concat()).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
        assert!(refused.stderr.contains(says), "{says}: {refused:?}");
    }
}

/// A command that runs until it is told to end, and its lines.
fn watching(fleet: &Fleet, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_openclaw-controller"))
        .args(arguments)
        .env_clear()
        .envs(fleet.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap();
    line.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_printed_once_and_a_signal_ends_it() {
    let (fleet, _) = named_fleet().await;
    // So long that what is printed in time was announced.
    let (mut child, mut lines) = watching(
        &fleet,
        &[
            "get",
            "agents",
            "--board",
            "Website",
            "-w",
            "-o",
            "json",
            "--interval",
            "1h",
        ],
    );
    let mut names = Vec::new();
    for _ in 0..2 {
        let item: Value = serde_json::from_str(&next_line(&mut lines).await).unwrap();
        names.push(item["name"].as_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["Lead Agent", "Wren"]);
    // A heartbeat is no news, a name is.
    let agent = fleet.agent;
    let rename = format!(
        "UPDATE agents SET last_seen_at = now() - interval '1 hour' WHERE id = '{agent}';
         UPDATE agents SET name = 'Ada' WHERE id = '{agent}'"
    );
    fleet.database.execute(&rename).await;
    let item: Value = serde_json::from_str(&next_line(&mut lines).await).unwrap();
    assert_eq!((&item["name"], item["gone"].is_null()), (&"Ada".into(), true));
    fleet
        .database
        .execute(&format!("DELETE FROM agents WHERE id = '{agent}'"))
        .await;
    let item: Value = serde_json::from_str(&next_line(&mut lines).await).unwrap();
    assert_eq!((&item["name"], &item["gone"]), (&"Ada".into(), &true.into()));
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(lines.next_line().await.unwrap(), None);

    // What a controller writes down is not announced: it is found by looking.
    let (_child, mut lines) = watching(&fleet, &["get", "gateways", "--watch", "--interval", "500ms"]);
    assert!(next_line(&mut lines).await.starts_with("NAME"));
    assert!(next_line(&mut lines).await.starts_with("Red"));
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let mut line = next_line(&mut lines).await;
    while !line.contains("Converged") {
        line = next_line(&mut lines).await;
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_resuming_and_waking_reach_the_agents() {
    let (fleet, _) = named_fleet().await;
    let controller = Controller::start(
        &fleet.database.url,
        Options {
            wake: true,
            ..Options::default()
        },
    )
    .await;
    fleet.database.gateway_ready(fleet.gateway).await;
    let sent = format!(
        "SELECT coalesce(wake_counter, 0)::text FROM openclaw_controller.agent_records WHERE agent_id = '{}'",
        fleet.agent
    );
    eventually("the agent is woken for its first provisioning", PATIENCE, async || {
        let counter = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sent.clone()))
            .fetch_optional(&fleet.database.pool)
            .await
            .unwrap();
        counter.filter(|counter| counter != "0")
    })
    .await;
    let paused = printed(&fleet, &["pause", "--board", "web"]).await;
    assert_eq!(
        paused,
        format!("board Website ({}) is paused, with 2 agents\n", fleet.board)
    );
    fleet
        .database
        .agent_condition(fleet.agent, ConditionType::Paused, ConditionStatus::True, "BoardPaused")
        .await;
    let described = printed(&fleet, &["describe", "agent", "Wren", "--plan=never"]).await;
    assert!(described.contains("as soon as its board goes on"), "{described}");
    let again = printed(&fleet, &["pause", "--gateway", "Red"]).await;
    assert!(
        again.contains("Website") && again.contains("is already paused"),
        "{again}"
    );
    assert!(again.contains("board Newsletter"), "{again}");
    let words = "SELECT count(*)::text FROM board_memory";
    assert_eq!(fleet.database.text(words).await.as_deref(), Some("2"));
    // A word that another clock dated into the future does not stand for ever.
    fleet
        .database
        .execute("UPDATE board_memory SET created_at = created_at + interval '1 day'")
        .await;
    let resumed = printed(&fleet, &["resume", "--all"]).await;
    assert_eq!(
        resumed.lines().filter(|line| line.contains(" is going on")).count(),
        2,
        "{resumed}"
    );
    fleet
        .database
        .agent_condition(fleet.agent, ConditionType::Paused, ConditionStatus::False, "NotPaused")
        .await;

    let asked = printed(&fleet, &["wake", "--board", "Website"]).await;
    assert_eq!(asked, "wakes were requested for 2 agents\n");
    let answered = format!(
        "SELECT (r.wake_asked = q.wake_requested_at)::text FROM openclaw_controller.agent_records r
           JOIN openclaw_controller.agent_requests q USING (agent_id) WHERE agent_id = '{}'",
        fleet.agent
    );
    eventually("the request is answered", PATIENCE, async || {
        (fleet.database.text(&answered).await.as_deref() == Some("true")).then_some(())
    })
    .await;
    controller.stop().await;
    let alone = run(&fleet, &["wake", "--agent", "Wren"]).await;
    assert_eq!(alone.code, Some(0), "{alone:?}");
    assert!(alone.stderr.contains("no controller is running"), "{alone:?}");
    let nothing = run(&fleet, &["pause"]).await;
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_says_what_differs_or_why_that_is_not_known() {
    let (fleet, _) = named_fleet().await;
    // Nobody has looked yet, and there is no key to ask with.
    let before = printed(&fleet, &["describe", "agent", "Wren"]).await;
    for says in [
        "Wren",
        "none yet",
        "no controller is running",
        "not known: the gateway was not asked: there is no device key",
    ] {
        assert!(before.contains(says), "{says:?} is not in\n{before}");
    }
    let asked = printed(&fleet, &["describe", "agent", "Wren", "--plan=always"]).await;
    assert!(
        asked.contains(&format!("+ agent {} \"Wren\"", fleet.gateway_agent())),
        "{asked}"
    );
    assert!(asked.contains("+++ ") && !asked.contains("agent lead-"), "{asked}");
    assert_eq!(fleet.sim.writes(), 0, "a description wrote something");

    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    all_ready(&fleet).await;
    controller.stop().await;
    let after = printed(&fleet, &["describe", "agent", "Wren"]).await;
    for says in [
        "TokenValid",
        "Verified",
        " old, since ",
        "Events:",
        "--plan=always asks the gateway now",
    ] {
        assert!(after.contains(says), "{says:?} is not in\n{after}");
    }
    let asked = printed(
        &fleet,
        &[
            "describe",
            "agent",
            "Wren",
            "--plan=always",
            "--base-url",
            "http://mission.test",
        ],
    )
    .await;
    assert!(
        asked.contains("nothing: the gateway holds what the rows say"),
        "{asked}"
    );
    let board = printed(&fleet, &["describe", "board", "web"]).await;
    for says in ["2 of 2 ready", "Lead Agent", "Wren", "general"] {
        assert!(board.contains(says), "{says:?} is not in\n{board}");
    }
    let gateway = printed(&fleet, &["describe", "gateway", "Red"]).await;
    for says in ["4 of 4 ready", "2026.9.6", "ConfigSynced", "/ws"] {
        assert!(gateway.contains(says), "{says:?} is not in\n{gateway}");
    }
    for output in ["text", "json", "yaml"] {
        for (kind, name) in [("gateway", "Red"), ("board", "Website"), ("agent", "Wren")] {
            let shown = printed(&fleet, &["describe", kind, name, "-o", output]).await;
            for secret in [TOKEN, &fleet.agent_token(), &password(&fleet.database.url)] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }

    let Fleet { database, server, .. } = fleet;
    server.shutdown();
    let away = command(
        &["describe", "gateway", "Red", "--plan=always", "-o", "json"],
        &[("DATABASE_URL", database.url.as_str())],
    )
    .await;
    assert_eq!(away.code, Some(0), "{away:?}");
    let away: Value = serde_json::from_str(&away.stdout).unwrap();
    assert_eq!(away["plan"]["lookedAt"], false);
    assert!(
        away["plan"]["why"].as_str().unwrap().contains("could not be asked"),
        "{away}"
    );
}
