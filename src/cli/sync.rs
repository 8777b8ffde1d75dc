//! `openclaw-controller sync`: a one-shot sync of one gateway, by the controller that runs, or by this process if none does.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use clap::{ArgAction, Args, ValueEnum};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::out::{self, plain};
use super::reference::References;
use super::run::{self, SCOPE};
use super::table::{bare, lines};
use super::waiting::{INTERRUPTED, Shown, interrupted};
use crate::config::{DesiredArgs, Span, TokenHash};
use crate::gateway::RpcMetrics;
use crate::model::{BoardId, GatewayId, SyncId, SyncOptions, SyncResult};
use crate::reconcile::{AGENT_CONTROLLER, Fleet, GATEWAY_CONTROLLER, Live, Workers};
use crate::runtime::{FleetMetrics, Ownership, OwnershipConfig, RuntimeMetrics, Tenure};
use crate::store::{Fence, LeaseInfo, LeaseStore, PgStore, Store, StoreError, SyncStore};

/// Exit code when the result holds errors.
const ERRORS: u8 = 1;

/// How often it is looked how far the sync has come.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long after another process held the lease this one leaves it alone: a controller that stands by or is being restarted is to
/// be first, for it knows its settings best.
const OTHERS_FIRST: Duration = Duration::from_secs(30);

/// How much longer than the time limit's double a sync may be silent before nobody is waited for any more: whoever takes one
/// up waits for the gateway anew.
const SILENCE: Duration = Duration::from_mins(1);

/// The arguments of `sync`.
#[derive(Args, Debug)]
pub(super) struct SyncArgs {
    /// The gateway: its id, the beginning of that, or its name.
    #[arg(long, value_name = "GATEWAY")]
    gateway: String,

    /// Only the agents of this board. The gateway's main agent is synced all the same, unless excluded.
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,

    /// Render files for this user, by id, from now on, instead of for the organisation's owner.
    #[arg(long, value_name = "ID")]
    user: Option<Uuid>,

    /// Whether the gateway's main agent is synced too.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true"
    )]
    include_main: bool,

    /// The same as --include-main=false.
    #[arg(long, conflicts_with = "include_main")]
    no_include_main: bool,

    /// Reset each agent's session, once.
    #[arg(long)]
    reset_sessions: bool,

    /// Give each agent a new token, in two steps that lock nobody out.
    #[arg(long)]
    rotate_tokens: bool,

    /// Write BOOTSTRAP.md once more, although the agent has deleted it.
    #[arg(long)]
    force_bootstrap: bool,

    /// Write USER.md and MEMORY.md, although they belong to the agent: what it noted there is lost.
    #[arg(long)]
    overwrite: bool,

    /// How to print what came of it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// How long the gateway may keep the sync waiting before it is ended: 10m, 90s.
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    timeout: Span,

    #[command(
        flatten,
        next_help_heading = "Only used where no controller runs, so that this process does the work"
    )]
    desired: DesiredArgs,

    /// How new tokens are hashed.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_TOKEN_HASH",
        value_name = "FORMAT",
        default_value = "auto"
    )]
    token_hash: TokenHash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A summary, and what there is to say, agent by agent.
    Table,
    /// The result as JSON, and nothing else.
    Json,
}

impl SyncArgs {
    fn options(&self, board: Option<BoardId>) -> SyncOptions {
        SyncOptions {
            board,
            user: self.user,
            include_main: self.include_main && !self.no_include_main,
            reset_sessions: self.reset_sessions,
            rotate_tokens: self.rotate_tokens,
            force_bootstrap: self.force_bootstrap,
            overwrite: self.overwrite,
            time_limit_ms: u64::try_from(self.timeout.0.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// How the waiting ended.
enum Waited {
    Result(SyncResult),
    /// Nothing was heard for too long.
    Silence,
    Interrupted,
}

pub(super) async fn command(args: SyncArgs) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let interrupted = interrupted()?;
    let references = References::load(&store).await?;
    let gateway = references.gateway(&args.gateway)?;
    let board = match args.board.as_deref() {
        None => None,
        // One that is not there is not on this gateway either, and the result says that.
        Some(board) => Some(match board.trim().parse() {
            Ok(id) => BoardId(id),
            Err(_) => references.board(board)?,
        }),
    };
    let sync = store.request_sync(gateway, &args.options(board)).await?;
    let patience = args.timeout.0.saturating_mul(2).saturating_add(SILENCE);
    let output = args.output;
    let mut shown = Shown::on_terminal("waiting for the sync to begin");
    let stop = CancellationToken::new();
    let (failed, mut failure) = mpsc::unbounded_channel();
    let here = Here {
        store: store.clone(),
        args,
        gateway,
        failed,
        works: AtomicBool::new(false),
    };
    let here = Arc::new(here);
    let working = tokio::spawn(Arc::clone(&here).work(stop.clone()));
    let waited = tokio::select! {
        waited = wait(&store, sync, patience, &mut shown) => waited.map_err(anyhow::Error::from),
        Some(problem) = failure.recv() => Err(problem),
        () = interrupted => Ok(Waited::Interrupted),
    };
    shown.finish();
    let worked = here.works.load(Ordering::Relaxed);
    stop.cancel();
    let _ = working.await;
    let waited = match waited {
        Ok(waited) => waited,
        Err(problem) => {
            // Nobody waits for it any more. If this fails as well, it goes away in a day.
            let _ = store.withdraw_sync(sync, !worked).await;
            return Err(problem);
        }
    };
    let result = match waited {
        Waited::Result(result) => result,
        Waited::Silence | Waited::Interrupted => {
            let withdrawn = store.withdraw_sync(sync, !worked).await?;
            let so_far = if withdrawn && worked {
                "the sync was ended; what is done stays done"
            } else if withdrawn {
                "nobody has taken the sync up, so it was withdrawn; nothing was done"
            } else {
                "the sync goes on without this command"
            };
            anyhow::ensure!(
                matches!(waited, Waited::Interrupted),
                "nothing was heard of the sync for {}: {so_far}",
                Span(patience)
            );
            out::note(format_args!("no longer waiting; {so_far}"));
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    match output {
        Output::Json => out::line(serde_json::to_string_pretty(&result)?)?,
        Output::Table => out::print(&text(&result))?,
    }
    Ok(if result.errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(ERRORS)
    })
}

/// Looks until the sync is finished, or nothing was heard of it for too long.
async fn wait(
    store: &impl SyncStore,
    sync: SyncId,
    patience: Duration,
    shown: &mut Shown,
) -> Result<Waited, StoreError> {
    let (mut heard, mut last) = (Instant::now(), None);
    loop {
        match store.sync_progress(sync).await {
            Ok(Some(progress)) => {
                if let Some(result) = progress.result {
                    return Ok(Waited::Result(result));
                }
                if let Some(agents) = progress.agents {
                    shown.of(agents, "agents");
                    shown.at(progress.done);
                }
                if last.as_ref() != Some(&progress) {
                    heard = Instant::now();
                    last = Some(progress);
                }
            }
            Ok(None) => {
                return Err(StoreError::BadData {
                    object: format!("the request for sync {}", sync.0),
                    problem: "somebody removed it; ask again".to_owned(),
                });
            }
            // A database that restarts is waited for like everything else.
            Err(error) if error.is_transient() => tracing::debug!(%error, "cannot look how far the sync has come"),
            Err(error) => return Err(error),
        }
        if heard.elapsed() > patience {
            return Ok(Waited::Silence);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Doing the work in this process, for as long as nobody else does.
struct Here {
    store: PgStore,
    args: SyncArgs,
    gateway: GatewayId,
    /// Told why this process cannot do it.
    failed: mpsc::UnboundedSender<anyhow::Error>,
    /// Whether it does.
    works: AtomicBool,
}

impl Here {
    /// Contends for the lease until stopped, and does the work while it is held.
    async fn work(self: Arc<Self>, stop: CancellationToken) {
        let leases = Patient {
            store: self.store.clone(),
            held: Mutex::new(None),
        };
        let metrics = match RuntimeMetrics::register(&Registry::new(), &[GATEWAY_CONTROLLER, AGENT_CONTROLLER], "sync")
        {
            Ok(metrics) => metrics,
            Err(error) => {
                let _ = self.failed.send(error.into());
                return;
            }
        };
        let holder = format!("sync-{}-{}", std::process::id(), Uuid::new_v4());
        let ownership = Ownership::new(OwnershipConfig::new(SCOPE, holder), Arc::clone(&metrics.ownership));
        let work = move |tenure| {
            let (here, metrics) = (Arc::clone(&self), metrics.clone());
            async move {
                here.works.store(true, Ordering::Relaxed);
                if let Err(error) = here.tenure(tenure, metrics).await {
                    // Whoever waits for it ends this process.
                    let _ = here.failed.send(error);
                }
                here.works.store(false, Ordering::Relaxed);
            }
        };
        ownership.run(&leases, work, stop).await;
    }

    /// One tenure: the same work as that of `run`, for what is asked for only.
    async fn tenure(&self, tenure: Tenure, runtime_metrics: RuntimeMetrics) -> anyhow::Result<()> {
        let args = &self.args;
        let existing = self.store.is_existing_installation().await?;
        let fleet = Fleet {
            store: Arc::new(self.store.clone()),
            connector: Arc::new(run::connector(&args.desired, RpcMetrics::unregistered())?),
            templates: Arc::new(run::templates(&args.desired)?),
            settings: run::settings(&args.desired, args.token_hash, RESYNC, existing),
            workers: Workers::default(),
            clock: Arc::new(Utc::now),
            runtime_metrics,
            metrics: Arc::new(FleetMetrics::register(&Registry::new())?),
            live: Live::default(),
        };
        let hints = self.store.listen();
        fleet
            .work_on(Some(self.gateway), tenure, hints, rand::random(), |_| {})
            .await;
        Ok(())
    }
}

/// How often this process looks at everything that it was asked for.
const RESYNC: Duration = Duration::from_mins(10);

/// Leases for one that takes over only where nobody else does.
struct Patient {
    store: PgStore,
    /// When another process was last seen to hold the lease.
    held: Mutex<Option<Instant>>,
}

impl LeaseStore for Patient {
    async fn acquire(&self, scope: &str, holder: &str, ttl: Duration) -> Result<Option<i64>, StoreError> {
        let lease = self.store.current(scope).await?;
        let held = lease.is_some_and(|lease| lease.held && lease.holder.as_deref() != Some(holder));
        let others_first = {
            let mut last = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held {
                *last = Some(Instant::now());
            }
            last.is_some_and(|at| at.elapsed() < OTHERS_FIRST)
        };
        if others_first {
            return Ok(None);
        }
        self.store.acquire(scope, holder, ttl).await
    }

    async fn renew(&self, fence: &Fence, ttl: Duration) -> Result<bool, StoreError> {
        self.store.renew(fence, ttl).await
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        self.store.release(fence).await
    }

    async fn current(&self, scope: &str) -> Result<Option<LeaseInfo>, StoreError> {
        self.store.current(scope).await
    }
}

/// A result for people.
fn text(result: &SyncResult) -> String {
    let agents = |count: usize| match count {
        1 => "1 agent".to_owned(),
        count => format!("{count} agents"),
    };
    let main = match (result.include_main, result.main_updated) {
        (false, _) => "main agent left out",
        (true, true) => "main agent updated",
        (true, false) => "main agent not updated",
    };
    let mut text = format!(
        "{} updated, {} skipped, {main}",
        agents(result.agents_updated),
        result.agents_skipped
    );
    if result.errors.is_empty() {
        return text + "\n";
    }
    let count = result.errors.len();
    let _ = writeln!(text, "; {count} {}:", if count == 1 { "error" } else { "errors" });
    let mut table = bare();
    table.set_header(["AGENT", "ID", "MESSAGE"]);
    for error in &result.errors {
        let name = error.agent_name.as_deref().unwrap_or("-");
        let id = error.agent_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        table.add_row([&plain(name), &id, &plain(&error.message)]);
    }
    text + &lines(&table) + "\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model::{AgentId, SyncError};

    #[derive(Parser)]
    struct Parsed {
        #[command(flatten)]
        sync: SyncArgs,
    }

    fn options(arguments: &[&str]) -> Result<SyncOptions, String> {
        let gateway = ["sync", "--gateway", "00000000-0000-0000-0000-000000000001"];
        let parsed = Parsed::try_parse_from(gateway.iter().chain(arguments));
        parsed
            .map(|parsed| {
                parsed
                    .sync
                    .options(parsed.sync.board.as_deref().map(|id| BoardId(id.parse().unwrap())))
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_those_of_the_contract_and_the_main_agent_is_included_unless_excluded() {
        assert_eq!(options(&[]), Ok(SyncOptions::default()));
        for (arguments, included) in [
            (&["--include-main"] as &[_], true),
            (&["--include-main=true"], true),
            (&["--include-main=false"], false),
            (&["--no-include-main"], false),
        ] {
            assert_eq!(options(arguments).unwrap().include_main, included, "{arguments:?}");
        }
        let user = Uuid::from_u128(3);
        let all = options(&[
            "--board=00000000-0000-0000-0000-000000000002",
            "--user=00000000-0000-0000-0000-000000000003",
            "--reset-sessions",
            "--rotate-tokens",
            "--force-bootstrap",
            "--overwrite",
            "--timeout=90s",
        ]);
        let expected = SyncOptions {
            board: Some(BoardId(Uuid::from_u128(2))),
            user: Some(user),
            include_main: true,
            reset_sessions: true,
            rotate_tokens: true,
            force_bootstrap: true,
            overwrite: true,
            time_limit_ms: 90_000,
        };
        assert_eq!(all, Ok(expected));
        for wrong in [
            &["--include-main", "--no-include-main"] as &[_],
            &["--include-main=perhaps"],
            &["--timeout=0s"],
            &["-o", "yaml"],
        ] {
            assert!(options(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_result_is_summed_up_and_every_error_has_its_line() {
        let mut result = SyncResult {
            gateway_id: GatewayId(Uuid::nil()),
            include_main: true,
            reset_sessions: false,
            agents_updated: 1,
            agents_skipped: 0,
            main_updated: true,
            errors: Vec::new(),
        };
        assert_eq!(text(&result), "1 agent updated, 0 skipped, main agent updated\n");
        result.include_main = false;
        result.errors = vec![
            SyncError::general("It is away."),
            SyncError {
                agent_id: Some(AgentId(Uuid::nil())),
                agent_name: Some("Wren".into()),
                board_id: None,
                message: "It was skipped.".into(),
            },
        ];
        let text = text(&result);
        assert!(
            text.starts_with("1 agent updated, 0 skipped, main agent left out; 2 errors:\nAGENT"),
            "{text}"
        );
        assert!(
            text.contains("\n-      -                                     It is away.\n"),
            "{text}"
        );
        assert!(
            text.ends_with("Wren   00000000-0000-0000-0000-000000000000  It was skipped.\n"),
            "{text}"
        );
    }
}
