//! The person to whom the gateway belongs: edits its config and the files of agents that are nobody's business.

use std::sync::Arc;
use std::time::Duration;

use openclaw_controller::gateway::{
    AgentsList, Client, Connector, DeviceIdentity, ErrorClass, RpcMetrics, Target, WebSocketConnector,
};
use openclaw_controller::lab::RealGateway;
use openclaw_controller::model::{FileName, GatewayAgentId, GatewayId};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{PATIENCE, eventually};

/// How long a patch may take on a loaded machine.
const PATCH: Duration = Duration::from_mins(1);

/// A connection as a device that was never seen before, so that the limits of the controller's device are its own.
pub(crate) async fn connect(gateway: &RealGateway) -> Client {
    let target = Target {
        gateway: GatewayId(Uuid::nil()),
        url: gateway.url(),
        token: Some(gateway.token().to_owned().into()),
        disable_device_pairing: false,
        allow_insecure_tls: false,
    };
    let connector = WebSocketConnector::new(Arc::new(DeviceIdentity::generate()), RpcMetrics::unregistered());
    eventually("the gateway takes an operator's connection", PATIENCE, async || {
        connector.connect(&target).await.ok()
    })
    .await
}

/// Patches the config; again if the controller was faster.
pub(crate) async fn patch(gateway: &RealGateway, patch: &Value) {
    let client = connect(gateway).await;
    eventually("an operator's patch is taken", PATIENCE, async || {
        let hash = client.config_get().await.unwrap().hash;
        match client.config_patch(patch, hash.as_deref(), &[], PATCH).await {
            Ok(_) => Some(()),
            Err(error) if error.class() == ErrorClass::Conflict => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    client.close();
}

/// Writes a file of an agent, as its own session would.
pub(crate) async fn write(gateway: &RealGateway, agent: &str, files: &[(FileName, &str)]) {
    let client = connect(gateway).await;
    let agent = GatewayAgentId::observed(agent);
    // A patch of the roster may have been answered before it was applied.
    eventually("the new agent can be used", PATIENCE, async || {
        client.files_list(&agent).await.ok()
    })
    .await;
    for (file, text) in files {
        client.files_set(&agent, *file, text, None).await.unwrap();
    }
    client.close();
}

/// The agents that the gateway serves.
pub(crate) async fn agents(gateway: &RealGateway) -> AgentsList {
    let client = connect(gateway).await;
    let agents = client.agents_list().await.unwrap();
    client.close();
    agents
}
