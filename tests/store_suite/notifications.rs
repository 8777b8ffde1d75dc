//! The triggers themselves: exactly the spec, at most one hint per gateway and transaction, never in anybody's way.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::postgres::Postgres;
use super::world::{ORGANIZATION, World, agent, board, gateway, id, owner};

/// Hears the payloads on the channel.
struct Ear(PgListener);

impl Ear {
    async fn new(world: &Postgres) -> Self {
        let mut listener = PgListener::connect(&world.url).await.unwrap();
        listener.listen("openclaw_controller").await.unwrap();
        Self(listener)
    }

    /// Everything that was sent until now, in order.
    async fn heard(&mut self, world: &Postgres) -> Vec<String> {
        // Notifications of one database arrive in the order of their commits.
        world.run("NOTIFY openclaw_controller, 'end'").await;
        let mut payloads = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.0.recv()).await;
            let payload = next.expect("the end does not come").unwrap().payload().to_owned();
            if payload == "end" {
                return payloads;
            }
            payloads.push(payload);
        }
    }
}

/// Two gateways (10, 11) with a board (20, 21), its worker (30, 31), and one owner for both.
async fn fleet() -> (Postgres, Ear) {
    let world = Postgres::new().await;
    for n in [0, 1] {
        world.put_gateway(&gateway(10 + n)).await;
        world.put_board(&board(20 + n, Some(10 + n))).await;
        world.put_agent(&agent(30 + n, Some(20 + n), 10 + n)).await;
    }
    world.put_owner(id(ORGANIZATION), &owner(2)).await;
    let ear = Ear::new(&world).await;
    (world, ear)
}

fn gateways(ns: &[u128]) -> BTreeSet<String> {
    ns.iter().map(|n| id(*n).to_string()).collect()
}

#[tokio::test]
async fn every_spec_column_is_news_and_no_other_column_is() {
    let (world, mut ear) = fleet().await;
    let worker = id(30);
    let cases: &[(&str, &[u128])] = &[
        ("UPDATE agents SET name = 'x' WHERE id = '$1'", &[10]),
        ("UPDATE agents SET agent_token_hash = 'x' WHERE id = '$1'", &[10]),
        (
            "UPDATE agents SET heartbeat_config = '{\"every\": \"1m\"}' WHERE id = '$1'",
            &[10],
        ),
        // `jsonb` could not hold this, and `json` has no equality.
        (
            "UPDATE agents SET identity_profile = '{\"role\": \"\\u0000\"}' WHERE id = '$1'",
            &[10],
        ),
        ("UPDATE agents SET identity_template = 'x' WHERE id = '$1'", &[10]),
        ("UPDATE agents SET soul_template = NULL WHERE id = '$1'", &[10]),
        ("UPDATE agents SET delete_requested_at = now() WHERE id = '$1'", &[10]),
        ("UPDATE agents SET is_board_lead = true WHERE id = '$1'", &[10]),
        (
            "UPDATE agents SET board_id = (SELECT id FROM boards WHERE name = 'board 21') WHERE id = '$1'",
            &[10, 11],
        ),
        (
            "UPDATE agents SET board_id = (SELECT id FROM boards WHERE name = 'board 20') WHERE id = '$1'",
            &[10, 11],
        ),
        (
            "UPDATE agents SET name = name, heartbeat_config = heartbeat_config",
            &[],
        ),
        (
            "UPDATE agents SET last_seen_at = now(), status = 'online', wake_attempts = 0, checkin_deadline_at = NULL,
                 last_provision_error = NULL, updated_at = now(), last_wake_sent_at = now(), lifecycle_generation = 9,
                 openclaw_session_id = 'x', provision_requested_at = now(), provision_action = 'x'",
            &[],
        ),
        ("UPDATE agents SET name = 'y' WHERE false", &[]),
        ("UPDATE agents SET name = name || 'z'", &[10, 11]),
        ("UPDATE gateways SET url = 'ws://y' WHERE name = 'gateway 10'", &[10]),
        ("UPDATE gateways SET token = NULL WHERE name = 'gateway 10'", &[10]),
        ("UPDATE gateways SET updated_at = now()", &[]),
        ("UPDATE boards SET objective = 'y' WHERE name = 'board 20'", &[10]),
        (
            "UPDATE boards SET success_metrics = '{}' WHERE name = 'board 20'",
            &[10],
        ),
        (
            "UPDATE boards SET updated_at = now(), goal_source = 'x', board_group_id = NULL",
            &[],
        ),
        ("UPDATE boards SET gateway_id = NULL WHERE name = 'board 20'", &[10]),
        (
            "UPDATE boards SET gateway_id = (SELECT id FROM gateways WHERE name = 'gateway 11') WHERE name = 'board 20'",
            &[10, 11],
        ),
        (
            "UPDATE boards SET gateway_id = (SELECT id FROM gateways WHERE name = 'gateway 10') WHERE name = 'board 20'",
            &[10, 11],
        ),
        ("UPDATE users SET timezone = 'CET'", &[10, 11]),
        (
            "UPDATE users SET is_super_admin = true, active_organization_id = NULL",
            &[],
        ),
        ("UPDATE organization_members SET all_boards_read = false", &[]),
        ("UPDATE organization_members SET role = 'member'", &[10, 11]),
        ("UPDATE users SET timezone = 'UTC'", &[]),
        ("UPDATE organization_members SET role = 'owner'", &[10, 11]),
        (
            "INSERT INTO board_memory (id, board_id, content, is_chat) SELECT gen_random_uuid(), id, 'hello', true FROM boards",
            &[],
        ),
        (
            "INSERT INTO board_memory (id, board_id, content, is_chat) SELECT gen_random_uuid(), id, '/pause', false FROM boards",
            &[],
        ),
        (
            "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)
          SELECT gen_random_uuid(), id, E'\\u2003 /PAUSE\\n', true, now() FROM boards WHERE name = 'board 20'",
            &[10],
        ),
        ("UPDATE board_memory SET tags = '[]', source = 'x'", &[]),
        (
            "UPDATE board_memory SET content = '/resume' WHERE is_chat AND content <> 'hello'",
            &[10],
        ),
        (
            "UPDATE board_memory SET is_chat = false WHERE content = '/resume'",
            &[10],
        ),
        (
            "UPDATE board_memory SET is_chat = true WHERE content = '/resume'",
            &[10],
        ),
        ("DELETE FROM board_memory", &[10]),
        ("DELETE FROM agents WHERE id = '$1'", &[10]),
    ];
    ear.heard(&world).await;
    for (sql, expected) in cases {
        world.run(&sql.replace("$1", &worker.to_string())).await;
        let heard = ear.heard(&world).await;
        assert_eq!(
            heard.iter().cloned().collect::<BTreeSet<_>>(),
            gateways(expected),
            "{sql}"
        );
        assert_eq!(heard.len(), expected.len(), "at most one each: {sql}");
    }
    world.run("TRUNCATE board_memory").await;
    assert_eq!(ear.heard(&world).await, ["*"]);
}

#[tokio::test]
async fn a_transaction_sends_one_hint_per_gateway_and_a_rolled_back_one_none() {
    let (world, mut ear) = fleet().await;
    world
        .run(
            "BEGIN; UPDATE agents SET name = 'a'; UPDATE agents SET name = 'b'; UPDATE boards SET name = name || '!';
             UPDATE gateways SET name = name || '!'; COMMIT",
        )
        .await;
    let heard = ear.heard(&world).await;
    assert_eq!(heard.len(), 2, "{heard:?}");
    world.run("BEGIN; UPDATE agents SET name = 'c'; ROLLBACK").await;
    assert!(ear.heard(&world).await.is_empty());
}

#[tokio::test]
async fn a_role_without_any_right_on_our_schema_can_still_write_and_is_heard() {
    let (world, mut ear) = fleet().await;
    let role = format!("backend_{}", uuid::Uuid::new_v4().simple());
    // It may not even read boards, which the trigger on agents looks into.
    world
        .run(&format!(
            "CREATE ROLE {role}; GRANT SELECT, UPDATE ON agents TO {role};
             BEGIN; SET LOCAL ROLE {role}; UPDATE agents SET name = 'theirs' WHERE id = '{}'; COMMIT",
            id(30)
        ))
        .await;
    assert_eq!(ear.heard(&world).await, [id(10).to_string()]);
    // Nor can it make the trigger look into tables or call operators of its own.
    world
        .run(&format!(
            "BEGIN; SET LOCAL ROLE {role}; CREATE TEMP TABLE boards (id uuid, gateway_id uuid);
             INSERT INTO boards SELECT board_id, gen_random_uuid() FROM agents;
             UPDATE agents SET name = 'theirs again' WHERE id = '{}'; COMMIT",
            id(30)
        ))
        .await;
    assert_eq!(ear.heard(&world).await, [id(10).to_string()]);
    world
        .run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn what_goes_wrong_inside_a_trigger_becomes_a_hint_about_everything() {
    let (world, mut ear) = fleet().await;
    // Another program renames a column that the trigger compares.
    world
        .run("ALTER TABLE agents RENAME COLUMN soul_template TO soul")
        .await;
    world.run("UPDATE agents SET name = 'still works'").await;
    assert_eq!(ear.heard(&world).await, ["*"]);
    assert_eq!(
        world
            .text("SELECT count(*) FROM agents WHERE name = 'still works'")
            .await,
        "2"
    );
}

#[tokio::test]
async fn a_table_locked_by_a_migration_neither_delays_nor_deadlocks_a_write() {
    let (world, mut ear) = fleet().await;
    let mut migration = PgConnection::connect(&world.url).await.unwrap();
    let mut migration = migration.begin().await.unwrap();
    sqlx::query("LOCK TABLE boards IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *migration)
        .await
        .unwrap();
    let sql = AssertSqlSafe(format!("UPDATE agents SET name = 'x' WHERE id = '{}'", id(30)));
    let write = sqlx::query(sql).execute(&world.admin);
    tokio::time::timeout(Duration::from_secs(5), write)
        .await
        .expect("delayed by the trigger")
        .unwrap();
    migration.rollback().await.unwrap();
    assert_eq!(ear.heard(&world).await, ["*"]);
}

#[tokio::test]
async fn a_plan_made_for_one_row_serves_ten_thousand() {
    let (world, mut ear) = fleet().await;
    // All in one session, whose plans are kept.
    let mut session = PgConnection::connect(&world.url).await.unwrap();
    let insert = "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation, wake_attempts)
         SELECT gen_random_uuid(), board_id, gateway_id, 'many', status, false, 0, 0 FROM agents, generate_series(1, 5000)";
    for sql in ["UPDATE agents SET name = 'one'", insert] {
        sqlx::query(sql).execute(&mut session).await.unwrap();
    }
    let many = sqlx::query("UPDATE agents SET name = name || '!'").execute(&mut session);
    // Half a second here; a nested loop would compare a hundred million pairs.
    let updated = tokio::time::timeout(Duration::from_secs(15), many)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(updated.rows_affected(), 10_002);
    assert_eq!(
        ear.heard(&world).await.into_iter().collect::<BTreeSet<_>>(),
        gateways(&[10, 11])
    );
}

#[tokio::test]
async fn a_heartbeat_is_news_only_where_a_check_in_is_awaited() {
    let (world, mut ear) = fleet().await;
    let heartbeat =
        "UPDATE agents SET last_seen_at = clock_timestamp() AT TIME ZONE 'utc', status = 'online', wake_attempts = 0,
        checkin_deadline_at = NULL, last_provision_error = NULL, updated_at = clock_timestamp() AT TIME ZONE 'utc'";
    let awaited = "UPDATE agents SET checkin_deadline_at = '2026-03-01', wake_attempts = 1";
    let one = format!("{awaited} WHERE id = '{}'", id(30));
    let cases: &[(&str, &[u128])] = &[
        (heartbeat, &[]),
        (&one, &[]),
        ("UPDATE agents SET updated_at = now(), status = 'online'", &[]),
        (heartbeat, &[10]),
        (heartbeat, &[]),
        ("UPDATE agents SET status = 'offline'", &[]),
        ("UPDATE agents SET status = 'updating'", &[]),
        (heartbeat, &[]),
        ("UPDATE agents SET status = 'offline'", &[]),
        (heartbeat, &[10, 11]),
        (awaited, &[]),
        ("UPDATE agents SET checkin_deadline_at = NULL", &[]),
        (heartbeat, &[]),
        // With a change of the spec beside it: one hint all the same.
        (awaited, &[]),
        ("UPDATE agents SET last_seen_at = now(), name = name || '!'", &[10, 11]),
        ("UPDATE agents SET last_seen_at = now() WHERE false", &[]),
    ];
    ear.heard(&world).await;
    for (sql, expected) in cases {
        world.run(sql).await;
        let heard = ear.heard(&world).await;
        assert_eq!(
            heard.iter().cloned().collect::<BTreeSet<_>>(),
            gateways(expected),
            "{sql}"
        );
        assert_eq!(heard.len(), expected.len(), "at most one each: {sql}");
    }
    // What goes wrong inside fails no heartbeat.
    world
        .run("ALTER TABLE agents RENAME COLUMN checkin_deadline_at TO their_deadline")
        .await;
    world.run("UPDATE agents SET last_seen_at = clock_timestamp()").await;
    assert_eq!(ear.heard(&world).await, ["*"]);
}
