//! Generations and placements.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row;
use uuid::Uuid;

use super::PgStore;
use crate::model::{AgentId, GatewayAgentId, GatewayId, ObjectRef};
use crate::store::{Fence, Placement, StoreError};

/// What an object is called in a query, and its id.
pub(super) fn object_parts(object: ObjectRef) -> (&'static str, Uuid) {
    match object {
        ObjectRef::Gateway(id) => ("gateway", id.0),
        ObjectRef::Agent(id) => ("agent", id.0),
    }
}

/// The object of [`object_parts`].
pub(super) fn object_of(kind: &str, id: Uuid) -> ObjectRef {
    if kind == "gateway" {
        ObjectRef::Gateway(GatewayId(id))
    } else {
        ObjectRef::Agent(AgentId(id))
    }
}

/// Whether any digest or home gateway differs from the record. `$1` kinds, `$2` ids, `$3` gateways, `$4` digests.
const DIGESTS_DIFFER: &str = "
    SELECT EXISTS (
        SELECT FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[]) AS i (kind, id, home, digest)
          LEFT JOIN openclaw_controller.gateway_records g ON i.kind = 'gateway' AND g.gateway_id = i.id
          LEFT JOIN openclaw_controller.agent_records a ON i.kind = 'agent' AND a.agent_id = i.id
         WHERE coalesce(g.spec_digest, a.spec_digest) IS DISTINCT FROM i.digest
            OR (i.kind = 'agent' AND a.home_gateway_id IS DISTINCT FROM i.home))";

/// Counts generations. The arguments are those of [`DIGESTS_DIFFER`]. The rows that each part touches are its own.
const COUNT_GENERATIONS: &str = "
    WITH i AS MATERIALIZED (
        SELECT DISTINCT ON (kind, id) kind, id, home, digest
          FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[]) WITH ORDINALITY AS i (kind, id, home, digest, position)
         ORDER BY kind, id, position DESC),
    gateways AS (
        INSERT INTO openclaw_controller.gateway_records AS r (gateway_id, generation, spec_digest)
        SELECT i.id, 1, i.digest FROM i LEFT JOIN openclaw_controller.gateway_records o ON o.gateway_id = i.id
         WHERE i.kind = 'gateway' AND o.spec_digest IS DISTINCT FROM i.digest
         ORDER BY i.id
        ON CONFLICT (gateway_id) DO UPDATE SET generation = r.generation + 1, spec_digest = excluded.spec_digest
        RETURNING 'gateway' AS kind, gateway_id AS id, generation),
    agents AS (
        INSERT INTO openclaw_controller.agent_records AS r (agent_id, generation, spec_digest, home_gateway_id)
        SELECT i.id, 1, i.digest, i.home FROM i LEFT JOIN openclaw_controller.agent_records o ON o.agent_id = i.id
         WHERE i.kind = 'agent' AND o.spec_digest IS DISTINCT FROM i.digest
         ORDER BY i.id
        ON CONFLICT (agent_id) DO UPDATE SET generation = r.generation + 1, spec_digest = excluded.spec_digest,
                                             home_gateway_id = excluded.home_gateway_id
        RETURNING 'agent' AS kind, agent_id AS id, generation),
    moved AS (
        UPDATE openclaw_controller.agent_records r SET home_gateway_id = i.home FROM i
         WHERE i.kind = 'agent' AND r.agent_id = i.id AND r.spec_digest = i.digest
           AND r.home_gateway_id IS DISTINCT FROM i.home)
    SELECT kind, id, generation FROM gateways UNION ALL SELECT kind, id, generation FROM agents";

/// Locks the records of the agents `$1`, in the order of all that lock several: two that do so at once wait for each other at
/// most.
pub(super) const LOCK: &str =
    "SELECT FROM openclaw_controller.agent_records WHERE agent_id = ANY ($1) ORDER BY agent_id FOR UPDATE";

/// Sets where agents are and, if `$4` or `$5` is given, since when; where there is none yet. `$1` ids, `$2` gateways, `$3` ids
/// on the gateway, `$4` whether they are being registered now, `$5` when they were first provisioned.
const SETTLE: &str = "
    INSERT INTO openclaw_controller.agent_records AS r
           (agent_id, placement_gateway_id, placement_agent_id, registering_since, first_provisioned_at)
    SELECT i.id, i.gateway, i.name, CASE WHEN $4 THEN clock_timestamp() END, $5
      FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS i (id, gateway, name)
     ORDER BY i.id
    ON CONFLICT (agent_id) DO UPDATE
       SET placement_gateway_id = coalesce(r.placement_gateway_id, excluded.placement_gateway_id),
           placement_agent_id = coalesce(r.placement_agent_id, excluded.placement_agent_id),
           registering_since = coalesce(r.registering_since, excluded.registering_since),
           first_provisioned_at = coalesce(r.first_provisioned_at, excluded.first_provisioned_at)
     WHERE r.placement_gateway_id IS NULL
        OR (r.registering_since IS NULL AND excluded.registering_since IS NOT NULL)
        OR (r.first_provisioned_at IS NULL AND excluded.first_provisioned_at IS NOT NULL)";

/// Whether [`SETTLE`] would write. `$1` ids, `$2` and `$3` which of the times is to be set.
const UNSETTLED: &str = "
    SELECT EXISTS (
        SELECT FROM unnest($1::uuid[]) AS i (id) LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = i.id
         WHERE r.placement_gateway_id IS NULL OR ($2 AND r.registering_since IS NULL)
            OR ($3 AND r.first_provisioned_at IS NULL))";

impl PgStore {
    pub(super) async fn count_generations(
        &self,
        fence: &Fence,
        digests: &[(ObjectRef, GatewayId, String)],
    ) -> Result<Vec<(ObjectRef, i64)>, StoreError> {
        let (kinds, ids): (Vec<_>, Vec<_>) = digests.iter().map(|(object, ..)| object_parts(*object)).unzip();
        let homes: Vec<Uuid> = digests.iter().map(|(_, home, _)| home.0).collect();
        let digest: Vec<&str> = digests.iter().map(|(.., digest)| digest.as_str()).collect();
        let differs = sqlx::query_scalar(DIGESTS_DIFFER)
            .bind(&kinds)
            .bind(&ids)
            .bind(&homes)
            .bind(&digest);
        if !self.differs(fence, differs).await? {
            return Ok(Vec::new());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let rows = sqlx::query(COUNT_GENERATIONS)
            .bind(&kinds)
            .bind(&ids)
            .bind(&homes)
            .bind(&digest)
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        let mut counted = HashMap::with_capacity(rows.len());
        for row in rows {
            counted.insert(
                object_of(row.try_get("kind")?, row.try_get("id")?),
                row.try_get::<i64, _>("generation")?,
            );
        }
        Ok(digests
            .iter()
            .filter_map(|(object, ..)| counted.remove(object).map(|generation| (*object, generation)))
            .collect())
    }

    pub(super) async fn register(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        agents: &[(AgentId, GatewayAgentId)],
    ) -> Result<(), StoreError> {
        let placements: Vec<Placement> = agents
            .iter()
            .map(|(agent, name)| (*agent, gateway, name.clone()))
            .collect();
        self.settle(fence, &placements, true, None).await
    }

    pub(super) async fn settle(
        &self,
        fence: &Fence,
        agents: &[Placement],
        registering: bool,
        provisioned: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = agents.iter().map(|(id, ..)| id.0).collect();
        let gateways: Vec<Uuid> = agents.iter().map(|(_, gateway, _)| gateway.0).collect();
        let names: Vec<&str> = agents.iter().map(|(.., name)| name.as_str()).collect();
        let differs = sqlx::query_scalar(UNSETTLED)
            .bind(&ids)
            .bind(registering)
            .bind(provisioned.is_some());
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(SETTLE)
            .bind(&ids)
            .bind(&gateways)
            .bind(&names)
            .bind(registering)
            .bind(provisioned)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn store_first_provisioned(
        &self,
        fence: &Fence,
        agents: &[Placement],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = agents.iter().map(|(id, ..)| id.0).collect();
        let gateways: Vec<Uuid> = agents.iter().map(|(_, gateway, _)| gateway.0).collect();
        let names: Vec<&str> = agents.iter().map(|(.., name)| name.as_str()).collect();
        let differs = sqlx::query_scalar(
            "SELECT EXISTS (
                SELECT FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS i (id, gateway, name)
                  JOIN openclaw_controller.agent_records r ON r.agent_id = i.id AND r.first_provisioned_at IS NULL
                   AND r.placement_gateway_id = i.gateway AND r.placement_agent_id = i.name)",
        )
        .bind(&ids)
        .bind(&gateways)
        .bind(&names);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(LOCK).bind(&ids).execute(&mut *tx).await?;
        sqlx::query(
            "UPDATE openclaw_controller.agent_records r SET first_provisioned_at = $4
               FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS i (id, gateway, name)
              WHERE r.agent_id = i.id AND r.first_provisioned_at IS NULL
                AND r.placement_gateway_id = i.gateway AND r.placement_agent_id = i.name",
        )
        .bind(&ids)
        .bind(&gateways)
        .bind(&names)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn unsettle(&self, fence: &Fence, agents: &[AgentId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = agents.iter().map(|id| id.0).collect();
        let differs = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM openclaw_controller.agent_records WHERE agent_id = ANY ($1)
                AND (placement_gateway_id IS NOT NULL OR registering_since IS NOT NULL OR first_provisioned_at IS NOT NULL
                     OR woken_for IS NOT NULL OR wake_deadline IS NOT NULL OR wake_gave_up))",
        )
        .bind(&ids);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(LOCK).bind(&ids).execute(&mut *tx).await?;
        sqlx::query(
            "UPDATE openclaw_controller.agent_records
                SET placement_gateway_id = NULL, placement_agent_id = NULL, registering_since = NULL,
                    first_provisioned_at = NULL, woken_for = NULL, wake_attempts = 0, wake_deadline = NULL,
                    wake_gave_up = false
              WHERE agent_id = ANY ($1)",
        )
        .bind(&ids)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn forget_objects(&self, fence: &Fence, objects: &[ObjectRef]) -> Result<(), StoreError> {
        let (mut gateways, mut agents) = (Vec::new(), Vec::new());
        for object in objects {
            match object {
                ObjectRef::Gateway(id) => gateways.push(id.0),
                ObjectRef::Agent(id) => agents.push(id.0),
            }
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(
            "WITH gone AS MATERIALIZED (
                SELECT id FROM unnest($1::uuid[]) AS i (id) WHERE NOT EXISTS (SELECT FROM agents a WHERE a.id = i.id)),
             leftovers AS (
                INSERT INTO openclaw_controller.leftovers (gateway_id, gateway_agent_id, agent_id, since, reason)
                SELECT r.placement_gateway_id, r.placement_agent_id, r.agent_id, clock_timestamp(), 'RowDeleted'
                  FROM gone JOIN openclaw_controller.agent_records r ON r.agent_id = gone.id
                 WHERE r.placement_gateway_id IS NOT NULL AND r.registering_since IS NOT NULL
                ON CONFLICT DO NOTHING),
             verified AS (DELETE FROM openclaw_controller.verified_tokens t USING gone WHERE t.agent_id = gone.id),
             candidates AS (DELETE FROM openclaw_controller.token_candidates t USING gone WHERE t.agent_id = gone.id),
             mismatches AS (DELETE FROM openclaw_controller.token_mismatches t USING gone WHERE t.agent_id = gone.id),
             retired AS (DELETE FROM openclaw_controller.retired_tokens t
                          USING gone WHERE t.agent_id = gone.id OR t.until <= clock_timestamp()),
             requests AS (DELETE FROM openclaw_controller.agent_requests t USING gone WHERE t.agent_id = gone.id),
             undone AS (DELETE FROM openclaw_controller.undone_fields t
                         USING gone WHERE t.object_kind = 'agent' AND t.object_id = gone.id)
             DELETE FROM openclaw_controller.agent_records r USING gone WHERE r.agent_id = gone.id",
        )
        .bind(&agents)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "WITH gone AS MATERIALIZED (
                SELECT id FROM unnest($1::uuid[]) AS i (id) WHERE NOT EXISTS (SELECT FROM gateways g WHERE g.id = i.id)),
             restarts AS (DELETE FROM openclaw_controller.caused_restarts t USING gone WHERE t.gateway_id = gone.id),
             undone AS (DELETE FROM openclaw_controller.undone_fields t USING gone WHERE t.gateway_id = gone.id)
             DELETE FROM openclaw_controller.gateway_records r USING gone WHERE r.gateway_id = gone.id",
        )
        .bind(&gateways)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }
}
