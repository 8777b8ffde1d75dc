//! What applying a file does to the rows.

use chrono::NaiveDateTime;
use sqlx::Row;

use crate::{Desk, EXAMPLE};

/// Without the ids, which are new each time.
fn without_ids(printed: &str) -> String {
    let lines: Vec<_> = printed
        .lines()
        .map(|line| line.split(" (").next().unwrap())
        .filter(|line| !line.trim_start().starts_with("gateway_id"))
        .collect();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_shown_by_a_dry_run_written_once_and_then_changes_nothing() {
    let desk = Desk::new().await;
    let before = desk.rows().await;
    let dry = desk.applied(EXAMPLE, &["--dry-run"]).await;
    assert!(
        dry.ends_with("11 to add, 0 to change, 0 to remove; this was a dry run, nothing was written\n"),
        "{dry}"
    );
    assert_eq!(desk.rows().await, before);
    let wet = desk.applied(EXAMPLE, &[]).await;
    assert!(wet.ends_with("11 to add, 0 to change, 0 to remove; applied\n"), "{wet}");
    let shown = |text: &str| without_ids(text.rsplit_once("11 to add").unwrap().0);
    assert_eq!(shown(&dry), shown(&wet));
    for line in [
        "+ gateway Harbour museum / Quay",
        "    token: env:OPENCLAW_GATEWAY_TOKEN_QUAY",
        "+ agent Harbour museum / Website / Wren",
        "    heartbeat_config: {\"every\":\"30m\"}",
        "      You are {{ agent_name }}: {{ identity_role }}. You take your time.",
    ] {
        assert!(wet.contains(line), "{line} is not in\n{wet}");
    }

    // As the controller and the other program want them.
    let row = sqlx::query(
        "SELECT a.*, b.slug, b.target_date, b.max_agents, b.require_approval_for_done, g.url, m.role, u.name AS owner
           FROM agents a JOIN boards b ON b.id = a.board_id JOIN gateways g ON g.id = b.gateway_id AND g.id = a.gateway_id
           JOIN organization_members m ON m.organization_id = b.organization_id JOIN users u ON u.id = m.user_id
          WHERE a.name = 'Wren'",
    )
    .fetch_one(&desk.database.pool)
    .await
    .unwrap();
    assert_eq!(row.get::<String, _>("status"), "provisioning");
    assert_eq!(row.get::<Option<String>, _>("agent_token_hash"), None);
    assert_eq!(
        (
            row.get::<i32, _>("wake_attempts"),
            row.get::<i32, _>("lifecycle_generation")
        ),
        (0, 0)
    );
    let id: uuid::Uuid = row.get("id");
    assert_eq!(
        row.get::<String, _>("openclaw_session_id"),
        format!("agent:mc-{id}:main")
    );
    assert_eq!(
        (row.get::<String, _>("slug"), row.get::<i32, _>("max_agents")),
        ("website".to_owned(), 4)
    );
    assert!(row.get::<bool, _>("require_approval_for_done"));
    assert_eq!(
        row.get::<NaiveDateTime, _>("target_date").to_string(),
        "2027-03-31 00:00:00"
    );
    assert_eq!(
        (row.get::<String, _>("role"), row.get::<String, _>("owner")),
        ("owner".into(), "Robin Keeper".into())
    );
    assert!(
        row.get::<NaiveDateTime, _>("created_at") <= chrono::Utc::now().naive_utc() + chrono::TimeDelta::minutes(1)
    );
    let soul: String = row.get("soul_template");
    assert!(
        soul.starts_with("# SOUL.md\n\nYou are") && soul.ends_with("time.\n"),
        "{soul}"
    );

    let before = desk.rows().await;
    let again = desk.applied(EXAMPLE, &["--prune"]).await;
    assert_eq!(again, "the database is as the file says: nothing to do\n");
    assert_eq!(desk.rows().await, before);
    let yaml = desk.is_a_fixed_point().await;
    assert!(
        yaml.contains("template: soul-1") && yaml.contains("soul-1: |"),
        "{yaml}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_file_says_is_written_and_what_others_own_is_left_alone() {
    let desk = Desk::new().await;
    desk.applied(EXAMPLE, &[]).await;
    // What the controller and the other program write.
    desk.database
        .execute(
            "UPDATE agents SET status = 'online', last_seen_at = '2026-01-01', agent_token_hash = 'hash', wake_attempts = 2,
                 lifecycle_generation = 7, openclaw_session_id = 'agent:x:main', last_provision_error = 'e',
                 checkin_deadline_at = '2026-01-02', last_wake_sent_at = '2026-01-03', identity_template = 'Kept'",
        )
        .await;
    let theirs =
        "SELECT json_agg(json_build_array(status, last_seen_at, agent_token_hash, wake_attempts, lifecycle_generation,
                      openclaw_session_id, last_provision_error, checkin_deadline_at, last_wake_sent_at, created_at,
                      identity_template) ORDER BY id)::text FROM agents";
    let before = desk.one(theirs).await;
    assert!(desk.applied(EXAMPLE, &[]).await.ends_with("nothing to do\n"));
    let edited = EXAMPLE
        .replace("role: Writer", "role: Poet")
        .replace("heartbeat_config: { every: 30m }", "heartbeat_config: null")
        .replace(
            "soul_template: { template: calm }\n          - name: Pascal",
            "soul_template: |\n              # SOUL.md\n\n              You are quick.\n          - name: Pascal",
        )
        .replace("max_agents: 4", "max_agents: 6")
        .replace("lead_name: Isolde", "lead_name: Ines");
    let printed = desk.applied(&edited, &[]).await;
    for line in [
        "~ agent Harbour museum / Website / Wren",
        "    identity_profile: {\"role\":\"Writer\"} -> {\"role\":\"Poet\"}",
        "    heartbeat_config: {\"every\":\"30m\"} -> null",
        "      -You are {{ agent_name }}: {{ identity_role }}. You take your time.",
        "      +You are quick.",
        "    max_agents: 4 -> 6",
        "    lead_name: \"Isolde\" -> \"Ines\"",
        "0 to add, 3 to change, 0 to remove; applied",
    ] {
        assert!(printed.contains(line), "{line} is not in\n{printed}");
    }
    assert_eq!(desk.one(theirs).await, before);
    assert_eq!(
        desk.one("SELECT identity_profile::text FROM agents WHERE name = 'Wren'")
            .await,
        "{\"role\":\"Poet\"}"
    );
    assert_eq!(
        desk.one("SELECT heartbeat_config::text FROM agents WHERE name = 'Wren'")
            .await,
        "null"
    );
    assert_eq!(
        desk.one("SELECT lead_name FROM openclaw_controller.board_settings")
            .await,
        "Ines"
    );
    desk.is_a_fixed_point().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_known_by_their_ids_and_names_and_can_be_renamed_and_moved() {
    let desk = Desk::new().await;
    desk.applied(EXAMPLE, &[]).await;
    let wren = desk.one("SELECT id::text FROM agents WHERE name = 'Wren'").await;
    let lead = desk.one("SELECT id::text FROM agents WHERE is_board_lead").await;
    let main = desk.one("SELECT id::text FROM agents WHERE board_id IS NULL").await;
    // By their roles: a board's lead and a gateway's main agent are the same by another name.
    let renamed = EXAMPLE.replace("Marlow", "Nemo").replace("Gatekeeper", "Porter");
    let printed = desk.applied(&renamed, &["--prune"]).await;
    assert!(
        printed.ends_with("0 to add, 2 to change, 0 to remove; applied\n"),
        "{printed}"
    );
    assert_eq!(
        desk.one(&format!("SELECT name FROM agents WHERE id = '{lead}'")).await,
        "Nemo"
    );
    assert_eq!(
        desk.one(&format!("SELECT name FROM agents WHERE id = '{main}'")).await,
        "Porter"
    );
    // By its id: another name, another board.
    let moved = format!(
        "organizations:
  - name: Harbour museum
    gateways:
      - {{name: Pier, url: 'wss://pier.example/gw', workspace_root: /ws}}
    boards:
      - name: Newsletter
        gateway: Pier
        agents:
          - {{id: {wren}, name: Robin}}
"
    );
    let printed = desk.applied(&moved, &[]).await;
    assert!(printed.contains("name: \"Wren\" -> \"Robin\""), "{printed}");
    let place = "SELECT b.name || ' ' || g.name FROM agents a JOIN boards b ON b.id = a.board_id JOIN gateways g ON g.id = a.gateway_id";
    assert_eq!(
        desk.one(&format!("{place} WHERE a.id = '{wren}'")).await,
        "Newsletter Pier"
    );
    // The row of an agent that moves with its board says the new gateway as well, or the old one could never go.
    assert_eq!(
        desk.one(&format!("{place} WHERE a.name = 'Juno'")).await,
        "Newsletter Pier"
    );
    desk.is_a_fixed_point().await;

    // Two of one name can only be told apart by their ids.
    desk.database
        .execute("INSERT INTO organizations (id, name) VALUES (gen_random_uuid(), 'Harbour museum')")
        .await;
    let said = desk.refused(&moved).await;
    assert!(
        said.contains("fleet.yaml:2:11: in the database 2 organizations are called \"Harbour museum\": give the `id`"),
        "{said}"
    );
    desk.is_a_fixed_point().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_queries_stay_in_the_database_and_are_never_shown() {
    let desk = Desk::new().await;
    let organization = desk.database.organization().await;
    desk.database
        .gateway(organization, "wss://h/p?key=hunter2-query", "hunter2-token", "/ws")
        .await;
    let yaml = desk.is_a_fixed_point().await;
    assert!(
        yaml.contains("in the database; to keep it elsewhere write env:"),
        "{yaml}"
    );
    assert!(yaml.contains("wss://h/p?in-the-database"), "{yaml}");
    assert!(!yaml.contains("hunter2"), "{yaml}");

    let elsewhere = yaml.replace("wss://h/p?", "wss://other/p?");
    let printed = desk.applied(&elsewhere, &[]).await;
    assert!(
        printed.contains("url: \"wss://h/p?in-the-database\" -> \"wss://other/p?in-the-database\""),
        "{printed}"
    );
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(
        desk.one("SELECT url || ' ' || token FROM gateways").await,
        "wss://other/p?key=hunter2-query hunter2-token"
    );

    let start = elsewhere.find("token: ").unwrap();
    let end = start + elsewhere[start..].find('\n').unwrap();
    let referring = format!("{}token: file:quay/token{}", &elsewhere[..start], &elsewhere[end..]);
    let printed = desk.applied(&referring, &[]).await;
    assert!(printed.contains("    token: (a token) -> file:quay/token"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(desk.one("SELECT token FROM gateways").await, "file:quay/token");
    assert!(desk.is_a_fixed_point().await.contains("token: file:quay/token"));
    // A placeholder that was exported earlier does not undo that.
    assert!(desk.applied(&elsewhere, &[]).await.ends_with("nothing to do\n"));
    desk.applied(&referring.replace("token: file:quay/token", "token: null"), &[])
        .await;
    assert_eq!(desk.one("SELECT token FROM gateways").await, "null");
    let said = desk.refused(&elsewhere).await;
    assert!(
        said.contains("there is no token in the database that could be kept"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_made_where_there_is_none_and_left_alone_where_there_is_one() {
    let desk = Desk::new().await;
    desk.applied("organizations: [{name: One}]", &[]).await;
    desk.database
        .execute("INSERT INTO users (id, clerk_user_id, name, is_super_admin) VALUES (gen_random_uuid(), 'ada', 'Ada', false)")
        .await;
    // A user who is there is taken, and two organisations may have the same one.
    let yaml = "organizations: [{name: One, owner: {user: ada, name: Other}}, {name: Two, owner: {user: bo, name: Bo}}, {name: Three, owner: {user: bo}}]";
    desk.applied(yaml, &[]).await;
    let owners = "SELECT string_agg(o.name || ' ' || u.clerk_user_id || ' ' || u.name, ', ' ORDER BY o.name)
                    FROM organization_members m JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.organization_id
                   WHERE m.role = 'owner'";
    assert_eq!(desk.one(owners).await, "One ada Ada, Three bo Bo, Two bo Bo");
    let again = desk.applied(yaml, &[]).await;
    assert!(
        again.contains("! organization One: it has an owner who is not as the file says"),
        "{again}"
    );
    assert!(again.ends_with("nothing to do\n"), "{again}");
}
