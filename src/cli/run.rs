//! `openclaw-controller run`: the controller itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use prometheus::Registry;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{self, DesiredArgs, RunArgs, TokenHash};
use crate::gateway::{Connector, RpcMetrics, WebSocketConnector};
use crate::model::EnsureLeads;
use crate::reconcile::{AGENT_CONTROLLER, Fleet, GATEWAY_CONTROLLER, Live, Settings, Workers};
use crate::render::TemplateSet;
use crate::runtime::{BackoffPolicy, FleetMetrics, Ownership, OwnershipConfig, RuntimeMetrics, Standing};
use crate::serve::{self, Access, AgentRoutes, Health, PageRoutes, ServeState};
use crate::store::{ListenerState, PgOptions, PgStore, Store, StoreError};

/// The one lease of the simple form of ownership: whoever holds it reconciles everything.
pub(super) const SCOPE: &str = "all";

/// The name of the elector in `leader_election_master_status`.
const ELECTOR: &str = "openclaw-controller";

const DATABASE: &str = "database";
const LISTENER: &str = "listener";
const LEADER: &str = "leader";

/// The longest that an orderly stop takes. Whoever supervises the process waits longer than this before killing it: systemd's
/// `TimeoutStopSec`, Kubernetes' `terminationGracePeriodSeconds`.
pub fn stops_within() -> Duration {
    let closing_connections = PgOptions::default().connect_timeout;
    OwnershipConfig::new(SCOPE, "").stops_within() + serve::DRAIN + closing_connections
}

/// Runs until a signal asks it to stop; a second signal ends the process at once.
pub(super) async fn command(args: RunArgs) -> anyhow::Result<()> {
    let url = config::database_url()?;
    run(url, args, stop_on_signals()?).await
}

/// Runs the controller on a database until `stop` is cancelled.
///
/// # Errors
/// The configuration or the database's schema is not usable. A database that cannot be reached is waited for.
pub async fn run(url: SecretString, args: RunArgs, stop: CancellationToken) -> anyhow::Result<()> {
    run_with(|connector| connector, url, args, stop).await
}

/// The same with another way to gateways, made of the usual one: for tests of what may be wrong on it.
///
/// # Errors
/// As [`run`].
pub async fn run_with<C: Connector>(
    way: impl FnOnce(WebSocketConnector) -> C,
    url: SecretString,
    args: RunArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let templates = Arc::new(templates(&args.desired)?);
    let page_token = args.page.token()?;
    if page_token.is_none() && !args.desired.listen.ip().is_loopback() {
        tracing::warn!(
            address = %args.desired.listen,
            "whoever reaches this address can read the status page and the API; --page-token-file has them ask for a token"
        );
    }
    let store = Arc::new(PgStore::connect_lazy(&url, PgOptions::default())?);
    let registry = Registry::new();
    let runtime_metrics = RuntimeMetrics::register(&registry, &[GATEWAY_CONTROLLER, AGENT_CONTROLLER], ELECTOR)?;
    let metrics = Arc::new(FleetMetrics::register(&registry)?);
    let connector = Arc::new(way(connector(&args.desired, RpcMetrics::register(&registry)?)?));
    let health = Health::expecting(&[DATABASE, LISTENER, LEADER]);
    health.register(&registry)?;
    let listener = TcpListener::bind(args.desired.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; choose another address with --listen",
            args.desired.listen
        )
    })?;
    let agent_listener = match args.desired.agent_listen {
        None => None,
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}; choose another address with --agent-listen"))?,
        ),
    };
    let agents = AgentRoutes::new(Arc::clone(&store), &registry)?;
    let serving = CancellationToken::new();
    let live = Live::default();
    let access = Access::new(page_token.as_ref(), args.desired.listen.ip());
    let page = PageRoutes::new(Arc::clone(&store), live.clone(), access, serving.clone());
    let server = tokio::spawn(serve::serve(
        listener,
        ServeState {
            registry,
            health: health.clone(),
            agents: agent_listener.is_none().then(|| agents.clone()),
            page: Some(page),
        },
        serving.clone(),
    ));
    let agent_server =
        agent_listener.map(|listener| tokio::spawn(serve::serve_agents(listener, agents, serving.clone())));
    let outcome = async {
        let Some(existing) = prepare(&store, !args.no_migrate, &health, &stop).await? else {
            return Ok(());
        };
        let mut settings = settings(&args.desired, args.token_hash, args.resync_interval.0, existing);
        args.existence.apply(&mut settings, existing);
        settings.wake = !args.no_wake;
        if settings.withhold_existing_files {
            tracing::warn!(
                "beside an existing installation: files of existing agents are not written until --templates-dir and \
                 --base-url are given; `openclaw-controller diff` shows what would change"
            );
        }
        let fleet = Arc::new(Fleet {
            store: Arc::clone(&store),
            connector,
            templates,
            settings,
            workers: Workers {
                gateways: args.gateway_workers,
                agents: args.agent_workers,
            },
            clock: Arc::new(Utc::now),
            runtime_metrics: runtime_metrics.clone(),
            metrics,
            live,
        });
        reconcile(fleet, &runtime_metrics, &health, stop).await;
        Ok(())
    }
    .await;
    serving.cancel();
    let _ = server.await;
    if let Some(agent_server) = agent_server {
        let _ = agent_server.await;
    }
    store.close().await;
    outcome
}

/// Waits for the database, migrates it if asked to, and tells whether another program's backend owns it; `None` if stopped.
async fn prepare(
    store: &PgStore,
    migrate: bool,
    health: &Health,
    stop: &CancellationToken,
) -> anyhow::Result<Option<bool>> {
    let backoff = BackoffPolicy::default();
    let mut failures = 0;
    loop {
        let attempt = async {
            if migrate {
                let done = store.migrate().await?;
                tracing::info!("{}", super::migrate::describe(&done));
            } else {
                store.check_schema().await?;
            }
            store.is_existing_installation().await
        };
        let error = tokio::select! {
            attempt = attempt => match attempt {
                Ok(existing) => return Ok(Some(existing)),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error.into()),
            },
            () = stop.cancelled() => return Ok(None),
        };
        failures += 1;
        health.set(DATABASE, Err(error.to_string()));
        let delay = backoff.delay(failures, &mut rand::rng());
        tracing::warn!(%error, retry_in = ?delay, "waiting for the database");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Contends for the lease, and reconciles while it is held.
async fn reconcile<C: Connector>(
    fleet: Arc<Fleet<PgStore, C>>,
    metrics: &RuntimeMetrics,
    health: &Health,
    stop: CancellationToken,
) {
    let holder = format!("{}-{}", std::process::id(), Uuid::new_v4());
    let ownership = Ownership::new(OwnershipConfig::new(SCOPE, holder), Arc::clone(&metrics.ownership));
    let watching = tokio::spawn(watch_standing(ownership.standing(), health.clone()));
    let store = Arc::clone(&fleet.store);
    let health = health.clone();
    let work = move |tenure| {
        let (fleet, health) = (Arc::clone(&fleet), health.clone());
        async move {
            let hints = fleet.store.listen();
            let listening = tokio::spawn(watch_listener(
                hints.state(),
                Arc::clone(&fleet.metrics),
                health.clone(),
            ));
            let report = |result: Result<(), &StoreError>| {
                health.set(DATABASE, result.map_err(ToString::to_string));
            };
            fleet.work(tenure, hints, rand::random(), report).await;
            listening.abort();
            fleet.metrics.set_listener_up(false);
        }
    };
    ownership.run(&*store, work, stop).await;
    watching.abort();
}

/// Shows in the probes where this replica stands.
async fn watch_standing(mut standing: tokio::sync::watch::Receiver<Standing>, health: Health) {
    loop {
        match standing.borrow_and_update().clone() {
            Standing::Starting | Standing::Stopped => {}
            Standing::Standby => {
                health.set(DATABASE, Ok(()));
                health.set_noted(LISTENER, "standby");
                health.set_noted(LEADER, "standby");
            }
            Standing::Active { term } => health.set_noted(LEADER, format!("active, term {term}")),
            Standing::Unknown(problem) => {
                health.set(DATABASE, Err(problem));
                health.set_noted(LEADER, "unknown while the database does not say who is active");
            }
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

/// Shows in the probes and metrics whether notifications arrive.
async fn watch_listener(
    mut state: tokio::sync::watch::Receiver<ListenerState>,
    metrics: Arc<FleetMetrics>,
    health: Health,
) {
    loop {
        let now = state.borrow_and_update().clone();
        metrics.set_listener_up(now == ListenerState::Up);
        match now {
            ListenerState::Starting => {}
            ListenerState::Up => health.set(LISTENER, Ok(())),
            ListenerState::Down(problem) => health.set(LISTENER, Err(problem)),
            ListenerState::Deaf => health.set_noted(
                LISTENER,
                "notifications do not arrive (a connection pooler in between swallows LISTEN); changes are found by resyncs \
                 only, connect to Postgres directly",
            ),
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// The templates that the arguments name.
pub(super) fn templates(args: &DesiredArgs) -> anyhow::Result<TemplateSet> {
    Ok(match &args.templates_dir {
        Some(directory) => TemplateSet::load(directory)?,
        None => TemplateSet::builtin(),
    })
}

/// What connects to gateways as the arguments say.
pub(super) fn connector(args: &DesiredArgs, metrics: RpcMetrics) -> anyhow::Result<WebSocketConnector> {
    args.connections.connector(metrics)
}

/// What the reconcilers are told of the arguments that every command has; nobody is woken, made or removed.
pub(super) fn settings(args: &DesiredArgs, hash: TokenHash, resync: Duration, existing_installation: bool) -> Settings {
    let mut settings = Settings {
        base_url: args.base_url(),
        token_format: hash.resolve(existing_installation),
        withhold_existing_files: existing_installation && !args.is_explicit(),
        second_writer: existing_installation,
        tokens: args.tokens.policy(),
        resync_interval: resync,
        wake: false,
        prune: false,
        ensure_leads: EnsureLeads::None,
        max_restarts_per_hour: 0,
        min_gateway_version: None,
    };
    args.gateways.apply(&mut settings);
    settings
}

/// A token that SIGTERM and SIGINT cancel; a second one ends the process at once.
pub(super) fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let asked = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if asked.is_cancelled() {
                tracing::warn!(signal = name, "second signal: ending at once");
                std::process::exit(130);
            }
            tracing::info!(signal = name, "stopping; a second signal ends at once");
            asked.cancel();
        }
    });
    Ok(stop)
}
