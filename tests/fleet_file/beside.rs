//! Beside a backend that runs: its rows are a file and back, and neither side loses anything.

use openclaw_controller::sim::{SimDialect, SimGateway};
use openclaw_controller::store::{PgOptions, PgStore};

use crate::Desk;
use crate::backend::{Backend, SCHEMA};
use crate::support::Database;

async fn installation() -> Desk {
    let database = Database::empty().await;
    database.execute(SCHEMA).await;
    let store = PgStore::connect(&database.url.clone().into(), PgOptions::default())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    Desk::on(database)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_installation_is_exported_and_applied_without_a_write() {
    let desk = installation().await;
    let sim = SimGateway::new(SimDialect::V2026_7_1, "");
    let backend = Backend::new(&desk.database.url, sim).await;
    for name in ["Ada", "Ada", "Bo: \"the\" #1"] {
        backend.insert_agent(name).await;
    }
    let yaml = desk.is_a_fixed_point().await;
    assert!(yaml.contains("name: them"), "{yaml}");
    // What others refer to is not deleted, and no row that their triggers or keys guard is half gone.
    let ada = desk
        .one("SELECT id::text FROM agents WHERE name = 'Ada' ORDER BY id LIMIT 1")
        .await;
    backend
        .execute(&format!(
            "INSERT INTO tasks (id, title, assigned_agent_id) VALUES (gen_random_uuid(), 'Do', '{ada}');
             UPDATE agents SET delete_requested_at = now() WHERE id = '{ada}';
             INSERT INTO openclaw_controller.agent_records (agent_id, conditions)
             VALUES ('{ada}', '[{{\"type\": \"Deleted\", \"status\": \"True\"}}]')"
        ))
        .await;
    let before = desk.rows().await;
    let yaml = desk.exported().await;
    assert!(!yaml.contains(&ada), "{yaml}");
    let printed = desk.applied(&yaml, &["--prune"]).await;
    assert!(
        printed.contains("it is gone from its gateway, and its row stays: rows of other tables refer to it"),
        "{printed}"
    );
    assert!(printed.contains("tasks (1)"), "{printed}");
    assert_eq!(desk.rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_go_on_while_files_are_applied_and_neither_is_lost() {
    let desk = installation().await;
    let sim = SimGateway::new(SimDialect::V2026_7_1, "");
    let backend = Backend::new(&desk.database.url, sim).await;
    let mut agents = Vec::new();
    for n in 0..8 {
        agents.push(backend.insert_agent(&format!("Agent {n}")).await);
    }
    desk.database
        .execute("UPDATE agents SET agent_token_hash = 'theirs', identity_profile = '{\"role\": \"Writer 0\"}'")
        .await;
    // Theirs has two agents to begin with.
    let yaml = desk.exported().await;
    let beating = backend.heartbeats(&agents, 60);
    let applying = async {
        for n in 1..5 {
            let edited = yaml.replace("Writer 0", &format!("Writer {n}"));
            let printed = desk.applied(&edited, &[]).await;
            assert!(
                printed.ends_with("0 to add, 10 to change, 0 to remove; applied\n"),
                "{printed}"
            );
        }
    };
    tokio::join!(beating, applying);
    let found =
        "SELECT string_agg(DISTINCT agent_token_hash || ' ' || status || ' ' || (last_seen_at IS NOT NULL) || ' '
                     || identity_profile::text, '; ') FROM agents WHERE name LIKE 'Agent %'";
    assert_eq!(desk.one(found).await, "theirs online true {\"role\":\"Writer 4\"}");
    desk.is_a_fixed_point().await;
}
