//! Agents that are removed, and agents that are left where no row explains them.

use chrono::{DateTime, Utc};

use super::MemoryStore;
use super::state::{Remembered, State};
use crate::model::{AgentId, GatewayAgentId, GatewayId, Leftover, LeftoverReason, Traces, WakeRecord};
use crate::store::{Fence, StoreError};

/// Forgets where an agent is, and what it was woken for. Tells whether that changed anything.
pub(super) fn unplace(state: &mut State, agent: AgentId) -> bool {
    let Some(Remembered { record, .. }) = state.agent_records.get_mut(&agent) else {
        return false;
    };
    let before = record.clone();
    record.placement = None;
    record.registering_since = None;
    record.first_provisioned_at = None;
    record.wake = WakeRecord {
        woken_for: None,
        ..record.wake.checked_in()
    };
    *record != before
}

/// Remembers an agent as a leftover, if we put it where it is. Tells whether that changed anything.
pub(super) fn keep_leftover(state: &mut State, agent: AgentId, reason: LeftoverReason, now: DateTime<Utc>) -> bool {
    let record = state.agent_records.get(&agent).map(|remembered| &remembered.record);
    let Some((gateway, id)) = record
        .filter(|record| record.created_by_us())
        .and_then(|record| record.placement.clone())
    else {
        return false;
    };
    let key = (gateway, id.clone());
    if state.leftovers.contains_key(&key) {
        return false;
    }
    let leftover = Leftover {
        gateway,
        id,
        agent,
        since: now,
        reason,
    };
    state.leftovers.insert(key, leftover);
    true
}

/// Forgets an agent's tokens. Tells whether there were any.
pub(super) fn forget_tokens(state: &mut State, agent: AgentId) -> bool {
    let mut changed = state.verified.remove(&agent).is_some();
    changed |= state.candidates.remove(&agent).is_some();
    changed |= state.mismatches.remove(&agent).is_some();
    changed |= state.retired.remove(&agent).is_some();
    changed
}

impl MemoryStore {
    pub(super) fn left(&self, fence: &Fence, agents: &[(AgentId, LeftoverReason)]) -> Result<(), StoreError> {
        let now = self.database_now();
        self.write("leave_placement", fence, |state| {
            let mut changed = false;
            for (agent, reason) in agents {
                changed |= keep_leftover(state, *agent, *reason, now);
                changed |= unplace(state, *agent);
            }
            (changed, ())
        })
    }

    pub(super) fn load_traces(&self, gateway: GatewayId) -> Result<Traces, StoreError> {
        self.read(|state| {
            let here = |(home, _): &(&(GatewayId, GatewayAgentId), &bool)| home.0 == gateway;
            let mut leftovers: Vec<_> = state
                .leftovers
                .values()
                .filter(|leftover| leftover.gateway == gateway)
                .cloned()
                .collect();
            leftovers.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
            Traces {
                leftovers,
                removed: state
                    .removed
                    .iter()
                    .filter(here)
                    .map(|((_, id), done)| (id.clone(), *done))
                    .collect(),
            }
        })
    }

    pub(super) fn load_leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        self.read(|state| {
            let mut leftovers: Vec<_> = state.leftovers.values().cloned().collect();
            leftovers.sort_by(|a, b| (a.gateway, a.since, &a.id).cmp(&(b.gateway, b.since, &b.id)));
            leftovers
        })
    }

    pub(super) fn begun(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(GatewayAgentId, Option<AgentId>)],
    ) -> Result<Vec<GatewayAgentId>, StoreError> {
        self.write("begin_removal", fence, |state| {
            let mut changed = false;
            let mut wanted = Vec::new();
            for (id, agent) in agents {
                let key = (gateway, id.clone());
                let is_wanted = match agent {
                    Some(agent) => state
                        .agents
                        .get(agent)
                        .is_some_and(|row| row.delete_requested_at.is_some()),
                    None => state.leftovers.contains_key(&key),
                };
                if is_wanted {
                    changed |= state.removed.insert(key, false) != Some(false);
                    wanted.push(id.clone());
                }
            }
            (changed, wanted)
        })
    }

    pub(super) fn finished(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        self.write("finish_removal", fence, |state| {
            let mut changed = false;
            for id in agents {
                if let Some(done) = state.removed.get_mut(&(gateway, id.clone())) {
                    changed |= !*done;
                    *done = true;
                }
            }
            (changed, ())
        })
    }

    pub(super) fn deleted(&self, fence: &Fence, agent: AgentId, gateway: GatewayId) -> Result<bool, StoreError> {
        self.write("complete_removal", fence, |state| {
            let Some(row) = state.agents.get_mut(&agent) else {
                return (false, false);
            };
            if row.delete_requested_at.is_none() {
                return (false, false);
            }
            let mut changed = row.token_hash.take().is_some();
            if row.status != "deleting" {
                "deleting".clone_into(&mut row.status);
                changed = true;
            }
            if let Some(columns) = state.wake_columns.get_mut(&agent) {
                changed |= columns.checkin_deadline_at.take().is_some();
            }
            changed |= forget_tokens(state, agent);
            let elsewhere = state
                .agent_records
                .get(&agent)
                .and_then(|remembered| remembered.record.placement.as_ref())
                .is_some_and(|(placed, _)| *placed != gateway);
            if !elsewhere {
                changed |= unplace(state, agent);
            }
            (changed, true)
        })
    }

    pub(super) fn drop_traces(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        leftovers: &[GatewayAgentId],
        removed: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        self.write("forget_traces", fence, |state| {
            let mut changed = false;
            for id in leftovers {
                changed |= state.leftovers.remove(&(gateway, id.clone())).is_some();
            }
            for id in removed {
                changed |= state.removed.remove(&(gateway, id.clone())).is_some();
            }
            (changed, ())
        })
    }
}
