//! A fleet as a file: what is read, what is told, what is written, and that nothing is where nothing differs.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test says by a panic what went wrong")]

mod applying;
#[path = "../beside/backend.rs"]
#[expect(dead_code, reason = "its calls to a gateway are another test's")]
mod backend;
mod beside;
mod converging;
mod databases;
mod properties;
mod pruning;
mod published;
mod reading;
#[path = "../support/mod.rs"]
mod support;

use support::Database;
use support::process::{Finished, command};
use tempfile::TempDir;

/// The file that the documentation shows.
const EXAMPLE: &str = include_str!("../../docs/fleet.example.yaml");

/// A database, and files that are applied to it by the real binary.
struct Desk {
    database: Database,
    directory: TempDir,
}

impl Desk {
    async fn new() -> Self {
        Self::on(Database::migrated().await)
    }

    fn on(database: Database) -> Self {
        Self {
            database,
            directory: TempDir::new().unwrap(),
        }
    }

    fn file(&self, yaml: &str) -> String {
        let path = self.directory.path().join("fleet.yaml");
        std::fs::write(&path, yaml).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Applies a file, with further arguments.
    async fn apply(&self, yaml: &str, arguments: &[&str]) -> Finished {
        let path = self.file(yaml);
        let mut all = vec!["apply", "-f", &path];
        all.extend(arguments);
        command(&all, &[("DATABASE_URL", &self.database.url)]).await
    }

    /// Applies a file that has nothing wrong with it, and returns what was printed.
    async fn applied(&self, yaml: &str, arguments: &[&str]) -> String {
        let finished = self.apply(yaml, arguments).await;
        assert_eq!(finished.code, Some(0), "{finished:?}\n{yaml}");
        finished.stdout
    }

    /// Applies a file, which fails and changes nothing, and returns what is said of it.
    async fn refused(&self, yaml: &str) -> String {
        let before = self.rows().await;
        let finished = self.apply(yaml, &[]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains("nothing was applied"), "{finished:?}");
        assert_eq!(self.rows().await, before, "something was written");
        finished.stderr
    }

    async fn exported(&self) -> String {
        let finished = command(&["export"], &[("DATABASE_URL", &self.database.url)]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout
    }

    /// All rows that a file is about, with the transactions that wrote them: another text after any write.
    async fn rows(&self) -> String {
        let tables = [
            "organizations",
            "users",
            "organization_members",
            "gateways",
            "boards",
            "agents",
            "openclaw_controller.board_settings",
        ];
        let selects = tables.map(|table| {
            format!("SELECT '{table} ' || t.xmin::text || ' ' || row_to_json(t)::text AS line FROM {table} t")
        });
        let sql = format!(
            "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM ({}) all_rows",
            selects.join(" UNION ALL ")
        );
        self.database.text(&sql).await.unwrap()
    }

    /// Applies what was exported, with and without pruning: nothing differs, and nothing is written.
    async fn is_a_fixed_point(&self) -> String {
        let yaml = self.exported().await;
        let before = self.rows().await;
        for arguments in [&[] as &[_], &["--prune"], &["--dry-run", "--prune"]] {
            let printed = self.applied(&yaml, arguments).await;
            assert!(printed.ends_with("nothing to do\n"), "{printed}\n{yaml}");
        }
        assert_eq!(self.rows().await, before);
        yaml
    }

    /// Applies what was exported while others write: nothing differs.
    async fn agrees(&self) {
        let yaml = self.exported().await;
        let printed = self.applied(&yaml, &["--prune"]).await;
        assert!(printed.ends_with("nothing to do\n"), "{printed}\n{yaml}");
    }

    async fn one(&self, sql: &str) -> String {
        self.database.text(sql).await.unwrap_or_else(|| "null".to_owned())
    }
}
