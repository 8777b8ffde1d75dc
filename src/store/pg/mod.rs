//! The store on Postgres.

mod check;
mod checkin;
mod errors;
mod events;
mod fenced;
mod fleet;
mod fleet_writes;
mod hints;
mod history;
mod leads;
mod lease;
mod load;
mod lookup;
mod migrate;
mod records;
mod removals;
mod request;
mod rows;
mod status;
mod store;
mod sync;
mod tokens;
mod view;
mod wakes;

use std::future::Future;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool, Postgres, Transaction};
use url::Url;

pub use fleet::{ApplyError, ApplyOptions};
pub use hints::{ListenerState, PgHints};
pub use migrate::Migrated;

use super::StoreError;

/// How long after its last use a connection is taken to be alive. One that is not fails its call, which is tried again.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How many check-ins may be under way at once; one takes a few milliseconds.
const CHECK_IN_CONNECTIONS: u32 = 4;

/// How many people's and programs' looks may be under way at once; the others wait for their turn.
const VIEW_CONNECTIONS: u32 = 2;

/// How the database is talked to. The defaults suit a controller with its database on the same network.
#[derive(Clone, Debug)]
pub struct PgOptions {
    /// Connections in the pool; the listener and the leases have one more each, check-ins up to four, the status page up to two.
    pub max_connections: u32,
    /// How long to wait for a connection, a new one or one of the pool.
    pub connect_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long a write waits for a row that another program holds.
    pub lock_timeout: Duration,
    /// How long one call of the store may take in all, connecting included. Longer than the others, so that they speak first.
    pub call_timeout: Duration,
}

impl Default for PgOptions {
    fn default() -> Self {
        Self {
            max_connections: 5,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(25),
        }
    }
}

/// Desired state, records and leases in Postgres. A cheap handle.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    /// One connection for the leases alone: a renewal must not wait for writes that wait for another program's locks.
    lease_pool: PgPool,
    /// A few for check-ins: many agents may wait for rows that another program holds, and nobody else must wait for them.
    check_in_pool: PgPool,
    /// For whoever looks: the controller must not wait for them.
    view_pool: PgPool,
    connect: PgConnectOptions,
    options: PgOptions,
}

impl std::fmt::Debug for PgStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connect options hold the password.
        f.debug_struct("PgStore")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl PgStore {
    /// Connects, once, so that a wrong URL is told at once. Does not look at the schema: see [`check_schema`](Self::check_schema).
    ///
    /// # Errors
    /// The URL cannot be understood, or the database cannot be reached or refuses us. Never shows the URL.
    pub async fn connect(url: &SecretString, options: PgOptions) -> Result<Self, StoreError> {
        let store = Self::connect_lazy(url, options)?;
        let first = store.connect.connect();
        match tokio::time::timeout(store.options.connect_timeout, first).await {
            Ok(Ok(connection)) => drop(connection),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                return Err(StoreError::Unreachable(format!(
                    "no answer within {:?}",
                    store.options.connect_timeout
                )));
            }
        }
        Ok(store)
    }

    /// Like [`connect`](Self::connect), but makes its first connection only when it is needed, so that a database that is
    /// still starting is waited for.
    ///
    /// # Errors
    /// The URL cannot be understood.
    pub fn connect_lazy(url: &SecretString, options: PgOptions) -> Result<Self, StoreError> {
        let connect = parse_url(url)?;
        let pool = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(options.connect_timeout)
                .idle_timeout(Duration::from_mins(10))
                // Asking a connection that was in use a moment ago whether it is alive costs a round trip and tells nothing.
                .test_before_acquire(false)
                .before_acquire(|connection, seen| {
                    Box::pin(async move {
                        if seen.idle_for > TRUSTED_FOR {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
                .connect_lazy_with(connect.clone())
        };
        Ok(Self {
            pool: pool(options.max_connections),
            lease_pool: pool(1),
            check_in_pool: pool(CHECK_IN_CONNECTIONS),
            view_pool: pool(VIEW_CONNECTIONS),
            connect,
            options,
        })
    }

    /// Closes the pool's connections; calls after this fail.
    pub async fn close(&self) {
        // A connection whose other end is gone would be waited for until the operating system gives up on it.
        let all = async {
            tokio::join!(
                self.pool.close(),
                self.lease_pool.close(),
                self.check_in_pool.close(),
                self.view_pool.close()
            )
        };
        let _ = tokio::time::timeout(self.options.connect_timeout, all).await;
    }

    /// A connection that is thrown away unless [`Session::done`] says that it is clean.
    async fn session(&self) -> Result<Session, StoreError> {
        self.session_of(&self.pool).await
    }

    async fn session_of(&self, pool: &PgPool) -> Result<Session, StoreError> {
        let connection = pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => StoreError::Unreachable(format!(
                "no connection within {:?}: it is refused, or all of the pool's are busy",
                self.options.connect_timeout
            )),
            error => error.into(),
        })?;
        Ok(Session(Some(connection)))
    }

    /// Gives a call its deadline.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        tokio::time::timeout(self.options.call_timeout, call)
            .await
            .unwrap_or_else(|_| {
                Err(StoreError::Unreachable(format!(
                    "no answer within {:?}",
                    self.options.call_timeout
                )))
            })
    }
}

/// What the driver understands in a URL's query.
const URL_PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Understands a database URL without ever repeating it.
///
/// Takes the forms that other programs are given as well: `postgresql+driver://`, and parameters that only libpq knows.
fn parse_url(url: &SecretString) -> Result<PgConnectOptions, StoreError> {
    let bad = |problem: &str| StoreError::BadData {
        object: "the database URL".to_owned(),
        problem: format!("{problem}; expected postgres://user:password@host:port/database"),
    };
    let mut url = Url::parse(url.expose_secret()).map_err(|error| bad(&error.to_string()))?;
    let scheme = url.scheme().split('+').next().unwrap_or_default().to_owned();
    if !matches!(scheme.as_str(), "postgres" | "postgresql") || url.set_scheme(&scheme).is_err() {
        return Err(bad("its scheme is not that of Postgres"));
    }
    // The driver logs the value of a parameter that it does not know: it could be a misspelt password.
    let known = |key: &str| URL_PARAMETERS.contains(&key) || key.starts_with("options[");
    let all: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let (kept, dropped): (Vec<_>, Vec<_>) = all.into_iter().partition(|(key, _)| known(key));
    for (key, _) in &dropped {
        tracing::debug!(parameter = %key, "parameter of the database URL not used");
    }
    if kept.is_empty() {
        url.set_query(None);
    } else if !dropped.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(&kept);
    }
    let options =
        PgConnectOptions::from_url(&url).map_err(|_| bad("one of its parts or parameters cannot be understood"))?;
    let options = if kept.iter().any(|(key, _)| key == "application_name") {
        options
    } else {
        options.application_name("openclaw-controller")
    };
    Ok(options.disable_statement_logging())
}

/// A connection of the pool that is not given back half-used.
///
/// A call that is dropped (a deadline, a cancelled reconcile) leaves its connection in the middle of something; the pool
/// would wait for its end, for ever if the other side is gone.
struct Session(Option<sqlx::pool::PoolConnection<Postgres>>);

impl Session {
    /// Begins a transaction with these statements, which hold nothing but our own settings.
    async fn begin(&mut self, statements: String) -> Result<Transaction<'_, Postgres>, StoreError> {
        match self.0.as_mut() {
            Some(connection) => Ok(connection.begin_with(AssertSqlSafe(statements)).await?),
            None => Err(StoreError::Other("the connection was given back already".to_owned())),
        }
    }

    /// Gives the connection back to the pool.
    fn done(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mut connection) = self.0.take() {
            connection.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_other_programs_are_understood() {
        for url in [
            "postgres://u:p@h:5433/d",
            "postgresql://u:p@h:5433/d?sslmode=disable",
            "postgresql+psycopg://u:p@h:5433/d?connect_timeout=10&channel_binding=prefer",
        ] {
            let options = parse_url(&SecretString::from(url)).expect(url);
            assert_eq!(
                (
                    options.get_host(),
                    options.get_port(),
                    options.get_username(),
                    options.get_database()
                ),
                ("h", 5433, "u", Some("d")),
                "{url}"
            );
            assert_eq!(options.get_application_name(), Some("openclaw-controller"));
        }
    }

    #[test]
    fn a_bad_url_is_told_without_being_repeated() {
        for url in [
            "hunter2",
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h/d?sslmode=hunter2",
            "postgres://u:hunter2@[h/d",
        ] {
            let error = parse_url(&SecretString::from(url)).expect_err(url);
            assert!(matches!(error, StoreError::BadData { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
