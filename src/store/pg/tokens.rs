//! Hashes of tokens, candidates and verified pairs. No plaintext ever comes here.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::PgStore;
use super::errors::About;
use crate::model::AgentId;
use crate::store::record::earlier_by_a_lifetime;
use crate::store::{Candidate, Fence, ROTATION_GRACE, StoreError, TokenState, VerifiedPair};

fn candidate(row: &PgRow) -> Result<Candidate, sqlx::Error> {
    Ok(Candidate {
        hash: row.try_get("hash")?,
        token_sha256: row.try_get("token_sha256")?,
        replaces: row.try_get("replaces")?,
        created_at: row.try_get("created_at")?,
        rotates: row.try_get("rotates")?,
    })
}

impl PgStore {
    pub(super) async fn load_tokens(&self, agent: AgentId) -> Result<TokenState, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let row = sqlx::query(
            "SELECT a.agent_token_hash, v.hash, v.token_sha256, v.since AS verified_since, r.rotated_for,
                    CASE WHEN m.hash IS NOT DISTINCT FROM a.agent_token_hash THEN m.since END AS since
               FROM (SELECT $1::uuid AS id) asked
               LEFT JOIN agents a ON a.id = asked.id
               LEFT JOIN openclaw_controller.verified_tokens v ON v.agent_id = asked.id
               LEFT JOIN openclaw_controller.token_mismatches m ON m.agent_id = asked.id
               LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = asked.id",
        )
        .bind(agent.0)
        .fetch_one(&mut *tx)
        .await?;
        let candidates = sqlx::query(
            "SELECT hash, token_sha256, replaces, created_at, rotates FROM openclaw_controller.token_candidates
              WHERE agent_id = $1 ORDER BY created_at, hash",
        )
        .bind(agent.0)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        let hash: Option<String> = row.try_get("hash")?;
        let token_sha256: Option<String> = row.try_get("token_sha256")?;
        let since: Option<DateTime<Utc>> = row.try_get("verified_since")?;
        Ok(TokenState {
            current_hash: row.try_get("agent_token_hash")?,
            verified: hash
                .zip(token_sha256)
                .zip(since)
                .map(|((hash, token_sha256), since)| VerifiedPair {
                    hash,
                    token_sha256,
                    since,
                }),
            candidates: candidates.iter().map(candidate).collect::<Result<_, _>>()?,
            hash_unchanged_since: row.try_get("since")?,
            rotated_for: row.try_get("rotated_for")?,
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
            "INSERT INTO openclaw_controller.token_candidates
                    (agent_id, hash, token_sha256, replaces, created_at, rotates)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(agent.0)
        .bind(&candidate.hash)
        .bind(&candidate.token_sha256)
        .bind(&candidate.replaces)
        .bind(candidate.created_at)
        .bind(candidate.rotates)
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
            // Every part sees the tables as they were before all of them: `retired` finds the pair that is replaced.
            "WITH promoted AS (
                UPDATE agents SET agent_token_hash = $3
                 WHERE id = $1 AND agent_token_hash IS NOT DISTINCT FROM $2 RETURNING id),
             retired AS (
                INSERT INTO openclaw_controller.retired_tokens AS t (agent_id, token_sha256, until)
                SELECT v.agent_id, v.token_sha256, clock_timestamp() + make_interval(secs => $6)
                  FROM promoted JOIN openclaw_controller.verified_tokens v ON v.agent_id = promoted.id
                 WHERE v.hash = $2 AND v.token_sha256 <> $4
                ON CONFLICT (agent_id, token_sha256) DO UPDATE SET until = excluded.until),
             answered AS (
                INSERT INTO openclaw_controller.agent_records AS r (agent_id, rotated_for)
                SELECT id, $7::timestamptz FROM promoted WHERE $7::timestamptz IS NOT NULL
                ON CONFLICT (agent_id) DO UPDATE SET rotated_for = excluded.rotated_for)
             INSERT INTO openclaw_controller.verified_tokens (agent_id, hash, token_sha256, since)
             SELECT id, $3, $4, $5 FROM promoted
             ON CONFLICT (agent_id) DO UPDATE
                SET hash = excluded.hash, token_sha256 = excluded.token_sha256, since = excluded.since",
        )
        .bind(agent.0)
        .bind(expected_current)
        .bind(&candidate.hash)
        .bind(&candidate.token_sha256)
        .bind(candidate.created_at)
        .bind(ROTATION_GRACE.as_secs_f64())
        .bind(candidate.rotates)
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
            // Others promote at the same time: what one of them is removing already need not be waited for. Of the candidates,
            // the one that was the agent's is never to be it again, and no write of one from long before is under way.
            sqlx::query(
                "WITH expired AS (
                    SELECT agent_id, token_sha256 FROM openclaw_controller.retired_tokens
                     WHERE until <= clock_timestamp() FOR UPDATE SKIP LOCKED),
                 removed AS (
                    DELETE FROM openclaw_controller.retired_tokens t USING expired e
                     WHERE (t.agent_id, t.token_sha256) = (e.agent_id, e.token_sha256)),
                 overtaken AS (
                    DELETE FROM openclaw_controller.token_candidates
                     WHERE agent_id = $1 AND hash <> $3 AND (hash = $2 OR created_at < $4))
                 DELETE FROM openclaw_controller.token_mismatches WHERE agent_id = $1",
            )
            .bind(agent.0)
            .bind(expected_current)
            .bind(&candidate.hash)
            .bind(earlier_by_a_lifetime(candidate.created_at))
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
             INSERT INTO openclaw_controller.verified_tokens AS v (agent_id, hash, token_sha256, since)
             VALUES ($1, $2, $3, clock_timestamp())
             ON CONFLICT (agent_id) DO UPDATE
                SET hash = excluded.hash, token_sha256 = excluded.token_sha256,
                    since = CASE v.token_sha256 WHEN excluded.token_sha256 THEN v.since ELSE excluded.since END",
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
