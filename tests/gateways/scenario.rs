//! One fleet on a gateway that is as people run them: it arrives, is edited, drifts, gets new tokens, and loses an agent.

use openclaw_controller::gateway::{GatewayError, probe};
use openclaw_controller::lab::RealGateway;
use openclaw_controller::model::{ConditionStatus, ConditionType, Effect};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Environment, Running, texts};
use crate::facts::Facts;
use crate::fixture::{Agent, Fixture, Shape, calls, count};
use crate::operator;
use crate::removal;
use crate::report::{Report, guarded};
use crate::story;
use crate::support::Database;

/// The row of the table that says how often the gateway restarted for the cold start.
const RESTARTS: &str = "restarts in the cold start";

/// The steps, each of which needs those before it.
const STEPS: [&str; 8] = [
    "scenario::cold_start",
    "scenario::restarts_are_only_those_that_are_needed",
    "scenario::nothing_is_written_when_nothing_changes",
    "scenario::edit",
    "scenario::drift",
    "scenario::rotation",
    "scenario::delete",
    "scenario::no_secret_was_shown",
];

/// A gateway that cannot be provisioned is refused by name with a reason, and nothing is written to it.
pub(crate) async fn refusal(report: &mut Report, version: &str, error: &GatewayError) {
    report.told(version, "refused", error.reason());
    let check = async {
        let gateway = RealGateway::start(version, crate::everyday()).await.unwrap();
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let root = gateway.workspace_root().display().to_string();
        let row = database
            .gateway(organization, &gateway.url(), gateway.token(), &root)
            .await;
        database.agent(row, None, "Gateway Agent", false).await;
        let config = std::fs::read(gateway.config_path()).unwrap();
        let directory = TempDir::new().unwrap();
        let controller = Running::start(&Environment {
            database_url: database.url.clone(),
            directory: directory.path().to_owned(),
            templates: None,
            prune: false,
        });
        let told = database
            .gateway_condition(row, ConditionType::Compatible, ConditionStatus::False, error.reason())
            .await;
        assert!(told.message.contains(error.message()), "{}", told.message);
        assert_eq!(
            std::fs::read(gateway.config_path()).unwrap(),
            config,
            "nothing is written"
        );
        controller.stop().await;
        println!("{:>12}{}", "", told.message);
    };
    let result = guarded(check).await;
    report.line(version, "scenario::it_is_refused_with_a_reason", result);
}

/// What the steps share.
struct Play {
    fixture: Fixture,
    controller: Running,
    /// How often the gateway had begun to serve before the controller came.
    starts: usize,
    shown: String,
}

/// Plays the scenario on one version, and reports it step by step.
pub(crate) async fn play(report: &mut Report, version: &str, facts: &Facts, only: &str) {
    if !STEPS.iter().any(|step| step.contains(only)) {
        return;
    }
    let shape = if facts.has_entries() {
        Shape::Entries
    } else {
        Shape::List
    };
    let begin = async {
        let fixture = Fixture::with(version, shape, true).await;
        let starts = fixture.starts();
        assert!(starts > 0, "the gateway's log tells when it began to serve");
        let controller = story::cold_start(&fixture).await;
        Play {
            fixture,
            controller,
            starts,
            shown: String::new(),
        }
    };
    let [first, rest @ ..] = STEPS;
    let mut play = match guarded(begin).await {
        Ok(play) => {
            report.line(version, first, Ok(()));
            play
        }
        Err(why) => {
            report.red(version, first, &why);
            for step in rest {
                report.not_run(version, step);
            }
            return;
        }
    };
    let mut steps = rest.iter();
    for step in steps.by_ref() {
        let result = match *step {
            "scenario::restarts_are_only_those_that_are_needed" => {
                let restarts = guarded(restarts(&play)).await;
                restarts.map(|seen| report.told(version, RESTARTS, &seen.to_string()))
            }
            "scenario::nothing_is_written_when_nothing_changes" => {
                guarded(story::nothing_is_written(&play.fixture, &play.controller)).await
            }
            "scenario::edit" => guarded(edit(&play)).await,
            "scenario::drift" => guarded(story::drift(&play.fixture, &play.controller)).await,
            "scenario::rotation" => guarded(rotation(&mut play)).await,
            "scenario::delete" => guarded(delete(&play, facts)).await,
            _ => guarded(secrets(&mut play)).await,
        };
        let failed = result.is_err();
        report.line(version, step, result);
        if failed {
            break;
        }
    }
    for step in steps {
        report.not_run(version, step);
    }
    // Whatever has failed, the controller must still end when asked to.
    if let Err(why) = guarded(play.controller.stop()).await {
        report.red(version, "scenario::the_controller_stops", &why);
    }
}

/// At most one restart, none where every change that was needed is hot, and the controller has counted right.
async fn restarts(play: &Play) -> usize {
    let Play {
        fixture, controller, ..
    } = play;
    // An old gateway restarts two seconds after it has answered.
    controller.resyncs(3, fixture.fleet().len()).await;
    let seen = fixture.starts() - play.starts;
    let client = operator::connect(&fixture.gateway).await;
    let dialect = probe(&client).await.unwrap();
    client.close();
    let effects = [dialect.roster_effect, dialect.tools_effect, dialect.channels_effect];
    let allowed = usize::from(effects.contains(&Effect::Restart));
    assert!(seen <= allowed, "{seen} restarts, where {allowed} were needed");
    let counted = controller
        .metric("openclaw_controller_gateway_restarts_caused_total", "")
        .await;
    assert_eq!(count(counted), seen as u64, "restarts are counted");
    seen
}

/// An edit of a text is a file and nothing else; a name and a heartbeat are one patch of the config.
async fn edit(play: &Play) {
    let Play {
        fixture, controller, ..
    } = play;
    let patches = async || calls(&controller.page("/metrics").await, "config.patch");
    let (before, starts) = (patches().await, fixture.starts());
    let (wren, finch) = (&fixture.wren, &fixture.finch);
    let database = &fixture.database;
    database
        .execute(&Fixture::set(
            wren,
            "soul_template = 'You are {{ agent_name }}, and edited.'",
        ))
        .await;
    fixture
        .file_becomes(wren, "SOUL.md", |text| text.trim() == "You are Wren, and edited.")
        .await;
    database.agent_ready(wren.row).await;
    assert_eq!(patches().await, before, "a file needs no patch");
    assert_eq!(fixture.starts(), starts, "and no restart");

    let edits = [
        Fixture::set(finch, "name = 'Finch the Second'"),
        Fixture::set(&fixture.heron, r#"heartbeat_config = '{"every": "40m"}'"#),
    ];
    database.execute(&edits.concat()).await;
    fixture
        .entry_becomes(&finch.id, |entry| entry["name"] == "Finch the Second")
        .await;
    fixture
        .entry_becomes(&fixture.heron.id, |entry| entry["heartbeat"]["every"] == "40m")
        .await;
    fixture
        .file_becomes(finch, "IDENTITY.md", |text| text.contains("Finch the Second"))
        .await;
    controller.resyncs(3, fixture.fleet().len()).await;
    database.gateway_ready(fixture.row).await;
    for agent in fixture.fleet() {
        database.agent_ready(agent.row).await;
    }
    assert_eq!(patches().await - before, 1, "one patch for all");
    assert!(fixture.starts() - starts <= 1, "one restart at most for one patch");
}

/// Every agent gets a new token, and no file holds an old one.
async fn rotation(play: &mut Play) {
    play.fixture.note_secrets();
    let fixture = &play.fixture;
    let agents: Vec<Agent> = fixture.fleet().into_iter().cloned().collect();
    let mut old = Vec::new();
    for agent in &agents {
        old.push(fixture.token(agent).await);
    }
    let (code, text) = fixture.environment.run(&["rotate-token", "--all", "--wait"]).await;
    assert_eq!(code, 0, "{text}");
    for (agent, old) in agents.iter().zip(&old) {
        assert_ne!(fixture.token(agent).await, *old);
    }
    for text in texts(&fixture.gateway.workspace_root(), ".md") {
        assert!(
            !old.iter().any(|old| text.contains(old)),
            "an old token is still in a file"
        );
    }
    for agent in &agents {
        fixture.database.agent_ready(agent.row).await;
    }
    play.shown.push_str(&text);
    play.fixture.note_secrets();
}

/// One agent goes with its files and its session, the others stay as they are, and the gateway does not restart for it.
async fn delete(play: &Play, facts: &Facts) {
    let Play {
        fixture, controller, ..
    } = play;
    let root = fixture.gateway.workspace_root();
    let others = [&fixture.main, &fixture.lead, &fixture.wren, &fixture.heron];
    let (mut before, starts) = (removal::state(fixture, &root, &others).await, fixture.starts());
    removal::request(fixture, &fixture.finch).await;
    removal::gone(fixture, &root, &fixture.finch).await;
    let mut after = removal::state(fixture, &root, &others).await;
    if facts.removals_stay == Some(false) {
        // 2026.2.26 writes back the config that it has loaded, with its own defaults in it.
        let [was, is] = [&mut before, &mut after].map(|state| state.remove("config").unwrap());
        let [was, is]: [Value; 2] = [was, is].map(|config| serde_json::from_str(&config).unwrap());
        assert!(holds(&is, &was), "{was} is not in {is}");
    }
    assert_eq!(after, before, "the others stay as they are");
    story::nothing_is_written(fixture, controller).await;
    assert_eq!(fixture.starts(), starts, "the gateway does not restart for it");
}

/// Nothing that was logged, printed, served or stored holds a token or a password.
async fn secrets(play: &mut Play) {
    play.fixture.note_secrets();
    play.shown.push_str(&play.controller.page("/metrics").await);
    story::no_secret_was_shown(&play.fixture, &play.shown).await;
}

/// Whether a value has all that another one has.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part))),
        _ => whole == part,
    }
}
