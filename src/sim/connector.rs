//! In-memory connections from the controller's own client to simulated gateways.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;

use super::gateway::SimGateway;
use crate::gateway::{
    CONNECT_DEADLINE, Client, Connector, DeviceIdentity, ErrorClass, GatewayError, RpcMetrics, Target, handshake,
    websocket_config,
};

/// Room for what is under way in one direction, in bytes; more than any answer of a test, so that neither side blocks.
const BUFFER: usize = 4 * 1024 * 1024;

/// Connects targets with URLs of the form `sim://<name>` to the gateways that were put in under these names.
#[derive(Clone)]
pub struct SimConnector {
    identity: Arc<DeviceIdentity>,
    metrics: RpcMetrics,
    gateways: Arc<Mutex<BTreeMap<String, SimGateway>>>,
}

impl fmt::Debug for SimConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimConnector")
            .field("gateways", &*self.lock())
            .finish_non_exhaustive()
    }
}

impl Default for SimConnector {
    fn default() -> Self {
        Self::new(Arc::new(DeviceIdentity::generate()), RpcMetrics::unregistered())
    }
}

impl SimConnector {
    /// A connector that knows no gateway yet.
    pub fn new(identity: Arc<DeviceIdentity>, metrics: RpcMetrics) -> Self {
        Self {
            identity,
            metrics,
            gateways: Arc::default(),
        }
    }

    /// Makes a gateway known; answers its URL. A gateway of that name is replaced, as by an upgrade.
    pub fn insert(&self, name: &str, gateway: SimGateway) -> String {
        self.lock().insert(name.to_owned(), gateway);
        format!("sim://{name}")
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SimGateway>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, url: &str) -> Result<SimGateway, GatewayError> {
        let url = url.trim();
        if url.is_empty() {
            let message = "Gateway URL is not configured for this gateway.";
            return Err(GatewayError::new(ErrorClass::NotConfigured, message));
        }
        let Some(name) = url.strip_prefix("sim://") else {
            let message = "the gateway's URL is not one of a simulated gateway (sim://name)";
            return Err(GatewayError::new(ErrorClass::InvalidUrl, message));
        };
        self.lock().get(name).cloned().ok_or_else(|| {
            let message = format!("there is no simulated gateway \"{name}\"");
            GatewayError::new(ErrorClass::DnsFailed, message)
        })
    }
}

impl Connector for SimConnector {
    async fn connect(&self, target: &Target) -> Result<Client, GatewayError> {
        let gateway = self.find(&target.url)?;
        let refused = |class, message: &str| Err(GatewayError::new(class, message));
        if gateway.is_down() {
            return refused(ErrorClass::ConnectionRefused, "connection refused");
        }
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        gateway.attach(theirs);
        // The name is not resolved; it only has to look like one.
        let opening = client_async_with_config("ws://sim.invalid/", ours, Some(websocket_config()));
        match timeout(CONNECT_DEADLINE, opening).await {
            Ok(Ok((stream, _))) => handshake(stream, target, &self.identity, self.metrics.clone()).await,
            Ok(Err(_)) => refused(ErrorClass::ConnectionRefused, "connection refused"),
            Err(_) => refused(ErrorClass::Timeout, "the gateway did not answer the upgrade in time"),
        }
    }
}
