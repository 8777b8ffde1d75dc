//! Write transactions that land only while their lease is held.

use sqlx::postgres::PgArguments;
use sqlx::query::QueryScalar;
use sqlx::{Postgres, Transaction};

use super::errors::About;
use super::{PgStore, Session};
use crate::store::{Fence, StoreError};

impl PgStore {
    /// Begins a transaction that reads everything as of one instant and cannot write.
    pub(super) async fn begin_read<'a>(
        &self,
        session: &'a mut Session,
    ) -> Result<Transaction<'a, Postgres>, StoreError> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = {}",
            self.options.statement_timeout.as_millis()
        );
        session.begin(begin).await
    }

    /// Begins a transaction that waits for locks no longer than the options say, and that the server ends when this process
    /// stops in the middle of it.
    pub(super) async fn begin_write<'a>(
        &self,
        session: &'a mut Session,
    ) -> Result<Transaction<'a, Postgres>, StoreError> {
        // Our statements follow each other at once: a pause means that this process is frozen or gone, and the next holder
        // of the lease waits for this transaction.
        let lock_timeout = self.options.lock_timeout.as_millis();
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {lock_timeout}; SET LOCAL \
             idle_in_transaction_session_timeout = {lock_timeout}",
            self.options.statement_timeout.as_millis(),
        );
        session.begin(begin).await
    }

    /// Begins a write under a lease, and holds the lease's term still until its end.
    ///
    /// A term in the WHERE clause of the write alone would not do: an UPDATE that waited for a row writes after the term has
    /// moved on. `FOR KEY SHARE` keeps a takeover (`FOR UPDATE`) waiting, but not a renewal, which changes no key.
    pub(super) async fn begin_fenced<'a>(
        &self,
        session: &'a mut Session,
        fence: &Fence,
    ) -> Result<Transaction<'a, Postgres>, StoreError> {
        let mut tx = self.begin_write(session).await?;
        let held: Option<i32> = sqlx::query_scalar(
            "SELECT 1 FROM openclaw_controller.leases WHERE scope = $1 AND holder = $2 AND term = $3 FOR KEY SHARE",
        )
        .bind(&fence.scope)
        .bind(&fence.holder)
        .bind(fence.term)
        .fetch_optional(&mut *tx)
        .await
        .about(|| format!("lease `{}`", fence.scope))?;
        if held.is_none() {
            return Err(fenced(fence));
        }
        Ok(tx)
    }

    /// Asks, without locking or writing anything, whether there is something to write; the lease must be held for that too.
    pub(super) async fn differs(
        &self,
        fence: &Fence,
        query: QueryScalar<'_, Postgres, bool, PgArguments>,
    ) -> Result<bool, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let held: Option<i32> = sqlx::query_scalar(
            "SELECT 1 FROM openclaw_controller.leases WHERE scope = $1 AND holder = $2 AND term = $3",
        )
        .bind(&fence.scope)
        .bind(&fence.holder)
        .bind(fence.term)
        .fetch_optional(&mut *tx)
        .await?;
        if held.is_none() {
            return Err(fenced(fence));
        }
        let differs = query.fetch_one(&mut *tx).await?;
        tx.commit().await?;
        session.done();
        Ok(differs)
    }
}

/// The lease has moved on.
fn fenced(fence: &Fence) -> StoreError {
    StoreError::Fenced {
        scope: fence.scope.clone(),
        term: fence.term,
    }
}
