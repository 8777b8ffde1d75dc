//! Carrying out the requests: reach the gateway, have the agents looked at, write down what came of it.
//!
//! What is done is committed agent by agent, so that whoever takes a request up after a crash goes on with the rest.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Duration, Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{GatewayLook, Look, Order, Reset, Told, text};
use crate::gateway::Connector;
use crate::model::{AgentId, GatewayId, SyncError, SyncRequest, SyncResult, SyncedAgent};
use crate::reconcile::spec::{AgentSpec, Excluded, GatewaySpec};
use crate::reconcile::world::World;
use crate::runtime::Priority;
use crate::store::{Store, StoreError};

/// After how long a request is taken up again of which something could not be written down; doubled each time, up to the
/// second of these.
const TAKE_UP_AGAIN: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How many time limits a sync takes at most after the last agent that was done.
const MOST_LIMITS: u32 = 3;

/// How often in a row a gateway's config may be refused before those who wait for it are told: the next patch goes without
/// what was refused.
const REFUSALS: u32 = 3;

impl<S: Store, C: Connector> World<S, C> {
    /// Carries out requests for syncs until cancelled, one at a time for each gateway.
    pub(in crate::reconcile) async fn run_syncs(&self, cancel: &CancellationToken) {
        let mut running = FuturesUnordered::new();
        let mut busy = HashSet::new();
        let mut again: Option<Instant> = None;
        let mut pause = TAKE_UP_AGAIN;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.syncs.requests.notified() => match self.requests().await {
                    Ok(requests) => {
                        let mine = requests.into_iter().filter(|request| self.only.is_none_or(|id| id == request.gateway));
                        for request in mine {
                            if busy.insert(request.gateway) {
                                running.push(self.sync(request));
                            }
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot look for requests for syncs; trying again");
                        again = Some(Instant::now() + pause);
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                },
                Some((gateway, ended)) = running.next() => {
                    busy.remove(&gateway);
                    match ended {
                        Ok(()) => {
                            pause = TAKE_UP_AGAIN;
                            // There may be another one for it.
                            self.syncs.look_for_requests();
                        }
                        Err(error) => {
                            tracing::warn!(%gateway, %error, "a sync could not be completed; it is taken up again");
                            again = Some(Instant::now() + pause);
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                    }
                }
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    again = None;
                    self.syncs.look_for_requests();
                }
            }
        }
    }

    async fn requests(&self) -> Result<Vec<SyncRequest>, StoreError> {
        self.store.drop_old_syncs(&self.fence).await?;
        self.store.open_syncs().await
    }

    async fn sync(&self, request: SyncRequest) -> (GatewayId, Result<(), StoreError>) {
        tracing::info!(sync = %request.id.0, gateway = %request.gateway, options = ?request.options, "sync begins");
        let carried_out = async {
            let (told, hears) = unbounded_channel();
            let mut work = Work {
                world: self,
                request: &request,
                done: HashMap::new(),
                told,
                hears,
                held: None,
            };
            let result = work.carry_out().await?;
            self.store.finish_sync(&self.fence, request.id, &result).await?;
            tracing::info!(
                sync = %request.id.0, gateway = %request.gateway, updated = result.agents_updated,
                skipped = result.agents_skipped, main = result.main_updated, errors = result.errors.len(), "sync ends"
            );
            Ok(())
        };
        let ended = carried_out.await;
        (request.gateway, ended)
    }

    /// The gateway's spec, from rows loaded from now on; `None` if it has no row.
    async fn reloaded(&self, gateway: GatewayId) -> Option<Arc<GatewaySpec>> {
        self.syncs.reload(gateway).await;
        self.cache.gateway(gateway)
    }
}

/// A sync that is being carried out.
struct Work<'a, S, C> {
    world: &'a World<S, C>,
    request: &'a SyncRequest,
    /// The agents that are done, now or before a crash.
    done: HashMap<AgentId, SyncedAgent>,
    told: UnboundedSender<Told>,
    hears: UnboundedReceiver<Told>,
    /// What the gateway's config was last seen to be left without, and why.
    held: Option<String>,
}

impl<S, C> Drop for Work<'_, S, C> {
    fn drop(&mut self) {
        let held = {
            let mut inner = self.world.syncs.lock();
            inner.watchers.remove(&self.request.gateway);
            inner.orders.retain(|_, order| order.sync != self.request.id);
            inner.held.remove(&self.request.gateway)
        };
        for agent in held.into_iter().flatten() {
            self.world.agent_queue.add(agent, Priority::Change);
        }
    }
}

/// Whether a sync goes on.
enum Course {
    On,
    /// The gateway does not answer; what there is to say besides what was noted of agents.
    Stop(Option<String>),
}

impl<S: Store, C: Connector> Work<'_, S, C> {
    async fn carry_out(&mut self) -> Result<SyncResult, StoreError> {
        let (world, request) = (self.world, self.request);
        let options = &request.options;
        let mut result = SyncResult::of(request);
        let Some(mut spec) = world.reloaded(request.gateway).await else {
            result.errors.push(SyncError::general(text::GATEWAY_GONE));
            return Ok(result);
        };
        if let Some(problem) = refusal(&spec, request) {
            result.errors.push(SyncError::general(problem));
            return Ok(result);
        }
        let done = world.store.synced_agents(request.id).await?;
        self.done = done.into_iter().map(|agent| (agent.agent, agent)).collect();
        let count = self.agents(&spec).len() + usize::from(options.include_main);
        if !world.store.begin_sync(&world.fence, request.id, count).await? {
            // Somebody took it back; nobody waits for the result.
            return Ok(result);
        }
        let mut course = self.ping().await;
        if matches!(course, Course::On) {
            if options.rotate_tokens {
                self.ask_for_tokens(&spec).await?;
                spec = world.reloaded(request.gateway).await.unwrap_or(spec);
            }
            let agents = self.agents(&spec);
            course = self.look_at(&spec, &agents).await?;
        }
        let main = main_agent(&spec).filter(|_| options.include_main);
        if matches!(course, Course::On) && options.include_main {
            course = match &main {
                Some(main) => self.look_at(&spec, std::slice::from_ref(main)).await?,
                None => Course::Stop(Some(text::NO_MAIN_AGENT.to_owned())),
            };
        }
        self.sum_up(&mut result, &spec, main.as_deref());
        if let Some(held) = &self.held {
            result.errors.push(SyncError::general(text::held(held)));
        }
        if let Course::Stop(Some(problem)) = course {
            result.errors.push(SyncError::general(problem));
        }
        Ok(result)
    }

    /// The agents of boards that the sync is about, oldest first.
    fn agents(&self, spec: &GatewaySpec) -> Vec<Arc<AgentSpec>> {
        let board = self.request.options.board;
        let agents = spec.agents.iter().filter(|agent| !agent.role.is_main());
        agents
            .filter(|agent| board.is_none() || agent.row.board_id == board)
            .cloned()
            .collect()
    }

    /// Reaches the gateway, or says why not.
    async fn ping(&mut self) -> Course {
        let (gateway, limit) = (self.request.gateway, self.request.options.time_limit());
        let world = self.world;
        world.syncs.lock().watchers.insert(gateway, self.told.clone());
        world.gateway_queue.add_fresh(gateway);
        let (end, mut last) = (Instant::now() + limit, None);
        loop {
            match timeout_at(end, self.hears.recv()).await {
                Ok(Some(Told::Gateway(GatewayLook::Ready { held }))) => {
                    self.held = held;
                    return Course::On;
                }
                Ok(Some(Told::Gateway(GatewayLook::Unsettled { .. }))) => return Course::On,
                Ok(Some(Told::Gateway(GatewayLook::Away {
                    message,
                    for_good: true,
                }))) => {
                    return Course::Stop(Some(message));
                }
                Ok(Some(Told::Gateway(GatewayLook::Away { message, .. }))) => last = Some(message),
                Ok(_) => {}
                Err(_) => return Course::Stop(Some(text::timed_out(limit, last.as_deref()))),
            }
        }
    }

    /// Asks for new tokens for those who are to be looked at. The request is as old as that for the sync, so asking again
    /// after a crash asks for nothing new.
    async fn ask_for_tokens(&self, spec: &GatewaySpec) -> Result<(), StoreError> {
        let main = main_agent(spec).filter(|_| self.request.options.include_main);
        let wanted = self.agents(spec).into_iter().chain(main);
        let ids: Vec<_> = wanted
            .filter(|agent| agent.excluded.is_none() && !self.done.contains_key(&agent.row.id))
            .filter(|agent| !self.is_withheld(spec, agent))
            .map(|agent| agent.row.id)
            .collect();
        let world = self.world;
        world
            .store
            .request_sync_rotation(&world.fence, self.request.requested_at, &ids)
            .await
    }

    fn is_withheld(&self, spec: &GatewaySpec, agent: &AgentSpec) -> bool {
        self.world.settings.withhold_existing_files && self.world.existed_before_us(spec, agent)
    }

    /// Has agents looked at, and notes what became of each.
    async fn look_at(&mut self, spec: &GatewaySpec, agents: &[Arc<AgentSpec>]) -> Result<Course, StoreError> {
        let (world, request) = (self.world, self.request);
        let noted = if request.options.reset_sessions {
            world.store.sync_resets(request.id).await?
        } else {
            Vec::new()
        };
        // Oldest first.
        let mut waiting = Vec::new();
        for agent in agents {
            if self.done.contains_key(&agent.row.id) {
                continue;
            }
            if let Some(excluded) = agent.excluded {
                self.note(agent, false, text::excluded(excluded)).await?;
            } else if request.options.rotate_tokens && self.is_withheld(spec, agent) {
                self.note(agent, false, Some(text::WITHHELD.to_owned())).await?;
            } else {
                waiting.push(Arc::clone(agent));
            }
        }
        for agent in &waiting {
            let reset = if noted.contains(&agent.row.id) {
                Reset::Unknown(text::RESET_BY_ANOTHER.to_owned())
            } else {
                Reset::New
            };
            let order = Order {
                agent: agent.row.id,
                sync: request.id,
                options: request.options.clone(),
                told: self.told.clone(),
                reset: Arc::new(Mutex::new(reset)),
            };
            world.syncs.lock().orders.insert(agent.row.id, order);
            world.agent_queue.add_fresh(agent.row.id);
        }
        self.hear_of(spec, waiting).await
    }

    /// Waits until all of these were looked at with success or in vain, or nothing has come of it for too long. If that is
    /// because the gateway does not answer, the sync ends.
    async fn hear_of(&mut self, spec: &GatewaySpec, mut waiting: Vec<Arc<AgentSpec>>) -> Result<Course, StoreError> {
        let limit = self.request.options.time_limit();
        let (mut since, mut last, mut away, mut refusals) = (Instant::now(), None, false, 0);
        // However often the gateway comes and goes.
        let mut end = since + limit.saturating_mul(MOST_LIMITS);
        // Whether the last that was heard is that the gateway did not answer.
        let mut silent = false;
        while let Some(oldest) = waiting.first().cloned() {
            match timeout_at((since + limit).min(end), self.hears.recv()).await {
                Ok(Some(Told::Agent(id, look))) => {
                    let Some(place) = waiting.iter().position(|agent| agent.row.id == id) else {
                        continue;
                    };
                    let (updated, message) = match look {
                        Look::NotYet => continue,
                        Look::Failed {
                            message,
                            for_good: false,
                            silent: unanswered,
                        } => {
                            (last, silent) = (Some(message), unanswered.unwrap_or(silent));
                            continue;
                        }
                        Look::Failed { message, .. } => (false, Some(text::failed(&message))),
                        Look::Gone => (false, Some(text::AGENT_GONE.to_owned())),
                        Look::Excluded(excluded) => (false, text::excluded(excluded)),
                        Look::Done { updated, message } => (updated, message),
                    };
                    let agent = waiting.remove(place);
                    self.note(&agent, updated, message).await?;
                    (since, silent) = (Instant::now(), false);
                    end = since + limit.saturating_mul(MOST_LIMITS);
                }
                Ok(Some(Told::Gateway(look))) => match look {
                    GatewayLook::Ready { held } => {
                        self.held = held;
                        if away {
                            since = Instant::now();
                        }
                        (away, refusals) = (false, 0);
                    }
                    GatewayLook::Away {
                        message,
                        for_good: true,
                    } => return Ok(Course::Stop(Some(message))),
                    GatewayLook::Away { message, .. } => (away, last) = (true, Some(message)),
                    GatewayLook::Unsettled { message, for_good } => {
                        refusals += u32::from(for_good);
                        if refusals >= REFUSALS {
                            // Those whose roster entries are as desired wait for their files only.
                            let session = self.world.sessions.get(spec.id());
                            let settled = |agent: &AgentSpec| {
                                session.as_ref().is_some_and(|session| {
                                    session.is_settled(&agent.gateway_agent_id, &spec.roster_digest)
                                })
                            };
                            for agent in waiting.extract_if(.., |agent| !settled(agent)).collect::<Vec<_>>() {
                                self.note(&agent, false, Some(text::failed(&message))).await?;
                            }
                        }
                        last = Some(message);
                    }
                },
                // A sender is here as well, so there is no end of what is told.
                Ok(None) => {}
                Err(_) if !away && !silent => {
                    // It is something else that keeps these from being done.
                    let problem = text::failed(last.as_deref().unwrap_or(text::NOTHING_HEARD));
                    for agent in waiting.drain(..) {
                        self.note(&agent, false, Some(problem.clone())).await?;
                    }
                }
                Err(_) => {
                    let problem = text::timed_out(limit, last.as_deref());
                    self.note(&oldest, false, Some(problem)).await?;
                    return Ok(Course::Stop(None));
                }
            }
        }
        Ok(Course::On)
    }

    /// Commits what became of an agent.
    async fn note(&mut self, agent: &AgentSpec, updated: bool, message: Option<String>) -> Result<(), StoreError> {
        let (world, id) = (self.world, agent.row.id);
        world.syncs.lock().orders.remove(&id);
        let synced = SyncedAgent {
            agent: id,
            updated,
            error: message.map(|message| SyncError {
                agent_id: Some(id),
                agent_name: Some(agent.row.name.clone()),
                board_id: agent.row.board_id,
                message,
            }),
        };
        world
            .store
            .finish_sync_agent(&world.fence, self.request.id, &synced)
            .await?;
        self.done.insert(id, synced);
        Ok(())
    }

    /// Counts what was done.
    fn sum_up(&mut self, result: &mut SyncResult, spec: &GatewaySpec, main: Option<&AgentSpec>) {
        for agent in self.agents(spec) {
            let Some(synced) = self.done.remove(&agent.row.id) else {
                continue;
            };
            if synced.updated {
                result.agents_updated += 1;
            } else {
                result.agents_skipped += 1;
            }
            result.errors.extend(synced.error);
        }
        if let Some(synced) = main.and_then(|main| self.done.remove(&main.row.id)) {
            result.main_updated = synced.updated;
            result.errors.extend(synced.error);
        }
        // Those whose rows have gone since.
        let mut gone: Vec<_> = std::mem::take(&mut self.done).into_values().collect();
        gone.sort_by_key(|synced| synced.agent);
        for synced in gone {
            result.agents_skipped += 1;
            result.errors.extend(synced.error);
        }
    }
}

/// Why a request cannot be carried out at all.
fn refusal(spec: &GatewaySpec, request: &SyncRequest) -> Option<&'static str> {
    let snapshot = &spec.snapshot;
    if snapshot.gateway.url.trim().is_empty() {
        return Some(text::NO_URL);
    }
    let board = request.options.board?;
    let is_here = snapshot
        .boards
        .get(&board)
        .is_some_and(|board| board.gateway_id == Some(spec.id()));
    (!is_here).then_some(text::FOREIGN_BOARD)
}

/// The gateway's main agent.
fn main_agent(spec: &GatewaySpec) -> Option<Arc<AgentSpec>> {
    let mut agents = spec.agents.iter();
    agents
        .find(|agent| agent.role.is_main() && agent.excluded != Some(Excluded::Deleting))
        .cloned()
}
