//! Wakes: our record of them, and what the other program's columns show of it.

use chrono::{DateTime, NaiveDateTime, Utc};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::errors::About;
use super::{PgStore, rows};
use crate::model::{AgentId, WakeRecord, WakeState};
use crate::store::{Fence, StoreError};

/// An agent's wakes; the row's times within the bounds that every calendar has.
const LOAD: &str = "
    SELECT CASE WHEN a.last_seen_at IS NOT NULL
                THEN least(greatest(a.last_seen_at, '0001-01-01'), '9999-12-31') END AS last_seen_at,
           CASE WHEN a.last_wake_sent_at IS NOT NULL
                THEN least(greatest(a.last_wake_sent_at, '0001-01-01'), '9999-12-31') END AS last_wake_sent_at,
           r.woken_for, r.wake_asked, coalesce(r.wake_counter, 0) AS wake_counter,
           coalesce(r.wake_attempts, 0) AS wake_attempts, coalesce(r.wake_first, false) AS wake_first, r.wake_sent_at,
           r.wake_deadline, coalesce(r.wake_gave_up, false) AS wake_gave_up, r.wake_foreign
      FROM agents a LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id
     WHERE a.id = $1";

/// Writes the record, where it differs. `$1` the agent, `$2` to `$10` the columns in the order of [`bind`].
macro_rules! write_record {
    ($guard:literal) => {
        concat!(
            "INSERT INTO openclaw_controller.agent_records AS r
                (agent_id, woken_for, wake_asked, wake_counter, wake_attempts, wake_first, wake_sent_at, wake_deadline,
                 wake_gave_up, wake_foreign)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (agent_id) DO UPDATE
                SET woken_for = excluded.woken_for, wake_asked = excluded.wake_asked, wake_counter = excluded.wake_counter,
                    wake_attempts = excluded.wake_attempts, wake_first = excluded.wake_first,
                    wake_sent_at = excluded.wake_sent_at, wake_deadline = excluded.wake_deadline,
                    wake_gave_up = excluded.wake_gave_up, wake_foreign = excluded.wake_foreign
              WHERE (r.woken_for, r.wake_asked, r.wake_counter, r.wake_attempts, r.wake_first, r.wake_sent_at,
                     r.wake_deadline, r.wake_gave_up, r.wake_foreign)
                    IS DISTINCT FROM
                    (excluded.woken_for, excluded.wake_asked, excluded.wake_counter, excluded.wake_attempts,
                     excluded.wake_first, excluded.wake_sent_at, excluded.wake_deadline, excluded.wake_gave_up,
                     excluded.wake_foreign)",
            $guard
        )
    };
}

/// Whether the record is another than this. The arguments are those of [`write_record`].
const DIFFERS: &str = "
    SELECT NOT EXISTS (
        SELECT FROM openclaw_controller.agent_records r
         WHERE r.agent_id = $1
           AND (r.woken_for, r.wake_asked, r.wake_counter, r.wake_attempts, r.wake_first, r.wake_sent_at, r.wake_deadline,
                r.wake_gave_up, r.wake_foreign)
               IS NOT DISTINCT FROM ($2, $3, $4, $5, $6, $7, $8, $9, $10))";

/// Whether the row shows something else of a wake that ended. `$1` the agent, `$2` when the wake was sent, `$3` its attempts,
/// `$4` the status.
const ROW_DIFFERS: &str = "
    SELECT EXISTS (
        SELECT FROM agents WHERE id = $1 AND last_wake_sent_at = $2
           AND (checkin_deadline_at IS NOT NULL OR wake_attempts <> $3 OR status IS DISTINCT FROM $4))";

/// Whether both the record and the row are still those that were read, and the agent is to stay. `$1` the agent, `$2` the counter, `$3` the row's last
/// wake.
const AS_READ: &str = "
    SELECT EXISTS (
        SELECT FROM agents a LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id
         WHERE a.id = $1 AND a.delete_requested_at IS NULL AND coalesce(r.wake_counter, 0) = $2
           AND CASE WHEN a.last_wake_sent_at IS NOT NULL
                    THEN least(greatest(a.last_wake_sent_at, '0001-01-01'), '9999-12-31') END IS NOT DISTINCT FROM $3)";

fn bind<'q>(sql: &'static str, agent: AgentId, record: &'q WakeRecord) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .bind(agent.0)
        .bind(record.woken_for.as_deref())
        .bind(record.asked)
        .bind(record.counter)
        .bind(record.attempts)
        .bind(record.first)
        .bind(record.sent_at)
        .bind(record.deadline)
        .bind(record.gave_up)
        .bind(record.foreign)
}

/// As the other program's columns hold times.
fn naive(at: Option<DateTime<Utc>>) -> Option<NaiveDateTime> {
    at.map(|at| at.naive_utc())
}

impl PgStore {
    pub(super) async fn load_wake(&self, agent: AgentId) -> Result<Option<WakeState>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let row = sqlx::query(LOAD).bind(agent.0).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        session.done();
        let Some(row) = row else { return Ok(None) };
        let read = || -> Result<_, sqlx::Error> {
            let time = |column| -> Result<Option<DateTime<Utc>>, sqlx::Error> {
                Ok(row.try_get::<Option<NaiveDateTime>, _>(column)?.map(|at| at.and_utc()))
            };
            Ok(WakeState {
                record: rows::wake_record(&row)?,
                last_seen_at: time("last_seen_at")?,
                last_wake_sent_at: time("last_wake_sent_at")?,
            })
        };
        read().map(Some).about(|| format!("the wakes of agent {agent}"))
    }

    pub(super) async fn store_begun_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        read: &WakeState,
        begun: &WakeRecord,
    ) -> Result<bool, StoreError> {
        let as_read = sqlx::query_scalar(AS_READ)
            .bind(agent.0)
            .bind(read.record.counter)
            .bind(naive(read.last_wake_sent_at));
        // What is not written is not locked either. What changes from here on is caught below.
        if !self.differs(fence, as_read).await? {
            return Ok(false);
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        // The row first: it is the one that may be held by somebody for long, and it decides.
        let row = sqlx::query(
            "UPDATE agents SET last_wake_sent_at = $3, checkin_deadline_at = $4, wake_attempts = $5
              WHERE id = $1 AND delete_requested_at IS NULL
                AND CASE WHEN last_wake_sent_at IS NOT NULL
                         THEN least(greatest(last_wake_sent_at, '0001-01-01'), '9999-12-31') END
                    IS NOT DISTINCT FROM $2",
        )
        .bind(agent.0)
        .bind(naive(read.last_wake_sent_at))
        .bind(naive(begun.sent_at))
        .bind(naive(begun.deadline))
        .bind(begun.attempts)
        .execute(&mut *tx)
        .await
        .about(|| format!("the row of agent {agent}"))?
        .rows_affected();
        let written = row > 0
            && bind(write_record!(" AND r.wake_counter = $11"), agent, begun)
                .bind(read.record.counter)
                .execute(&mut *tx)
                .await
                .about(|| format!("record of agent {agent}"))?
                .rows_affected()
                > 0;
        if written {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        session.done();
        Ok(written)
    }

    pub(super) async fn store_ended_wake(
        &self,
        fence: &Fence,
        agent: AgentId,
        ended: &WakeRecord,
        status: &str,
    ) -> Result<(), StoreError> {
        let shown = sqlx::query_scalar(ROW_DIFFERS)
            .bind(agent.0)
            .bind(naive(ended.sent_at))
            .bind(ended.attempts)
            .bind(status);
        if !self.differs(fence, shown).await? {
            return self.store_wake_baseline(fence, agent, ended).await;
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(
            "UPDATE agents SET checkin_deadline_at = NULL, wake_attempts = $3, status = $4
              WHERE id = $1 AND last_wake_sent_at = $2
                AND (checkin_deadline_at IS NOT NULL OR wake_attempts <> $3 OR status IS DISTINCT FROM $4)",
        )
        .bind(agent.0)
        .bind(naive(ended.sent_at))
        .bind(ended.attempts)
        .bind(status)
        .execute(&mut *tx)
        .await
        .about(|| format!("the row of agent {agent}"))?;
        store_record(&mut tx, agent, ended).await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn store_wake_baseline(
        &self,
        fence: &Fence,
        agent: AgentId,
        baseline: &WakeRecord,
    ) -> Result<(), StoreError> {
        let differs = sqlx::query_scalar(DIFFERS)
            .bind(agent.0)
            .bind(baseline.woken_for.as_deref())
            .bind(baseline.asked)
            .bind(baseline.counter)
            .bind(baseline.attempts)
            .bind(baseline.first)
            .bind(baseline.sent_at)
            .bind(baseline.deadline)
            .bind(baseline.gave_up)
            .bind(baseline.foreign);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        store_record(&mut tx, agent, baseline).await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }
}

async fn store_record(tx: &mut PgConnection, agent: AgentId, record: &WakeRecord) -> Result<(), StoreError> {
    bind(write_record!(""), agent, record)
        .execute(tx)
        .await
        .about(|| format!("record of agent {agent}"))?;
    Ok(())
}
