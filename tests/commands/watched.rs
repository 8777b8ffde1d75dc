//! Metrics and logs.

use std::collections::BTreeSet;

use openclaw_controller::lab;
use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::sim::SimDialect;
use rustix::process::Signal;
use uuid::Uuid;

use ConditionStatus::False;
use ConditionType::FilesSynced;

use crate::support::process::Process;
use crate::support::{Database, PATIENCE, eventually};
use crate::{Fleet, TOKEN, password};

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
