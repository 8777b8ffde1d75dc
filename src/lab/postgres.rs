//! A private Postgres server.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::guard::{Guard, TAG};
use super::{install, port, processes, readiness};

const START: Duration = Duration::from_mins(3);
const STOP: Duration = Duration::from_secs(20);
const STATEMENT: Duration = Duration::from_mins(1);
const SUPERUSER: &str = "postgres";

/// How a private server differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Keep commits through a power failure. Off by default: a test's server loses nothing by a mere crash of Postgres.
    pub durable: bool,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

/// A Postgres server of our own: random port and password, a directory of its own, gone when dropped.
pub struct Postgres {
    // Dropped first: ends the server and removes the directory, after which `server` can be reaped.
    _guard: Guard,
    server: Mutex<Option<Child>>,
    bin: PathBuf,
    directory: PathBuf,
    port: u16,
    password: String,
    account: Option<Account>,
    options: PostgresOptions,
}

/// The account the server runs as when we are root, which Postgres refuses to be.
#[derive(Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("directory", &self.directory)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Starts a server with the default options.
    ///
    /// # Errors
    /// When Postgres can be neither found nor installed, or does not start; the message holds the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(PostgresOptions::default()).await
    }

    /// Starts a server.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_with(options: PostgresOptions) -> Result<Self> {
        let bin = install::postgres_bin().await?;
        let account = if rustix::process::geteuid().is_root() {
            Some(nobody()?)
        } else {
            None
        };
        // Another user must get there, so root's own temporary directory would not do.
        let parent = if account.is_some() {
            PathBuf::from("/tmp")
        } else {
            std::env::temp_dir()
        };
        let directory = parent.join(format!("openclaw-lab-postgres-{}", Uuid::new_v4().simple()));
        let guard = Guard::over(&directory, "QUIT")?;
        fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let postgres = Self {
            _guard: guard,
            server: Mutex::new(None),
            bin,
            directory,
            port: port::free()?,
            password: Uuid::new_v4().simple().to_string(),
            account,
            options,
        };
        postgres.initialise().await?;
        postgres.start_again().await?;
        Ok(postgres)
    }

    /// The superuser's URL of the database `postgres`, with the password.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The superuser's URL of a database, with the password.
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// The superuser's password, to check that nothing prints it.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds all of the server; removed on drop.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The server's log.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// The `psql` that belongs to this server.
    pub fn psql_path(&self) -> PathBuf {
        self.bin.join("psql")
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    /// When the name is not a plain identifier, or is taken.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        ensure!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
            "{name:?} is no plain database name: only a-z, 0-9 and _ are"
        );
        let create = async {
            let mut connection = self.connect().await?;
            // An identifier cannot be a parameter; it was checked above.
            let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
            connection.execute(sql).await?;
            connection.close().await
        };
        timeout(STATEMENT, create)
            .await
            .with_context(|| format!("creating database {name} took more than {} s", STATEMENT.as_secs()))?
            .with_context(|| format!("cannot create database {name}"))?;
        Ok(self.url_of(name))
    }

    /// Creates an empty database with a name of its own and returns its URL.
    ///
    /// # Errors
    /// When the server is down.
    pub async fn fresh_database(&self) -> Result<String> {
        self.create_database(&format!("test_{}", Uuid::new_v4().simple())).await
    }

    /// Stops the server in an orderly way, ending its sessions; data and port stay. No error when it is stopped already.
    ///
    /// # Errors
    /// When it does not end even by SIGKILL.
    pub async fn stop(&self) -> Result<()> {
        self.end(&[(Signal::INT, STOP), (Signal::QUIT, STOP), (Signal::KILL, STOP)])
            .await
    }

    /// Kills the server with SIGKILL, as a crash of its machine would; data and port stay.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill9(&self) -> Result<()> {
        self.end(&[(Signal::KILL, STOP)]).await
    }

    /// Starts the server again after [`stop`](Self::stop) or [`kill9`](Self::kill9), on the same port.
    ///
    /// # Errors
    /// When it does not start; the message holds the end of its log.
    pub async fn start_again(&self) -> Result<()> {
        let mut server = self.server.lock().await;
        if let Some(running) = server.as_mut() {
            ensure!(running.try_wait()?.is_some(), "this Postgres server is running already");
        }
        // After a SIGKILL the orphaned backends hold the shared memory for a moment, and a new server refuses to start.
        let mut attempts = 25;
        loop {
            let mut child = self.spawn()?;
            let probe = || async { Ok(self.connect().await?.close().await?) };
            let ready = readiness::wait("Postgres", &mut child, &self.log_path(), START, probe).await;
            match ready {
                Ok(()) => {
                    *server = Some(child);
                    return Ok(());
                }
                Err(error) => {
                    processes::signal_child(&child, Signal::KILL);
                    processes::ended(&mut child, STOP).await;
                    attempts -= 1;
                    let in_use = error.to_string().contains("pre-existing shared memory block");
                    if attempts == 0 || !in_use {
                        return Err(error);
                    }
                    File::create(self.log_path())?;
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start_again`](Self::start_again).
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    async fn connect(&self) -> sqlx::Result<sqlx::PgConnection> {
        let options: sqlx::postgres::PgConnectOptions = self.url().parse()?;
        options.connect().await
    }

    async fn end(&self, ways: &[(Signal, Duration)]) -> Result<()> {
        let mut slot = self.server.lock().await;
        let Some(mut server) = slot.take() else {
            return Ok(());
        };
        for (signal, patience) in ways {
            processes::signal_child(&server, *signal);
            if processes::ended(&mut server, *patience).await {
                return Ok(());
            }
        }
        let pid = server.id();
        *slot = Some(server);
        bail!("Postgres (process {pid}) does not end")
    }

    async fn initialise(&self) -> Result<()> {
        let password_file = self.directory.join("password");
        fs::write(&password_file, &self.password)?;
        self.hand_over(&self.directory)?;
        self.hand_over(&password_file)?;
        let mut command = self.command("initdb");
        command
            .arg("--pgdata")
            .arg(self.data())
            .arg("--pwfile")
            .arg(&password_file)
            .args([
                "--username",
                SUPERUSER,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
            ])
            .arg("--no-sync")
            .stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let output = timeout(START, command.output())
            .await
            .with_context(|| format!("initdb was not done after {} s", START.as_secs()))?
            .with_context(|| format!("cannot run {}", self.bin.join("initdb").display()))?;
        ensure!(
            output.status.success(),
            "initdb failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        fs::remove_file(&password_file)?;
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "127.0.0.1");
        set("port", &self.port.to_string());
        set("unix_socket_directories", "");
        // Many tests, each with its pools, share one server.
        set("max_connections", "300");
        set("shared_buffers", "64MB");
        if !self.options.durable {
            for name in ["fsync", "synchronous_commit", "full_page_writes"] {
                set(name, "off");
            }
        }
        for (name, value) in &self.options.settings {
            set(name, value);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on the terminal is for the owner to handle.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", self.bin.join("postgres").display()))
    }

    /// A command of the server's installation, run as its account and with nothing of our environment but what is needed.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("HOME", &self.directory)
            .env(TAG, &self.directory)
            .current_dir("/");
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        if let Some(account) = self.account {
            chown(path, Some(account.uid), Some(account.gid))
                .with_context(|| format!("cannot give {} to the user nobody", path.display()))?;
        }
        Ok(())
    }
}

/// The account `nobody`.
fn nobody() -> Result<Account> {
    let accounts = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    accounts
        .lines()
        .filter_map(|line| line.strip_prefix("nobody:"))
        .find_map(|line| {
            let mut fields = line.split(':').skip(1);
            Some(Account {
                uid: fields.next()?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
            })
        })
        .context("Postgres refuses to run as root, and /etc/passwd has no user nobody to run it as")
}
