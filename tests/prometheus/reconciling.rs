//! What can be wrong with the work itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openclaw_controller::gateway::{Client, Connector, GatewayError, Target, WebSocketConnector};
use openclaw_controller::sim::Fault;
use tokio::time::{Instant, sleep};

use crate::fleet::{Fleet, refusal};
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
        .always("agents.files.set", refusal("read-only file system"));
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
    let way = {
        let defect = Arc::clone(&defect);
        |connector| Defective { connector, defect }
    };
    let controller = Controller::start_with(way, &fleet.database.url, Options::default()).await;
    fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.quiet("OpenClawReconcilePanics", FLEET).await;
    defect.store(true, Ordering::SeqCst);
    fleet.place.sim.cut_connections();
    stage.fires("OpenClawReconcilePanics", FLEET).await;
    defect.store(false, Ordering::SeqCst);
    stage.resolves("OpenClawReconcilePanics", FLEET).await;
    // Everything else went on.
    fleet.ready_agent("Pascal").await;
    controller.stop().await;
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
