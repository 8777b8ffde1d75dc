//! The agent reconciler: look at the workspace, settle the token, write what differs, read it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::failure::AgentFailure;
use super::fights::Fights;
use super::gateway::session_lost;
use super::held::HeldBack;
use super::memory::AgentMemory;
use super::observe::{Reading, Workspace};
use super::session::Session;
use super::spec::{AgentSpec, Excluded, GatewaySpec};
use super::status::AgentReport;
use super::sync::{Look, Order};
use super::tokens::{Minting, Repair, TokenUse};
use super::world::World;
use super::{goal, live};
use crate::gateway::{Connector, ErrorClass};
use crate::model::{AgentId, AgentPlan, ConditionStatus, ConditionType, FileName, ObjectRef};
use crate::plan::{AgentGoal, FilePolicy, plan_agent};
use crate::render::Rendered;
use crate::runtime::{Action, Context, DriftKind, Priority, ReconcileError, Reconciler};
use crate::store::Store;

const NOT_PAUSED: &str = "the agent's board, if it has one, is not paused";

/// Makes one agent's workspace match.
pub(super) struct AgentReconciler<S, C>(pub Arc<World<S, C>>);

impl<S: Store, C: Connector> Reconciler for AgentReconciler<S, C> {
    type Key = AgentId;

    async fn reconcile(&self, key: &AgentId, _: &Context) -> Result<Action, ReconcileError> {
        let order = self.0.syncs.order(*key);
        let looked = self.look(key, order.as_ref()).await;
        if let (Some(order), Err(error)) = (&order, &looked) {
            // Whatever it was about, that is known.
            let message = error.to_string();
            let message = message.strip_prefix(&format!("agent {key}: ")).unwrap_or(&message);
            order.tell(Look::Failed {
                message: message.to_owned(),
                for_good: false,
                silent: None,
            });
        }
        looked
    }
}

impl<S: Store, C: Connector> AgentReconciler<S, C> {
    /// Looks at an agent; `order` is what a one-shot sync wants besides.
    async fn look(&self, key: &AgentId, order: Option<&Order>) -> Result<Action, ReconcileError> {
        let world = &self.0;
        if world.only.is_some() && order.is_none() {
            return Ok(Action::Done);
        }
        let Some((gateway, agent)) = world.cache.agent(*key) else {
            tell(order, Look::Gone);
            return Ok(Action::Done);
        };
        if agent.excluded == Some(Excluded::Deleting) {
            tell(order, Look::Excluded(Excluded::Deleting));
            if world.only.is_some() {
                // Whoever removes agents has to stay until they were seen to be gone.
                return Ok(Action::Done);
            }
            world.metrics.convergence.forget(ObjectRef::Agent(*key));
            return world.converge_removal(&gateway, &agent).await;
        }
        if let Some(memory) = world.state().agents.get_mut(key) {
            memory.removed = false;
        }
        if let Some(excluded) = agent.excluded {
            world.differs(ObjectRef::Agent(*key), Vec::new());
            tell(order, Look::Excluded(excluded));
            world.metrics.convergence.forget(ObjectRef::Agent(*key));
            let mut report = excluded_report(excluded);
            let again = match excluded {
                Excluded::BoardPaused => world.follow_wake(&gateway, &agent, &mut report).await?,
                _ => None,
            };
            world.report_agent(&agent, report).await?;
            return Ok(again.map_or(Action::Done, Action::RequeueAfter));
        }
        // Parked before the look, so that a gateway that becomes ready in between finds it.
        world.state().parked.insert(*key);
        let Some(session) = world.sessions.get(gateway.id()) else {
            return Ok(Action::Done);
        };
        if !session.is_registered(&agent.gateway_agent_id) {
            let held = session.held_back(&agent.gateway_agent_id, &gateway.roster_digest);
            return match held {
                Some(held) => world.report_held_back(&gateway, &agent, held, order).await,
                None => Ok(Action::Done),
            };
        }
        world.state().parked.remove(key);
        match world.converge_agent(&gateway, &agent, &session, order).await {
            Ok((report, requeue)) => {
                if !session.is_settled(&agent.gateway_agent_id, &gateway.roster_digest) {
                    // The files are done, the roster entry is not: no status before the gateway was seen to hold all of it.
                    world.await_roster(&gateway, &agent);
                    return Ok(requeue.map_or(Action::Done, Action::RequeueAfter));
                }
                if report.obstacle().is_none() {
                    world.metrics.convergence.converged(ObjectRef::Agent(*key));
                }
                let settled = match order {
                    Some(order) => Some(world.settle_order(order, &agent, &session, &report).await?),
                    None => None,
                };
                let wake = world.report_and_wake(&gateway, &agent, &session, report).await?;
                if let Some(settled) = settled {
                    tell(order, settled);
                }
                let soonest = requeue.into_iter().chain(wake).min();
                Ok(soonest.map_or(Action::Done, Action::RequeueAfter))
            }
            Err(failure) => {
                tell(order, Look::failed(&failure));
                world.agent_failed(&gateway, &agent, failure).await
            }
        }
    }
}

/// Tells the sync that wanted the look, if there is one, what it came to.
fn tell(order: Option<&Order>, look: Look) {
    if let Some(order) = order {
        order.tell(look);
    }
}

impl<S: Store, C: Connector> World<S, C> {
    async fn converge_agent(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        session: &Session,
        order: Option<&Order>,
    ) -> Result<(AgentReport, Option<Duration>), AgentFailure> {
        let id = agent.row.id;
        let (mut memory, looks) = {
            let state = self.state();
            (state.agents.get(&id).cloned().unwrap_or_default(), state.looks)
        };
        memory.keep_files_known_in(looks);
        let rendered = goal::files(gateway, agent, &session.dialect, &self.templates, &self.settings);
        let withheld = self.settings.withhold_existing_files && self.existed_before_us(gateway, agent);
        let names = || rendered.files.keys().copied();
        let minting = match goal::token_home(&rendered, &session.dialect) {
            _ if withheld => Minting::Withheld,
            Some(_) => Minting::Allowed,
            None => Minting::NoPlace,
        };
        let how = match order {
            Some(order) => order.reading(),
            None if memory.unlisted_read == Some(looks) => Reading::Changed,
            None => Reading::Unlisted,
        };
        let mut workspace = Workspace::read(session, agent, names(), &memory, how).await?;
        let repair = order.map_or(Repair::AsUsual, Order::repair);
        let mut token = self.settle_token(agent, &memory, &workspace, minting, repair).await?;
        if let Some(order) = order {
            order.take_as_it_is(&mut token, &workspace, self.settings.tokens);
        }
        if workspace.has_remembered() && !token.is(memory.files_token.as_ref()) {
            // What is remembered as holding its token holds the one before.
            workspace = Workspace::read(session, agent, names(), &AgentMemory::default(), Reading::Unlisted).await?;
        }
        let policy = self.policy(gateway, agent, &token);
        let policy = order.map_or(policy, |order| order.widen(policy));
        let observed = workspace.observed(names(), token.token.as_ref());
        let goal = AgentGoal {
            files: &rendered.files,
            policy,
        };
        let mut plan = plan_agent(&goal, &observed, &session.dialect);
        let mut differing = live::of_files(&plan);
        self.differs(ObjectRef::Agent(id), differing.clone());
        if withheld && !plan.is_empty() {
            plan = withhold(plan);
        }
        let fights = if order.is_none() && !withheld {
            self.file_fights(gateway, agent, session, &memory, (&workspace, &token), &mut plan)
                .await?
        } else {
            // A sync writes what it is asked to.
            Fights::default()
        };
        let mut files = workspace.to_remember(token.token.as_ref());
        if !plan.files.is_empty() {
            self.metrics.drift_detected(DriftKind::File, plan.files.len() as u64);
            // What is on the gateway is in doubt until it was read back.
            self.state().agents.entry(id).or_default().files.clear();
            let written = self
                .write_files(session, agent, &plan.files, token.token.as_ref(), looks)
                .await
                .inspect_err(|_| self.not_promoted(&token))?;
            // What was found before the write is true no longer, even if nothing can be remembered of what was written.
            files.retain(|file, _| plan.files.iter().all(|step| step.file != *file));
            files.extend(written);
            self.metrics.drift_corrected(DriftKind::File, plan.files.len() as u64);
            differing.retain(|found| plan.files.iter().all(|step| step.file.to_string() != found.what));
            self.differs(ObjectRef::Agent(id), differing);
        }
        let settled = self
            .settled(agent, session, &token, &plan, &mut files, memory.departures)
            .await;
        if !settled.inspect_err(|_| self.not_promoted(&token))? {
            token.not_written();
        }
        if policy.first_provisioning && !withheld && plan.warnings.is_empty() && rendered.errors.is_empty() {
            let placement = (id, gateway.id(), agent.gateway_agent_id.clone());
            self.store
                .record_first_provisioned(&self.fence, &[placement], self.now())
                .await?;
            let mut state = self.state();
            let known = state.agents.entry(id).or_default();
            if known.departures == memory.departures {
                known.provisioned = Some(gateway.id());
            }
        }
        let mut report = self.agent_report(gateway, agent, session, &rendered, &plan, &token, withheld);
        report.add_fights(&fights);
        if !withheld {
            self.files_seen(agent, session, fights.held().filter_map(FileName::of));
        }
        {
            let departures = memory.departures;
            let mut state = self.state();
            let memory = state.agents.entry(id).or_default();
            if memory.departures != departures {
                return Err(AgentFailure::Departed);
            }
            // Without a token it is not known what was a token in them.
            memory.files = if token.token.is_some() { files } else { BTreeMap::new() };
            memory.files_token.clone_from(&token.token);
            memory.unlisted_read = Some(looks);
        }
        let due = fights.due().map(|due| self.until(due));
        Ok((report, token.requeue.into_iter().chain(due).min()))
    }

    /// Whether the rows as they were last loaded still have the agent where it was looked at, and managed as it was then.
    pub(super) fn is_as_looked_at(&self, gateway: &GatewaySpec, agent: &AgentSpec) -> bool {
        self.cache.agent(agent.row.id).is_some_and(|(home, now)| {
            home.id() == gateway.id()
                && now.gateway_agent_id == agent.gateway_agent_id
                && now.excluded == agent.excluded
        })
    }

    /// Has the agent looked at again once its gateway's config was.
    fn await_roster(&self, gateway: &GatewaySpec, agent: &AgentSpec) {
        let id = agent.row.id;
        self.state().parked.insert(id);
        // The gateway may have been looked at since the session was taken out: then nobody would come back for the agent.
        let settled = self
            .sessions
            .get(gateway.id())
            .is_some_and(|session| session.is_settled(&agent.gateway_agent_id, &gateway.roster_digest));
        if settled && self.state().parked.remove(&id) {
            self.agent_queue.add(id, Priority::Change);
        }
    }

    fn policy(&self, gateway: &GatewaySpec, agent: &AgentSpec, token: &TokenUse) -> FilePolicy {
        let id = gateway.id();
        let known = self
            .state()
            .agents
            .get(&agent.row.id)
            .and_then(|memory| memory.provisioned);
        let recorded = agent.record.first_provisioned_at.is_some() && agent.is_placed_on(id);
        let provisioned = known.map_or(recorded, |known| known == id);
        FilePolicy {
            is_main: agent.role.is_main(),
            first_provisioning: !provisioned,
            force_bootstrap: false,
            overwrite: false,
            has_token: token.token.is_some(),
        }
    }

    /// Whether the agent was on the gateway before this controller.
    pub(super) fn existed_before_us(&self, gateway: &GatewaySpec, agent: &AgentSpec) -> bool {
        let known = self
            .state()
            .agents
            .get(&agent.row.id)
            .and_then(|memory| memory.registered_by_us);
        known != Some(gateway.id()) && existed_before_us(gateway, agent)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different part of what was seen, and there is one caller"
    )]
    fn agent_report(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        session: &Session,
        rendered: &Rendered,
        plan: &AgentPlan,
        token: &TokenUse,
        withheld: bool,
    ) -> AgentReport {
        use ConditionStatus::{False, True};
        use ConditionType::{FilesSynced, Paused, Registered};
        let mut report = AgentReport {
            waits: token.waits,
            ..AgentReport::default()
        };
        report.set(Paused, False, "NotPaused", NOT_PAUSED);
        let refused = self.state().refused_heartbeats.get(&agent.row.id).cloned();
        match (refused, goal::heartbeat_error(agent, &session.dialect)) {
            (_, Some(error)) => report.set(Registered, False, "InvalidHeartbeat", error),
            (Some((digest, message)), None) if digest == agent.digest => {
                let message = format!(
                    "the gateway refuses the heartbeat that the row asks for ({message}); correct heartbeat_config"
                );
                report.set(Registered, False, "HeartbeatRefused", message);
            }
            _ if let Some(held) = session.held_back(&agent.gateway_agent_id, &gateway.roster_digest) => {
                report.set(Registered, False, held.reason, held.message.clone());
            }
            _ => report.set(
                Registered,
                True,
                "InRoster",
                "the gateway's roster holds the agent as desired",
            ),
        }
        report.set(
            ConditionType::TokenValid,
            token.status,
            token.reason,
            token.message.clone(),
        );
        if let Some(error) = rendered.errors.first() {
            let more = rendered.errors.len() - 1;
            let more = if more == 0 {
                String::new()
            } else {
                format!(" (and {more} more)")
            };
            report.set(
                FilesSynced,
                False,
                error.reason,
                format!("{}: {}{more}", error.file, error.message),
            );
        } else if withheld && !plan.warnings.is_empty() {
            report.set(FilesSynced, False, "Withheld", plan.warnings.join("; "));
        } else if !plan.warnings.is_empty() {
            report.set(FilesSynced, False, "NotWritten", plan.warnings.join("; "));
        } else if let Some(warning) = rendered.warnings.first() {
            report.set(
                FilesSynced,
                True,
                "FileTooLong",
                format!("{}: {}", warning.file, warning.message),
            );
        } else {
            report.set(
                FilesSynced,
                True,
                "ReadBackEqual",
                "the files hold what the rows and templates say",
            );
        }
        report
    }

    /// The status of an agent that is not in the roster with its workspace, and is not put there now: nothing of its files can be
    /// looked at.
    async fn report_held_back(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        held: &HeldBack,
        order: Option<&Order>,
    ) -> Result<Action, ReconcileError> {
        use ConditionStatus::{False, Unknown};
        use ConditionType::{FilesSynced, Paused, Registered, TokenValid};
        if !self.is_as_looked_at(gateway, agent) {
            return Ok(Action::Done);
        }
        tell(order, Look::held_back(held));
        let mut report = AgentReport::default();
        report.set(Paused, False, "NotPaused", NOT_PAUSED);
        report.set(Registered, False, held.reason, held.message.clone());
        for kind in [TokenValid, FilesSynced] {
            report.set(
                kind,
                Unknown,
                "NotObserved",
                "the agent is not in the gateway's roster with its workspace",
            );
        }
        let again = self.follow_wake(gateway, agent, &mut report).await?;
        self.report_agent(agent, report).await?;
        Ok(again.map_or(Action::Done, Action::RequeueAfter))
    }

    /// Turns a failure into the agent's status and into what the queue does next.
    async fn agent_failed(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        failure: AgentFailure,
    ) -> Result<Action, ReconcileError> {
        let id = agent.row.id;
        self.state().agents.entry(id).or_default().files.clear();
        if !self.is_as_looked_at(gateway, agent) {
            return Ok(Action::Done);
        }
        let mut report = AgentReport::default();
        let (reason, message, at_least) = match failure {
            AgentFailure::Gateway(error) if session_lost(&error) => {
                // The gateway has one condition and one backoff for this; the agent waits for it.
                self.state().parked.insert(id);
                self.gateway_queue.add(gateway.id(), Priority::Change);
                return Ok(Action::Done);
            }
            AgentFailure::Gateway(error) => {
                if error.class() == ErrorClass::NotFound {
                    // The roster is not what it was when it was last read.
                    self.gateway_queue.add(gateway.id(), Priority::Change);
                }
                (error.reason(), error.to_string(), error.retry_after())
            }
            AgentFailure::NotKept(file) => {
                self.state().agents.entry(id).or_default().not_kept.insert(file);
                ("NotKept", failure.to_string(), None)
            }
            AgentFailure::Overtaken(file, ref error) => {
                self.state().agents.entry(id).or_default().not_kept.insert(file);
                (error.reason(), failure.to_string(), error.retry_after())
            }
            AgentFailure::Store(error) => return Err(ReconcileError::from_error(error)),
            AgentFailure::TokenRace => {
                let message = "another program changed the agent's token hash meanwhile; looking again".to_owned();
                return Err(ReconcileError::new(message));
            }
            AgentFailure::Token(message) => ("HashFailed", message, None),
            // Whatever it has become since is looked at by itself.
            AgentFailure::Departed => return Ok(Action::Done),
        };
        report.set(ConditionType::Paused, ConditionStatus::False, "NotPaused", NOT_PAUSED);
        report.set(
            ConditionType::FilesSynced,
            ConditionStatus::False,
            reason,
            message.clone(),
        );
        self.follow_wake(gateway, agent, &mut report).await?;
        self.report_agent(agent, report).await?;
        let error = ReconcileError::new(format!("agent {id}: {message}"));
        Err(match at_least {
            Some(pause) => error.retry_after(pause),
            None => error,
        })
    }
}

/// Whether the agent was on the gateway before this controller, as far as the database knew when it was loaded.
pub(super) fn existed_before_us(gateway: &GatewaySpec, agent: &AgentSpec) -> bool {
    agent.record.registering_since.is_none() || !agent.is_placed_on(gateway.id())
}

/// Turns the writes of a plan into one warning that says how to have them made.
fn withhold(plan: AgentPlan) -> AgentPlan {
    let files: Vec<_> = plan.files.iter().map(|step| step.file.to_string()).collect();
    let message = format!(
        "{} would be written; beside an existing installation no file of an existing agent is written until \
         --templates-dir and --base-url are given (`openclaw-controller diff` shows what would change)",
        files.join(", ")
    );
    AgentPlan {
        files: Vec::new(),
        warnings: plan.warnings.into_iter().chain([message]).collect(),
    }
}

fn excluded_report(excluded: Excluded) -> AgentReport {
    let mut report = AgentReport::default();
    let kind = match excluded {
        Excluded::BoardPaused => {
            report.set(
                ConditionType::Paused,
                ConditionStatus::True,
                excluded.reason(),
                excluded.message(),
            );
            return report;
        }
        _ => ConditionType::Registered,
    };
    report.set(ConditionType::Paused, ConditionStatus::False, "NotPaused", NOT_PAUSED);
    report.set(kind, ConditionStatus::False, excluded.reason(), excluded.message());
    report
}
