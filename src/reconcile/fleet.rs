//! One tenure of the fleet: the informer, the two controllers and the syncs, from acquiring the lease to giving it up.

use std::sync::Arc;
use std::time::Duration;

use super::agent::AgentReconciler;
use super::gateway::GatewayReconciler;
use super::live::Live;
use super::world::{Clock, Settings, World};
use crate::gateway::Connector;
use crate::model::GatewayId;
use crate::render::TemplateSet;
use crate::runtime::{BackoffPolicy, Controller, FleetMetrics, RateLimit, RuntimeMetrics, Tenure, WorkQueue};
use crate::store::{HintSource, Store, StoreError};

/// The name of the gateway controller, in metrics and logs.
pub const GATEWAY_CONTROLLER: &str = "gateway";
/// The name of the agent controller, in metrics and logs.
pub const AGENT_CONTROLLER: &str = "agent";

/// How long one look at a gateway may take: the longest patch measured took three minutes, for 300 agents.
const GATEWAY_DEADLINE: Duration = Duration::from_mins(10);
/// How long one look at an agent may take: a dozen calls of 30 s at worst, some of them at once.
const AGENT_DEADLINE: Duration = Duration::from_mins(3);
/// How long work in flight may go on once the tenure ends; less than ownership waits before it gives the lease away.
const DRAIN: Duration = Duration::from_secs(5);

/// How many of each are worked on at once.
#[derive(Clone, Copy, Debug)]
pub struct Workers {
    /// Gateways; each needs its own connection.
    pub gateways: usize,
    /// Agents, on all gateways together. A connection has eight requests in flight at most.
    pub agents: usize,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            gateways: 32,
            agents: 16,
        }
    }
}

/// What every tenure of this replica works with.
pub struct Fleet<S, C> {
    /// The database.
    pub store: Arc<S>,
    /// How gateways are reached.
    pub connector: Arc<C>,
    /// The templates.
    pub templates: Arc<TemplateSet>,
    /// What the operator chose.
    pub settings: Settings,
    /// How much is done at once.
    pub workers: Workers,
    /// Tells the time of day.
    pub clock: Clock,
    /// Metrics of the runtime.
    pub runtime_metrics: RuntimeMetrics,
    /// Our own metrics.
    pub metrics: Arc<FleetMetrics>,
    /// Where those who look ask what is known beyond the database.
    pub live: Live,
}

impl<S: Store, C: Connector> Fleet<S, C> {
    /// Reconciles for one tenure. `hints` are followed as long; `report` is told after every load whether the database answered.
    /// `seed` is that of the jitter.
    pub async fn work(
        &self,
        tenure: Tenure,
        hints: impl HintSource,
        seed: u64,
        report: impl Fn(Result<(), &StoreError>) + Send,
    ) {
        self.work_on(None, tenure, hints, seed, report).await;
    }

    /// The same for nothing but the one-shot syncs of one gateway: its roster and the agents that they are about. Nobody is
    /// woken. With `None` it is the same.
    pub async fn work_on(
        &self,
        only: Option<GatewayId>,
        tenure: Tenure,
        hints: impl HintSource,
        seed: u64,
        report: impl Fn(Result<(), &StoreError>) + Send,
    ) {
        let queues = &self.runtime_metrics.queue;
        let policy = BackoffPolicy::default();
        let world = Arc::new(World::new(
            Arc::clone(&self.store),
            Arc::clone(&self.connector),
            Arc::clone(&self.templates),
            self.settings.clone(),
            tenure.fence,
            Arc::clone(&self.clock),
            WorkQueue::new(GATEWAY_CONTROLLER, policy, RateLimit::default(), queues, seed),
            WorkQueue::new(
                AGENT_CONTROLLER,
                policy,
                RateLimit::default(),
                queues,
                seed.wrapping_add(1),
            ),
            Arc::clone(&self.metrics),
            only,
        ));
        self.live.follow(&world);
        let gateways = Controller {
            name: GATEWAY_CONTROLLER,
            reconciler: Arc::new(GatewayReconciler(Arc::clone(&world))),
            queue: world.gateway_queue.clone(),
            workers: self.workers.gateways,
            deadline: GATEWAY_DEADLINE,
            drain: DRAIN,
            metrics: Arc::clone(&self.runtime_metrics.controller),
        };
        let agents = Controller {
            name: AGENT_CONTROLLER,
            reconciler: Arc::new(AgentReconciler(Arc::clone(&world))),
            queue: world.agent_queue.clone(),
            workers: self.workers.agents,
            deadline: AGENT_DEADLINE,
            drain: DRAIN,
            metrics: Arc::clone(&self.runtime_metrics.controller),
        };
        let cancel = &tenure.cancel;
        tokio::join!(
            world.inform(hints, seed.wrapping_add(2), cancel, report),
            gateways.run(cancel.clone()),
            agents.run(cancel.clone()),
            // Rarely of any size, and then of a large one.
            Box::pin(world.run_syncs(cancel)),
        );
        self.live.clear();
        world.sessions.clear();
        self.metrics.agents.clear();
        self.metrics.gateways.clear();
        self.metrics.convergence.clear();
    }
}
