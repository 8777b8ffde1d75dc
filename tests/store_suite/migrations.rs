//! Migrating an empty database, twice, at once, and when something is in the way.

use openclaw_controller::store::{PgOptions, PgStore, Store, StoreError};
use secrecy::SecretString;

use super::postgres::Postgres;
use super::world::{World, agent, board, gateway};

/// Everything there is in the database, system schemas aside.
async fn objects(world: &Postgres) -> String {
    world
        .text(
            "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
                SELECT 'schema ' || nspname AS line FROM pg_namespace WHERE nspname !~ '^pg_'
                UNION ALL SELECT 'relation ' || c.oid::regclass || ' ' || relkind::text FROM pg_class c
                  JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
                UNION ALL SELECT 'column ' || a.attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod)
                                 || ' ' || attnotnull FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
                  JOIN pg_namespace n ON n.oid = relnamespace
                 WHERE attnum > 0 AND nspname !~ '^pg_' AND nspname <> 'information_schema'
                UNION ALL SELECT 'function ' || p.oid::regprocedure FROM pg_proc p
                  JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
                UNION ALL SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname FROM pg_trigger WHERE NOT tgisinternal
                UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
                 WHERE conrelid <> 0 AND connamespace::regnamespace::text !~ '^pg_') t",
        )
        .await
}

/// The versions of all migrations, in order.
fn versions() -> Vec<i64> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let files = std::fs::read_dir(directory).unwrap();
    let mut versions: Vec<i64> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.split('_').next().unwrap().parse().unwrap())
        .collect();
    versions.sort_unstable();
    versions
}

async fn refused(world: &Postgres) -> Vec<String> {
    let before = objects(world).await;
    let error = world.store.migrate().await.unwrap_err();
    assert_eq!(objects(world).await, before, "nothing was changed");
    assert!(!error.is_transient());
    match error {
        StoreError::Blocked(lines) => lines,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn an_empty_database_gets_everything_and_a_second_run_changes_nothing() {
    let world = Postgres::empty().await;
    let unmigrated = world.store.check_schema().await.unwrap_err();
    assert!(matches!(unmigrated, StoreError::NotMigrated(_)), "{unmigrated:?}");
    let unmigrated = world.store.load_fleet().await.unwrap_err();
    assert!(matches!(unmigrated, StoreError::NotMigrated(_)), "{unmigrated:?}");

    let first = world.store.migrate().await.unwrap();
    assert_eq!(
        (first.applied.as_slice(), first.triggers, first.created_tables),
        (versions().as_slice(), 25, true)
    );
    world.store.check_schema().await.unwrap();
    assert!(world.store.load_fleet().await.unwrap().is_empty());
    assert!(!world.store.is_existing_installation().await.unwrap());

    let before = objects(&world).await;
    let second = world.store.migrate().await.unwrap();
    assert_eq!(
        (second.applied.as_slice(), second.triggers, second.created_tables),
        ([].as_slice(), 0, false)
    );
    assert_eq!(objects(&world).await, before);
}

#[tokio::test]
async fn many_at_once_do_no_harm() {
    let world = Postgres::empty().await;
    let stores: Vec<_> = (0..4).map(|_| world.store.clone()).collect();
    let outcomes = futures::future::join_all(stores.iter().map(PgStore::migrate)).await;
    let applied: usize = outcomes.into_iter().map(|outcome| outcome.unwrap().applied.len()).sum();
    assert_eq!(applied, versions().len(), "each migration once");
    world.store.check_schema().await.unwrap();
}

#[tokio::test]
async fn the_tables_go_into_the_schema_that_the_connection_says() {
    let world = Postgres::empty().await;
    world.run("CREATE SCHEMA \"their Schema\"").await;
    let url = format!("{}?options=-c%20search_path%3D%22their\\%20Schema%22", world.url);
    let there = Postgres::at(url).await;
    there.store.migrate().await.unwrap();
    assert_eq!(
        there
            .text("SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'agents'::regclass")
            .await,
        "\"their Schema\""
    );
    there.put_gateway(&gateway(10)).await;
    there.put_board(&board(20, Some(10))).await;
    there.put_agent(&agent(30, Some(20), 10)).await;
    assert_eq!(there.store.load_fleet().await.unwrap()[0].agents.len(), 1);
}

#[tokio::test]
async fn whatever_is_in_the_way_is_named_and_nothing_is_changed() {
    let cases: &[(&str, &[&str])] = &[
        (
            "CREATE VIEW agents AS SELECT 1 AS id",
            &["agents is a view", "table gateways is missing"],
        ),
        (
            "CREATE TABLE users (id serial)",
            &[
                "table agents is missing",
                "column users.id is of type integer",
                "column users.email is missing",
            ],
        ),
        ("CREATE TYPE boards AS ENUM ('a')", &["boards is a type"]),
        ("CREATE SEQUENCE gateways", &["gateways is a sequence"]),
        (
            "CREATE TABLE alembic_version (version_num varchar)",
            &["let that program run its own migrations first"],
        ),
        (
            "CREATE SCHEMA openclaw_controller; CREATE TABLE openclaw_controller.leases (x int)",
            &["leases"],
        ),
    ];
    for (sql, expected) in cases {
        let world = Postgres::empty().await;
        world.run(sql).await;
        let lines = refused(&world).await;
        for expected in *expected {
            assert!(lines.iter().any(|line| line.contains(expected)), "{sql}: {lines:#?}");
        }
    }
}

#[tokio::test]
async fn a_changed_column_of_a_complete_installation_is_named() {
    let cases = [
        (
            "ALTER TABLE agents DROP COLUMN soul_template",
            "column agents.soul_template is missing",
        ),
        (
            "ALTER TABLE boards ALTER COLUMN max_agents TYPE text",
            "column boards.max_agents is of type text",
        ),
        (
            "ALTER TABLE agents ALTER COLUMN last_seen_at TYPE timestamptz",
            "agents.last_seen_at is of type timestamp with time zone",
        ),
        ("DROP TABLE board_memory", "table board_memory is missing"),
    ];
    for (sql, expected) in cases {
        let world = Postgres::new().await;
        world.run("DROP SCHEMA openclaw_controller CASCADE").await;
        world.run(sql).await;
        let lines = refused(&world).await;
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains(expected), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_missing_privilege_is_named_with_what_to_grant() {
    let world = Postgres::new().await;
    let role = format!("poor_{}", uuid::Uuid::new_v4().simple());
    world
        .run(&format!(
            "DROP SCHEMA openclaw_controller CASCADE; CREATE ROLE {role} LOGIN PASSWORD 'hunter2'"
        ))
        .await;
    let url = url::Url::parse(&world.url).unwrap();
    let mut poor = url.clone();
    poor.set_username(&role).unwrap();
    poor.set_password(Some("hunter2")).unwrap();
    let store = PgStore::connect(&SecretString::from(poor.as_str()), PgOptions::default())
        .await
        .unwrap();
    let before = objects(&world).await;
    let error = store.migrate().await.unwrap_err().to_string();
    assert!(error.contains("grant this role CREATE on the database"), "{error}");
    let database = url.path().trim_start_matches('/').to_owned();
    world
        .run(&format!("GRANT CREATE ON DATABASE {database} TO {role}"))
        .await;
    let error = store.migrate().await.unwrap_err().to_string();
    for expected in [
        "GRANT SELECT ON gateways",
        "GRANT TRIGGER ON board_memory",
        "GRANT UPDATE (agent_token_hash) ON agents",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(objects(&world).await, before, "nothing was changed");

    // With what was asked for, and no more, it works.
    let tables = "gateways, boards, agents, users, organization_members, board_memory";
    world
        .run(&format!(
            "GRANT SELECT, TRIGGER ON {tables} TO {role};
             GRANT UPDATE (gateway_id, status, openclaw_session_id, agent_token_hash, last_provision_error, last_seen_at,
                           wake_attempts, last_wake_sent_at, checkin_deadline_at) ON agents TO {role}"
        ))
        .await;
    store.migrate().await.unwrap();
    assert!(store.load_fleet().await.unwrap().is_empty());

    let mut wrong = poor.clone();
    wrong.set_password(Some("swordfish")).unwrap();
    let error = PgStore::connect(&SecretString::from(wrong.as_str()), PgOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Permission(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("swordfish"));
    world
        .run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn a_newer_schema_is_left_to_a_newer_program() {
    let world = Postgres::new().await;
    world
        .run(
            "INSERT INTO openclaw_controller.migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'of the future', true, '', 0)",
        )
        .await;
    let known = versions().into_iter().max().unwrap();
    let newer = StoreError::NewerSchema { found: 999, known };
    assert_eq!(world.store.migrate().await.unwrap_err(), newer);
    assert_eq!(world.store.check_schema().await.unwrap_err(), newer);
}

#[tokio::test]
async fn tables_that_are_busy_are_left_alone_and_tried_again() {
    let world = Postgres::new().await;
    world.run("DROP SCHEMA openclaw_controller CASCADE").await;
    let mut busy = world.admin.begin().await.unwrap();
    sqlx::query("LOCK TABLE agents IN ROW EXCLUSIVE MODE")
        .execute(&mut *busy)
        .await
        .unwrap();
    let store = world.store.clone();
    let migrating = tokio::spawn(async move { store.migrate().await });
    // Once it waits for the table, the table is released: the same or the next attempt succeeds.
    let waiting = async {
        while world
            .text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
            )
            .await
            == "0"
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), waiting)
        .await
        .unwrap();
    busy.rollback().await.unwrap();
    migrating.await.unwrap().unwrap();
    world.store.check_schema().await.unwrap();
}
