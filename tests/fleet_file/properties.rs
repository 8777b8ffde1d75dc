//! Any fleet, however odd its rows: what is exported changes nothing when it is applied, and makes the same fleet elsewhere.

use chrono::{DateTime, NaiveDateTime};
use openclaw_controller::fleet::{self, AgentRow, BoardRow, GatewayRow, OrganizationRow, Rows};
use openclaw_controller::model::{JsonColumn, User};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use secrecy::ExposeSecret;
use serde_json::{Map, Number, Value};
use sqlx::PgPool;
use uuid::Uuid;

use crate::Desk;

/// Texts that mean something else in YAML, or break it, unless they are written with care.
static ODD: [&str; 42] = [
    "",
    " ",
    "null",
    "~",
    "true",
    "no",
    "y",
    "0x1f",
    "0o7",
    "1e3",
    "-1",
    ".5",
    ".inf",
    ".nan",
    "1_000",
    "12:30:45",
    "2027-01-31",
    "- a",
    "a: b",
    "a #b",
    "# a",
    "&a",
    "*a",
    "!a",
    "|",
    ">",
    "%a",
    "@a",
    "`a",
    "{a",
    "[a",
    "'",
    "\"",
    "\\",
    "---",
    "...",
    "\t",
    "a\n",
    "\na\n\n",
    "  a\nb\n",
    "a \n b\r\n",
    "<<",
];

fn text() -> impl Strategy<Value = String> {
    let odd = proptest::sample::select(&ODD[..]).prop_map(ToOwned::to_owned);
    let piece = prop_oneof![
        4 => proptest::sample::select(vec!["a", "Ada", " ", "\n", ":", "#", "-", "\t", "\"", "'", "{{ x }}", "é", "\u{85}", "\u{2028}",
            "\u{feff}", "\u{7f}", "\u{1b}", "\r", "\u{1f600}", "long enough to be folded by anybody who folds"]).prop_map(ToOwned::to_owned),
        1 => any::<char>().prop_map(|char| char.to_string()),
    ];
    let pieces = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    prop_oneof![1 => odd, 3 => pieces].prop_map(|text| text.replace('\0', ""))
}

fn json(depth: u32) -> BoxedStrategy<Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        any::<f64>().prop_filter_map("JSON holds it", Number::from_f64),
        Just(Number::from_f64(-0.0).unwrap()),
        Just(Number::from_f64(1e300).unwrap()),
        Just(Number::from_f64(3.0).unwrap()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_map(Value::Number),
        text().prop_map(Value::from),
        Just(Value::from("a\0b")),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        2 => leaf,
        1 => proptest::collection::vec(json(depth - 1), 0..3).prop_map(Value::from),
        2 => object(depth - 1),
    ]
    .boxed()
}

fn object(depth: u32) -> BoxedStrategy<Value> {
    proptest::collection::vec((text(), json(depth)), 0..3)
        .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>()))
        .boxed()
}

fn column(value: impl Strategy<Value = Value>) -> impl Strategy<Value = JsonColumn> {
    proptest::option::of(value).prop_map(|value| value.filter(|value| !value.is_null()).map(Ok))
}

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(|bits| Uuid::from_u128(bits | 1))
}

fn instant() -> impl Strategy<Value = NaiveDateTime> {
    (-60_000_000_000i64..250_000_000_000, 0u32..1_000_000)
        .prop_map(|(second, micros)| DateTime::from_timestamp(second, micros * 1000).unwrap().naive_utc())
}

fn organization() -> impl Strategy<Value = OrganizationRow> {
    let optional = || proptest::option::of(text());
    let owner =
        (id(), optional(), optional(), optional(), optional()).prop_map(|(id, email, name, timezone, notes)| {
            let user = User {
                id,
                email,
                name,
                preferred_name: None,
                pronouns: None,
                timezone,
                notes,
                context: None,
            };
            (format!("user-{id}"), user)
        });
    (id(), optional(), proptest::option::of(owner)).prop_map(|(id, name, owner)| OrganizationRow { id, name, owner })
}

fn gateway(organizations: Vec<Uuid>) -> impl Strategy<Value = GatewayRow> {
    let token = prop_oneof![
        Just(None),
        text().prop_map(Some),
        Just(Some("env:OPENCLAW_GATEWAY_TOKEN_A".to_owned())),
        Just(Some("file:quay/token".to_owned())),
        Just(Some("s3cret-of-the-gateway".to_owned())),
    ];
    let url = prop_oneof![
        text(),
        Just("ws://127.0.0.1:1".to_owned()),
        Just("wss://h/p?s3cret-of-the-gateway".to_owned()),
        Just("wss://me:s3cret-of-the-gateway@h/p".to_owned()),
    ];
    let place = proptest::option::weighted(0.95, proptest::sample::select(organizations));
    (
        id(),
        place,
        proptest::option::of(text()),
        url,
        token,
        text(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(id, organization_id, name, url, token, workspace_root, pairing, tls)| GatewayRow {
                id,
                organization_id,
                name,
                url,
                token: token.map(Into::into),
                workspace_root,
                disable_device_pairing: pairing,
                allow_insecure_tls: tls,
            },
        )
}

fn board(organizations: Vec<Uuid>, gateways: Vec<Uuid>) -> impl Strategy<Value = BoardRow> {
    let optional = || proptest::option::of(text());
    let truth = || proptest::option::of(any::<bool>());
    let home = if gateways.is_empty() {
        Just(None).boxed()
    } else {
        proptest::option::weighted(0.8, proptest::sample::select(gateways)).boxed()
    };
    let place = proptest::option::weighted(0.95, proptest::sample::select(organizations));
    (
        (
            id(),
            place,
            optional(),
            optional(),
            home,
            optional(),
            text(),
            optional(),
        ),
        (
            column(json(2)),
            proptest::option::of(instant()),
            any::<i32>(),
            optional(),
            column(object(1)),
        ),
        (truth(), truth(), truth(), truth(), truth(), truth()),
    )
        .prop_map(|(a, b, c)| BoardRow {
            id: a.0,
            organization_id: a.1,
            name: a.2,
            slug: a.3,
            gateway_id: a.4,
            board_type: a.5,
            description: a.6,
            objective: a.7,
            success_metrics: b.0,
            target_date: b.1,
            max_agents: b.2,
            lead_name: b.3,
            lead_identity: b.4,
            goal_confirmed: c.0,
            require_approval_for_done: c.1,
            require_review_before_done: c.2,
            block_status_changes_with_pending_approval: c.3,
            only_lead_can_change_status: c.4,
            comment_required_for_review: c.5,
        })
}

fn agent(boards: Vec<Uuid>, gateways: Vec<Uuid>) -> impl Strategy<Value = AgentRow> {
    let optional = || proptest::option::of(prop_oneof![text(), Just("# Shared\n\nBy several.\n".to_owned())]);
    let place = if boards.is_empty() {
        Just(None).boxed()
    } else {
        proptest::option::weighted(0.8, proptest::sample::select(boards)).boxed()
    };
    (
        (
            id(),
            place,
            proptest::sample::select(gateways),
            proptest::option::of(text()),
            any::<bool>(),
        ),
        (
            column(object(2)),
            column(object(1)),
            optional(),
            optional(),
            proptest::option::weighted(0.1, instant()),
        ),
    )
        .prop_map(|(a, b)| AgentRow {
            id: a.0,
            board_id: a.1,
            gateway_id: a.2,
            name: a.3,
            is_board_lead: a.4 && a.1.is_some(),
            heartbeat_config: b.0,
            identity_profile: b.1,
            identity_template: b.2,
            soul_template: b.3,
            delete_requested_at: b.4,
            is_gone: false,
        })
}

fn rows() -> impl Strategy<Value = Rows> {
    proptest::collection::vec(organization(), 1..4)
        .prop_flat_map(|organizations| {
            let ids: Vec<Uuid> = organizations.iter().map(|row| row.id).collect();
            (Just(organizations), proptest::collection::vec(gateway(ids), 0..4))
        })
        .prop_flat_map(|(organizations, gateways)| {
            let ids: Vec<Uuid> = organizations.iter().map(|row| row.id).collect();
            let homes: Vec<Uuid> = gateways.iter().map(|row| row.id).collect();
            let boards = proptest::collection::vec(board(ids, homes), 0..5);
            (Just(organizations), Just(gateways), boards)
        })
        .prop_flat_map(|(organizations, gateways, boards)| {
            let homes: Vec<Uuid> = gateways.iter().map(|row| row.id).collect();
            let places: Vec<Uuid> = boards.iter().map(|row| row.id).collect();
            let agents = if homes.is_empty() {
                Just(Vec::new()).boxed()
            } else {
                proptest::collection::vec(agent(places, homes), 0..10).boxed()
            };
            (Just(organizations), Just(gateways), Just(boards), agents)
        })
        .prop_map(|(mut organizations, mut gateways, mut boards, agents)| {
            organizations.sort_by_key(|row| row.id);
            gateways.sort_by_key(|row| row.id);
            boards.sort_by_key(|row| row.id);
            Rows {
                organizations,
                gateways,
                boards,
                agents,
                ..Rows::default()
            }
        })
}

fn nobody(key: usize) -> Uuid {
    Uuid::from_u128(u128::MAX - key as u128)
}

#[test]
fn what_was_exported_reads_as_what_the_rows_say() {
    let config = Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    };
    proptest!(config, |(rows in rows())| {
        let exported = fleet::export(&rows, None).unwrap();
        prop_assert!(!exported.yaml.contains("s3cret"), "{}", exported.yaml);
        let file = fleet::read(exported.yaml.as_bytes());
        let file = file.map_err(|problems| TestCaseError::fail(format!("{problems:#?}\n{}", exported.yaml)))?;
        for prune in [false, true] {
            let plan = fleet::diff(&file, &rows, prune, nobody);
            let plan = plan.map_err(|problems| TestCaseError::fail(format!("{problems:#?}\n{}", exported.yaml)))?;
            prop_assert!(plan.is_empty(), "{:#?}\n{}", plan.changes, exported.yaml);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn any_fleet_is_exported_applied_without_a_write_and_made_again_elsewhere() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[7; 32]),
    );
    let mut seen = 0;
    for case in 0..6 {
        let mut rows = rows().new_tree(&mut runner).unwrap().current();
        let is_tame = case >= 3;
        if is_tame {
            tame(&mut rows);
        }
        seen += rows.agents.len();
        let desk = Desk::new().await;
        insert(&desk.database.pool, &rows).await;
        let yaml = desk.is_a_fixed_point().await;
        // Elsewhere the same, unless its rows are such as nobody can make: those it is told of.
        let elsewhere = Desk::new().await;
        let made = elsewhere.apply(&yaml, &[]).await;
        if is_tame || made.code == Some(0) {
            assert_eq!(made.code, Some(0), "{made:?}\n{yaml}");
            assert_eq!(elsewhere.exported().await, yaml);
        } else {
            assert!(made.stderr.contains("fleet.yaml:"), "{made:?}");
            assert_eq!(elsewhere.one("SELECT count(*)::text FROM organizations").await, "0");
        }
    }
    assert!(seen > 10, "{seen} agents are hardly a fleet");
}

/// Makes of a fleet one that could be made: what has to have a name has one, and so on.
fn tame(rows: &mut Rows) {
    let name = |kind: &str, place: usize| Some(format!("{kind} {place}"));
    let home = rows.organizations[0].id;
    for (place, row) in rows.organizations.iter_mut().enumerate() {
        row.name = name("Org", place);
    }
    for (place, row) in rows.gateways.iter_mut().enumerate() {
        row.name = name("Gateway", place);
        row.organization_id.get_or_insert(home);
        row.url = "wss://gateway.example/x".into();
        row.token = Some("env:OPENCLAW_GATEWAY_TOKEN_A".into());
        row.workspace_root = "/ws".into();
    }
    for (place, row) in rows.boards.iter_mut().enumerate() {
        row.name = name("Board", place);
        row.organization_id.get_or_insert(home);
        row.gateway_id = row.gateway_id.or(rows.gateways.first().map(|gateway| gateway.id));
        row.max_agents &= i32::MAX;
    }
    for (place, row) in rows.agents.iter_mut().enumerate() {
        row.name = name("Agent", place);
    }
}

/// Puts rows into a database, as another program would.
async fn insert(pool: &PgPool, rows: &Rows) {
    for row in &rows.organizations {
        sqlx::query("INSERT INTO organizations (id, name) VALUES ($1, $2)")
            .bind(row.id)
            .bind(&row.name)
            .execute(pool)
            .await
            .unwrap();
        if let Some((name, user)) = &row.owner {
            sqlx::query(
                "INSERT INTO users (id, clerk_user_id, email, name, timezone, notes, is_super_admin)
                 VALUES ($1, $2, $3, $4, $5, $6, false)",
            )
            .bind(user.id)
            .bind(name)
            .bind(&user.email)
            .bind(&user.name)
            .bind(&user.timezone)
            .bind(&user.notes)
            .execute(pool)
            .await
            .unwrap();
            sqlx::query(
                "INSERT INTO organization_members (id, organization_id, user_id, role) VALUES ($1, $1, $2, 'owner')",
            )
            .bind(row.id)
            .bind(user.id)
            .execute(pool)
            .await
            .unwrap();
        }
    }
    for row in &rows.gateways {
        sqlx::query("INSERT INTO gateways VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now(), now())")
            .bind(row.id)
            .bind(row.organization_id)
            .bind(&row.name)
            .bind(&row.url)
            .bind(row.token.as_ref().map(|token| token.expose_secret().to_owned()))
            .bind(&row.workspace_root)
            .bind(row.disable_device_pairing)
            .bind(row.allow_insecure_tls)
            .execute(pool)
            .await
            .unwrap();
    }
    for row in &rows.boards {
        sqlx::query(
            "INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, description, objective, success_metrics,
                 target_date, goal_confirmed, require_approval_for_done, require_review_before_done,
                 block_status_changes_with_pending_approval, only_lead_can_change_status, comment_required_for_review, max_agents)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::json, $10, $11, $12, $13, $14, $15, $16, $17)",
        )
        .bind(row.id).bind(row.organization_id).bind(&row.name).bind(&row.slug).bind(row.gateway_id).bind(&row.board_type)
        .bind(&row.description).bind(&row.objective).bind(stored(&row.success_metrics)).bind(row.target_date)
        .bind(row.goal_confirmed).bind(row.require_approval_for_done).bind(row.require_review_before_done)
        .bind(row.block_status_changes_with_pending_approval).bind(row.only_lead_can_change_status)
        .bind(row.comment_required_for_review).bind(row.max_agents)
        .execute(pool).await.unwrap();
        if row.lead_name.is_some() || row.lead_identity.is_some() {
            sqlx::query("INSERT INTO openclaw_controller.board_settings VALUES ($1, $2, $3::text::json)")
                .bind(row.id)
                .bind(&row.lead_name)
                .bind(stored(&row.lead_identity))
                .execute(pool)
                .await
                .unwrap();
        }
    }
    for row in &rows.agents {
        sqlx::query(
            "INSERT INTO agents (id, board_id, gateway_id, name, status, heartbeat_config, identity_profile, identity_template,
                 soul_template, delete_requested_at, is_board_lead, lifecycle_generation, wake_attempts, created_at)
             VALUES ($1, $2, $3, $4, 'online', $5::text::json, $6::text::json, $7, $8, $9, $10, 0, 0, clock_timestamp())",
        )
        .bind(row.id).bind(row.board_id).bind(row.gateway_id).bind(&row.name).bind(stored(&row.heartbeat_config))
        .bind(stored(&row.identity_profile)).bind(&row.identity_template).bind(&row.soul_template)
        .bind(row.delete_requested_at).bind(row.is_board_lead)
        .execute(pool).await.unwrap();
    }
}

fn stored(column: &JsonColumn) -> Option<String> {
    column.as_ref().map(|value| value.as_ref().unwrap().to_string())
}
