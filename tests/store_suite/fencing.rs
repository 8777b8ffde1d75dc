//! What only real locks can show: writes that wait while the lease moves on, and rows that others hold.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openclaw_controller::model::{AgentId, Conditions, Wake};
use openclaw_controller::store::{AgentStatusWrite, Fence, LeaseStore, PgOptions, PgStore, Store, StoreError};
use secrecy::SecretString;
use sqlx::Connection;

use super::postgres::Postgres;
use super::proxy::Proxy;
use super::world::{TTL, World, agent, board, fence, gateway};

const WORKER: AgentId = AgentId(uuid::Uuid::from_u128(30));

async fn with_agent() -> Postgres {
    let world = Postgres::new().await;
    world.put_gateway(&gateway(10)).await;
    world.put_board(&board(20, Some(10))).await;
    world.put_agent(&agent(30, Some(20), 10)).await;
    world
}

fn shown(status: &str) -> AgentStatusWrite {
    AgentStatusWrite {
        conditions: Conditions::default(),
        status: Some(status.to_owned()),
        ..AgentStatusWrite::default()
    }
}

/// Waits until this many sessions wait for a lock, for at most ten seconds.
async fn until_waiting(world: &Postgres, sessions: i64) {
    let asked = async {
        loop {
            let waiting = world
                .text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
                .await;
            if waiting == sessions.to_string() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
}

async fn impatient(world: &Postgres) -> PgStore {
    let options = PgOptions {
        lock_timeout: Duration::from_millis(200),
        ..PgOptions::default()
    };
    PgStore::connect(&SecretString::from(world.url.as_str()), options)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_write_that_waited_for_a_row_keeps_the_lease_from_moving_on() {
    let world = with_agent().await;
    // A lease that has expired, and a write under it that waits for another program's row lock.
    let old = fence(&world).await;
    world
        .run("UPDATE openclaw_controller.leases SET expires_at = now() - interval '1 s'")
        .await;
    let mut other = world.admin.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM agents FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let store = world.store.clone();
    let writing = tokio::spawn(async move { store.write_agent_status(&old, WORKER, &shown("late")).await });
    until_waiting(&world, 1).await;

    // The takeover waits for that write; so does nothing else.
    let store = world.store.clone();
    let taking = tokio::spawn(async move { store.acquire("all", "b", TTL).await });
    until_waiting(&world, 2).await;
    other.rollback().await.unwrap();
    writing.await.unwrap().unwrap();
    let term = taking.await.unwrap().unwrap().unwrap();
    assert_eq!(
        world.agent_row(WORKER).await.status,
        "late",
        "written before the takeover"
    );

    // From here on the old term writes nothing.
    let new = Fence {
        scope: "all".to_owned(),
        holder: "b".to_owned(),
        term,
    };
    let old = Fence {
        holder: "a".to_owned(),
        term: term - 1,
        ..new.clone()
    };
    let refused = world.store.write_agent_status(&old, WORKER, &shown("too late")).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    world
        .store
        .write_agent_status(&new, WORKER, &shown("new"))
        .await
        .unwrap();
    assert_eq!(world.agent_row(WORKER).await.status, "new");
}

#[tokio::test]
async fn a_write_that_waited_for_a_takeover_is_refused() {
    let world = with_agent().await;
    let old = fence(&world).await;
    // A takeover under way: it holds the lease's row, and has moved the term on.
    let mut takeover = sqlx::PgConnection::connect(&world.url).await.unwrap();
    let mut takeover = takeover.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM openclaw_controller.leases FOR UPDATE")
        .execute(&mut *takeover)
        .await
        .unwrap();
    sqlx::query("UPDATE openclaw_controller.leases SET holder = 'b', term = term + 1")
        .execute(&mut *takeover)
        .await
        .unwrap();
    let store = world.store.clone();
    let writing = tokio::spawn(async move { store.write_agent_status(&old, WORKER, &shown("late")).await });
    until_waiting(&world, 1).await;
    takeover.commit().await.unwrap();
    let refused = writing.await.unwrap();
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    assert_eq!(world.agent_row(WORKER).await.status, "provisioning");
}

#[tokio::test]
async fn a_renewal_does_not_wait_for_a_write_under_the_lease() {
    let world = with_agent().await;
    let fence = fence(&world).await;
    let mut other = world.admin.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM agents FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let (store, held) = (world.store.clone(), fence.clone());
    let writing = tokio::spawn(async move { store.write_agent_status(&held, WORKER, &shown("online")).await });
    until_waiting(&world, 1).await;
    let renewed = tokio::time::timeout(Duration::from_secs(2), world.store.renew(&fence, TTL)).await;
    assert_eq!(renewed.expect("the renewal waits"), Ok(true));
    other.rollback().await.unwrap();
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_row_held_by_another_program_is_waited_for_in_vain_only_briefly() {
    let world = with_agent().await;
    let fence = fence(&world).await;
    let store = impatient(&world).await;
    let mut other = world.admin.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM agents FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let error = store
        .write_agent_status(&fence, WORKER, &shown("online"))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert_eq!(error, StoreError::LockTimeout(format!("the row of agent {WORKER}")));
    let records = store.load_fleet().await.unwrap().remove(0).agent_records;
    assert!(records.contains_key(&WORKER), "our own record is written all the same");
    other.rollback().await.unwrap();
    store
        .write_agent_status(&fence, WORKER, &shown("online"))
        .await
        .unwrap();
    assert_eq!(world.agent_row(WORKER).await.status, "online");
}

#[tokio::test]
async fn a_frozen_writer_is_thrown_out_before_it_can_block_a_takeover_for_long() {
    let world = with_agent().await;
    let fence = fence(&world).await;
    let proxy = Proxy::default();
    let options = PgOptions {
        lock_timeout: Duration::from_secs(1),
        ..PgOptions::default()
    };
    let url = SecretString::from(proxy.start(&world).await);
    let store = PgStore::connect(&url, options).await.unwrap();
    // Its UPDATE arrives and waits; its COMMIT never does.
    let mut other = world.admin.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM agents FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let held = fence.clone();
    let frozen = tokio::spawn(async move { store.write_agent_status(&held, WORKER, &shown("late")).await });
    until_waiting(&world, 1).await;
    proxy.frozen.store(true, Ordering::SeqCst);
    other.rollback().await.unwrap();

    world
        .run("UPDATE openclaw_controller.leases SET expires_at = now() - interval '1 s'")
        .await;
    assert_eq!(world.store.acquire("all", "b", TTL).await, Ok(Some(fence.term + 1)));
    assert_eq!(world.agent_row(WORKER).await.status, "provisioning");
    frozen.abort();
}

#[tokio::test]
async fn a_guarded_promotion_that_waited_looks_again() {
    let world = with_agent().await;
    let fence = fence(&world).await;
    let mut backend = world.admin.begin().await.unwrap();
    sqlx::query("UPDATE agents SET agent_token_hash = 'theirs'")
        .execute(&mut *backend)
        .await
        .unwrap();
    let store = world.store.clone();
    let candidate = openclaw_controller::store::Candidate {
        replaces: None,
        hash: "ours".to_owned(),
        token_sha256: "sha".to_owned(),
        created_at: chrono::Utc::now(),
        rotates: None,
    };
    let promoting = tokio::spawn(async move { store.promote(&fence, WORKER, None, &candidate).await });
    until_waiting(&world, 1).await;
    backend.commit().await.unwrap();
    assert_eq!(promoting.await.unwrap(), Ok(false));
    assert_eq!(world.agent_row(WORKER).await.token_hash.as_deref(), Some("theirs"));
}

#[tokio::test]
async fn a_wake_that_waited_for_the_row_of_another_programs_wake_is_not_begun() {
    let world = with_agent().await;
    let fence = fence(&world).await;
    let read = world.store.wake_state(WORKER).await.unwrap().unwrap();
    let wake = Wake {
        attempt: 1,
        reset: false,
        first: true,
        digest: "digest".to_owned(),
        asked: None,
    };
    let now = chrono::DateTime::from_timestamp(1_770_000_000, 0).unwrap();
    let begun = read.record.begun(&wake, now, now + Duration::from_secs(30));
    // It holds the row through all its calls; we give up, having written nothing.
    let mut other = world.admin.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM agents FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let before = world.mark().await;
    let error = impatient(&world)
        .await
        .begin_wake(&fence, WORKER, &read, &begun)
        .await
        .unwrap_err();
    assert_eq!(error, StoreError::LockTimeout(format!("the row of agent {WORKER}")));
    // It commits its wake while we wait.
    let (store, held, waiting) = (world.store.clone(), fence.clone(), (read.clone(), begun.clone()));
    let writing = tokio::spawn(async move { store.begin_wake(&held, WORKER, &waiting.0, &waiting.1).await });
    until_waiting(&world, 1).await;
    assert_eq!(world.mark().await, before);
    sqlx::query("UPDATE agents SET last_wake_sent_at = '2026-03-01', wake_attempts = 1")
        .execute(&mut *other)
        .await
        .unwrap();
    other.commit().await.unwrap();
    assert_eq!(writing.await.unwrap(), Ok(false));
    let after = world.store.wake_state(WORKER).await.unwrap().unwrap();
    assert_eq!(after.record, read.record);
    assert!(after.foreign_wake().is_some());
}
