//! `openclaw-controller get unmanaged`: agents on gateways that no row explains.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::table::{Item, cell, wide};
use crate::gateway::WebSocketConnector;
use crate::model::{GatewayId, GatewaySnapshot, Unmanaged};
use crate::reconcile::{self, UnmanagedAgents};
use crate::store::PgStore;

/// How many gateways are asked at once.
const AT_ONCE: usize = 8;

/// Asks the gateways, or the one that is meant.
pub(super) async fn look(
    store: &PgStore,
    connector: &WebSocketConnector,
    fleet: &[GatewaySnapshot],
    only: Option<GatewayId>,
) -> anyhow::Result<Vec<UnmanagedAgents>> {
    let left = reconcile::left_behind(fleet);
    let asked = fleet
        .iter()
        .filter(|snapshot| only.is_none_or(|id| snapshot.gateway.id == id));
    let looks = asked.map(|here| reconcile::unmanaged(store, connector, fleet, here, &left));
    Ok(stream::iter(looks).buffered(AT_ONCE).try_collect().await?)
}

/// One agent as a row of the table.
pub(super) fn item(gateway: &str, agent: &Unmanaged) -> Item {
    let mut json = json!(agent);
    json["kind"] = "UnmanagedAgent".into();
    json["gatewayName"] = gateway.into();
    let cells = vec![
        cell("GATEWAY", gateway),
        cell("AGENT", &agent.id),
        cell("NAME", agent.name.as_deref().unwrap_or("-")),
        cell("WHY", agent.reason),
        wide("GATEWAY ID", agent.gateway),
        wide("WORKSPACE", agent.workspace.as_deref().unwrap_or("-")),
        cell("WHAT IT IS", &agent.message),
        cell("WHAT TO DO", &agent.advice),
    ];
    Item::new(format!("{} {}", agent.gateway, agent.id), cells, json)
}
