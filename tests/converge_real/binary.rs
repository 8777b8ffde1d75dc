//! The real binary as a child process.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use openclaw_controller::lab;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{self, PATIENCE, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_openclaw-controller");

/// How often the controller looks at everything: "at the next resync" should not take long here.
const RESYNC: &str = "2s";

/// How long one command may take: `diff` reads every file of the fleet from a busy gateway.
const COMMAND: Duration = Duration::from_mins(2);

/// What all commands of one story have in common.
pub(crate) struct Environment {
    pub(crate) database_url: String,
    pub(crate) directory: PathBuf,
    pub(crate) templates: Option<PathBuf>,
    /// Whether what no row explains is removed.
    pub(crate) prune: bool,
}

impl Environment {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env_clear()
            .env("DATABASE_URL", &self.database_url)
            .env("OPENCLAW_CONTROLLER_LOG", "trace")
            .env("OPENCLAW_CONTROLLER_LOG_FORMAT", "json")
            .env("OPENCLAW_CONTROLLER_BASE_URL", "http://mission.test")
            .env(
                "OPENCLAW_CONTROLLER_DEVICE_IDENTITY",
                self.directory.join("device.json"),
            )
            .env("OPENCLAW_CONTROLLER_RESYNC_INTERVAL", RESYNC)
            .env("OPENCLAW_CONTROLLER_NO_WAKE", "true")
            .env("OPENCLAW_CONTROLLER_ENSURE_LEADS", "none")
            // The oldest gateways restart for every edit, and a story has as many in some minutes as an operator in a day.
            .env("OPENCLAW_CONTROLLER_MAX_RESTARTS_PER_HOUR", "100")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(directory) = &self.templates {
            command.env("OPENCLAW_CONTROLLER_TEMPLATES_DIR", directory);
        }
        if self.prune {
            command.env("OPENCLAW_CONTROLLER_PRUNE", "true");
        }
        command
    }

    /// Everything that the controllers of this story logged.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("controller.log")
    }

    /// Runs a command to its end: exit code and all that it printed.
    pub(crate) async fn run(&self, args: &[&str]) -> (i32, String) {
        let output = timeout(COMMAND, self.command(args).output())
            .await
            .unwrap_or_else(|_| panic!("{args:?} does not end"))
            .unwrap();
        let mut log = File::options().append(true).create(true).open(self.log()).unwrap();
        log.write_all(&output.stderr).unwrap();
        (
            output.status.code().expect("it ends by itself"),
            String::from_utf8(output.stdout).unwrap(),
        )
    }
}

/// `openclaw-controller run`.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    _lifeline: Child,
}

impl Running {
    pub(crate) fn start(environment: &Environment) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, lab::free_port().unwrap()));
        let log = File::options()
            .append(true)
            .create(true)
            .open(environment.log())
            .unwrap();
        let child = environment
            .command(&["run"])
            .env("OPENCLAW_CONTROLLER_LISTEN", address.to_string())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        // A controller never gives up by itself: should this process be killed, this one ends it.
        let lifeline = Command::new("bash")
            .args(["-c", "read -r _; kill -KILL \"$1\"", "lifeline"])
            .arg(child.id().unwrap().to_string())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            log: environment.log(),
            _lifeline: lifeline,
        }
    }

    /// A page that it serves, empty if it does not.
    pub(crate) async fn page(&self, path: &str) -> String {
        support::page(self.address, path).await.1
    }

    /// The sum of all series of a metric whose labels contain this text.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        support::sum(&self.page("/metrics").await, name, labels)
    }

    /// Waits until everything has been looked at `times` times more, without regard to why.
    pub(crate) async fn resyncs(&self, times: u32, agents: usize) {
        let reconciles = async |controller: &str| {
            let labels = format!("controller=\"{controller}\"");
            self.metric("controller_runtime_reconcile_total", &labels).await
        };
        // One more of the gateway's: the last look at an agent follows the gateway's in the same resync.
        let gateway = reconciles("gateway").await + f64::from(times) + 1.0;
        let agent = reconciles("agent").await + f64::from(times) * agents as f64;
        eventually(&format!("{times} resyncs have passed"), PATIENCE, async || {
            (reconciles("gateway").await >= gateway && reconciles("agent").await >= agent).then_some(())
        })
        .await;
    }

    /// Kills it: nothing is finished, nothing is released.
    pub(crate) async fn kill(mut self) {
        timeout(PATIENCE, self.child.kill()).await.expect("it dies").unwrap();
    }

    /// Stops it by SIGTERM; it must end well.
    pub(crate) async fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it stops when asked to")
            .unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let worth_reading = |line: &&str| !line.contains("\"TRACE\"") && !line.contains("\"DEBUG\"");
            let lines: Vec<_> = log.lines().filter(worth_reading).collect();
            eprintln!("the controller's log ends with:");
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// All texts below a directory whose names end like this.
pub(crate) fn texts(directory: &Path, ending: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            texts.extend(self::texts(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            texts.push(String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned());
        }
    }
    texts
}
