//! Every expression of every dashboard, asked of a real Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::stage::{HEALTHY, JOB, PATIENCE, Stage, deployed};

/// A thing that a dashboard asks.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    /// Which dashboard, and which panel.
    pub(crate) place: String,
    /// As it stands there.
    pub(crate) text: String,
    /// The labels that its legend names.
    labels: Vec<String>,
}

/// An expression that had data: for which fleet, how many samples, and the largest of their values.
pub(crate) struct Answered {
    pub(crate) expression: Expression,
    pub(crate) fleet: &'static str,
    pub(crate) samples: usize,
    pub(crate) value: f64,
}

impl Answered {
    pub(crate) fn line(&self) -> String {
        let Self {
            expression,
            fleet,
            samples,
            value,
        } = self;
        format!(
            "{}: {}\n      {value} ({samples} samples, fleet {fleet})",
            expression.place, expression.text
        )
    }
}

/// Our dashboard.
pub(crate) fn dashboard() -> Value {
    let path = deployed("grafana/openclaw-controller.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The labels in a legend: `{{pod}}`.
fn legend(text: &str) -> Vec<String> {
    text.split("{{")
        .skip(1)
        .filter_map(|part| part.split_once("}}"))
        .map(|(label, _)| label.to_owned())
        .collect()
}

/// What our dashboard asks.
pub(crate) fn ours() -> Vec<Expression> {
    let dashboard = dashboard();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(Expression {
                place: format!("openclaw-controller, {}", panel["title"].as_str().unwrap()),
                text: target["expr"].as_str().unwrap().to_owned(),
                labels: legend(target["legendFormat"].as_str().unwrap_or_default()),
            });
        }
    }
    expressions
}

/// What kubebuilder's dashboard "Controller-Runtime-Metrics" asks, which people have who run controllers.
pub(crate) fn stock() -> Vec<Expression> {
    let mut expressions = Vec::new();
    let mut add = |text: String, labels: &[&str]| {
        expressions.push(Expression {
            place: "Controller-Runtime-Metrics".into(),
            text: text.replace("{}", "{job=\"$job\", namespace=\"$namespace\"}"),
            labels: labels.iter().map(ToString::to_string).collect(),
        });
    };
    add(
        "controller_runtime_active_workers{}".into(),
        &["controller", "instance"],
    );
    for counter in ["total", "errors_total"] {
        let text = format!("sum(rate(controller_runtime_reconcile_{counter}{{}}[5m])) by (instance, pod)");
        add(text, &["instance", "pod"]);
    }
    add("workqueue_depth{}".into(), &[]);
    add("rate(workqueue_unfinished_work_seconds{}[5m])".into(), &[]);
    for histogram in ["queue", "work"] {
        for quantile in ["0.50", "0.90", "0.99"] {
            let rate = format!("rate(workqueue_{histogram}_duration_seconds_bucket{{}}[5m])");
            let text = format!("histogram_quantile({quantile}, sum({rate}) by (instance, name, le))");
            add(text, &["name", "instance"]);
        }
    }
    for counter in ["adds", "retries"] {
        let text = format!("sum(rate(workqueue_{counter}_total{{}}[5m])) by (instance, name)");
        add(text, &["name", "instance"]);
    }
    expressions
}

/// With the dashboard's variables filled in, as Grafana does.
fn filled_in(text: &str, fleet: &str) -> String {
    text.replace("$job", JOB)
        .replace("$namespace", fleet)
        .replace("$pod", ".+")
        .replace("$__rate_interval", "20s")
}

/// Asks each expression of the fleet in which nothing is wrong and, unless `only_healthy`, of the others where there is rightly
/// nothing to be told of that one, until it has data.
pub(crate) async fn all_answer(stage: &Stage, expressions: Vec<Expression>, only_healthy: bool) -> Vec<Answered> {
    let end = Instant::now() + PATIENCE;
    let mut answered = Vec::new();
    let mut left = expressions;
    while !left.is_empty() {
        let mut without = Vec::new();
        for expression in left {
            match answer(stage, &expression, only_healthy).await {
                Some(found) => answered.push(found),
                None => without.push(expression),
            }
        }
        left = without;
        assert!(Instant::now() < end, "these have no data: {left:#?}");
        sleep(Duration::from_secs(1)).await;
    }
    answered
}

/// The answers that there are now, for whoever reads them: with everything that has happened meanwhile.
pub(crate) async fn again(stage: &Stage, answered: Vec<Answered>) -> Vec<Answered> {
    let mut now = Vec::new();
    for before in answered {
        let newer = answer(stage, &before.expression, before.fleet == HEALTHY).await;
        now.push(newer.unwrap_or(before));
    }
    now
}

async fn answer(stage: &Stage, expression: &Expression, only_healthy: bool) -> Option<Answered> {
    let others = stage
        .fleets()
        .into_iter()
        .filter(|fleet| *fleet != HEALTHY && !only_healthy);
    for fleet in [HEALTHY].into_iter().chain(others) {
        let samples = stage.query(&filled_in(&expression.text, fleet)).await;
        let finite = samples
            .iter()
            .map(|(_, value)| *value)
            .filter(|value| value.is_finite());
        let Some(value) = finite.reduce(f64::max) else {
            continue;
        };
        for (labels, _) in &samples {
            for label in &expression.labels {
                assert!(
                    labels[label].is_string(),
                    "no label {label:?} in {labels} of {expression:?}"
                );
            }
        }
        return Some(Answered {
            expression: expression.clone(),
            fleet,
            samples: samples.len(),
            value,
        });
    }
    None
}

/// The choices that a dashboard's variable offers, by its query `label_values(series, label)`.
pub(crate) async fn choices(stage: &Stage, query: &str) -> Vec<String> {
    let inner = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap();
    let (series, label) = inner.rsplit_once(", ").unwrap();
    let series = filled_in(series, HEALTHY);
    let answer = stage
        .prometheus
        .ask(&format!("label/{label}/values"), &[("match[]", &series)])
        .await
        .unwrap();
    serde_json::from_value(answer).unwrap()
}

/// The variables of our dashboard and of kubebuilder's, and what they have to offer.
pub(crate) fn variables() -> Vec<(String, &'static str)> {
    let dashboard = dashboard();
    let ours: BTreeMap<_, _> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|variable| variable["type"] == "query")
        .map(|variable| {
            (
                variable["name"].as_str().unwrap(),
                variable["definition"].as_str().unwrap(),
            )
        })
        .collect();
    let mut variables = Vec::new();
    for (name, offers) in [("job", JOB), ("namespace", HEALTHY), ("pod", "controller-1")] {
        variables.push((ours[name].to_owned(), offers));
    }
    let of =
        |matchers: &str, label: &str| format!("label_values(controller_runtime_reconcile_total{matchers}, {label})");
    variables.push((of("{namespace=~\"$namespace\"}", "job"), JOB));
    variables.push((of("", "namespace"), HEALTHY));
    variables.push((of("{namespace=~\"$namespace\", job=~\"$job\"}", "pod"), "controller-1"));
    variables
}
