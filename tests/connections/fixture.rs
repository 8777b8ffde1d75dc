//! Connecting as the controller does, and looking for secrets where they must not be.

use std::path::Path;
use std::sync::Arc;

use openclaw_controller::config::ConnectionArgs;
use openclaw_controller::gateway::{Client, Connector, GatewayError, RpcMetrics, Target, WebSocketConnector};
use openclaw_controller::model::GatewayId;
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::Database;

/// The token of simulated gateways.
pub(crate) const TOKEN: &str = "the-gateways-token-8d1e";

/// A simulated gateway that listens.
pub(crate) struct Gateway {
    pub(crate) sim: SimGateway,
    pub(crate) server: SimServer,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        let sim = SimGateway::new(SimDialect::V2026_9_6, TOKEN);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self { sim, server }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server.url().strip_prefix("ws://").unwrap().parse().unwrap()
    }
}

/// A gateway's row, as far as connecting goes.
pub(crate) fn target(url: impl Into<String>, token: &str) -> Target {
    Target {
        gateway: GatewayId(Uuid::from_u128(7)),
        url: url.into(),
        token: Some(token.into()),
        disable_device_pairing: false,
        allow_insecure_tls: false,
    }
}

/// A controller's way of connecting, with its own device and files.
pub(crate) struct Dialer {
    pub(crate) connector: Arc<WebSocketConnector>,
    directory: TempDir,
}

impl Dialer {
    pub(crate) fn new(ca_file: Option<&Path>) -> Self {
        let directory = TempDir::new().unwrap();
        let arguments = ConnectionArgs {
            device_identity: Some(directory.path().join("device.json")),
            gateway_ca_file: ca_file.map(Path::to_owned),
            gateway_token_dir: None,
        };
        let connector = arguments.connector(RpcMetrics::unregistered()).unwrap();
        Self {
            connector: Arc::new(connector),
            directory,
        }
    }

    pub(crate) async fn connect(&self, target: &Target) -> Result<Client, GatewayError> {
        self.connector.connect(target).await
    }

    /// What is kept of device tokens.
    pub(crate) fn device_tokens(&self) -> String {
        std::fs::read_to_string(self.device_tokens_at()).unwrap_or_default()
    }

    /// Puts something else in its place.
    pub(crate) fn set_device_tokens(&self, text: &str) {
        std::fs::write(self.device_tokens_at(), text).unwrap();
    }

    fn device_tokens_at(&self) -> std::path::PathBuf {
        self.directory.path().join("device.json.tokens")
    }
}

/// Everything in the database, but the column in which people keep gateways' tokens.
pub(crate) async fn everything_stored(database: &Database) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'openclaw_controller')",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let mut all = String::new();
    for table in tables {
        let sql = format!("SELECT coalesce(string_agg((to_jsonb(t) - 'token')::text, E'\\n'), '') FROM {table} t");
        all.push_str(&database.text(&sql).await.unwrap());
        all.push('\n');
    }
    all
}
