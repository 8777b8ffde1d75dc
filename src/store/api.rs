//! The store as the other rooms see it.

use std::future::Future;

use chrono::{DateTime, Utc};

use super::{
    AgentStatusWrite, Candidate, Fence, GatewayStatusWrite, LeadCreation, Placement, RecordedEvent, StoreError,
    SyncStore, TokenState,
};
use crate::model::{
    AgentId, CausedRestart, Event, GatewayAgentId, GatewayHistory, GatewayId, GatewaySnapshot, Leftover,
    LeftoverReason, NewLead, ObjectRef, Traces, Undoing, WakeRecord, WakeState,
};

/// Desired state in, records and status out.
///
/// Every write takes a [`Fence`] and fails with [`StoreError::Fenced`], having written nothing, once that lease has been
/// taken or released. A write of what is there already touches nothing. Every call has a deadline.
pub trait Store: SyncStore {
    /// The ids of all gateways, ordered.
    fn list_gateways(&self) -> impl Future<Output = Result<Vec<GatewayId>, StoreError>> + Send;

    /// Everything about one gateway as of one instant; `None` if it has no row.
    fn load_gateway(&self, id: GatewayId) -> impl Future<Output = Result<Option<GatewaySnapshot>, StoreError>> + Send;

    /// The same without the conditions of its agents (they are empty), which are most of what there is to load: for a caller
    /// who has them, because nobody else writes them.
    fn reload_gateway(&self, id: GatewayId)
    -> impl Future<Output = Result<Option<GatewaySnapshot>, StoreError>> + Send;

    /// Everything about every gateway as of one instant, ordered by id.
    fn load_fleet(&self) -> impl Future<Output = Result<Vec<GatewaySnapshot>, StoreError>> + Send;

    /// Whether another program's backend owns the tables (it has an `alembic_version` table).
    fn is_existing_installation(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Counts a new generation of each object whose digest differs from the recorded one (the first is 1), and records the
    /// gateway that it belongs to. Returns those that got a new generation, in the order given.
    fn record_generations(
        &self,
        fence: &Fence,
        digests: &[(ObjectRef, GatewayId, String)],
    ) -> impl Future<Output = Result<Vec<(ObjectRef, i64)>, StoreError>> + Send;

    /// Records, before the roster is written, that these agents are about to be added to it: they were not there before us.
    /// Sets `registering_since` and the placement where there is none yet.
    fn begin_registration(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(AgentId, GatewayAgentId)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that these agents were found on their gateway, so that they count as provisioned. Sets the placement and
    /// `first_provisioned_at` where there is none yet.
    fn record_adopted(
        &self,
        fence: &Fence,
        agents: &[Placement],
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records, before the first wake, that the first provisioning of these agents is complete. Sets `first_provisioned_at` where
    /// there is none yet and this is still the agent's placement.
    fn record_first_provisioned(
        &self,
        fence: &Fence,
        agents: &[Placement],
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets where these agents are (placement, `registering_since`, `first_provisioned_at`) and what they were woken for,
    /// once they are gone from that gateway: elsewhere they start anew.
    fn forget_placement(
        &self,
        fence: &Fence,
        agents: &[AgentId],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Drops all records of objects whose rows are gone; records of objects that still have a row are kept. An agent that we
    /// put on a gateway is remembered as a leftover there ([`LeftoverReason::RowDeleted`]). Events stay.
    fn forget(&self, fence: &Fence, objects: &[ObjectRef]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets where these agents are, as [`forget_placement`](Store::forget_placement) does, because their rows say another
    /// place; those that we put there are remembered as leftovers.
    fn leave_placement(
        &self,
        fence: &Fence,
        agents: &[(AgentId, LeftoverReason)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is known of agents of a gateway beyond the records of its rows.
    fn traces(&self, gateway: GatewayId) -> impl Future<Output = Result<Traces, StoreError>> + Send;

    /// The leftovers of all gateways, by gateway, oldest first.
    fn leftovers(&self) -> impl Future<Output = Result<Vec<Leftover>, StoreError>> + Send;

    /// Records, before the gateway is asked to, that these agents are about to be removed from it, and returns those that still
    /// are to be: an agent with a row if that still asks for its removal, one without if it is a leftover.
    fn begin_removal(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(GatewayAgentId, Option<AgentId>)],
    ) -> impl Future<Output = Result<Vec<GatewayAgentId>, StoreError>> + Send;

    /// Records that the gateway has removed these agents, or did not know them.
    fn finish_removal(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[GatewayAgentId],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that an agent whose removal was requested is gone from this gateway: its placement is forgotten as by
    /// [`forget_placement`](Store::forget_placement), its tokens are nobody's, and the row shows no hash, no
    /// `checkin_deadline_at` and the status `deleting`. `false` if the removal is not requested any more: nothing was written.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`] if another program holds the row; nothing was written.
    fn complete_removal(
        &self,
        fence: &Fence,
        agent: AgentId,
        gateway: GatewayId,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Forgets these leftovers of a gateway, and these removals.
    fn forget_traces(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        leftovers: &[GatewayAgentId],
        removed: &[GatewayAgentId],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What happened on a gateway lately.
    fn history(&self, gateway: GatewayId) -> impl Future<Output = Result<GatewayHistory, StoreError>> + Send;

    /// Records a restart of a gateway that we caused or, if it is foreseen, are about to cause; those of more than an hour before
    /// it are forgotten. Its `id` is not looked at: the one that it gets is returned.
    fn record_restart(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        restart: &CausedRestart,
    ) -> impl Future<Output = Result<i64, StoreError>> + Send;

    /// Forgets a restart that was foreseen and did not come.
    fn forget_restart(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        restart: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records fields that somebody else undoes, each in the place of what was recorded of it before.
    fn record_undone(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        fields: &[Undoing],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets that these fields were undone.
    fn forget_undone(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        fields: &[(ObjectRef, String)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes a gateway's status into our record of it.
    fn write_gateway_status(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        status: &GatewayStatusWrite,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes an agent's status into our record of it, then its projections onto its row.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`] if another program holds the row; our own record has then been written all the same.
    fn write_agent_status(
        &self,
        fence: &Fence,
        agent: AgentId,
        status: &AgentStatusWrite,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is known about an agent's token. An agent without a row has no current hash.
    fn token_state(&self, agent: AgentId) -> impl Future<Output = Result<TokenState, StoreError>> + Send;

    /// Stores a candidate's hash, before the token is written to the gateway. The same hash again changes nothing.
    fn add_candidate(
        &self,
        fence: &Fence,
        agent: AgentId,
        candidate: &Candidate,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes a candidate's hash the agent's, if its hash is still `expected_current` (or the candidate's already), remembers
    /// the pair, records the request that the candidate answers, and retires the token that it replaces, if that one was
    /// remembered: it is taken at check-ins for [`ROTATION_GRACE`](super::ROTATION_GRACE) more.
    /// The candidate for the replaced hash goes, and so do those made long before this one: neither is ever promoted
    /// again. `false` if another program was faster or the row is gone: nothing was written.
    fn promote(
        &self,
        fence: &Fence,
        agent: AgentId,
        expected_current: Option<&str>,
        candidate: &Candidate,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Remembers that the token with this hex SHA-256 was verified against `hash`, and forgets a noted mismatch.
    fn remember_verified(
        &self,
        fence: &Fence,
        agent: AgentId,
        hash: &str,
        token_sha256: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Notes that the token on the gateway does not belong to `current_hash`. Returns since when that very hash has been
    /// seen to mismatch; noted once per hash, so a mismatch that stays costs one write.
    fn note_mismatch(
        &self,
        fence: &Fence,
        agent: AgentId,
        current_hash: Option<&str>,
    ) -> impl Future<Output = Result<DateTime<Utc>, StoreError>> + Send;

    /// Drops an agent's candidates but the one whose hash is the agent's current one.
    fn drop_candidates(&self, fence: &Fence, agent: AgentId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is known about an agent's wakes; `None` if its row is gone.
    fn wake_state(&self, agent: AgentId) -> impl Future<Output = Result<Option<WakeState>, StoreError>> + Send;

    /// Records a wake that is about to be sent, in our record and in the row (`last_wake_sent_at`, `checkin_deadline_at`,
    /// `wake_attempts`) at once, if neither the counter nor the row's `last_wake_sent_at` is another than was `read`. `false`
    /// if one of them is, the agent's removal was requested, or the row is gone: nothing was written.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`] if another program holds the row; nothing was written then either.
    fn begin_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        read: &WakeState,
        begun: &WakeRecord,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Records how a wake of ours ended, and projects it onto the row: no `checkin_deadline_at`, the `wake_attempts` of the
    /// record, and this `status`. If the row's last wake is not the record's, the row is another program's and left alone.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`] if another program holds the row; nothing was written.
    fn end_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        ended: &WakeRecord,
        status: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records what an agent knows of without having been woken by us. Its row is not written.
    fn set_wake_baseline(
        &self,
        fence: &Fence,
        agent: AgentId,
        baseline: &WakeRecord,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes the row of a board's lead, and an event about it, if the board is still on that gateway and has no lead. However
    /// many try at the same time, under whatever lease, there is one in the end.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`] if another program is at work on the board, and whatever its tables have against the row;
    /// nothing was written.
    fn create_lead(
        &self,
        fence: &Fence,
        lead: &NewLead,
    ) -> impl Future<Output = Result<LeadCreation, StoreError>> + Send;

    /// Records events; one with the object, kind, reason and message of an earlier one only raises its count.
    fn record_events(&self, fence: &Fence, events: &[Event]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The newest events, newest first.
    fn list_events(&self, limit: usize) -> impl Future<Output = Result<Vec<RecordedEvent>, StoreError>> + Send;
}
