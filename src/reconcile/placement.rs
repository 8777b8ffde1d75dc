//! Where agents are: adopted where they were found, registered before they are put somewhere.

use std::collections::HashSet;
use std::sync::Arc;

use super::gateway_status::GatewayFailure;
use super::memory::KnownPlace;
use super::spec::{AgentSpec, GatewaySpec};
use super::world::World;
use crate::gateway::Connector;
use crate::model::{ConfigChange, GatewayAgentId, GatewayId, GatewayPlan, ObservedConfig, Traces};
use crate::store::Store;

impl<S: Store, C: Connector> World<S, C> {
    /// Records which agents were on the gateway before us, so that they count as provisioned.
    pub(super) async fn record_adopted(
        &self,
        spec: &GatewaySpec,
        config: &ObservedConfig,
    ) -> Result<(), GatewayFailure> {
        let id = spec.id();
        let found: Vec<_> = self
            .unplaced(spec)
            .filter(|agent| config.entry(&agent.gateway_agent_id).is_some())
            .map(|agent| (agent.row.id, id, agent.gateway_agent_id.clone()))
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        self.store
            .record_adopted(&self.fence, &found, self.now())
            .await
            .map_err(GatewayFailure::Store)?;
        let mut state = self.state();
        for (agent, _, name) in found {
            let memory = state.agents.entry(agent).or_default();
            memory.placed = KnownPlace::At(id, name);
            memory.provisioned = Some(id);
        }
        Ok(())
    }

    /// The managed agents that have no place, as far as the database knows. One that has another than this one has moved since
    /// the look began, and is put in order before the next.
    fn unplaced<'a>(&'a self, spec: &'a GatewaySpec) -> impl Iterator<Item = &'a Arc<AgentSpec>> {
        spec.managed()
            .filter(move |agent| self.place_of(agent).is_none() && self.is_at_home(spec, agent))
    }

    fn is_placed(&self, spec: &GatewaySpec, agent: &AgentSpec) -> bool {
        let place = self.place_of(agent);
        place.is_some_and(|(gateway, id)| gateway == spec.id() && id == agent.gateway_agent_id)
    }

    /// Whether the database has the agent in another place: it has moved since the look began, or has yet to be put in order.
    pub(super) fn is_elsewhere(&self, spec: &GatewaySpec, agent: &AgentSpec) -> bool {
        self.place_of(agent).is_some() && !self.is_placed(spec, agent)
    }

    /// Where the database has an agent: on which gateway, and its id there.
    ///
    /// What was loaded with the spec in hand can be older than what is known by now: a look that began before the agent moved away
    /// and back would take its place of then for its place, and forget the one between.
    pub(super) fn place_of(&self, agent: &AgentSpec) -> Option<(GatewayId, GatewayAgentId)> {
        let id = agent.row.id;
        let known = self.state().agents.get(&id).map(|memory| memory.placed.clone());
        match known.unwrap_or_default() {
            KnownPlace::AsLoaded => match self.cache.agent(id) {
                Some((_, now)) => now.record.placement.clone(),
                None => agent.record.placement.clone(),
            },
            KnownPlace::Nowhere => None,
            KnownPlace::At(gateway, id) => Some((gateway, id)),
        }
    }

    /// Records, before they are put there, which agents a plan puts on the gateway: after a crash in between, an agent found in
    /// the roster is known to be ours. One that was removed before starts anew.
    pub(super) async fn register(
        &self,
        spec: &GatewaySpec,
        plan: &GatewayPlan,
        traces: &Traces,
    ) -> Result<(), GatewayFailure> {
        let added: HashSet<&GatewayAgentId> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.change {
                ConfigChange::AddAgent { id, .. } => Some(id),
                _ => None,
            })
            .chain(plan.creations.iter().map(|step| &step.id))
            .collect();
        let agents: Vec<_> = spec
            .managed()
            .filter(|agent| added.contains(&agent.gateway_agent_id))
            .collect();
        if agents.is_empty() {
            return Ok(());
        }
        if agents
            .iter()
            .any(|agent| !self.is_at_home(spec, agent) || self.is_elsewhere(spec, agent))
        {
            return Err(GatewayFailure::Outdated);
        }
        let anew: Vec<_> = agents
            .iter()
            .filter(|agent| traces.removed.contains_key(&agent.gateway_agent_id) && self.is_placed(spec, agent))
            .map(|agent| agent.row.id)
            .collect();
        if !anew.is_empty() {
            // Its removal was taken back before it was complete.
            self.store
                .forget_placement(&self.fence, &anew)
                .await
                .map_err(GatewayFailure::Store)?;
            for agent in anew {
                self.state().agents.entry(agent).or_default().leave();
            }
        }
        let intents: Vec<_> = agents
            .iter()
            .map(|agent| (agent.row.id, agent.gateway_agent_id.clone()))
            .collect();
        self.store
            .begin_registration(&self.fence, spec.id(), &intents)
            .await
            .map_err(GatewayFailure::Store)?;
        let mut state = self.state();
        for (agent, id) in intents {
            let memory = state.agents.entry(agent).or_default();
            memory.placed = KnownPlace::At(spec.id(), id);
            memory.registered_by_us = Some(spec.id());
        }
        Ok(())
    }
}
