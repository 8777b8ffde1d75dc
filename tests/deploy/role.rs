//! The roles of `deploy/postgres/role.sql`: what they can do is enough, and is all. (That it is enough for each single thing that a
//! store does is a part of the store's own tests.)

use openclaw_controller::model::{AgentId, BoardId, ConditionStatus, ConditionType, GatewayId};
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::roles::{Roles, psql, with_role};
use crate::support::contract::Watch;
use crate::support::process::{Process, command};
use crate::support::{Database, PATIENCE, eventually};

const EXISTING: &str = include_str!("../existing_installation.sql");

/// A database, empty or with another program's tables, which belong to that program's role.
async fn database(existing: bool) -> Database {
    let database = Database::empty().await;
    // As Postgres 15 has it by itself; what everybody may do is not the role's to take away.
    database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    if existing {
        database.execute(EXISTING).await;
        let backend = format!("backend_{}", Uuid::new_v4().simple());
        database
            .execute(&format!(
                "CREATE ROLE {backend};
                 DO $$ DECLARE t text; BEGIN
                   FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
                     EXECUTE format('ALTER TABLE %I OWNER TO {backend}', t);
                   END LOOP;
                 END $$"
            ))
            .await;
    }
    database
}

/// A simulated gateway with a row, a board and a worker.
struct Fleet {
    sim: SimGateway,
    _server: SimServer,
    _watch: Watch,
    gateway: GatewayId,
    board: BoardId,
    agent: AgentId,
}

impl Fleet {
    async fn on(database: &Database) -> Self {
        // One that has to be restarted for what it lacks.
        let sim = SimGateway::new(SimDialect::V2026_7_1, "the-gateways-token");
        let watch = Watch::simulated(&sim);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let organization = database.organization().await;
        let gateway = database
            .gateway(organization, &server.url(), "the-gateways-token", "/ws")
            .await;
        let board = database.board(organization, Some(gateway), "Board").await;
        let agent = database.agent(gateway, Some(board), "Wren", false).await;
        database.agent(gateway, None, "Main", false).await;
        Self {
            sim,
            _server: server,
            _watch: watch,
            gateway,
            board,
            agent,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_does_all_its_work_with_its_role_alone_and_beside_an_existing_installation() {
    const THEIRS: &str = "Somebody else's words.\n";
    for existing in [false, true] {
        let database = database(existing).await;
        let roles = Roles::make(&database.url).await;
        let fleet = Fleet::on(&database).await;
        // Beside another backend leads are that backend's, and the role cannot make any.
        let arguments: &[&str] = if existing {
            &["--no-migrate", "--resync-interval", "3s"]
        } else {
            &["--no-migrate", "--resync-interval", "3s", "--ensure-leads", "confirmed"]
        };
        let mut daemon = Process::run(&roles.daemon_url, arguments);
        database.agent_ready(fleet.agent).await;
        database.gateway_ready(fleet.gateway).await;
        if !existing {
            let leads = format!(
                "SELECT count(*)::text FROM agents WHERE board_id = '{}' AND is_board_lead",
                fleet.board
            );
            assert_eq!(database.text(&leads).await.as_deref(), Some("1"));
        }

        let environment = [("DATABASE_URL", roles.daemon_url.as_str())];
        let (gateway, agent) = (fleet.gateway.to_string(), fleet.agent.to_string());
        for arguments in [
            &["get", "agents", "-o", "wide"] as &[_],
            &["get", "boards"],
            &["get", "gateways", "-o", "json"],
            &["get", "events"],
            &["get", "unmanaged", "--gateway", &gateway],
            &["describe", "gateway", &gateway, "--plan", "always"],
            &["describe", "board", "Board"],
            &["describe", "agent", "Wren"],
            &["wake", "--agent", "Wren"],
            &["rotate-token", "--agent", &agent, "--wait"],
            &["sync", "--gateway", &gateway],
        ] {
            let done = command(arguments, &environment).await;
            assert_eq!(done.code, Some(0), "{arguments:?}, existing {existing}: {done:?}");
        }
        // Whoever may pause boards is somebody else.
        let refused = command(&["pause", "--board", "Board"], &environment).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("board_memory"), "{refused:?}");
        for (kind, id) in [
            ("gateways", gateway.clone()),
            ("boards", fleet.board.to_string()),
            ("agents", agent.clone()),
        ] {
            for path in [
                format!("/{kind}"),
                format!("/{kind}/{id}"),
                format!("/api/v1/{kind}"),
                format!("/api/v1/{kind}/{id}"),
            ] {
                assert_eq!(daemon.page(&path).await.0, 200, "{path}");
            }
        }
        for path in ["/", "/events", "/api/v1/events", "/api/v1/status"] {
            assert_eq!(daemon.page(path).await.0, 200, "{path}");
        }
        // What happens on gateways is written down.
        let count = async |table: &str| {
            let sql = format!("SELECT count(*)::text FROM openclaw_controller.{table}");
            database.text(&sql).await.unwrap()
        };
        assert_ne!(count("caused_restarts").await, "0");
        let id = format!("mc-{agent}");
        eventually("what somebody undid is written down", PATIENCE, async || {
            if fleet.sim.file(&id, "SOUL.md").is_some_and(|text| text != THEIRS) {
                fleet.sim.edit_file(&id, "SOUL.md", THEIRS);
            }
            (count("undone_fields").await != "0").then_some(())
        })
        .await;
        let differences = command(&["diff", "--gateway", &gateway], &environment).await;
        assert!(matches!(differences.code, Some(0 | 1)), "{differences:?}");

        database
            .execute(&format!(
                "UPDATE agents SET delete_requested_at = now() WHERE id = '{agent}'"
            ))
            .await;
        database
            .agent_condition(fleet.agent, ConditionType::Deleted, ConditionStatus::True, "Deleted")
            .await;
        daemon.signal(rustix::process::Signal::TERM);
        assert_eq!(daemon.outcome(PATIENCE).await, (Some(0), None));
        for told in [database.everything_told().await, daemon.log()] {
            assert!(!told.contains("permission denied"), "{told}");
        }
    }
}

/// What is not the daemon's business, whatever it is installed beside.
const FORBIDDEN: [&str; 33] = [
    // Tables, theirs and ours.
    "DROP TABLE agents",
    "DROP TABLE openclaw_controller.agent_records",
    "DROP TABLE openclaw_controller.caused_restarts",
    "TRUNCATE openclaw_controller.undone_fields",
    "DROP SCHEMA openclaw_controller CASCADE",
    "ALTER TABLE agents ADD COLUMN x integer",
    "ALTER TABLE agents DISABLE TRIGGER ALL",
    "ALTER TABLE openclaw_controller.events ADD COLUMN x integer",
    "CREATE TABLE public.x (y integer)",
    "CREATE TABLE openclaw_controller.x (y integer)",
    "CREATE SCHEMA x",
    "CREATE INDEX ON agents (name)",
    "CREATE TRIGGER x AFTER UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION openclaw_controller.hint_everything()",
    "DROP TRIGGER openclaw_controller_truncate ON agents",
    "TRUNCATE agents",
    "TRUNCATE openclaw_controller.events",
    "SELECT openclaw_controller.install_hints()",
    // Rows that are desired state.
    "DELETE FROM agents",
    "UPDATE agents SET name = 'x'",
    "UPDATE agents SET is_board_lead = true",
    "UPDATE agents SET delete_requested_at = now()",
    "INSERT INTO gateways (id) VALUES (gen_random_uuid())",
    "UPDATE gateways SET token = 'x'",
    "UPDATE boards SET name = 'x'",
    "DELETE FROM boards",
    "INSERT INTO board_memory (id) VALUES (gen_random_uuid())",
    "UPDATE organization_members SET role = 'owner'",
    // What it has no use for.
    "SELECT clerk_user_id FROM users",
    "SELECT provision_confirm_token_hash FROM agents",
    "SELECT name FROM organizations",
    // What is written down about the schema, and the terms of leases.
    "UPDATE openclaw_controller.migrations SET success = false",
    "DELETE FROM openclaw_controller.leases",
    // The server.
    "CREATE ROLE x",
];

/// Runs a statement, and returns its SQLSTATE.
async fn refusal(connection: &mut PgConnection, sql: &str) -> Option<String> {
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
    let error = outcome.err()?;
    error.as_database_error()?.code().map(Into::into)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_can_do_nothing_else() {
    const LEAD: &str = "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation,
                                            wake_attempts, created_at, updated_at)
                        SELECT gen_random_uuid(), id, gateway_id, 'Lead', 'online', true, 0, 0, now(), now() FROM boards";
    for existing in [false, true] {
        let database = database(existing).await;
        let roles = Roles::make(&database.url).await;
        Fleet::on(&database).await;
        let mut daemon = PgConnection::connect(&roles.daemon_url).await.unwrap();
        let become_owner = format!("SET ROLE {}", roles.owner);
        let of_others = if existing {
            "SELECT * FROM tasks"
        } else {
            "SELECT * FROM pg_authid"
        };
        for sql in FORBIDDEN.iter().copied().chain([become_owner.as_str(), of_others]) {
            let code = refusal(&mut daemon, sql).await;
            assert_eq!(code.as_deref(), Some("42501"), "existing {existing}: {sql}");
        }
        // It makes leads where no other backend does, or where somebody says so.
        let lead = refusal(&mut daemon, LEAD).await;
        assert_eq!(lead.as_deref(), existing.then_some("42501"));
        let said = format!("leads={existing}");
        roles.grant(&[&said]).await;
        let lead = refusal(&mut daemon, LEAD).await;
        assert_eq!(lead.as_deref(), (!existing).then_some("42501"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_migrates_without_a_right_on_the_database_and_leaves_their_tables_alone() {
    for existing in [false, true] {
        let database = database(existing).await;
        let roles = Roles::make(&database.url).await;
        let mut owner = PgConnection::connect(&roles.owner_url).await.unwrap();
        for sql in ["CREATE SCHEMA x", "CREATE TABLE public.x (y integer)", "CREATE ROLE x"] {
            let code = refusal(&mut owner, sql).await;
            assert_eq!(code.as_deref(), Some("42501"), "existing {existing}: {sql}");
        }
        let theirs = refusal(&mut owner, "ALTER TABLE agents ADD COLUMN x integer").await;
        assert_eq!(theirs.as_deref(), existing.then_some("42501"));
        // An upgrade that brings a table: the daemon has it at once.
        for sql in [
            "CREATE TABLE openclaw_controller.of_the_next_version (id integer)",
            "INSERT INTO openclaw_controller.of_the_next_version VALUES (1)",
        ] {
            assert_eq!(refusal(&mut owner, sql).await, None);
        }
        let mut daemon = PgConnection::connect(&roles.daemon_url).await.unwrap();
        let sql = "UPDATE openclaw_controller.of_the_next_version SET id = 2";
        assert_eq!(refusal(&mut daemon, sql).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_its_grants_says_what_is_missing_and_ends() {
    let database = database(false).await;
    let roles = Roles::made_once(&database.url).await;
    let said = roles.grant(&[]).await;
    assert!(said.contains("Next: openclaw-controller migrate"), "{said}");
    let early = Process::run(&roles.daemon_url, &["--no-migrate"]);
    early.logs("migrate").await;
    roles.migrate().await;
    let mut early = Process::run(&roles.daemon_url, &["--no-migrate"]);
    early.logs("permission denied for table").await;
    early.signal(rustix::process::Signal::TERM);
    early.ended(PATIENCE).await;
    let said = roles.grant(&[]).await;
    assert!(said.contains(&format!("may run as {}", roles.daemon)), "{said}");
    let daemon = Process::run(&roles.daemon_url, &["--no-migrate"]);
    daemon.readyz(200, "[+]leader ok: active").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_is_no_superuser_can_make_the_roles() {
    let database = Database::empty().await;
    let admin = format!("admin_{}", Uuid::new_v4().simple());
    let name = url::Url::parse(&database.url).unwrap().path()[1..].to_owned();
    let admin_url = with_role(&database.url, &admin);
    let password = url::Url::parse(&admin_url).unwrap().password().unwrap().to_owned();
    let sql =
        format!("CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD '{password}'; ALTER DATABASE {name} OWNER TO {admin}");
    for sql in sql.split("; ") {
        psql(&database.url, &["-q", "-c", sql]).await;
    }
    let roles = Roles::make(&admin_url).await;
    let daemon = Process::run(&roles.daemon_url, &["--no-migrate"]);
    daemon.readyz(200, "[+]leader ok: active").await;
    // While it runs.
    roles.migrate().await;
}
