//! Agents of our making that no row explains any more: found, written down, told of, and forgotten once they are gone.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::gateway_status::GatewayFailure;
use super::memory::KnownPlace;
use super::spec::{AgentSpec, Excluded, GatewaySpec};
use super::world::World;
use crate::gateway::Connector;
use crate::model::{
    AgentId, Event, EventKind, GatewayAgentId, GatewayId, Leftover, LeftoverReason, ObjectRef, ObservedConfig, Traces,
};
use crate::runtime::Priority;
use crate::store::{Store, StoreError};

/// How long a leftover that is not on its gateway is remembered: longer than a write that was under way when it was left can
/// take to arrive.
const LEFTOVER_MEMORY: TimeDelta = TimeDelta::minutes(2);

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
            let changed = strays.iter().map(|stray| stray.place.0);
            let _changing = self.changing_traces(changed.collect(), Some(spec.id()));
            let left = self.store.leave_placement(&self.fence, &agents).await;
            for stray in &strays {
                let mut state = self.state();
                let memory = state.agents.entry(stray.agent).or_default();
                memory.leave();
                if left.is_err() {
                    // It may be there yet, as far as we know.
                    memory.placed = KnownPlace::AsLoaded;
                }
            }
            left.map_err(GatewayFailure::Store)?;
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
        let _changing = self.changing_traces(vec![spec.id()], Some(spec.id()));
        // What was undone of theirs is forgotten with them.
        let _history = self.changing_history(spec.id());
        self.store
            .forget(&self.fence, &gone)
            .await
            .map_err(GatewayFailure::Store)?;
        self.state().tidied.insert(spec.id(), spec.revision);
        Ok(())
    }

    /// Where an agent was last known, if its row says another place. An agent that is to be removed keeps its place on its own
    /// gateway: it goes from there.
    fn stray(&self, spec: &GatewaySpec, agent: &AgentSpec) -> Option<Stray> {
        let place = self.place_of(agent).filter(|_| self.is_at_home(spec, agent))?;
        let here = place.0 == spec.id();
        if !here && self.goes_from(agent, place.0) {
            // Its place stays known until it was seen to be gone from there.
            self.gateway_queue.add(place.0, Priority::Change);
            return None;
        }
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

    /// To be held while the database is told something about the traces of these gateways: however that ends, they are asked for
    /// anew, and gateways other than the one that is being looked at (`here`) are looked at.
    pub(super) fn changing_traces(
        &self,
        gateways: Vec<GatewayId>,
        here: Option<GatewayId>,
    ) -> ChangingTraces<'_, S, C> {
        ChangingTraces {
            world: self,
            gateways,
            here,
        }
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
            let explaining = explained_by(spec, &leftover.id)
                .filter(|agent| self.is_at_home(spec, agent) && !self.is_elsewhere(spec, agent));
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
                memory.placed = KnownPlace::At(spec.id(), id);
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
        self.forget_gone_guests(spec, config, &traces).await?;
        if !forgotten.is_empty() || !back.is_empty() {
            let _changing = self.changing_traces(vec![spec.id()], Some(spec.id()));
            self.store
                .forget_traces(&self.fence, spec.id(), &forgotten, &back)
                .await
                .map_err(GatewayFailure::Store)?;
        }
        Ok(found)
    }

    /// Forgets the place of agents of other gateways that were to go from this one, now that they are not on it.
    async fn forget_gone_guests(
        &self,
        spec: &GatewaySpec,
        config: &ObservedConfig,
        traces: &Traces,
    ) -> Result<(), GatewayFailure> {
        let gone: Vec<_> = self
            .going_guests(spec)
            .into_iter()
            .filter(|(id, _)| config.entry(id).is_none() && !traces.is_begun(id))
            .map(|(_, agent)| agent)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.store
            .forget_placement(&self.fence, &gone)
            .await
            .map_err(GatewayFailure::Store)?;
        for agent in gone {
            self.state().agents.entry(agent).or_default().leave();
            self.agent_queue.add(agent, Priority::Change);
        }
        Ok(())
    }

    /// Leaves an agent's place on its gateway to the row that claims it now: that we made what is there must not be forgotten.
    pub(super) async fn pass_on(&self, gateway: &GatewaySpec, agent: &AgentSpec) -> Result<(), StoreError> {
        let id = agent.row.id;
        if self
            .place_of(agent)
            .is_some_and(|(placed, name)| placed == gateway.id() && !agent.removes.contains(&name))
        {
            let _changing = self.changing_traces(vec![gateway.id()], None);
            self.store
                .leave_placement(&self.fence, &[(id, LeftoverReason::RowDeleted)])
                .await?;
        }
        Ok(())
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// Whether an agent whose removal was requested has to go from a gateway other than its own: it was moved, and nothing was
    /// done about that before. A process for one gateway does not know, and leaves it to one that does.
    pub(super) fn goes_from(&self, agent: &AgentSpec, gateway: GatewayId) -> bool {
        agent.excluded == Some(Excluded::Deleting) && (self.only.is_some() || self.cache.gateway(gateway).is_some())
    }

    /// Agents of other gateways that have to go from this one, by the id that they have on it: their removal was requested, and
    /// this is where they were last known. None that a row explains here.
    pub(super) fn going_guests(&self, spec: &GatewaySpec) -> Vec<(GatewayAgentId, AgentId)> {
        let mut guests = Vec::new();
        for other in self.cache.gateways() {
            if other.id() == spec.id() {
                continue;
            }
            let deleting = other
                .agents
                .iter()
                .filter(|agent| agent.excluded == Some(Excluded::Deleting) && self.is_at_home(&other, agent));
            for agent in deleting {
                if let Some((gateway, id)) = self.place_of(agent)
                    && gateway == spec.id()
                {
                    guests.push((id, agent.row.id));
                }
            }
        }
        guests
    }

    /// Whether the rows as they were last loaded, of whichever gateway, still give this one the agent: a look that began before
    /// an agent moved must not write down that it is here.
    pub(super) fn is_at_home(&self, spec: &GatewaySpec, agent: &AgentSpec) -> bool {
        let home = self.cache.agent(agent.row.id);
        home.is_some_and(|(gateway, _)| gateway.id() == spec.id())
    }
}

/// See [`World::changing_traces`].
pub(super) struct ChangingTraces<'a, S, C> {
    world: &'a World<S, C>,
    gateways: Vec<GatewayId>,
    here: Option<GatewayId>,
}

impl<S, C> Drop for ChangingTraces<'_, S, C> {
    fn drop(&mut self) {
        {
            let mut state = self.world.state();
            // It is rare: no need to tell which are still true.
            state.traces.clear();
            state.traces_epoch += 1;
        }
        for gateway in &self.gateways {
            if self.here != Some(*gateway) {
                self.world.gateway_queue.add(*gateway, Priority::Change);
            }
        }
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

/// What a controller will write down of agents that are left on gateways, as soon as it looks at this one.
pub(super) fn about_to_be_left(spec: &GatewaySpec, now: DateTime<Utc>) -> Vec<Leftover> {
    let strays = spec.agents.iter().filter_map(|agent| {
        let (placed, _) = agent.record.placement.as_ref()?;
        let here = *placed == spec.id();
        if agent.is_placed_on(spec.id()) || (here && agent.excluded == Some(Excluded::Deleting)) {
            return None;
        }
        let reason = if here {
            LeftoverReason::IdChanged
        } else {
            LeftoverReason::Moved
        };
        Some((agent.row.id, &agent.record, reason))
    });
    let vanished = spec.vanished.iter();
    strays
        .chain(vanished.map(|(agent, record)| (*agent, record, LeftoverReason::RowDeleted)))
        .filter(|(_, record, _)| record.created_by_us())
        .filter_map(|(agent, record, reason)| {
            let (gateway, id) = record.placement.clone()?;
            Some(Leftover {
                gateway,
                id,
                agent,
                since: now,
                reason,
            })
        })
        .collect()
}

/// The agent whose row gives it this id; the one that is managed, if there are several.
pub(super) fn explained_by<'a>(spec: &'a GatewaySpec, id: &GatewayAgentId) -> Option<&'a AgentSpec> {
    let mut agents: Vec<_> = spec
        .agents
        .iter()
        .filter(|agent| agent.gateway_agent_id == *id)
        .collect();
    agents.sort_by_key(|agent| (agent.excluded.is_some(), agent.excluded == Some(Excluded::Deleting)));
    agents.first().map(|agent| &***agent)
}
