//! `sync`: with a controller and without one, what it prints, and how it ends.

use std::process::Stdio;
use std::time::Duration;

use openclaw_controller::model::{AgentId, GatewayId};
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::token::{self, HashFormat};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use crate::Fleet;
use crate::support::process::{Process, command};
use crate::support::{Controller, Database, Options, PATIENCE, eventually};

const EXISTING: &str = include_str!("../existing_installation.sql");

const REQUESTS: &str = "SELECT count(*)::text FROM openclaw_controller.sync_requests";

const NO_MAIN: &str = "Gateway agent record not found; skipping gateway agent template sync.";

impl Fleet {
    /// The environment of a process that may have to do the work itself.
    fn work(&self) -> [(&str, &str); 2] {
        [
            ("DATABASE_URL", &self.database.url),
            ("OPENCLAW_CONTROLLER_BASE_URL", "http://mission.test"),
        ]
    }

    async fn main_agent(&self) -> AgentId {
        self.database.agent(self.gateway, None, "Main", false).await
    }

    async fn lease_is_held(&self) -> bool {
        let sql = "SELECT (count(*) > 0)::text FROM openclaw_controller.leases
                    WHERE holder IS NOT NULL AND expires_at > clock_timestamp()";
        self.database.text(sql).await.as_deref() == Some("true")
    }

    fn resets(&self, agent: &str) -> usize {
        let session = self.sim.session(&format!("agent:{agent}:main"));
        session.map_or(0, |session| session.resets)
    }
}

fn arguments<'a>(gateway: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["sync", "--gateway", gateway], more].concat()
}

/// What is printed for a fleet of one worker.
fn result(gateway: GatewayId, updated: usize, main: bool, errors: &Value) -> String {
    // The order of the keys is part of the contract.
    format!(
        r#"{{"gateway_id":"{gateway}","include_main":true,"reset_sessions":false,"agents_updated":{updated},"agents_skipped":0,"main_updated":{main},"errors":{errors}}}"#
    )
}

/// Printed JSON without its line breaks and indentation.
fn compact(text: &str) -> String {
    text.lines()
        .map(|line| line.trim_start().replacen("\": ", "\":", 1))
        .collect()
}

fn spawn(arguments: &[&str], environment: &[(&str, &str)], state: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_openclaw-controller"))
        .args(arguments)
        .env_clear()
        .env("STATE_DIRECTORY", state)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_has_the_running_controller_do_it_and_prints_the_contract_and_nothing_else() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_7_1).await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let main = fleet.main_agent().await;
    for agent in [fleet.agent, main] {
        fleet.database.agent_ready(agent).await;
    }
    let id = fleet.gateway.to_string();
    let (writes, restarts, old) = (fleet.sim.writes(), fleet.sim.restarts(), fleet.agent_token());
    // Where a controller runs its own settings count, so that these are not even looked at.
    let idle = arguments(&id, &["-o", "json", "--templates-dir", "/no/such/directory"]);
    let done = command(&idle, &fleet.environment()).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    assert_eq!(compact(&done.stdout), result(fleet.gateway, 1, true, &json!([])));
    assert_eq!((fleet.sim.writes(), fleet.sim.restarts()), (writes, restarts));

    let rotate = arguments(&id, &["--rotate-tokens", "--reset-sessions"]);
    let done = command(&rotate, &fleet.environment()).await;
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (Some(0), "1 agent updated, 0 skipped, main agent updated\n", "")
    );
    let new = fleet.agent_token();
    assert_ne!(old, new);
    assert_eq!(fleet.resets(&fleet.gateway_agent()), 1);
    let told = fleet.database.everything_told().await;
    assert!(!told.contains(&old) && !told.contains(&new), "a token was shown");
    let stored = "SELECT string_agg(r::text || coalesce(a::text, ''), ' ') FROM openclaw_controller.sync_requests r
                  LEFT JOIN openclaw_controller.sync_agents a ON a.sync_id = r.id";
    let stored = fleet.database.text(stored).await.unwrap();
    assert!(!stored.contains(&old) && !stored.contains(&new), "a token was stored");

    // Errors make it fail, and are told in the result.
    let board = Uuid::new_v4().to_string();
    let done = command(
        &arguments(&id, &["-o", "json", "--board", &board]),
        &fleet.environment(),
    )
    .await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(1), ""), "{done:?}");
    let errors = json!([{"agent_id": null, "agent_name": null, "board_id": null,
                         "message": "Board does not belong to this gateway."}]);
    let printed: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(printed["errors"], errors);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_does_the_work_itself_where_no_controller_runs_and_leaves_the_lease_behind() {
    for dialect in [SimDialect::V2026_7_1, SimDialect::V2026_9_6] {
        let fleet = Fleet::on(Database::migrated().await, dialect).await;
        let id = fleet.gateway.to_string();
        let first = command(&arguments(&id, &["-o", "json"]), &fleet.work()).await;
        assert_eq!((first.code, first.stderr.as_str()), (Some(1), ""), "{first:?}");
        let printed: Value = serde_json::from_str(&first.stdout).unwrap();
        assert_eq!(
            (&printed["agents_updated"], &printed["main_updated"]),
            (&json!(1), &json!(false))
        );
        assert_eq!(printed["errors"][0]["message"], NO_MAIN);
        assert!(!fleet.lease_is_held().await, "it gives the lease back");
        fleet.database.agent_ready(fleet.agent).await;
        let files = ["TOOLS.md", "AGENTS.md"].map(|file| fleet.sim.file(&fleet.gateway_agent(), file));
        assert!(files.iter().flatten().any(|text| text.contains("http://mission.test")));

        let (writes, restarts, old) = (fleet.sim.writes(), fleet.sim.restarts(), fleet.agent_token());
        let again = arguments(&id, &["--no-include-main"]);
        let again = command(&again, &fleet.work()).await;
        assert_eq!(
            (again.code, again.stdout.as_str(), again.stderr.as_str()),
            (Some(0), "1 agent updated, 0 skipped, main agent left out\n", "")
        );
        assert_eq!(
            (fleet.sim.writes(), fleet.sim.restarts()),
            (writes, restarts),
            "{dialect:?}"
        );
        let options = [
            "--include-main=false",
            "--rotate-tokens",
            "--reset-sessions",
            "-o",
            "json",
        ];
        let rotated = command(&arguments(&id, &options), &fleet.work()).await;
        assert_eq!(rotated.code, Some(0), "{rotated:?}");
        assert_ne!(fleet.agent_token(), old);
        assert_eq!(
            (fleet.resets(&fleet.gateway_agent()), fleet.sim.messages().len()),
            (1, 0)
        );
        assert!(!fleet.lease_is_held().await);
        // A controller that comes later finds nothing to do.
        let writes = fleet.sim.writes();
        let controller = Controller::start(&fleet.database.url, Options::default()).await;
        eventually("it leads", PATIENCE, async || {
            (controller.metric("leader_election_master_status", "").await > 0.0).then_some(())
        })
        .await;
        let done = command(&arguments(&id, &["--no-include-main"]), &fleet.environment()).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(fleet.sim.writes(), writes, "{dialect:?}");
        controller.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_takes_known_ids_and_settings_that_can_be_used() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let (known, unknown) = (fleet.gateway.to_string(), Uuid::new_v4().to_string());
    for (more, says) in [
        (&["sync"] as &[&str], "--gateway"),
        (&["sync", "--gateway", "Gatewy"], "do you mean \"Gateway\""),
        (
            &["sync", "--gateway", "Gateway", "--board", "Bored"],
            "there is no board",
        ),
        (&["sync", "--gateway", &unknown], "there is no gateway"),
        (
            &["sync", "--gateway", &known, "--user", &unknown],
            "it does not exist, so nothing was requested",
        ),
        (
            &["sync", "--gateway", &known, "--include-main", "--no-include-main"],
            "cannot be used with",
        ),
        (&["sync", "--gateway", &known, "--timeout", "soon"], "10m"),
        (&["sync", "--gateway", &known, "-o", "yaml"], "json"),
        (
            &["sync", "--gateway", &known, "--templates-dir", "/no/such/directory"],
            "/no/such/directory",
        ),
    ] {
        let refused = command(more, &fleet.environment()).await;
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (Some(2), ""),
            "{more:?}: {refused:?}"
        );
        assert!(refused.stderr.contains(says), "{more:?}: {refused:?}");
        if more.contains(&unknown.as_str()) {
            assert!(
                refused.stderr.contains(&unknown) && !refused.stderr.contains(&known),
                "{refused:?}"
            );
        }
    }
    assert_eq!(
        fleet.database.text(REQUESTS).await.as_deref(),
        Some("0"),
        "nothing is left to be done later"
    );
    assert!(!fleet.lease_is_held().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_waits_for_the_gateway_until_the_time_limit_and_says_so_in_the_result() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    fleet.sim.faults().refuse_connects();
    let id = fleet.gateway.to_string();
    let away = command(&arguments(&id, &["-o", "json", "--timeout", "2s"]), &fleet.work()).await;
    assert_eq!((away.code, away.stderr.as_str()), (Some(1), ""), "{away:?}");
    let printed: Value = serde_json::from_str(&away.stdout).unwrap();
    let message = printed["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Gateway unreachable after 2 seconds (template sync timeout). Last error: "),
        "{message}"
    );
    assert_eq!(printed["errors"].as_array().unwrap().len(), 1);
    let shown = command(&arguments(&id, &["--timeout", "2s"]), &fleet.work()).await;
    assert_eq!(shown.code, Some(1));
    assert!(
        shown
            .stdout
            .starts_with("0 agents updated, 0 skipped, main agent not updated; 1 error:\nAGENT"),
        "{shown:?}"
    );
    // One that comes back in time is synced.
    fleet.sim.faults().clear();
    fleet.sim.faults().refuse_next_connects(2);
    let back = command(&arguments(&id, &["--no-include-main"]), &fleet.work()).await;
    assert_eq!(back.code, Some(0), "{back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_in_the_middle_of_a_sync_is_succeeded_by_another_or_by_the_command_itself() {
    for successor in [true, false] {
        let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_7_1).await;
        let mut agents = vec![fleet.agent, fleet.main_agent().await];
        for name in ["Finch", "Heron", "Robin"] {
            agents.push(
                fleet
                    .database
                    .agent(fleet.gateway, Some(fleet.board), name, false)
                    .await,
            );
        }
        let controller = Process::run(&fleet.database.url, &[]);
        for agent in &agents {
            fleet.database.agent_ready(*agent).await;
        }
        let old = fleet.agent_token();
        // Some of it is done by then, and some is not.
        let middle = fleet.sim.freeze_after(25);
        let (id, state) = (fleet.gateway.to_string(), tempfile::TempDir::new().unwrap());
        let options = ["-o", "json", "--rotate-tokens", "--reset-sessions"];
        let syncing = spawn(&arguments(&id, &options), &fleet.work(), state.path());
        timeout(PATIENCE, middle).await.unwrap().unwrap();
        let done = fleet
            .database
            .text("SELECT count(*)::text FROM openclaw_controller.sync_requests WHERE finished_at IS NOT NULL")
            .await;
        assert_eq!(done.as_deref(), Some("0"), "it is in the middle");
        controller.signal(Signal::KILL);
        fleet.sim.thaw();
        let next = successor.then(|| Process::run(&fleet.database.url, &[]));
        let ended = timeout(PATIENCE, syncing.wait_with_output()).await.unwrap().unwrap();
        let printed = String::from_utf8(ended.stdout).unwrap();
        let printed: Value = serde_json::from_str(&printed).unwrap_or_else(|error| {
            panic!("{error}: {printed} {}", String::from_utf8_lossy(&ended.stderr));
        });
        assert_eq!(
            (
                &printed["agents_updated"],
                &printed["agents_skipped"],
                &printed["main_updated"]
            ),
            (&json!(4), &json!(0), &json!(true)),
            "{printed}"
        );
        // If a session was just being reset nobody can know whether it was, and it is told.
        let maybe = printed["errors"].as_array().unwrap();
        assert_eq!(ended.status.code(), Some(i32::from(!maybe.is_empty())), "{printed}");
        for agent in &agents {
            let name = if *agent == agents[1] {
                format!("mc-gateway-{}", fleet.gateway)
            } else {
                format!("mc-{agent}")
            };
            let told = maybe.iter().any(|error| error["agent_id"] == json!(agent));
            let resets = fleet.resets(&name);
            assert!(
                resets == 1 || (resets == 0 && told),
                "{name} was reset {resets} times: {printed}"
            );
        }
        assert_ne!(fleet.agent_token(), old);
        drop((controller, next));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_sync_of_this_process_and_nothing_is_left_to_be_done_later() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    fleet.sim.faults().always("config.get", Fault::NeverAnswer);
    let (id, state) = (fleet.gateway.to_string(), tempfile::TempDir::new().unwrap());
    let syncing = spawn(&arguments(&id, &[]), &fleet.work(), state.path());
    eventually("it is at work", PATIENCE, async || {
        let started = "SELECT count(*)::text FROM openclaw_controller.sync_requests WHERE started_at IS NOT NULL";
        (fleet.database.text(started).await.as_deref() == Some("1")).then_some(())
    })
    .await;
    let pid = i32::try_from(syncing.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let ended = timeout(PATIENCE, syncing.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(
        (ended.status.code(), ended.stdout.as_slice()),
        (Some(130), &[] as &[u8])
    );
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("no longer waiting; the sync was ended"), "{said}");
    assert_eq!(fleet.database.text(REQUESTS).await.as_deref(), Some("0"));
    assert!(!fleet.lease_is_held().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_waiting_for_a_controller_and_not_the_sync() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.database.agent_ready(fleet.agent).await;
    let old = fleet.agent_token();
    fleet.sim.faults().latency("config.get", Duration::from_secs(5));
    let (id, state) = (fleet.gateway.to_string(), tempfile::TempDir::new().unwrap());
    let syncing = spawn(&arguments(&id, &["--rotate-tokens"]), &fleet.work(), state.path());
    eventually("it is at work", PATIENCE, async || {
        let started = "SELECT count(*)::text FROM openclaw_controller.sync_requests WHERE started_at IS NOT NULL";
        (fleet.database.text(started).await.as_deref() == Some("1")).then_some(())
    })
    .await;
    let pid = i32::try_from(syncing.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let ended = timeout(PATIENCE, syncing.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("the sync goes on without this command"), "{said}");
    eventually("the sync is finished", PATIENCE, async || {
        let finished = "SELECT (result ->> 'agents_updated') FROM openclaw_controller.sync_requests";
        (fleet.database.text(finished).await.as_deref() == Some("1")).then_some(())
    })
    .await;
    assert_ne!(fleet.agent_token(), old);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_nothing_announces_is_found_at_the_next_resync() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_9_6).await;
    fleet
        .database
        .execute("ALTER TABLE openclaw_controller.sync_requests DISABLE TRIGGER hint")
        .await;
    let options = Options {
        resync: Duration::from_secs(3),
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    fleet.database.agent_ready(fleet.agent).await;
    let id = fleet.gateway.to_string();
    let done = command(&arguments(&id, &["--no-include-main"]), &fleet.environment()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_an_existing_installation_a_sync_without_templates_and_base_url_says_what_it_did_not_write() {
    let database = Database::empty().await;
    database.execute(EXISTING).await;
    let fleet = Fleet::on(database, SimDialect::V2026_7_1).await;
    let migrated = command(&["migrate"], &fleet.environment()).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let id = fleet.gateway_agent();
    let secret = token::mint();
    let hash = token::hash(&secret, HashFormat::Pbkdf2Sha256).unwrap();
    fleet
        .database
        .execute(&format!(
            "UPDATE agents SET agent_token_hash = '{hash}', status = 'online' WHERE id = '{}'",
            fleet.agent
        ))
        .await;
    let workspace = format!("/ws/workspace-{id}");
    fleet.sim.edit_config(|config| {
        config["agents"]["list"] = json!([{"id": "main"}, {"id": id, "name": "Wren", "workspace": workspace}]);
    });
    let tools = format!("# Tools\n\n- `AUTH_TOKEN={}`\n", secret.expose_secret());
    fleet.sim.edit_file(&id, "TOOLS.md", &tools);
    let gateway = fleet.gateway.to_string();
    for more in [&[] as &[&str], &["--rotate-tokens"]] {
        let more = [more, &["--no-include-main", "-o", "json"]].concat();
        let withheld = command(&arguments(&gateway, &more), &fleet.environment()).await;
        assert_eq!(withheld.code, Some(1), "{withheld:?}");
        let printed: Value = serde_json::from_str(&withheld.stdout).unwrap();
        assert_eq!(
            (&printed["agents_updated"], &printed["agents_skipped"]),
            (&json!(0), &json!(1))
        );
        assert_eq!(printed["errors"][0]["agent_id"], json!(fleet.agent));
        let message = printed["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("--templates-dir and --base-url"), "{message}");
        assert_eq!(fleet.sim.file(&id, "TOOLS.md").as_deref(), Some(tools.as_str()));
    }
    let asked = "SELECT count(*)::text FROM openclaw_controller.agent_requests WHERE rotate_requested_at IS NOT NULL";
    assert_eq!(fleet.database.text(asked).await.as_deref(), Some("0"));
}
