//! The trait.

use chrono::{DateTime, SubsecRound, Utc};

use super::history::{forget_fights, forget_history};
use super::removals::{forget_tokens, keep_leftover, unplace};
use super::state::{Remembered, State};
use super::{MemoryStore, later};
use crate::model::{
    AgentId, CausedRestart, Conditions, Event, GatewayAgentId, GatewayHistory, GatewayId, GatewayRecord,
    GatewaySnapshot, Leftover, LeftoverReason, NewLead, ObjectRef, Traces, Undoing, WakeRecord, WakeState,
};
use crate::store::record::{earlier_by_a_lifetime, storable, storable_conditions};
use crate::store::{
    AgentStatusWrite, Candidate, Fence, GatewayStatusWrite, LeadCreation, Placement, ROTATION_GRACE, RecordedEvent,
    Store, StoreError, TokenState, VerifiedPair,
};

/// Sets a value, and tells whether that changed anything.
fn set<T: PartialEq>(target: &mut T, value: T) -> bool {
    let changed = *target != value;
    *target = value;
    changed
}

impl MemoryStore {
    fn settle(
        &self,
        name: &'static str,
        fence: &Fence,
        agents: &[Placement],
        registering: Option<DateTime<Utc>>,
        provisioned: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        self.write(name, fence, |state| {
            let mut changed = false;
            for (agent, gateway, id) in agents {
                let record = &mut state.agent_records.entry(*agent).or_default().record;
                changed |= record.placement.is_none()
                    || (registering.is_some() && record.registering_since.is_none())
                    || (provisioned.is_some() && record.first_provisioned_at.is_none());
                record.placement.get_or_insert_with(|| (*gateway, id.clone()));
                record.registering_since = record.registering_since.or(registering);
                record.first_provisioned_at = record.first_provisioned_at.or(provisioned);
            }
            (changed, ())
        })
    }

    /// Our clock with the database's precision.
    pub(super) fn database_now(&self) -> DateTime<Utc> {
        self.now().trunc_subsecs(6)
    }
}

fn count_generation(state: &mut State, object: ObjectRef, home: GatewayId, digest: &str) -> (bool, Option<i64>) {
    let digest = Some(digest.to_owned());
    match object {
        ObjectRef::Gateway(id) => {
            let record = state.gateway_records.entry(id).or_default();
            let new = set(&mut record.spec_digest, digest);
            record.generation += i64::from(new);
            (new, new.then_some(record.generation))
        }
        ObjectRef::Agent(id) => {
            let Remembered { record, home: last } = state.agent_records.entry(id).or_default();
            let new = set(&mut record.spec_digest, digest);
            record.generation += i64::from(new);
            let moved = set(last, Some(home));
            (new || moved, new.then_some(record.generation))
        }
    }
}

/// Records an event, or counts it.
pub(super) fn record_event(state: &mut State, event: &Event, now: DateTime<Utc>) {
    let event = Event {
        reason: storable(&event.reason).into_owned(),
        message: storable(&event.message).into_owned(),
        ..event.clone()
    };
    let known = state.events.iter().position(|(_, recorded)| recorded.event == event);
    let recorded = if let Some((id, recorded)) = known.map(|i| state.events.remove(i)) {
        let again = RecordedEvent {
            count: recorded.count + 1,
            last_seen: now,
            ..recorded
        };
        (id, again)
    } else {
        state.events_ever += 1;
        let first = RecordedEvent {
            event,
            count: 1,
            first_seen: now,
            last_seen: now,
        };
        (state.events_ever, first)
    };
    state.events.push(recorded);
}

impl Store for MemoryStore {
    async fn list_gateways(&self) -> Result<Vec<GatewayId>, StoreError> {
        self.read(|state| state.gateways.keys().copied().collect())
    }

    async fn load_gateway(&self, id: GatewayId) -> Result<Option<GatewaySnapshot>, StoreError> {
        self.read(|state| state.gateways.get(&id).map(|gateway| state.snapshot(gateway)))
    }

    async fn reload_gateway(&self, id: GatewayId) -> Result<Option<GatewaySnapshot>, StoreError> {
        let mut found = self.load_gateway(id).await?;
        for record in found.iter_mut().flat_map(|found| found.agent_records.values_mut()) {
            record.conditions = Conditions::default();
        }
        Ok(found)
    }

    async fn load_fleet(&self) -> Result<Vec<GatewaySnapshot>, StoreError> {
        self.read(|state| state.gateways.values().map(|gateway| state.snapshot(gateway)).collect())
    }

    async fn is_existing_installation(&self) -> Result<bool, StoreError> {
        self.read(|state| state.existing_installation)
    }

    async fn record_generations(
        &self,
        fence: &Fence,
        digests: &[(ObjectRef, GatewayId, String)],
    ) -> Result<Vec<(ObjectRef, i64)>, StoreError> {
        self.write("record_generations", fence, |state| {
            let mut changed = false;
            let mut counted = Vec::new();
            for (object, home, digest) in digests {
                let (wrote, generation) = count_generation(state, *object, *home, digest);
                changed |= wrote;
                counted.extend(generation.map(|generation| (*object, generation)));
            }
            (changed, counted)
        })
    }

    async fn begin_registration(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(AgentId, GatewayAgentId)],
    ) -> Result<(), StoreError> {
        let placements: Vec<Placement> = agents.iter().map(|(agent, id)| (*agent, gateway, id.clone())).collect();
        let now = self.database_now();
        self.settle("begin_registration", fence, &placements, Some(now), None)
    }

    async fn record_adopted(&self, fence: &Fence, agents: &[Placement], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.settle("record_adopted", fence, agents, None, Some(now.trunc_subsecs(6)))
    }

    async fn record_first_provisioned(
        &self,
        fence: &Fence,
        agents: &[Placement],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let now = now.trunc_subsecs(6);
        self.write("record_first_provisioned", fence, |state| {
            let mut changed = false;
            for (agent, gateway, id) in agents {
                if let Some(Remembered { record, .. }) = state.agent_records.get_mut(agent)
                    && record.placement.as_ref() == Some(&(*gateway, id.clone()))
                    && record.first_provisioned_at.is_none()
                {
                    record.first_provisioned_at = Some(now);
                    changed = true;
                }
            }
            (changed, ())
        })
    }

    async fn forget_placement(&self, fence: &Fence, agents: &[AgentId]) -> Result<(), StoreError> {
        self.write("forget_placement", fence, |state| {
            let changed = agents.iter().filter(|agent| unplace(state, **agent)).count() > 0;
            (changed, ())
        })
    }

    async fn forget(&self, fence: &Fence, objects: &[ObjectRef]) -> Result<(), StoreError> {
        let now = self.database_now();
        self.write("forget", fence, |state| {
            let mut changed = false;
            for object in objects {
                match object {
                    ObjectRef::Gateway(id) if !state.gateways.contains_key(id) => {
                        changed |= state.gateway_records.remove(id).is_some();
                        changed |= forget_history(state, *id);
                    }
                    ObjectRef::Agent(id) if !state.agents.contains_key(id) => {
                        changed |= keep_leftover(state, *id, LeftoverReason::RowDeleted, now);
                        changed |= state.agent_records.remove(id).is_some();
                        changed |= forget_tokens(state, *id);
                        changed |= forget_fights(state, *id);
                    }
                    _ => {}
                }
            }
            (changed, ())
        })
    }

    async fn leave_placement(&self, fence: &Fence, agents: &[(AgentId, LeftoverReason)]) -> Result<(), StoreError> {
        self.left(fence, agents)
    }

    async fn traces(&self, gateway: GatewayId) -> Result<Traces, StoreError> {
        self.load_traces(gateway)
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        self.load_leftovers()
    }

    async fn begin_removal(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(GatewayAgentId, Option<AgentId>)],
    ) -> Result<Vec<GatewayAgentId>, StoreError> {
        self.begun(fence, gateway, agents)
    }

    async fn finish_removal(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        self.finished(fence, gateway, agents)
    }

    async fn complete_removal(&self, fence: &Fence, agent: AgentId, gateway: GatewayId) -> Result<bool, StoreError> {
        self.deleted(fence, agent, gateway)
    }

    async fn forget_traces(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        leftovers: &[GatewayAgentId],
        removed: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        self.drop_traces(fence, gateway, leftovers, removed)
    }

    async fn history(&self, gateway: GatewayId) -> Result<GatewayHistory, StoreError> {
        self.load_history(gateway)
    }

    async fn record_restart(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        restart: &CausedRestart,
    ) -> Result<i64, StoreError> {
        self.store_restart(fence, gateway, restart)
    }

    async fn forget_restart(&self, fence: &Fence, gateway: GatewayId, restart: i64) -> Result<(), StoreError> {
        self.drop_restart(fence, gateway, restart)
    }

    async fn record_undone(&self, fence: &Fence, gateway: GatewayId, fields: &[Undoing]) -> Result<(), StoreError> {
        self.store_undone(fence, gateway, fields)
    }

    async fn forget_undone(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        fields: &[(ObjectRef, String)],
    ) -> Result<(), StoreError> {
        self.drop_undone(fence, gateway, fields)
    }

    async fn write_gateway_status(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        status: &GatewayStatusWrite,
    ) -> Result<(), StoreError> {
        self.write("write_gateway_status", fence, |state| {
            let new = !state.gateway_records.contains_key(&gateway);
            let record: &mut GatewayRecord = state.gateway_records.entry(gateway).or_default();
            let mut changed = set(&mut record.conditions, storable_conditions(&status.conditions));
            if let Some(version) = &status.server_version {
                changed |= set(&mut record.server_version, Some(storable(version).into_owned()));
            }
            if status.protocol.is_some() {
                changed |= set(&mut record.protocol, status.protocol);
            }
            (changed || new, ())
        })
    }

    async fn write_agent_status(
        &self,
        fence: &Fence,
        agent: AgentId,
        status: &AgentStatusWrite,
    ) -> Result<(), StoreError> {
        self.write("write_agent_status", fence, |state| {
            let new = !state.agent_records.contains_key(&agent);
            let Remembered { record, .. } = state.agent_records.entry(agent).or_default();
            let changed = set(&mut record.conditions, storable_conditions(&status.conditions));
            (changed || new, ())
        })?;
        if !status.projects() {
            return Ok(());
        }
        let wanted = |text: &str| storable(text).into_owned();
        let mut homes = Vec::new();
        let outcome = self.write("project_agent_status", fence, |state| {
            homes.extend(state.agents.get(&agent).map(|row| state.home(row)));
            let Some(row) = state.agents.get_mut(&agent) else {
                return (false, ());
            };
            let mut changed = false;
            if let Some(key) = &status.session_key {
                changed |= set(&mut row.session_key, Some(wanted(key)));
            }
            if let Some(error) = &status.last_provision_error {
                changed |= set(&mut row.last_provision_error, error.as_deref().map(wanted));
            }
            if let Some(shown) = &status.status {
                changed |= set(&mut row.status, wanted(shown));
            }
            if status
                .gateway_id
                .is_none_or(|gateway| !set(&mut row.gateway_id, gateway))
            {
                homes.clear();
                return (changed, ());
            }
            homes.extend(state.agents.get(&agent).map(|row| state.home(row)));
            (true, ())
        });
        // Of what this writes, the gateway alone is desired state to the triggers.
        self.hint(homes);
        outcome
    }

    async fn token_state(&self, agent: AgentId) -> Result<TokenState, StoreError> {
        self.read(|state| {
            let current_hash = state.agents.get(&agent).and_then(|row| row.token_hash.clone());
            let mut candidates = state.candidates.get(&agent).cloned().unwrap_or_default();
            candidates.sort_by(|a, b| (a.created_at, &a.hash).cmp(&(b.created_at, &b.hash)));
            TokenState {
                verified: state.verified.get(&agent).cloned(),
                candidates,
                hash_unchanged_since: state
                    .mismatches
                    .get(&agent)
                    .filter(|(hash, _)| *hash == current_hash)
                    .map(|(_, since)| *since),
                current_hash,
                rotated_for: state
                    .agent_records
                    .get(&agent)
                    .and_then(|remembered| remembered.record.rotated_for),
            }
        })
    }

    async fn add_candidate(&self, fence: &Fence, agent: AgentId, candidate: &Candidate) -> Result<(), StoreError> {
        self.write("add_candidate", fence, |state| {
            let candidates = state.candidates.entry(agent).or_default();
            let new = candidates.iter().all(|known| known.hash != candidate.hash);
            if new {
                let created_at = candidate.created_at.trunc_subsecs(6);
                candidates.push(Candidate {
                    created_at,
                    ..candidate.clone()
                });
            }
            (new, ())
        })
    }

    async fn promote(
        &self,
        fence: &Fence,
        agent: AgentId,
        expected_current: Option<&str>,
        candidate: &Candidate,
    ) -> Result<bool, StoreError> {
        let mut home = None;
        let now = self.database_now();
        let outcome = self.write("promote", fence, |state| {
            let Some(row) = state.agents.get_mut(&agent) else {
                return (false, false);
            };
            if row.token_hash.as_deref() != expected_current {
                let is_current = row.token_hash.as_deref() == Some(candidate.hash.as_str());
                return (false, is_current);
            }
            let changed = set(&mut row.token_hash, Some(candidate.hash.clone()));
            let pair = VerifiedPair {
                hash: candidate.hash.clone(),
                token_sha256: candidate.token_sha256.clone(),
                since: candidate.created_at.trunc_subsecs(6),
            };
            for retired in state.retired.values_mut() {
                retired.retain(|(_, until)| *until > now);
            }
            state.retired.retain(|_, retired| !retired.is_empty());
            let old = state.verified.insert(agent, pair);
            if let Some(old) = old.filter(|old| Some(old.hash.as_str()) == expected_current)
                && old.token_sha256 != candidate.token_sha256
            {
                let retired = state.retired.entry(agent).or_default();
                retired.retain(|(token, _)| *token != old.token_sha256);
                retired.push((old.token_sha256, later(now, ROTATION_GRACE)));
            }
            if candidate.rotates.is_some() {
                state.agent_records.entry(agent).or_default().record.rotated_for = candidate.rotates;
            }
            state.mismatches.remove(&agent);
            let oldest = earlier_by_a_lifetime(candidate.created_at);
            state.candidates.entry(agent).or_default().retain(|other| {
                let overtaken = Some(other.hash.as_str()) == expected_current || other.created_at < oldest;
                other.hash == candidate.hash || !overtaken
            });
            if changed {
                home = state.agents.get(&agent).map(|row| state.home(row));
            }
            (true, true)
        });
        self.hint(home);
        outcome
    }

    async fn remember_verified(
        &self,
        fence: &Fence,
        agent: AgentId,
        hash: &str,
        token_sha256: &str,
    ) -> Result<(), StoreError> {
        let now = self.database_now();
        self.write("remember_verified", fence, |state| {
            let known = state.verified.get(&agent);
            let since = known.filter(|known| known.token_sha256 == token_sha256);
            let pair = VerifiedPair {
                hash: hash.to_owned(),
                token_sha256: token_sha256.to_owned(),
                since: since.map_or(now, |known| known.since),
            };
            let settled = state.mismatches.remove(&agent).is_some();
            let new = state.verified.insert(agent, pair.clone()) != Some(pair);
            (settled || new, ())
        })
    }

    async fn note_mismatch(
        &self,
        fence: &Fence,
        agent: AgentId,
        current_hash: Option<&str>,
    ) -> Result<DateTime<Utc>, StoreError> {
        let now = self.database_now();
        self.write("note_mismatch", fence, |state| {
            let hash = current_hash.map(ToOwned::to_owned);
            match state.mismatches.get(&agent) {
                Some((known, since)) if *known == hash => (false, *since),
                _ => {
                    state.mismatches.insert(agent, (hash, now));
                    (true, now)
                }
            }
        })
    }

    async fn drop_candidates(&self, fence: &Fence, agent: AgentId) -> Result<(), StoreError> {
        self.write("drop_candidates", fence, |state| {
            let current = state.agents.get(&agent).and_then(|row| row.token_hash.clone());
            let Some(candidates) = state.candidates.get_mut(&agent) else {
                return (false, ());
            };
            let before = candidates.len();
            candidates.retain(|candidate| Some(&candidate.hash) == current.as_ref());
            (candidates.len() != before, ())
        })
    }

    async fn wake_state(&self, agent: AgentId) -> Result<Option<WakeState>, StoreError> {
        self.load_wake(agent)
    }

    async fn begin_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        read: &WakeState,
        begun: &WakeRecord,
    ) -> Result<bool, StoreError> {
        self.store_begun_wake(fence, agent, read, begun)
    }

    async fn end_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        ended: &WakeRecord,
        status: &str,
    ) -> Result<(), StoreError> {
        self.store_ended_wake(fence, agent, ended, status)
    }

    async fn set_wake_baseline(&self, fence: &Fence, agent: AgentId, baseline: &WakeRecord) -> Result<(), StoreError> {
        self.store_wake_baseline(fence, agent, baseline)
    }

    async fn create_lead(&self, fence: &Fence, lead: &NewLead) -> Result<LeadCreation, StoreError> {
        self.insert_lead(fence, lead)
    }

    async fn record_events(&self, fence: &Fence, events: &[Event]) -> Result<(), StoreError> {
        let now = self.database_now();
        self.write("record_events", fence, |state| {
            for event in events {
                record_event(state, event, now);
            }
            (!events.is_empty(), ())
        })
    }

    async fn list_events(&self, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        self.read(|state| {
            state
                .events
                .iter()
                .rev()
                .take(limit)
                .map(|(_, recorded)| recorded.clone())
                .collect()
        })
    }
}
