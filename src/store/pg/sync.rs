//! One-shot syncs.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::PgStore;
use super::errors::About;
use crate::model::{AgentId, GatewayId, SyncId, SyncOptions, SyncRequest, SyncResult, SyncedAgent};
use crate::store::sync::{GATEWAYS_ARE_LISTED, KEPT_FOR, USERS_ARE_LISTED, unknown};
use crate::store::{Fence, StoreError, SyncProgress, SyncStore};

/// Whether a request is too old to be kept. `$1`: how long one is kept, in seconds.
macro_rules! old {
    () => {
        "requested_at < clock_timestamp() - make_interval(secs => $1)"
    };
}

impl SyncStore for PgStore {
    async fn request_sync(&self, gateway: GatewayId, options: &SyncOptions) -> Result<SyncId, StoreError> {
        self.bounded(self.ask_sync(gateway, options)).await
    }

    async fn sync_progress(&self, sync: SyncId) -> Result<Option<SyncProgress>, StoreError> {
        self.bounded(self.load_sync_progress(sync)).await
    }

    async fn withdraw_sync(&self, sync: SyncId, unstarted: bool) -> Result<bool, StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_write(&mut session).await?;
            let removed = sqlx::query(
                "DELETE FROM openclaw_controller.sync_requests
                  WHERE id = $1 AND finished_at IS NULL AND (started_at IS NULL OR NOT $2)",
            )
            .bind(sync.0)
            .bind(unstarted)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(removed.rows_affected() > 0)
        })
        .await
    }

    async fn open_syncs(&self) -> Result<Vec<SyncRequest>, StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let rows = sqlx::query(concat!(
                "SELECT id, gateway_id, options::text AS options, requested_at
                   FROM openclaw_controller.sync_requests WHERE finished_at IS NULL AND NOT ",
                old!(),
                " ORDER BY requested_at, id"
            ))
            .bind(KEPT_FOR.as_secs_f64())
            .fetch_all(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            // What nobody can understand is nobody's to carry out, and goes away in time.
            rows.iter().filter_map(|row| request(row).transpose()).collect()
        })
        .await
    }

    async fn begin_sync(&self, fence: &Fence, sync: SyncId, agents: usize) -> Result<bool, StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_fenced(&mut session, fence).await?;
            sqlx::query(
                "UPDATE openclaw_controller.sync_requests
                    SET started_at = coalesce(started_at, clock_timestamp()), agents = $2
                  WHERE id = $1 AND finished_at IS NULL AND (started_at IS NULL OR agents IS DISTINCT FROM $2)",
            )
            .bind(sync.0)
            .bind(i32::try_from(agents).unwrap_or(i32::MAX))
            .execute(&mut *tx)
            .await?;
            let is_open = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM openclaw_controller.sync_requests WHERE id = $1 AND finished_at IS NULL)",
            )
            .bind(sync.0)
            .fetch_one(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(is_open)
        })
        .await
    }

    async fn synced_agents(&self, sync: SyncId) -> Result<Vec<SyncedAgent>, StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let rows = sqlx::query(
                "SELECT agent_id, updated, error::text AS error FROM openclaw_controller.sync_agents
                  WHERE sync_id = $1 AND updated IS NOT NULL",
            )
            .bind(sync.0)
            .fetch_all(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            rows.iter().map(synced).collect()
        })
        .await
    }

    async fn request_sync_rotation(
        &self,
        fence: &Fence,
        at: DateTime<Utc>,
        agents: &[AgentId],
    ) -> Result<(), StoreError> {
        self.bounded(async {
            let ids: Vec<Uuid> = agents.iter().map(|id| id.0).collect();
            let differs = sqlx::query_scalar(
                "SELECT EXISTS (
                    SELECT FROM agents a LEFT JOIN openclaw_controller.agent_requests r ON r.agent_id = a.id
                     WHERE a.id = ANY ($1) AND (r.rotate_requested_at IS NULL OR r.rotate_requested_at < $2))",
            )
            .bind(&ids)
            .bind(at);
            if !self.differs(fence, differs).await? {
                return Ok(());
            }
            let mut session = self.session().await?;
            let mut tx = self.begin_fenced(&mut session, fence).await?;
            // In the order of the ids, like everybody who asks at the same time.
            sqlx::query(
                "INSERT INTO openclaw_controller.agent_requests AS r (agent_id, rotate_requested_at)
                 SELECT a.id, $2 FROM agents a WHERE a.id = ANY ($1) ORDER BY a.id
                 ON CONFLICT (agent_id) DO UPDATE SET rotate_requested_at = excluded.rotate_requested_at
                  WHERE r.rotate_requested_at IS NULL OR r.rotate_requested_at < excluded.rotate_requested_at",
            )
            .bind(&ids)
            .bind(at)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(())
        })
        .await
    }

    async fn begin_sync_reset(&self, fence: &Fence, sync: SyncId, agent: AgentId) -> Result<bool, StoreError> {
        self.bounded(async {
            let differs = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM openclaw_controller.sync_requests WHERE id = $1 AND finished_at IS NULL)
                    AND NOT EXISTS (SELECT FROM openclaw_controller.sync_agents
                                     WHERE sync_id = $1 AND agent_id = $2 AND reset_at IS NOT NULL)",
            )
            .bind(sync.0)
            .bind(agent.0);
            if !self.differs(fence, differs).await? {
                return Ok(false);
            }
            let mut session = self.session().await?;
            let mut tx = self.begin_fenced(&mut session, fence).await?;
            let noted = sqlx::query(
                "INSERT INTO openclaw_controller.sync_agents AS s (sync_id, agent_id, reset_at)
                 SELECT id, $2, clock_timestamp() FROM openclaw_controller.sync_requests
                  WHERE id = $1 AND finished_at IS NULL FOR KEY SHARE
                 ON CONFLICT (sync_id, agent_id) DO UPDATE SET reset_at = excluded.reset_at WHERE s.reset_at IS NULL",
            )
            .bind(sync.0)
            .bind(agent.0)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(noted.rows_affected() > 0)
        })
        .await
    }

    async fn sync_resets(&self, sync: SyncId) -> Result<Vec<AgentId>, StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let ids: Vec<Uuid> = sqlx::query_scalar(
                "SELECT agent_id FROM openclaw_controller.sync_agents
                  WHERE sync_id = $1 AND reset_at IS NOT NULL ORDER BY agent_id",
            )
            .bind(sync.0)
            .fetch_all(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(ids.into_iter().map(AgentId).collect())
        })
        .await
    }

    async fn finish_sync_agent(&self, fence: &Fence, sync: SyncId, agent: &SyncedAgent) -> Result<(), StoreError> {
        self.bounded(async {
            let error = agent.error.as_ref().map(json).transpose()?;
            let differs = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM openclaw_controller.sync_requests WHERE id = $1)
                    AND NOT EXISTS (SELECT FROM openclaw_controller.sync_agents
                                     WHERE sync_id = $1 AND agent_id = $2 AND updated = $3
                                       AND error::text IS NOT DISTINCT FROM $4)",
            )
            .bind(sync.0)
            .bind(agent.agent.0)
            .bind(agent.updated)
            .bind(error.clone());
            if !self.differs(fence, differs).await? {
                return Ok(());
            }
            let mut session = self.session().await?;
            let mut tx = self.begin_fenced(&mut session, fence).await?;
            sqlx::query(
                "INSERT INTO openclaw_controller.sync_agents (sync_id, agent_id, updated, error)
                 SELECT id, $2, $3, $4::json FROM openclaw_controller.sync_requests WHERE id = $1 FOR KEY SHARE
                 ON CONFLICT (sync_id, agent_id) DO UPDATE SET updated = excluded.updated, error = excluded.error",
            )
            .bind(sync.0)
            .bind(agent.agent.0)
            .bind(agent.updated)
            .bind(error)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(())
        })
        .await
    }

    async fn finish_sync(&self, fence: &Fence, sync: SyncId, result: &SyncResult) -> Result<(), StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_fenced(&mut session, fence).await?;
            sqlx::query(
                "UPDATE openclaw_controller.sync_requests
                    SET started_at = coalesce(started_at, clock_timestamp()), finished_at = clock_timestamp(),
                        result = $2::json
                  WHERE id = $1 AND finished_at IS NULL",
            )
            .bind(sync.0)
            .bind(json(result)?)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(())
        })
        .await
    }

    async fn drop_old_syncs(&self, fence: &Fence) -> Result<(), StoreError> {
        self.bounded(async {
            let differs = sqlx::query_scalar(concat!(
                "SELECT EXISTS (SELECT FROM openclaw_controller.sync_requests WHERE ",
                old!(),
                ")"
            ))
            .bind(KEPT_FOR.as_secs_f64());
            if !self.differs(fence, differs).await? {
                return Ok(());
            }
            let mut session = self.session().await?;
            let mut tx = self.begin_fenced(&mut session, fence).await?;
            sqlx::query(DROP_OLD)
                .bind(KEPT_FOR.as_secs_f64())
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            session.done();
            Ok(())
        })
        .await
    }
}

/// Removes requests that are too old, those aside that somebody else is removing.
const DROP_OLD: &str = concat!(
    "DELETE FROM openclaw_controller.sync_requests WHERE id IN (
        SELECT id FROM openclaw_controller.sync_requests WHERE ",
    old!(),
    " FOR UPDATE SKIP LOCKED)"
);

impl PgStore {
    async fn ask_sync(&self, gateway: GatewayId, options: &SyncOptions) -> Result<SyncId, StoreError> {
        let id = Uuid::new_v4();
        let mut session = self.session().await?;
        let mut tx = self.begin_write(&mut session).await?;
        let (has_gateway, has_user): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM gateways WHERE id = $1), $2::uuid IS NULL OR EXISTS (SELECT FROM users WHERE id = $2)",
        )
        .bind(gateway.0)
        .bind(options.user)
        .fetch_one(&mut *tx)
        .await?;
        if !has_gateway || !has_user {
            tx.rollback().await?;
            session.done();
            return Err(match options.user {
                Some(user) if has_gateway => unknown("user", &user, USERS_ARE_LISTED),
                _ => unknown("gateway", &gateway, GATEWAYS_ARE_LISTED),
            });
        }
        if let Some(user) = options.user {
            sqlx::query(
                "INSERT INTO openclaw_controller.gateway_settings AS s (gateway_id, user_id) VALUES ($1, $2)
                 ON CONFLICT (gateway_id) DO UPDATE SET user_id = excluded.user_id
                  WHERE s.user_id IS DISTINCT FROM excluded.user_id",
            )
            .bind(gateway.0)
            .bind(user)
            .execute(&mut *tx)
            .await
            .about(|| format!("the settings of gateway {gateway}"))?;
        }
        sqlx::query(
            "INSERT INTO openclaw_controller.sync_requests (id, gateway_id, options) VALUES ($1, $2, $3::json)",
        )
        .bind(id)
        .bind(gateway.0)
        .bind(json(options)?)
        .execute(&mut *tx)
        .await?;
        sqlx::query(DROP_OLD)
            .bind(KEPT_FOR.as_secs_f64())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(SyncId(id))
    }

    async fn load_sync_progress(&self, sync: SyncId) -> Result<Option<SyncProgress>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let row = sqlx::query(
            "SELECT started_at IS NOT NULL AS started, agents, finished_at IS NOT NULL AS finished, result::text AS result,
                    (SELECT count(*) FROM openclaw_controller.sync_agents a
                      WHERE a.sync_id = r.id AND a.updated IS NOT NULL) AS done
               FROM openclaw_controller.sync_requests r WHERE id = $1",
        )
        .bind(sync.0)
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        let Some(row) = row else { return Ok(None) };
        let agents: Option<i32> = row.try_get("agents")?;
        let done: i64 = row.try_get("done")?;
        let result: Option<String> = row.try_get("result")?;
        let result = match result.filter(|_| row.try_get("finished").unwrap_or(false)) {
            None => None,
            Some(text) => Some(serde_json::from_str(&text).map_err(|error| StoreError::BadData {
                object: format!("the result of sync {}", sync.0),
                problem: error.to_string(),
            })?),
        };
        Ok(Some(SyncProgress {
            started: row.try_get("started")?,
            agents: agents.and_then(|agents| usize::try_from(agents).ok()),
            done: usize::try_from(done).unwrap_or_default(),
            result,
        }))
    }
}

/// A row of `sync_requests`; `None` if its options are not to be understood.
fn request(row: &PgRow) -> Result<Option<SyncRequest>, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let options: String = row.try_get("options")?;
    let options = match serde_json::from_str(&options) {
        Ok(options) => options,
        Err(error) => {
            tracing::warn!(sync = %id, %error, "a request for a sync has options that cannot be understood; it is left alone");
            return Ok(None);
        }
    };
    Ok(Some(SyncRequest {
        id: SyncId(id),
        gateway: GatewayId(row.try_get("gateway_id")?),
        options,
        requested_at: row.try_get("requested_at")?,
    }))
}

fn synced(row: &PgRow) -> Result<SyncedAgent, StoreError> {
    let agent = AgentId(row.try_get("agent_id")?);
    let error: Option<String> = row.try_get("error")?;
    let error = error.map(|text| serde_json::from_str(&text)).transpose();
    Ok(SyncedAgent {
        agent,
        updated: row.try_get("updated")?,
        error: error.map_err(|error| StoreError::BadData {
            object: format!("what a sync noted of agent {agent}"),
            problem: error.to_string(),
        })?,
    })
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Other(error.to_string()))
}
