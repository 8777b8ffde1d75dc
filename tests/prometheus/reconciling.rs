//! What can be wrong with the work itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use openclaw_controller::gateway::{
    Client, Connector, DeviceIdentity, GatewayError, RpcMetrics, Target, WebSocketConnector,
};
use openclaw_controller::model::EnsureLeads;
use openclaw_controller::reconcile::{AGENT_CONTROLLER, Fleet as Reconcilers, GATEWAY_CONTROLLER, Settings, Workers};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::runtime::{FleetMetrics, Ownership, OwnershipConfig, RuntimeMetrics};
use openclaw_controller::serve::{self, Health, ServeState};
use openclaw_controller::sim::Fault;
use openclaw_controller::store::{PgOptions, PgStore};
use openclaw_controller::token::HashFormat;
use prometheus::Registry;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::stage::Stage;
use crate::support::process::Process;
use crate::support::{Controller, Options};

/// The only worker waits for a gateway that never answers, and others wait for the worker.
pub(crate) async fn the_queue_is_stuck(stage: &Stage) {
    const FLEET: &str = "stuck";
    let fleet = Fleet::new().await;
    let process = Process::run(&fleet.database.url, &["--agent-workers", "1"]);
    let mut agents = Vec::new();
    for name in ["Wren", "Pascal", "Juno", "Isolde"] {
        agents.push(fleet.ready_agent(name).await);
    }
    stage.watch(FLEET, "controller-0", process.address).await;
    stage.quiet("OpenClawWorkQueueStuck", FLEET).await;
    fleet.place.sim.faults().always("agents.files.list", Fault::NeverAnswer);
    for agent in &agents {
        fleet.set_agent(*agent, "soul_template = 'Another one.'").await;
    }
    stage.fires("OpenClawWorkQueueStuck", FLEET).await;
    fleet.place.sim.faults().clear();
    stage.resolves("OpenClawWorkQueueStuck", FLEET).await;
}

/// A change arrives only after more than a minute.
pub(crate) async fn changes_take_long(stage: &Stage) {
    const FLEET: &str = "slow";
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let agent = fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.quiet("OpenClawConvergenceSlow", FLEET).await;
    let edited = Instant::now();
    fleet
        .place
        .sim
        .faults()
        .always("agents.files.set", crate::fleet::refusal("read-only file system"));
    fleet.set_agent(agent, "soul_template = 'Late.'").await;
    // More than the minute that the rule goes by: there is nothing else to wait for.
    while edited.elapsed() < Duration::from_secs(62) {
        sleep(Duration::from_secs(1)).await;
    }
    fleet.place.sim.faults().clear();
    // A changed row does not wait for the end of the backoff.
    fleet.set_agent(agent, "soul_template = 'Later.'").await;
    stage.fires("OpenClawConvergenceSlow", FLEET).await;
    stage.resolves("OpenClawConvergenceSlow", FLEET).await;
    controller.stop().await;
}

/// A defect: something that a reconciler calls panics.
pub(crate) async fn a_reconcile_panics(stage: &Stage) {
    const FLEET: &str = "panics";
    let fleet = Fleet::new().await;
    let defect = Arc::new(AtomicBool::new(false));
    let (address, stop) = controller_with_a_defect(&fleet.database.url, Arc::clone(&defect)).await;
    fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", address).await;
    stage.quiet("OpenClawReconcilePanics", FLEET).await;
    defect.store(true, Ordering::SeqCst);
    fleet.place.sim.cut_connections();
    stage.fires("OpenClawReconcilePanics", FLEET).await;
    defect.store(false, Ordering::SeqCst);
    stage.resolves("OpenClawReconcilePanics", FLEET).await;
    // Everything else went on.
    fleet.ready_agent("Pascal").await;
    stop.cancel();
}

/// Connects as the real one does, or panics.
struct Defective {
    connector: WebSocketConnector,
    defect: Arc<AtomicBool>,
}

impl Connector for Defective {
    async fn connect(&self, target: &Target) -> Result<Client, GatewayError> {
        assert!(!self.defect.load(Ordering::SeqCst), "the defect that a test put here");
        self.connector.connect(target).await
    }
}

/// A controller of the same parts as `run` has, all but one. The token stops it.
async fn controller_with_a_defect(url: &str, defect: Arc<AtomicBool>) -> (SocketAddr, CancellationToken) {
    let state = TempDir::new().unwrap();
    let identity = DeviceIdentity::load_or_create(&state.path().join("device.json")).unwrap();
    let registry = Registry::new();
    let controllers = [GATEWAY_CONTROLLER, AGENT_CONTROLLER];
    let runtime_metrics = RuntimeMetrics::register(&registry, &controllers, "openclaw-controller").unwrap();
    let connector = Defective {
        connector: WebSocketConnector::new(Arc::new(identity), RpcMetrics::register(&registry).unwrap()),
        defect,
    };
    let reconcilers = Arc::new(Reconcilers {
        store: Arc::new(PgStore::connect(&url.into(), PgOptions::default()).await.unwrap()),
        connector: Arc::new(connector),
        templates: Arc::new(TemplateSet::builtin()),
        settings: Settings {
            base_url: "http://mission.test".into(),
            token_format: HashFormat::Argon2id,
            withhold_existing_files: false,
            second_writer: false,
            tokens: openclaw_controller::config::TokenArgs::default().policy(),
            resync_interval: Duration::from_mins(10),
            wake: false,
            prune: false,
            ensure_leads: EnsureLeads::None,
        },
        workers: Workers::default(),
        clock: Arc::new(Utc::now),
        runtime_metrics: runtime_metrics.clone(),
        metrics: Arc::new(FleetMetrics::register(&registry).unwrap()),
    });
    let stop = CancellationToken::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = ServeState {
        registry,
        health: Health::expecting(&[]),
        agents: None,
    };
    tokio::spawn(serve::serve(listener, state, stop.clone()));
    let ownership = Ownership::new(OwnershipConfig::new("all", "defective"), runtime_metrics.ownership);
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let store = Arc::clone(&reconcilers.store);
            let work = move |tenure| {
                let reconcilers = Arc::clone(&reconcilers);
                async move {
                    let hints = reconcilers.store.listen();
                    reconcilers.work(tenure, hints, 1, |_| {}).await;
                }
            };
            ownership.run(&*store, work, stop).await;
        }
    });
    (address, stop)
}
