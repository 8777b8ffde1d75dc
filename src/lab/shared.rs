//! One Postgres server for all tests of a process.

use tokio::sync::OnceCell;

use super::Postgres;

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// The Postgres server shared by the tests of this process, started by the first to ask. Take a
/// [`fresh_database`](Postgres::fresh_database) each, and start a server of your own to stop or restart one.
///
/// # Panics
/// When it cannot be started: no test may pass without it.
#[expect(
    clippy::panic,
    reason = "without its server a test has failed, and this is the shortest way to say why"
)]
pub async fn shared_postgres() -> &'static Postgres {
    SHARED
        .get_or_init(|| async {
            match Postgres::start().await {
                Ok(server) => server,
                Err(error) => panic!("the tests' Postgres server cannot be started: {error:#}"),
            }
        })
        .await
}
