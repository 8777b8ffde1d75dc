//! Bad input: each piece of it is told on its own object, everything beside it converges, and putting it right is enough.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test says by a panic what went wrong")]

mod agents;
mod doubles;
mod gateways;
mod leads;
mod organizations;
mod removals;
#[path = "../support/mod.rs"]
mod support;
mod tokens;

use openclaw_controller::model::{AgentId, BoardId, ConditionStatus, ConditionType, GatewayId};
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use support::contract::Watch;
use support::{Controller, Database};
use uuid::Uuid;

use ConditionStatus::False;
use ConditionType::Ready;

const TOKEN: &str = "the-gateways-token-3f9c";

/// A simulated gateway that listens.
struct Gateway {
    sim: SimGateway,
    server: SimServer,
    _watch: Watch,
}

impl Gateway {
    async fn start() -> Self {
        let sim = SimGateway::new(SimDialect::V2026_9_6, TOKEN);
        let watch = Watch::simulated(&sim);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self {
            sim,
            server,
            _watch: watch,
        }
    }
}

/// The organisation under test, with one gateway and board that are as they should be.
struct Fleet {
    database: Database,
    organization: Uuid,
    good: Gateway,
    gateway: GatewayId,
    board: BoardId,
}

impl Fleet {
    async fn new() -> Self {
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let good = Gateway::start().await;
        let gateway = database.gateway(organization, &good.server.url(), TOKEN, "/ws").await;
        let board = database.board(organization, Some(gateway), "good").await;
        Self {
            database,
            organization,
            good,
            gateway,
            board,
        }
    }

    /// A gateway's row with an agent on it.
    async fn gateway(&self, url: &str, token: &str) -> (GatewayId, AgentId) {
        let gateway = self.database.gateway(self.organization, url, token, "/ws").await;
        let board = self.database.board(self.organization, Some(gateway), "board").await;
        let agent = self.database.agent(gateway, Some(board), "Wren", false).await;
        (gateway, agent)
    }

    /// An agent on the good board, with a column set to an SQL expression.
    async fn agent(&self, name: &str, set: &str) -> AgentId {
        let agent = self.database.agent(self.gateway, Some(self.board), name, false).await;
        if !set.is_empty() {
            self.set_agent(agent, set).await;
        }
        agent
    }

    async fn set_agent(&self, agent: AgentId, set: &str) {
        let sql = format!("UPDATE agents SET {set} WHERE id = '{agent}'");
        self.database.execute(&sql).await;
    }

    async fn set_gateway(&self, gateway: GatewayId, set: &str) {
        let sql = format!("UPDATE gateways SET {set} WHERE id = '{gateway}'");
        self.database.execute(&sql).await;
    }

    /// An agent that is added now, on the good gateway, converges; the controller is ready and never panicked.
    async fn goes_on(&self, controller: &Controller) {
        let agent = self.agent("Beside", "").await;
        self.database.agent_ready(agent).await;
        let (status, text) = controller.page("/readyz").await;
        assert_eq!(status, 200, "{text}");
        let panics = controller.metric("controller_runtime_reconcile_panics_total", "").await;
        assert!(panics.abs() < 0.5, "{panics} panics");
    }
}

/// A name, what two things make it bad, and the condition, the reason and the words by which that is to be told.
type Case<'a, A, B> = (&'a str, A, B, ConditionType, &'a str, &'a [&'a str]);

/// A bad gateway, what is to be told of it, and what puts it right.
struct BadGateway {
    name: &'static str,
    id: GatewayId,
    agent: AgentId,
    kind: ConditionType,
    reason: &'static str,
    /// Words that the message has to hold: what is wrong and what to do about it.
    says: &'static [&'static str],
    /// What to set in the row to put it right.
    cure: String,
}

/// Asserts each bad gateway's conditions, and then that each is healed by its cure alone.
async fn check_gateways(fleet: &Fleet, controller: &Controller, bad: Vec<BadGateway>) {
    for case in &bad {
        let condition = fleet
            .database
            .gateway_condition(case.id, case.kind, False, case.reason)
            .await;
        for words in case.says {
            assert!(
                condition.message.contains(words),
                "{}: {}",
                case.name,
                condition.message
            );
        }
        let conditions = fleet.database.gateway_conditions(case.id).await;
        let ready = conditions.get(Ready).unwrap();
        assert_eq!(
            (ready.status, ready.reason.as_str()),
            (False, case.reason),
            "{}",
            case.name
        );
    }
    fleet.goes_on(controller).await;
    for case in &bad {
        if !case.cure.is_empty() {
            fleet.set_gateway(case.id, &case.cure).await;
        }
    }
    for case in &bad {
        fleet.database.gateway_ready(case.id).await;
        fleet.database.agent_ready(case.agent).await;
    }
}
