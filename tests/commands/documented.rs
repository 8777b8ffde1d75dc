//! The page about commands: every line of it that is a command is run.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use openclaw_controller::lab;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::named::{all_ready, named_fleet};
use crate::support::{Controller, Options};

/// Longer than any of them takes, sharing two cores.
const EACH: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_page_about_commands_works() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = std::fs::read_to_string(page).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_openclaw-controller"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let (fleet, _) = named_fleet().await;
    let home = TempDir::new().unwrap();
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    all_ready(&fleet).await;
    let mut commands = 0;
    for line in shell_lines(&page) {
        commands += 1;
        // Whatever goes on until it is told to end is told so; 130 says that it went on until then.
        let goes_on = line.contains("--watch");
        let until = if goes_on {
            "timeout --preserve-status -s INT 10 "
        } else {
            ""
        };
        let script = format!("{until}{line}");
        let done = Command::new("/bin/sh")
            .args(["-c", &script])
            .current_dir(home.path())
            .env_clear()
            .env("PATH", &path)
            .env("HOME", home.path())
            .env("STATE_DIRECTORY", home.path())
            .env("DATABASE_URL", &fleet.database.url)
            .env("OPENCLAW_CONTROLLER_BASE_URL", "http://mission.test")
            .env("OPENCLAW_CONTROLLER_ENSURE_LEADS", "none")
            .env(
                "OPENCLAW_CONTROLLER_LISTEN",
                format!("127.0.0.1:{}", lab::free_port().unwrap()),
            )
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let done = timeout(EACH, done).await.unwrap().unwrap();
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        let expected: &[i32] = match (goes_on, line.contains(" diff")) {
            (true, _) => &[130],
            (false, true) => &[0, 1],
            (false, false) => &[0],
        };
        let code = done.status.code();
        assert!(
            code.is_some_and(|code| expected.contains(&code)),
            "{line}: {code:?}\n{shown}"
        );
        assert!(!shown.contains("panicked"), "{line}\n{shown}");
    }
    assert!(commands > 20, "the page has commands: {commands}");
    controller.stop().await;
}

/// The lines of blocks of shell code.
fn shell_lines(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap_or_default());
    let lines = blocks.flat_map(str::lines).map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}
