//! Leases, by the database's clock.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::PgStore;
use super::errors::About;
use crate::store::{Fence, LeaseInfo, LeaseStore, StoreError};

/// Whether somebody else's lease may be taken: `$1` scope, `$2` who asks.
const FREE: &str = "scope = $1 AND (holder IS NULL OR holder = $2 OR expires_at <= clock_timestamp())";

impl LeaseStore for PgStore {
    async fn acquire(&self, scope: &str, holder: &str, ttl: Duration) -> Result<Option<i64>, StoreError> {
        self.bounded(async {
            let mut session = self.session_of(&self.lease_pool).await?;
            let mut tx = self.begin_write(&mut session).await?;
            // Looked at without a lock first: those who stand by ask every second, and must write nothing.
            let state: Option<bool> = sqlx::query_scalar(concat!(
                "SELECT holder IS NULL OR holder = $2 OR expires_at <= clock_timestamp() ",
                "FROM openclaw_controller.leases WHERE scope = $1"
            ))
            .bind(scope)
            .bind(holder)
            .fetch_optional(&mut *tx)
            .await?;
            let term: Option<i64> = match state {
                Some(false) => None,
                None => {
                    sqlx::query_scalar(
                        "INSERT INTO openclaw_controller.leases (scope, holder, term, expires_at)
                         VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
                         ON CONFLICT (scope) DO NOTHING RETURNING term",
                    )
                    .bind(scope)
                    .bind(holder)
                    .bind(ttl.as_secs_f64())
                    .fetch_optional(&mut *tx)
                    .await?
                }
                Some(true) => {
                    // Waits for writes under the earlier term, and looks again at what it finds after the wait.
                    let locked: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                        "SELECT term FROM openclaw_controller.leases WHERE {FREE} FOR UPDATE"
                    )))
                    .bind(scope)
                    .bind(holder)
                    .fetch_optional(&mut *tx)
                    .await
                    .about(|| format!("lease `{scope}`"))?;
                    match locked {
                        None => None,
                        Some(_) => {
                            sqlx::query_scalar(
                                "UPDATE openclaw_controller.leases
                                    SET holder = $2, term = term + 1,
                                        expires_at = clock_timestamp() + make_interval(secs => $3)
                                  WHERE scope = $1 RETURNING term",
                            )
                            .bind(scope)
                            .bind(holder)
                            .bind(ttl.as_secs_f64())
                            .fetch_optional(&mut *tx)
                            .await?
                        }
                    }
                }
            };
            tx.commit().await?;
            session.done();
            Ok(term)
        })
        .await
    }

    async fn renew(&self, fence: &Fence, ttl: Duration) -> Result<bool, StoreError> {
        self.bounded(async {
            let mut session = self.session_of(&self.lease_pool).await?;
            let mut tx = self.begin_write(&mut session).await?;
            let renewed = sqlx::query(
                "UPDATE openclaw_controller.leases SET expires_at = clock_timestamp() + make_interval(secs => $4)
                  WHERE scope = $1 AND holder = $2 AND term = $3",
            )
            .bind(&fence.scope)
            .bind(&fence.holder)
            .bind(fence.term)
            .bind(ttl.as_secs_f64())
            .execute(&mut *tx)
            .await
            .about(|| format!("lease `{}`", fence.scope))?;
            tx.commit().await?;
            session.done();
            Ok(renewed.rows_affected() > 0)
        })
        .await
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        self.bounded(async {
            let mut session = self.session_of(&self.lease_pool).await?;
            let mut tx = self.begin_write(&mut session).await?;
            sqlx::query(
                "UPDATE openclaw_controller.leases SET holder = NULL, expires_at = clock_timestamp()
                  WHERE scope = $1 AND holder = $2 AND term = $3",
            )
            .bind(&fence.scope)
            .bind(&fence.holder)
            .bind(fence.term)
            .execute(&mut *tx)
            .await
            .about(|| format!("lease `{}`", fence.scope))?;
            tx.commit().await?;
            session.done();
            Ok(())
        })
        .await
    }

    async fn current(&self, scope: &str) -> Result<Option<LeaseInfo>, StoreError> {
        self.bounded(async {
            let mut session = self.session_of(&self.lease_pool).await?;
            let mut tx = self.begin_read(&mut session).await?;
            let row: Option<(Option<String>, i64, DateTime<Utc>, bool)> = sqlx::query_as(
                "SELECT holder, term, expires_at, holder IS NOT NULL AND expires_at > clock_timestamp()
                   FROM openclaw_controller.leases WHERE scope = $1",
            )
            .bind(scope)
            .fetch_optional(&mut *tx)
            .await?;
            tx.commit().await?;
            session.done();
            Ok(row.map(|(holder, term, expires_at, held)| LeaseInfo {
                holder,
                term,
                expires_at,
                held,
            }))
        })
        .await
    }
}
