//! What the database was last seen to say, kept in memory: reconcilers read specs from here and never wait for SQL.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::spec::{AgentSpec, GatewaySpec};
use crate::model::{AgentId, GatewayId};

/// The last seen specs.
#[derive(Default)]
pub(super) struct Cache(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    gateways: HashMap<GatewayId, Arc<GatewaySpec>>,
    /// Where each agent stands. An agent stands on one gateway at a time: the one that was loaded last with it.
    agents: HashMap<AgentId, (GatewayId, Arc<AgentSpec>)>,
}

impl Cache {
    /// The gateway's spec.
    pub(super) fn gateway(&self, id: GatewayId) -> Option<Arc<GatewaySpec>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .gateways
            .get(&id)
            .cloned()
    }

    /// The agent's spec and its gateway's.
    pub(super) fn agent(&self, id: AgentId) -> Option<(Arc<GatewaySpec>, Arc<AgentSpec>)> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (gateway, agent) = inner.agents.get(&id)?;
        Some((Arc::clone(inner.gateways.get(gateway)?), Arc::clone(agent)))
    }

    /// All gateways.
    pub(super) fn gateways(&self) -> Vec<Arc<GatewaySpec>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .gateways
            .values()
            .cloned()
            .collect()
    }

    /// Puts a gateway's new spec in the place of the last one, which is returned.
    pub(super) fn insert(&self, spec: Arc<GatewaySpec>) -> Option<Arc<GatewaySpec>> {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let id = spec.id();
        let old = inner.remove(id);
        for agent in &spec.agents {
            inner.agents.insert(agent.row.id, (id, Arc::clone(agent)));
        }
        inner.gateways.insert(id, spec);
        old
    }

    /// Forgets a gateway and its agents.
    pub(super) fn remove(&self, id: GatewayId) -> Option<Arc<GatewaySpec>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}

impl Inner {
    fn remove(&mut self, id: GatewayId) -> Option<Arc<GatewaySpec>> {
        let old = self.gateways.remove(&id)?;
        for agent in &old.agents {
            // One that was loaded with another gateway since stays there.
            if self.agents.get(&agent.row.id).is_some_and(|(home, _)| *home == id) {
                self.agents.remove(&agent.row.id);
            }
        }
        Some(old)
    }
}
