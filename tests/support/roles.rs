//! A database with the two roles of `deploy/postgres/role.sql`.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its own part, and says by a panic what went wrong"
)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use openclaw_controller::lab::shared_postgres;
use openclaw_controller::store::{PgOptions, PgStore};
use tokio::process::Command;
use url::Url;
use uuid::Uuid;

/// The two roles of one database, named like no other's: roles belong to the whole server.
pub struct Roles {
    /// The database's superuser, who makes them.
    pub admin_url: String,
    pub owner: String,
    pub daemon: String,
    pub owner_url: String,
    pub daemon_url: String,
}

impl Roles {
    /// Makes the roles as people are told to: the file, passwords, the migration as the owner, and the file again.
    pub async fn make(admin_url: &str) -> Self {
        let roles = Self::made_once(admin_url).await;
        roles.migrate().await;
        roles.grant(&[]).await;
        roles
    }

    /// Makes the roles, and grants what there is to grant before anything was migrated.
    pub async fn made_once(admin_url: &str) -> Self {
        let unique = Uuid::new_v4().simple().to_string();
        let (owner, daemon) = (format!("owner_{unique}"), format!("daemon_{unique}"));
        let roles = Self {
            admin_url: admin_url.to_owned(),
            owner_url: with_role(admin_url, &owner),
            daemon_url: with_role(admin_url, &daemon),
            owner,
            daemon,
        };
        roles.grant(&[]).await;
        let passwords = format!(
            "ALTER ROLE {} PASSWORD '{PASSWORD}'; ALTER ROLE {} PASSWORD '{PASSWORD}'",
            roles.owner, roles.daemon
        );
        psql(admin_url, &["-c", &passwords]).await;
        roles
    }

    /// Migrates as the owner.
    pub async fn migrate(&self) {
        // The machine may be too busy for what a controller waits.
        let patience = Duration::from_mins(2);
        let options = PgOptions {
            connect_timeout: patience,
            statement_timeout: patience,
            call_timeout: 2 * patience,
            ..PgOptions::default()
        };
        let store = PgStore::connect(&self.owner_url.clone().into(), options).await.unwrap();
        store.migrate().await.unwrap();
        store.close().await;
    }

    /// Runs the file, with further variables, and returns what it says.
    pub async fn grant(&self, variables: &[&str]) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres/role.sql");
        let (owner, daemon) = (format!("owner={}", self.owner), format!("daemon={}", self.daemon));
        let mut arguments = vec!["-q", "-v", &owner, "-v", &daemon];
        for variable in variables {
            arguments.extend(["-v", variable]);
        }
        arguments.extend(["-f", file.to_str().unwrap()]);
        psql(&self.admin_url, &arguments).await
    }
}

const PASSWORD: &str = "only-for-this-test";

/// The URL of the same database for another role.
pub fn with_role(url: &str, role: &str) -> String {
    let mut url = Url::parse(url).unwrap();
    url.set_username(role).unwrap();
    url.set_password(Some(PASSWORD)).unwrap();
    url.into()
}

/// Runs psql on a database, and returns what it printed; whatever it has to complain about is a failure.
pub async fn psql(url: &str, arguments: &[&str]) -> String {
    let output = Command::new(shared_postgres().await.psql_path())
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-d", url])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(
        output.status.success() && stderr.is_empty(),
        "psql {arguments:?}: {stdout}{stderr}"
    );
    stdout
}
