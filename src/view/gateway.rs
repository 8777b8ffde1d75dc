//! What is known of a gateway.

use serde::Serialize;

use super::{AgentView, Ready};
use crate::model::{Conditions, GatewayId, GatewaySnapshot, Leftover};

/// A gateway as it is shown. Its token is in none of it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename = "Gateway", rename_all = "camelCase")]
pub struct GatewayView {
    /// Its id.
    pub id: GatewayId,
    /// Its display name.
    pub name: String,
    /// Its URL, without whatever could be secret.
    pub url: String,
    /// Where workspaces lie on its host.
    pub workspace_root: String,
    /// How many boards are on it.
    pub boards: usize,
    /// How many agents belong to it.
    pub agents: usize,
    /// How many of them are as desired.
    pub ready_agents: usize,
    /// Agents that we made on it and that no row explains.
    pub leftovers: Vec<Leftover>,
    /// Whether it is as desired.
    pub ready: Ready,
    /// What we recorded about it.
    pub status: GatewayStatus,
}

/// What we recorded about a gateway.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Counts changes of what is desired.
    pub generation: i64,
    /// The version that it last reported.
    pub server_version: Option<String>,
    /// The protocol that was last agreed on.
    pub protocol: Option<i32>,
    /// Its conditions.
    pub conditions: Conditions,
}

impl GatewayView {
    /// What is known of a gateway. `leftovers`: those of any gateways.
    pub fn of(snapshot: &GatewaySnapshot, leftovers: &[Leftover]) -> Self {
        let (row, record) = (&snapshot.gateway, &snapshot.record);
        let ready_agents = snapshot.agents.iter().filter(|agent| {
            let ready = AgentView::ready(snapshot, agent.id);
            ready.is_true()
        });
        Self {
            id: row.id,
            name: row.name.clone(),
            url: shown_url(&row.url),
            workspace_root: row.workspace_root.clone(),
            boards: snapshot
                .boards
                .values()
                .filter(|board| board.gateway_id == Some(row.id))
                .count(),
            agents: snapshot.agents.len(),
            ready_agents: ready_agents.count(),
            leftovers: leftovers
                .iter()
                .filter(|leftover| leftover.gateway == row.id)
                .cloned()
                .collect(),
            ready: Ready::of(&record.conditions),
            status: GatewayStatus {
                generation: record.generation,
                server_version: record.server_version.clone(),
                protocol: record.protocol,
                conditions: record.conditions.clone(),
            },
        }
    }
}

/// A gateway's URL without user, password or query: people have been seen to put tokens there.
pub fn shown_url(url: &str) -> String {
    match url::Url::parse(url.trim()) {
        Ok(mut url) => {
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) if url.trim().is_empty() => "(none)".to_owned(),
        Err(_) => "(malformed)".to_owned(),
    }
}
