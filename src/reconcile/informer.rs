//! Keeps the cache equal to the database, and enqueues what changed.
//!
//! A hint names a gateway; its rows are loaded and compared by digest with what was last seen, so a hint that announces nothing
//! costs one read. A resync does the same for everything, and enqueues everything as well.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::spec::{self, AgentSpec, Excluded, GatewaySpec};
use super::sync::Reload;
use super::wake::awaits_check_in;
use super::world::World;
use crate::gateway::Connector;
use crate::model::{
    ConditionStatus, ConditionType, Conditions, Event, EventKind, GatewayId, GatewaySnapshot, ObjectRef,
};
use crate::runtime::{BackoffPolicy, Discovery, Priority};
use crate::store::{Hint, HintSource, Store, StoreError};

/// How far a resync may deviate from its interval, so that replicas and restarts do not beat in time.
const RESYNC_JITTER: f64 = 0.1;

/// What has to be loaded.
#[derive(Default)]
struct Dirty {
    everything: bool,
    /// In order, so that one run is like another.
    gateways: BTreeSet<GatewayId>,
}

impl Dirty {
    fn add(&mut self, hint: Hint) {
        match hint {
            Hint::Gateway(id) => {
                self.gateways.insert(id);
            }
            Hint::Everything => self.everything = true,
            // Concerns no row that is loaded.
            Hint::Sync => {}
        }
    }

    fn is_empty(&self) -> bool {
        !self.everything && self.gateways.is_empty()
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// Follows hints and resyncs until cancelled. `seed` is that of the jitter; `report` is told after every attempt whether
    /// the database answered.
    pub(super) async fn inform(
        &self,
        mut hints: impl HintSource,
        seed: u64,
        cancel: &CancellationToken,
        report: impl Fn(Result<(), &StoreError>) + Send,
    ) {
        let mut dirty = Dirty {
            everything: true,
            ..Dirty::default()
        };
        let backoff = BackoffPolicy::default();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut failures = 0;
        let mut not_before = Instant::now();
        let mut next_resync = self.next_resync(&mut rng);
        // Who waits for the next load.
        let mut waiting: Vec<Reload> = Vec::new();
        loop {
            if !dirty.is_empty() && Instant::now() >= not_before {
                let result = self.load(&mut dirty).await;
                report(result.as_ref().copied());
                match result {
                    Ok(()) => {
                        failures = 0;
                        waiting.drain(..).for_each(Reload::done);
                    }
                    Err(error) => {
                        failures += 1;
                        let delay = backoff.delay(failures, &mut rng);
                        tracing::warn!(%error, retry_in = ?delay, "cannot load desired state");
                        not_before = Instant::now() + delay;
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                hint = hints.next() => match hint {
                    Ok(hint) => {
                        self.heed(hint, &mut dirty);
                        // Hints come in bursts; one load serves all that have arrived.
                        while let Some(Ok(more)) = hints.next().now_or_never() {
                            self.heed(more, &mut dirty);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "cannot listen for notifications; resyncs go on"),
                },
                () = self.syncs.reload_wanted() => {
                    for reload in self.syncs.take_reloads() {
                        dirty.add(Hint::Gateway(reload.gateway));
                        waiting.push(reload);
                    }
                }
                () = tokio::time::sleep_until(next_resync) => {
                    dirty.everything = true;
                    next_resync = self.next_resync(&mut rng);
                }
                () = tokio::time::sleep_until(not_before), if !dirty.is_empty() => {}
            }
        }
    }

    /// Marks what a hint is about.
    fn heed(&self, hint: Hint, dirty: &mut Dirty) {
        match (hint, self.only) {
            (Hint::Sync, _) => self.syncs.look_for_requests(),
            (Hint::Gateway(id), Some(only)) if id != only => {}
            _ => dirty.add(hint),
        }
    }

    fn next_resync(&self, rng: &mut StdRng) -> Instant {
        let factor = 1.0 + rng.random_range(-RESYNC_JITTER..=RESYNC_JITTER);
        Instant::now() + self.settings.resync_interval.mul_f64(factor)
    }

    /// Loads what is dirty; what could be loaded is dirty no longer.
    async fn load(&self, dirty: &mut Dirty) -> Result<(), StoreError> {
        if dirty.everything {
            self.refresh_all().await?;
            *dirty = Dirty::default();
        }
        for id in dirty.gateways.iter().copied().collect::<Vec<_>>() {
            self.refresh(id).await?;
            dirty.gateways.remove(&id);
        }
        Ok(())
    }

    /// Loads one gateway's rows and enqueues what changed.
    pub(super) async fn refresh(&self, id: GatewayId) -> Result<(), StoreError> {
        let _turn = self.loading.lock().await;
        match self.load_after_hint(id).await? {
            Some(snapshot) => self.accept(vec![snapshot], Discovery::Hint).await?,
            None => self.forget_gateway(id).await?,
        }
        Ok(())
    }

    /// Loads one gateway's rows; the conditions of agents that are known already are those that were loaded before, or
    /// written since.
    async fn load_after_hint(&self, id: GatewayId) -> Result<Option<GatewaySnapshot>, StoreError> {
        let Some(mut snapshot) = self.store.reload_gateway(id).await? else {
            return Ok(None);
        };
        for (agent, record) in &mut snapshot.agent_records {
            match self.cache.agent(*agent) {
                Some((_, known)) => record.conditions = known.record.conditions.clone(),
                // Nothing was recorded of it yet, or it has to be loaded.
                None if record.generation == 0 => {}
                None => return self.store.load_gateway(id).await,
            }
        }
        Ok(Some(snapshot))
    }

    /// Loads everything and enqueues everything.
    async fn refresh_all(&self) -> Result<(), StoreError> {
        let _turn = self.loading.lock().await;
        let fleet = match self.only {
            None => self.store.load_fleet().await?,
            Some(id) => self.store.load_gateway(id).await?.into_iter().collect(),
        };
        let present: HashSet<_> = fleet.iter().map(|snapshot| snapshot.gateway.id).collect();
        for spec in self.cache.gateways() {
            if !present.contains(&spec.id()) {
                self.forget_gateway(spec.id()).await?;
            }
        }
        self.state().looks += 1;
        self.accept(fleet, Discovery::Resync).await?;
        for spec in self.cache.gateways() {
            self.gateway_queue.add(spec.id(), Priority::Resync);
            for agent in &spec.agents {
                self.agent_queue.add(agent.row.id, Priority::Resync);
            }
        }
        // Whatever became of the hints.
        self.syncs.look_for_requests();
        Ok(())
    }

    /// Takes snapshots into the cache, counting generations, and enqueues what changed.
    async fn accept(&self, snapshots: Vec<GatewaySnapshot>, source: Discovery) -> Result<(), StoreError> {
        let environment = self.environment();
        let revision = {
            let mut state = self.state();
            state.revision += 1;
            state.revision
        };
        let mut specs: Vec<_> = snapshots
            .into_iter()
            .map(|snapshot| spec::derive(snapshot, &environment, revision))
            .map(|spec| spec.wanting_leads(self.settings.ensure_leads))
            .collect();
        let changed: Vec<_> = specs.iter_mut().flat_map(count_changes).collect();
        let (mut loaded, mut replaced) = (Vec::new(), Vec::new());
        for spec in specs {
            let spec = Arc::new(spec);
            let old = self.cache.insert(Arc::clone(&spec));
            loaded.push((spec, old));
        }
        // After all of them: who looks at one gateway may have to know whether there is another.
        for (spec, old) in loaded {
            self.enqueue_changes(&spec, old.as_deref(), source);
            replaced.extend(old);
        }
        for old in replaced {
            // Nobody else knows what was there before, so this comes before anything that can fail.
            self.notice_vanished(&old);
        }
        // Behind the queue's back: what changed need not wait for the count. If it fails, the next load counts again.
        if !changed.is_empty() {
            self.store.record_generations(&self.fence, &changed).await?;
        }
        self.tell_vanished().await
    }

    fn enqueue_changes(&self, new: &GatewaySpec, old: Option<&GatewaySpec>, source: Discovery) {
        let token = |spec: &GatewaySpec| {
            spec.snapshot
                .gateway
                .token
                .as_ref()
                .map(|token| token.expose_secret().to_owned())
        };
        let differs = |old: &GatewaySpec| {
            old.roster_digest != new.roster_digest
                || new.concerns_gateway_otherwise_than(old)
                || token(old) != token(new)
        };
        if old.is_none_or(differs) {
            self.metrics.discovered(source);
            self.gateway_queue.add_fresh(new.id());
        }
        let before: HashMap<_, _> = old
            .into_iter()
            .flat_map(|old| &old.agents)
            .map(|agent| (agent.row.id, agent))
            .collect();
        for agent in &new.agents {
            let id = agent.row.id;
            match before.get(&id) {
                Some(old) if old.digest == agent.digest => {
                    if self.needs_a_look(old, agent) {
                        self.agent_queue.add(id, Priority::Change);
                    }
                }
                seen => {
                    self.metrics.discovered(source);
                    let changed = agent.record.spec_digest.as_ref() != Some(&agent.digest);
                    // What did not match when an earlier tenure ended has been waiting since then.
                    let waited = match seen {
                        None => self.waited(&agent.record.conditions),
                        Some(_) => None,
                    };
                    if changed || waited.is_some() {
                        let ago = waited.unwrap_or_default();
                        self.metrics.convergence.started(ObjectRef::Agent(id), ago);
                    }
                    self.agent_queue.add_fresh(id);
                }
            }
        }
    }

    /// For how long an agent has not matched, by its conditions; `None` if it matches. Whether it checked in is its own affair.
    fn waited(&self, conditions: &Conditions) -> Option<Duration> {
        use ConditionType::{FilesSynced, Registered, TokenValid};
        let since = [Registered, FilesSynced, TokenValid]
            .into_iter()
            .filter_map(|kind| conditions.get(kind))
            .filter(|condition| condition.status != ConditionStatus::True)
            .map(|condition| condition.last_transition_time)
            .min()?;
        // A clock that was put back tells nothing.
        Some((self.now() - since).to_std().unwrap_or_default())
    }

    /// Whether columns that are no part of the spec, and that other programs write, changed between two loads to something
    /// else than we know. What did not change was looked at, or still waits for it: while a fleet converges, every hash
    /// that we store ourselves announces a change of its gateway, and must not send all other agents round again.
    fn needs_a_look(&self, old: &AgentSpec, new: &AgentSpec) -> bool {
        let (before, now) = (&old.row, &new.row);
        if new.excluded == Some(Excluded::Deleting) {
            // What was removed has no token.
            return now.token_hash.is_some() && now.token_hash != before.token_hash;
        }
        if new.excluded.is_some_and(|excluded| excluded != Excluded::BoardPaused) {
            return false;
        }
        let state = self.state();
        let memory = state.agents.get(&now.id);
        if now.last_seen_at != before.last_seen_at && awaits_check_in(memory, new) {
            return true;
        }
        if new.excluded.is_some() {
            return false;
        }
        if now.session_key != before.session_key && now.session_key.as_ref() != Some(&new.session_key) {
            return true;
        }
        if new.role.is_lead() && now.gateway_id != before.gateway_id && now.gateway_id != new.home {
            return true;
        }
        let known = memory.and_then(|memory| memory.token.as_ref()).map(|known| &known.hash);
        now.token_hash != before.token_hash && now.token_hash.as_ref() != known
    }

    /// Drops what is remembered of agents that are on no gateway any more, and remembers to say where they were left.
    fn notice_vanished(&self, old: &GatewaySpec) {
        let mut events = Vec::new();
        for agent in &old.agents {
            let id = agent.row.id;
            if self.cache.agent(id).is_some() {
                continue;
            }
            let ours = agent.record.created_by_us()
                || self
                    .state()
                    .agents
                    .get(&id)
                    .is_some_and(|memory| memory.registered_by_us.is_some());
            self.agent_queue.forget(&id);
            self.metrics.convergence.forget(ObjectRef::Agent(id));
            self.metrics.agents.forget(&id);
            {
                let mut state = self.state();
                state.agents.remove(&id);
                state.parked.remove(&id);
                state.differences.remove(&ObjectRef::Agent(id));
                state.refused_heartbeats.remove(&id);
                state.in_doubt.remove(&ObjectRef::Agent(id));
            }
            let on_gateway = self
                .sessions
                .get(old.id())
                .is_some_and(|session| session.is_registered(&agent.gateway_agent_id));
            // One that we made is told of when it is written down as left there.
            if on_gateway && !ours {
                events.push(Event {
                    object: ObjectRef::Agent(id),
                    kind: EventKind::Warning,
                    reason: "RowDeleted".into(),
                    message: format!(
                        "The agent's row is gone; {}, which this controller did not make, stays on gateway {} and is no longer \
                         managed. Set delete_requested_at and await the condition Deleted before deleting a row.",
                        agent.gateway_agent_id,
                        old.id()
                    ),
                });
            }
        }
        self.state().vanished.extend(events);
    }

    /// Says where agents were left. What cannot be written down is said after the next load.
    async fn tell_vanished(&self) -> Result<(), StoreError> {
        let events = self.state().vanished.clone();
        if events.is_empty() {
            return Ok(());
        }
        self.store.record_events(&self.fence, &events).await?;
        // Whoever loads does so alone: nothing was added meanwhile.
        self.state().vanished.clear();
        Ok(())
    }

    /// Drops a gateway whose row is gone.
    async fn forget_gateway(&self, id: GatewayId) -> Result<(), StoreError> {
        if self.cache.gateway(id).is_some() {
            // While it is in the cache: should this fail, the next load comes back to it.
            self.store.forget(&self.fence, &[ObjectRef::Gateway(id)]).await?;
        }
        self.sessions.remove(id);
        self.gateway_queue.forget(&id);
        self.metrics.gateways.forget(&id);
        self.state().forget_gateway(id);
        if let Some(old) = self.cache.remove(id) {
            self.notice_vanished(&old);
        }
        self.tell_vanished().await
    }
}

/// Gives a gateway and its agents a new generation where their digests differ from the recorded ones, and returns those
/// digests, to be recorded. Nobody else counts while the lease is held, so the numbers are known before they are stored.
fn count_changes(spec: &mut GatewaySpec) -> Vec<(ObjectRef, GatewayId, String)> {
    let id = spec.id();
    let mut changed = Vec::new();
    if spec.snapshot.record.spec_digest.as_ref() != Some(&spec.digest) {
        spec.generation += 1;
        changed.push((ObjectRef::Gateway(id), id, spec.digest.clone()));
    }
    for agent in &mut spec.agents {
        if agent.record.spec_digest.as_ref() != Some(&agent.digest) {
            let agent = Arc::make_mut(agent);
            agent.generation += 1;
            changed.push((ObjectRef::Agent(agent.row.id), id, agent.digest.clone()));
        }
    }
    changed
}
