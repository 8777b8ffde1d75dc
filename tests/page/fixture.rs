//! A fleet to look at, and somebody who looks.

use std::net::SocketAddr;
use std::time::Duration;

use openclaw_controller::model::{AgentId, BoardId, GatewayId};
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::contract::Watch;
use crate::support::{Controller, Database, Options, PATIENCE, eventually};

pub(crate) const TOKEN: &str = "the-gateways-token-3f9c";

/// One organisation with a gateway that works, a board on it, a lead and a worker.
pub(crate) struct Fleet {
    pub(crate) database: Database,
    pub(crate) sim: SimGateway,
    pub(crate) server: SimServer,
    _watch: Watch,
    pub(crate) organization: uuid::Uuid,
    pub(crate) gateway: GatewayId,
    pub(crate) board: BoardId,
    pub(crate) lead: AgentId,
    pub(crate) agent: AgentId,
}

impl Fleet {
    pub(crate) async fn new() -> Self {
        let database = Database::migrated().await;
        let sim = SimGateway::new(SimDialect::V2026_9_6, TOKEN);
        let watch = Watch::simulated(&sim);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let organization = database.organization().await;
        let gateway = database.gateway(organization, &server.url(), TOKEN, "/ws").await;
        let board = database.board(organization, Some(gateway), "Harbour").await;
        let lead = database.agent(gateway, Some(board), "Wren", true).await;
        let agent = database.agent(gateway, Some(board), "Finch", false).await;
        Self {
            database,
            sim,
            server,
            _watch: watch,
            organization,
            gateway,
            board,
            lead,
            agent,
        }
    }

    /// A second gateway that nobody listens at, with a board and two agents.
    pub(crate) async fn add_broken(&self) -> (GatewayId, AgentId) {
        let address = SocketAddr::from(([127, 0, 0, 1], openclaw_controller::lab::free_port().unwrap()));
        let url = format!("ws://{address}/?token=url-token-77aa");
        let gateway = self
            .database
            .gateway(self.organization, &url, "another-token-5d1b", "/ws")
            .await;
        self.database
            .execute(&format!(
                "UPDATE gateways SET name = 'Lighthouse' WHERE id = '{gateway}'"
            ))
            .await;
        let board = self.database.board(self.organization, Some(gateway), "Shoals").await;
        self.database.agent(gateway, Some(board), "Heron", true).await;
        let agent = self.database.agent(gateway, Some(board), "Egret", false).await;
        (gateway, agent)
    }

    /// Starts a controller and waits until the fleet is as desired.
    pub(crate) async fn converged(&self, options: Options) -> Controller {
        let controller = Controller::start(&self.database.url, options).await;
        self.database.gateway_ready(self.gateway).await;
        self.database.agent_ready(self.lead).await;
        self.database.agent_ready(self.agent).await;
        controller
    }
}

/// An answer: status, headers as they came, body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Asks for a page with further header lines.
pub(crate) async fn ask(address: SocketAddr, request: &str, more: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let host = if more.contains("Host:") {
            String::new()
        } else {
            format!("Host: {address}\r\n")
        };
        let text = format!("{request} HTTP/1.1\r\n{host}Connection: close\r\n{more}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer");
    let (headers, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let chunked = headers.to_ascii_lowercase().contains("transfer-encoding: chunked");
    assert!(!chunked, "the tests read whole answers: {headers}");
    Answer {
        status: headers
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .parse()
            .unwrap_or_default(),
        headers: headers.to_owned(),
        body: body.to_owned(),
    }
}

/// Gets a page; again if the machine is too busy for it.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    eventually(&format!("{path} is answered"), PATIENCE, async || {
        let answer = ask(address, &format!("GET {path}"), "").await;
        (answer.status != 503).then_some(answer)
    })
    .await
}

/// Waits until the page can be looked at.
pub(crate) async fn serves(address: SocketAddr) {
    eventually("the page is served", Duration::from_mins(2), async || {
        if TcpStream::connect(address).await.is_err() {
            return None;
        }
        (ask(address, "GET /readyz", "").await.status == 200).then_some(())
    })
    .await;
}
