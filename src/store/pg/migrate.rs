//! The migrations, all or nothing.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};
use sqlx::{PgConnection, Postgres, Transaction};

use super::errors::About;
use super::{PgStore, check};
use crate::store::{SCHEMA, StoreError};

static EMBEDDED: Migrator = sqlx::migrate!("./migrations");

/// Where the applied migrations are written down.
const TABLE: &str = "openclaw_controller.migrations";

/// Any number: it only has to be the same for every migrating process of this program.
const ADVISORY_LOCK: i64 = 0x6f63_6c63_6d69_6772;

/// How long to wait for the tables on which triggers are created. Whoever comes after us waits behind us, so this is short.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often to try to get those locks, and how long to let others through in between.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// How long all of it may take: another process may be migrating, and indexes are only made on empty tables.
const DEADLINE: Duration = Duration::from_mins(2);

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The versions that were applied now; empty if there was nothing to do.
    pub applied: Vec<i64>,
    /// How many triggers were created now: all at first, and later those that another program's migration took away.
    pub triggers: i64,
    /// Whether the other program's tables were created, because the database had none.
    pub created_tables: bool,
}

impl PgStore {
    /// Brings the database to this program's version: creates all tables in an empty database, and only what is ours beside
    /// an existing installation. One transaction: after an error nothing has changed. Harmless to run again, or twice at once.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] names everything that stands in the way; [`StoreError::NewerSchema`] if a newer program was
    /// here before; [`StoreError::LockTimeout`] if the tables are too busy.
    pub async fn migrate(&self) -> Result<Migrated, StoreError> {
        let attempts = async {
            let mut attempt = 1;
            loop {
                match self.migrate_once().await {
                    Err(StoreError::LockTimeout(_)) if attempt < LOCK_ATTEMPTS => {
                        tracing::info!(attempt, "the tables are busy, trying again to create the triggers");
                        attempt += 1;
                        tokio::time::sleep(LOCK_PAUSE).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        tokio::time::timeout(DEADLINE, attempts).await.unwrap_or_else(|_| {
            Err(StoreError::Unreachable(format!(
                "no end of the migration within {DEADLINE:?}"
            )))
        })
    }

    async fn migrate_once(&self) -> Result<Migrated, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session
            .begin(format!("BEGIN; SET LOCAL statement_timeout = {}", DEADLINE.as_millis()))
            .await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(ADVISORY_LOCK)
            .execute(&mut *tx)
            .await?;
        // Only now, so that a second migration waits for the first one rather than giving up.
        sqlx::query("SELECT set_config('lock_timeout', $1, true)")
            .bind(LOCK_TIMEOUT.as_millis().to_string())
            .execute(&mut *tx)
            .await?;

        let before = applied(&mut tx).await?;
        refuse_newer(&before)?;
        let obstacles = check::obstacles(&mut tx).await?;
        if !obstacles.is_empty() {
            return Err(StoreError::Blocked(obstacles));
        }
        let created_tables: bool = sqlx::query_scalar("SELECT to_regclass('agents') IS NULL")
            .fetch_one(&mut *tx)
            .await?;

        let triggers = count_triggers(&mut tx).await?;
        let pending: Vec<i64> = versions().filter(|version| !before.contains(version)).collect();
        let busy = || "a table that needs a trigger".to_owned();
        if !pending.is_empty() {
            run(&mut tx).await.about(busy)?;
        }
        // A migration of the other program that makes a table anew takes our triggers with it.
        sqlx::query("SELECT openclaw_controller.install_hints()")
            .execute(&mut *tx)
            .await
            .about(busy)?;
        let triggers = count_triggers(&mut tx).await? - triggers;
        tx.commit().await?;
        session.done();
        Ok(Migrated {
            applied: pending,
            triggers,
            created_tables,
        })
    }

    /// Whether the database is at this program's version.
    ///
    /// # Errors
    /// [`StoreError::NotMigrated`] or [`StoreError::NewerSchema`] if it is not; or it cannot be asked.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        self.bounded(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let applied = applied(&mut tx).await?;
            tx.commit().await?;
            session.done();
            refuse_newer(&applied)?;
            let missing: Vec<String> = versions()
                .filter(|version| !applied.contains(version))
                .map(|version| version.to_string())
                .collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(StoreError::NotMigrated(format!("missing: {}", missing.join(", "))))
            }
        })
        .await
    }
}

fn versions() -> impl Iterator<Item = i64> {
    EMBEDDED.iter().map(|migration| migration.version)
}

fn refuse_newer(applied: &[i64]) -> Result<(), StoreError> {
    let known = versions().max().unwrap_or_default();
    match applied.iter().max() {
        Some(&found) if found > known => Err(StoreError::NewerSchema { found, known }),
        _ => Ok(()),
    }
}

/// The versions that were applied to this database.
async fn applied(tx: &mut Transaction<'_, Postgres>) -> Result<Vec<i64>, StoreError> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(TABLE)
        .fetch_one(&mut **tx)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    Ok(
        sqlx::query_scalar("SELECT version FROM openclaw_controller.migrations WHERE success ORDER BY version")
            .fetch_all(&mut **tx)
            .await?,
    )
}

/// Runs what is pending, inside the caller's transaction and under the caller's lock.
async fn run(conn: &mut PgConnection) -> Result<(), sqlx::migrate::MigrateError> {
    let mut migrator = Migrator {
        migrations: Cow::Borrowed::<[Migration]>(&EMBEDDED.migrations),
        locking: false,
        ..Migrator::DEFAULT
    };
    migrator.dangerous_set_table_name(TABLE);
    // Only where there is none: asking for it again takes a right that whoever was given the schema need not have.
    let schema_there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(SCHEMA)
        .fetch_one(&mut *conn)
        .await?;
    if !schema_there {
        migrator.create_schema(SCHEMA);
    }
    migrator.run_direct(None, conn, false).await
}

/// How many triggers of ours there are.
async fn count_triggers(conn: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'openclaw\\_controller\\_%'")
            .fetch_one(&mut *conn)
            .await?,
    )
}
