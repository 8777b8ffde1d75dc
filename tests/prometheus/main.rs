//! What is deployed for Prometheus and Grafana, tested with a real Prometheus on running controllers, a real Postgres and simulated
//! gateways: every expression has data, every alert fires when what it warns of is caused, and resolves when that is over.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by a panic what went wrong"
)]

mod agents;
mod expressions;
mod files;
mod fleet;
mod gateways;
mod healthy;
mod reconciling;
mod replicas;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use futures::future;

use healthy::Healthy;
use stage::Stage;

/// Everything at once, each trouble in a fleet of its own: most of the time is spent waiting.
#[tokio::test(flavor = "multi_thread")]
async fn every_expression_has_data_and_every_alert_fires_for_its_cause_and_resolves() {
    let stage = &Stage::start().await;
    replicas::nobody_is_watched(stage).await;
    let healthy = Healthy::start(stage).await;
    stage.resolves("OpenClawControllerAbsent", None).await;
    let troubles = async {
        tokio::join!(
            Box::pin(replicas::a_replica_does_not_answer(stage)),
            Box::pin(replicas::the_lease_is_somebody_elses(stage)),
            Box::pin(replicas::the_database_is_away(stage)),
            Box::pin(replicas::notifications_do_not_arrive(stage)),
            Box::pin(gateways::gateways_are_out_of_order(stage)),
            Box::pin(gateways::a_gateway_is_restarted_too_often(stage)),
            Box::pin(gateways::a_gateway_may_not_be_restarted(stage)),
            Box::pin(gateways::a_gateway_writes_no_files(stage)),
            Box::pin(agents::agents_do_not_become_ready(stage)),
            Box::pin(agents::a_file_is_fought_over(stage)),
            Box::pin(agents::agents_do_not_check_in(stage)),
            Box::pin(agents::wakes_are_not_sent(stage)),
            Box::pin(reconciling::the_queue_is_stuck(stage)),
            Box::pin(reconciling::changes_take_long(stage)),
            Box::pin(reconciling::a_reconcile_panics(stage)),
        )
    };
    let questions = async {
        let (stock, ours) = tokio::join!(
            expressions::all_answer(stage, expressions::stock(), true),
            expressions::all_answer(stage, expressions::ours(), false),
        );
        for (query, offers) in expressions::variables() {
            let choices = expressions::choices(stage, &query).await;
            assert!(choices.iter().any(|choice| choice == offers), "{query}: {choices:?}");
        }
        every_metric_is_documented(stage).await;
        (stock, ours, recording_rules_answer(stage).await)
    };
    let all = async {
        let (_, (stock, ours, recorded)) = future::join(troubles, questions).await;
        // Rows are still being edited, so there is something to see.
        let stock = expressions::again(stage, stock).await;
        (stock, expressions::again(stage, ours).await, recorded)
    };
    let (stock, ours, recorded) = tokio::select! {
        never = healthy.live() => never,
        all = all => all,
    };
    let told = stage.end().await;

    println!("\nExpressions of dashboards, and their values:");
    for answered in stock.iter().chain(&ours) {
        println!("  {}", answered.line());
    }
    println!("\nRecording rules, and their values:");
    for line in recorded {
        println!("  {line}");
    }
    println!("\nAlerts:");
    for told in &told {
        println!("  {}", told.line());
    }
    healthy.stop().await;
}

/// Every recording rule has recorded a value for the fleet in which nothing is wrong; what they are.
async fn recording_rules_answer(stage: &Stage) -> Vec<String> {
    let mut lines = Vec::new();
    for rule in stage.rules().await {
        if rule["type"] != "recording" {
            continue;
        }
        let (name, query) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        let recorded = format!("{name}{{namespace=\"{}\"}}", stage::HEALTHY);
        // Where nothing happened it is no number.
        stage.await_value(&format!("{recorded} >= 0")).await;
        let value = stage.value(&recorded).await;
        let asked = stage.value(query).await;
        assert!(asked.is_finite(), "{query} has no data");
        lines.push(format!("{name}: {query}\n      {value} (fleet {})", stage::HEALTHY));
    }
    lines
}

/// `docs/metrics.md` names every metric that a controller has, and no other.
async fn every_metric_is_documented(stage: &Stage) {
    let answer = stage
        .prometheus
        .ask("targets/metadata", &[("match_target", "{namespace=\"healthy\"}")])
        .await
        .unwrap();
    let exposed: BTreeSet<String> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["metric"].as_str().unwrap().to_owned())
        .collect();
    assert!(exposed.len() > 30, "{exposed:?}");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let (_, table) = page.split_once("\n## What there is\n").unwrap();
    let documented: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(documented, exposed, "docs/metrics.md (left) and /metrics (right)");
}
