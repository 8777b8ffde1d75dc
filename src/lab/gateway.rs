//! A real OpenClaw gateway.

use std::fmt;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::guard::{Guard, TAG};
use super::{handshake, install, network, port, processes, readiness};

/// A gateway is ready 10–20 s after its start on an idle machine, 2026.2.26 after 50 s. On a machine with nine times more to do than
/// it has cores for, that one had not said a word after two minutes. One that ends is noticed at once.
const START: Duration = Duration::from_mins(10);
/// A doctor takes half a minute on an idle machine.
const DOCTOR: Duration = Duration::from_mins(5);
/// An orderly shutdown drains work for some seconds.
const STOP: Duration = Duration::from_secs(15);

/// How to start a gateway.
#[derive(Clone, Default)]
pub struct Options {
    /// Its shared secret; a random one if none is given.
    pub token: Option<String>,
    /// Its port on 127.0.0.1; a free one if none is given.
    pub port: Option<u16>,
    /// A directory for all its state, which is kept at the end; a temporary one, removed at the end, if none is given.
    pub state_dir: Option<PathBuf>,
    /// The network namespace in which it runs, and the address there at which it is reached: a remote gateway, which listens on all
    /// addresses and pairs devices. On loopback here if none is given.
    pub remote: Option<(PathBuf, IpAddr)>,
    /// Start its channels, as people's gateways do. Without that, 2026.4.29 knows nothing of the channels in its config, and
    /// writes it back without them when an agent is updated or removed.
    pub channels: bool,
    /// Its agents' workspaces below the home directory of its user: old gateways remove an agent's files nowhere else.
    pub below_home: bool,
    /// Its state in `.openclaw` of the home directory of its user, as people's gateways have it, and not beside it: 2026.8.2
    /// removes no agent's sessions elsewhere, and does not start again after such a removal.
    pub state_below_home: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("port", &self.port)
            .field("state_dir", &self.state_dir)
            .field("remote", &self.remote)
            .field("channels", &self.channels)
            .field("below_home", &self.below_home)
            .field("state_below_home", &self.state_below_home)
            .finish_non_exhaustive()
    }
}

/// A real gateway of our own; dropping it ends it.
pub struct RealGateway {
    // Dropped first: ends the processes and removes the directory.
    _guard: Guard,
    process: Mutex<Option<Child>>,
    node: PathBuf,
    installed: std::sync::Mutex<Installed>,
    token: String,
    port: u16,
    directory: PathBuf,
    remote: Option<(PathBuf, IpAddr)>,
    channels: bool,
    below_home: bool,
    state_below_home: bool,
}

/// What is run in a gateway's directory: an upgrade puts another one in its place.
#[derive(Clone)]
struct Installed {
    version: String,
    package: PathBuf,
}

impl fmt::Debug for RealGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealGateway")
            .field("version", &self.version())
            .field("port", &self.port)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl RealGateway {
    /// Starts a gateway of this version, installing it first if need be, and waits until it answers `connect`.
    ///
    /// # Errors
    /// When it can be neither found nor installed, or is not ready after ten minutes; the message holds the end of its log.
    pub async fn start(version: &str, options: Options) -> Result<Self> {
        let node = install::node().await?;
        let package = install::gateway(version).await?;
        let directory = options
            .state_dir
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("openclaw-lab-gateway-{}", Uuid::new_v4().simple())));
        let mut guard = Guard::over(&directory, "TERM")?;
        if options.state_dir.is_some() {
            guard.keep_directory()?;
        }
        let gateway = Self {
            _guard: guard,
            process: Mutex::new(None),
            node,
            installed: std::sync::Mutex::new(Installed {
                version: version.to_owned(),
                package,
            }),
            token: options.token.unwrap_or_else(|| Uuid::new_v4().simple().to_string()),
            port: options.port.map_or_else(port::free, Ok)?,
            directory,
            remote: options.remote,
            channels: options.channels,
            below_home: options.below_home,
            state_below_home: options.state_below_home,
        };
        gateway.prepare()?;
        gateway.start_again().await?;
        Ok(gateway)
    }

    /// The URL of its WebSocket.
    pub fn url(&self) -> String {
        let address = self
            .remote
            .as_ref()
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(_, address)| *address);
        format!("ws://{}", SocketAddr::new(address, self.port))
    }

    /// Its shared secret.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its version, as asked for.
    pub fn version(&self) -> String {
        self.installed().version
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds everything of this gateway.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its `OPENCLAW_STATE_DIR`.
    pub fn state_dir(&self) -> PathBuf {
        if self.state_below_home {
            return self.home().join(".openclaw");
        }
        self.directory.join("state")
    }

    /// A directory for its agents' workspaces: what belongs into `gateways.workspace_root`.
    pub fn workspace_root(&self) -> PathBuf {
        let parent = if self.below_home {
            self.home()
        } else {
            self.directory.clone()
        };
        parent.join("workspaces")
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.state_dir().join("openclaw.json")
    }

    /// Its output.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("gateway.log")
    }

    /// Whether any of its processes is alive.
    pub fn is_running(&self) -> bool {
        !processes::tagged(&self.directory).is_empty()
    }

    /// Waits until it does nothing of its own accord. After it was given many agents, or was just started, it is busy for a while
    /// with what nobody asked for.
    ///
    /// # Errors
    /// When it does not run, or is not at rest within this time.
    pub async fn at_rest(&self, within: Duration) -> Result<()> {
        let resting = tokio::time::timeout(within, processes::rest(&self.directory)).await;
        let runs = resting.with_context(|| format!("the gateway was not at rest after {} s", within.as_secs()))?;
        ensure!(runs, "the gateway does not run");
        Ok(())
    }

    /// Stops it in an orderly way, by SIGKILL if that takes more than 15 s. State and port stay.
    ///
    /// # Errors
    /// When a process of it does not end.
    pub async fn stop(&self) -> Result<()> {
        self.end(Signal::TERM, STOP).await
    }

    /// Kills it with SIGKILL, as a crash would. State and port stay.
    ///
    /// # Errors
    /// When a process of it does not end.
    pub async fn kill(&self) -> Result<()> {
        self.end(Signal::KILL, STOP).await
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), and waits until it answers `connect`.
    ///
    /// # Errors
    /// As [`RealGateway::start`].
    pub async fn start_again(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        ensure!(!self.is_running(), "this gateway is running already");
        let mut child = self.spawn()?;
        let url = self.url();
        let what = format!("OpenClaw {}", self.version());
        let probe = || handshake::greet(&url, &self.token);
        let ready = readiness::wait(&what, &mut child, &self.log_path(), START, probe).await;
        *process = Some(child);
        ready
    }

    /// Runs `openclaw` with these arguments beside the gateway, as its operator would, and returns what it prints.
    ///
    /// # Errors
    /// When it fails, or is not done in time.
    pub async fn operator(&self, arguments: &[&str]) -> Result<String> {
        self.output(self.command(arguments), &format!("openclaw {}", arguments.join(" ")))
            .await
    }

    /// Calls a method of the gateway from its own host, where no device is asked for, and returns the answer.
    ///
    /// # Errors
    /// When it is refused, or not answered in time.
    pub async fn call(&self, method: &str, params: &Value) -> Result<Value> {
        const SCRIPT: &str = include_str!("call.mjs");
        let mut command = self.node_command();
        let token = self.config()?["gateway"]["auth"]["token"].clone();
        let token = token.as_str().context("the gateway's config holds no token")?;
        command
            .env("OPENCLAW_CALL_TOKEN", token)
            .args(["--input-type=module", "--eval", SCRIPT, "--"])
            .args([&self.port.to_string(), method, &params.to_string()]);
        let printed = self.output(command, method).await?;
        serde_json::from_str(&printed).with_context(|| format!("{method} answered no JSON"))
    }

    async fn output(&self, command: Command, what: &str) -> Result<String> {
        Ok(self.finished(command, what, START).await?.0)
    }

    /// Runs a command to its end; returns what it printed, and what it said of errors.
    async fn finished(&self, command: Command, what: &str, within: Duration) -> Result<(String, String)> {
        let mut command = tokio::process::Command::from(command);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(within, output)
            .await
            .with_context(|| format!("{what} was not done after {} s", within.as_secs()))?
            .with_context(|| format!("cannot run {}", self.node.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, said) = (text(&output.stdout), text(&output.stderr));
        ensure!(
            output.status.success(),
            "{what} failed ({}):\n{printed}\n{said}",
            output.status
        );
        Ok((printed, said))
    }

    /// Puts another version in the place of the one that runs in this directory, installing it first if need be, as an operator
    /// does who upgrades: it has to be stopped before, and started after. Its state is left as it is.
    ///
    /// # Errors
    /// When it can be neither found nor installed, or the gateway runs.
    pub async fn replace_version(&self, version: &str) -> Result<()> {
        ensure!(
            !self.is_running(),
            "this gateway is running; stop it before it becomes another version"
        );
        let package = install::gateway(version).await?;
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = Installed {
            version: version.to_owned(),
            package,
        };
        Ok(())
    }

    /// Has the `doctor` of the version that is in place now put the state in order, and returns what it said.
    ///
    /// # Errors
    /// When it cannot be run, fails, or is not done after five minutes.
    pub async fn doctor(&self) -> Result<String> {
        let command = self.command(&["doctor", "--fix", "--yes", "--non-interactive"]);
        let (printed, said) = self.finished(command, "the doctor", DOCTOR).await?;
        Ok(printed + &said)
    }

    /// Stops it and starts it again.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start_again`](Self::start_again).
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// The workspace directory of an agent whose `workspace` is `workspace-<slug>` below [`workspace_root`](Self::workspace_root).
    pub fn workspace(&self, slug: &str) -> PathBuf {
        self.workspace_root().join(format!("workspace-{slug}"))
    }

    /// A file of a workspace as it is on disk; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    pub fn read_file(&self, slug: &str, name: &str) -> Result<Option<String>> {
        let path = self.workspace(slug).join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Overwrites a file of a workspace on disk, behind the gateway's back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, slug: &str, name: &str, text: &str) -> Result<()> {
        let path = self.workspace(slug).join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Deletes a file of a workspace on disk, behind the gateway's back.
    ///
    /// # Errors
    /// When it is not there, or cannot be deleted.
    pub fn delete_file(&self, slug: &str, name: &str) -> Result<()> {
        let path = self.workspace(slug).join(name);
        fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))
    }

    /// The configuration as it is on disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn config(&self) -> Result<Value> {
        let path = self.config_path();
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
    }

    /// Edits the configuration on disk, as an operator with an editor would.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut config = self.config()?;
        edit(&mut config);
        self.write_config(&config)
    }

    /// Written beside and renamed: a gateway watches the file and must not read half of it.
    fn write_config(&self, config: &Value) -> Result<()> {
        let path = self.config_path();
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(config)?)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn prepare(&self) -> Result<()> {
        for directory in [self.state_dir(), self.workspace_root(), self.home(), self.temp()] {
            fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        }
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o700))?;
        if self.config_path().exists() {
            return self.edit_config(|config| {
                config["gateway"]["port"] = json!(self.port);
                config["gateway"]["auth"] = json!({"mode": "token", "token": self.token});
            });
        }
        let mut config = json!({
            "gateway": {
                "mode": "local",
                "port": self.port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": self.token},
            },
            // Otherwise every gateway of this machine writes to one file below /tmp.
            "logging": {"file": self.directory.join("openclaw.log")},
        });
        if self.remote.is_some() {
            config["gateway"]["bind"] = json!("lan");
            // Newer gateways do not listen to strangers before they are told where their pages are.
            config["gateway"]["controlUi"] = json!({"allowedOrigins": [self.url().replace("ws://", "http://")]});
        }
        self.write_config(&config)
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let port = self.port.to_string();
        self.command(&["gateway", "run", "--allow-unconfigured", "--port", &port])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on the terminal is for the owner to handle.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", self.node.display()))
    }

    /// `openclaw` with these arguments, on the state of this gateway and where it runs.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.node_command();
        command
            .arg(self.installed().package.join("openclaw.mjs"))
            .args(arguments);
        command
    }

    /// Node, where this gateway runs and with its environment.
    fn node_command(&self) -> Command {
        let namespace = self.remote.as_ref().map(|(namespace, _)| namespace);
        let mut command = network::command_in(namespace, self.node.as_os_str());
        command
            // Nothing of the person's own OpenClaw, proxies or Node options.
            .env_clear()
            .env("PATH", self.path())
            .env("HOME", self.home())
            .env("TMPDIR", self.temp())
            .env("LANG", "C.UTF-8")
            // Compiled code is the same for every gateway, and a start without it takes longer.
            .env("NODE_COMPILE_CACHE", install::cache_dir().join("node-compile-cache"))
            .env("OPENCLAW_STATE_DIR", self.state_dir())
            .env("OPENCLAW_CONFIG_PATH", self.config_path())
            .env(TAG, &self.directory)
            .current_dir(&self.directory);
        if !self.channels {
            command.env("OPENCLAW_SKIP_CHANNELS", "1");
        }
        command
    }

    fn installed(&self) -> Installed {
        self.installed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn end(&self, signal: Signal, patience: Duration) -> Result<()> {
        let mut process = self.process.lock().await;
        let all_gone = processes::end_all(&self.directory, signal, patience).await;
        if let Some(mut child) = process.take() {
            processes::ended(&mut child, Duration::from_secs(1)).await;
        }
        ensure!(
            all_gone,
            "a process of the gateway in {} does not end",
            self.directory.display()
        );
        Ok(())
    }

    fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    fn temp(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    /// The gateway starts helpers by name: they should find the same Node.
    fn path(&self) -> std::ffi::OsString {
        let mut path = self.node.parent().map(Path::as_os_str).unwrap_or_default().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        path
    }
}
