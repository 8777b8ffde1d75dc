//! What can be said of the files without running anything but `promtool`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use openclaw_controller::lab;

use crate::expressions::{dashboard, ours};
use crate::stage::{deployed, hastened};

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of all alerts.
fn alerts() -> BTreeSet<String> {
    let rules = read("deploy/prometheus/alerts.rules.yaml");
    let names: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    let set: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "a name stands for two alerts");
    assert!(set.len() > 20, "{set:?}");
    set
}

#[tokio::test]
async fn promtool_accepts_the_configuration_and_the_rules_and_their_unit_tests_pass() {
    let promtool = lab::promtool().await.unwrap();
    for (directory, arguments) in [
        ("deploy/prometheus", &["check", "config", "prometheus.yaml"] as &[&str]),
        (
            "deploy/prometheus",
            &["check", "rules", "recording.rules.yaml", "alerts.rules.yaml"],
        ),
        (
            "tests/prometheus",
            &["test", "rules", "controller.test.yaml", "fleet.test.yaml"],
        ),
    ] {
        let output = tokio::process::Command::new(&promtool)
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory))
            .output()
            .await
            .unwrap();
        let told = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        println!("promtool {}: {}\n{told}", arguments.join(" "), output.status);
        assert!(
            output.status.success() && told.contains("SUCCESS"),
            "{arguments:?}: {told}"
        );
    }
}

#[test]
fn every_alert_has_a_page_and_unit_tests_and_every_page_an_alert() {
    let alerts = alerts();
    let rules = read("deploy/prometheus/alerts.rules.yaml");
    let tests = read("tests/prometheus/controller.test.yaml") + &read("tests/prometheus/fleet.test.yaml");
    let index = read("docs/runbooks/README.md");
    for alert in &alerts {
        assert!(
            rules.contains(&format!("runbook_url: docs/runbooks/{alert}.md")),
            "{alert} has no link"
        );
        let page = read(format!("docs/runbooks/{alert}.md"));
        assert!(
            page.starts_with(&format!("# {alert}\n")),
            "{alert}: its page has another name"
        );
        for heading in ["## What it means", "## How to see it", "## What to do"] {
            assert!(
                page.contains(&format!("\n{heading}\n")),
                "{alert}: its page has no {heading:?}"
            );
        }
        assert!(
            index.contains(&format!("[{alert}]({alert}.md)")),
            "{alert} is not in the list of runbooks"
        );
        // Once when it has to be quiet, and once when it has to fire.
        let mentioned = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(mentioned >= 2, "{alert} has no unit tests");
        assert!(
            tests.contains(&format!("runbook_url: docs/runbooks/{alert}.md")),
            "no unit test makes {alert} fire"
        );
    }
    let pages = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks")).unwrap();
    for page in pages {
        let name = page.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".md").unwrap_or_else(|| panic!("{name} is no page"));
        assert!(stem == "README" || alerts.contains(stem), "{name} belongs to no alert");
    }
}

#[test]
fn a_hastened_copy_differs_in_times_alone() {
    for name in ["prometheus.yaml", "recording.rules.yaml", "alerts.rules.yaml"] {
        let text = read(deployed("prometheus").join(name));
        let copy = hastened(&text);
        assert_ne!(text, copy, "{name}");
        for (line, copied) in text.lines().zip(copy.lines()) {
            let timeless = |line: &str| match line.split_once(": ") {
                Some((field, _))
                    if ["for", "interval"]
                        .iter()
                        .any(|name| field.trim_start().ends_with(name)) =>
                {
                    field.to_owned()
                }
                // Windows.
                _ => line
                    .split('[')
                    .map(|part| part.split_once(']').map_or(part, |(_, rest)| rest))
                    .collect(),
            };
            if line != copied {
                assert_eq!(timeless(line), timeless(copied));
            }
        }
        let long = copy.lines().find(|line| line.contains("m]") || line.contains("h]"));
        assert_eq!(long, None, "{name}: a window was left as it is");
        assert_eq!(text.lines().count(), copy.lines().count());
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    let mut taken = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is another panel's"
        );
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(x + w <= 24 && h > 0, "{title} does not fit");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, title) {
                panic!("{title} lies over {other}");
            }
        }
        if panel["type"] != "row" {
            assert!(
                !panel["targets"].as_array().unwrap().is_empty(),
                "{title} shows nothing"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    for expression in ours() {
        // Of one fleet only: sums over several mean nothing.
        assert!(expression.text.contains("namespace=\"$namespace\""), "{expression:?}");
        let unknown = ["$job", "$namespace", "$pod", "$__rate_interval"]
            .into_iter()
            .fold(expression.text.clone(), |text, variable| text.replace(variable, ""));
        assert!(!unknown.contains('$'), "{expression:?}");
    }
}
