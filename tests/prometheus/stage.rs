//! A real Prometheus with the rules of `deploy/prometheus`, and what its alerts come to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use openclaw_controller::lab::Prometheus;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long something may take that a test waits for: longest are three wakes that nobody answers.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// The job of `prometheus.yaml`, which the rules go by.
pub(crate) const JOB: &str = "openclaw-controller";

/// The fleet in which nothing is wrong.
pub(crate) const HEALTHY: &str = "healthy";

/// A file of `deploy`.
pub(crate) fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// The same rules or configuration with other times, and nothing else: what is waited for takes seconds instead of minutes.
pub(crate) fn hastened(text: &str) -> String {
    let hurry = |line: &str| {
        let field = line.trim_start();
        let indent = &line[..line.len() - field.len()];
        if field.starts_with("for: ") {
            return format!("{indent}for: 5s");
        }
        if field.starts_with("scrape_interval: ") || field.starts_with("refresh_interval: ") {
            return format!("{indent}{} 2s", field.split(' ').next().unwrap());
        }
        if field.starts_with("evaluation_interval: ") {
            return format!("{indent}evaluation_interval: 1s");
        }
        let mut line = line.replace("[1h]", "[40s]");
        for window in ["[10m]", "[15m]", "[30m]"] {
            line = line.replace(window, "[20s]");
        }
        line
    };
    text.lines().map(|line| hurry(line) + "\n").collect()
}

/// What became of one alert.
pub(crate) struct Told {
    pub(crate) alert: String,
    /// The fleet that it was about; none where it is about there being none.
    pub(crate) fleet: Option<&'static str>,
    /// The value of its expression when it fired.
    pub(crate) value: f64,
    fired_after: Duration,
    /// When it was seen not to fire any more.
    resolved_after: Option<Duration>,
}

impl Told {
    pub(crate) fn line(&self) -> String {
        let resolved = self
            .resolved_after
            .map_or_else(|| "never".to_owned(), |after| format!("{:.0} s", after.as_secs_f64()));
        format!(
            "{:<40} {:<12} value {:>8.2}  fired after {:>3.0} s, resolved after {resolved}",
            self.alert,
            self.fleet.unwrap_or("-"),
            self.value,
            self.fired_after.as_secs_f64(),
        )
    }
}

/// The server, who is watched, and what was told.
pub(crate) struct Stage {
    pub(crate) prometheus: Prometheus,
    targets: Mutex<BTreeMap<(&'static str, &'static str), SocketAddr>>,
    told: Mutex<Vec<Told>>,
    begun: Instant,
}

impl Stage {
    /// Starts a Prometheus on a copy of `deploy/prometheus`, in a hurry, that has nobody to watch yet.
    pub(crate) async fn start() -> Self {
        let mut files: Vec<_> = ["prometheus.yaml", "recording.rules.yaml", "alerts.rules.yaml"]
            .into_iter()
            .map(|name| {
                let text = std::fs::read_to_string(deployed("prometheus").join(name)).unwrap();
                (name, hastened(&text))
            })
            .collect();
        files.push(("targets.yaml", "[]".to_owned()));
        Self {
            prometheus: Prometheus::start(&files).await.unwrap(),
            targets: Mutex::default(),
            told: Mutex::default(),
            begun: Instant::now(),
        }
    }

    /// Has a replica of a fleet watched, and waits until it was.
    pub(crate) async fn watch(&self, fleet: &'static str, pod: &'static str, address: SocketAddr) {
        {
            let mut targets = self.targets.lock().unwrap();
            targets.insert((fleet, pod), address);
            let list: Vec<_> = targets
                .iter()
                .map(|((fleet, pod), address)| {
                    json!({"targets": [address.to_string()], "labels": {"namespace": fleet, "pod": pod}})
                })
                .collect();
            // JSON is YAML.
            self.prometheus.write("targets.yaml", &json!(list).to_string()).unwrap();
        }
        self.await_value(&format!("up{{instance=\"{address}\"}} == 1")).await;
    }

    /// The fleets that are watched.
    pub(crate) fn fleets(&self) -> Vec<&'static str> {
        let mut fleets: Vec<_> = self.targets.lock().unwrap().keys().map(|(fleet, _)| *fleet).collect();
        fleets.dedup();
        fleets
    }

    /// The samples that an expression has now, each with its labels.
    pub(crate) async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let answer = self.prometheus.ask("query", &[("query", expression)]).await.unwrap();
        let number = |value: &Value| value[1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        if answer["resultType"] == "scalar" {
            return vec![(Value::Null, number(&answer["result"]))];
        }
        let samples = answer["result"].as_array().cloned().unwrap_or_default();
        samples
            .into_iter()
            .map(|mut sample| (sample["metric"].take(), number(&sample["value"])))
            .collect()
    }

    /// The largest number that an expression has now; none is not finite.
    pub(crate) async fn value(&self, expression: &str) -> f64 {
        let samples = self.query(expression).await;
        let finite = samples
            .into_iter()
            .map(|(_, value)| value)
            .filter(|value| value.is_finite());
        finite.reduce(f64::max).unwrap_or(f64::NAN)
    }

    /// Waits until an expression has a sample.
    pub(crate) async fn await_value(&self, expression: &str) {
        self.until(expression, async || !self.query(expression).await.is_empty())
            .await;
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// All rules, as Prometheus understood them.
    pub(crate) async fn rules(&self) -> Vec<Value> {
        let answer = self.prometheus.ask("rules", &[]).await.unwrap();
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect()
    }

    /// The alert of a fleet, if there is one, as the API shows it.
    async fn alert(&self, alert: &str, fleet: Option<&str>) -> Option<Value> {
        let answer = self.prometheus.ask("alerts", &[]).await.unwrap();
        let all = answer["alerts"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|found| {
            let labels = &found["labels"];
            labels["alertname"] == alert && labels["namespace"].as_str() == fleet
        })
    }

    /// Waits until an alert that is about to be caused is not there for another reason, such as a machine that was too busy to
    /// answer Prometheus in time.
    pub(crate) async fn quiet(&self, alert: &str, fleet: &'static str) {
        self.until(
            &format!("{alert} is not there before its cause, for {fleet}"),
            async || self.alert(alert, Some(fleet)).await.is_none(),
        )
        .await;
    }

    /// Waits until an alert fires.
    pub(crate) async fn fires(&self, alert: &str, fleet: impl Into<Option<&'static str>>) {
        self.fires_while(alert, fleet, async || {}).await;
    }

    /// Causes something again and again until an alert fires.
    pub(crate) async fn fires_while(
        &self,
        alert: &str,
        fleet: impl Into<Option<&'static str>>,
        mut cause: impl AsyncFnMut(),
    ) {
        let fleet = fleet.into();
        let begun = Instant::now();
        let mut found = None;
        self.until(&format!("{alert} fires for {fleet:?}"), async || {
            cause().await;
            found = self
                .alert(alert, fleet)
                .await
                .filter(|found| found["state"] == "firing");
            found.is_some()
        })
        .await;
        let found = found.unwrap();
        // What it goes by is what it says: its expression, asked for by itself, has data about this fleet.
        let rules = self.rules().await;
        let rule = rules.iter().find(|rule| rule["name"] == alert).unwrap();
        let expression = rule["query"].as_str().unwrap();
        let samples = self.query(expression).await;
        let about = |labels: &Value| labels["namespace"].as_str() == fleet;
        assert!(
            samples.iter().any(|(labels, value)| about(labels) && value.is_finite()),
            "{alert} fires, and {expression} is {samples:?}"
        );
        for annotation in ["summary", "description", "runbook_url"] {
            let text = found["annotations"][annotation].as_str().unwrap_or_default();
            assert!(
                !text.is_empty() && !text.contains("no value"),
                "{alert}: {annotation} {text:?}"
            );
        }
        let value = found["value"].as_str().unwrap().parse().unwrap();
        println!(
            "{:>4.0} s {alert} fires for {fleet:?}",
            self.begun.elapsed().as_secs_f64()
        );
        self.told.lock().unwrap().push(Told {
            alert: alert.to_owned(),
            fleet,
            value,
            fired_after: begun.elapsed(),
            resolved_after: None,
        });
    }

    /// Waits until an alert that fired is gone.
    pub(crate) async fn resolves(&self, alert: &str, fleet: impl Into<Option<&'static str>>) {
        let fleet = fleet.into();
        let begun = Instant::now();
        self.until(&format!("{alert} resolves for {fleet:?}"), async || {
            self.alert(alert, fleet).await.is_none()
        })
        .await;
        println!(
            "{:>4.0} s {alert} has resolved for {fleet:?}",
            self.begun.elapsed().as_secs_f64()
        );
        let mut told = self.told.lock().unwrap();
        let entry = told
            .iter_mut()
            .find(|told| told.alert == alert && told.fleet == fleet)
            .unwrap();
        entry.resolved_after = Some(begun.elapsed());
    }

    /// Asserts that every alert there is has fired and has resolved, and that nothing was ever said of the fleet in which
    /// nothing was wrong; returns all that was told.
    pub(crate) async fn end(&self) -> Vec<Told> {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        for rule in self.rules().await {
            assert_eq!(rule["health"], "ok", "{rule}");
            if rule["type"] == "alerting" {
                let entry = told.iter().find(|told| rule["name"] == told.alert.as_str());
                let entry = entry.unwrap_or_else(|| panic!("{} never fired", rule["name"]));
                assert!(entry.resolved_after.is_some(), "{} never resolved", rule["name"]);
            }
        }
        // A machine that is too busy to answer Prometheus within two seconds is no trouble of the fleet.
        let matchers =
            format!("namespace=\"{HEALTHY}\",alertstate=\"firing\",alertname!~\"OpenClawController(Down|NoLeader)\"");
        let wrong = format!("count_over_time(ALERTS{{{matchers}}}[1h])");
        assert_eq!(self.query(&wrong).await, [], "where nothing was wrong");
        told
    }
}
