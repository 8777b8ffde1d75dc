//! Whatever a file in `deploy/` calls a setting is what the binary calls it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::process::command;
use crate::tools::{help, path, text};

/// All files below a directory, but for the scripts that install what tests need.
fn files(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("deploy/dev") {
                files(&path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.display().to_string(), text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_that_a_file_names_is_one_of_the_binary() {
    let help = help().await + &command(&["--help"], &[]).await.stdout;
    let mut all = Vec::new();
    files(&path("deploy"), &mut all);
    let mut names = BTreeSet::new();
    for (file, text) in &all {
        for word in text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')) {
            if word
                .strip_prefix("OPENCLAW_CONTROLLER_")
                .is_some_and(|rest| !rest.is_empty())
            {
                assert!(
                    help.contains(word),
                    "{file} names {word}, which the binary does not know"
                );
                names.insert(word.to_owned());
            }
        }
    }
    for name in [
        "DATABASE_URL_FILE",
        "BASE_URL",
        "DEVICE_IDENTITY",
        "LISTEN",
        "AGENT_LISTEN",
    ] {
        let name = format!("OPENCLAW_CONTROLLER_{name}");
        assert!(names.contains(&name), "{name} was not found in {} files", all.len());
    }
}

#[test]
fn the_documentation_says_how_long_a_stop_may_take() {
    let longest = openclaw_controller::cli::run::stops_within().as_secs();
    for file in [
        "docs/deploy.md",
        "deploy/compose.yaml",
        "deploy/kubernetes/base/deployment.yaml",
        "deploy/systemd/openclaw-controller.service",
    ] {
        assert!(
            text(file).contains(&format!("{longest} s at the very most")),
            "{file}: {longest}"
        );
    }
}
