//! Programs that check files, and what they need to know of the binary.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use openclaw_controller::cli::run;
use openclaw_controller::lab::deploy_tools;
use openclaw_controller::sim::SimGateway;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::process::command;
use crate::support::{PATIENCE, eventually};

/// The binary that cargo built for the tests.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_openclaw-controller");

/// How long a tool may take that takes seconds on an idle machine: they are large programs, and others run at the same time.
const TOOL_PATIENCE: Duration = Duration::from_mins(10);

/// A file of the repository.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Its text.
pub(crate) fn text(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap()
}

/// Runs one of the lab's tools to its end.
pub(crate) async fn tool(name: &str, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let program = deploy_tools().await.unwrap().join(name);
    let mut child = Command::new(&program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let mut stdin = child.stdin.take().unwrap();
    let exchange = async {
        let write = async {
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        tokio::join!(write, child.wait_with_output()).1.unwrap()
    };
    timeout(TOOL_PATIENCE, exchange).await.expect("the tool ends")
}

/// What a tool prints; that it fails is a failure.
pub(crate) async fn printed(name: &str, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> String {
    let output = tool(name, arguments, environment, input).await;
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{name} {arguments:?}: {stdout}{stderr}");
    stdout
}

/// The two texts that a program left.
pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The help of `run`.
pub(crate) async fn help() -> String {
    command(&["run", "--help"], &[]).await.stdout
}

/// Approves the controller's device on a gateway that pairs devices, as soon as it asks for it.
pub(crate) async fn approve(gateway: &SimGateway) {
    eventually("the device has asked, and is approved", PATIENCE, async || {
        let requests = gateway.pairing_requests();
        requests
            .iter()
            .any(|request| gateway.approve_device(request))
            .then_some(())
    })
    .await;
}

/// That whoever gives the binary this long to stop kills it only when it hangs.
pub(crate) fn assert_time_to_stop(given: Duration, by: &str) {
    let needed = run::stops_within();
    assert!(
        given > needed,
        "{by} kills it after {given:?}, but it may take {needed:?}"
    );
    assert!(
        given < 2 * needed,
        "{by} waits {given:?} for a binary that stops within {needed:?}"
    );
}

/// A member of an object, by names separated by dots; that it is not there is a failure.
pub(crate) fn at<'a>(value: &'a Value, names: &str) -> &'a Value {
    names.split('.').fold(value, |value, name| {
        let found = match name.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(name),
        };
        found.unwrap_or_else(|| panic!("there is no {name} ({names}) in {value:#}"))
    })
}

/// The same as a text.
pub(crate) fn text_at<'a>(value: &'a Value, names: &str) -> &'a str {
    at(value, names)
        .as_str()
        .unwrap_or_else(|| panic!("{names} is no text"))
}

/// All texts of a list.
pub(crate) fn texts_at(value: &Value, names: &str) -> Vec<String> {
    let list = at(value, names)
        .as_array()
        .unwrap_or_else(|| panic!("{names} is no list"));
    list.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}
