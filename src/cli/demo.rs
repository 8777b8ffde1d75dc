//! `openclaw-controller demo`: everything on one machine, started, shown and removed again.
//!
//! A private Postgres, a gateway (simulated or real), a small organisation in rows, and the controller in this very process.
//! Nothing outlives the command, whichever way it ends.

mod agents;
mod gateway;
mod progress;
mod seed;
mod text;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use secrecy::SecretString;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::out;
use crate::lab::{self, Postgres};
use crate::store::{PgOptions, PgStore};
use gateway::DemoGateway;
use progress::Progress;

/// How long the controller may take to finish after it was asked to.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// Where `run` listens unless told otherwise; the demo does the same if it can.
const USUAL_PORT: u16 = 8080;

/// The demo's arguments.
#[derive(Args, Clone, Debug)]
pub struct DemoArguments {
    /// The gateway to start: `sim` (simulated, at once), or a version of OpenClaw (installed from npm first, about 650 MB)
    #[arg(long, default_value = "sim", value_name = "sim|VERSION")]
    pub gateway: String,
}

/// What the demo hands to the controller.
#[derive(Clone)]
pub struct DemoTarget {
    /// The private database, with its password.
    pub database_url: String,
    /// Where to serve metrics and probes.
    pub listen: SocketAddr,
    /// What agents should call.
    pub base_url: String,
    /// Where to keep the device identity's key: inside a directory that vanishes with the demo.
    pub device_identity: PathBuf,
}

/// The controller, as the demo needs it. **This is the seam**: the `run` command implements it for the real one.
pub trait DemoController {
    /// Runs until `shutdown` is cancelled.
    fn run(&self, target: DemoTarget, shutdown: CancellationToken) -> impl Future<Output = Result<()>> + Send;
}

/// Runs the demo until `shutdown` is cancelled (by Ctrl-C or SIGTERM).
///
/// # Errors
/// When a part cannot be installed or started, or the controller ends by itself.
pub async fn run<C: DemoController>(
    arguments: &DemoArguments,
    controller: &C,
    shutdown: CancellationToken,
) -> Result<()> {
    // Dropping an unfinished start ends what it has started.
    let stage = tokio::select! {
        stage = Box::pin(Stage::set(arguments)) => stage?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let running = shutdown.child_token();
    let mut work = std::pin::pin!(controller.run(stage.target.clone(), running.clone()));
    let ended = tokio::select! {
        result = &mut work => Some(result),
        result = stage.show() => {
            running.cancel();
            result.context("the demo cannot follow its own database")?;
            None
        }
        () = shutdown.cancelled() => None,
    };
    if let Some(result) = ended {
        result.context("the controller ended")?;
    } else {
        // Whoever stopped reading must not keep all of it from being ended.
        let _ = out::line("\nEnding the controller, the gateway and Postgres …");
        timeout(SHUTDOWN, work).await.with_context(|| {
            format!(
                "the controller was still busy {} s after it was asked to end",
                SHUTDOWN.as_secs()
            )
        })??;
    }
    // Removing a real gateway takes a moment and blocks.
    tokio::task::spawn_blocking(move || drop(stage))
        .await
        .context("the demo could not be removed")
}

/// What the controller plays on.
struct Stage {
    gateway: DemoGateway,
    postgres: Postgres,
    target: DemoTarget,
}

impl Stage {
    async fn set(arguments: &DemoArguments) -> Result<Self> {
        out::line("Starting a private Postgres …")?;
        let postgres = Postgres::start().await?;
        out::line(format_args!("Starting the gateway ({}) …", arguments.gateway))?;
        let gateway = DemoGateway::start(&arguments.gateway).await?;
        let database_url = postgres.create_database("demo").await?;
        out::line("Migrating and seeding: one organisation, two boards, six agents …")?;
        migrate(&database_url).await?;
        seed::plant(
            &database_url,
            &gateway.url(),
            gateway.token(),
            &gateway.workspace_root(),
        )
        .await?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        if let DemoGateway::Sim { gateway, .. } = &gateway {
            agents::play(gateway, listen);
        }
        let target = DemoTarget {
            database_url,
            listen,
            base_url: format!("http://{listen}"),
            device_identity: postgres.directory().join("device-identity"),
        };
        Ok(Self {
            gateway,
            postgres,
            target,
        })
    }

    /// Prints what happens, for ever.
    async fn show(&self) -> Result<()> {
        out::line("Running the controller.\n")?;
        let mut progress = Progress::of(&self.target.database_url).await?;
        let seconds = progress.until_converged().await?;
        // What the gateway was told so far is in the conditions above.
        let mut watch = self.gateway.watch();
        out::line(format_args!(
            "\nAll six agents match their rows after {seconds:.1} s.\n"
        ))?;
        out::line(text::what_next(&self.target, &self.gateway, &self.postgres))?;
        progress.follow(|| watch.news(&self.gateway)).await
    }
}

/// Here and not left to the controller: the rows need their tables first.
async fn migrate(database_url: &str) -> Result<()> {
    let store = PgStore::connect(&SecretString::from(database_url), PgOptions::default())
        .await
        .context("cannot connect to the demo's own Postgres")?;
    store.migrate().await.context("cannot create the tables")?;
    store.close().await;
    Ok(())
}

fn free_port() -> Result<u16> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, USUAL_PORT)) {
        Ok(_) => Ok(USUAL_PORT),
        Err(_) => lab::free_port(),
    }
}

#[cfg(test)]
mod tests;
