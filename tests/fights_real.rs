//! Somebody who undoes the same thing again and again on a real gateway is contradicted twice, and then named.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a step that cannot go on has failed; these say where")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use openclaw_controller::gateway::{
    Client, Connector, DeviceIdentity, ErrorClass, RpcMetrics, Target, WebSocketConnector,
};
use openclaw_controller::lab::{Options, RealGateway};
use openclaw_controller::model::{AgentId, Condition, ConditionStatus, ConditionType, FIGHTING_WRITER, GatewayId};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use support::{Controller, Database, PATIENCE, eventually};

/// One gateway at a time: two of them and a controller are more than two cores can serve within anyone's deadline.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How often somebody undoes something at most.
const ENOUGH: usize = 10;

const THEIRS: &str = "# Somebody else's words\n";

struct Fleet {
    gateway: RealGateway,
    database: Database,
    row: GatewayId,
    agent: AgentId,
    /// Its id on the gateway.
    id: String,
    controller: Controller,
    clock: Instant,
}

impl Fleet {
    async fn new(version: &str) -> Self {
        let clock = Instant::now();
        let gateway = RealGateway::start(version, Options::default()).await.unwrap();
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let root = gateway.workspace_root().display().to_string();
        let row = database
            .gateway(organization, &gateway.url(), gateway.token(), &root)
            .await;
        let board = database.board(organization, Some(row), "alpha").await;
        let agent = database.agent(row, Some(board), "Wren", false).await;
        let options = support::Options {
            resync: Duration::from_secs(2),
            ..support::Options::default()
        };
        let controller = Controller::start(&database.url, options).await;
        let fleet = Self {
            gateway,
            database,
            row,
            agent,
            id: format!("mc-{agent}"),
            controller,
            clock,
        };
        fleet.ready().await;
        fleet.step("converged");
        fleet
    }

    fn step(&self, what: &str) {
        println!(
            "{} {:6.1} s  {what}",
            self.gateway.version(),
            self.clock.elapsed().as_secs_f64()
        );
    }

    async fn ready(&self) {
        self.database.gateway_ready(self.row).await;
        self.database.agent_ready(self.agent).await;
    }

    async fn connect(&self) -> Client {
        let target = Target {
            gateway: GatewayId(Uuid::nil()),
            url: self.gateway.url(),
            token: Some(self.gateway.token().to_owned().into()),
            disable_device_pairing: false,
            allow_insecure_tls: false,
        };
        let connector = WebSocketConnector::new(Arc::new(DeviceIdentity::generate()), RpcMetrics::unregistered());
        eventually("the gateway takes another client", PATIENCE, async || {
            connector.connect(&target).await.ok()
        })
        .await
    }

    fn soul(&self) -> String {
        self.gateway.read_file(&self.id, "SOUL.md").unwrap().unwrap_or_default()
    }

    async fn config(&self) -> Value {
        eventually("the config can be read", PATIENCE, async || self.gateway.config().ok()).await
    }

    async fn heartbeat(&self) -> Value {
        let config = self.config().await;
        let entry = if let Some(entries) = config["agents"].get("entries") {
            entries[&self.id].clone()
        } else {
            let list = config["agents"]["list"].as_array().cloned().unwrap_or_default();
            let ours = list.into_iter().find(|entry| entry["id"] == self.id.as_str());
            ours.unwrap_or_default()
        };
        entry["heartbeat"]["every"].clone()
    }

    /// Somebody else's patch; again if the controller was faster.
    async fn patch(&self, patch: &Value) {
        let client = self.connect().await;
        eventually("somebody's patch is taken", PATIENCE, async || {
            let hash = client.config_get().await.ok()?.hash;
            match client.config_patch(patch, hash.as_deref(), &[], PATIENCE).await {
                Ok(_) => Some(()),
                Err(error) => (error.class() != ErrorClass::Conflict && error.outcome_unknown()).then_some(()),
            }
        })
        .await;
        client.close();
    }

    async fn undo_heartbeat(&self) {
        let entry = json!({"heartbeat": {"every": "7m"}});
        let patch = if self.config().await["agents"].get("entries").is_some() {
            json!({"agents": {"entries": {self.id.clone(): entry}}})
        } else {
            json!({"agents": {"list": [{"id": self.id, "heartbeat": {"every": "7m"}}]}})
        };
        self.patch(&patch).await;
    }

    /// The condition for a fight over the gateway's config, once it is told.
    async fn fight_over_config(&self) -> Option<Condition> {
        let conditions = self.database.gateway_conditions(self.row).await;
        conditions.get(ConditionType::ConfigSynced).cloned().filter(is_fight)
    }

    /// The condition for a fight over the agent's files, once it is told.
    async fn fight_over_files(&self) -> Option<Condition> {
        let conditions = self.database.agent_conditions(self.agent).await;
        conditions.get(ConditionType::FilesSynced).cloned().filter(is_fight)
    }

    /// Has somebody undo what is as desired until it is told that they do, and returns that. In between it is put back. How often
    /// that is, is shown on the paused clock: here a busy machine may make one undoing look like two, or two like one.
    async fn fight(
        &self,
        undo: impl AsyncFn(),
        is_back: impl AsyncFn() -> bool,
        fight: impl AsyncFn() -> Option<Condition>,
    ) -> String {
        let mut times = 0;
        loop {
            assert!(times < ENOUGH, "undone {ENOUGH} times, and nobody is told");
            times += 1;
            undo().await;
            let told = eventually("it is put back, or told", PATIENCE, async || {
                if let Some(told) = fight().await {
                    return Some(Some(told.message));
                }
                is_back().await.then_some(None)
            })
            .await;
            if let Some(told) = told {
                assert!(told.contains("3 times within an hour"), "{told}");
                assert!(times > 1, "told without having been put back");
                return told;
            }
            self.database.gateway_ready(self.row).await;
            self.step("it was put back");
        }
    }

    async fn writes(&self, method: &str) -> f64 {
        let labels = format!("method=\"{method}\"");
        self.controller.metric("openclaw_controller_rpc_total", &labels).await
    }

    /// Two looks at everything, in which these methods were not called.
    async fn leaves_alone(&self, methods: &[&str]) {
        let looks = async || self.controller.metric("controller_runtime_reconcile_total", "").await;
        let count = async || {
            let mut sum = 0.0;
            for method in methods {
                sum += self.writes(method).await;
            }
            sum
        };
        let (before, looked) = (count().await, looks().await);
        eventually("two resyncs", PATIENCE, async || {
            (looks().await >= looked + 4.0).then_some(())
        })
        .await;
        assert!((count().await - before).abs() < 0.1, "{methods:?}");
    }
}

fn is_fight(condition: &Condition) -> bool {
    condition.status == ConditionStatus::False && condition.reason == FIGHTING_WRITER
}

async fn files_and_heartbeats(version: &str) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::new(version).await;
    let told = fleet
        .fight(
            async || fleet.gateway.write_file(&fleet.id, "SOUL.md", THEIRS).unwrap(),
            async || fleet.soul() != THEIRS,
            async || fleet.fight_over_files().await,
        )
        .await;
    assert!(told.contains("SOUL.md"), "{told}");
    fleet.leaves_alone(&["agents.files.set", "config.patch"]).await;
    assert_eq!(fleet.soul(), THEIRS);
    fleet.step("a file is fought over, and left alone");

    let told = fleet
        .fight(
            async || fleet.undo_heartbeat().await,
            async || fleet.heartbeat().await == "10m",
            async || fleet.fight_over_config().await,
        )
        .await;
    assert!(told.contains("heartbeat") && told.contains(&fleet.id), "{told}");
    fleet.leaves_alone(&["agents.files.set", "config.patch"]).await;
    assert_eq!(fleet.heartbeat().await, "7m");
    fleet.step("a heartbeat is fought over, and left alone");

    // A new word of the row ends both.
    let sql = format!("UPDATE agents SET name = 'Ada' WHERE id = '{}'", fleet.agent);
    fleet.database.execute(&sql).await;
    fleet.ready().await;
    assert_eq!(fleet.heartbeat().await, "10m");
    assert!(fleet.soul().contains("Ada"));
    fleet.step("a new name has ended it");
    fleet.controller.stop().await;
}

/// Fights over files and heartbeats, per dialect.
mod somebody_who_undoes_the_same_thing_again_and_again {
    #[tokio::test(flavor = "multi_thread")]
    async fn on_2026_7_1_is_named_and_left_alone_until_the_row_changes() {
        super::files_and_heartbeats("2026.7.1").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_2026_9_6_is_named_and_left_alone_until_the_row_changes() {
        super::files_and_heartbeats("2026.9.6").await;
    }
}

/// This version, started without its channels, writes its config back without them whenever an agent is updated there.
#[tokio::test(flavor = "multi_thread")]
async fn v2026_4_29_that_forgets_its_channels_again_and_again_is_not_restarted_for_ever() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::new("2026.4.29").await;
    let channels = async || fleet.config().await["channels"]["defaults"]["heartbeat"]["showAlerts"].clone();
    let told = fleet
        .fight(
            async || {
                let client = fleet.connect().await;
                let params = json!({"agentId": fleet.id, "name": "Updated"});
                // It may restart before it answers.
                let _ = client.request("agents.update", params, PATIENCE).await;
                client.close();
            },
            async || channels().await == true,
            async || fleet.fight_over_config().await,
        )
        .await;
    assert!(told.contains("channels.defaults.heartbeat.showAlerts"), "{told}");
    fleet.leaves_alone(&["config.patch"]).await;
    let restarts = fleet
        .controller
        .metric("openclaw_controller_gateway_restarts_caused_total", "")
        .await;
    assert!(restarts <= 3.0, "{restarts} restarts");
    fleet.step(&format!("left alone after {restarts} restarts"));
    fleet.controller.stop().await;
}
