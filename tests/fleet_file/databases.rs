//! Databases that cannot be written, and rows that somebody holds: told, and nothing half-applied.

use uuid::Uuid;

use crate::support::Database;
use crate::support::process::command;
use crate::{Desk, EXAMPLE};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_migrated_or_newer_is_told() {
    let desk = Desk::on(Database::empty().await);
    for arguments in [&[] as &[_], &["--dry-run"]] {
        let finished = desk.apply(EXAMPLE, arguments).await;
        assert_eq!(finished.code, Some(2));
        assert!(
            finished.stderr.contains("run `openclaw-controller migrate`"),
            "{finished:?}"
        );
    }
    let exported = command(&["export"], &[("DATABASE_URL", &desk.database.url)]).await;
    assert!(exported.code == Some(2) && exported.stdout.is_empty(), "{exported:?}");
    let desk = Desk::new().await;
    desk.database
        .execute(
            "INSERT INTO openclaw_controller.migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'of the future', true, '', 0)",
        )
        .await;
    let said = desk.refused(EXAMPLE).await;
    assert!(
        said.contains("migrated to version 999") && said.contains("run a newer openclaw-controller"),
        "{said}"
    );
}

/// The database's URL for a new role with these rights.
async fn role(desk: &Desk, grants: &str) -> String {
    let role = format!("fleet_{}", Uuid::new_v4().simple());
    desk.database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'narrow';
             GRANT USAGE ON SCHEMA public, openclaw_controller TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA public, openclaw_controller TO {role};
             {}",
            grants.replace("ROLE", &role)
        ))
        .await;
    let mut url = url::Url::parse(&desk.database.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("narrow")).unwrap();
    url.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_can_look_and_is_told_what_is_missing_to_write() {
    let desk = Desk::new().await;
    let path = desk.file(EXAMPLE);
    let reader = role(&desk, "").await;
    let before = desk.rows().await;
    let dry = command(&["apply", "-f", &path, "--dry-run"], &[("DATABASE_URL", &reader)]).await;
    assert!(dry.code == Some(0) && dry.stdout.contains("11 to add"), "{dry:?}");
    let refused = command(&["apply", "-f", &path], &[("DATABASE_URL", &reader)]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("nothing was applied") && refused.stderr.contains("permission denied"),
        "{refused:?}"
    );
    // Half of the rights: the first half is not applied either.
    let half = role(
        &desk,
        "GRANT ALL ON openclaw_controller.board_settings TO ROLE; GRANT INSERT ON organizations, users, organization_members TO ROLE;",
    )
    .await;
    let refused = command(&["apply", "-f", &path], &[("DATABASE_URL", &half)]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("permission denied for table gateways, for gateway Harbour museum / Quay"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("grant this role INSERT, UPDATE"), "{refused:?}");
    assert_eq!(desk.rows().await, before);

    let name = desk.one("SELECT current_database()::text").await;
    desk.database
        .execute(&format!(
            "ALTER DATABASE \"{name}\" SET default_transaction_read_only = on"
        ))
        .await;
    let refused = command(&["apply", "-f", &path], &[("DATABASE_URL", &desk.database.url)]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("the database is read-only"), "{refused:?}");
    let dry = command(
        &["apply", "-f", &path, "--dry-run"],
        &[("DATABASE_URL", &desk.database.url)],
    )
    .await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_is_waited_for_a_while_and_nothing_is_half_applied() {
    let desk = Desk::new().await;
    desk.applied(EXAMPLE, &[]).await;
    let edited = EXAMPLE
        .replace("role: Writer", "role: Poet")
        .replace("max_agents: 4", "max_agents: 6");
    let mut held = desk.database.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM agents WHERE name = 'Wren' FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    let said = desk.refused(&edited).await;
    assert!(said.contains("is locked by another program; apply again"), "{said}");
    assert!(said.contains("agent "), "{said}");
    // Nobody waits for a row that does not change.
    let printed = desk
        .applied(&EXAMPLE.replace("max_agents: 4", "max_agents: 5"), &[])
        .await;
    assert!(printed.ends_with("applied\n"), "{printed}");
    held.rollback().await.unwrap();
    desk.applied(&edited, &[]).await;
    assert_eq!(
        desk.one("SELECT max_agents::text FROM boards WHERE name = 'Website'")
            .await,
        "6"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_apply_at_the_same_time_make_nothing_twice() {
    let desk = Desk::new().await;
    let path = desk.file(EXAMPLE);
    let environment = [("DATABASE_URL", desk.database.url.as_str())];
    let arguments = ["apply", "-f", &path];
    let (a, b, c) = tokio::join!(
        command(&arguments, &environment),
        command(&arguments, &environment),
        command(&arguments, &environment)
    );
    for finished in [&a, &b, &c] {
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }
    let counts = "SELECT (SELECT count(*) FROM organizations) || ' ' || (SELECT count(*) FROM gateways) || ' '
                      || (SELECT count(*) FROM boards) || ' ' || (SELECT count(*) FROM agents)";
    assert_eq!(desk.one(counts).await, "1 1 2 5");
    desk.is_a_fixed_point().await;
}
