//! Agents that are removed, and agents that are left where no row explains them.

use sqlx::Row;
use uuid::Uuid;

use super::PgStore;
use super::errors::About;
use super::records::LOCK;
use crate::model::{AgentId, GatewayAgentId, GatewayId, Leftover, LeftoverReason, Traces};
use crate::store::{Fence, StoreError};

/// What is forgotten of an agent that is on no gateway: where it was, and what it was woken for. The wakes' counter never goes
/// back.
macro_rules! unplaced {
    ($where:literal) => {
        concat!(
            "UPDATE openclaw_controller.agent_records
                SET placement_gateway_id = NULL, placement_agent_id = NULL, registering_since = NULL,
                    first_provisioned_at = NULL, woken_for = NULL, wake_attempts = 0, wake_deadline = NULL,
                    wake_gave_up = false
              WHERE ",
            $where
        )
    };
}

/// Whether there is anything to forget in a record.
macro_rules! placed {
    () => {
        "(placement_gateway_id IS NOT NULL OR registering_since IS NOT NULL OR first_provisioned_at IS NOT NULL
          OR woken_for IS NOT NULL OR wake_deadline IS NOT NULL OR wake_gave_up)"
    };
}

/// Leftovers of agents whose records say that we put them where they are. `$1` the agents, `$2` the reasons.
const KEEP_LEFTOVERS: &str = "
    INSERT INTO openclaw_controller.leftovers (gateway_id, gateway_agent_id, agent_id, since, reason)
    SELECT r.placement_gateway_id, r.placement_agent_id, r.agent_id, clock_timestamp(), i.reason
      FROM unnest($1::uuid[], $2::text[]) AS i (id, reason)
      JOIN openclaw_controller.agent_records r ON r.agent_id = i.id
     WHERE r.placement_gateway_id IS NOT NULL AND r.registering_since IS NOT NULL
    ON CONFLICT DO NOTHING";

/// Whether something of a deleted agent is left to be put away, or its removal is wanted no longer. `$1` the agent, `$2` its
/// gateway.
const INCOMPLETE: &str = concat!(
    "SELECT NOT EXISTS (SELECT FROM agents WHERE id = $1 AND delete_requested_at IS NOT NULL
                           AND agent_token_hash IS NULL AND checkin_deadline_at IS NULL AND status = 'deleting')
         OR EXISTS (SELECT FROM openclaw_controller.verified_tokens WHERE agent_id = $1)
         OR EXISTS (SELECT FROM openclaw_controller.token_candidates WHERE agent_id = $1)
         OR EXISTS (SELECT FROM openclaw_controller.retired_tokens WHERE agent_id = $1)
         OR EXISTS (SELECT FROM openclaw_controller.token_mismatches WHERE agent_id = $1)
         OR EXISTS (SELECT FROM openclaw_controller.agent_records WHERE agent_id = $1
                       AND coalesce(placement_gateway_id, $2) = $2 AND ",
    placed!(),
    ")"
);

/// The removals among these that are still wanted. `$1` the gateway, `$2` ids on it, `$3` the agents whose rows ask for it, null
/// for leftovers.
const BEGIN: &str = "
    WITH wanted AS MATERIALIZED (
        SELECT i.name FROM unnest($2::text[], $3::uuid[]) AS i (name, agent)
         WHERE EXISTS (SELECT FROM agents a WHERE a.id = i.agent AND a.delete_requested_at IS NOT NULL)
            OR (i.agent IS NULL AND EXISTS (SELECT FROM openclaw_controller.leftovers l
                                             WHERE l.gateway_id = $1 AND l.gateway_agent_id = i.name))),
    begun AS (
        INSERT INTO openclaw_controller.removed_agents (gateway_id, gateway_agent_id)
        SELECT $1, name FROM wanted
         WHERE NOT EXISTS (SELECT FROM openclaw_controller.removed_agents r
                            WHERE r.gateway_id = $1 AND r.gateway_agent_id = wanted.name AND NOT r.done)
        ON CONFLICT (gateway_id, gateway_agent_id) DO UPDATE SET done = false)
    SELECT name FROM wanted";

fn names(ids: &[GatewayAgentId]) -> Vec<&str> {
    ids.iter().map(GatewayAgentId::as_str).collect()
}

fn leftover(row: &sqlx::postgres::PgRow) -> Result<Leftover, sqlx::Error> {
    Ok(Leftover {
        gateway: GatewayId(row.try_get("gateway_id")?),
        id: GatewayAgentId::observed(row.try_get::<String, _>("gateway_agent_id")?),
        agent: AgentId(row.try_get("agent_id")?),
        since: row.try_get("since")?,
        reason: LeftoverReason::of(row.try_get("reason")?),
    })
}

impl PgStore {
    pub(super) async fn keep_leftovers(
        &self,
        fence: &Fence,
        agents: &[(AgentId, LeftoverReason)],
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = agents.iter().map(|(id, _)| id.0).collect();
        let reasons: Vec<&str> = agents.iter().map(|(_, reason)| reason.as_str()).collect();
        let differs = sqlx::query_scalar(concat!(
            "SELECT EXISTS (SELECT FROM openclaw_controller.agent_records WHERE agent_id = ANY ($1) AND ",
            placed!(),
            ")"
        ))
        .bind(&ids);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(KEEP_LEFTOVERS)
            .bind(&ids)
            .bind(&reasons)
            .execute(&mut *tx)
            .await?;
        sqlx::query(LOCK).bind(&ids).execute(&mut *tx).await?;
        sqlx::query(unplaced!("agent_id = ANY ($1)"))
            .bind(&ids)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn load_traces(&self, gateway: GatewayId) -> Result<Traces, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let leftovers = sqlx::query(
            "SELECT gateway_id, gateway_agent_id, agent_id, since, reason FROM openclaw_controller.leftovers
              WHERE gateway_id = $1 ORDER BY since, gateway_agent_id",
        )
        .bind(gateway.0)
        .fetch_all(&mut *tx)
        .await?;
        let removed: Vec<(String, bool)> = sqlx::query_as(
            "SELECT gateway_agent_id, done FROM openclaw_controller.removed_agents WHERE gateway_id = $1",
        )
        .bind(gateway.0)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(Traces {
            leftovers: leftovers.iter().map(leftover).collect::<Result<_, _>>()?,
            removed: removed
                .into_iter()
                .map(|(id, done)| (GatewayAgentId::observed(id), done))
                .collect(),
        })
    }

    pub(super) async fn load_leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let rows = sqlx::query(
            "SELECT gateway_id, gateway_agent_id, agent_id, since, reason FROM openclaw_controller.leftovers
              ORDER BY gateway_id, since, gateway_agent_id",
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(rows.iter().map(leftover).collect::<Result<_, _>>()?)
    }

    pub(super) async fn store_begun_removals(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(GatewayAgentId, Option<AgentId>)],
    ) -> Result<Vec<GatewayAgentId>, StoreError> {
        let ids: Vec<&str> = agents.iter().map(|(id, _)| id.as_str()).collect();
        let rows: Vec<Option<Uuid>> = agents.iter().map(|(_, agent)| agent.map(|agent| agent.0)).collect();
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let wanted: Vec<String> = sqlx::query_scalar(BEGIN)
            .bind(gateway.0)
            .bind(&ids)
            .bind(&rows)
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(wanted.into_iter().map(GatewayAgentId::observed).collect())
    }

    pub(super) async fn store_finished_removals(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(
            "UPDATE openclaw_controller.removed_agents SET done = true
              WHERE gateway_id = $1 AND gateway_agent_id = ANY ($2) AND NOT done",
        )
        .bind(gateway.0)
        .bind(names(agents))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn store_deleted(
        &self,
        fence: &Fence,
        agent: AgentId,
        gateway: GatewayId,
    ) -> Result<bool, StoreError> {
        let differs = sqlx::query_scalar(INCOMPLETE).bind(agent.0).bind(gateway.0);
        if !self.differs(fence, differs).await? {
            return Ok(true);
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let wanted: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM agents WHERE id = $1 AND delete_requested_at IS NOT NULL FOR UPDATE")
                .bind(agent.0)
                .fetch_optional(&mut *tx)
                .await
                .about(|| format!("the row of agent {agent}"))?;
        if wanted.is_none() {
            tx.rollback().await?;
            session.done();
            return Ok(false);
        }
        sqlx::query(
            "UPDATE agents SET agent_token_hash = NULL, checkin_deadline_at = NULL, status = 'deleting'
              WHERE id = $1 AND (agent_token_hash IS NOT NULL OR checkin_deadline_at IS NOT NULL
                                 OR status IS DISTINCT FROM 'deleting')",
        )
        .bind(agent.0)
        .execute(&mut *tx)
        .await
        .about(|| format!("the row of agent {agent}"))?;
        sqlx::query(
            "WITH verified AS (DELETE FROM openclaw_controller.verified_tokens WHERE agent_id = $1),
                  candidates AS (DELETE FROM openclaw_controller.token_candidates WHERE agent_id = $1),
                  mismatches AS (DELETE FROM openclaw_controller.token_mismatches WHERE agent_id = $1)
             DELETE FROM openclaw_controller.retired_tokens WHERE agent_id = $1",
        )
        .bind(agent.0)
        .execute(&mut *tx)
        .await?;
        sqlx::query(concat!(
            unplaced!("agent_id = $1 AND coalesce(placement_gateway_id, $2) = $2 AND "),
            placed!()
        ))
        .bind(agent.0)
        .bind(gateway.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(true)
    }

    pub(super) async fn drop_traces(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        leftovers: &[GatewayAgentId],
        removed: &[GatewayAgentId],
    ) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        for (sql, ids) in [
            (
                "DELETE FROM openclaw_controller.leftovers WHERE gateway_id = $1 AND gateway_agent_id = ANY ($2)",
                leftovers,
            ),
            (
                "DELETE FROM openclaw_controller.removed_agents WHERE gateway_id = $1 AND gateway_agent_id = ANY ($2)",
                removed,
            ),
        ] {
            if !ids.is_empty() {
                sqlx::query(sql)
                    .bind(gateway.0)
                    .bind(names(ids))
                    .execute(&mut *tx)
                    .await?;
            }
        }
        tx.commit().await?;
        session.done();
        Ok(())
    }
}
