//! What fails beside the controller comes back without it being restarted; and who acts when there are two of it.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test says by a panic what went wrong")]

mod support;

use std::time::Duration;

use openclaw_controller::lab::{Postgres, PostgresOptions};
use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType, GatewayId};
use openclaw_controller::sim::{Fault, SimDialect, SimGateway, SimServer};
use rustix::process::Signal;
use support::process::Process;
use support::{Controller, Database, Options, PATIENCE, eventually};
use tokio::time::Instant;

use ConditionType::Reachable;

const TOKEN: &str = "gateway-token";

/// One organisation, gateway, board and agent.
struct Fleet {
    database: Database,
    sim: SimGateway,
    _server: SimServer,
    gateway: GatewayId,
    agent: AgentId,
}

impl Fleet {
    async fn on(database: Database) -> Self {
        let sim = SimGateway::new(SimDialect::V2026_9_6, TOKEN);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let organization = database.organization().await;
        let gateway = database.gateway(organization, &server.url(), TOKEN, "/ws").await;
        let board = database.board(organization, Some(gateway), "board").await;
        let agent = database.agent(gateway, Some(board), "Wren", false).await;
        Self {
            database,
            sim,
            _server: server,
            gateway,
            agent,
        }
    }

    async fn new() -> Self {
        Self::on(Database::migrated().await).await
    }

    /// The statement that gives the agent this soul.
    fn edit(&self, soul: &str) -> String {
        format!("UPDATE agents SET soul_template = '{soul}' WHERE id = '{}'", self.agent)
    }

    /// Waits until the agent's soul is this on the gateway.
    async fn arrives(&self, soul: &str, deadline: Duration) {
        let id = format!("mc-{}", self.agent);
        eventually(&format!("{soul:?} arrives"), deadline, async || {
            (self.sim.file(&id, "SOUL.md").as_deref() == Some(soul)).then_some(())
        })
        .await;
    }

    /// Edits the agent and waits until that has arrived.
    async fn follows(&self, soul: &str) {
        self.database.execute(&self.edit(soul)).await;
        self.arrives(soul, PATIENCE).await;
    }

    async fn converged(&self) {
        self.database.agent_ready(self.agent).await;
        self.database.gateway_ready(self.gateway).await;
    }

    /// The backends of the controllers' connections that listen for notifications.
    const LISTENERS: &'static str = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND query ILIKE 'LISTEN%' AND pid <> pg_backend_pid()";

    /// A statement whose changes nobody is notified of.
    async fn unannounced(&self, sql: &str) {
        self.database
            .execute(&format!(
                "BEGIN; SET LOCAL session_replication_role = replica; {sql}; COMMIT"
            ))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_restarts_or_is_killed_is_waited_for_and_what_was_edited_meanwhile_arrives() {
    // Durable: a killed server must come back with what was committed.
    let options = PostgresOptions {
        durable: true,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start_with(options).await.unwrap();
    let database = Database::at(postgres.fresh_database().await.unwrap()).await;
    let mut controller = Process::run(&database.url, &[]);
    eventually("the controller migrates", PATIENCE, async || {
        sqlx::query("SELECT FROM openclaw_controller.leases")
            .fetch_optional(&database.pool)
            .await
            .ok()
            .flatten()
            .map(|_| ())
    })
    .await;
    let fleet = Fleet::on(database).await;
    fleet.converged().await;
    controller.readyz(200, "readyz check passed").await;

    for (soul, kill, longer_than_the_lease) in [
        ("after a restart", false, false),
        ("after a crash", true, false),
        ("after a long outage", true, true),
    ] {
        if kill {
            postgres.kill9().await.unwrap();
        } else {
            postgres.stop().await.unwrap();
        }
        let text = controller.readyz(503, "[-]database failed: ").await;
        assert!(text.contains("cannot reach the database"), "{text}");
        if longer_than_the_lease {
            // Not ready for a moment, neither before nor after the lease is given up.
            let mut given_up = 0;
            eventually("the lease is given up", PATIENCE, async || {
                let (status, text) = controller.page("/readyz").await;
                assert_eq!(status, 503, "{text}");
                given_up += usize::from(text.contains("[+]leader ok: unknown"));
                (given_up > 60).then_some(())
            })
            .await;
            controller.is_leader(false, PATIENCE).await;
        }
        // The gateway is edited by hand meanwhile, and the row before the controller can be back.
        fleet
            .sim
            .edit_file(&format!("mc-{}", fleet.agent), "AGENTS.md", "drift");
        postgres.start_again().await.unwrap();
        fleet.database.execute(&fleet.edit(soul)).await;
        fleet.arrives(soul, PATIENCE).await;
        eventually("the drift is put right", PATIENCE, async || {
            let text = fleet.sim.file(&format!("mc-{}", fleet.agent), "AGENTS.md");
            text.is_some_and(|text| text.contains("Wren")).then_some(())
        })
        .await;
        let text = controller.readyz(200, "[+]listener ok").await;
        assert!(text.contains("[+]leader ok: active"), "{text}");
    }
    fleet.follows("as ever").await;
    fleet.converged().await;

    controller.signal(Signal::TERM);
    assert_eq!(controller.outcome(PATIENCE).await, (Some(0), None));
    let lines = controller.log_lines();
    let told = |check: &str, message: &str| {
        lines.iter().any(|line| {
            line["check"] == check && line["message"].as_str().is_some_and(|text| text.starts_with(message))
        })
    };
    assert!(told("database", "check fails: cannot reach the database"));
    assert!(told("database", "check passes"));
    assert!(told("listener", "check fails"));
    assert!(
        !controller.log().contains(postgres.password()),
        "the password is in the log"
    );
    assert!(!controller.log().contains(TOKEN), "the gateway's token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listening_connection_that_is_killed_alone_is_made_again_and_nothing_is_missed() {
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.converged().await;
    let up = async || (controller.metric("openclaw_controller_listener_up", "").await > 0.5).then_some(());
    eventually("the listener is up", PATIENCE, up).await;
    for soul in ["once", "twice"] {
        // Not even a notification that is still on its way could tell of this edit.
        fleet.unannounced(&fleet.edit(soul)).await;
        let killed: Vec<bool> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT pg_terminate_backend(pid) FROM ({}) listeners",
            Fleet::LISTENERS
        )))
        .fetch_all(&fleet.database.pool)
        .await
        .unwrap();
        assert_eq!(killed, [true]);
        fleet.arrives(soul, PATIENCE).await;
        eventually("the listener is up again", PATIENCE, up).await;
        // By a notification again: the next resync is ten minutes away.
        fleet.follows(&format!("{soul} more")).await;
        eventually("a new connection listens", PATIENCE, async || {
            let pids: Vec<i32> = sqlx::query_scalar(Fleet::LISTENERS)
                .fetch_all(&fleet.database.pool)
                .await
                .unwrap();
            (pids.len() == 1).then_some(())
        })
        .await;
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_notification_resyncs_find_what_changed() {
    let fleet = Fleet::new().await;
    // Before anybody listens: a notification that is still on its way would find an edit that nobody was told of.
    fleet
        .database
        .execute(
            "DO $$ DECLARE t record; BEGIN
                FOR t IN SELECT tgname, tgrelid::regclass AS place FROM pg_trigger WHERE tgname LIKE 'openclaw\\_controller\\_%'
                LOOP EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.place); END LOOP;
             END $$",
        )
        .await;
    let options = Options {
        resync: Duration::from_secs(2),
        migrate: false,
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    fleet.converged().await;
    fleet.follows("found by a resync").await;
    let board: uuid::Uuid = sqlx::query_scalar("SELECT board_id FROM agents WHERE board_id IS NOT NULL")
        .fetch_one(&fleet.database.pool)
        .await
        .unwrap();
    let board = openclaw_controller::model::BoardId(board);
    let second = fleet.database.agent(fleet.gateway, Some(board), "Second", false).await;
    fleet.database.agent_ready(second).await;
    let found = async |source| controller.metric("openclaw_controller_discoveries_total", source).await;
    assert!(found("resync").await > 1.5, "no resync found the edit and the agent");
    let hints = found("hint").await;
    assert!(hints < 0.5, "there were {hints} hints");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_away_is_told_of_and_gets_what_was_edited_meanwhile() {
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.converged().await;
    let (sim, faults) = (&fleet.sim, fleet.sim.faults());

    // Each takes the gateway away for a while.
    for (soul, outage) in [
        (
            "during a restart",
            (|sim: &SimGateway| sim.restart()) as fn(&SimGateway),
        ),
        ("while nobody is let in", |sim| {
            sim.faults().refuse_connects();
            sim.cut_connections();
        }),
    ] {
        outage(sim);
        eventually("the outage is told", PATIENCE, async || {
            let conditions = fleet.database.gateway_conditions(fleet.gateway).await;
            let reachable = conditions.get(Reachable)?;
            (reachable.status == ConditionStatus::False && !reachable.message.is_empty()).then_some(())
        })
        .await;
        fleet.database.execute(&fleet.edit(soul)).await;
        faults.clear();
        fleet.arrives(soul, PATIENCE).await;
        fleet.converged().await;
        let conditions = fleet.database.gateway_conditions(fleet.gateway).await;
        assert!(conditions.is_true(Reachable));
    }

    // Each strikes in the middle of what an edit sets in motion.
    for (method, fault) in [
        ("agents.files.set", Fault::CutFrame),
        ("agents.files.set", Fault::DropBefore),
        ("agents.files.set", Fault::DropAfter),
        ("agents.files.set", Fault::Restart),
        ("agents.files.list", Fault::CutFrame),
        ("agents.files.get", Fault::CutFrame),
    ] {
        let soul = format!("{method} and {fault:?}");
        faults.inject(method, 1, fault);
        fleet.follows(&soul).await;
        fleet.converged().await;
    }
    for fault in [Fault::CutFrame, Fault::DropBefore, Fault::DropAfter, Fault::Restart] {
        let name = format!("after {fault:?}");
        faults.inject("config.patch", 1, fault);
        fleet
            .database
            .execute(&format!(
                "UPDATE agents SET name = '{name}' WHERE id = '{}'",
                fleet.agent
            ))
            .await;
        eventually(&format!("{name:?} is in the roster"), PATIENCE, async || {
            sim.config().to_string().contains(&name).then_some(())
        })
        .await;
        fleet.converged().await;
    }
    // Only an idle connection: nobody asks for anything, and it is there again.
    sim.cut_connections();
    eventually("the connection is made again", PATIENCE, async || {
        (sim.connections() == 1).then_some(())
    })
    .await;
    fleet.follows("at last").await;
    let (status, text) = controller.page("/readyz").await;
    assert_eq!(status, 200, "{text}");
    controller.stop().await;
}

/// Two processes on one database; the first acts.
async fn two(fleet: &Fleet) -> (Process, Process) {
    let url = |name: &str| format!("{}?application_name={name}", fleet.database.url);
    let debug = &["--log", "info,openclaw_controller=debug"];
    let first = Process::run(&url("first"), debug);
    first.is_leader(true, PATIENCE).await;
    let second = Process::run(&url("second"), debug);
    second.readyz(200, "[+]leader ok: standby").await;
    second.is_leader(false, PATIENCE).await;
    fleet.converged().await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_soon_after_a_crash_and_at_once_after_a_goodbye() {
    let fleet = Fleet::new().await;
    let (mut first, mut second) = two(&fleet).await;
    let killed = Instant::now();
    first.signal(Signal::KILL);
    assert_eq!(first.outcome(PATIENCE).await, (None, Some(9)));
    second.is_leader(true, Duration::from_secs(20)).await;
    println!("taken over {:.1} s after a crash", killed.elapsed().as_secs_f64());
    fleet.follows("by the second").await;

    let third = Process::run(&fleet.database.url, &[]);
    third.readyz(200, "[+]leader ok: standby").await;
    let asked = Instant::now();
    second.signal(Signal::TERM);
    // Two seconds are promised; the machine may be busy.
    third.is_leader(true, Duration::from_secs(6)).await;
    println!("taken over {:.1} s after a goodbye", asked.elapsed().as_secs_f64());
    assert_eq!(second.outcome(PATIENCE).await, (Some(0), None));
    fleet.follows("by the third").await;
    third.readyz(200, "[+]leader ok: active, term").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_frozen_while_it_was_replaced_writes_nothing_when_it_thaws() {
    let fleet = Fleet::new().await;
    let (first, second) = two(&fleet).await;
    // Who writes what, by the names of their connections.
    fleet
        .database
        .execute(
            "CREATE TABLE audit (who text, what text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO audit VALUES (current_setting('application_name'), TG_TABLE_NAME); RETURN NULL; END $$;
             DO $$ DECLARE t text; BEGIN
                FOREACH t IN ARRAY ARRAY['leases', 'gateway_records', 'agent_records', 'events', 'token_candidates',
                                         'verified_tokens', 'token_mismatches']
                LOOP EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON openclaw_controller.%I
                                     FOR EACH ROW EXECUTE FUNCTION note()', t); END LOOP;
                CREATE TRIGGER note AFTER UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION note();
             END $$;",
        )
        .await;
    first.signal(Signal::STOP);
    // It wakes up to notifications of these.
    fleet.database.execute(&fleet.edit("while frozen")).await;
    second.is_leader(true, PATIENCE).await;
    fleet.arrives("while frozen", PATIENCE).await;
    fleet.converged().await;
    fleet.sim.edit_file(
        &format!("mc-{}", fleet.agent),
        "SOUL.md",
        "drift that only a resync would find",
    );
    fleet.database.execute("TRUNCATE audit").await;
    let logged = first.log().len();

    first.signal(Signal::CONT);
    first.is_leader(false, PATIENCE).await;
    first.readyz(200, "[+]leader ok: standby").await;
    let by = |who: &str| format!("SELECT string_agg(DISTINCT what, ' ') FROM audit WHERE who = '{who}'");
    // The second one has renewed its lease meanwhile, so the audit works; and the first one has had its time.
    eventually("the second renews its lease", PATIENCE, async || {
        fleet.database.text(&by("second")).await
    })
    .await;
    assert_eq!(fleet.database.text(&by("first")).await, None);
    let log = first.log().split_off(logged);
    for write in ["\"message\":\"writing\"", "patching the config"] {
        assert!(!log.contains(write), "{log}");
    }
    assert!(first.metric("openclaw_controller_lease_lost_total", "").await > 0.5);
    fleet.follows("by the second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_a_long_patch_no_longer_than_its_deadline() {
    let fleet = Fleet::new().await;
    fleet.sim.faults().latency("config.patch", Duration::from_mins(5));
    let mut process = Process::run(&fleet.database.url, &[]);
    process.logs("patching the config").await;
    let asked = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.outcome(Duration::from_secs(20)).await, (Some(0), None));
    println!("stopped {:.1} s after SIGTERM", asked.elapsed().as_secs_f64());
    // Nothing is left behind that would keep the next one waiting.
    fleet.sim.faults().clear();
    let next = Process::run(&fleet.database.url, &[]);
    next.is_leader(true, Duration::from_secs(10)).await;
    fleet.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_work_in_flight_a_while_and_a_second_signal_gives_it_none() {
    for second_signal in [false, true] {
        let fleet = Fleet::new().await;
        fleet.sim.faults().latency("agents.files.set", Duration::from_mins(5));
        let mut process = Process::run(&fleet.database.url, &["--log", "info,openclaw_controller=debug"]);
        process.logs("\"message\":\"writing\"").await;
        process.signal(Signal::TERM);
        process.logs("a second signal ends at once").await;
        let asked = Instant::now();
        if second_signal {
            process.signal(Signal::INT);
            let outcome = process.outcome(Duration::from_secs(4)).await;
            assert_eq!(outcome, (Some(130), None));
        } else {
            assert_eq!(process.outcome(Duration::from_secs(20)).await, (Some(0), None));
        }
        println!(
            "with a second signal: {second_signal}; stopped after {:.1} s",
            asked.elapsed().as_secs_f64()
        );
    }
}
