//! Requests for agents.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::PgStore;
use crate::model::{AgentId, Conditions};
use crate::store::request::unknown;
use crate::store::{AgentSelector, RequestStore, Requested, RotationProgress, StoreError};

impl RequestStore for PgStore {
    async fn request_rotation(&self, of: &AgentSelector) -> Result<Requested, StoreError> {
        self.bounded(self.ask_rotation(of)).await
    }

    async fn rotation_progress(&self, agents: &[AgentId]) -> Result<Vec<RotationProgress>, StoreError> {
        self.bounded(self.load_progress(agents)).await
    }
}

impl PgStore {
    async fn ask_rotation(&self, of: &AgentSelector) -> Result<Requested, StoreError> {
        let (kind, table, ids, selected): (_, _, Vec<Uuid>, _) = match of {
            AgentSelector::Agents(ids) => (
                "agent",
                "agents",
                ids.iter().map(|id| id.0).collect(),
                "a.id = ANY ($1)",
            ),
            AgentSelector::Boards(ids) => (
                "board",
                "boards",
                ids.iter().map(|id| id.0).collect(),
                "a.board_id = ANY ($1)",
            ),
            AgentSelector::Gateways(ids) => (
                "gateway",
                "gateways",
                ids.iter().map(|id| id.0).collect(),
                "coalesce(b.gateway_id, a.gateway_id) = ANY ($1)",
            ),
            AgentSelector::All => ("agent", "agents", Vec::new(), "$1::uuid[] IS NOT NULL"),
        };
        let mut session = self.session().await?;
        let mut tx = self.begin_write(&mut session).await?;
        let known = format!("SELECT id FROM {table} WHERE id = ANY ($1)");
        let known: HashSet<Uuid> = sqlx::query_scalar(AssertSqlSafe(known))
            .bind(&ids)
            .fetch_all(&mut *tx)
            .await?
            .into_iter()
            .collect();
        let missing: Vec<String> = ids
            .iter()
            .filter(|id| !known.contains(*id))
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            tx.rollback().await?;
            session.done();
            return Err(unknown(kind, &missing));
        }
        let found = format!(
            "SELECT a.id, a.delete_requested_at IS NOT NULL FROM agents a LEFT JOIN boards b ON b.id = a.board_id
              WHERE {selected} ORDER BY a.id"
        );
        let found: Vec<(Uuid, bool)> = sqlx::query_as(AssertSqlSafe(found))
            .bind(&ids)
            .fetch_all(&mut *tx)
            .await?;
        let (agents, deleting): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, deleting)| !deleting);
        let agents: Vec<Uuid> = agents.into_iter().map(|(id, _)| id).collect();
        let at: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&mut *tx)
            .await?;
        // In the order of the ids, like everybody who asks at the same time.
        sqlx::query(
            "INSERT INTO openclaw_controller.agent_requests (agent_id, rotate_requested_at)
             SELECT id, $2 FROM unnest($1::uuid[]) WITH ORDINALITY AS i (id, place) ORDER BY place
             ON CONFLICT (agent_id) DO UPDATE SET rotate_requested_at = excluded.rotate_requested_at",
        )
        .bind(&agents)
        .bind(at)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(Requested {
            at,
            agents: agents.into_iter().map(AgentId).collect(),
            deleting: deleting.len(),
        })
    }

    async fn load_progress(&self, agents: &[AgentId]) -> Result<Vec<RotationProgress>, StoreError> {
        let ids: Vec<Uuid> = agents.iter().map(|id| id.0).collect();
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let rows = sqlx::query(
            "SELECT a.id, coalesce(a.name, '') AS name, q.rotate_requested_at, r.rotated_for,
                    r.conditions::text AS conditions, g.conditions::text AS gateway_conditions
               FROM unnest($1::uuid[]) AS asked (id)
               JOIN agents a ON a.id = asked.id
               LEFT JOIN boards b ON b.id = a.board_id
               LEFT JOIN openclaw_controller.agent_requests q ON q.agent_id = a.id
               LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id
               LEFT JOIN openclaw_controller.gateway_records g ON g.gateway_id = coalesce(b.gateway_id, a.gateway_id)
              ORDER BY a.id",
        )
        .bind(&ids)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        rows.iter()
            .map(|row| {
                let conditions = |column: &str| -> Result<Conditions, sqlx::Error> {
                    let json: Option<String> = row.try_get(column)?;
                    Ok(json
                        .and_then(|json| serde_json::from_str(&json).ok())
                        .unwrap_or_default())
                };
                Ok(RotationProgress {
                    agent: AgentId(row.try_get("id")?),
                    name: row.try_get("name")?,
                    requested: row.try_get("rotate_requested_at")?,
                    rotated_for: row.try_get("rotated_for")?,
                    conditions: conditions("conditions")?,
                    gateway: conditions("gateway_conditions")?,
                })
            })
            .collect()
    }
}
