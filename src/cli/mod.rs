//! The commands.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "who reads it may have gone: `out` prints without a panic"
)]

mod apply;
#[cfg(feature = "sim")]
mod configuration;
mod describe;
mod diff;
mod export;
mod get;
mod help;
mod migrate;
mod out;
mod pause;
mod reference;
mod rotate;
pub mod run;
mod select;
mod shell;
mod sync;
mod table;
mod unmanaged;
mod waiting;
mod wake;

#[cfg(feature = "sim")]
pub mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use secrecy::SecretString;
#[cfg(feature = "sim")]
use tokio_util::sync::CancellationToken;

use crate::config::{self, RunArgs};
#[cfg(feature = "sim")]
use crate::config::{ConnectionArgs, DesiredArgs, ExistenceArgs, GatewayArgs, PageArgs, TokenArgs};
use crate::store::{PgOptions, PgStore, StoreError};
use crate::telemetry::{self, LogFormat};
#[cfg(feature = "sim")]
pub use configuration::{CONFIGURATION_FILE, configuration};

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
    #[command(after_help = help::RUN_HELP)]
    Run(RunArgs),
    /// Create or update the controller's schema, and all tables if the database is empty.
    ///
    /// Safe to run again, and beside an existing installation: nothing of another program's is changed. If something is in the
    /// way, says what, and changes nothing.
    #[command(after_help = help::MIGRATE_HELP)]
    Migrate,
    /// Show what `run` would change now, and change nothing.
    ///
    /// Prints the config steps of each gateway and unified diffs of files, with tokens redacted. Exit code 0: no difference,
    /// 1: differences, 2: something could not be looked at.
    #[command(after_help = help::DIFF_HELP)]
    Diff(diff::DiffArgs),
    /// List gateways, boards or agents with their conditions, events, or agents on gateways that no row explains.
    ///
    /// Gateways, boards, agents and events are read from the database alone: what is shown is what a running controller last saw. For
    /// `unmanaged` each gateway is asked, and nothing is written, there or in the database.
    #[command(after_help = help::GET_HELP)]
    Get(get::GetArgs),
    /// Show all that is known of one gateway, board or agent, and what would change.
    ///
    /// Read from the database: conditions, the last events, when something happens next, how old a token is. If it is not as
    /// desired, its gateway is asked what would change, and nothing is written, there or in the database.
    #[command(after_help = help::DESCRIBE_HELP)]
    Describe(Box<describe::DescribeArgs>),
    /// Make the database's rows say what a file says: organizations, gateways, boards, agents, templates.
    ///
    /// Everything is written in one transaction, or nothing is. Prints what changes. What the file leaves out is left alone;
    /// --prune removes what belongs to the file's organizations and is not in it, agents by way of their gateways.
    #[command(after_help = help::APPLY_HELP)]
    Apply(apply::ApplyArgs),
    /// Print the database's rows as a file for `apply`.
    ///
    /// Applying that file changes nothing. Gateways' tokens are not in it: those that the database holds are named as being
    /// there, and stay there.
    #[command(after_help = help::EXPORT_HELP)]
    Export(export::ExportArgs),
    /// Ask for new tokens for agents.
    ///
    /// Writes the request and returns; the controller that runs on the database, now or later, gives each agent a new token in
    /// two steps that lock nobody out. The old token is taken at check-ins for ten minutes more, and stands in no managed file
    /// afterwards.
    #[command(after_help = help::ROTATE_HELP)]
    RotateToken(rotate::RotateArgs),
    /// Sync one gateway now: its agents' files, and on request their tokens and sessions.
    ///
    /// Asks the controller that runs on the database, and waits for what comes of it. If none runs, this process does the work
    /// itself, in its place: only then do --base-url, --templates-dir and the other settings at the end matter, and they must
    /// be those of `run`, or the files become others.
    #[command(after_help = help::SYNC_HELP)]
    Sync(Box<sync::SyncArgs>),
    /// Pause boards: their agents are left as they are until they are resumed.
    ///
    /// Says /pause in a board's chat, as a person could: nothing is written for its agents until somebody says /resume. A board that
    /// is paused already is left alone.
    #[command(after_help = help::PAUSE_HELP)]
    Pause(pause::PauseArgs),
    /// Have paused boards go on.
    ///
    /// Says /resume in a board's chat, as a person could. What changed meanwhile is made up for.
    #[command(after_help = help::RESUME_HELP)]
    Resume(pause::PauseArgs),
    /// Ask for agents to be woken.
    ///
    /// Writes the request and returns; the controller that runs on the database, now or later, sends each agent one message to start,
    /// and awaits its check-in.
    #[command(after_help = help::WAKE_HELP)]
    Wake(wake::WakeArgs),
    /// Print a script that completes commands and flags in a shell.
    #[command(after_help = help::COMPLETIONS_HELP)]
    Completions(shell::CompletionsArgs),
    /// Print the manual as a man page, or write one page per command.
    #[command(after_help = help::MAN_HELP)]
    Man(shell::ManArgs),
    /// Start a private Postgres and a gateway, seed them, and run the controller on them.
    #[cfg(feature = "sim")]
    #[command(after_help = help::DEMO_HELP)]
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
            if out::reader_has_gone(&error) {
                return ExitCode::SUCCESS;
            }
            out::note(format_args!(
                "{}: {}",
                out::styled(out::BAD, "error"),
                out::plain_lines(&with_causes(&error))
            ));
            ExitCode::from(FAILED)
        }
    }
}

/// An error with its causes, each told once: some errors repeat their cause in their own text. None holds a secret.
fn with_causes(error: &anyhow::Error) -> String {
    if let Some(StoreError::Unreachable(why)) = error.downcast_ref() {
        // Its own text speaks of a controller, which tries again.
        return format!("cannot reach the database: {why}; check that Postgres is running and DATABASE_URL is right");
    }
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
        Command::Describe(args) => Box::pin(describe::command(*args)).await,
        Command::Pause(args) => pause::command(args, true).await,
        Command::Resume(args) => pause::command(args, false).await,
        Command::Wake(args) => wake::command(args).await,
        Command::Completions(args) => shell::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => shell::man(&args).map(|()| ExitCode::SUCCESS),
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
                    connections: ConnectionArgs {
                        device_identity: Some(target.device_identity),
                        ..ConnectionArgs::default()
                    },
                    listen: target.listen,
                    agent_listen: None,
                    tokens: TokenArgs::default(),
                    gateways: GatewayArgs::default(),
                },
                existence: ExistenceArgs::default(),
                page: PageArgs::default(),
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
