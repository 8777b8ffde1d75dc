//! Rows and a simulated gateway for a controller to look after.

use openclaw_controller::model::{AgentId, BoardId, GatewayId};
use openclaw_controller::sim::{Fault, SimDialect, SimGateway, SimServer};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::contract::Watch;
use crate::support::{Database, PATIENCE, eventually};

pub(crate) const TOKEN: &str = "gateway-token";

/// One organisation, and a gateway with a board.
pub(crate) struct Fleet {
    pub(crate) database: Database,
    pub(crate) organization: Uuid,
    pub(crate) place: Place,
}

/// A gateway with a board.
pub(crate) struct Place {
    pub(crate) sim: SimGateway,
    _server: SimServer,
    _watch: Watch,
    pub(crate) gateway: GatewayId,
    pub(crate) board: BoardId,
}

impl Fleet {
    pub(crate) async fn new() -> Self {
        Self::on(Database::migrated().await, SimDialect::V2026_9_6).await
    }

    pub(crate) async fn on(database: Database, dialect: SimDialect) -> Self {
        let organization = database.organization().await;
        let place = place(&database, organization, dialect).await;
        Self {
            database,
            organization,
            place,
        }
    }

    /// One more gateway.
    pub(crate) async fn place(&self) -> Place {
        place(&self.database, self.organization, SimDialect::V2026_9_6).await
    }

    /// An agent on the first gateway.
    pub(crate) async fn agent(&self, name: &str) -> AgentId {
        self.agent_at(&self.place, name).await
    }

    /// An agent on a gateway.
    pub(crate) async fn agent_at(&self, place: &Place, name: &str) -> AgentId {
        self.database.agent(place.gateway, Some(place.board), name, false).await
    }

    /// An agent on the first gateway, and waits until it is ready.
    pub(crate) async fn ready_agent(&self, name: &str) -> AgentId {
        let agent = self.agent(name).await;
        self.database.agent_ready(agent).await;
        agent
    }

    pub(crate) async fn set_agent(&self, agent: AgentId, set: &str) {
        self.database
            .execute(&format!("UPDATE agents SET {set} WHERE id = '{agent}'"))
            .await;
    }

    pub(crate) async fn set_gateway(&self, gateway: GatewayId, set: &str) {
        self.database
            .execute(&format!("UPDATE gateways SET {set} WHERE id = '{gateway}'"))
            .await;
    }

    pub(crate) async fn rotate(&self, agent: AgentId) {
        self.database
            .execute(&format!(
                "INSERT INTO openclaw_controller.agent_requests (agent_id, rotate_requested_at) VALUES ('{agent}', now())
                 ON CONFLICT (agent_id) DO UPDATE SET rotate_requested_at = excluded.rotate_requested_at"
            ))
            .await;
    }

    /// The token in an agent's file on the first gateway.
    pub(crate) fn secret(&self, agent: AgentId) -> Option<String> {
        let text = self.place.sim.file(&format!("mc-{agent}"), "AGENTS.md")?;
        let found = token::extract(&text);
        found.tokens().first().map(|token| token.expose_secret().to_owned())
    }
}

async fn place(database: &Database, organization: Uuid, dialect: SimDialect) -> Place {
    let sim = SimGateway::new(dialect, TOKEN);
    let watch = Watch::simulated(&sim);
    let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let gateway = database.gateway(organization, &server.url(), TOKEN, "/ws").await;
    let board = database.board(organization, Some(gateway), "board").await;
    Place {
        sim,
        _server: server,
        _watch: watch,
        gateway,
        board,
    }
}

/// An answer that no retry makes better.
pub(crate) fn refusal(message: &str) -> Fault {
    Fault::Error {
        code: "INVALID_REQUEST".into(),
        message: message.into(),
        retry_after_ms: None,
    }
}

/// Checks in; the status of the answer.
pub(crate) async fn check_in(address: SocketAddr, secret: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!(
        "POST /api/v1/agent/heartbeat HTTP/1.1\r\nHost: x\r\nX-Agent-Token: {secret}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Checks in, again if the database is too busy for it.
pub(crate) async fn checked_in(address: SocketAddr, secret: &str) {
    eventually("a check-in is taken", PATIENCE, async || {
        let status = check_in(address, secret).await;
        assert_ne!(status, Some(401), "the agent's token is refused");
        (status == Some(200)).then_some(())
    })
    .await;
}
