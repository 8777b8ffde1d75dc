//! What no test can type, because it needs a machine of its own, hours, or a cluster; and the tests that show the same.

use std::process::Command;

use crate::page::{files, pages, root, text};
use crate::step::{What, steps, without_remark};

/// Commands that begin so, and the tests that show that they work.
const ELSEWHERE: &[(&str, &[&str])] = &[
    ("make demo", &["the_demo_shows_what_the_readme_promises"]),
    // What runs just now, and what takes minutes or hours.
    ("make ", &["make_knows_every_target_that_a_page_names"]),
    ("cargo test ", &["cargo_has_every_test_that_a_page_names"]),
    // Units, booted under a systemd of the test's own.
    (
        "sudo install ",
        &["the_units_migrate_converge_restart_and_stop_under_a_real_systemd"],
    ),
    (
        "sudo systemctl ",
        &["the_units_migrate_converge_restart_and_stop_under_a_real_systemd"],
    ),
    (
        "journalctl ",
        &["the_units_migrate_converge_restart_and_stop_under_a_real_systemd"],
    ),
    // There is no Docker in tests. The Dockerfile's steps are taken by a script, and Compose's services run in their order.
    (
        "docker build ",
        &["the_dockerfile_takes_these_steps_and_none_that_a_linter_minds"],
    ),
    (
        "docker run ",
        &["the_image_converges_a_fleet_as_a_user_without_rights_on_a_root_that_cannot_be_written"],
    ),
    (
        "docker compose ",
        &["its_steps_lead_from_an_empty_server_to_a_controller_that_is_ready"],
    ),
    (
        "sudo deploy/docker/rootfs.sh ",
        &["the_image_holds_the_binary_and_what_it_needs_and_nothing_else"],
    ),
    (
        "sudo --preserve-env=DATABASE_URL deploy/docker/run-rootfs.sh ",
        &["the_image_converges_a_fleet_as_a_user_without_rights_on_a_root_that_cannot_be_written"],
    ),
    // There is no cluster in tests. Objects are checked against the schemas of Kubernetes, Secrets against what refers to them.
    (
        "kubectl -n openclaw-controller create secret ",
        &["the_pods_have_no_rights_nothing_to_write_and_only_their_own_secrets"],
    ),
    (
        "kubectl create namespace ",
        &["everything_is_valid_by_the_schemas_of_kubernetes_and_of_the_prometheus_operator"],
    ),
    (
        "kubectl apply -k ",
        &["the_overlay_in_the_documentation_builds_on_both_directories"],
    ),
    (
        "kubectl -n openclaw-controller rollout status ",
        &["probes_metrics_and_check_ins_are_served_where_the_objects_say"],
    ),
    // A server that goes on, on a port of everybody's.
    (
        "prometheus ",
        &["every_expression_has_data_and_every_alert_fires_for_its_cause_and_resolves"],
    ),
];

/// Whether a command is one of those.
pub(crate) fn is_elsewhere(command: &str) -> bool {
    ELSEWHERE.iter().any(|(start, _)| command.starts_with(start))
}

#[test]
fn whatever_is_not_run_is_on_a_page_and_shown_by_tests_that_exist() {
    let commands: Vec<String> = pages()
        .iter()
        .flat_map(steps)
        .filter_map(|step| match step.what {
            What::Command { text, .. } => Some(text),
            What::Sql(_) => None,
        })
        .collect();
    let sources: Vec<String> = files(&["src", "tests"], &["rs"])
        .iter()
        .map(|path| text(path))
        .collect();
    let exists = |test: &str| sources.iter().any(|source| source.contains(&format!("fn {test}(")));
    for (start, tests) in ELSEWHERE {
        assert!(
            commands.iter().any(|command| command.starts_with(start)),
            "no page says {start:?} any more"
        );
        assert!(!tests.is_empty(), "{start:?}: nothing shows that it works");
        for test in *tests {
            assert!(exists(test), "{start:?}: there is no test {test}");
        }
    }
}

#[test]
fn make_knows_every_target_that_a_page_names() {
    let mut named = 0;
    for command in typed_with("make ") {
        named += 1;
        // It says what it would do.
        let dry = Command::new("bash")
            .args(["-c", &command.replacen("make ", "make -n ", 1)])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(
            dry.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&dry.stderr)
        );
    }
    assert!(named > 10, "{named}");
}

#[test]
fn cargo_has_every_test_that_a_page_names() {
    let mut named = 0;
    for command in typed_with("cargo ") {
        let words: Vec<&str> = command.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| pair[0] == "--test") {
            named += 1;
            let is_there = [format!("tests/{}.rs", pair[1]), format!("tests/{}/main.rs", pair[1])];
            assert!(is_there.iter().any(|path| root().join(path).is_file()), "{command}");
        }
    }
    assert!(named > 3, "{named}");
}

/// Every command that begins so, in blocks and in running text, but for what follows it by `&&`.
fn typed_with(start: &str) -> Vec<String> {
    let mut found = Vec::new();
    for page in pages() {
        for step in steps(&page) {
            if let What::Command { text, .. } = step.what {
                found.push(without_remark(&text).to_owned());
            }
        }
        found.extend(page.spans);
    }
    found.retain(|command| command.starts_with(start) && !command.contains(['…', '<']));
    found
        .iter()
        .map(|command| command.split("&&").next().unwrap().trim().to_owned())
        .collect()
}
