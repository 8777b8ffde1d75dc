//! What `diff` and `get` show.

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::sim::SimDialect;
use openclaw_controller::token;
use serde_json::{Value, json};
use uuid::Uuid;

use ConditionStatus::False;

use crate::support::process::{Finished, command};
use crate::support::{Controller, Database, Options};
use crate::{Fleet, TOKEN, password};

#[tokio::test(flavor = "multi_thread")]
async fn diff_and_get_show_a_fleet_before_and_after() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let run_by_environment = [
        ("DATABASE_URL", fleet.database.url.as_str()),
        ("OPENCLAW_CONTROLLER_BASE_URL", "http://mission.test"),
    ];
    let id = fleet.gateway_agent();
    let before = command(&["diff", "--base-url", "http://mission.test"], &fleet.environment()).await;
    assert_eq!(before.code, Some(1), "{}", before.stderr);
    for says in [
        &format!("+ agent {id} \"Wren\"") as &str,
        "a new token would be made",
        &format!("+++ {id}/AGENTS.md"),
        "--- /dev/null",
        "config: ",
        "http://mission.test",
    ] {
        assert!(before.stdout.contains(says), "{says:?} is not in\n{}", before.stdout);
    }
    let listed = command(&["get", "agents"], &fleet.environment()).await;
    assert!(listed.stdout.contains("Unknown"), "{}", listed.stdout);
    assert_eq!(fleet.sim.writes(), 0, "a dry run wrote something");

    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.database.agent_ready(fleet.agent).await;
    fleet.database.gateway_ready(fleet.gateway).await;
    let token = fleet.agent_token();
    assert!(token::is_minted_form(&token));
    let converged = |what: &str, finished: &Finished| {
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(0), ""),
            "{what}: {finished:?}"
        );
    };
    converged(
        "by flag",
        &command(&["diff", "--base-url", "http://mission.test"], &fleet.environment()).await,
    );
    converged("by environment", &command(&["diff"], &run_by_environment).await);
    let empty = command(&["diff", "-o", "json"], &run_by_environment).await;
    let empty: Value = serde_json::from_str(&empty.stdout).unwrap();
    assert_eq!(empty[0]["config"]["steps"], json!([]));
    assert_eq!(empty[0]["agents"], json!([]));
    controller.stop().await;

    // With the file in question open for a look: the token is in it, and in no diff.
    fleet
        .database
        .execute(&format!(
            "UPDATE boards SET objective = 'Sing.' WHERE id = '{}'",
            fleet.board
        ))
        .await;
    let tools = fleet.sim.file(&id, "AGENTS.md").unwrap();
    fleet.sim.edit_file(&id, "AGENTS.md", &format!("{tools}\nDrift."));
    for (output, parses) in [("text", false), ("json", true)] {
        let diff = command(
            &["diff", "-o", output, "--gateway", &fleet.gateway.to_string()],
            &run_by_environment,
        )
        .await;
        assert_eq!(diff.code, Some(1), "{}", diff.stderr);
        assert!(diff.stdout.contains("Drift."), "{}", diff.stdout);
        for secret in [&token as &str, TOKEN, &password(&fleet.database.url)] {
            assert!(
                !diff.stdout.contains(secret),
                "a secret is in the diff:\n{}",
                diff.stdout
            );
            assert!(
                !diff.stderr.contains(secret),
                "a secret is in the log:\n{}",
                diff.stderr
            );
        }
        if parses {
            let value: Value = serde_json::from_str(&diff.stdout).unwrap();
            assert_eq!(
                value[0]["agents"][0]["gatewayAgentId"]
                    .as_str()
                    .or(value[0]["agents"][0]["gateway_agent_id"].as_str()),
                Some(&*id)
            );
        } else {
            assert!(diff.stdout.contains("-Drift."), "{}", diff.stdout);
        }
    }
    let unknown = command(&["diff", "--gateway", &Uuid::nil().to_string()], &run_by_environment).await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("get gateways"), "{}", unknown.stderr);

    for (kind, name) in [("gateways", "Gateway"), ("boards", "Board"), ("agents", "Wren")] {
        for output in ["table", "wide", "json"] {
            let got = command(&["get", kind, "-o", output], &fleet.environment()).await;
            assert_eq!(got.code, Some(0), "{}", got.stderr);
            assert!(got.stdout.contains(name), "{}", got.stdout);
            for secret in [&token as &str, TOKEN, &password(&fleet.database.url)] {
                assert!(!got.stdout.contains(secret), "{}", got.stdout);
            }
            if output == "json" {
                let value: Value = serde_json::from_str(&got.stdout).unwrap();
                let item = &value["items"][0];
                assert_eq!(item["name"], name);
                if kind != "boards" {
                    let conditions = item["status"]["conditions"].as_array().unwrap();
                    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
                    for key in [
                        "status",
                        "reason",
                        "message",
                        "observedGeneration",
                        "lastTransitionTime",
                    ] {
                        assert!(!ready[key].is_null(), "{key} is missing in {ready}");
                    }
                }
            } else {
                assert!(got.stdout.lines().next().unwrap().starts_with("NAME"), "{}", got.stdout);
                assert_eq!(got.stdout.contains("ID"), output == "wide", "{}", got.stdout);
            }
        }
    }

    // A gateway that does not answer: exit code 2, and why.
    let Fleet { database, server, .. } = fleet;
    server.shutdown();
    let failed = command(&["diff"], &[("DATABASE_URL", database.url.as_str())]).await;
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    assert!(failed.stdout.contains("error: connect: "), "{}", failed.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_gateway_was_never_reached_is_shown_with_what_is_wrong_with_the_gateway() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let Fleet {
        database,
        server,
        gateway,
        ..
    } = fleet;
    server.shutdown();
    let controller = Controller::start(&database.url, Options::default()).await;
    database
        .gateway_condition(gateway, ConditionType::Reachable, False, "ConnectionRefused")
        .await;
    let got = command(
        &["get", "agents", "-o", "json"],
        &[("DATABASE_URL", database.url.as_str())],
    )
    .await;
    let value: Value = serde_json::from_str(&got.stdout).unwrap();
    let ready = &value["items"][0]["ready"];
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("Unknown"), &json!("GatewayNotReady"))
    );
    assert!(
        ready["message"].as_str().unwrap().contains("refused the connection"),
        "{ready}"
    );
    controller.stop().await;
}
