//! Where servers come from: the scripts in `deploy/dev`, which find or install them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// The gateway versions that everything is tested with: one per dialect.
pub const VERSIONS: [&str; 3] = ["2026.4.29", "2026.7.1", "2026.9.6"];

/// The version of the npm package `@openclaw/gateway-protocol` whose schema is the contract: the newest there is for the newest
/// gateway above.
pub const CONTRACT: &str = "2026.9.1";

/// A package of 650 MB over a slow line, waiting for another process's installation before it.
const LIMIT: Duration = Duration::from_mins(20);

/// Where the lab keeps what it installs: `$OPENCLAW_CONTROLLER_CACHE`; else `/var/cache/openclaw-controller` for root, whose
/// Postgres runs as another user and cannot look below `/root`; else `openclaw-controller` in the user's cache directory.
pub fn cache_dir() -> PathBuf {
    const NAME: &str = "openclaw-controller";
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(directory) = variable("OPENCLAW_CONTROLLER_CACHE") {
        return directory;
    }
    if rustix::process::geteuid().is_root() {
        return Path::new("/var/cache").join(NAME);
    }
    variable("XDG_CACHE_HOME")
        .or_else(|| Some(variable("HOME")?.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join(NAME)
}

/// The directory with `postgres`, `initdb` and `psql`.
pub(super) async fn postgres_bin() -> Result<PathBuf> {
    script("install-postgres.sh", &[]).await
}

/// The directory with `prometheus` and `promtool`.
pub(super) async fn prometheus_bin() -> Result<PathBuf> {
    script("install-prometheus.sh", &[]).await
}

/// A Node that current gateways run on.
pub(super) async fn node() -> Result<PathBuf> {
    script("install-node.sh", &[]).await
}

/// The package directory of one gateway version.
pub(super) async fn gateway(version: &str) -> Result<PathBuf> {
    script("install-gateway.sh", &[version]).await
}

/// The machine-readable contract of protocol 4, `protocol.schema.json`, of version [`CONTRACT`].
pub async fn protocol_schema() -> Result<PathBuf> {
    script("install-contract.sh", &[CONTRACT]).await
}

/// The directory with what the files in `deploy/` are checked with: `kubectl`, `docker-compose`, `hadolint`, and a `python` with the
/// schemas of Kubernetes.
///
/// # Errors
/// When they can be neither found nor installed.
pub async fn deploy_tools() -> Result<PathBuf> {
    script("install-deploy-tools.sh", &[]).await
}

/// The directory with `jq`, which pages of the documentation have their readers use.
///
/// # Errors
/// When it can be neither found nor installed.
pub async fn jq() -> Result<PathBuf> {
    script("install-jq.sh", &[]).await
}

/// The JSON Schema of OpenAPI documents of version 3.1.
///
/// # Errors
/// When it can be neither found nor installed.
pub async fn openapi_schema() -> Result<PathBuf> {
    script("install-openapi-schema.sh", &[]).await
}

/// A program that starts Chromium.
pub(super) async fn chromium() -> Result<PathBuf> {
    script("install-chromium.sh", &[]).await
}

/// Runs an installation script; it prints the path it provides as its last line, and what it is doing on standard error.
async fn script(name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/dev").join(name);
    let mut child = Command::new("bash")
        .arg(&path)
        .args(arguments)
        .env("OPENCLAW_CONTROLLER_CACHE", cache_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run bash {}", path.display()))?;
    let group = Group(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = timeout(LIMIT, async {
        let (told, printed) = tokio::try_join!(relay(stderr), collect(stdout))?;
        io::Result::Ok((child.wait().await?, printed, told))
    });
    let (status, stdout, stderr) = output
        .await
        .with_context(|| format!("{} was not done after {} minutes", path.display(), LIMIT.as_secs() / 60))?
        .with_context(|| format!("cannot follow {}", path.display()))?;
    group.has_ended();
    if !status.success() {
        let (path, arguments, stderr) = (path.display(), arguments.join(" "), stderr.trim_end());
        bail!("{path} {arguments} failed ({status}):\n{stderr}");
    }
    match stdout.lines().last() {
        Some(line) if Path::new(line).exists() => Ok(PathBuf::from(line)),
        other => bail!("{} printed {other:?}, which is not an existing path", path.display()),
    }
}

/// Logs what a script says while it says it, and returns it for an error message.
async fn relay(stderr: Option<ChildStderr>) -> io::Result<String> {
    let mut told = String::new();
    if let Some(stderr) = stderr {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            tracing::info!("{line}");
            told.push_str(&line);
            told.push('\n');
        }
    }
    Ok(told)
}

async fn collect(stdout: Option<ChildStdout>) -> io::Result<String> {
    let mut printed = String::new();
    if let Some(mut stdout) = stdout {
        stdout.read_to_string(&mut printed).await?;
    }
    Ok(printed)
}

/// The process group of a running script. One that is given up on is asked to end as a whole, so that it cleans up after itself
/// and no download goes on.
struct Group(Option<u32>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(leader) = leader {
            let _ = kill_process_group(leader, Signal::TERM);
        }
    }
}
