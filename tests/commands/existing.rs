//! Beside an existing installation.

use std::time::Duration;

use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};
use openclaw_controller::sim::SimDialect;
use openclaw_controller::token::{self, HashFormat};
use secrecy::ExposeSecret;
use serde_json::json;
use tempfile::TempDir;

use ConditionStatus::False;
use ConditionType::FilesSynced;

use crate::Fleet;
use crate::support::process::command;
use crate::support::{Controller, Database, Options, PATIENCE, eventually};

const EXISTING: &str = include_str!("../existing_installation.sql");

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_existing_installation_no_existing_file_is_written_before_templates_and_base_url_are_given() {
    let database = Database::empty().await;
    database.execute(EXISTING).await;
    let fleet = Fleet::on(database, SimDialect::V2026_7_1).await;
    let (database, sim, id) = (&fleet.database, &fleet.sim, fleet.gateway_agent());
    // The backend has provisioned the agent: its files, its token, its hash.
    let secret = token::mint();
    let hash = token::hash(&secret, HashFormat::Pbkdf2Sha256).unwrap();
    database
        .execute(&format!(
            "UPDATE agents SET agent_token_hash = '{hash}', status = 'online', openclaw_session_id = 'agent:{id}:main'
              WHERE id = '{}'",
            fleet.agent
        ))
        .await;
    sim.edit_config(|config| {
        config["agents"] = json!({ "list": [{
            "id": id, "name": "Wren", "workspace": format!("/ws/workspace-{id}"),
            "heartbeat": {"every": "10m", "target": "last", "includeReasoning": false},
        }]});
    });
    let theirs = format!(
        "# TOOLS.md\n\n- `BASE_URL=http://theirs`\n- `AUTH_TOKEN={}`\n",
        secret.expose_secret()
    );
    for file in [
        "AGENTS.md",
        "SOUL.md",
        "IDENTITY.md",
        "USER.md",
        "HEARTBEAT.md",
        "MEMORY.md",
    ] {
        sim.edit_file(&id, file, &format!("Their own {file}."));
    }
    sim.edit_file(&id, "TOOLS.md", &theirs);
    let file_writes = || {
        sim.journal()
            .iter()
            .filter(|entry| entry.write && entry.method == "agents.files.set")
            .count()
    };
    let migrated = command(&["migrate"], &fleet.environment()).await;
    assert!(migrated.stdout.contains("beside the existing tables"), "{migrated:?}");

    // Whatever is given alone is not enough.
    let templates = TempDir::new().unwrap();
    std::fs::write(
        templates.path().join("BOARD_SOUL.md.j2"),
        "The soul of {{ agent_name }}.",
    )
    .unwrap();
    let with = |base_url: bool, templates_dir: bool| Options {
        base_url: base_url.then(|| "http://mission.test".to_owned()),
        templates_dir: templates_dir.then(|| templates.path().to_owned()),
        ..Options::default()
    };
    for options in [with(false, false), with(true, false), with(false, true)] {
        database.execute("DELETE FROM openclaw_controller.agent_records").await;
        let controller = Controller::start(&database.url, options).await;
        let condition = database
            .agent_condition(fleet.agent, FilesSynced, False, "Withheld")
            .await;
        for says in ["SOUL.md", "--templates-dir", "--base-url", "diff"] {
            assert!(condition.message.contains(says), "{}", condition.message);
        }
        controller.stop().await;
        assert_eq!(file_writes(), 0);
    }
    // The installation has another gateway, which cannot be reached.
    let gateway = fleet.gateway.to_string();
    let diff = command(&["diff", "--gateway", &gateway], &fleet.environment()).await;
    assert_eq!(diff.code, Some(1), "{diff:?}");
    for says in [
        "-Their own SOUL.md.",
        &format!("+++ {id}/AGENTS.md"),
        "withheld until --templates-dir and --base-url",
    ] {
        assert!(diff.stdout.contains(says), "{says:?} is not in\n{}", diff.stdout);
    }
    assert!(!diff.stdout.contains(secret.expose_secret()), "{}", diff.stdout);

    // An agent that is new gets everything even so, hashed as their backend can verify it.
    let controller = Controller::start(&database.url, with(false, false)).await;
    let new = database
        .agent(fleet.gateway, Some(fleet.board), "Newcomer", false)
        .await;
    database.agent_ready(new).await;
    let hash_of = |agent: AgentId| format!("SELECT agent_token_hash FROM agents WHERE id = '{agent}'");
    let written = database.text(&hash_of(new)).await.unwrap();
    assert!(written.starts_with("pbkdf2_sha256$200000$"), "{written}");
    let text = sim.file(&format!("mc-{new}"), "TOOLS.md").unwrap();
    let token = token::extract(&text).tokens()[0].expose_secret().to_owned();
    assert!(token::verify(&token, &written).unwrap());
    assert_eq!(sim.file(&id, "TOOLS.md").as_deref(), Some(theirs.as_str()));
    controller.stop().await;

    // With both given the files are written, with the token that is there.
    let controller = Controller::start(&database.url, with(true, true)).await;
    database.agent_ready(fleet.agent).await;
    assert_eq!(sim.file(&id, "SOUL.md").as_deref(), Some("The soul of Wren."));
    for own in ["USER.md", "MEMORY.md"] {
        assert_eq!(sim.file(&id, own), Some(format!("Their own {own}.")));
    }
    let text = sim.file(&id, "TOOLS.md").unwrap();
    assert_eq!(
        token::extract(&text).tokens()[0].expose_secret(),
        secret.expose_secret()
    );
    assert_eq!(database.text(&hash_of(fleet.agent)).await, Some(hash));

    // While it runs: their statements go through at once, whatever stands in our triggers' way.
    database
        .execute(
            "ALTER TABLE openclaw_controller.agent_records RENAME TO away; DROP FUNCTION openclaw_controller.full_name",
        )
        .await;
    let took = tokio::time::Instant::now();
    for round in 0..20 {
        database
            .execute(&format!(
                "UPDATE agents SET last_seen_at = now(), name = 'Wren {round}' WHERE id = '{}'",
                fleet.agent
            ))
            .await;
    }
    assert!(
        took.elapsed() < Duration::from_secs(5),
        "20 statements took {:?}",
        took.elapsed()
    );
    database
        .execute("ALTER TABLE openclaw_controller.away RENAME TO agent_records")
        .await;
    database
        .agent_condition(fleet.agent, ConditionType::Ready, ConditionStatus::True, "Converged")
        .await;
    eventually("their last edit arrives", PATIENCE, async || {
        sim.config().to_string().contains("Wren 19").then_some(())
    })
    .await;
    controller.stop().await;
}
