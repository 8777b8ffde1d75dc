//! The binary as a person and a supervisor meet it: help, exit codes, output, configuration, metrics, logs; and what it does
//! beside an existing installation.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test says by a panic what went wrong")]

mod existing;
mod leads;
mod named;
mod rotate;
mod shown;
#[path = "../support/mod.rs"]
mod support;
mod sync;
mod terminal;
mod unmanaged;
mod usage;
mod watched;

use openclaw_controller::model::{AgentId, BoardId, GatewayId};
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use support::Database;
use support::contract::Watch;

const TOKEN: &str = "the-gateways-token-3f9c";

/// One organisation, gateway, board and agent.
struct Fleet {
    database: Database,
    sim: SimGateway,
    server: SimServer,
    _watch: Watch,
    gateway: GatewayId,
    board: BoardId,
    agent: AgentId,
}

impl Fleet {
    async fn on(database: Database, dialect: SimDialect) -> Self {
        let sim = SimGateway::new(dialect, TOKEN);
        let watch = Watch::simulated(&sim);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let organization = database.organization().await;
        let gateway = database.gateway(organization, &server.url(), TOKEN, "/ws").await;
        let board = database.board(organization, Some(gateway), "Board").await;
        let agent = database.agent(gateway, Some(board), "Wren", false).await;
        Self {
            database,
            sim,
            server,
            _watch: watch,
            gateway,
            board,
            agent,
        }
    }

    fn gateway_agent(&self) -> String {
        format!("mc-{}", self.agent)
    }

    fn environment(&self) -> [(&str, &str); 1] {
        [("DATABASE_URL", &self.database.url)]
    }

    /// The token that the agent has, from where the gateway's dialect keeps it.
    fn agent_token(&self) -> String {
        let text = ["TOOLS.md", "AGENTS.md"]
            .iter()
            .find_map(|file| self.sim.file(&self.gateway_agent(), file))
            .unwrap();
        token::extract(&text).tokens()[0].expose_secret().to_owned()
    }
}

fn password(url: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    url.password().unwrap().to_owned()
}
