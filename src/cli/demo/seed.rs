//! The demo's rows.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;
use uuid::{Uuid, uuid};

const LIMIT: Duration = Duration::from_secs(30);
const ROWS: &str = include_str!("seed.sql");

/// The worker whom the demo suggests to edit.
pub(super) const WREN: Uuid = uuid!("0f000000-0000-4000-8000-000000000003");

/// Inserts the demo's rows into a migrated, empty database.
pub(super) async fn plant(database_url: &str, gateway_url: &str, token: &str, workspace_root: &str) -> Result<()> {
    let insert = async {
        let options: PgConnectOptions = database_url.parse()?;
        let mut connection = options.connect().await?;
        for (name, value) in [
            ("demo.gateway_url", gateway_url),
            ("demo.gateway_token", token),
            ("demo.workspace_root", workspace_root),
        ] {
            sqlx::query("SELECT set_config($1, $2, false)")
                .bind(name)
                .bind(value)
                .execute(&mut connection)
                .await?;
        }
        sqlx::raw_sql(ROWS).execute(&mut connection).await?;
        connection.close().await
    };
    timeout(LIMIT, insert)
        .await
        .with_context(|| format!("inserting the demo's rows took more than {} s", LIMIT.as_secs()))?
        .context("cannot insert the demo's rows")
}
