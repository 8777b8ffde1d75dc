//! The trait, each call with its deadline.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::PgStore;
use crate::model::{
    AgentId, CausedRestart, Event, GatewayAgentId, GatewayHistory, GatewayId, GatewaySnapshot, Leftover,
    LeftoverReason, NewLead, ObjectRef, Traces, Undoing, WakeRecord, WakeState,
};
use crate::store::{
    AgentStatusWrite, Candidate, Fence, GatewayStatusWrite, LeadCreation, Placement, RecordedEvent, Store, StoreError,
    TokenState,
};

impl Store for PgStore {
    async fn list_gateways(&self) -> Result<Vec<GatewayId>, StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM gateways ORDER BY id")
                .fetch_all(&mut *tx)
                .await?;
            tx.commit().await?;
            session.done();
            Ok(ids.into_iter().map(GatewayId).collect())
        })
        .await
    }

    async fn load_gateway(&self, id: GatewayId) -> Result<Option<GatewaySnapshot>, StoreError> {
        let mut found = self.bounded(self.load(Some(id), true)).await?;
        Ok(found.pop())
    }

    async fn reload_gateway(&self, id: GatewayId) -> Result<Option<GatewaySnapshot>, StoreError> {
        let mut found = self.bounded(self.load(Some(id), false)).await?;
        Ok(found.pop())
    }

    async fn load_fleet(&self) -> Result<Vec<GatewaySnapshot>, StoreError> {
        self.bounded(self.load(None, true)).await
    }

    async fn is_existing_installation(&self) -> Result<bool, StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let exists: bool = sqlx::query_scalar("SELECT to_regclass('alembic_version') IS NOT NULL")
                .fetch_one(&mut *tx)
                .await?;
            tx.commit().await?;
            session.done();
            Ok(exists)
        })
        .await
    }

    async fn record_generations(
        &self,
        fence: &Fence,
        digests: &[(ObjectRef, GatewayId, String)],
    ) -> Result<Vec<(ObjectRef, i64)>, StoreError> {
        self.bounded(self.count_generations(fence, digests)).await
    }

    async fn begin_registration(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(AgentId, GatewayAgentId)],
    ) -> Result<(), StoreError> {
        self.bounded(self.register(fence, gateway, agents)).await
    }

    async fn record_adopted(&self, fence: &Fence, agents: &[Placement], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.bounded(self.settle(fence, agents, false, Some(now))).await
    }

    async fn record_first_provisioned(
        &self,
        fence: &Fence,
        agents: &[Placement],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.bounded(self.store_first_provisioned(fence, agents, now)).await
    }

    async fn forget_placement(&self, fence: &Fence, agents: &[AgentId]) -> Result<(), StoreError> {
        self.bounded(self.unsettle(fence, agents)).await
    }

    async fn forget(&self, fence: &Fence, objects: &[ObjectRef]) -> Result<(), StoreError> {
        if objects.is_empty() {
            return Ok(());
        }
        self.bounded(self.forget_objects(fence, objects)).await
    }

    async fn leave_placement(&self, fence: &Fence, agents: &[(AgentId, LeftoverReason)]) -> Result<(), StoreError> {
        self.bounded(self.keep_leftovers(fence, agents)).await
    }

    async fn traces(&self, gateway: GatewayId) -> Result<Traces, StoreError> {
        self.bounded(self.load_traces(gateway)).await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        self.bounded(self.load_leftovers()).await
    }

    async fn begin_removal(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(GatewayAgentId, Option<AgentId>)],
    ) -> Result<Vec<GatewayAgentId>, StoreError> {
        self.bounded(self.store_begun_removals(fence, gateway, agents)).await
    }

    async fn finish_removal(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        self.bounded(self.store_finished_removals(fence, gateway, agents)).await
    }

    async fn complete_removal(&self, fence: &Fence, agent: AgentId, gateway: GatewayId) -> Result<bool, StoreError> {
        self.bounded(self.store_deleted(fence, agent, gateway)).await
    }

    async fn forget_traces(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        leftovers: &[GatewayAgentId],
        removed: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        self.bounded(self.drop_traces(fence, gateway, leftovers, removed)).await
    }

    async fn history(&self, gateway: GatewayId) -> Result<GatewayHistory, StoreError> {
        self.bounded(self.load_history(gateway)).await
    }

    async fn record_restart(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        restart: &CausedRestart,
    ) -> Result<i64, StoreError> {
        self.bounded(self.store_restart(fence, gateway, restart)).await
    }

    async fn forget_restart(&self, fence: &Fence, gateway: GatewayId, restart: i64) -> Result<(), StoreError> {
        self.bounded(self.drop_restart(fence, gateway, restart)).await
    }

    async fn record_undone(&self, fence: &Fence, gateway: GatewayId, fields: &[Undoing]) -> Result<(), StoreError> {
        if fields.is_empty() {
            return Ok(());
        }
        self.bounded(self.store_undone(fence, gateway, fields)).await
    }

    async fn forget_undone(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        fields: &[(ObjectRef, String)],
    ) -> Result<(), StoreError> {
        if fields.is_empty() {
            return Ok(());
        }
        self.bounded(self.drop_undone(fence, gateway, fields)).await
    }

    async fn write_gateway_status(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        status: &GatewayStatusWrite,
    ) -> Result<(), StoreError> {
        self.bounded(self.gateway_status(fence, gateway, status)).await
    }

    async fn write_agent_status(
        &self,
        fence: &Fence,
        agent: AgentId,
        status: &AgentStatusWrite,
    ) -> Result<(), StoreError> {
        self.bounded(self.agent_status(fence, agent, status)).await
    }

    async fn token_state(&self, agent: AgentId) -> Result<TokenState, StoreError> {
        self.bounded(self.load_tokens(agent)).await
    }

    async fn add_candidate(&self, fence: &Fence, agent: AgentId, candidate: &Candidate) -> Result<(), StoreError> {
        self.bounded(self.store_candidate(fence, agent, candidate)).await
    }

    async fn promote(
        &self,
        fence: &Fence,
        agent: AgentId,
        expected_current: Option<&str>,
        candidate: &Candidate,
    ) -> Result<bool, StoreError> {
        self.bounded(self.promote_candidate(fence, agent, expected_current, candidate))
            .await
    }

    async fn remember_verified(
        &self,
        fence: &Fence,
        agent: AgentId,
        hash: &str,
        token_sha256: &str,
    ) -> Result<(), StoreError> {
        self.bounded(self.remember_pair(fence, agent, hash, token_sha256)).await
    }

    async fn note_mismatch(
        &self,
        fence: &Fence,
        agent: AgentId,
        current_hash: Option<&str>,
    ) -> Result<DateTime<Utc>, StoreError> {
        self.bounded(self.remember_mismatch(fence, agent, current_hash)).await
    }

    async fn drop_candidates(&self, fence: &Fence, agent: AgentId) -> Result<(), StoreError> {
        self.bounded(self.clear_candidates(fence, agent)).await
    }

    async fn wake_state(&self, agent: AgentId) -> Result<Option<WakeState>, StoreError> {
        self.bounded(self.load_wake(agent)).await
    }

    async fn begin_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        read: &WakeState,
        begun: &WakeRecord,
    ) -> Result<bool, StoreError> {
        self.bounded(self.store_begun_wake(fence, agent, read, begun)).await
    }

    async fn end_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        ended: &WakeRecord,
        status: &str,
    ) -> Result<(), StoreError> {
        self.bounded(self.store_ended_wake(fence, agent, ended, status)).await
    }

    async fn set_wake_baseline(&self, fence: &Fence, agent: AgentId, baseline: &WakeRecord) -> Result<(), StoreError> {
        self.bounded(self.store_wake_baseline(fence, agent, baseline)).await
    }

    async fn create_lead(&self, fence: &Fence, lead: &NewLead) -> Result<LeadCreation, StoreError> {
        self.bounded(self.insert_lead(fence, lead)).await
    }

    async fn record_events(&self, fence: &Fence, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.bounded(self.store_events(fence, events)).await
    }

    async fn list_events(&self, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        self.bounded(self.load_events(None, limit)).await
    }
}
