//! The real binary, as child processes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use openclaw_controller::lab;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{PATIENCE, eventually, metric, page};

const BINARY: &str = env!("CARGO_BIN_EXE_openclaw-controller");

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary to its end, with nothing of this environment but what is given, and without leads that nobody made.
pub async fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let leads = ("OPENCLAW_CONTROLLER_ENSURE_LEADS", "none");
    let environment: Vec<_> = environment.iter().copied().chain([leads]).collect();
    bare_command(arguments, &environment).await
}

/// Runs the binary to its end, with nothing of this environment but what is given, and all of its defaults.
pub async fn bare_command(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let state = TempDir::new().unwrap();
    let child = tokio::process::Command::new(BINARY)
        .args(arguments)
        .env_clear()
        .env("HOME", state.path())
        .env("STATE_DIRECTORY", state.path())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, child).await.expect("the command ends").unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running `openclaw-controller run`; killed when dropped.
pub struct Process {
    pub address: SocketAddr,
    child: Child,
    state: TempDir,
}

impl Process {
    /// Starts it on a database, with further arguments.
    pub fn run(database_url: &str, arguments: &[&str]) -> Self {
        Self::run_in(database_url, arguments, &[])
    }

    /// The same, with further environment variables.
    pub fn run_in(database_url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let state = TempDir::new().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, lab::free_port().unwrap()));
        let log = File::create(state.path().join("log")).unwrap();
        let child = Command::new(BINARY)
            .args([
                "run",
                "--listen",
                &address.to_string(),
                "--base-url",
                "http://mission.test",
            ])
            .args(arguments)
            .env_clear()
            .env("STATE_DIRECTORY", state.path())
            .env("DATABASE_URL", database_url)
            .env("OPENCLAW_CONTROLLER_NO_WAKE", "true")
            .env("OPENCLAW_CONTROLLER_ENSURE_LEADS", "none")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { address, child, state }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.state.path().join("log")).unwrap()
    }

    /// The lines of its log, each of which is a JSON object; a line that is still being written is left out.
    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}")))
            .collect()
    }

    /// Waits until its log holds this text.
    pub async fn logs(&self, text: &str) {
        eventually(&format!("{text:?} is logged"), PATIENCE, async || {
            self.log().contains(text).then_some(())
        })
        .await;
    }

    /// Where its device key is.
    pub fn device_identity(&self) -> PathBuf {
        self.state.path().join("device.json")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let log = self.state.path().join("log");
        let child = &mut self.child;
        let what = format!("the process ends; its log is {}", log.display());
        eventually(&what, deadline, async || child.try_wait().unwrap()).await
    }

    /// Its exit code and the signal that ended it.
    pub async fn outcome(&mut self, deadline: Duration) -> (Option<i32>, Option<i32>) {
        let status = self.ended(deadline).await;
        (status.code(), status.signal())
    }

    /// A page that it serves.
    pub async fn page(&self, path: &str) -> (u16, String) {
        page(self.address, path).await
    }

    /// The sum of a metric.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(self.address, name, labels).await
    }

    /// Waits until the probe answers this status with this text in it, and returns the whole text.
    pub async fn readyz(&self, status: u16, text: &str) -> String {
        eventually(
            &format!("/readyz answers {status} with {text:?}"),
            PATIENCE,
            async || {
                let (is, body) = self.page("/readyz").await;
                (is == status && body.contains(text)).then_some(body)
            },
        )
        .await
    }

    /// Waits until it is the one that acts, or not.
    pub async fn is_leader(&self, leads: bool, deadline: Duration) {
        eventually(
            &format!("leader_election_master_status becomes {leads}"),
            deadline,
            async || {
                let (status, text) = self.page("/metrics").await;
                let wanted = format!(
                    "leader_election_master_status{{name=\"openclaw-controller\"}} {}",
                    i32::from(leads)
                );
                (status == 200 && text.contains(&wanted)).then_some(())
            },
        )
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
