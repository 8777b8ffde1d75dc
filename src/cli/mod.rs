//! The commands.

mod apply;
mod diff;
mod export;
mod get;
mod migrate;
mod rotate;
pub mod run;
mod sync;
mod unmanaged;
mod waiting;

#[cfg(feature = "sim")]
pub mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use secrecy::SecretString;
#[cfg(feature = "sim")]
use tokio_util::sync::CancellationToken;

use crate::config::{self, RunArgs};
#[cfg(feature = "sim")]
use crate::config::{ConnectionArgs, DesiredArgs, ExistenceArgs, GatewayArgs, TokenArgs};
use crate::store::{PgOptions, PgStore};
use crate::telemetry::{self, LogFormat};

/// Exit code of `diff` when something would change.
const DIFFERENCES: u8 = 1;
/// Exit code when something failed.
const FAILED: u8 = 2;

/// Makes OpenClaw gateways match the agents declared in Postgres, and keeps them so.
///
/// Rows in Postgres (organizations, boards, agents, gateways) say which agents should exist. `run` compares them with what
/// each gateway actually holds (its roster, heartbeats, workspace files, tokens), writes only what differs, reads it back,
/// and does so again whenever a row changes, a gateway comes back, or somebody edits something by hand.
#[derive(Parser, Debug)]
#[command(
    version,
    max_term_width = 110,
    after_help = "The database's URL is read from DATABASE_URL (or from the file that \
OPENCLAW_CONTROLLER_DATABASE_URL_FILE names), never from the command line.\n\nExamples:\n  \
DATABASE_URL=postgres://me:secret@localhost/mission_control openclaw-controller diff   what would change\n  \
openclaw-controller run --base-url https://mission.example --templates-dir ./templates\n  \
openclaw-controller get agents -o wide                                                 who is ready, and why not"
)]
pub struct Cli {
    /// What to log: error, warn, info, debug, trace, or directives such as info,openclaw_controller::gateway=debug.
    ///
    /// Defaults to RUST_LOG, else info,sqlx=warn.
    #[arg(long, env = "OPENCLAW_CONTROLLER_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,

    /// How to log: text on a terminal and JSON otherwise, unless said here.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_LOG_FORMAT",
        global = true,
        value_name = "FORMAT",
        default_value = "auto"
    )]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the controller until stopped.
    ///
    /// Serves /metrics, /healthz, /readyz and agents' check-ins. SIGTERM or SIGINT finishes what is in flight and hands over to a standby; a
    /// second signal ends at once. Any number may run on one database: one acts, the others stand by.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Create or update the controller's schema, and all tables if the database is empty.
    ///
    /// Safe to run again, and beside an existing installation: nothing of another program's is changed. If something is in the
    /// way, says what, and changes nothing.
    #[command(after_help = MIGRATE_HELP)]
    Migrate,
    /// Show what `run` would change now, and change nothing.
    ///
    /// Prints the config steps of each gateway and unified diffs of files, with tokens redacted. Exit code 0: no difference,
    /// 1: differences, 2: something could not be looked at.
    #[command(after_help = DIFF_HELP)]
    Diff(diff::DiffArgs),
    /// List gateways, boards or agents with their conditions, or agents on gateways that no row explains.
    ///
    /// Gateways, boards and agents are read from the database alone: what is shown is what a running controller last saw. For
    /// `unmanaged` each gateway is asked, and nothing is written, there or in the database.
    #[command(after_help = GET_HELP)]
    Get(get::GetArgs),
    /// Make the database's rows say what a file says: organizations, gateways, boards, agents, templates.
    ///
    /// Everything is written in one transaction, or nothing is. Prints what changes. What the file leaves out is left alone;
    /// --prune removes what belongs to the file's organizations and is not in it, agents by way of their gateways.
    #[command(after_help = APPLY_HELP)]
    Apply(apply::ApplyArgs),
    /// Print the database's rows as a file for `apply`.
    ///
    /// Applying that file changes nothing. Gateways' tokens are not in it: those that the database holds are named as being
    /// there, and stay there.
    #[command(after_help = EXPORT_HELP)]
    Export(export::ExportArgs),
    /// Ask for new tokens for agents.
    ///
    /// Writes the request and returns; the controller that runs on the database, now or later, gives each agent a new token in
    /// two steps that lock nobody out. The old token is taken at check-ins for ten minutes more, and stands in no managed file
    /// afterwards.
    #[command(after_help = ROTATE_HELP)]
    RotateToken(rotate::RotateArgs),
    /// Sync one gateway now: its agents' files, and on request their tokens and sessions.
    ///
    /// Asks the controller that runs on the database, and waits for what comes of it. If none runs, this process does the work
    /// itself, in its place: only then do --base-url, --templates-dir and the other settings at the end matter, and they must
    /// be those of `run`, or the files become others.
    #[command(after_help = SYNC_HELP)]
    Sync(Box<sync::SyncArgs>),
    /// Start a private Postgres and a gateway, seed them, and run the controller on them.
    #[cfg(feature = "sim")]
    #[command(after_help = DEMO_HELP)]
    Demo(demo::DemoArguments),
}

impl Command {
    /// What is logged if nobody says otherwise, where it is not the usual.
    fn usual_log(&self) -> Option<&'static str> {
        match self {
            // It shows by itself what happens; a log in between would hide it.
            #[cfg(feature = "sim")]
            Self::Demo(_) if std::env::var_os("RUST_LOG").is_none() => Some("warn"),
            // Its result says all that matters, once the gateway was waited for long enough.
            Self::Sync(_) if std::env::var_os("RUST_LOG").is_none() => Some("error"),
            _ => None,
        }
    }
}

const RUN_HELP: &str = "\
Examples:
  openclaw-controller run --base-url https://mission.example
  openclaw-controller run --listen 0.0.0.0:8080 --templates-dir ./templates --base-url https://mission.example
  OPENCLAW_CONTROLLER_RESYNC_INTERVAL=5m openclaw-controller run
  curl http://127.0.0.1:8080/readyz                        whether it can work, check by check

Exit codes: 0 stopped by a signal; 2 the settings or the database's tables cannot be used; 130 ended at once by a
second signal. A database or gateway that does not answer is waited for.";

const MIGRATE_HELP: &str = "\
Examples:
  openclaw-controller migrate                              before a `run --no-migrate`, as a role that may create tables
  openclaw-controller migrate && openclaw-controller diff

Exit codes: 0 up to date; 2 something is in the way (nothing was changed), or the database cannot be used.";

const DIFF_HELP: &str = "\
Examples:
  openclaw-controller diff --base-url https://mission.example --templates-dir ./templates
  openclaw-controller diff --gateway 6d2f0c1e-0000-4000-8000-000000000001 -o json
  openclaw-controller diff >/dev/null; echo $?             for scripts: the exit code alone

Give it the same settings as `run` (flags or environment): the base URL and the templates decide what files hold.";

const GET_HELP: &str = "\
Examples:
  openclaw-controller get agents                           who is ready, and why not
  openclaw-controller get gateways -o wide                 with ids, URLs and messages
  openclaw-controller get agents -o json | jq '.items[] | select(.ready.status != \"True\")'
  openclaw-controller get unmanaged --gateway 6d2f0c1e-0000-4000-8000-000000000001
                                                           whose the other agents on it are, before the first `run`

Exit codes: 0 listed, even if nothing was found; 2 the database cannot be used, there is no such gateway, or (unmanaged) a
gateway could not be asked.";

const APPLY_HELP: &str = "\
Examples:
  openclaw-controller export >fleet.yaml                   begin with what there is
  openclaw-controller apply -f fleet.yaml --dry-run        what would change
  openclaw-controller apply -f fleet.yaml --prune          change it, and remove what is not in the file
  openclaw-controller apply --schema >fleet.schema.json    for editors that complete and check YAML

Exit codes: 0 applied, nothing to do, or a dry run; 2 something is wrong with the file (each problem with its line and
column) or with the database: nothing was applied.";

const EXPORT_HELP: &str = "\
Examples:
  openclaw-controller export >fleet.yaml
  openclaw-controller export --organization 'Harbour museum' | openclaw-controller apply -f - --dry-run

Exit codes: 0 printed; 2 there is no such organization, or the database cannot be used.";

const ROTATE_HELP: &str = "\
Examples:
  openclaw-controller rotate-token --all --wait            every agent, with progress, until all is done
  openclaw-controller rotate-token --board 6d2f0c1e-0000-4000-8000-000000000002
  openclaw-controller rotate-token --agent ID1 --agent ID2 --wait --timeout 2m

Exit codes: 0 requested, or with --wait: done; 1 not every agent had its new token in time (each is listed with the reason;
the rotation goes on); 2 an id is not known (nothing was requested), or the database cannot be used; 130 the waiting was
ended by a signal (the rotation goes on).";

const SYNC_HELP: &str = "\
Examples:
  openclaw-controller sync --gateway 6d2f0c1e-0000-4000-8000-000000000001
  openclaw-controller sync --gateway ID --rotate-tokens -o json | jq .errors
  openclaw-controller sync --gateway ID --board ID --no-include-main --reset-sessions

Without options it changes nothing that the controller would not change, and tells which agents match. A token that is lost or
does not match is replaced with --rotate-tokens only. Agents of a paused board are skipped; that is no error.

Exit codes: 0 no errors; 1 the result holds errors (or warnings); 2 the request could not be made (a gateway or user that is
not there, the database) or nobody answered it; 130 the waiting was ended by a signal (a controller that has taken the sync up
goes on).";

#[cfg(feature = "sim")]
const DEMO_HELP: &str = "\
Examples:
  openclaw-controller demo                                 on a simulated gateway, at once
  openclaw-controller demo --gateway 2026.9.6              on a real OpenClaw, installed first

Ctrl-C ends everything that was started and removes it.";

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = telemetry::init(cli.log_format, cli.log.as_deref().or(cli.command.usual_log()))
        .map_err(anyhow::Error::from)
        .and_then(|()| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let outcome = runtime.block_on(execute(cli.command));
            // Nothing is waited for any more: not a name being resolved, not a key being derived.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// An error with its causes, each told once: some errors repeat their cause in their own text. None holds a secret.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            cause
        } else if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::command(args).await.map(|()| ExitCode::SUCCESS),
        Command::Migrate => migrate::command().await.map(|()| ExitCode::SUCCESS),
        Command::Diff(args) => diff::command(args).await,
        Command::Get(args) => get::command(args).await,
        Command::Apply(args) => apply::command(args).await,
        Command::Export(args) => export::command(args).await,
        Command::RotateToken(args) => rotate::command(args).await,
        Command::Sync(args) => Box::pin(sync::command(*args)).await,
        #[cfg(feature = "sim")]
        Command::Demo(args) => Box::pin(demo_command(args)).await.map(|()| ExitCode::SUCCESS),
    }
}

/// The demo, with the controller in this process.
#[cfg(feature = "sim")]
async fn demo_command(args: demo::DemoArguments) -> anyhow::Result<()> {
    struct InProcess;

    impl demo::DemoController for InProcess {
        async fn run(&self, target: demo::DemoTarget, shutdown: CancellationToken) -> anyhow::Result<()> {
            let args = RunArgs {
                desired: DesiredArgs {
                    base_url: Some(target.base_url),
                    templates_dir: None,
                    device_identity: Some(target.device_identity),
                    connections: ConnectionArgs::default(),
                    listen: target.listen,
                    agent_listen: None,
                    tokens: TokenArgs::default(),
                    gateways: GatewayArgs::default(),
                },
                existence: ExistenceArgs::default(),
                resync_interval: config::Span(std::time::Duration::from_secs(30)),
                token_hash: config::TokenHash::Auto,
                no_migrate: false,
                no_wake: false,
                agent_workers: 16,
                gateway_workers: 32,
            };
            run::run(target.database_url.into(), args, shutdown).await
        }
    }

    Box::pin(demo::run(&args, &InProcess, run::stop_on_signals()?)).await
}

/// The database that the environment names, reached once.
async fn connect() -> anyhow::Result<PgStore> {
    let url: SecretString = config::database_url()?;
    Ok(PgStore::connect(&url, PgOptions::default()).await?)
}

/// The same, already migrated.
async fn connect_migrated() -> anyhow::Result<PgStore> {
    let store = connect().await?;
    store.check_schema().await?;
    Ok(store)
}
