//! From what Postgres and the driver say to what can be done about it.

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use crate::store::{SCHEMA, StoreError};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::Database(error) => match error.try_downcast::<PgDatabaseError>() {
                Ok(error) => classify(error.code(), error.message()),
                Err(error) => Self::Other(error.message().to_owned()),
            },
            E::Io(error) => Self::Unreachable(error.to_string()),
            E::Tls(error) => Self::Unreachable(format!("TLS: {error}")),
            E::PoolTimedOut => Self::Unreachable("no connection became free in time".to_owned()),
            E::PoolClosed | E::WorkerCrashed | E::BeginFailed => {
                Self::Unreachable("the connection was closed".to_owned())
            }
            E::Protocol(problem) => Self::Unreachable(format!("unexpected answer: {problem}")),
            E::ColumnDecode { index, source } => Self::BadData {
                object: format!("column {index}"),
                problem: source.to_string(),
            },
            E::Decode(source) | E::Encode(source) => Self::BadData {
                object: "a value".to_owned(),
                problem: source.to_string(),
            },
            E::Migrate(error) => (*error).into(),
            // Whatever else the driver may say, except its configuration: that could repeat the URL.
            E::Configuration(_) => Self::BadData {
                object: "the database URL".to_owned(),
                problem: "it cannot be understood".to_owned(),
            },
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => error.into(),
            MigrateError::ExecuteMigration(error, version) => match error.into() {
                Self::Other(problem) | Self::Permission(problem) | Self::NotMigrated(problem) => {
                    Self::Blocked(vec![format!("migration {version}: {problem}")])
                }
                Self::BadData { object, problem } => {
                    Self::Blocked(vec![format!("migration {version}: {object}: {problem}")])
                }
                error => error,
            },
            error => Self::Other(error.to_string()),
        }
    }
}

/// By SQLSTATE; see appendix A of the Postgres manual.
fn classify(code: &str, message: &str) -> StoreError {
    let text = || message.to_owned();
    match code {
        // lock_not_available, deadlock_detected, serialization_failure
        "55P03" | "40P01" | "40001" => StoreError::LockTimeout("a row or table".to_owned()),
        // query_canceled (our statement_timeout, or an administrator), idle_in_transaction_session_timeout
        "57014" | "25P03" => StoreError::Unreachable(text()),
        // read_only_sql_transaction
        "25006" => StoreError::ReadOnly(text()),
        // insufficient_privilege, invalid_catalog_name
        "42501" | "3D000" => StoreError::Permission(text()),
        // undefined_table, invalid_schema_name: ours or theirs, the remedy is the same
        "42P01" | "3F000" => StoreError::NotMigrated(text()),
        "42703" if message.contains(SCHEMA) => StoreError::NotMigrated(text()),
        // undefined_column
        "42703" => StoreError::BadData {
            object: "the database's tables".to_owned(),
            problem: format!("{message}; did a migration of another program remove it?"),
        },
        code if code.starts_with("28") => StoreError::Permission(text()),
        // connection exceptions, insufficient resources, operator intervention (restarts), system errors
        code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => StoreError::Unreachable(text()),
        // data exceptions
        code if code.starts_with("22") => StoreError::BadData {
            object: "a value".to_owned(),
            problem: text(),
        },
        code => StoreError::Other(format!("{message} (SQLSTATE {code})")),
    }
}

/// Names the object of an error that could not know it.
pub(super) trait About<T> {
    /// Names the object.
    fn about(self, object: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T, E: Into<StoreError>> About<T> for Result<T, E> {
    fn about(self, object: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|error| match error.into() {
            StoreError::LockTimeout(_) => StoreError::LockTimeout(object()),
            StoreError::BadData {
                object: column,
                problem,
            } => StoreError::BadData {
                object: format!("{}, {column}", object()),
                problem,
            },
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_map_to_what_can_be_done_about_them() {
        use StoreError as E;
        type Check = fn(&E) -> bool;
        let cases: [(&str, Check); 14] = [
            ("55P03", |e| matches!(e, E::LockTimeout(_))),
            ("40P01", |e| matches!(e, E::LockTimeout(_))),
            ("57014", |e| matches!(e, E::Unreachable(_))),
            ("57P01", |e| matches!(e, E::Unreachable(_))),
            ("57P03", |e| matches!(e, E::Unreachable(_))),
            ("08006", |e| matches!(e, E::Unreachable(_))),
            ("53300", |e| matches!(e, E::Unreachable(_))),
            ("25006", |e| matches!(e, E::ReadOnly(_)) && e.is_transient()),
            ("28P01", |e| matches!(e, E::Permission(_))),
            ("42501", |e| matches!(e, E::Permission(_))),
            ("42P01", |e| matches!(e, E::NotMigrated(_))),
            ("42703", |e| matches!(e, E::BadData { .. })),
            ("22P05", |e| matches!(e, E::BadData { .. })),
            ("XX000", |e| matches!(e, E::Other(_))),
        ];
        for (code, check) in cases {
            let error = classify(code, "what it said");
            assert!(check(&error), "{code}: {error:?}");
        }
    }
}
