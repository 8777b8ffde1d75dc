//! What the reconcilers share for as long as this process owns the fleet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::cache::Cache;
use super::fights::{FieldKey, SeenConfig};
use super::history::Histories;
use super::live::Difference;
use super::memory::AgentMemory;
use super::removal::Refusal;
use super::restarts::Restarts;
use super::rotation::TokenPolicy;
use super::session::Sessions;
use super::slots::WakeSlots;
use super::sync::Syncs;
use crate::model::{AgentId, EnsureLeads, Event, GatewayAgentId, GatewayId, GatewayVersion, ObjectRef, Traces};
use crate::render::TemplateSet;
use crate::runtime::{FleetMetrics, WorkQueue};
use crate::store::{Fence, GatewayStatusWrite};
use crate::token::HashFormat;

/// Tells the time of day. Handed in, so that tests can run under a paused clock.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The base URL that agents call, as it is rendered into their files.
    pub base_url: String,
    /// How new tokens are hashed.
    pub token_format: HashFormat,
    /// Another program's backend owns the tables, and templates and base URL were not both given explicitly: no file of an
    /// agent that existed before us may be written.
    pub withhold_existing_files: bool,
    /// Another program writes tokens too.
    pub second_writer: bool,
    /// What is wanted of agents' tokens.
    pub tokens: TokenPolicy,
    /// How often everything is looked at although nothing announced a change.
    pub resync_interval: Duration,
    /// Whether agents are woken and their check-ins awaited.
    pub wake: bool,
    /// Whether agents of ours that no row explains are removed from their gateways.
    pub prune: bool,
    /// Which boards are given a lead where they have none.
    pub ensure_leads: EnsureLeads,
    /// How often a gateway may be restarted within an hour for what the rows say.
    pub max_restarts_per_hour: u32,
    /// The oldest version of a gateway that is written to, if the operator has named one.
    pub min_gateway_version: Option<GatewayVersion>,
}

/// What one tenure of the fleet works with. A new tenure starts with a new world: nothing that was remembered under an
/// earlier lease is trusted.
pub(super) struct World<S, C> {
    /// The database.
    pub store: Arc<S>,
    /// How gateways are reached.
    pub connector: Arc<C>,
    /// The templates.
    pub templates: Arc<TemplateSet>,
    /// What the operator chose.
    pub settings: Settings,
    /// The lease under which everything is written.
    pub fence: Fence,
    /// Tells the time of day.
    pub clock: Clock,
    /// What the database was last seen to say.
    pub cache: Cache,
    /// The live connections.
    pub sessions: Sessions,
    /// Gateways to look at.
    pub gateway_queue: WorkQueue<GatewayId>,
    /// Agents to look at.
    pub agent_queue: WorkQueue<AgentId>,
    /// Our own metrics.
    pub metrics: Arc<FleetMetrics>,
    /// Whose turn it is to be woken.
    pub wakes: WakeSlots,
    /// One-shot syncs.
    pub syncs: Syncs,
    /// The one gateway that this process is concerned with, if it is there for one-shot syncs only: then nothing is done that
    /// no sync asks for, and nobody is woken.
    pub only: Option<GatewayId>,
    pub(super) state: Mutex<State>,
    /// Held from the beginning of a load until what it brought is in the cache: there is more than one who loads, and the
    /// older of two snapshots must not come last.
    pub(super) loading: tokio::sync::Mutex<()>,
}

/// What is remembered between reconciles. Losing all of it costs reads, and never a wrong write.
#[derive(Default)]
pub(super) struct State {
    /// Per agent: what its files and its status were last seen to be.
    pub(super) agents: HashMap<AgentId, AgentMemory>,
    /// The status last written for each gateway.
    pub(super) gateways: HashMap<GatewayId, GatewayStatusWrite>,
    /// Why leads of each gateway's boards could not be made when that was last tried, in words.
    pub(super) leads: HashMap<GatewayId, Vec<String>>,
    /// Objects whose last status was sent to the database without an answer: it may hold that or the one before, so the next
    /// one is written whatever it is.
    pub(super) in_doubt: HashSet<ObjectRef>,
    /// Counts loads of the rows.
    pub(super) revision: u64,
    /// Counts the occasions (resyncs, new connections) from which on files that a gateway never lists have to be read again:
    /// nothing else would tell that somebody changed one.
    pub(super) looks: u64,
    /// What is still to be told of agents that were found to have no row any more.
    pub(super) vanished: Vec<Event>,
    /// Agents that wait for their gateway.
    pub(super) parked: HashSet<AgentId>,
    /// What was found to differ when each object was last looked at, for whoever looks; nothing goes by it.
    pub(super) differences: HashMap<ObjectRef, Vec<Difference>>,
    /// What is known of agents of a gateway beyond its rows; absent if the database has to be asked.
    pub(super) traces: HashMap<GatewayId, Traces>,
    /// Counts what made [`traces`](Self::traces) untrue: what was asked for before is not kept.
    pub(super) traces_epoch: u64,
    /// The load of each gateway's rows in which the agents without a row were last put in order.
    pub(super) tidied: HashMap<GatewayId, u64>,
    /// Removals that a gateway refused.
    pub(super) refused_removals: HashMap<(GatewayId, GatewayAgentId), Refusal>,
    /// What happened on gateways lately.
    pub(super) histories: Histories,
    /// Restarts of gateways.
    pub(super) restarts: Restarts,
    /// What was last seen of each gateway's config.
    pub(super) seen_configs: HashMap<GatewayId, SeenConfig>,
    /// What the last patch has changed, until the config is looked at again.
    pub(super) sent: HashMap<GatewayId, HashSet<String>>,
    /// Fields that were fought over and are as desired, and since when they have been seen so.
    pub(super) quiet: HashMap<FieldKey, DateTime<Utc>>,
    /// Heartbeats that a gateway refused, by the digest of the spec that holds them, with the gateway's words.
    pub(super) refused_heartbeats: HashMap<AgentId, (String, String)>,
}

impl State {
    /// Drops all that is remembered of a gateway whose row is gone. A row that comes back is a gateway like any new one.
    pub(super) fn forget_gateway(&mut self, gateway: GatewayId) {
        self.gateways.remove(&gateway);
        self.leads.remove(&gateway);
        self.in_doubt.remove(&ObjectRef::Gateway(gateway));
        self.traces.remove(&gateway);
        self.traces_epoch += 1;
        self.tidied.remove(&gateway);
        self.refused_removals.retain(|(of, _), _| *of != gateway);
        self.histories.forget(gateway);
        self.restarts.forget(gateway);
        self.seen_configs.remove(&gateway);
        self.sent.remove(&gateway);
        self.quiet.retain(|(of, ..), _| *of != gateway);
    }
}

impl<S, C> World<S, C> {
    /// A world that knows nothing yet.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different part, and there is one caller"
    )]
    pub(super) fn new(
        store: Arc<S>,
        connector: Arc<C>,
        templates: Arc<TemplateSet>,
        settings: Settings,
        fence: Fence,
        clock: Clock,
        gateway_queue: WorkQueue<GatewayId>,
        agent_queue: WorkQueue<AgentId>,
        metrics: Arc<FleetMetrics>,
        only: Option<GatewayId>,
    ) -> Self {
        Self {
            store,
            connector,
            templates,
            settings,
            fence,
            clock,
            cache: Cache::default(),
            sessions: Sessions::default(),
            gateway_queue,
            agent_queue,
            metrics,
            wakes: WakeSlots::default(),
            syncs: Syncs::default(),
            only,
            state: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// The state, for a moment: never across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Every change in there is a single insert or remove: a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of day.
    pub(super) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// What every agent's files depend on besides the rows: the templates and the base URL.
    pub(super) fn environment(&self) -> String {
        format!("{}\n{}", self.templates.digest(), self.settings.base_url)
    }
}
