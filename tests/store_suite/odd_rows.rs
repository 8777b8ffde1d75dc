//! Rows that no program should write and some do: each is read as well as can be, and stops nothing else.

use chrono::Datelike;
use openclaw_controller::model::{AgentId, GatewayId};
use openclaw_controller::store::Store;

use super::postgres::Postgres;
use super::world::{World, agent, board, gateway, id};

#[tokio::test]
async fn odd_rows_are_read_all_the_same() {
    let world = Postgres::new().await;
    world.put_gateway(&gateway(10)).await;
    world.put_board(&board(20, Some(10))).await;
    for n in 30..34 {
        world.put_agent(&agent(n, Some(20), 10)).await;
    }
    let sql = "
        UPDATE gateways SET name = NULL, created_at = '-infinity', token = NULL, url = '', workspace_root = '';
        UPDATE boards SET name = NULL, target_date = 'infinity', goal_confirmed = NULL, success_metrics = '1e999';
        UPDATE agents SET name = NULL, status = NULL, created_at = NULL WHERE id = '$30';
        UPDATE agents SET created_at = 'infinity', last_seen_at = '294000-01-01', delete_requested_at = '4000-01-01 BC'
         WHERE id = '$31';
        UPDATE agents SET identity_profile = '{\"role\": \"\\u0000\"}', heartbeat_config = '[1, 2]' WHERE id = '$32';
        UPDATE agents SET heartbeat_config = (repeat('[', 500) || repeat(']', 500))::json WHERE id = '$33'";
    let sql = (30..34).fold(sql.to_owned(), |sql, n| {
        sql.replace(&format!("${n}"), &id(n).to_string())
    });
    world.run(&sql).await;

    let fleet = world.store.load_fleet().await.unwrap();
    let found = |n: u128| fleet[0].agents.iter().find(|agent| agent.id == AgentId(id(n))).unwrap();
    assert_eq!(fleet[0].gateway.created_at.year(), 1);
    assert_eq!(fleet[0].agents.len(), 4);
    let board = fleet[0].boards.values().next().unwrap();
    assert_eq!((board.target_date.unwrap().year(), board.goal_confirmed), (9999, false));
    assert!(
        matches!(board.success_metrics, Some(Err(_))),
        "a number that does not fit"
    );
    assert_eq!((found(30).name.as_str(), found(30).created_at.year()), ("", 1));
    assert_eq!(found(31).created_at.year(), 9999);
    assert!(found(31).delete_requested_at.is_some());
    assert_eq!(found(32).identity_profile, Some(Ok(serde_json::json!({"role": "\0"}))));
    assert!(matches!(found(33).heartbeat_config, Some(Err(_))), "too deep");
}

#[tokio::test]
async fn the_oldest_owner_counts() {
    let world = Postgres::new().await;
    world.put_gateway(&gateway(10)).await;
    world
        .run(
            "INSERT INTO users (id, clerk_user_id, name, is_super_admin)
             SELECT gen_random_uuid(), name, name, false FROM unnest(ARRAY['member', 'young', 'old', 'elsewhere']) AS name;
             INSERT INTO organizations (id) VALUES (gen_random_uuid());
             INSERT INTO organization_members (id, organization_id, user_id, role, created_at)
             SELECT gen_random_uuid(), g.organization_id, u.id, CASE WHEN u.name = 'member' THEN 'member' ELSE 'owner' END,
                    CASE u.name WHEN 'member' THEN timestamp '2020-01-01' WHEN 'old' THEN '2021-01-01' ELSE '2022-01-01' END
               FROM gateways g, users u WHERE u.name <> 'elsewhere';
             INSERT INTO organization_members (id, organization_id, user_id, role, created_at)
             SELECT gen_random_uuid(), o.id, u.id, 'owner', '2000-01-01' FROM organizations o, users u
              WHERE u.name = 'elsewhere' AND o.id NOT IN (SELECT organization_id FROM gateways)",
        )
        .await;
    let snapshot = world.store.load_gateway(GatewayId(id(10))).await.unwrap().unwrap();
    assert_eq!(snapshot.owner.unwrap().name.as_deref(), Some("old"));
}

#[tokio::test]
async fn a_chosen_user_who_is_gone_gives_way_to_the_owner() {
    let world = Postgres::new().await;
    world.put_gateway(&gateway(10)).await;
    world
        .run(
            "INSERT INTO users (id, clerk_user_id, name, is_super_admin)
             SELECT gen_random_uuid(), name, name, false FROM unnest(ARRAY['owner', 'chosen']) AS name;
             INSERT INTO organization_members (id, organization_id, user_id, role, created_at)
             SELECT gen_random_uuid(), g.organization_id, u.id, 'owner', '2021-01-01'
               FROM gateways g, users u WHERE u.name = 'owner';
             INSERT INTO openclaw_controller.gateway_settings (gateway_id, user_id)
             SELECT g.id, u.id FROM gateways g, users u WHERE u.name = 'chosen'",
        )
        .await;
    let rendered_for = async || {
        let snapshot = world.store.load_gateway(GatewayId(id(10))).await.unwrap().unwrap();
        snapshot.owner.and_then(|user| user.name)
    };
    assert_eq!(rendered_for().await.as_deref(), Some("chosen"));
    world.run("DELETE FROM users WHERE name = 'chosen'").await;
    assert_eq!(rendered_for().await.as_deref(), Some("owner"));
}

#[tokio::test]
async fn the_newest_word_in_the_chat_pauses_a_board() {
    // (content, whether it is chat), oldest first; whether the board is paused then.
    let cases: &[(&[(&str, bool)], bool)] = &[
        (&[], false),
        (&[("/pause", true)], true),
        (&[("\u{2003}\t/PAUSE\u{a0}\n", true)], true),
        (&[("/pause", true), ("hello", true), ("please /resume", true)], true),
        (&[("/pause", true), ("/resume", false)], true),
        (&[("/pause", true), ("/Resume ", true)], false),
        (&[("/resume", true), ("/pause", false)], false),
        (&[("/ pause", true)], false),
        // What Python's strip() leaves alone.
        (&[("\u{200b}/pause", true)], false),
    ];
    let world = Postgres::new().await;
    world.put_gateway(&gateway(10)).await;
    world.put_board(&board(20, Some(10))).await;
    for (words, paused) in cases {
        world.run("DELETE FROM board_memory").await;
        for (i, (content, is_chat)) in words.iter().enumerate() {
            sqlx::query(
                "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)
                 VALUES (gen_random_uuid(), $1, $2, $3, timestamp '2026-01-01' + make_interval(secs => $4))",
            )
            .bind(id(20))
            .bind(content)
            .bind(is_chat)
            .bind(f64::from(u32::try_from(i).unwrap()))
            .execute(&world.admin)
            .await
            .unwrap();
        }
        let snapshot = world.store.load_gateway(GatewayId(id(10))).await.unwrap().unwrap();
        assert_eq!(snapshot.boards.values().next().unwrap().paused, *paused, "{words:?}");
    }
}
