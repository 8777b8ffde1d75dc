//! Ten thousand agents.

use std::time::{Duration, Instant};

use openclaw_controller::store::{PgOptions, PgStore};

use crate::fixture::{get, serves};
use crate::support::{Controller, Database, Options};

/// A database with twenty gateways, each with fifty boards of ten agents, as a controller would leave it: all of them ready but the
/// last gateway's. The gateways cannot be reached: nothing is to be done here but looking.
pub(crate) async fn database() -> Database {
    let database = Database::migrated().await;
    database
        .execute(
            "
        INSERT INTO organizations (id, name, created_at, updated_at) VALUES ('00000000-0000-4000-8000-000000000001', 'Org', now(), now());
        INSERT INTO gateways (id, organization_id, name, url, token, workspace_root, disable_device_pairing, allow_insecure_tls, created_at, updated_at)
        SELECT md5('gateway' || g)::uuid, '00000000-0000-4000-8000-000000000001', 'Gateway ' || lpad(g::text, 2, '0'), '', 'x', '/ws', false, false, now(), now()
          FROM generate_series(1, 20) g;
        INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, goal_confirmed, description, max_agents, created_at, updated_at)
        SELECT md5('board' || g || '/' || b)::uuid, '00000000-0000-4000-8000-000000000001', 'Board ' || g || '/' || b, 'board', md5('gateway' || g)::uuid,
               'general', false, 'A board.', 20, now(), now()
          FROM generate_series(1, 20) g, generate_series(1, 50) b;
        INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation, wake_attempts, last_seen_at,
                            soul_template, created_at, updated_at)
        SELECT md5('agent' || g || '/' || b || '/' || a)::uuid, md5('board' || g || '/' || b)::uuid, md5('gateway' || g)::uuid,
               'Agent ' || g || '/' || b || '/' || a, 'online', a = 1, 0, 0, clock_timestamp() AT TIME ZONE 'UTC' - a * interval '20 seconds',
               repeat('A soul of some length. ', 40), now(), now()
          FROM generate_series(1, 20) g, generate_series(1, 50) b, generate_series(1, 10) a;
        INSERT INTO openclaw_controller.gateway_records (gateway_id, generation, server_version, protocol, conditions)
        SELECT md5('gateway' || g)::uuid, 1, '2026.9.6', 4, (
            SELECT jsonb_agg(jsonb_build_object('type', t, 'status', CASE WHEN g = 20 THEN 'False' ELSE 'True' END,
                   'reason', CASE WHEN g = 20 THEN 'ConnectionRefused' ELSE 'Converged' END,
                   'message', CASE WHEN g = 20 THEN 'nobody listens at 192.0.2.20:18789: is the gateway running?' ELSE 'everything is as desired' END,
                   'observedGeneration', 1, 'lastTransitionTime', now() - interval '3 hours'))
              FROM unnest(ARRAY['Reachable', 'Authorized', 'Compatible', 'ConfigSynced', 'Ready']) t)
          FROM generate_series(1, 20) g;
        INSERT INTO openclaw_controller.agent_records (agent_id, generation, home_gateway_id, first_provisioned_at, conditions)
        SELECT id, 1, gateway_id, now() - interval '2 days', (
            SELECT jsonb_agg(jsonb_build_object('type', t, 'status', 'True', 'reason', 'Converged',
                   'message', 'everything is as desired, and was when it was last looked at', 'observedGeneration', 1,
                   'lastTransitionTime', now() - interval '2 days'))
              FROM unnest(ARRAY['Registered', 'FilesSynced', 'TokenValid', 'CheckedIn', 'Ready']) t)
          FROM agents;
        INSERT INTO openclaw_controller.events (object_kind, object_id, kind, reason, message, count, first_seen, last_seen)
        SELECT 'agent', id, 'Normal', 'Ready', 'everything is as desired', 1, now() - interval '2 days', now() - interval '2 days' * random()
          FROM agents;
        ANALYZE",
        )
        .await;
    database
}

/// A controller that looks at this database and leaves it as it is: another one holds the lease.
pub(crate) async fn onlooker(database: &Database) -> Controller {
    use openclaw_controller::store::LeaseStore;
    let store = PgStore::connect(&database.url.clone().into(), PgOptions::default())
        .await
        .unwrap();
    store
        .acquire("all", "somebody else", Duration::from_hours(1))
        .await
        .unwrap()
        .expect("the lease is free");
    store.close().await;
    let controller = Controller::start(&database.url, Options::default()).await;
    serves(controller.address).await;
    controller
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_agents_are_shown_as_soon_as_a_few() {
    let database = database().await;
    let controller = onlooker(&database).await;
    let address = controller.address;
    let status = get(address, "/api/v1/status").await.json();
    assert_eq!(status["totals"]["agents"], 10_000, "{status}");
    assert_eq!(status["totals"]["agentsReady"], 9_500, "{status}");
    for path in [
        "/",
        "/?ready=false",
        "/?search=agent+7%2F",
        "/agents",
        "/agents?offset=9900",
        "/agents?ready=false&limit=500",
        "/boards",
        "/gateways",
        "/events",
        "/api/v1/agents?limit=500",
    ] {
        let mut took = Vec::new();
        let mut size = 0;
        for _ in 0..5 {
            let started = Instant::now();
            let answer = get(address, path).await;
            took.push(started.elapsed());
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            size = answer.body.len();
        }
        took.sort();
        println!(
            "{path}: {:?} at best, {:?} in the middle, {} kB",
            took[0],
            took[2],
            size / 1000
        );
        assert!(size < 1_000_000, "{path} has {size} bytes");
        assert!(took[0] < Duration::from_secs(5), "{path}: {took:?}");
    }
    let page = get(address, "/").await;
    assert!(
        page.body
            .contains("500 of 10000 agents and 1 of 20 gateways are not ready"),
        "{}",
        page.body
    );
    assert!(page.body.contains("All 10000 agents"), "{}", page.body);
    let last = get(address, "/agents?offset=9950").await;
    assert!(
        last.body.contains("9951–10000 of 10000") && last.body.contains("Agent 9&#x2f;9&#x2f;9<"),
        "{}",
        last.body
    );
    controller.stop().await;
}
