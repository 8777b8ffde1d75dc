//! A private Prometheus server.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::form_urlencoded;
use uuid::Uuid;

use super::guard::{Guard, TAG};
use super::{install, port, readiness};

const START: Duration = Duration::from_mins(3);
const ANSWER: Duration = Duration::from_secs(30);

/// The configuration's file in the server's directory.
const CONFIGURATION: &str = "prometheus.yaml";

/// A Prometheus server of our own: random port, a directory of its own, gone when dropped.
pub struct Prometheus {
    // Dropping it ends the server and removes the directory.
    _guard: Guard,
    bin: PathBuf,
    directory: PathBuf,
    port: u16,
}

/// The path of `promtool`, which checks rules and configurations.
///
/// # Errors
/// When Prometheus can be neither found nor installed.
pub async fn promtool() -> Result<PathBuf> {
    Ok(install::prometheus_bin().await?.join("promtool"))
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prometheus")
            .field("directory", &self.directory)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Prometheus {
    /// Starts a server in a directory that holds these files, one of which is its configuration, `prometheus.yaml`; paths in
    /// there are relative to it.
    ///
    /// # Errors
    /// When Prometheus can be neither found nor installed, or does not start, as with a configuration that it does not
    /// understand; the message holds the end of its log.
    pub async fn start(files: &[(&str, String)]) -> Result<Self> {
        let bin = install::prometheus_bin().await?;
        let directory = std::env::temp_dir().join(format!("openclaw-lab-prometheus-{}", Uuid::new_v4().simple()));
        let guard = Guard::over(&directory, "TERM")?;
        fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let prometheus = Self {
            _guard: guard,
            bin,
            directory,
            port: port::free()?,
        };
        for (name, text) in files {
            prometheus.write(name, text)?;
        }
        let mut server = prometheus.spawn()?;
        let probe = || async { prometheus.ready().await };
        readiness::wait("Prometheus", &mut server, &prometheus.log_path(), START, probe).await?;
        Ok(prometheus)
    }

    /// The directory that holds its configuration and data; removed on drop.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its log.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("prometheus.log")
    }

    /// Puts a file into its directory, at once and as a whole: it watches its lists of targets.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let new = self.directory.join(format!(".{name}.new"));
        fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, self.directory.join(name)).with_context(|| format!("cannot write {name}"))
    }

    /// What its HTTP API answers to a question, for example `query` with the parameter `query`.
    ///
    /// # Errors
    /// When it does not answer, or answers with an error, which is then the message.
    pub async fn ask(&self, endpoint: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let (status, body) = self.get(&format!("/api/v1/{endpoint}?{query}")).await?;
        let mut answer: Value = serde_json::from_str(&body)
            .with_context(|| format!("Prometheus answered {status} to {endpoint}, with no JSON: {body}"))?;
        if answer["status"] != "success" {
            bail!("Prometheus refuses {endpoint} {parameters:?}: {}", answer["error"]);
        }
        Ok(answer["data"].take())
    }

    async fn ready(&self) -> Result<()> {
        let (status, body) = self.get("/-/ready").await?;
        ensure!(status == 200, "Prometheus is not ready: {body}");
        Ok(())
    }

    /// A page: its status and its body. HTTP 1.0, so that the body comes in one piece and ends with the connection.
    async fn get(&self, path: &str) -> Result<(u16, String)> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = timeout(ANSWER, exchange)
            .await
            .with_context(|| format!("Prometheus did not answer within {} s", ANSWER.as_secs()))??;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        match (status, answer.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
            _ => bail!("Prometheus did not answer with HTTP, but: {answer}"),
        }
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let program = self.bin.join("prometheus");
        Command::new(&program)
            .arg(format!(
                "--config.file={}",
                self.directory.join(CONFIGURATION).display()
            ))
            .arg(format!("--storage.tsdb.path={}", self.directory.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            // Nothing of what is installed for people's own servers.
            .arg(format!("--web.console.templates={}", self.directory.display()))
            .arg(format!("--web.console.libraries={}", self.directory.display()))
            .env_clear()
            .env("HOME", &self.directory)
            .env("TZ", "UTC")
            .env(TAG, &self.directory)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on the terminal is for the owner to handle.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))
    }
}
