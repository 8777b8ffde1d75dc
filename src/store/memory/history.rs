//! What happened on gateways lately.

use super::MemoryStore;
use super::state::State;
use crate::model::{AgentId, CausedRestart, GatewayHistory, GatewayId, ObjectRef, Undoing};
use crate::store::{Fence, StoreError};

/// Forgets what happened on a gateway. Tells whether that was anything.
pub(super) fn forget_history(state: &mut State, gateway: GatewayId) -> bool {
    let before = state.undone.len();
    state.undone.retain(|(home, ..), _| *home != gateway);
    let restarts = state.restarts.remove(&gateway);
    restarts.is_some_and(|restarts| !restarts.is_empty()) || state.undone.len() != before
}

/// Forgets the fields of an agent that somebody else undoes. Tells whether there were any.
pub(super) fn forget_fights(state: &mut State, agent: AgentId) -> bool {
    let before = state.undone.len();
    state
        .undone
        .retain(|(_, object, _), _| *object != ObjectRef::Agent(agent));
    state.undone.len() != before
}

impl MemoryStore {
    pub(super) fn load_history(&self, gateway: GatewayId) -> Result<GatewayHistory, StoreError> {
        self.read(|state| GatewayHistory {
            restarts: state.restarts.get(&gateway).cloned().unwrap_or_default(),
            undone: state
                .undone
                .iter()
                .filter(|((home, ..), _)| *home == gateway)
                .map(|(_, undoing)| undoing.clone())
                .collect(),
        })
    }

    pub(super) fn store_restart(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        restart: &CausedRestart,
    ) -> Result<i64, StoreError> {
        self.write("record_restart", fence, |state| {
            state.restarts_ever += 1;
            let id = state.restarts_ever;
            let restarts = state.restarts.entry(gateway).or_default();
            restarts.retain(|old| old.at > restart.at - Undoing::SPAN);
            restarts.push(CausedRestart { id, ..restart.clone() });
            restarts.sort_by_key(|restart| (restart.at, restart.id));
            (true, id)
        })
    }

    pub(super) fn drop_restart(&self, fence: &Fence, gateway: GatewayId, restart: i64) -> Result<(), StoreError> {
        self.write("forget_restart", fence, |state| {
            let Some(restarts) = state.restarts.get_mut(&gateway) else {
                return (false, ());
            };
            let before = restarts.len();
            restarts.retain(|known| known.id != restart);
            (restarts.len() != before, ())
        })
    }

    pub(super) fn store_undone(&self, fence: &Fence, gateway: GatewayId, fields: &[Undoing]) -> Result<(), StoreError> {
        self.write("record_undone", fence, |state| {
            let key = |undoing: &Undoing| (gateway, undoing.object, undoing.field.clone());
            if fields
                .iter()
                .all(|undoing| state.undone.get(&key(undoing)) == Some(undoing))
            {
                return (false, ());
            }
            if let Some(now) = fields.iter().map(|undoing| undoing.tried_at).max() {
                let counts = |undoing: &Undoing| undoing.is_fight() || undoing.tried_at > now - Undoing::SPAN;
                state
                    .undone
                    .retain(|(home, ..), undoing| *home != gateway || counts(undoing));
            }
            for undoing in fields {
                state.undone.insert(key(undoing), undoing.clone());
            }
            (true, ())
        })
    }

    pub(super) fn drop_undone(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        fields: &[(ObjectRef, String)],
    ) -> Result<(), StoreError> {
        self.write("forget_undone", fence, |state| {
            let mut changed = false;
            for (object, field) in fields {
                changed |= state.undone.remove(&(gateway, *object, field.clone())).is_some();
            }
            (changed, ())
        })
    }
}
