//! Heartbeats of agents.

use chrono::NaiveDateTime;
use uuid::Uuid;

use super::PgStore;
use super::errors::About;
use crate::model::AgentId;
use crate::store::checkin::same_digest;
use crate::store::{CheckInStore, CheckedIn, StoreError};

/// Whose token it is. A candidate counts while its promotion would replace exactly the hash that is there: after that it is
/// the verified pair, and later the retired token. `$1` the digest.
const FIND: &str = "
    SELECT f.agent_id, f.token_sha256 FROM (
        SELECT v.agent_id, v.token_sha256, 0 AS place
          FROM openclaw_controller.verified_tokens v JOIN agents a ON a.id = v.agent_id
         WHERE v.token_sha256 = $1 AND a.agent_token_hash = v.hash
        UNION ALL
        SELECT c.agent_id, c.token_sha256, 1
          FROM openclaw_controller.token_candidates c JOIN agents a ON a.id = c.agent_id
         WHERE c.token_sha256 = $1 AND c.replaces IS NOT DISTINCT FROM a.agent_token_hash
        UNION ALL
        SELECT r.agent_id, r.token_sha256, 2
          FROM openclaw_controller.retired_tokens r JOIN agents a ON a.id = r.agent_id
         WHERE r.token_sha256 = $1 AND r.until > clock_timestamp()) f
     ORDER BY f.place, f.agent_id LIMIT 1";

/// What a heartbeat does to the row. `$1` the agent.
const SEEN: &str = "
    UPDATE agents
       SET last_seen_at = clock_timestamp() AT TIME ZONE 'UTC',
           status = CASE WHEN delete_requested_at IS NULL THEN 'online' ELSE status END,
           wake_attempts = CASE WHEN delete_requested_at IS NULL THEN 0 ELSE wake_attempts END,
           checkin_deadline_at = CASE WHEN delete_requested_at IS NOT NULL THEN checkin_deadline_at END,
           last_provision_error = CASE WHEN delete_requested_at IS NOT NULL THEN last_provision_error END
     WHERE id = $1
    RETURNING coalesce(name, ''), coalesce(status, ''), last_seen_at";

impl CheckInStore for PgStore {
    async fn check_in(&self, token_sha256: &str) -> Result<Option<CheckedIn>, StoreError> {
        self.bounded(async {
            let mut session = self.session_of(&self.check_in_pool).await?;
            let mut tx = self.begin_write(&mut session).await?;
            let found: Option<(Uuid, String)> =
                sqlx::query_as(FIND).bind(token_sha256).fetch_optional(&mut *tx).await?;
            let agent = found.filter(|(_, digest)| same_digest(digest, token_sha256));
            let seen = match agent {
                None => None,
                Some((agent, _)) => {
                    let row: Option<(String, String, NaiveDateTime)> = sqlx::query_as(SEEN)
                        .bind(agent)
                        .fetch_optional(&mut *tx)
                        .await
                        .about(|| format!("the row of agent {agent}"))?;
                    row.map(|(name, status, seen)| CheckedIn {
                        agent: AgentId(agent),
                        name,
                        status,
                        last_seen_at: seen.and_utc(),
                    })
                }
            };
            tx.commit().await?;
            session.done();
            Ok(seen)
        })
        .await
    }
}
