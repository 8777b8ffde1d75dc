//! Rows of agents that make no sense.

use openclaw_controller::model::{ConditionStatus, ConditionType};

use ConditionStatus::{False, True};
use ConditionType::{FilesSynced, Registered};

use crate::Fleet;
use crate::support::{Controller, Options, PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_agents_that_make_no_sense_are_told_on_the_agent_and_nowhere_else() {
    let fleet = Fleet::new().await;
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let hb = |json: &str| format!("heartbeat_config = '{json}'");
    let profile = |json: &str| format!("identity_profile = '{json}'");
    let soul = |template: &str| format!("soul_template = '{template}'");
    let large = |bytes: usize| format!("soul_template = repeat('0123456789abcde ', {})", bytes / 16);
    let cases: [(&str, String, ConditionType, &str, &[&str]); 19] = [
        (
            "list",
            hb("[1]"),
            Registered,
            "InvalidHeartbeat",
            &["is a list, not an object", "every"],
        ),
        (
            "string",
            hb("\"10m\""),
            Registered,
            "InvalidHeartbeat",
            &["is a text, not an object"],
        ),
        (
            "number",
            hb("7"),
            Registered,
            "InvalidHeartbeat",
            &["is a number, not an object"],
        ),
        (
            "nested",
            hb(r#"{"every":{"a":[1]}}"#),
            Registered,
            "InvalidHeartbeat",
            &["\"every\"", "correct the row"],
        ),
        (
            "deep",
            hb(&deep),
            Registered,
            "InvalidHeartbeat",
            &["cannot be parsed", "correct the row"],
        ),
        (
            "infinite",
            hb(r#"{"ackMaxChars":1e999}"#),
            Registered,
            "InvalidHeartbeat",
            &["cannot be parsed"],
        ),
        (
            "nul",
            hb(r#"{"every":"\u0000"}"#),
            Registered,
            "InvalidHeartbeat",
            &["\"every\"", "duration"],
        ),
        (
            "p list",
            profile("[1]"),
            FilesSynced,
            "InvalidProfile",
            &["identity_profile is a list", "object"],
        ),
        (
            "p string",
            profile("\"x\""),
            FilesSynced,
            "InvalidProfile",
            &["identity_profile is a text"],
        ),
        (
            "p number",
            profile("7"),
            FilesSynced,
            "InvalidProfile",
            &["identity_profile is a number"],
        ),
        (
            "p nested",
            profile(r#"{"role":{"a":1}}"#),
            FilesSynced,
            "InvalidProfile",
            &["\"role\"", "must be text"],
        ),
        (
            "p deep",
            profile(&deep),
            FilesSynced,
            "InvalidProfile",
            &["cannot be parsed"],
        ),
        (
            "variable",
            soul("{{ nonsense }}"),
            FilesSynced,
            "UnknownVariable",
            &["SOUL", "nonsense", "documented"],
        ),
        (
            "include",
            soul("{% include \"x.j2\" %}"),
            FilesSynced,
            "MissingInclude",
            &["x.j2", "templates directory"],
        ),
        (
            "syntax",
            soul("{% if %}"),
            FilesSynced,
            "TemplateSyntax",
            &["soul_template", "correct the template"],
        ),
        (
            "loop",
            soul("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"),
            FilesSynced,
            "TemplateTooExpensive",
            &["soul_template", "simplify"],
        ),
        (
            "recursion",
            soul("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            FilesSynced,
            "TemplateTooExpensive",
            &["soul_template"],
        ),
        (
            "over 1 MiB",
            large(1_100_000),
            FilesSynced,
            "TemplateTooLarge",
            &["1 MiB", "shorten"],
        ),
        (
            "filter",
            soul("{{ agent_name | pickle }}"),
            FilesSynced,
            "UnknownFilter",
            &["soul_template"],
        ),
    ];
    let mut bad = Vec::new();
    for (name, set, kind, reason, says) in cases {
        bad.push((name, fleet.agent(name, &set).await, kind, reason, says));
    }
    // Valid, and worth a word: longer than a gateway shows, and characters that Postgres cannot keep in text.
    let long = fleet.agent("long", &large(1_000_000)).await;
    let nul = fleet
        .agent(
            "nul",
            r#"heartbeat_config = '{"a\u0000b":"\u0000"}', identity_profile = '{"role":"a\u0000b","x\u0000":{}}'"#,
        )
        .await;
    let other_key = fleet
        .agent("other key", "openclaw_session_id = 'agent:main:main'")
        .await;
    // Places that are taken or do not exist.
    let database = &fleet.database;
    let homeless = database.board(fleet.organization, None, "homeless").await;
    let unplaced = database.agent(fleet.gateway, Some(homeless), "unplaced", false).await;
    let lead = database.agent(fleet.gateway, Some(fleet.board), "lead", true).await;
    let second_lead = database
        .agent(fleet.gateway, Some(fleet.board), "second lead", true)
        .await;
    let main = database.agent(fleet.gateway, None, "main", false).await;
    let second_main = database.agent(fleet.gateway, None, "second main", false).await;

    let controller = Controller::start(&database.url, Options::default()).await;
    for (name, agent, kind, reason, says) in &bad {
        let condition = database.agent_condition(*agent, *kind, False, reason).await;
        for words in *says {
            assert!(condition.message.contains(words), "{name}: {}", condition.message);
        }
        let error = format!("SELECT last_provision_error FROM agents WHERE id = '{agent}'");
        eventually(&format!("{name} is told in the row too"), PATIENCE, async || {
            let error = database.text(&error).await;
            error.filter(|error| error.contains(reason))
        })
        .await;
        // What is well with the agent is done: it is on the gateway, with the files that could be made.
        let id = format!("mc-{agent}");
        eventually(&format!("{name} is there as far as it can be"), PATIENCE, async || {
            let there = fleet.good.sim.roster().contains(&id) && fleet.good.sim.file(&id, "USER.md").is_some();
            there.then_some(())
        })
        .await;
    }
    for (agent, reason, says) in [
        (unplaced, "BoardNotFound", "board not found for agent"),
        (second_lead, "DuplicateAgent", "a board has one lead"),
        (second_main, "DuplicateAgent", "a gateway one main agent"),
    ] {
        let condition = database.agent_condition(agent, Registered, False, reason).await;
        assert!(condition.message.contains(says), "{}", condition.message);
    }
    for agent in [nul, other_key, lead, main] {
        database.agent_ready(agent).await;
    }
    let condition = database.agent_condition(long, FilesSynced, True, "FileTooLong").await;
    assert!(condition.message.contains("SOUL.md has"), "{}", condition.message);
    let corrected = format!("SELECT openclaw_session_id FROM agents WHERE id = '{other_key}'");
    let derived = format!("agent:mc-{other_key}:main");
    // The row follows the conditions, in a transaction of its own.
    eventually("the session key is corrected", PATIENCE, async || {
        (database.text(&corrected).await.as_ref() == Some(&derived)).then_some(())
    })
    .await;
    let events = format!(
        "SELECT message FROM openclaw_controller.events WHERE reason = 'SessionKeyCorrected' AND object_id = '{other_key}'"
    );
    let event = eventually("an event tells of the corrected key", PATIENCE, async || {
        let found: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(events.clone()))
            .fetch_optional(&database.pool)
            .await
            .unwrap();
        found
    })
    .await;
    assert!(event.contains("agent:main:main"), "{event}");
    assert!(
        fleet.good.sim.file("main", "AGENTS.md").is_none(),
        "the operator's own agent is left alone"
    );
    fleet.goes_on(&controller).await;

    // Putting the rows right is enough.
    for (_, agent, ..) in &bad {
        let cure = "heartbeat_config = NULL, identity_profile = NULL, soul_template = NULL";
        fleet.set_agent(*agent, cure).await;
    }
    database
        .execute(&format!(
            "UPDATE boards SET gateway_id = '{}' WHERE id = '{homeless}';
             UPDATE agents SET is_board_lead = false WHERE id = '{second_lead}';
             UPDATE agents SET board_id = '{}' WHERE id = '{second_main}';",
            fleet.gateway, fleet.board
        ))
        .await;
    let healed = bad.iter().map(|(_, agent, ..)| *agent);
    for agent in healed.chain([unplaced, second_lead, second_main]) {
        database.agent_ready(agent).await;
        let error = format!("SELECT last_provision_error FROM agents WHERE id = '{agent}'");
        eventually("the row tells of no error any more", PATIENCE, async || {
            database.text(&error).await.is_none().then_some(())
        })
        .await;
    }
    database.gateway_ready(fleet.gateway).await;
    controller.stop().await;
}
