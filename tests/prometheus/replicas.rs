//! What can be wrong with the controllers themselves, and with the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openclaw_controller::lab::{Postgres, PostgresOptions, shared_postgres};
use openclaw_controller::sim::SimDialect;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fleet::Fleet;
use crate::stage::Stage;
use crate::support::process::Process;
use crate::support::{Controller, Database, Options, PATIENCE};

/// Nobody is watched: as long as the list of targets is empty.
pub(crate) async fn nobody_is_watched(stage: &Stage) {
    stage.fires("OpenClawControllerAbsent", None).await;
}

/// The only replica stands still, and answers nobody.
pub(crate) async fn a_replica_does_not_answer(stage: &Stage) {
    const FLEET: &str = "frozen";
    let fleet = Fleet::new().await;
    let process = Process::run(&fleet.database.url, &[]);
    fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", process.address).await;
    let alerts = ["OpenClawControllerDown", "OpenClawControllerNoLeader"];
    for alert in alerts {
        stage.quiet(alert, FLEET).await;
    }
    process.signal(Signal::STOP);
    for alert in alerts {
        stage.fires(alert, FLEET).await;
    }
    process.signal(Signal::CONT);
    for alert in alerts {
        stage.resolves(alert, FLEET).await;
    }
}

/// Somebody else holds the lease and does no work; and the lease is taken away twice.
pub(crate) async fn the_lease_is_somebody_elses(stage: &Stage) {
    const FLEET: &str = "lease";
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    let take = async |seconds: u32| {
        fleet
            .database
            .execute(&format!(
                "UPDATE openclaw_controller.leases
                 SET holder = 'somebody else', term = term + 1, expires_at = now() + interval '{seconds} s'"
            ))
            .await;
    };
    stage.quiet("OpenClawControllerNoLeader", FLEET).await;
    take(3600).await;
    stage.fires("OpenClawControllerNoLeader", FLEET).await;
    take(0).await;
    stage.resolves("OpenClawControllerNoLeader", FLEET).await;

    stage.quiet("OpenClawControllerLeaseLost", FLEET).await;
    stage
        .fires_while("OpenClawControllerLeaseLost", FLEET, async || {
            let held = controller.metric("openclaw_controller_lease_held", "").await;
            if held > 0.5 {
                take(0).await;
            }
        })
        .await;
    stage.resolves("OpenClawControllerLeaseLost", FLEET).await;
    controller.stop().await;
}

/// Postgres is stopped.
pub(crate) async fn the_database_is_away(stage: &Stage) {
    const FLEET: &str = "database";
    let options = PostgresOptions {
        durable: true,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start_with(options).await.unwrap();
    let database = Database::at(postgres.fresh_database().await.unwrap()).await;
    // Migrates, and waits to be told of rows.
    let controller = Controller::start(&database.url, Options::default()).await;
    crate::support::eventually("the controller leads", PATIENCE, async || {
        let held = controller.metric("openclaw_controller_lease_held", "").await;
        (held > 0.5).then_some(())
    })
    .await;
    let fleet = Fleet::on(database, SimDialect::V2026_9_6).await;
    let agent = fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.quiet("OpenClawControllerDatabaseUnreachable", FLEET).await;
    postgres.stop().await.unwrap();
    stage.fires("OpenClawControllerDatabaseUnreachable", FLEET).await;
    postgres.start_again().await.unwrap();
    stage.resolves("OpenClawControllerDatabaseUnreachable", FLEET).await;
    fleet.database.agent_ready(agent).await;
    controller.stop().await;
}

/// A pooler between the controller and Postgres swallows notifications.
pub(crate) async fn notifications_do_not_arrive(stage: &Stage) {
    const FLEET: &str = "pooler";
    let fleet = Fleet::new().await;
    let pooler = Pooler::default();
    let url = pooler.start(&fleet.database.url).await;
    let controller = Controller::start(&url, Options::default()).await;
    fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage
        .await_value("openclaw_controller_listener_up{namespace=\"pooler\"} == 1")
        .await;
    stage.quiet("OpenClawControllerListenerDown", FLEET).await;
    let connect_anew = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND query ILIKE 'LISTEN%' AND pid <> pg_backend_pid()";
    pooler.deaf.store(true, Ordering::SeqCst);
    fleet.database.execute(connect_anew).await;
    stage.fires("OpenClawControllerListenerDown", FLEET).await;
    pooler.deaf.store(false, Ordering::SeqCst);
    fleet.database.execute(connect_anew).await;
    stage.resolves("OpenClawControllerListenerDown", FLEET).await;
    controller.stop().await;
}

/// Forwards connections to the tests' Postgres, and swallows notifications while it is deaf.
#[derive(Clone, Default)]
struct Pooler {
    deaf: Arc<AtomicBool>,
}

impl Pooler {
    /// Starts it; returns this URL through it.
    async fn start(&self, url: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let port = shared_postgres().await.port();
        let pooler = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                tokio::spawn(pooler.clone().answers(from_server, to_client));
            }
        });
        format!(
            "{}?sslmode=disable",
            url.replace(&format!(":{port}/"), &format!(":{own}/"))
        )
    }

    async fn answers(
        self,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
    ) -> std::io::Result<()> {
        loop {
            // Each message is a type, and a length that counts itself.
            let mut message = vec![0; 5];
            from.read_exact(&mut message).await?;
            let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
            message.resize(length as usize + 1, 0);
            from.read_exact(&mut message[5..]).await?;
            if message[0] != b'A' || !self.deaf.load(Ordering::SeqCst) {
                to.write_all(&message).await?;
            }
        }
    }
}
