//! Agents that have to go: those whose removal was requested, and those that we left where no row explains them any more.
//!
//! A removal is complete when the gateway was seen without the agent, never because a call was answered. It is written down
//! before the gateway is asked, so that one whose end is unknown is asked for again: newer gateways take the agent out of their
//! config first and its files away after that.

use super::gateway_status::GatewayFailure;
use super::leftovers::explained_by;
use super::session::Session;
use super::spec::{AgentSpec, GatewaySpec};
use super::status::{AgentReport, clip};
use super::world::World;
use crate::gateway::{Connector, ErrorClass, GatewayError, Removal};
use crate::model::{
    AgentId, ConditionStatus, ConditionType, Event, EventKind, GatewayAgentId, GatewayId, GatewayPlan, ObjectRef,
    ObservedConfig, Traces,
};
use crate::plan::{GatewayGoal, Refused, RemovalGoal};
use crate::runtime::{Action, Context, DriftKind, Priority, ReconcileError};
use crate::store::Store;

/// Why an agent is removed, in a few words.
const REQUESTED: &str = "its removal was requested";
const UNEXPLAINED: &str = "made by this controller, and no row explains it any more";

/// How a gateway refused to remove an agent. It is not asked again before its config is another one, or the connection.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The config's hash.
    hash: Option<String>,
    how: Refused,
    /// In its own words.
    pub(super) message: String,
}

impl<S: Store, C: Connector> World<S, C> {
    /// Adds to a gateway's goal what has to go from it.
    pub(super) async fn add_removals(
        &self,
        spec: &GatewaySpec,
        config: &ObservedConfig,
        goal: &mut GatewayGoal,
    ) -> Result<(), GatewayFailure> {
        let traces = self.known_traces(spec.id()).await?;
        if self.only.is_some() {
            // Whoever removes agents has to stay until they were seen to be gone.
            goal.removed = traces.removed.into_keys().collect();
            return Ok(());
        }
        let refused = |id: &GatewayAgentId| {
            self.refusal(spec.id(), id, config)
                .map_or(Refused::No, |refusal| refusal.how)
        };
        let guests = self.going_guests(spec);
        goal.removals = removals(spec, &guests, &traces, self.settings.prune, refused);
        goal.removed = traces.removed.into_keys().collect();
        Ok(())
    }

    /// How the gateway refused to remove this agent, if its config is still the same.
    pub(super) fn refusal(&self, gateway: GatewayId, id: &GatewayAgentId, config: &ObservedConfig) -> Option<Refusal> {
        let state = self.state();
        let refusal = state.refused_removals.get(&(gateway, id.clone()))?;
        (refusal.hash == config.hash).then(|| refusal.clone())
    }

    /// Forgets what a gateway refused: over a new connection it is asked again.
    pub(super) fn forget_refusals(&self, gateway: GatewayId) {
        self.state().refused_removals.retain(|(of, _), _| *of != gateway);
    }

    /// Has the gateway make the agents that it would not take back by a patch. Returns those that it says it has made, and how
    /// the first of the others failed, unless the connection is gone.
    pub(super) async fn create(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        plan: &GatewayPlan,
    ) -> Result<(Vec<GatewayAgentId>, Option<GatewayFailure>), GatewayFailure> {
        let (mut made, mut failure) = (Vec::new(), None);
        for step in &plan.creations {
            tracing::info!(gateway = %spec.id(), agent = %step.id, why = step.why, "having the gateway make an agent");
            match session.client.agents_create(&step.id, &step.workspace).await {
                Ok(id) if id == step.id => made.push(id),
                Ok(id) => {
                    let message = format!("the gateway was asked to make {} and made {id}", step.id);
                    failure.get_or_insert(GatewayFailure::NotKept(message));
                }
                Err(error) => {
                    let failed = self.config_failure(spec, error);
                    if self.sessions.get(spec.id()).is_none() {
                        return Err(failed);
                    }
                    failure.get_or_insert(failed);
                }
            }
        }
        Ok((made, failure))
    }

    /// Carries out the removals of a plan, one by one. One that is refused is remembered, and holds up none of the others.
    /// Returns those that the gateway says are gone, and what else went wrong.
    pub(super) async fn remove(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        config: &ObservedConfig,
        plan: &GatewayPlan,
        cx: &Context,
    ) -> (Vec<GatewayAgentId>, Option<GatewayFailure>) {
        let mut finished = Vec::new();
        let removed = self.remove_each(spec, session, config, plan, cx, &mut finished).await;
        (finished, removed.err())
    }

    async fn remove_each(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        config: &ObservedConfig,
        plan: &GatewayPlan,
        cx: &Context,
        finished: &mut Vec<GatewayAgentId>,
    ) -> Result<(), GatewayFailure> {
        let gateway = spec.id();
        let guests = self.going_guests(spec);
        let guest = |id: &GatewayAgentId| guests.iter().find(|(guest, _)| guest == id).map(|(_, agent)| *agent);
        let wanted: Vec<_> = plan
            .removals
            .iter()
            .map(|step| {
                (
                    step.id.clone(),
                    requested_by(spec, &step.id).or_else(|| guest(&step.id)),
                )
            })
            .collect();
        // What was planned may be minutes old, and a workspace is not to be had back.
        if wanted.iter().any(|(id, agent)| !self.is_to_go(gateway, id, *agent)) {
            return Err(GatewayFailure::Outdated);
        }
        self.metrics.drift_detected(DriftKind::Leftover, wanted.len() as u64);
        let _changing = self.changing_traces(vec![gateway], Some(gateway));
        let begun = self
            .store
            .begin_removal(&self.fence, gateway, &wanted)
            .await
            .map_err(GatewayFailure::Store)?;
        // The rows have changed, and what was loaded has not yet.
        let mut failure = (begun.len() < wanted.len()).then_some(GatewayFailure::Outdated);
        let mut left = Vec::new();
        for (id, agent) in wanted.into_iter().filter(|(id, _)| begun.contains(id)) {
            if !self.is_to_go(gateway, &id, agent) {
                failure = Some(GatewayFailure::Outdated);
                break;
            }
            tracing::info!(%gateway, agent = %id, "removing an agent");
            let answer = tokio::select! {
                answer = session.client.agents_delete(&id) => answer,
                () = cx.cancel.cancelled() => return Err(GatewayFailure::Cancelled),
            };
            match answer {
                // Not found: somebody was faster.
                Ok(removal) => {
                    left.extend(removal.and_then(|removal| files_left(gateway, &id, &removal)));
                    finished.push(id);
                }
                Err(error) if matches!(error.class(), ErrorClass::Invalid | ErrorClass::Other) => {
                    tracing::warn!(%gateway, agent = %id, %error, "the gateway refuses to remove an agent");
                    let refusal = Refusal {
                        hash: config.hash.clone(),
                        how: how_refused(&error),
                        message: clip(&error.to_string()),
                    };
                    self.state().refused_removals.insert((gateway, id), refusal);
                    if let Some(agent) = agent.filter(|agent| guests.iter().any(|(_, guest)| guest == agent)) {
                        // Its own gateway does not know of this.
                        self.agent_queue.add(agent, Priority::Change);
                    }
                }
                Err(error) => {
                    let failed = self.config_failure(spec, error);
                    if self.sessions.get(gateway).is_none() {
                        failure = Some(failed);
                        break;
                    }
                    failure.get_or_insert(failed);
                }
            }
        }
        if !left.is_empty() {
            let told = self.store.record_events(&self.fence, &left).await;
            told.map_err(GatewayFailure::Store)?;
        }
        if !finished.is_empty() {
            self.metrics.drift_corrected(DriftKind::Leftover, finished.len() as u64);
            self.store
                .finish_removal(&self.fence, gateway, finished)
                .await
                .map_err(GatewayFailure::Store)?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether the rows, as they were last loaded, still want an agent to go: because `agent`'s row asks for it, or because no
    /// row explains it.
    fn is_to_go(&self, gateway: GatewayId, id: &GatewayAgentId, agent: Option<AgentId>) -> bool {
        self.cache.gateway(gateway).is_some_and(|spec| match agent {
            Some(_) if requested_by(&spec, id).is_some() => true,
            Some(agent) => explained_by(&spec, id).is_none() && self.going_guests(&spec).contains(&(id.clone(), agent)),
            None => explained_by(&spec, id).is_none(),
        })
    }

    /// One look at an agent whose removal was requested: the gateway's reconciler removes it, here it is told how far that is.
    pub(super) async fn converge_removal(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
    ) -> Result<Action, ReconcileError> {
        let id = agent.row.id;
        // Parked before the look, so that the next look at the gateway finds it.
        self.state().parked.insert(id);
        let session = self.sessions.get(gateway.id());
        let gone = session.and_then(|session| session.is_without(&agent.removes, &gateway.roster_digest));
        if gone.is_none() && self.is_told(agent) {
            // What was last seen is true until something else is seen.
            return Ok(Action::Done);
        }
        let elsewhere = self
            .place_of(agent)
            .filter(|(placed, _)| *placed != gateway.id() && self.goes_from(agent, *placed));
        if let Some((placed, _)) = &elsewhere {
            self.gateway_queue.add(*placed, Priority::Change);
        }
        let complete = gone == Some(true) && elsewhere.is_none();
        let known = self.state().agents.get(&id).is_some_and(|memory| memory.removed);
        if complete && (!known || agent.row.token_hash.is_some()) {
            self.pass_on(gateway, agent).await.map_err(ReconcileError::from_error)?;
            let requested = self
                .store
                .complete_removal(&self.fence, id, gateway.id())
                .await
                .map_err(ReconcileError::from_error)?;
            if !requested {
                // It was taken back; the hint of that is on its way.
                return Ok(Action::Done);
            }
            let mut state = self.state();
            let memory = state.agents.entry(id).or_default();
            memory.leave();
            memory.removed = true;
        }
        let report = if complete {
            deleted(agent)
        } else {
            let refusals = self.state().refused_removals.clone();
            let refusal = agent
                .removes
                .iter()
                .map(|name| (gateway.id(), name.clone()))
                .chain(elsewhere)
                .find_map(|place| refusals.get(&place));
            pending(refusal)
        };
        self.report_agent(agent, report).await?;
        Ok(Action::Done)
    }
}

impl<S, C> World<S, C> {
    /// Whether the agent's conditions speak of its removal already.
    fn is_told(&self, agent: &AgentSpec) -> bool {
        let state = self.state();
        let memory = state.agents.get(&agent.row.id);
        let conditions = memory.and_then(|memory| memory.conditions.as_ref());
        conditions
            .unwrap_or(&agent.record.conditions)
            .get(ConditionType::Deleted)
            .is_some_and(|deleted| deleted.observed_generation == agent.generation)
    }
}

/// What has to go from a gateway: agents whose removal was requested, those of other gateways (`guests`) too, then, if they are to be removed, those that no row explains.
pub(super) fn removals(
    spec: &GatewaySpec,
    guests: &[(GatewayAgentId, AgentId)],
    traces: &Traces,
    prune: bool,
    refused: impl Fn(&GatewayAgentId) -> Refused,
) -> Vec<RemovalGoal> {
    let requested = spec
        .agents
        .iter()
        .flat_map(|agent| &agent.removes)
        .chain(
            guests
                .iter()
                .map(|(id, _)| id)
                .filter(|id| explained_by(spec, id).is_none()),
        )
        .map(|id| (id, REQUESTED));
    let unexplained = traces
        .leftovers
        .iter()
        .filter(|leftover| prune && leftover.id.looks_managed() && explained_by(spec, &leftover.id).is_none())
        .map(|leftover| (&leftover.id, UNEXPLAINED));
    let mut goals: Vec<RemovalGoal> = Vec::new();
    for (id, why) in requested.chain(unexplained) {
        if goals.iter().all(|goal| goal.id != *id) {
            goals.push(RemovalGoal {
                id: id.clone(),
                why,
                begun: traces.is_begun(id),
                refused: refused(id),
            });
        }
    }
    goals
}

/// The agent whose row asks for the removal of this id.
fn requested_by(spec: &GatewaySpec, id: &GatewayAgentId) -> Option<AgentId> {
    spec.agents
        .iter()
        .find(|agent| agent.removes.contains(id))
        .map(|agent| agent.row.id)
}

fn how_refused(error: &GatewayError) -> Refused {
    if error.message().contains("size-drop") {
        Refused::TooMuchAtOnce
    } else {
        Refused::Otherwise
    }
}

fn pending(refusal: Option<&Refusal>) -> AgentReport {
    let (reason, message) = match refusal {
        None => (
            "Deleting",
            "the agent's removal was requested; it is complete once the gateway was seen without the agent".to_owned(),
        ),
        Some(refusal) => (
            "DeleteRejected",
            format!(
                "the gateway refuses to remove the agent ({}); it is asked again when its config has changed",
                refusal.message
            ),
        ),
    };
    let mut report = AgentReport::default();
    report.set(
        ConditionType::Registered,
        ConditionStatus::False,
        reason,
        message.clone(),
    );
    report.set(ConditionType::Deleted, ConditionStatus::False, reason, message);
    report
}

fn deleted(agent: &AgentSpec) -> AgentReport {
    let message = if agent.removes.is_empty() {
        "another agent has its place on the gateway; nothing of this one is there"
    } else {
        "the gateway was seen without the agent"
    };
    let mut report = AgentReport::default();
    report.set(ConditionType::Registered, ConditionStatus::False, "Deleted", message);
    report.set(ConditionType::Deleted, ConditionStatus::True, "Deleted", message);
    report
}
/// Tells that the gateway removed an agent, but not all that was its.
fn files_left(gateway: GatewayId, id: &GatewayAgentId, removal: &Removal) -> Option<Event> {
    (!removal.left.is_empty()).then(|| Event {
        object: ObjectRef::Gateway(gateway),
        kind: EventKind::Warning,
        reason: "FilesLeft".into(),
        message: clip(&format!(
            "The gateway has removed {id}, but could not remove what was its ({}). Remove it by hand before the gateway is \
             restarted: it may not start while the database of the agent's sessions is left.",
            removal.left.join("; ")
        )),
    })
}
