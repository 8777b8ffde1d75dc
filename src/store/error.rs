//! What can go wrong with the database, by what can be done about it.

use thiserror::Error;

/// An error of the store. Its text is for people and never holds the database's password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// No answer: not running, restarting, network down, too slow, too many connections. Try again later.
    #[error(
        "cannot reach the database: {0}; it is tried again, check that Postgres is running and DATABASE_URL is right"
    )]
    Unreachable(String),
    /// The database takes no writes: a standby, or one that was set so. It may take them again later.
    #[error(
        "the database is read-only ({0}): connect to the primary, or find out who has set default_transaction_read_only"
    )]
    ReadOnly(String),
    /// Somebody else holds the lease, so the write was not made. Stop working under this lease.
    #[error("lease `{scope}` term {term} is no longer held by this process, nothing was written")]
    Fenced {
        /// The lease's scope.
        scope: String,
        /// The term under which the write was tried.
        term: i64,
    },
    /// Another program holds the row or table for longer than we want to wait. Try again later.
    #[error("{0} is locked by another program, nothing was written to it; it is tried again later")]
    LockTimeout(String),
    /// Our tables are not there.
    #[error("the database is not migrated ({0}); run `openclaw-controller migrate`")]
    NotMigrated(String),
    /// Our tables were made by a newer version of this program.
    #[error(
        "the database was migrated to version {found}, this program knows versions up to {known}; run a newer openclaw-controller"
    )]
    NewerSchema {
        /// The newest migration in the database.
        found: i64,
        /// The newest migration in this program.
        known: i64,
    },
    /// Something stands in the way of the migrations; nothing was changed. One line per object, each with what to do.
    #[error("cannot migrate, nothing was changed:\n{}", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
    Blocked(Vec<String>),
    /// The database refuses us: wrong password, unknown database, or a missing privilege.
    #[error("the database refuses: {0}; use a role and a database that are right, or grant that role what it lacks")]
    Permission(String),
    /// The database holds something that cannot be read or written, and this is the object.
    #[error("{object}: {problem}")]
    BadData {
        /// Table and column, or the object's kind and id.
        object: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// Anything else that the database answered.
    #[error("database error: {0}")]
    Other(String),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody doing anything about it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::ReadOnly(_) | Self::LockTimeout(_))
    }
}
