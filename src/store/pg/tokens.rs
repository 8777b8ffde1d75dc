//! Hashes of tokens, candidates and verified pairs. No plaintext ever comes here.

use chrono::{DateTime, Utc};
use sqlx::Row;

use super::PgStore;
use super::errors::About;
use crate::model::AgentId;
use crate::store::{Candidate, Fence, StoreError, TokenState, VerifiedPair};

impl PgStore {
    pub(super) async fn load_tokens(&self, agent: AgentId) -> Result<TokenState, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let row = sqlx::query(
            "SELECT a.agent_token_hash, v.hash, v.token_sha256,
                    CASE WHEN m.hash IS NOT DISTINCT FROM a.agent_token_hash THEN m.since END AS since
               FROM (SELECT $1::uuid AS id) asked
               LEFT JOIN agents a ON a.id = asked.id
               LEFT JOIN openclaw_controller.verified_tokens v ON v.agent_id = asked.id
               LEFT JOIN openclaw_controller.token_mismatches m ON m.agent_id = asked.id",
        )
        .bind(agent.0)
        .fetch_one(&mut *tx)
        .await?;
        let candidates: Vec<(String, String, Option<String>, DateTime<Utc>)> = sqlx::query_as(
            "SELECT hash, token_sha256, replaces, created_at FROM openclaw_controller.token_candidates
              WHERE agent_id = $1 ORDER BY created_at, hash",
        )
        .bind(agent.0)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        let hash: Option<String> = row.try_get("hash")?;
        let token_sha256: Option<String> = row.try_get("token_sha256")?;
        Ok(TokenState {
            current_hash: row.try_get("agent_token_hash")?,
            verified: hash
                .zip(token_sha256)
                .map(|(hash, token_sha256)| VerifiedPair { hash, token_sha256 }),
            candidates: candidates
                .into_iter()
                .map(|(hash, token_sha256, replaces, created_at)| Candidate {
                    hash,
                    token_sha256,
                    replaces,
                    created_at,
                })
                .collect(),
            hash_unchanged_since: row.try_get("since")?,
        })
    }

    pub(super) async fn store_candidate(
        &self,
        fence: &Fence,
        agent: AgentId,
        candidate: &Candidate,
    ) -> Result<(), StoreError> {
        let differs = sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT FROM openclaw_controller.token_candidates WHERE agent_id = $1 AND hash = $2)",
        )
        .bind(agent.0)
        .bind(&candidate.hash);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(
            "INSERT INTO openclaw_controller.token_candidates (agent_id, hash, token_sha256, replaces, created_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(agent.0)
        .bind(&candidate.hash)
        .bind(&candidate.token_sha256)
        .bind(&candidate.replaces)
        .bind(candidate.created_at)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn promote_candidate(
        &self,
        fence: &Fence,
        agent: AgentId,
        expected_current: Option<&str>,
        candidate: &Candidate,
    ) -> Result<bool, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let promoted = sqlx::query(
            "WITH promoted AS (
                UPDATE agents SET agent_token_hash = $3
                 WHERE id = $1 AND agent_token_hash IS NOT DISTINCT FROM $2 RETURNING id)
             INSERT INTO openclaw_controller.verified_tokens (agent_id, hash, token_sha256)
             SELECT id, $3, $4 FROM promoted
             ON CONFLICT (agent_id) DO UPDATE SET hash = excluded.hash, token_sha256 = excluded.token_sha256",
        )
        .bind(agent.0)
        .bind(expected_current)
        .bind(&candidate.hash)
        .bind(&candidate.token_sha256)
        .execute(&mut *tx)
        .await
        .about(|| format!("the row of agent {agent}"))?
        .rows_affected()
            > 0;
        // The answer to an earlier attempt may have been lost.
        let is_current: bool = if promoted {
            true
        } else {
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM agents WHERE id = $1 AND agent_token_hash = $2)")
                .bind(agent.0)
                .bind(&candidate.hash)
                .fetch_one(&mut *tx)
                .await?
        };
        if promoted {
            sqlx::query("DELETE FROM openclaw_controller.token_mismatches WHERE agent_id = $1")
                .bind(agent.0)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        session.done();
        Ok(is_current)
    }

    pub(super) async fn remember_pair(
        &self,
        fence: &Fence,
        agent: AgentId,
        hash: &str,
        token_sha256: &str,
    ) -> Result<(), StoreError> {
        let differs = sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT FROM openclaw_controller.verified_tokens
                                 WHERE agent_id = $1 AND hash = $2 AND token_sha256 = $3)
                 OR EXISTS (SELECT FROM openclaw_controller.token_mismatches WHERE agent_id = $1)",
        )
        .bind(agent.0)
        .bind(hash)
        .bind(token_sha256);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(
            "WITH settled AS (DELETE FROM openclaw_controller.token_mismatches WHERE agent_id = $1)
             INSERT INTO openclaw_controller.verified_tokens (agent_id, hash, token_sha256) VALUES ($1, $2, $3)
             ON CONFLICT (agent_id) DO UPDATE SET hash = excluded.hash, token_sha256 = excluded.token_sha256",
        )
        .bind(agent.0)
        .bind(hash)
        .bind(token_sha256)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn remember_mismatch(
        &self,
        fence: &Fence,
        agent: AgentId,
        current_hash: Option<&str>,
    ) -> Result<DateTime<Utc>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let known: Option<DateTime<Utc>> = sqlx::query_scalar(
            "SELECT since FROM openclaw_controller.token_mismatches WHERE agent_id = $1 AND hash IS NOT DISTINCT FROM $2",
        )
        .bind(agent.0)
        .bind(current_hash)
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        if let Some(since) = known {
            self.differs(fence, sqlx::query_scalar("SELECT false")).await?;
            return Ok(since);
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let since = sqlx::query_scalar(
            "INSERT INTO openclaw_controller.token_mismatches AS m (agent_id, hash, since)
             VALUES ($1, $2, clock_timestamp())
             ON CONFLICT (agent_id) DO UPDATE SET hash = excluded.hash, since = excluded.since RETURNING since",
        )
        .bind(agent.0)
        .bind(current_hash)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(since)
    }

    pub(super) async fn clear_candidates(&self, fence: &Fence, agent: AgentId) -> Result<(), StoreError> {
        const OTHERS: &str =
            "agent_id = $1 AND hash IS DISTINCT FROM (SELECT a.agent_token_hash FROM agents a WHERE a.id = $1)";
        let exists = format!("SELECT EXISTS (SELECT FROM openclaw_controller.token_candidates WHERE {OTHERS})");
        let differs = sqlx::query_scalar(sqlx::AssertSqlSafe(exists)).bind(agent.0);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let delete = format!("DELETE FROM openclaw_controller.token_candidates WHERE {OTHERS}");
        sqlx::query(sqlx::AssertSqlSafe(delete))
            .bind(agent.0)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }
}
