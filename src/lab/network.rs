//! Networks of our own, in which a gateway is a remote one: it treats addresses that are not loopback's as strangers'.
//!
//! An ordinary user may make network namespaces within a user namespace, and a process enters one only as it starts. So a test that
//! wants a network runs twice: [`in_own_network`] starts it again in namespaces of its own, and there [`Network::new`] makes the
//! far end, a second namespace at the other end of a virtual cable.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::install;

/// Tells a test that it is the one inside.
const INSIDE: &str = "OPENCLAW_LAB_OWN_NETWORK";

/// How long a test inside may take: real gateways are started, on a machine that does other things as well.
const LIMIT: Duration = Duration::from_mins(20);

/// Runs the calling test once more in a network of its own, unless this is that run. Answers whether the caller has nothing left to
/// do. Everything that has to be installed is installed before, since there is no way out of there.
///
/// # Errors
/// When namespaces cannot be made, or the test fails in there.
pub async fn in_own_network(test: &str, versions: &[&str]) -> Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(false);
    }
    install::node().await?;
    install::postgres_bin().await?;
    for version in versions {
        install::gateway(version).await?;
    }
    let mut inside = tokio::process::Command::new("unshare");
    if !may_unshare().await {
        // The same user, with the rights that it has in its own namespace kept across `exec`.
        inside.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    let child = inside
        .args(["--net", "--"])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, child)
        .await
        .with_context(|| {
            format!(
                "{test} was not done in its own network after {} minutes",
                LIMIT.as_secs() / 60
            )
        })?
        .context("cannot run unshare (of util-linux), which makes network namespaces")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && stdout.contains("1 passed"),
        "{test} failed in a network of its own ({}):\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(true)
}

/// Whether this process may make a network namespace as it is, as root may.
async fn may_unshare() -> bool {
    let attempt = tokio::process::Command::new("unshare")
        .args(["--net", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    attempt.await.is_ok_and(|status| status.success())
}

/// The far end of a virtual cable: a network namespace in which gateways can run. It ends with this process.
#[derive(Debug)]
pub struct Network {
    /// Keeps the namespace alive until its input closes.
    holder: Child,
}

impl Network {
    /// The address of this process's end.
    pub const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    /// The address of the far end.
    pub const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

    /// Lays the cable. Only within [`in_own_network`].
    ///
    /// # Errors
    /// When `ip` (of iproute2) or `nsenter` is missing or fails.
    pub fn new() -> Result<Self> {
        ensure!(
            std::env::var_os(INSIDE).is_some(),
            "a network is laid only in a namespace of one's own: call in_own_network first"
        );
        let holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut network = Self { holder };
        // Its first line says that the namespace is there.
        let mut line = [0];
        let ready = network.holder.stdout.as_mut().context("the namespace has no output")?;
        std::io::Read::read_exact(ready, &mut line).context("no second network namespace can be made")?;
        let far = network.namespace();
        for step in [
            "link set lo up".to_owned(),
            format!("link add near type veth peer name far netns {}", network.holder.id()),
            format!("address add {}/24 dev near", Self::NEAR),
            "link set near up".to_owned(),
        ] {
            run(Command::new("ip").args(step.split(' ')))?;
        }
        for step in [
            "link set lo up".to_owned(),
            format!("address add {}/24 dev far", Self::FAR),
            "link set far up".to_owned(),
        ] {
            run(Command::new("nsenter")
                .arg(net_argument(&far))
                .arg("ip")
                .args(step.split(' ')))?;
        }
        Ok(network)
    }

    /// The far end's namespace, for gateways that are to run in there.
    pub fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A command that runs a program in a network namespace, or here.
pub(super) fn command_in(namespace: Option<&PathBuf>, program: &OsStr) -> Command {
    let Some(namespace) = namespace else {
        return Command::new(program);
    };
    let mut command = Command::new("nsenter");
    command.arg(net_argument(namespace)).arg("--").arg(program);
    command
}

fn net_argument(namespace: &std::path::Path) -> String {
    format!("--net={}", namespace.display())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
