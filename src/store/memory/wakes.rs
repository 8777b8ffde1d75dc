//! Wakes: our record of them, and the row's columns that [`AgentRow`](crate::model::AgentRow) leaves out.

use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::model::{AgentId, WakeRecord, WakeState};
use crate::store::{Fence, StoreError};

/// The columns of an agent's row that are about wakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WakeColumns {
    /// `last_wake_sent_at`
    pub last_wake_sent_at: Option<DateTime<Utc>>,
    /// `checkin_deadline_at`
    pub checkin_deadline_at: Option<DateTime<Utc>>,
    /// `wake_attempts`
    pub wake_attempts: i32,
}

impl MemoryStore {
    /// The columns of an agent's row that are about wakes.
    pub fn wake_columns(&self, id: AgentId) -> WakeColumns {
        self.state().wake_columns.get(&id).copied().unwrap_or_default()
    }

    /// Edits these columns, as another program that wakes agents does: no hint.
    pub fn edit_wake_columns(&self, id: AgentId, edit: impl FnOnce(&mut WakeColumns)) {
        edit(self.state().wake_columns.entry(id).or_default());
    }

    pub(super) fn load_wake(&self, agent: AgentId) -> Result<Option<WakeState>, StoreError> {
        self.read(|state| {
            let row = state.agents.get(&agent)?;
            let columns = state.wake_columns.get(&agent).copied().unwrap_or_default();
            let remembered = state.agent_records.get(&agent);
            Some(WakeState {
                record: remembered.map(|known| known.record.wake.clone()).unwrap_or_default(),
                last_seen_at: row.last_seen_at.map(|at| at.and_utc()),
                last_wake_sent_at: columns.last_wake_sent_at,
            })
        })
    }

    pub(super) fn store_begun_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        read: &WakeState,
        begun: &WakeRecord,
    ) -> Result<bool, StoreError> {
        self.write("begin_wake", fence, |state| {
            if state
                .agents
                .get(&agent)
                .is_none_or(|row| row.delete_requested_at.is_some())
            {
                return (false, false);
            }
            let columns = state.wake_columns.entry(agent).or_default();
            let record = &mut state.agent_records.entry(agent).or_default().record.wake;
            if columns.last_wake_sent_at != read.last_wake_sent_at || record.counter != read.record.counter {
                return (false, false);
            }
            record.clone_from(begun);
            *columns = WakeColumns {
                last_wake_sent_at: begun.sent_at,
                checkin_deadline_at: begun.deadline,
                wake_attempts: begun.attempts,
            };
            (true, true)
        })
    }

    pub(super) fn store_ended_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        ended: &WakeRecord,
        status: &str,
    ) -> Result<(), StoreError> {
        self.write("end_wake", fence, |state| {
            let mut changed = set_record(state, agent, ended);
            if let (Some(row), Some(columns)) = (state.agents.get_mut(&agent), state.wake_columns.get_mut(&agent))
                && columns.last_wake_sent_at == ended.sent_at
            {
                let after = WakeColumns {
                    checkin_deadline_at: None,
                    wake_attempts: ended.attempts,
                    ..*columns
                };
                changed |= *columns != after || row.status != status;
                *columns = after;
                status.clone_into(&mut row.status);
            }
            (changed, ())
        })
    }

    pub(super) fn store_wake_baseline(
        &self,
        fence: &Fence,
        agent: AgentId,
        baseline: &WakeRecord,
    ) -> Result<(), StoreError> {
        self.write("set_wake_baseline", fence, |state| {
            (set_record(state, agent, baseline), ())
        })
    }
}

fn set_record(state: &mut super::state::State, agent: AgentId, record: &WakeRecord) -> bool {
    let known = &mut state.agent_records.entry(agent).or_default().record.wake;
    let changed = known != record;
    known.clone_from(record);
    changed
}
