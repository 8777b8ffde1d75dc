//! The units.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::tools::{BINARY, assert_time_to_stop, path, text};

const SERVICE: &str = "openclaw-controller.service";
const MIGRATION: &str = "openclaw-controller-migrate.service";

/// Ten times the exposure that `systemd-analyze security` may find at most; docs/deploy.md says what is left of it.
const EXPOSURE: &str = "11";

fn unit(name: &str) -> String {
    text(&format!("deploy/systemd/{name}"))
}

/// All values of a setting, in order.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == setting)
        .map(|(_, value)| value)
        .collect()
}

fn value<'a>(unit: &'a str, setting: &str) -> &'a str {
    let all = values(unit, setting);
    assert_eq!(all.len(), 1, "{setting} once");
    all[0]
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}

/// Runs systemd-analyze, and returns all that it says.
fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .env("SYSTEMD_COLORS", "0")
        .output()
        .expect("systemd-analyze runs; it belongs to the package systemd");
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "systemd-analyze {arguments:?}: {told}");
    told
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    let directory = TempDir::new().unwrap();
    for name in [SERVICE, MIGRATION] {
        // It looks for the program, too.
        let installed = unit(name).replace("/usr/bin/openclaw-controller", BINARY);
        std::fs::write(directory.path().join(name), installed).unwrap();
    }
    for name in [SERVICE, MIGRATION] {
        let file = directory.path().join(name);
        let told = analyze(&["verify", "--recursive-errors=no", file.to_str().unwrap()]);
        assert_eq!(told, "", "{name}");
    }
}

#[test]
fn the_units_are_as_little_exposed_as_the_documentation_says() {
    for name in [SERVICE, MIGRATION] {
        let file = path("deploy/systemd").join(name);
        let threshold = format!("--threshold={EXPOSURE}");
        let told = analyze(&["security", "--offline=yes", &threshold, file.to_str().unwrap()]);
        let score = told.split("exposure level for").nth(1).unwrap();
        let documented = text("docs/deploy.md");
        let score = score.split_whitespace().nth(1).unwrap();
        assert!(
            documented.contains(&format!("**{score}**")),
            "docs/deploy.md: not {score}"
        );
    }
}

#[test]
fn both_units_are_confined_alike() {
    let confinement = |name| {
        let unit = unit(name);
        let from = unit.find("CapabilityBoundingSet=").unwrap();
        unit[from..].split("\n[").next().unwrap().trim().to_owned()
    };
    assert_eq!(confinement(SERVICE), confinement(MIGRATION));
    assert!(confinement(SERVICE).contains("ProtectSystem=strict"));
}

#[test]
fn systemd_gives_the_controller_the_signal_and_the_time_that_it_needs() {
    let service = unit(SERVICE);
    assert_eq!(value(&service, "KillSignal"), "SIGTERM");
    assert_time_to_stop(seconds(value(&service, "TimeoutStopSec")), "systemd");
    // A migration gives up after two minutes by itself.
    assert!(seconds(value(&unit(MIGRATION), "TimeoutStartSec")) > Duration::from_mins(2));
}

#[test]
fn each_unit_is_shown_its_own_databases_url_and_nothing_of_the_others() {
    for (name, command, file) in [
        (SERVICE, "run --no-migrate", "database-url"),
        (MIGRATION, "migrate", "owner-database-url"),
    ] {
        let unit = unit(name);
        assert_eq!(
            value(&unit, "ExecStart"),
            format!("/usr/bin/openclaw-controller {command}")
        );
        let credential = format!("database-url:/etc/openclaw-controller/{file}");
        assert_eq!(value(&unit, "LoadCredential"), credential);
        assert_eq!(
            value(&unit, "Environment"),
            "OPENCLAW_CONTROLLER_DATABASE_URL_FILE=%d/database-url"
        );
    }
    // Where the key is kept by which gateways know the controller: systemd names the directory in STATE_DIRECTORY.
    assert_eq!(value(&unit(SERVICE), "StateDirectory"), "openclaw-controller");
}
