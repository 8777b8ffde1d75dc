//! The binary as a person and a supervisor meet it: help, exit codes, output, configuration, metrics, logs; and what it does
//! beside an existing installation.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test says by a panic what went wrong")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use openclaw_controller::lab;
use openclaw_controller::model::{AgentId, BoardId, ConditionStatus, ConditionType, GatewayId};
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use openclaw_controller::token::{self, HashFormat};
use rustix::process::Signal;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use support::process::{Process, command};
use support::{Controller, Database, Options, PATIENCE, eventually};
use tempfile::TempDir;
use uuid::Uuid;

use ConditionStatus::False;
use ConditionType::FilesSynced;

const TOKEN: &str = "the-gateways-token-3f9c";
const EXISTING: &str = include_str!("existing_installation.sql");

/// One organisation, gateway, board and agent.
struct Fleet {
    database: Database,
    sim: SimGateway,
    server: SimServer,
    gateway: GatewayId,
    board: BoardId,
    agent: AgentId,
}

impl Fleet {
    async fn on(database: Database, dialect: SimDialect) -> Self {
        let sim = SimGateway::new(dialect, TOKEN);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let organization = database.organization().await;
        let gateway = database.gateway(organization, &server.url(), TOKEN, "/ws").await;
        let board = database.board(organization, Some(gateway), "Board").await;
        let agent = database.agent(gateway, Some(board), "Wren", false).await;
        Self {
            database,
            sim,
            server,
            gateway,
            board,
            agent,
        }
    }

    fn gateway_agent(&self) -> String {
        format!("mc-{}", self.agent)
    }

    fn environment(&self) -> [(&str, &str); 1] {
        [("DATABASE_URL", &self.database.url)]
    }

    /// The token that the agent has, from where the gateway's dialect keeps it.
    fn agent_token(&self) -> String {
        let text = ["TOOLS.md", "AGENTS.md"]
            .iter()
            .find_map(|file| self.sim.file(&self.gateway_agent(), file))
            .unwrap();
        token::extract(&text).tokens()[0].expose_secret().to_owned()
    }
}

fn password(url: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    url.password().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_of_every_command_teaches() {
    let main = command(&["--help"], &[]).await;
    assert_eq!(main.code, Some(0));
    for word in ["run", "migrate", "diff", "get", "demo", "DATABASE_URL", "Examples:"] {
        assert!(main.stdout.contains(word), "{word} is not in\n{}", main.stdout);
    }
    for (name, words) in [
        (
            "run",
            &[
                "Examples:",
                "Exit code",
                "SIGTERM",
                "OPENCLAW_CONTROLLER_RESYNC_INTERVAL",
                "10m",
            ] as &[_],
        ),
        ("migrate", &["Examples:", "Exit code", "existing installation"]),
        ("diff", &["Examples:", "Exit code 0", "redacted", "--gateway"]),
        ("get", &["Examples:", "Exit code", "wide", "json"]),
        ("demo", &["Examples:", "--gateway"]),
    ] {
        let help = command(&[name, "--help"], &[]).await;
        assert_eq!(help.code, Some(0));
        // Wherever lines are broken.
        let text = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(text.contains(word), "{name}: {word} is not in\n{}", help.stdout);
        }
    }
    let help = command(&["run", "--help"], &[]).await.stdout;
    for name in [
        "LISTEN",
        "BASE_URL",
        "RESYNC_INTERVAL",
        "DEVICE_IDENTITY",
        "TEMPLATES_DIR",
        "TOKEN_HASH",
    ] {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        assert!(help.contains(&flag), "{flag} is not in\n{help}");
        assert!(help.contains(&format!("OPENCLAW_CONTROLLER_{name}")), "{name}");
    }
    let version = command(&["--version"], &[]).await;
    assert!(version.stdout.starts_with("openclaw-controller "), "{}", version.stdout);
    assert_eq!(command(&["runn"], &[]).await.code, Some(2));
    assert_eq!(command(&[], &[]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_says_what_it_did_and_what_is_in_the_way() {
    let database = Database::empty().await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    let first = command(&["migrate"], &environment).await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(first.stdout.contains("created all tables"), "{}", first.stdout);
    let second = command(&["migrate"], &environment).await;
    assert_eq!(
        (second.code, second.stdout.as_str()),
        (Some(0), "the database is up to date\n")
    );

    let database = Database::empty().await;
    database.execute("CREATE VIEW agents AS SELECT 1 AS id").await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    for arguments in [&["migrate"] as &[_], &["run", "--listen", "127.0.0.1:0"]] {
        let blocked = command(arguments, &environment).await;
        assert_eq!(blocked.code, Some(2), "{}", blocked.stderr);
        let says = "agents is a view, a table is needed";
        assert!(blocked.stderr.contains(says), "{}", blocked.stderr);
        assert!(blocked.stderr.contains("nothing was changed"), "{}", blocked.stderr);
        assert!(!blocked.stderr.contains(&password(&database.url)));
    }
    let objects = "SELECT string_agg(oid::regclass::text, ' ') FROM pg_class
                    WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'openclaw_controller'))";
    assert_eq!(database.text(objects).await.as_deref(), Some("agents"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_named_not_there_or_not_migrated_is_told_without_its_password() {
    let database = Database::empty().await;
    let nowhere = format!("postgres://me:hunter2@127.0.0.1:{}/x", lab::free_port().unwrap());
    let wrong = database.url.replace(&password(&database.url), "hunter2");
    for arguments in [&["diff"] as &[_], &["get", "agents"], &["migrate"]] {
        let migrates = arguments == ["migrate"];
        for (url, says) in [
            ("", "DATABASE_URL is not set"),
            ("mysql://me:hunter2@h/d", "postgres://user:password@host"),
            (nowhere.as_str(), "cannot reach the database"),
            (wrong.as_str(), "password authentication failed"),
            (
                database.url.as_str(),
                if migrates {
                    ""
                } else {
                    "run `openclaw-controller migrate`"
                },
            ),
        ] {
            let environment = [("DATABASE_URL", url)];
            let environment = if url.is_empty() { &[] as &[_] } else { &environment };
            let failed = command(arguments, environment).await;
            if says.is_empty() {
                continue;
            }
            assert_eq!(failed.code, Some(2), "{arguments:?} {says}: {}", failed.stderr);
            assert!(failed.stderr.contains(says), "{arguments:?}: {}", failed.stderr);
            assert_eq!(failed.stdout, "");
            for secret in ["hunter2", password(&database.url).as_str()] {
                assert!(!failed.stderr.contains(secret), "{}", failed.stderr);
            }
        }
    }
    // From a file, too.
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, format!("{}\n", database.url)).unwrap();
    let file = file.to_str().unwrap();
    let from_file = command(&["get", "agents"], &[("OPENCLAW_CONTROLLER_DATABASE_URL_FILE", file)]).await;
    assert_eq!(from_file.code, Some(0), "{}", from_file.stderr);
    assert!(from_file.stderr.contains("no agents found"), "{}", from_file.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_refused_before_anything_is_done() {
    let database = Database::empty().await;
    let listen = format!("127.0.0.1:{}", lab::free_port().unwrap());
    for (flag, variable, value, says) in [
        ("--resync-interval", "RESYNC_INTERVAL", "soon", "10m"),
        ("--resync-interval", "RESYNC_INTERVAL", "0s", "longer than nothing"),
        ("--listen", "LISTEN", "everywhere", "invalid socket address"),
        ("--base-url", "BASE_URL", "ftp://x", "http:// or https://"),
        (
            "--base-url",
            "BASE_URL",
            "http://u:hunter2@x",
            "must not hold a password",
        ),
        ("--token-hash", "TOKEN_HASH", "md5", "pbkdf2-sha256"),
        (
            "--templates-dir",
            "TEMPLATES_DIR",
            "/no/such/directory",
            "/no/such/directory",
        ),
        (
            "--device-identity",
            "DEVICE_IDENTITY",
            "/proc/no/such/device",
            "/proc/no/such/device",
        ),
        ("--agent-workers", "AGENT_WORKERS", "0", "1"),
        ("--gateway-workers", "GATEWAY_WORKERS", "many", "invalid"),
        ("--log", "LOG", "a=b=c", "log filter"),
    ] {
        let variable = format!("OPENCLAW_CONTROLLER_{variable}");
        let mut environment = vec![("DATABASE_URL", database.url.as_str())];
        let mut arguments = vec!["run"];
        if flag != "--listen" {
            arguments.extend(["--listen", &listen]);
        }
        let by_flag = command(&[arguments.as_slice(), &[flag, value]].concat(), &environment).await;
        environment.push((&variable, value));
        let by_variable = command(&arguments, &environment).await;
        for failed in [by_flag, by_variable] {
            assert_eq!(failed.code, Some(2), "{flag} {value}: {}", failed.stderr);
            assert!(failed.stderr.contains(says), "{flag} {value}: {}", failed.stderr);
            if flag != "--base-url" {
                assert!(!failed.stderr.contains("hunter2"), "{}", failed.stderr);
            }
        }
    }
    let schemas = "SELECT count(*)::text FROM pg_namespace WHERE nspname = 'openclaw_controller'";
    assert_eq!(database.text(schemas).await.as_deref(), Some("0"), "something was done");
}

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
    let converged = |what: &str, finished: &support::process::Finished| {
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

/// Every name of the design, without what Prometheus appends to histograms.
const METRICS: [&str; 28] = [
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_errors_total",
    "controller_runtime_reconcile_panics_total",
    "controller_runtime_reconcile_time_seconds",
    "controller_runtime_active_workers",
    "controller_runtime_max_concurrent_reconciles",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_retries_total",
    "workqueue_queue_duration_seconds",
    "workqueue_work_duration_seconds",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "leader_election_master_status",
    "openclaw_controller_agents",
    "openclaw_controller_gateways",
    "openclaw_controller_drift_detected_total",
    "openclaw_controller_drift_corrected_total",
    "openclaw_controller_rpc_total",
    "openclaw_controller_rpc_duration_seconds",
    "openclaw_controller_gateway_restarts_caused_total",
    "openclaw_controller_convergence_seconds",
    "openclaw_controller_oldest_unconverged_age_seconds",
    "openclaw_controller_listener_up",
    "openclaw_controller_discoveries_total",
    "openclaw_controller_token_rotations_total",
    "openclaw_controller_lease_held",
    "openclaw_controller_lease_lost_total",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_there_before_anything_happened() {
    // The database is not there: nothing can have been counted yet.
    let nowhere = format!("postgres://me:hunter2@127.0.0.1:{}/x", lab::free_port().unwrap());
    let mut process = Process::run(&nowhere, &[]);
    let text = eventually("metrics are served", PATIENCE, async || {
        let (status, text) = process.page("/metrics").await;
        (status == 200).then_some(text)
    })
    .await;
    let names: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for name in METRICS {
        let histogram = format!("{name}_bucket");
        assert!(
            names.contains(name) || names.contains(histogram.as_str()),
            "{name} is missing in\n{text}"
        );
    }
    for series in [
        "controller_runtime_reconcile_total{controller=\"agent\",result=\"requeue_after\"} 0",
        "controller_runtime_reconcile_total{controller=\"gateway\",result=\"success\"} 0",
        "controller_runtime_reconcile_time_seconds_bucket{controller=\"agent\",le=\"0.005\"} 0",
        "workqueue_adds_total{controller=\"agent\",name=\"agent\"} 0",
        "workqueue_work_duration_seconds_bucket{controller=\"gateway\",name=\"gateway\",le=\"0.00000001\"} 0",
        "leader_election_master_status{name=\"openclaw-controller\"} 0",
        "openclaw_controller_drift_corrected_total{kind=\"file\"} 0",
        "openclaw_controller_discoveries_total{source=\"hint\"} 0",
        "openclaw_controller_rpc_total{method=\"config.patch\",outcome=\"ok\"} 0",
        "openclaw_controller_agents{condition=\"Ready\",status=\"True\"} 0",
    ] {
        assert!(text.contains(&format!("{series}\n")), "{series} is missing in\n{text}");
    }
    let (status, text) = process.page("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("[-]database failed"), "{text}");
    assert_eq!(process.page("/healthz").await, (200, "ok\n".to_owned()));
    process.signal(Signal::TERM);
    assert_eq!(process.outcome(PATIENCE).await, (Some(0), None));
    assert!(!process.log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_run_is_logged_as_json_with_an_id_for_each_reconcile_and_no_secret_anywhere() {
    let fleet = Fleet::on(Database::migrated().await, SimDialect::V2026_7_1).await;
    let mut process = Process::run(&fleet.database.url, &["--log", "trace", "--resync-interval", "1s"]);
    fleet.database.agent_ready(fleet.agent).await;
    // An edit, a refused template, and a resync or two.
    let set = async |set: &str| {
        fleet
            .database
            .execute(&format!("UPDATE agents SET {set} WHERE id = '{}'", fleet.agent))
            .await;
    };
    set("soul_template = '{{ nonsense }} {{ auth_token }}'").await;
    fleet
        .database
        .agent_condition(fleet.agent, FilesSynced, False, "UnknownVariable")
        .await;
    set("soul_template = 'I am {{ agent_name }} with {{ auth_token }}.'").await;
    fleet.database.agent_ready(fleet.agent).await;
    let token = fleet.agent_token();
    let resyncs = process.metric("workqueue_adds_total", "gateway").await + 2.5;
    eventually("two more resyncs", PATIENCE, async || {
        (process.metric("workqueue_adds_total", "gateway").await > resyncs).then_some(())
    })
    .await;

    // What anybody on the machine can see of the process.
    let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.id())).unwrap();
    let (_, metrics) = process.page("/metrics").await;
    process.signal(Signal::TERM);
    assert_eq!(process.outcome(PATIENCE).await, (Some(0), None));
    let log = process.log();
    let secrets = [token, TOKEN.to_owned(), password(&fleet.database.url)];
    for secret in &secrets {
        for (place, text) in [("command line", &command_line), ("metrics", &metrics), ("log", &log)] {
            assert!(!text.contains(secret), "a secret is in the {place}");
        }
        assert!(!fleet.database.everything_told().await.contains(secret));
    }
    for name in ["Wren", "Board", "Gateway"] {
        assert!(!metrics.contains(&format!("\"{name}\"")), "{name} is a label");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(process.device_identity()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let lines = process.log_lines();
    assert!(
        lines
            .iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string())
    );
    let mut ids = BTreeSet::new();
    for line in &lines {
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        for span in spans.iter().filter(|span| span["name"] == "reconcile") {
            let id = span["reconcile_id"].as_str().expect("a reconcile has an id");
            assert!(Uuid::parse_str(id).is_ok(), "{id}");
            assert!(span["controller"].is_string() && span["key"].is_string(), "{span}");
            ids.insert(id.to_owned());
        }
    }
    assert!(ids.len() >= 5, "{ids:?}");
}

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
