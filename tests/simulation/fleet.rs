//! A fleet under a paused clock: rows in memory, simulated gateways, and replicas of the controller that can be crashed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveDateTime, TimeDelta};
use openclaw_controller::model::{
    AgentId, AgentRequests, AgentRow, Board, BoardId, EnsureLeads, GatewayAgentId, GatewayId, GatewayRow,
    GatewayVersion, User, workspace_path,
};
use openclaw_controller::reconcile::{
    self, AGENT_CONTROLLER, Fleet, GATEWAY_CONTROLLER, GatewayDiff, Live, Settings, TokenPolicy, UnmanagedAgents,
    Workers,
};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::runtime::{FleetMetrics, Ownership, OwnershipConfig, RuntimeMetrics};
use openclaw_controller::sim::{SimConnector, SimDialect, SimGateway};
use openclaw_controller::store::{MemoryStore, Store};
use openclaw_controller::token::{self, HashFormat};
use prometheus::Registry;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::contract::Watch;

/// The resync interval of every simulated controller.
pub(crate) const RESYNC: Duration = Duration::from_mins(2);

/// What agents call.
pub(crate) const BASE_URL: &str = "http://mission.test";

/// The one organisation.
pub(crate) const ORGANIZATION: Uuid = Uuid::from_u128(0x0a);

/// The operator's own agent on every gateway, and its files.
pub(crate) const FOREIGN: &str = "scout";

/// One gateway: its row's id and what is behind it.
pub(crate) struct Place {
    pub(crate) id: GatewayId,
    pub(crate) gateway: SimGateway,
    /// The config before the controller ever saw it.
    pub(crate) baseline: Value,
    /// Holds every frame against the protocol's contract.
    _watch: Watch,
}

/// Rows, gateways and the parts that replicas are made of.
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) places: Vec<Place>,
    pub(crate) templates: Arc<TemplateSet>,
    /// Whether the controllers are told that another program writes tokens too.
    pub(crate) second_writer: bool,
    /// Whether no file of an agent that was there before is written.
    pub(crate) withhold: bool,
    /// What the controllers are told of tokens.
    pub(crate) tokens: TokenPolicy,
    /// Whether the controllers wake agents.
    pub(crate) wake: bool,
    /// Agents that were on their gateways before the controllers.
    pub(crate) existing: HashSet<(GatewayId, GatewayAgentId)>,
    /// Whether the controllers remove what no row explains.
    pub(crate) prune: bool,
    /// Which boards the controllers give a lead.
    pub(crate) leads: EnsureLeads,
    /// How often the controllers may restart a gateway within an hour.
    pub(crate) restarts: u32,
    /// The oldest version of a gateway that the controllers write to.
    pub(crate) min_version: Option<GatewayVersion>,
    connector: Arc<SimConnector>,
    replicas: u64,
    ids: u128,
}

/// One running controller.
pub(crate) struct Replica {
    stop: CancellationToken,
    task: JoinHandle<()>,
    registry: Registry,
}

impl World {
    /// A fleet without gateways.
    pub(crate) fn new(templates: TemplateSet) -> Self {
        let store = MemoryStore::new();
        store.set_owner(ORGANIZATION, Some(owner("Robin Keeper")));
        Self {
            store,
            places: Vec::new(),
            templates: Arc::new(templates),
            second_writer: false,
            withhold: false,
            tokens: TokenPolicy::default(),
            wake: false,
            existing: HashSet::new(),
            prune: false,
            leads: EnsureLeads::None,
            restarts: 4,
            min_version: None,
            connector: Arc::new(SimConnector::default()),
            replicas: 0,
            ids: 0,
        }
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(0x5149_0000_0000_4000_8000_0000_0000_0000 | self.ids)
    }

    /// When the next row was made: later than all rows before it.
    fn created_at(&self) -> NaiveDateTime {
        let ms = i64::try_from(self.ids).unwrap();
        NaiveDateTime::default() + TimeDelta::milliseconds(ms)
    }

    /// A gateway on which an operator already runs an agent of his own.
    pub(crate) fn add_gateway(&mut self, dialect: SimDialect) -> GatewayId {
        let id = GatewayId(self.id());
        let gateway = SimGateway::new(dialect, "gateway-token");
        gateway.edit_config(|config| {
            config["logging"] = json!({ "level": "debug" });
            config["tools"] = json!({ "exec": { "security": "allowlist" } });
            let scout = json!({ "name": "Scout", "workspace": "/operator/scout", "heartbeat": { "every": "3h" } });
            if dialect.has_entries() {
                config["agents"] = json!({
                    "ownership": "explicit",
                    "entries": { "main": { "workspace": "/sim/state/workspace" }, FOREIGN: scout },
                });
            } else {
                let mut scout = scout;
                scout["id"] = json!(FOREIGN);
                config["agents"] = json!({ "list": [{ "id": "main" }, scout] });
            }
        });
        for (name, text) in foreign_files() {
            gateway.edit_file(FOREIGN, name, text);
        }
        let name = format!("gateway-{}", self.places.len());
        let url = self.connector.insert(&name, gateway.clone());
        self.store.upsert_gateway(GatewayRow {
            id,
            organization_id: ORGANIZATION,
            name,
            url,
            token: Some("gateway-token".into()),
            workspace_root: "/ws".into(),
            disable_device_pairing: false,
            allow_insecure_tls: false,
            created_at: self.created_at(),
        });
        let baseline = gateway.config();
        let watch = Watch::simulated(&gateway);
        self.places.push(Place {
            id,
            gateway,
            baseline,
            _watch: watch,
        });
        id
    }

    /// Puts another gateway in the place of one, as an upgrade does.
    pub(crate) fn replace_gateway(&mut self, place: usize, gateway: SimGateway, baseline: Value) {
        self.connector.insert(&format!("gateway-{place}"), gateway.clone());
        self.places[place].gateway = gateway;
        self.places[place].baseline = baseline;
    }

    /// A board on a gateway.
    pub(crate) fn add_board(&mut self, gateway: Option<GatewayId>) -> BoardId {
        let id = BoardId(self.id());
        self.store.upsert_board(Board {
            id,
            organization_id: ORGANIZATION,
            name: format!("Board {}", self.ids),
            slug: format!("board-{}", self.ids),
            gateway_id: gateway,
            board_type: "general".into(),
            objective: None,
            success_metrics: None,
            target_date: None,
            goal_confirmed: false,
            require_approval_for_done: true,
            require_review_before_done: false,
            block_status_changes_with_pending_approval: false,
            only_lead_can_change_status: false,
            comment_required_for_review: false,
            max_agents: 5,
            paused: false,
        });
        id
    }

    /// An agent: a main agent without a board, else a lead or a worker.
    pub(crate) fn add_agent(&mut self, gateway: GatewayId, board: Option<BoardId>, lead: bool) -> AgentId {
        let row = self.agent_row(gateway, board, lead);
        let id = row.id;
        self.store.upsert_agent(row);
        id
    }

    fn agent_row(&mut self, gateway: GatewayId, board: Option<BoardId>, lead: bool) -> AgentRow {
        AgentRow {
            id: AgentId(self.id()),
            board_id: board,
            gateway_id: gateway,
            name: format!("Agent {}", self.ids),
            status: "provisioning".into(),
            session_key: None,
            token_hash: None,
            heartbeat_config: None,
            identity_profile: None,
            identity_template: None,
            soul_template: None,
            delete_requested_at: None,
            last_seen_at: None,
            is_board_lead: lead,
            last_provision_error: None,
            created_at: self.created_at(),
            requests: AgentRequests::default(),
        }
    }

    /// A worker that somebody else has put on its gateway before: it is in the roster, has a token and files of its own.
    pub(crate) fn add_existing_worker(&mut self, place: usize, board: BoardId) -> AgentId {
        let (gateway, sim) = (self.places[place].id, self.places[place].gateway.clone());
        let mut row = self.agent_row(gateway, Some(board), false);
        let secret = token::mint();
        row.token_hash = token::hash(&secret, HashFormat::Pbkdf2OneRound).ok();
        row.status = "online".into();
        let id = row.gateway_agent_id(gateway);
        put_on(&sim, &id, "Of before");
        self.existing.insert((gateway, id.clone()));
        let file = sim.dialect().expected().token_file();
        let text = format!("# Tools\n\n- `AUTH_TOKEN={}`\n", secret.expose_secret());
        sim.edit_file(id.as_str(), file.as_str(), &text);
        sim.edit_file(id.as_str(), "USER.md", "A user's own words.");
        let agent = row.id;
        self.store.upsert_agent(row);
        agent
    }

    /// Starts a replica; its jitter depends on the seed and on how many were started before.
    pub(crate) fn start(&mut self, seed: u64) -> Replica {
        self.start_on(None, seed)
    }

    /// Starts a process that is there for the one-shot syncs of one gateway only.
    pub(crate) fn start_only(&mut self, gateway: GatewayId, seed: u64) -> Replica {
        self.start_on(Some(gateway), seed)
    }

    fn start_on(&mut self, only: Option<GatewayId>, seed: u64) -> Replica {
        self.replicas += 1;
        let seed = seed.wrapping_mul(1000).wrapping_add(self.replicas);
        let registry = Registry::new();
        let runtime_metrics =
            RuntimeMetrics::register(&registry, &[GATEWAY_CONTROLLER, AGENT_CONTROLLER], "simulated").unwrap();
        let clock = self.store.clone();
        let fleet = Arc::new(Fleet {
            store: Arc::new(self.store.clone()),
            connector: Arc::clone(&self.connector),
            templates: Arc::clone(&self.templates),
            settings: self.settings(),
            workers: Workers::default(),
            clock: Arc::new(move || clock.now()),
            runtime_metrics: runtime_metrics.clone(),
            metrics: Arc::new(FleetMetrics::register(&registry).unwrap()),
            live: Live::default(),
        });
        let holder = format!("replica-{}", self.replicas);
        let ownership = Ownership::new(OwnershipConfig::new("all", holder), runtime_metrics.ownership);
        let (stop, store) = (CancellationToken::new(), self.store.clone());
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                let work = move |tenure| {
                    let fleet = Arc::clone(&fleet);
                    async move { fleet.work_on(only, tenure, fleet.store.listen(), seed, |_| {}).await }
                };
                ownership.run(&store, work, stop).await;
            }
        });
        Replica { stop, task, registry }
    }

    fn settings(&self) -> Settings {
        Settings {
            base_url: BASE_URL.into(),
            token_format: HashFormat::Pbkdf2OneRound,
            withhold_existing_files: self.withhold,
            second_writer: self.second_writer,
            tokens: self.tokens,
            resync_interval: RESYNC,
            wake: self.wake,
            prune: self.prune,
            ensure_leads: self.leads,
            max_restarts_per_hour: self.restarts,
            min_gateway_version: self.min_version.clone(),
        }
    }

    /// What would be done to a gateway, as the command says it.
    pub(crate) async fn diff(&self, place: usize) -> GatewayDiff {
        let fleet = self.store.load_fleet().await.unwrap();
        let left = reconcile::left_behind(&fleet);
        let mut here = fleet.into_iter();
        let here = here.find(|snapshot| snapshot.gateway.id == self.places[place].id);
        let (connector, settings) = (self.connector.as_ref(), self.settings());
        reconcile::diff(&self.store, connector, &self.templates, &settings, here.unwrap(), &left)
            .await
            .unwrap()
    }

    /// Looks for agents on a gateway that no row explains, as the command does.
    pub(crate) async fn unmanaged(&self, place: usize) -> UnmanagedAgents {
        let fleet = self.store.load_fleet().await.unwrap();
        let left = reconcile::left_behind(&fleet);
        let here = fleet
            .iter()
            .find(|snapshot| snapshot.gateway.id == self.places[place].id);
        let connector = self.connector.as_ref();
        reconcile::unmanaged(&self.store, connector, &fleet, here.unwrap(), &left)
            .await
            .unwrap()
    }

    /// How many requests tried to change something, on all gateways.
    pub(crate) fn gateway_writes(&self) -> usize {
        self.places.iter().map(|place| place.gateway.writes()).sum()
    }

    /// The writes of every gateway so far, in words.
    pub(crate) fn gateway_write_log(&self) -> Vec<String> {
        let writes = |place: &Place| {
            place
                .gateway
                .journal()
                .into_iter()
                .filter(|entry| entry.write)
                .map(|entry| format!("{} {} ok={}", entry.method, entry.summary, entry.ok))
                .collect::<Vec<_>>()
        };
        self.places.iter().flat_map(writes).collect()
    }

    /// Ends all faults, of the gateways and of the store.
    pub(crate) fn calm(&self) {
        for place in &self.places {
            place.gateway.faults().clear();
            place.gateway.thaw();
        }
        self.store.calm();
    }
}

impl Replica {
    /// Ends it in an orderly way.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends it as a crash would: nothing is finished, nothing is released.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
        // What it had spawned is dropped when the scheduler gets there.
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    /// The sum of all series of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.registry
            .gather()
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

/// An owner of the organisation.
pub(crate) fn owner(name: &str) -> User {
    User {
        id: Uuid::from_u128(0x0b),
        email: Some("robin@example.org".into()),
        name: Some(name.into()),
        preferred_name: None,
        pronouns: None,
        timezone: Some("Europe/Berlin".into()),
        notes: None,
        context: None,
    }
}

/// The files of the operator's own agent.
pub(crate) fn foreign_files() -> [(&'static str, &'static str); 2] {
    [
        ("AGENTS.md", "The operator's own words.\n"),
        ("MEMORY.md", "Remembered.\n"),
    ]
}

/// Puts an agent into a gateway's roster, as another program would.
pub(crate) fn put_on(gateway: &SimGateway, id: &GatewayAgentId, name: &str) {
    let workspace = workspace_path("/ws", id).unwrap();
    let entries = gateway.dialect().has_entries();
    gateway.edit_config(|config| {
        if entries {
            config["agents"]["entries"][id.as_str()] = json!({ "name": name, "workspace": workspace });
        } else if let Some(list) = config["agents"]["list"].as_array_mut() {
            list.push(json!({ "id": id.as_str(), "name": name, "workspace": workspace }));
        }
    });
}

/// An agent's entry in a gateway's config.
pub(crate) fn entry<'a>(config: &'a Value, id: &str) -> Option<&'a Value> {
    if let Some(entry) = config.pointer("/agents/entries").and_then(|entries| entries.get(id)) {
        return Some(entry);
    }
    config
        .pointer("/agents/list")?
        .as_array()?
        .iter()
        .find(|item| item["id"] == id)
}

/// Changes an agent's entry in a gateway's config, if it has one, as somebody with an editor would.
pub(crate) fn edit_entry(gateway: &SimGateway, id: &str, edit: impl FnOnce(&mut Value)) {
    let entries = gateway.dialect().has_entries();
    gateway.edit_config(|config| {
        let entry = if entries {
            config.pointer_mut("/agents/entries").and_then(|map| map.get_mut(id))
        } else {
            config
                .pointer_mut("/agents/list")
                .and_then(Value::as_array_mut)
                .and_then(|list| list.iter_mut().find(|item| item["id"] == id))
        };
        if let Some(entry) = entry {
            edit(entry);
        }
    });
}
