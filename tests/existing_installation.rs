//! Beside an existing installation: nothing of the other program changes, and nothing of it breaks.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says by a panic what went wrong"
)]

use std::time::Duration;

use openclaw_controller::lab::shared_postgres;
use openclaw_controller::store::{Hint, HintSource, PgOptions, PgStore, Store};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const SCHEMA: &str = include_str!("existing_installation.sql");

struct Installation {
    admin: PgConnection,
    /// The other program, under a role of its own that knows nothing of us.
    backend: PgConnection,
    store: PgStore,
}

impl Installation {
    async fn new() -> Self {
        let url = shared_postgres().await.fresh_database().await.unwrap();
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let role = format!("backend_{}", uuid::Uuid::new_v4().simple());
        run(&mut admin, SCHEMA).await;
        // It owns its tables, as a backend that runs its own migrations does.
        run(
            &mut admin,
            &format!(
                "CREATE ROLE {role};
                 DO $$ DECLARE t text; BEGIN
                   FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
                     EXECUTE format('ALTER TABLE %I OWNER TO {role}', t);
                   END LOOP;
                 END $$; GRANT CREATE ON SCHEMA public TO {role}"
            ),
        )
        .await;
        let mut backend = PgConnection::connect(&url).await.unwrap();
        run(&mut backend, &format!("SET ROLE {role}")).await;
        let store = PgStore::connect(&SecretString::from(url), PgOptions::default())
            .await
            .unwrap();
        Self { admin, backend, store }
    }

    async fn theirs(&mut self, sql: &str) {
        run(&mut self.backend, sql).await;
    }

    /// Everything about their tables but the triggers.
    async fn shape(&mut self) -> String {
        sqlx::query_scalar(
            "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
                SELECT attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull
                       || coalesce(' ' || pg_get_expr(adbin, adrelid), '') AS line
                  FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
                  LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
                 WHERE attnum > 0 AND relnamespace = 'public'::regnamespace
                UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
                 WHERE connamespace = 'public'::regnamespace
                UNION ALL SELECT c.oid::regclass || ' ' || relowner::regrole || ' ' || coalesce(relacl::text, '')
                  FROM pg_class c WHERE relnamespace = 'public'::regnamespace
                UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'public'::regnamespace) t",
        )
        .fetch_one(&mut self.admin)
        .await
        .unwrap()
    }
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{error} in {sql}"));
}

async fn next(hints: &mut impl HintSource) -> Hint {
    tokio::time::timeout(Duration::from_secs(20), hints.next())
        .await
        .expect("no hint came")
        .unwrap()
}

#[tokio::test]
async fn nothing_of_theirs_is_created_or_changed() {
    let mut there = Installation::new().await;
    let before = there.shape().await;
    let migrated = there.store.migrate().await.unwrap();
    assert!(!migrated.created_tables);
    assert_eq!(migrated.triggers, 25);
    assert_eq!(there.shape().await, before);
    assert!(there.store.is_existing_installation().await.unwrap());
    there.store.migrate().await.unwrap();
    assert_eq!(there.shape().await, before);

    let fleet = there.store.load_fleet().await.unwrap();
    assert_eq!(fleet.len(), 1);
    assert_eq!(fleet[0].agents.len(), 2);
    assert_eq!(fleet[0].owner.as_ref().unwrap().name.as_deref(), Some("Ada"));
    assert!(fleet[0].boards.values().all(|board| board.paused), "its words are read");
    let without_config = fleet[0].agents.iter().find(|agent| agent.name == "worker").unwrap();
    assert!(without_config.heartbeat_config.is_none(), "JSON's null is nothing");
}

#[tokio::test]
async fn their_statements_work_as_before() {
    let mut there = Installation::new().await;
    there.store.migrate().await.unwrap();
    there
        .theirs(
            "UPDATE agents SET last_seen_at = now() AT TIME ZONE 'utc', status = 'online', wake_attempts = 0,
                    checkin_deadline_at = NULL, last_provision_error = NULL, updated_at = now() AT TIME ZONE 'utc'",
        )
        .await;
    there
        .theirs(
            "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation, wake_attempts,
                                 created_at, updated_at)
             SELECT gen_random_uuid(), id, gateway_id, 'new', 'provisioning', false, 0, 0, now(), now() FROM boards LIMIT 1;
             INSERT INTO tasks (id, board_id, title, assigned_agent_id)
             SELECT gen_random_uuid(), board_id, 't', id FROM agents WHERE name = 'new';
             INSERT INTO approvals (id, board_id, agent_id) SELECT gen_random_uuid(), board_id, id FROM agents WHERE name = 'new';
             INSERT INTO activity_events (id, event_type, agent_id) SELECT gen_random_uuid(), 'x', id FROM agents;
             INSERT INTO board_webhooks (id, board_id, agent_id) SELECT gen_random_uuid(), board_id, id FROM agents WHERE name = 'new'",
        )
        .await;
    // Upserts, copies and a row held through a long transaction.
    there
        .theirs(
            "INSERT INTO users (id, clerk_user_id, is_super_admin) VALUES (gen_random_uuid(), 'ada', false)
             ON CONFLICT (clerk_user_id) DO UPDATE SET name = 'Ada L.';
             BEGIN; SELECT 1 FROM agents FOR UPDATE; UPDATE agents SET agent_token_hash = 'x' WHERE name = 'new'; COMMIT;
             DELETE FROM board_webhooks; DELETE FROM activity_events; DELETE FROM approvals; DELETE FROM tasks;
             DELETE FROM agents WHERE name = 'new'",
        )
        .await;
}

#[tokio::test]
async fn their_migrations_can_still_change_every_column() {
    let mut there = Installation::new().await;
    there.store.migrate().await.unwrap();
    let mut hints = there.store.listen();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    for sql in [
        "ALTER TABLE agents ALTER COLUMN name TYPE varchar(500)",
        "ALTER TABLE agents ALTER COLUMN heartbeat_config TYPE jsonb USING heartbeat_config::jsonb",
        "ALTER TABLE agents ALTER COLUMN identity_template TYPE varchar",
        "ALTER TABLE agents ADD COLUMN colour varchar NOT NULL DEFAULT 'red'",
        "ALTER TABLE boards ALTER COLUMN max_agents TYPE bigint",
        "ALTER TABLE gateways ALTER COLUMN token TYPE text",
        "ALTER TABLE board_memory ALTER COLUMN content TYPE varchar",
        "ALTER TABLE agents DROP COLUMN provision_action",
        "UPDATE alembic_version SET version_num = 'next'",
    ] {
        there.theirs(sql).await;
    }
    // In the very session whose plans were made before.
    there
        .theirs("UPDATE agents SET name = name || '!' WHERE name = 'worker'")
        .await;
    let fleet_gateway = there.store.list_gateways().await.unwrap()[0];
    let hint = next(&mut hints).await;
    assert!(
        [Hint::Gateway(fleet_gateway), Hint::Everything].contains(&hint),
        "{hint:?}"
    );
    // A column that we need: it goes, their statements still work, and ours says what is missing.
    there.theirs("ALTER TABLE agents DROP COLUMN soul_template").await;
    there
        .theirs("UPDATE agents SET name = name || '!' WHERE name = 'worker!'")
        .await;
    assert_eq!(next(&mut hints).await, Hint::Everything);
    let error = there.store.load_fleet().await.unwrap_err().to_string();
    assert!(error.contains("soul_template"), "{error}");
}

#[tokio::test]
async fn a_table_that_they_make_anew_gets_its_triggers_back() {
    let mut there = Installation::new().await;
    there.store.migrate().await.unwrap();
    there
        .theirs(
            "ALTER TABLE board_memory RENAME TO old_memory;
             CREATE TABLE board_memory (LIKE old_memory INCLUDING ALL);
             INSERT INTO board_memory SELECT * FROM old_memory; DROP TABLE old_memory",
        )
        .await;
    assert_eq!(there.store.migrate().await.unwrap().triggers, 4);
    let mut hints = there.store.listen();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    there
        .theirs("INSERT INTO board_memory (id, board_id, content, is_chat, created_at) SELECT gen_random_uuid(), id, '/resume', true, now() FROM boards")
        .await;
    let gateway = there.store.list_gateways().await.unwrap()[0];
    assert_eq!(next(&mut hints).await, Hint::Gateway(gateway));
}

#[tokio::test]
async fn dropping_our_schema_leaves_no_trace() {
    let mut there = Installation::new().await;
    let before = there.shape().await;
    there.store.migrate().await.unwrap();
    run(&mut there.admin, "DROP SCHEMA openclaw_controller CASCADE").await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
        .fetch_one(&mut there.admin)
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(there.shape().await, before);
    there.theirs("UPDATE agents SET name = name || '!'").await;
}
