//! Agents that have to go: those whose removal was requested, and those that we left where no row explains them any more.
//!
//! A removal is complete when the gateway was seen without the agent, never because a call was answered. It is written down
//! before the gateway is asked, so that one whose end is unknown is asked for again: newer gateways take the agent out of their
//! config first and its files away after that.

use std::time::Duration;

use chrono::TimeDelta;

use super::session::Session;
use super::spec::{AgentSpec, Excluded, GatewaySpec};
use super::status::{AgentReport, GatewayFailure, clip};
use super::world::World;
use crate::gateway::{Connector, ErrorClass, GatewayError};
use crate::model::{
    AgentId, ConditionStatus, ConditionType, Event, EventKind, GatewayAgentId, GatewayId, GatewayPlan, Leftover,
    LeftoverReason, ObjectRef, ObservedConfig, Traces,
};
use crate::plan::{GatewayGoal, Refused, RemovalGoal};
use crate::runtime::{Action, Context, DriftKind, Priority, ReconcileError};
use crate::store::{Store, StoreError};

/// How long a leftover that is not on its gateway is remembered: longer than a write that was under way when it was left can
/// take to arrive.
const LEFTOVER_MEMORY: TimeDelta = TimeDelta::minutes(2);

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
    message: String,
}

/// What a look at a gateway found of agents that no row explains.
#[derive(Debug, Default)]
pub(super) struct Unexplained {
    /// Those that are on it.
    pub(super) there: Vec<Leftover>,
    /// Why some of them cannot be removed.
    pub(super) refused: Vec<String>,
    /// When to look again.
    pub(super) look_again: Option<Duration>,
}

impl<S: Store, C: Connector> World<S, C> {
    /// Puts our own records in order before a gateway is looked at: agents whose rows say another place than the one where they
    /// were last known, and agents that have no row any more. What we had put somewhere is remembered as left there.
    pub(super) async fn tidy(&self, spec: &GatewaySpec) -> Result<(), GatewayFailure> {
        let strays: Vec<_> = spec.agents.iter().filter_map(|agent| self.stray(spec, agent)).collect();
        if !strays.is_empty() {
            let events: Vec<_> = strays.iter().map(|stray| stray.event(spec.id())).collect();
            let agents: Vec<_> = strays.iter().map(|stray| (stray.agent, stray.reason)).collect();
            // An event that is told twice only counts; one that is never told would be missed.
            self.store
                .record_events(&self.fence, &events)
                .await
                .map_err(GatewayFailure::Store)?;
            self.store
                .leave_placement(&self.fence, &agents)
                .await
                .map_err(GatewayFailure::Store)?;
            for stray in &strays {
                self.state().agents.entry(stray.agent).or_default().leave();
                self.forget_known_traces(stray.place.0);
                if stray.place.0 != spec.id() {
                    self.gateway_queue.add(stray.place.0, Priority::Change);
                }
            }
        }
        if spec.vanished.is_empty() || self.state().tidied.get(&spec.id()) == Some(&spec.revision) {
            return Ok(());
        }
        let events: Vec<_> = spec
            .vanished
            .iter()
            .filter(|(_, record)| record.created_by_us())
            .filter_map(|(agent, record)| {
                let (gateway, id) = record.placement.clone()?;
                Some(row_deleted(*agent, &id, gateway))
            })
            .collect();
        if !events.is_empty() {
            self.store
                .record_events(&self.fence, &events)
                .await
                .map_err(GatewayFailure::Store)?;
        }
        let gone: Vec<_> = spec
            .vanished
            .iter()
            .map(|(agent, _)| ObjectRef::Agent(*agent))
            .collect();
        self.store
            .forget(&self.fence, &gone)
            .await
            .map_err(GatewayFailure::Store)?;
        self.forget_known_traces(spec.id());
        self.state().tidied.insert(spec.id(), spec.revision);
        Ok(())
    }

    /// Where an agent was last known, if its row says another place. An agent that is to be removed keeps its place on its own
    /// gateway: it goes from there.
    fn stray(&self, spec: &GatewaySpec, agent: &AgentSpec) -> Option<Stray> {
        let known = self
            .state()
            .agents
            .get(&agent.row.id)
            .and_then(|memory| memory.placed.clone());
        let place = known.unwrap_or_else(|| agent.record.placement.clone())?;
        let here = place.0 == spec.id();
        if here && (place.1 == agent.gateway_agent_id || agent.excluded == Some(Excluded::Deleting)) {
            return None;
        }
        Some(Stray {
            agent: agent.row.id,
            reason: if here {
                LeftoverReason::IdChanged
            } else {
                LeftoverReason::Moved
            },
            place,
        })
    }

    /// What is known of a gateway's agents beyond its rows. Nobody else writes it, so it is asked for once.
    pub(super) async fn known_traces(&self, gateway: GatewayId) -> Result<Traces, GatewayFailure> {
        let epoch = {
            let state = self.state();
            if let Some(traces) = state.traces.get(&gateway) {
                return Ok(traces.clone());
            }
            state.traces_epoch
        };
        let traces = self.store.traces(gateway).await.map_err(GatewayFailure::Store)?;
        let mut state = self.state();
        if state.traces_epoch == epoch {
            state.traces.insert(gateway, traces.clone());
        }
        Ok(traces)
    }

    fn forget_known_traces(&self, gateway: GatewayId) {
        let mut state = self.state();
        state.traces.remove(&gateway);
        state.traces_epoch += 1;
    }

    /// Adds to a gateway's goal what has to go from it.
    pub(super) async fn add_removals(
        &self,
        spec: &GatewaySpec,
        config: &ObservedConfig,
        goal: &mut GatewayGoal,
    ) -> Result<(), GatewayFailure> {
        let traces = self.known_traces(spec.id()).await?;
        let refused = |id: &GatewayAgentId| {
            self.refusal(spec.id(), id, config)
                .map_or(Refused::No, |refusal| refusal.how)
        };
        goal.removals = removals(spec, &traces, self.settings.prune, refused);
        goal.removed = traces.removed.into_keys().collect();
        Ok(())
    }

    /// How the gateway refused to remove this agent, if its config is still the same.
    fn refusal(&self, gateway: GatewayId, id: &GatewayAgentId, config: &ObservedConfig) -> Option<Refusal> {
        let state = self.state();
        let refusal = state.refused_removals.get(&(gateway, id.clone()))?;
        (refusal.hash == config.hash).then(|| refusal.clone())
    }

    /// Forgets what a gateway refused: over a new connection it is asked again.
    pub(super) fn forget_refusals(&self, gateway: GatewayId) {
        self.state().refused_removals.retain(|(of, _), _| *of != gateway);
    }

    /// Has the gateway make the agents that it would not take back by a patch.
    pub(super) async fn create(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        plan: &GatewayPlan,
    ) -> Result<(), GatewayFailure> {
        for step in &plan.creations {
            tracing::info!(gateway = %spec.id(), agent = %step.id, why = step.why, "having the gateway make an agent");
            match session.client.agents_create(&step.id, &step.workspace).await {
                Ok(id) if id == step.id => {}
                Ok(id) => {
                    let message = format!("the gateway was asked to make {} and made {id}", step.id);
                    return Err(GatewayFailure::NotKept(message));
                }
                Err(error) => return Err(self.config_failure(spec, error)),
            }
        }
        Ok(())
    }

    /// Carries out the removals of a plan, one by one. One that is refused is remembered, and holds up none of the others.
    pub(super) async fn remove(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        config: &ObservedConfig,
        plan: &GatewayPlan,
        cx: &Context,
    ) -> Result<(), GatewayFailure> {
        let gateway = spec.id();
        let wanted: Vec<_> = plan
            .removals
            .iter()
            .map(|step| (step.id.clone(), requested_by(spec, &step.id)))
            .collect();
        self.metrics.drift_detected(DriftKind::Leftover, wanted.len() as u64);
        let begun = self
            .store
            .begin_removal(&self.fence, gateway, &wanted)
            .await
            .map_err(GatewayFailure::Store)?;
        self.forget_known_traces(gateway);
        let (mut finished, mut failure) = (Vec::new(), None);
        for id in begun {
            tracing::info!(%gateway, agent = %id, "removing an agent");
            let answer = tokio::select! {
                answer = session.client.agents_delete(&id) => answer,
                () = cx.cancel.cancelled() => return Err(GatewayFailure::Cancelled),
            };
            match answer {
                // Not found: somebody was faster.
                Ok(_) => finished.push(id),
                Err(error) if matches!(error.class(), ErrorClass::Invalid | ErrorClass::Other) => {
                    tracing::warn!(%gateway, agent = %id, %error, "the gateway refuses to remove an agent");
                    let refusal = Refusal {
                        hash: config.hash.clone(),
                        how: how_refused(&error),
                        message: clip(&error.to_string()),
                    };
                    self.state().refused_removals.insert((gateway, id), refusal);
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
        if !finished.is_empty() {
            self.metrics.drift_corrected(DriftKind::Leftover, finished.len() as u64);
            self.store
                .finish_removal(&self.fence, gateway, &finished)
                .await
                .map_err(GatewayFailure::Store)?;
            self.forget_known_traces(gateway);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Puts in order what is known of a gateway beyond its rows, now that its config was seen: leftovers that a row explains again
    /// are that row's, and what is gone is forgotten. Returns what is left.
    pub(super) async fn settle_traces(
        &self,
        spec: &GatewaySpec,
        config: &ObservedConfig,
    ) -> Result<Unexplained, GatewayFailure> {
        let traces = self.known_traces(spec.id()).await?;
        let mut found = Unexplained::default();
        let (mut forgotten, mut adopted) = (Vec::new(), Vec::new());
        for leftover in &traces.leftovers {
            let there = config.entry(&leftover.id).is_some();
            // A row that has moved on since these were loaded explains nothing: another gateway's look has just said so.
            let explaining = explained_by(spec, &leftover.id).filter(|agent| self.is_at_home(spec, agent));
            if let Some(agent) = explaining {
                if there && agent.excluded != Some(Excluded::Deleting) {
                    adopted.push((agent.row.id, leftover.id.clone()));
                }
                forgotten.push(leftover.id.clone());
            } else if there || traces.is_begun(&leftover.id) {
                if let Some(refusal) = self.refusal(spec.id(), &leftover.id, config) {
                    found.refused.push(format!("{}: {}", leftover.id, refusal.message));
                }
                found.there.push(leftover.clone());
            } else {
                let left = LEFTOVER_MEMORY - (self.now() - leftover.since);
                match left.to_std() {
                    Ok(left) if !left.is_zero() && !traces.removed.contains_key(&leftover.id) => {
                        found.look_again = found.look_again.into_iter().chain([left]).min();
                    }
                    _ => forgotten.push(leftover.id.clone()),
                }
            }
        }
        if !adopted.is_empty() {
            // We made it, whoever's it was: it must not be left behind the next time.
            self.store
                .begin_registration(&self.fence, spec.id(), &adopted)
                .await
                .map_err(GatewayFailure::Store)?;
            for (agent, id) in adopted {
                let mut state = self.state();
                let memory = state.agents.entry(agent).or_default();
                memory.placed = Some(Some((spec.id(), id)));
                memory.registered_by_us = Some(spec.id());
            }
        }
        // An agent that was removed and is back is like any other.
        let back: Vec<_> = traces
            .removed
            .iter()
            .filter(|(id, done)| {
                **done && config.entry(id).is_some() && spec.managed().any(|agent| agent.gateway_agent_id == **id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        if !forgotten.is_empty() || !back.is_empty() {
            self.store
                .forget_traces(&self.fence, spec.id(), &forgotten, &back)
                .await
                .map_err(GatewayFailure::Store)?;
            self.forget_known_traces(spec.id());
        }
        Ok(found)
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
        let complete = gone == Some(true);
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
                .find_map(|name| refusals.get(&(gateway.id(), name.clone())));
            pending(refusal)
        };
        self.report_agent(agent, report).await?;
        Ok(Action::Done)
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// Leaves an agent's place on its gateway to the row that claims it now: that we made what is there must not be forgotten.
    async fn pass_on(&self, gateway: &GatewaySpec, agent: &AgentSpec) -> Result<(), StoreError> {
        let id = agent.row.id;
        let known = self.state().agents.get(&id).and_then(|memory| memory.placed.clone());
        let place = known.unwrap_or_else(|| agent.record.placement.clone());
        if place.is_some_and(|(placed, name)| placed == gateway.id() && !agent.removes.contains(&name)) {
            self.store
                .leave_placement(&self.fence, &[(id, LeftoverReason::RowDeleted)])
                .await?;
            self.forget_known_traces(gateway.id());
            self.gateway_queue.add(gateway.id(), Priority::Change);
        }
        Ok(())
    }
}

impl<S, C> World<S, C> {
    /// Whether the rows as they were last loaded, of whichever gateway, still give this one the agent.
    fn is_at_home(&self, spec: &GatewaySpec, agent: &AgentSpec) -> bool {
        let home = self.cache.agent(agent.row.id);
        home.is_some_and(|(gateway, _)| gateway.id() == spec.id())
    }

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

/// An agent whose row says another place than the one where it was last known.
struct Stray {
    agent: AgentId,
    place: (GatewayId, GatewayAgentId),
    reason: LeftoverReason,
}

impl Stray {
    fn event(&self, now: GatewayId) -> Event {
        let (gateway, id) = &self.place;
        let message = match self.reason {
            LeftoverReason::IdChanged => format!(
                "The agent has another id on gateway {gateway} now; {id} stays there and is no longer managed. With --prune \
                 it is removed, if this controller made it."
            ),
            _ => format!(
                "The agent moved to gateway {now}; {id} stays on gateway {gateway} and is no longer managed there. With \
                 --prune it is removed, if this controller made it."
            ),
        };
        Event {
            object: ObjectRef::Agent(self.agent),
            kind: EventKind::Warning,
            reason: self.reason.as_str().into(),
            message,
        }
    }
}

fn row_deleted(agent: AgentId, id: &GatewayAgentId, gateway: GatewayId) -> Event {
    Event {
        object: ObjectRef::Agent(agent),
        kind: EventKind::Warning,
        reason: LeftoverReason::RowDeleted.as_str().into(),
        message: format!(
            "The agent's row is gone; {id}, which this controller made, stays on gateway {gateway}. With --prune it is \
             removed. Set delete_requested_at and await the condition Deleted before deleting a row."
        ),
    }
}

/// What has to go from a gateway: agents whose removal was requested, then, if they are to be removed, those that no row explains.
pub(super) fn removals(
    spec: &GatewaySpec,
    traces: &Traces,
    prune: bool,
    refused: impl Fn(&GatewayAgentId) -> Refused,
) -> Vec<RemovalGoal> {
    let requested = spec
        .agents
        .iter()
        .flat_map(|agent| &agent.removes)
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

/// The agents that will be left on gateways as soon as a controller looks at this one: by gateway and id.
pub(super) fn about_to_be_left(spec: &GatewaySpec) -> Vec<(GatewayId, GatewayAgentId)> {
    let strays = spec.agents.iter().filter(|agent| {
        let deleting = agent.excluded == Some(Excluded::Deleting);
        let here = agent
            .record
            .placement
            .as_ref()
            .is_some_and(|(placed, _)| *placed == spec.id());
        !agent.is_placed_on(spec.id()) && !(deleting && here)
    });
    let records = strays
        .map(|agent| &agent.record)
        .chain(spec.vanished.iter().map(|(_, record)| record));
    records
        .filter(|record| record.created_by_us())
        .filter_map(|record| record.placement.clone())
        .collect()
}

/// The agent whose row gives it this id; the one that is managed, if there are several.
fn explained_by<'a>(spec: &'a GatewaySpec, id: &GatewayAgentId) -> Option<&'a AgentSpec> {
    let mut agents: Vec<_> = spec
        .agents
        .iter()
        .filter(|agent| agent.gateway_agent_id == *id)
        .collect();
    agents.sort_by_key(|agent| (agent.excluded.is_some(), agent.excluded == Some(Excluded::Deleting)));
    agents.first().map(|agent| &***agent)
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
