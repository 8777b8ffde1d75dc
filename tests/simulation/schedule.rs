//! One random schedule: edits of rows, drift on gateways and faults of everything, then calm, in which the promise has to
//! come true and nothing may be written any more.

use std::collections::BTreeMap;
use std::time::Duration;

use openclaw_controller::model::{EnsureLeads, FileName, GatewayId};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{SimDialect, SimGateway};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::fleet::{RESYNC, Replica, World, entry};
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

/// A fleet, what is to happen to it, and what has happened.
pub(crate) struct Schedule {
    pub(crate) world: World,
    pub(crate) rng: StdRng,
    pub(crate) seed: u64,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) begin: Instant,
    pub(crate) log: Vec<String>,
    pub(crate) crashes: usize,
    /// Whether requests may be carried out long after they were sent. Without that, what an agent's owner writes into a file
    /// of his must stay.
    pub(crate) delays: bool,
    /// What somebody wrote into files that belong to the agent, and the workspace that they lie in: an agent that is moved to
    /// another directory gets new ones there.
    pub(crate) kept: BTreeMap<(GatewayId, String, FileName), (Option<Value>, String)>,
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
        world.second_writer = rng.random_bool(0.3);
        world.prune = rng.random_bool(0.5);
        if rng.random_bool(0.5) {
            world.leads = EnsureLeads::All;
        }
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
                if this.rng.random_bool(0.7) {
                    this.world.add_agent(gateway, Some(board), true);
                }
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

    pub(crate) fn say(&mut self, what: impl Into<String>) {
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
        // Until a resync has found what hints did not announce: a change that nobody knows of breaks no promise yet. And
        // whatever follows from the last write: a restart and its end, above all.
        sleep(RESYNC.mul_f64(1.1).saturating_sub(begin.elapsed()) + Duration::from_secs(20)).await;
        let (gateway, store) = (self.world.gateway_write_log(), self.world.store.write_log());
        let (resyncs, reconciles) = (3, self.reconciles());
        sleep(RESYNC.mul_f64(1.1) * resyncs).await;
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
        for ((place, agent, file), (workspace, text)) in &self.kept {
            let place = self.world.places.iter().find(|p| p.id == *place);
            let gateway = place.map(|place| &place.gateway);
            let there = gateway.and_then(|gateway| gateway.file(agent, file.as_str()));
            if gateway.and_then(|gateway| workspace_of(gateway, agent)) != *workspace {
                continue;
            }
            // Somebody may have removed the agent altogether.
            if there.as_ref().is_some_and(|there| there != text) {
                return Err(format!("{agent}'s own {file} was overwritten"));
            }
        }
        Ok(())
    }
}

/// The workspace that the gateway's config gives an agent.
pub(crate) fn workspace_of(gateway: &SimGateway, agent: &str) -> Option<Value> {
    entry(&gateway.config(), agent)?.get("workspace").cloned()
}
