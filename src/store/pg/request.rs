//! Requests for agents.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::{PgStore, rows};
use crate::model::{AgentId, BoardId, Conditions};
use crate::store::request::{pause_word, unknown};
use crate::store::{AgentSelector, RequestStore, Requested, RotationProgress, StoreError};

impl RequestStore for PgStore {
    async fn request_rotation(&self, of: &AgentSelector) -> Result<Requested, StoreError> {
        self.bounded(self.ask(of, "rotate_requested_at")).await
    }

    async fn request_wake(&self, of: &AgentSelector) -> Result<Requested, StoreError> {
        self.bounded(self.ask(of, "wake_requested_at")).await
    }

    async fn set_paused(&self, boards: &[BoardId], paused: bool) -> Result<Vec<BoardId>, StoreError> {
        self.bounded(self.say_in_chats(boards, paused)).await
    }

    async fn rotation_progress(&self, agents: &[AgentId]) -> Result<Vec<RotationProgress>, StoreError> {
        self.bounded(self.load_progress(agents)).await
    }
}

impl PgStore {
    /// Sets a column of the requests for agents to the present time.
    async fn ask(&self, of: &AgentSelector, column: &'static str) -> Result<Requested, StoreError> {
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
        let missing = missing(&mut tx, table, &ids).await?;
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
        let insert = format!(
            "INSERT INTO openclaw_controller.agent_requests (agent_id, {column})
             SELECT id, $2 FROM unnest($1::uuid[]) WITH ORDINALITY AS i (id, place) ORDER BY place
             ON CONFLICT (agent_id) DO UPDATE SET {column} = excluded.{column}"
        );
        sqlx::query(AssertSqlSafe(insert))
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

    async fn say_in_chats(&self, boards: &[BoardId], paused: bool) -> Result<Vec<BoardId>, StoreError> {
        let ids: Vec<Uuid> = boards.iter().map(|id| id.0).collect();
        let mut session = self.session().await?;
        let mut tx = self.begin_write(&mut session).await?;
        let missing = missing(&mut tx, "boards", &ids).await?;
        if !missing.is_empty() {
            tx.rollback().await?;
            session.done();
            return Err(unknown("board", &missing));
        }
        let is_paused = async |tx: &mut PgConnection| -> Result<HashSet<Uuid>, sqlx::Error> {
            let paused: Vec<Uuid> = sqlx::query_scalar(rows::PAUSED).bind(&ids).fetch_all(tx).await?;
            Ok(paused.into_iter().collect())
        };
        let before = is_paused(&mut tx).await?;
        let differs = |id: &Uuid| before.contains(id) != paused;
        let mut to_tell: Vec<Uuid> = ids.iter().copied().filter(differs).collect();
        to_tell.sort_unstable();
        to_tell.dedup();
        // Newer than every word before it, whatever clock that was dated by.
        sqlx::query(
            "INSERT INTO board_memory (id, board_id, content, is_chat, source, created_at)
             SELECT gen_random_uuid(), i.id, $2, true, 'openclaw-controller',
                    greatest(clock_timestamp() AT TIME ZONE 'UTC',
                             (SELECT max(m.created_at) + interval '1 microsecond' FROM board_memory m
                               WHERE m.board_id = i.id AND m.is_chat AND m.created_at < 'infinity'))
               FROM unnest($1::uuid[]) AS i (id)",
        )
        .bind(&to_tell)
        .bind(pause_word(paused))
        .execute(&mut *tx)
        .await?;
        let after = is_paused(&mut tx).await?;
        if let Some(deaf) = to_tell.iter().find(|id| after.contains(*id) != paused) {
            return Err(StoreError::BadData {
                object: format!("board {deaf}"),
                problem: "its chat (board_memory) has a /pause or /resume whose created_at is `infinity`, so nothing newer can be \
                          said and nothing was; correct that row"
                    .to_owned(),
            });
        }
        tx.commit().await?;
        session.done();
        Ok(to_tell.into_iter().map(BoardId).collect())
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

/// Those of the ids that have no row in a table.
async fn missing(tx: &mut PgConnection, table: &str, ids: &[Uuid]) -> Result<Vec<String>, sqlx::Error> {
    let known = format!("SELECT id FROM {table} WHERE id = ANY ($1)");
    let known: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(known)).bind(ids).fetch_all(tx).await?;
    let known: HashSet<Uuid> = known.into_iter().collect();
    let missing = ids.iter().filter(|id| !known.contains(*id));
    Ok(missing.map(ToString::to_string).collect())
}
