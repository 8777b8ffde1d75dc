//! Leads where others are at work too: more controllers, the other program, tables that we do not know.

use std::time::{Duration, Instant};

use futures::future::join_all;
use openclaw_controller::model::{BoardId, EnsureLeads, GatewayId, NewLead};
use openclaw_controller::store::{Fence, LeadCreation, LeaseStore, PgStore, Store, StoreError};
use sqlx::AssertSqlSafe;

use super::postgres::{Postgres, connect};
use super::world::{TTL, World, agent, board, gateway, id};

const GATEWAY: GatewayId = GatewayId(uuid::Uuid::from_u128(10));

/// A gateway with so many boards.
async fn boards(world: &Postgres, count: u128) -> Vec<NewLead> {
    world.put_gateway(&gateway(10)).await;
    let mut leads = Vec::new();
    for n in 0..count {
        let board = board(100 + n, Some(10));
        assert!(EnsureLeads::Confirmed.wants(&board));
        world.put_board(&board).await;
        leads.push(NewLead::of(&board, GATEWAY, None).unwrap());
    }
    leads
}

/// A controller of its own: another store, another lease.
async fn controller(world: &Postgres, scope: &str) -> (PgStore, Fence) {
    (connect(&world.url).await, fence(world, scope).await)
}

async fn fence(world: &Postgres, scope: &str) -> Fence {
    Fence {
        scope: scope.to_owned(),
        holder: scope.to_owned(),
        term: world.store.acquire(scope, scope, TTL).await.unwrap().unwrap(),
    }
}

/// A role that may insert agents and lock nobody's boards, and the database's URL for it.
async fn narrow(world: &Postgres) -> (String, String) {
    let role = format!("narrow_{}", uuid::Uuid::new_v4().simple());
    world
        .run(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'narrow';
             GRANT USAGE ON SCHEMA public, openclaw_controller TO {role};
             GRANT ALL ON ALL TABLES IN SCHEMA openclaw_controller TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
             GRANT INSERT ON agents TO {role}"
        ))
        .await;
    let mut url = url::Url::parse(&world.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("narrow")).unwrap();
    (role, url.into())
}

async fn leads_of(world: &Postgres, board: BoardId) -> String {
    world
        .text(&format!(
            "SELECT count(*) FROM agents WHERE board_id = '{board}' AND is_board_lead"
        ))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_controllers_race_each_board_gets_one_lead() {
    // With the right to lock the other program's boards, and without it.
    for is_narrow in [false, true] {
        let world = Postgres::new().await;
        let leads = boards(&world, 12).await;
        let url = if is_narrow {
            narrow(&world).await.1
        } else {
            world.url.clone()
        };
        let mut controllers = Vec::new();
        for scope in ["all", "sync", "third"] {
            controllers.push((connect(&url).await, fence(&world, scope).await));
        }
        // Board by board, so that they meet at each.
        let race = leads.iter().flat_map(|lead| {
            controllers
                .iter()
                .map(async move |(store, fence)| store.create_lead(fence, lead).await.unwrap())
        });
        let outcomes = join_all(race).await;
        let count = |is: fn(&LeadCreation) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
        let made = count(|outcome| matches!(outcome, LeadCreation::Created(_)));
        let present = count(|outcome| *outcome == LeadCreation::Present);
        assert_eq!((made, present), (leads.len(), 2 * leads.len()), "narrow: {is_narrow}");
        for lead in &leads {
            assert_eq!(leads_of(&world, lead.board).await, "1");
        }
    }
}

#[tokio::test]
async fn a_leads_row_has_all_that_their_tables_want_and_times_in_utc_wherever_the_server_is() {
    let world = Postgres::new().await;
    let lead = boards(&world, 1).await.remove(0);
    let database = url::Url::parse(&world.url).unwrap().path()[1..].to_owned();
    world
        .run(&format!("ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'"))
        .await;
    let (store, fence) = controller(&world, "all").await;
    let LeadCreation::Created(id) = store.create_lead(&fence, &lead).await.unwrap() else {
        panic!("no lead was made")
    };
    let row = world
        .text(&format!(
            "SELECT (abs(extract(epoch FROM created_at - (clock_timestamp() AT TIME ZONE 'UTC'))) < 60,
                     updated_at = created_at, lifecycle_generation, wake_attempts, is_board_lead, heartbeat_config IS NULL,
                     agent_token_hash IS NULL, last_wake_sent_at IS NULL) FROM agents WHERE id = '{id}'"
        ))
        .await;
    assert_eq!(row, "(t,t,0,0,t,t,t,t)");
}

#[tokio::test]
async fn a_lead_that_the_other_program_has_inserted_and_not_committed_yet_is_waited_for() {
    let world = Postgres::new().await;
    let lead = boards(&world, 1).await.remove(0);
    let (store, fence) = controller(&world, "all").await;
    let mut theirs = world.admin.begin().await.unwrap();
    let insert = format!(
        "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation, wake_attempts)
         VALUES ('{}', '{}', '{GATEWAY}', 'Theirs', 'provisioning', true, 0, 0)",
        id(500),
        lead.board
    );
    sqlx::raw_sql(AssertSqlSafe(insert))
        .execute(&mut *theirs)
        .await
        .unwrap();
    // It talks to its gateway meanwhile. We do not wait for the end of that.
    let began = Instant::now();
    let error = store.create_lead(&fence, &lead).await.unwrap_err();
    assert!(matches!(error, StoreError::LockTimeout(_)), "{error:?}");
    assert!(error.to_string().contains(&lead.board.to_string()), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let waiting = tokio::spawn({
        let (store, fence, lead) = (store.clone(), fence.clone(), lead.clone());
        async move { store.create_lead(&fence, &lead).await }
    });
    while world
        .text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        .await
        == "0"
    {
        assert!(!waiting.is_finished(), "it does not wait");
    }
    theirs.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(LeadCreation::Present));
    assert_eq!(leads_of(&world, lead.board).await, "1");
}

#[tokio::test]
async fn a_role_that_may_not_lock_their_boards_makes_leads_all_the_same() {
    let world = Postgres::new().await;
    let lead = boards(&world, 1).await.remove(0);
    let (role, url) = narrow(&world).await;
    let store = connect(&url).await;
    let (_, fence) = controller(&world, "all").await;
    let made = store.create_lead(&fence, &lead).await;
    assert!(matches!(made, Ok(LeadCreation::Created(_))), "{made:?}");
    world
        .run(&format!("REVOKE INSERT ON agents FROM {role}; DELETE FROM agents"))
        .await;
    let error = store.create_lead(&fence, &lead).await.unwrap_err();
    assert!(matches!(error, StoreError::Permission(_)), "{error:?}");
}

#[tokio::test]
async fn what_their_tables_have_against_the_row_is_told_and_leaves_nothing_behind() {
    let world = Postgres::new().await;
    let lead = boards(&world, 1).await.remove(0);
    world.put_agent(&agent(30, Some(100), 10)).await;
    let (store, fence) = controller(&world, "all").await;
    for (against, away, says) in [
        (
            "ALTER TABLE agents ADD COLUMN colour text; UPDATE agents SET colour = 'red';
             ALTER TABLE agents ALTER COLUMN colour SET NOT NULL",
            "ALTER TABLE agents DROP COLUMN colour",
            "\"colour\"",
        ),
        (
            "ALTER TABLE agents ADD CONSTRAINT no_leads CHECK (NOT is_board_lead)",
            "ALTER TABLE agents DROP CONSTRAINT no_leads",
            "\"no_leads\"",
        ),
        (
            "CREATE TYPE mood AS ENUM ('online', 'provisioned'); ALTER TABLE agents ALTER COLUMN status TYPE mood USING 'online'",
            "ALTER TABLE agents ALTER COLUMN status TYPE text USING status::text; DROP TYPE mood",
            "status",
        ),
    ] {
        world.run(against).await;
        let error = store.create_lead(&fence, &lead).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.is_transient(), "{error:?}");
        let left = world
            .text("(SELECT count(*) FROM agents) + (SELECT count(*) FROM openclaw_controller.events)")
            .await;
        assert_eq!(left, "1", "something was written");
        world.run(away).await;
    }
    // The same connection works on.
    assert!(matches!(
        store.create_lead(&fence, &lead).await,
        Ok(LeadCreation::Created(_))
    ));
}
