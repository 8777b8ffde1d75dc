//! The gateway that the tests of one version share.

use std::sync::Arc;
use std::time::Duration;

use openclaw_controller::gateway::{
    Client, Connector, DeviceIdentity, ErrorClass, GatewayError, PatchOutcome, RpcMetrics, Target, WebSocketConnector,
};
use openclaw_controller::lab::{Options, RealGateway};
use openclaw_controller::model::{FileContent, FileName, GatewayAgentId, GatewayId, ObservedConfig, RosterShape};
use serde_json::{Map, Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::expected::Expected;

/// A patch waits for the reload of the whole roster, on a machine that runs two other gateways and their tests.
pub(crate) const PATCH: Duration = Duration::from_mins(2);

/// How long a run may keep an old gateway from answering: more than a minute was seen, with ten busy processes on two cores.
pub(crate) const BUSY: Duration = Duration::from_mins(3);

/// Agents that the one patch at the start adds, one for each test that needs one for itself.
pub(crate) const AGENTS: [&str; 4] = ["files", "hashes", "sessions", "leaving"];

/// A running gateway, and what was seen of it while it was fresh.
pub(crate) struct Fixture {
    pub(crate) gateway: RealGateway,
    pub(crate) fresh: ObservedConfig,
    pub(crate) patch: PatchOutcome,
    /// Held for writing by whoever stops the gateway, for reading by everybody else.
    pub(crate) running: RwLock<()>,
}

impl Fixture {
    pub(crate) async fn start(expected: &Expected) -> Self {
        let gateway = RealGateway::start(expected.version, Options::default()).await.unwrap();
        let client = connect(&target(&gateway)).await.unwrap();
        let fresh = client.config_get().await.unwrap();
        let root = gateway.workspace_root();
        let agent = |id: &str| {
            json!({
                "name": format!("Agent {id}"),
                "workspace": root.join(format!("workspace-{id}")),
                "heartbeat": {"every": "10m", "target": "last"},
            })
        };
        let patch = match (expected.dialect)().roster {
            RosterShape::Entries => {
                let entries: Map<String, Value> = AGENTS.iter().map(|id| ((*id).to_owned(), agent(id))).collect();
                json!({"agents": {"ownership": "explicit", "entries": entries}})
            }
            RosterShape::List => {
                // Without `main` the first of ours would become the gateway's default agent.
                let mut list = vec![json!({"id": "main"})];
                list.extend(AGENTS.iter().map(|id| {
                    let mut entry = agent(id);
                    entry["id"] = json!(id);
                    entry
                }));
                json!({"agents": {"list": list}})
            }
        };
        let patch = client
            .config_patch(&patch, fresh.hash.as_deref(), &[], PATCH)
            .await
            .unwrap();
        Self {
            gateway,
            fresh,
            patch,
            running: RwLock::new(()),
        }
    }

    pub(crate) async fn client(&self) -> (Client, RwLockReadGuard<'_, ()>) {
        let guard = self.running.read().await;
        (patiently(&target(&self.gateway)).await, guard)
    }

    pub(crate) async fn alone(&self) -> (Client, RwLockWriteGuard<'_, ()>) {
        let guard = self.running.write().await;
        (patiently(&target(&self.gateway)).await, guard)
    }
}

pub(crate) fn target(gateway: &RealGateway) -> Target {
    Target {
        gateway: GatewayId(uuid::Uuid::nil()),
        url: gateway.url(),
        token: Some(gateway.token().into()),
        disable_device_pairing: false,
        allow_insecure_tls: false,
    }
}

pub(crate) fn control_ui(gateway: &RealGateway) -> Target {
    Target {
        disable_device_pairing: true,
        ..target(gateway)
    }
}

/// Connects as a device of its own: gateways count config writes per device.
pub(crate) async fn connect(target: &Target) -> Result<Client, GatewayError> {
    let identity = Arc::new(DeviceIdentity::generate());
    WebSocketConnector::new(identity, RpcMetrics::unregistered())
        .connect(target)
        .await
}

/// Connects again and again, as the controller does: a busy gateway on a busy machine may miss a deadline.
pub(crate) async fn patiently(target: &Target) -> Client {
    let attempts = async {
        loop {
            match connect(target).await {
                Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(200)).await,
                result => return result.unwrap(),
            }
        }
    };
    tokio::time::timeout(BUSY, attempts)
        .await
        .expect("the gateway answers again")
}

pub(crate) fn agent(id: &str) -> GatewayAgentId {
    GatewayAgentId::observed(id)
}

/// The text of a file, as soon as the gateway has taken up the agent.
pub(crate) async fn read(client: &Client, id: &str, file: FileName) -> FileContent {
    let attempt = async {
        loop {
            match client.files_get(&agent(id), file).await {
                Err(error) if error.class() == ErrorClass::NotFound => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return result.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), attempt)
        .await
        .expect("the gateway takes up the new agent")
}
