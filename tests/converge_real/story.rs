//! The story that every version lives through, one step after the other.

use std::fs;
use std::time::Instant;

use openclaw_controller::model::{ConditionStatus, ConditionType, FileName};
use openclaw_controller::token::{self, HashFormat};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::Row;
use uuid::Uuid;

use crate::binary::Running;
use crate::fixture::{Agent, Fixture, Shape, assert_kept, calls, count, templates, writes};
use crate::operator;
use crate::pausing;
use crate::support::{PATIENCE, eventually, everything_shown};

/// An agent of the operator's own.
const FOREIGN: &str = "ops-helper";

/// What a file holds that somebody has written over.
const SCRIBBLE: &str = "# Somebody was here\n";

/// As large as a template in a row may nearly be.
const LARGE: usize = 1_000_000;

pub(crate) async fn tell(version: &str, shape: Shape) {
    let clock = Instant::now();
    let step = |what: &str| println!("{version} {:6.1} s  {what}", clock.elapsed().as_secs_f64());
    let mut fixture = Fixture::new(version, shape).await;
    step("the gateway serves");
    let mut shown = before(&fixture).await;
    step("the plan was shown");
    let starts = fixture.starts();
    assert!(starts > 0, "the gateway's log tells when it began to serve");
    let controller = cold_start(&fixture).await;
    step("converged");
    nothing_is_written(&fixture, &controller).await;
    let restarts = restarts(&fixture, &controller, starts).await;
    step(&format!("three resyncs without a write, {restarts} restarts so far"));
    let adopted = adoption(&mut fixture, &controller).await;
    step("an existing agent was adopted");
    let ours: Vec<_> = fixture.fleet().into_iter().cloned().chain([adopted.clone()]).collect();
    let ours: Vec<_> = ours.iter().collect();
    let rest = fixture.rest_of_config(&ours).await;
    drift(&fixture, &controller).await;
    step("drift was put back");
    pausing::tell(&fixture, &controller).await;
    step("a board was paused and went on");
    edits_during_a_restart(&fixture, &adopted).await;
    step("edits made while the gateway was down have arrived");
    refused_heartbeat(&fixture, &adopted).await;
    step("a refused heartbeat was told, and held up nobody");
    fixture.note_secrets();
    shown.push_str(&everything_shown(controller.address).await);
    controller.stop().await;
    let (controller, text) = other_templates(&mut fixture, &ours).await;
    shown.push_str(&text);
    step("other templates were written");
    assert_eq!(
        fixture.rest_of_config(&ours).await,
        rest,
        "the rest of the config is the operator's"
    );
    assert_eq!(
        fixture.gateway.read_file(FOREIGN, "SOUL.md").unwrap().as_deref(),
        Some("The operator's own.")
    );
    main_is_still_the_default(&fixture).await;
    nothing_is_written(&fixture, &controller).await;
    assert_eq!(
        fixture.starts(),
        starts + restarts + 1,
        "the gateway restarted when it was told to, and for nothing else"
    );
    shown.push_str(&everything_shown(controller.address).await);
    controller.stop().await;
    shown.push_str(&after(&fixture).await);
    step("nothing is left to do");
    fixture.note_secrets();
    no_secret_was_shown(&fixture, &shown).await;
    step("no secret was shown");
}

/// `diff` shows a plan for a fleet that is not there yet, and changes nothing.
async fn before(fixture: &Fixture) -> String {
    let config = fs::read(fixture.gateway.config_path()).unwrap();
    let rows = fixture.rows().await;
    let (code, text) = fixture.environment.run(&["diff"]).await;
    assert_eq!(code, 1, "{text}");
    for agent in fixture.fleet() {
        assert!(text.contains(&format!("+ agent {}", agent.id)), "{text}");
        assert!(text.contains(&format!("+++ {}/AGENTS.md", agent.id)), "{text}");
    }
    assert!(text.contains("a new token would be made"), "{text}");
    assert_eq!(fs::read(fixture.gateway.config_path()).unwrap(), config);
    assert_eq!(fixture.rows().await, rows);
    assert_eq!(fs::read_dir(fixture.gateway.workspace_root()).unwrap().count(), 0);
    text
}

/// The whole fleet arrives by one patch, and the gateway restarts at most once for it.
pub(crate) async fn cold_start(fixture: &Fixture) -> Running {
    let before = fixture.config().await;
    let controller = Running::start(&fixture.environment);
    fixture.database.gateway_ready(fixture.row).await;
    for agent in fixture.fleet() {
        fixture.database.agent_ready(agent.row).await;
    }
    let page = controller.page("/metrics").await;
    assert_eq!(calls(&page, "config.patch"), 1, "one patch for all");

    assert_kept(&before, &fixture.config().await, "");
    main_is_still_the_default(fixture).await;
    for agent in fixture.fleet() {
        let entry = fixture.entry(&agent.id).await.unwrap();
        let workspace = fixture.gateway.workspace(&agent.slug).display().to_string();
        assert_eq!(entry["workspace"], workspace.as_str());
        assert_eq!(entry["heartbeat"]["every"], "10m");
        assert_eq!(
            fixture.column(agent, "openclaw_session_id").await,
            format!("agent:{}:main", agent.id)
        );
        for file in ["AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "MEMORY.md"] {
            let text = fixture.file(agent, file).unwrap();
            assert!(!text.is_empty() && !text.contains("__OPENCLAW"), "{file}: {text}");
        }
        fixture.token(agent).await;
    }
    assert!(fixture.file(&fixture.lead, "BOOTSTRAP.md").is_some());
    assert!(fixture.file(&fixture.wren, "AGENTS.md").unwrap().contains("Wren"));
    controller
}

/// How often the gateway has restarted for the cold start: at most once, and the controller knows.
async fn restarts(fixture: &Fixture, controller: &Running, starts: usize) -> usize {
    let restarts = fixture.starts() - starts;
    let allowed = usize::from(fixture.shape == Shape::List);
    assert!(restarts <= allowed, "the gateway restarted {restarts} times");
    let counted = controller
        .metric("openclaw_controller_gateway_restarts_caused_total", "")
        .await;
    assert_eq!(count(counted), restarts as u64, "restarts are counted");
    restarts
}

/// Three resyncs pass without a write to the gateway, its config, its files or the database.
pub(crate) async fn nothing_is_written(fixture: &Fixture, controller: &Running) {
    let (calls, rows) = (writes(controller).await, fixture.rows().await);
    let config = fs::read(fixture.gateway.config_path()).unwrap();
    controller.resyncs(3, fixture.fleet().len()).await;
    assert_eq!(writes(controller).await, calls, "calls that write");
    assert_eq!(fixture.rows().await, rows, "rows");
    assert_eq!(fs::read(fixture.gateway.config_path()).unwrap(), config, "the config");
}

pub(crate) async fn main_is_still_the_default(fixture: &Fixture) {
    let agents = operator::agents(&fixture.gateway).await;
    assert_eq!(agents.default_id.unwrap().as_str(), "main");
    assert!(agents.ids.iter().any(|id| id.as_str() == "main"));
}

/// The operator has added an agent, and one that turns out to be ours, with files and a token: it keeps its token and what
/// is its own.
async fn adoption(fixture: &mut Fixture, controller: &Running) -> Agent {
    let id = Uuid::new_v4();
    let name = format!("mc-{id}");
    let workspace = |slug: &str| fixture.gateway.workspace(slug).display().to_string();
    let patch = fixture.shape.roster(&[
        (
            FOREIGN,
            json!({"name": "Ops", "workspace": workspace(FOREIGN), "heartbeat": {"every": "2h"}}),
        ),
        (
            &name,
            json!({"name": "Old Name", "workspace": workspace(&name), "heartbeat": {"every": "1h"}}),
        ),
    ]);
    operator::patch(&fixture.gateway, &patch).await;
    let secret = token::mint();
    let secret = secret.expose_secret();
    let (token_file, holds_token) = match fixture.shape {
        Shape::List => (FileName::Tools, format!("# Tools\n\n- `AUTH_TOKEN={secret}`\n")),
        Shape::Entries => (
            FileName::Agents,
            format!("# Agents\n\n## Tools\n\nAUTH_TOKEN: {secret}\n"),
        ),
    };
    operator::write(&fixture.gateway, FOREIGN, &[(FileName::Soul, "The operator's own.")]).await;
    let files = [
        (token_file, holds_token.as_str()),
        (FileName::Soul, "An old soul."),
        (FileName::User, "What it knows of its user."),
        (FileName::Memory, "What it remembers."),
    ];
    operator::write(&fixture.gateway, &name, &files).await;
    let hash = token::hash(&secret.to_owned().into(), HashFormat::Pbkdf2Sha256).unwrap();
    let patches = calls(&controller.page("/metrics").await, "config.patch");
    let agent = fixture.row_of_existing(id, "Robin", &hash).await;
    fixture.database.agent_ready(agent.row).await;
    fixture.entry_becomes(&agent.id, |entry| entry["name"] == "Robin").await;
    // The config is there before the gateway answers.
    controller.resyncs(1, fixture.fleet().len()).await;
    let page = controller.page("/metrics").await;
    assert_eq!(calls(&page, "config.patch") - patches, 1, "one patch");
    assert_eq!(fixture.entry(&agent.id).await.unwrap()["heartbeat"]["every"], "10m");
    assert_eq!(fixture.token(&agent).await, secret, "it keeps its token");
    assert_eq!(fixture.column(&agent, "agent_token_hash").await, hash);
    fixture
        .file_becomes(&agent, "SOUL.md", |text| text != "An old soul.")
        .await;
    let text = |name| fixture.file(&agent, name).unwrap();
    assert_eq!(text("USER.md"), "What it knows of its user.");
    assert_eq!(text("MEMORY.md"), "What it remembers.");
    assert_eq!(fixture.entry(FOREIGN).await.unwrap()["name"], "Ops");
    fixture.secrets.insert(secret.to_owned());
    agent
}

/// What somebody changes on the gateway is put back at the next resync; what belongs to an agent is not.
pub(crate) async fn drift(fixture: &Fixture, controller: &Running) {
    let (gateway, wren, finch, heron) = (&fixture.gateway, &fixture.wren, &fixture.finch, &fixture.heron);
    let mut edited = vec![
        (wren, "SOUL.md"),
        (wren, "IDENTITY.md"),
        (finch, "AGENTS.md"),
        (&fixture.main, "USER.md"),
    ];
    let mut deleted = vec![(heron, fixture.shape.token_file()), (heron, "IDENTITY.md")];
    match fixture.shape {
        Shape::List => {
            edited.extend([(wren, "HEARTBEAT.md"), (finch, "TOOLS.md")]);
            deleted.push((wren, "AGENTS.md"));
        }
        Shape::Entries => deleted.push((finch, "SOUL.md")),
    }
    let tokens = [fixture.token(finch).await, fixture.token(heron).await];
    let whole = |list: &[(&Agent, &'static str)]| -> Vec<_> {
        list.iter()
            .map(|(agent, file)| ((*agent).clone(), *file, fixture.file(agent, file).unwrap()))
            .collect()
    };
    let expected: Vec<_> = whole(&edited).into_iter().chain(whole(&deleted)).collect();
    let entry = fixture.entry(&wren.id).await.unwrap();

    for file in ["USER.md", "MEMORY.md"] {
        gateway.write_file(&wren.slug, file, SCRIBBLE).unwrap();
    }
    // The agent deletes it once it has read it.
    gateway.delete_file(&fixture.lead.slug, "BOOTSTRAP.md").unwrap();
    for (agent, file) in &edited {
        gateway.write_file(&agent.slug, file, SCRIBBLE).unwrap();
    }
    for (agent, file) in &deleted {
        gateway.delete_file(&agent.slug, file).unwrap();
    }
    let patch = fixture
        .shape
        .roster(&[(&wren.id, json!({"heartbeat": {"every": "3h"}}))]);
    operator::patch(gateway, &patch).await;

    for (agent, file, text) in &expected {
        fixture.file_becomes(agent, file, |now| now == text).await;
    }
    fixture.entry_becomes(&wren.id, |now| *now == entry).await;
    controller.resyncs(1, fixture.fleet().len()).await;
    assert_eq!([fixture.token(finch).await, fixture.token(heron).await], tokens);
    for file in ["USER.md", "MEMORY.md"] {
        assert_eq!(
            fixture.file(wren, file).as_deref(),
            Some(SCRIBBLE),
            "{file} is the agent's"
        );
    }
    assert_eq!(fixture.file(&fixture.lead, "BOOTSTRAP.md"), None);
    for agent in fixture.fleet() {
        fixture.database.agent_ready(agent.row).await;
    }
}

/// The gateway goes away under the controller, which says so; what is changed meanwhile arrives when it is back.
async fn edits_during_a_restart(fixture: &Fixture, adopted: &Agent) {
    let database = &fixture.database;
    fixture.gateway.stop().await.unwrap();
    eventually("the outage is told", PATIENCE, async || {
        let conditions = database.gateway_conditions(fixture.row).await;
        let reachable = conditions.get(ConditionType::Reachable)?;
        (reachable.status == ConditionStatus::False).then_some(())
    })
    .await;
    let edits = [
        Fixture::set(&fixture.finch, "name = 'Finch the Second'"),
        Fixture::set(&fixture.heron, &format!("board_id = '{}'", fixture.alpha)),
        Fixture::set(&fixture.lead, r#"heartbeat_config = '{"every": "25m"}'"#),
        Fixture::set(
            &fixture.wren,
            &format!("soul_template = repeat('0123456789', {})", LARGE / 10),
        ),
        Fixture::set(adopted, "heartbeat_config = '[1]'"),
    ];
    database.execute(&edits.concat()).await;
    let token = fixture.file(&fixture.heron, fixture.shape.token_file());
    fixture.gateway.start_again().await.unwrap();

    fixture
        .entry_becomes(&fixture.finch.id, |entry| entry["name"] == "Finch the Second")
        .await;
    fixture
        .file_becomes(&fixture.finch, "AGENTS.md", |text| text.contains("Finch the Second"))
        .await;
    fixture
        .file_becomes(&fixture.finch, "IDENTITY.md", |text| text.contains("Finch the Second"))
        .await;
    fixture
        .file_becomes(&fixture.heron, "AGENTS.md", |text| {
            text.contains("alpha") && text.contains(&fixture.alpha.to_string()) && !text.contains("beta")
        })
        .await;
    assert!(token.is_some());
    fixture.token(&fixture.heron).await;
    fixture
        .entry_becomes(&fixture.lead.id, |entry| entry["heartbeat"]["every"] == "25m")
        .await;
    fixture
        .file_becomes(&fixture.wren, "SOUL.md", |text| text.len() == LARGE)
        .await;
    let too_long = database
        .agent_condition(
            fixture.wren.row,
            ConditionType::FilesSynced,
            ConditionStatus::True,
            "FileTooLong",
        )
        .await;
    assert!(too_long.message.contains("SOUL.md"), "{}", too_long.message);
    let wrong = database
        .agent_condition(
            adopted.row,
            ConditionType::Registered,
            ConditionStatus::False,
            "InvalidHeartbeat",
        )
        .await;
    assert!(wrong.message.contains("heartbeat_config"), "{}", wrong.message);
    assert_eq!(
        fixture.entry(&adopted.id).await.unwrap()["heartbeat"]["every"],
        "10m",
        "its heartbeat stays what it was"
    );
    database.gateway_ready(fixture.row).await;
    for agent in fixture.fleet() {
        database.agent_ready(agent.row).await;
    }
}

/// A heartbeat that only the gateway finds wrong is told on its agent; the others' changes arrive all the same.
async fn refused_heartbeat(fixture: &Fixture, adopted: &Agent) {
    let database = &fixture.database;
    let hours = r#"{"activeHours": {"start": "08:00", "end": "18:00", "days": ["monday"]}}"#;
    let edits = [
        Fixture::set(adopted, &format!("heartbeat_config = '{hours}'")),
        Fixture::set(&fixture.heron, r#"heartbeat_config = '{"every": "40m"}'"#),
    ];
    database.execute(&edits.concat()).await;
    let refused = database
        .agent_condition(
            adopted.row,
            ConditionType::Registered,
            ConditionStatus::False,
            "HeartbeatRefused",
        )
        .await;
    assert!(refused.message.contains("activeHours"), "{}", refused.message);
    fixture
        .entry_becomes(&fixture.heron.id, |entry| entry["heartbeat"]["every"] == "40m")
        .await;
    let entry = fixture.entry(&adopted.id).await.unwrap();
    assert_eq!(entry["heartbeat"].get("activeHours"), None);
    database.gateway_ready(fixture.row).await;
    database
        .execute(&Fixture::set(adopted, "heartbeat_config = NULL"))
        .await;
    eventually("the corrected row is ready", PATIENCE, async || {
        let conditions = database.agent_conditions(adopted.row).await;
        let healed = conditions.get(ConditionType::Registered)?.reason == "InRoster";
        (healed && conditions.is_true(ConditionType::Ready)).then_some(())
    })
    .await;
}

/// A controller with other templates writes the files that differ under them, and nothing else.
async fn other_templates(fixture: &mut Fixture, ours: &[&Agent]) -> (Running, String) {
    // A token of nobody's, in the place of an agent's.
    let stranger = token::mint();
    let (heron, file) = (fixture.heron.clone(), fixture.shape.token_file());
    let whole = fixture.file(&heron, file).unwrap();
    let scribble = format!("{SCRIBBLE}\nAUTH_TOKEN={}\n", stranger.expose_secret());
    fixture.gateway.write_file(&heron.slug, file, &scribble).unwrap();
    fixture.secrets.insert(stranger.expose_secret().to_owned());

    let directory = fixture.environment.directory.clone();
    fixture.environment.templates = Some(templates(&directory, "You are {{ agent_name }}, and new.\n"));
    let (code, mut shown) = fixture.environment.run(&["diff"]).await;
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("+You are Heron, and new."), "{shown}");
    assert!(shown.contains("-# Somebody was here"), "{shown}");
    let (code, json) = fixture.environment.run(&["diff", "-o", "json"]).await;
    assert_eq!(code, 1, "{json}");
    serde_json::from_str::<Value>(&json).unwrap();
    shown.push_str(&json);
    fixture.gateway.write_file(&heron.slug, file, &whole).unwrap();

    let controller = Running::start(&fixture.environment);
    // Wren's row has a template of its own.
    let follow: Vec<_> = ours.iter().filter(|agent| agent.id != fixture.wren.id).collect();
    for agent in &follow {
        fixture
            .file_becomes(agent, "SOUL.md", |text| text.trim_end().ends_with(", and new."))
            .await;
    }
    controller.resyncs(1, ours.len()).await;
    let page = controller.page("/metrics").await;
    assert_eq!(calls(&page, "agents.files.set"), follow.len() as u64);
    assert_eq!(calls(&page, "config.patch"), 0);
    (controller, shown)
}

/// `diff` finds nothing, and `get` lists everything.
async fn after(fixture: &Fixture) -> String {
    let (code, mut shown) = fixture.environment.run(&["diff"]).await;
    assert_eq!((code, shown.as_str()), (0, ""), "nothing is left to do");
    for kind in ["gateways", "boards", "agents"] {
        for format in ["wide", "json"] {
            let (code, text) = fixture.environment.run(&["get", kind, "-o", format]).await;
            assert_eq!(code, 0, "{text}");
            shown.push_str(&text);
        }
    }
    shown
}

/// Neither tokens of agents, nor the gateway's, nor the database's password stand in anything that was printed, logged,
/// served or stored; and those that are searched for are really those that were in use.
pub(crate) async fn no_secret_was_shown(fixture: &Fixture, shown: &str) {
    let agents = fixture.fleet().len() + 1;
    assert!(fixture.secrets.len() >= agents + 2, "{} secrets", fixture.secrets.len());
    let log = fs::read_to_string(fixture.environment.log()).unwrap();
    assert!(
        log.contains("\"DEBUG\"") && log.contains("patching the config"),
        "the log is whole"
    );
    let dump = fixture.dump().await;
    assert!(dump.contains("ReadBackEqual"), "the dump is whole");
    let gateway_token = sqlx::query("SELECT token FROM gateways")
        .fetch_one(&fixture.database.pool)
        .await
        .unwrap();
    assert!(fixture.secrets.contains(gateway_token.get::<&str, _>(0)));
    for (what, text) in [("log", &log), ("output", &shown.to_owned()), ("database", &dump)] {
        for secret in &fixture.secrets {
            let Some(at) = text.find(secret.as_str()) else { continue };
            let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let line = text[start..]
                .lines()
                .next()
                .unwrap()
                .replace(secret.as_str(), "(the secret)");
            panic!(
                "the {what} shows a secret: {}",
                line.chars().take(2000).collect::<String>()
            );
        }
    }
}
