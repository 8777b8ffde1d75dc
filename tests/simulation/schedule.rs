//! One random schedule: edits of rows, drift on gateways and faults of everything, then calm, in which the promise has to
//! come true and nothing may be written any more.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDateTime;
use openclaw_controller::model::{AgentId, AgentRow, BoardId, FileName, GatewayAgentId, GatewayId};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, SimDialect, SimGateway};
use openclaw_controller::store::{Hint, WriteFault};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::{ORGANIZATION, Replica, World, edit_entry, owner};
use crate::promise;

/// The longest that anything of the time of faults may still be under way: a request that a fault delays by 20 s, on a
/// connection whose end nobody has noticed.
const AFTERMATH: Duration = Duration::from_secs(40);

/// How long after that it may take until the promise holds. A resync finds drift (at most 1.1 × 120 s); a token that does
/// not match is repaired after 60 s; an old gateway takes three patches a minute, so that one may have to wait for 60 s,
/// twice if edits come one by one; two backoffs of 36 s at most; a restart of 8 s; a lease that expires after 15 s.
pub(crate) const BOUND: Duration = Duration::from_secs(132 + 60 + 120 + 72 + 8 + 16);

/// What a schedule came to.
pub(crate) struct Report {
    /// From the end of the aftermath until the promise held.
    pub(crate) converged_after: Duration,
    /// How many things were done to the fleet.
    pub(crate) actions: usize,
    pub(crate) gateway_writes: usize,
    pub(crate) crashes: usize,
}

struct Schedule {
    world: World,
    rng: StdRng,
    seed: u64,
    replicas: Vec<Replica>,
    begin: Instant,
    log: Vec<String>,
    crashes: usize,
    /// Whether requests may be carried out long after they were sent. Without that, what an agent's owner writes into a file
    /// of his must stay.
    delays: bool,
    /// What somebody wrote into files that belong to the agent.
    kept: BTreeMap<(GatewayId, String, FileName), String>,
}

/// Runs the schedule of a seed. The error tells what was not as promised, and everything that had been done.
pub(crate) async fn run(seed: u64, templates: TemplateSet) -> Result<Report, String> {
    let mut schedule = Schedule::new(seed, templates);
    schedule.storm().await;
    match schedule.calm().await {
        Ok(converged_after) => Ok(Report {
            converged_after,
            actions: schedule.log.len(),
            gateway_writes: schedule.world.gateway_writes(),
            crashes: schedule.crashes,
        }),
        Err(problem) => Err(format!(
            "{problem}\n  what was done:\n    {}",
            schedule.log.join("\n    ")
        )),
    }
}

impl Schedule {
    fn new(seed: u64, templates: TemplateSet) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(templates);
        for n in 0..rng.random_range(1..=3_usize) {
            // The first goes through all dialects with the seed.
            let pick = if n == 0 {
                usize::try_from(seed % 3).unwrap()
            } else {
                rng.random_range(0..3)
            };
            world.add_gateway(SimDialect::ALL[pick]);
        }
        let mut this = Self {
            world,
            seed,
            replicas: Vec::new(),
            begin: Instant::now(),
            log: Vec::new(),
            crashes: 0,
            delays: rng.random_bool(0.6),
            kept: BTreeMap::new(),
            rng,
        };
        for place in 0..this.world.places.len() {
            let gateway = this.world.places[place].id;
            if this.rng.random_bool(0.5) {
                this.world.add_agent(gateway, None, false);
            }
            for _ in 0..this.rng.random_range(1..=2) {
                let board = this.world.add_board(Some(gateway));
                this.world.add_agent(gateway, Some(board), true);
                for _ in 0..this.rng.random_range(0..=2) {
                    this.world.add_agent(gateway, Some(board), false);
                }
                if this.rng.random_bool(0.3) {
                    this.world.add_existing_worker(place, board);
                }
            }
        }
        this
    }

    fn say(&mut self, what: impl Into<String>) {
        let at = self.begin.elapsed().as_secs_f64();
        self.log.push(format!("{at:8.3} {}", what.into()));
    }

    /// Everything that can happen, for a while.
    async fn storm(&mut self) {
        self.start_replica();
        for _ in 0..self.rng.random_range(8..=24) {
            let pause = match self.rng.random_range(0..3) {
                0 => self.rng.random_range(0..50),
                1 => self.rng.random_range(0..2_000),
                _ => self.rng.random_range(0..40_000),
            };
            sleep(Duration::from_millis(pause)).await;
            match self.rng.random_range(0..20) {
                0..8 => self.edit_rows(),
                8..12 => self.drift(),
                12..16 => self.gateway_fault(),
                16..18 => self.store_fault().await,
                _ => self.replicas_come_and_go().await,
            }
        }
    }

    /// Faults stop, what is invalid is corrected; then the promise has to come true, and to stay true without a write.
    async fn calm(&mut self) -> Result<Duration, String> {
        self.world.calm();
        self.world.store.lose_hints(false);
        self.correct_rows();
        if self.replicas.is_empty() {
            self.start_replica();
        }
        self.say("calm");
        sleep(AFTERMATH).await;
        let begin = Instant::now();
        let converged_after = loop {
            let problems = promise::broken(&self.world).await;
            if problems.is_empty() {
                break begin.elapsed();
            }
            if begin.elapsed() > BOUND {
                return Err(format!(
                    "not within {BOUND:?} of calm:\n    {}",
                    problems.join("\n    ")
                ));
            }
            sleep(Duration::from_secs(5)).await;
        };
        // An orphaned answer, a connection that has just been opened: whatever follows from the last write at once.
        sleep(Duration::from_secs(5)).await;
        let (gateway, store) = (self.world.gateway_write_log(), self.world.store.write_log());
        let (resyncs, reconciles) = (3, self.reconciles());
        sleep(self.world.resync.mul_f64(1.1) * resyncs).await;
        let looked = self.reconciles() - reconciles;
        let agents = self.world.store.agent_ids().len() + self.world.places.len();
        if looked < (agents * resyncs as usize) as f64 {
            return Err(format!("{looked} looks in {resyncs} resyncs at {agents} objects"));
        }
        let new = |after: Vec<String>| after.len() > gateway.len();
        if new(self.world.gateway_write_log()) {
            let writes = self.world.gateway_write_log();
            return Err(format!(
                "converged, and yet written on gateways: {:?}",
                &writes[gateway.len()..]
            ));
        }
        let writes = self.world.store.write_log();
        if writes.len() > store.len() {
            return Err(format!(
                "converged, and yet written in the store: {:?}",
                &writes[store.len()..]
            ));
        }
        let problems = promise::broken(&self.world).await;
        if !problems.is_empty() {
            return Err(format!(
                "true once, and then no longer:\n    {}",
                problems.join("\n    ")
            ));
        }
        self.agents_kept_their_files()?;
        for replica in self.replicas.drain(..) {
            replica.stop().await;
        }
        Ok(converged_after)
    }

    fn reconciles(&self) -> f64 {
        self.replicas
            .iter()
            .map(|replica| replica.metric("controller_runtime_reconcile_total"))
            .sum()
    }

    fn agents_kept_their_files(&self) -> Result<(), String> {
        for ((place, agent, file), text) in &self.kept {
            let place = self.world.places.iter().find(|p| p.id == *place);
            let there = place.and_then(|place| place.gateway.file(agent, file.as_str()));
            // Somebody may have removed the agent altogether.
            if there.as_ref().is_some_and(|there| there != text) {
                return Err(format!("{agent}'s own {file} was overwritten"));
            }
        }
        Ok(())
    }

    // ---- Rows ----

    fn rows(&self) -> Vec<AgentRow> {
        let ids = self.world.store.agent_ids();
        ids.into_iter().filter_map(|id| self.world.store.agent(id)).collect()
    }

    fn pick_agent(&mut self) -> Option<AgentId> {
        self.world.store.agent_ids().choose(&mut self.rng).copied()
    }

    fn pick_place(&mut self) -> usize {
        self.rng.random_range(0..self.world.places.len())
    }

    fn pick_board(&mut self) -> Option<BoardId> {
        self.world.store.board_ids().choose(&mut self.rng).copied()
    }

    fn edit_rows(&mut self) {
        match self.rng.random_range(0..14) {
            0 | 1 => {
                let place = self.pick_place();
                let gateway = self.world.places[place].id;
                let board = if self.rng.random_bool(0.85) {
                    self.pick_board()
                } else {
                    None
                };
                let lead = board.is_some() && self.rng.random_bool(0.3);
                let agent = self.world.add_agent(gateway, board, lead);
                self.say(format!("insert agent {agent}, board {board:?}, lead {lead}"));
            }
            2 => {
                let place = self.pick_place();
                let gateway = self.world.places[place].id;
                let board = self.world.add_board(Some(gateway));
                self.say(format!("insert board {board}"));
            }
            3..=8 => self.edit_agent(),
            9 => {
                let Some(board) = self.pick_board() else { return };
                let to = if self.rng.random_bool(0.85) {
                    let place = self.pick_place();
                    Some(self.world.places[place].id)
                } else {
                    None
                };
                self.say(format!("move board {board} to {to:?}"));
                self.world.store.edit_board(board, |row| row.gateway_id = to);
            }
            10 => {
                let Some(board) = self.pick_board() else { return };
                let paused = self.rng.random_bool(0.5);
                self.say(format!("board {board} paused={paused}"));
                self.world.store.edit_board(board, |row| row.paused = paused);
            }
            11 => {
                let Some(board) = self.pick_board() else { return };
                self.say(format!("rename board {board}"));
                let name = format!("Board at {:?}", self.begin.elapsed());
                self.world.store.edit_board(board, |row| row.name = name);
            }
            12 => {
                let to = match self.rng.random_range(0..3) {
                    0 => None,
                    n => Some(owner(["Robin Keeper", "Kim Other"][n - 1])),
                };
                self.say(format!("owner {:?}", to.as_ref().and_then(|owner| owner.name.clone())));
                self.world.store.set_owner(ORGANIZATION, to);
            }
            _ => {
                let place = self.pick_place();
                let id = self.world.places[place].id;
                let root = *["/ws", "/elsewhere/", "  "].choose(&mut self.rng).unwrap();
                self.say(format!("gateway {id} workspace_root {root:?}"));
                self.world
                    .store
                    .edit_gateway(id, |row| root.clone_into(&mut row.workspace_root));
            }
        }
    }

    fn edit_agent(&mut self) {
        let Some(agent) = self.pick_agent() else { return };
        let nonce = self.rng.random_range(0..1000);
        let board = self.pick_board();
        let kind = self.rng.random_range(0..16);
        self.say(format!("edit {kind} of agent {agent}"));
        let store = &self.world.store;
        match kind {
            0 | 1 => store.edit_agent(agent, |row| row.name = format!("Renamed {nonce}")),
            // A main agent stays one, and the others get no main agent's place.
            2 | 3 => store.edit_agent(agent, |row| {
                if row.board_id.is_some() {
                    row.board_id = board;
                }
            }),
            4 => store.edit_agent(agent, |row| {
                row.is_board_lead = row.board_id.is_some() && !row.is_board_lead
            }),
            5 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Ok(
                    json!({ "every": format!("{}m", nonce + 1), "prompt": "Look around." }),
                ));
            }),
            6 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Ok(json!({ "every": "now and then" })))
            }),
            7 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Err("expected value at line 1".into()))
            }),
            // A value that passes our check and not the gateway's, and a key that no gateway knows.
            8 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Ok(
                    json!({ "every": "5m", "activeHours": { "start": "whenever" }, "zeal": 7 }),
                ));
            }),
            9 => store.edit_agent(agent, |row| {
                row.identity_profile = Some(Ok(json!({ "role": format!("Role {nonce}"), "emoji": ":fox_face:" })));
            }),
            10 => store.edit_agent(agent, |row| row.identity_profile = Some(Ok(json!("not an object")))),
            11 => store.edit_agent(agent, |row| {
                row.soul_template = Some(format!("I am {{{{ agent_name }}}}, {nonce}."))
            }),
            12 => store.edit_agent(agent, |row| {
                row.identity_template = Some("{{ nobody_knows_this }} {% if".into())
            }),
            13 => store.delete_agent(agent),
            14 => store.edit_agent(agent, |row| row.delete_requested_at = Some(NaiveDateTime::default())),
            _ => match nonce % 3 {
                0 => store.edit_agent(agent, |row| row.session_key = Some("agent:main:main".into())),
                1 => store.edit_agent(agent, |row| row.token_hash = None),
                _ => store.check_in(agent, store.now().naive_utc()),
            },
        }
    }

    /// Corrects what is invalid; what merely excludes an agent may stay.
    fn correct_rows(&mut self) {
        let store = &self.world.store;
        for row in self.rows() {
            store.edit_agent(row.id, |row| {
                let bad_heartbeat = match &row.heartbeat_config {
                    Some(Ok(value)) => value["every"] == "now and then" || value.get("zeal").is_some(),
                    Some(Err(_)) => true,
                    None => false,
                };
                if bad_heartbeat {
                    row.heartbeat_config = None;
                }
                if matches!(&row.identity_profile, Some(Ok(value)) if !value.is_object()) {
                    row.identity_profile = None;
                }
                if row.identity_template.is_some() {
                    row.identity_template = Some("Corrected.".into());
                }
            });
        }
        for place in &self.world.places {
            store.edit_gateway(place.id, |row| row.token = Some("gateway-token".into()));
        }
    }

    // ---- Somebody else on the gateways ----

    fn drift(&mut self) {
        let rows = self.rows();
        let Some(row) = rows.choose(&mut self.rng) else { return };
        let place = self.pick_place();
        let (place, gateway) = (&self.world.places[place], self.world.places[place].gateway.clone());
        let (place, id) = (place.id, row.gateway_agent_id(place.id));
        let agent = id.as_str();
        let dialect = gateway.dialect().expected();
        let kind = self.rng.random_range(0..10);
        let mut names: Vec<FileName> = FileName::ALL
            .into_iter()
            .filter(|file| dialect.has_file(*file))
            .collect();
        names.retain(|file| !matches!(file, FileName::User | FileName::Memory));
        let file = *names.choose(&mut self.rng).unwrap();
        self.say(format!("drift {kind} of {agent} on {place}, {file}"));
        match kind {
            0 | 1 if exists(&gateway, &id, file) => gateway.edit_file(agent, file.as_str(), "Scribbled over."),
            2 | 3 => {
                gateway.delete_file(agent, file.as_str());
            }
            4 => {
                let token_file = dialect.token_file();
                if exists(&gateway, &id, token_file) {
                    gateway.edit_file(
                        agent,
                        token_file.as_str(),
                        "AUTH_TOKEN=bm90LXRoZS10b2tlbi1vZi10aGlzLWFnZW50LWF0LWFsbA",
                    );
                }
            }
            5 => edit_entry(&gateway, agent, |entry| {
                entry["heartbeat"] = json!({ "every": "99h", "model": "m" })
            }),
            6 => edit_entry(&gateway, agent, |entry| entry["name"] = json!("Somebody")),
            7 => {
                gateway.remove_agent(agent);
                self.kept.retain(|(p, a, _), _| (*p, a.as_str()) != (place, agent));
            }
            _ => {
                let own = if row.role().is_main() || self.rng.random_bool(0.5) {
                    FileName::Memory
                } else {
                    FileName::User
                };
                if exists(&gateway, &id, own) {
                    let text = format!("The agent's own words at {:?}.", self.begin.elapsed());
                    gateway.edit_file(agent, own.as_str(), &text);
                    if !self.delays {
                        self.kept.insert((place, agent.to_owned(), own), text);
                    }
                }
            }
        }
    }

    // ---- Faults ----

    fn gateway_fault(&mut self) {
        let place = self.pick_place();
        let (id, gateway) = (self.world.places[place].id, self.world.places[place].gateway.clone());
        let faults = gateway.faults();
        let kind = self.rng.random_range(0..12);
        self.say(format!("fault {kind} of gateway {id}"));
        match kind {
            0..=4 => {
                for _ in 0..self.rng.random_range(1..=4) {
                    let method = *[
                        "*",
                        "config.patch",
                        "config.get",
                        "agents.files.set",
                        "agents.files.get",
                        "agents.files.list",
                        "connect",
                    ]
                    .choose(&mut self.rng)
                    .unwrap();
                    let fault = self.fault();
                    let nth = self.rng.random_range(1..=12);
                    self.say(format!("  {method} #{nth}: {fault:?}"));
                    faults.inject(method, nth, fault);
                }
            }
            5 | 6 if self.delays => faults.seeded(self.seed ^ 0x5eed, self.rng.random_range(10..300)),
            5 | 6 => gateway.cut_connections(),
            7 => faults.clear(),
            8 => gateway.restart(),
            9 => gateway.cut_connections(),
            10 => faults.refuse_next_connects(self.rng.random_range(1..6)),
            _ => {
                let token = if self.rng.random_bool(0.5) {
                    "wrong"
                } else {
                    "gateway-token"
                };
                self.world.store.edit_gateway(id, |row| row.token = Some(token.into()));
            }
        }
    }

    fn fault(&mut self) -> Fault {
        match self.rng.random_range(0..if self.delays { 9 } else { 8 }) {
            0 => Fault::DropBefore,
            1 => Fault::DropAfter,
            2 => Fault::CutFrame,
            3 => Fault::Nonsense,
            4 => Fault::LoseAnswer,
            5 => Fault::NeverAnswer,
            6 => Fault::Restart,
            7 => Fault::Error {
                code: "UNAVAILABLE".into(),
                message: "temporarily unavailable".into(),
                retry_after_ms: self.rng.random_bool(0.5).then_some(1500),
            },
            _ => Fault::Delay(Duration::from_millis(self.rng.random_range(0..20_000))),
        }
    }

    async fn store_fault(&mut self) {
        let kind = self.rng.random_range(0..8);
        self.say(format!("store fault {kind}"));
        let store = self.world.store.clone();
        match kind {
            0..=2 => {
                for _ in 0..self.rng.random_range(1..=3) {
                    let fault = *[WriteFault::Before, WriteFault::After].choose(&mut self.rng).unwrap();
                    store.fail_write(self.rng.random_range(1..=12), fault);
                }
            }
            3 => {
                store.set_unreachable(true);
                sleep(Duration::from_millis(self.rng.random_range(0..25_000))).await;
                store.set_unreachable(false);
            }
            4 => store.lose_hints(true),
            5 => store.lose_hints(false),
            6 => store.send_hint(Hint::Everything),
            _ => {
                let place = self.pick_place();
                for _ in 0..3 {
                    store.send_hint(Hint::Gateway(self.world.places[place].id));
                }
            }
        }
    }

    fn start_replica(&mut self) {
        let replica = self.world.start(self.seed);
        self.replicas.push(replica);
    }

    async fn replicas_come_and_go(&mut self) {
        let crash = self.rng.random_bool(0.7);
        if !self.replicas.is_empty() && (self.replicas.len() > 1 || self.rng.random_bool(0.7)) {
            let which = self.rng.random_range(0..self.replicas.len());
            let replica = self.replicas.swap_remove(which);
            self.say(if crash { "crash" } else { "stop" });
            if crash {
                self.crashes += 1;
                replica.crash().await;
            } else {
                replica.stop().await;
            }
            if self.rng.random_bool(0.3) {
                return;
            }
            sleep(Duration::from_millis(self.rng.random_range(0..20_000))).await;
        }
        self.say("start a replica");
        self.start_replica();
    }
}

fn exists(gateway: &SimGateway, agent: &GatewayAgentId, file: FileName) -> bool {
    gateway.file(agent.as_str(), file.as_str()).is_some()
}
