//! One-shot syncs: what can be asked for, and what comes of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AgentId, BoardId, GatewayId};

/// A request for a one-shot sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyncId(pub Uuid);

/// What a sync is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncOptions {
    /// Only the agents of this board, and the gateway's main agent if that is included.
    pub board: Option<BoardId>,
    /// For whom files are rendered, from now on; `None` leaves that as it is.
    pub user: Option<Uuid>,
    /// Whether the gateway's main agent is synced too.
    pub include_main: bool,
    /// Reset each agent's session, once.
    pub reset_sessions: bool,
    /// Give each agent a new token, once.
    pub rotate_tokens: bool,
    /// Write `BOOTSTRAP.md` although it is gone, once.
    pub force_bootstrap: bool,
    /// Write `USER.md` and `MEMORY.md` although they exist, once.
    pub overwrite: bool,
    /// For how long the gateway may keep a sync waiting before it is given up, in milliseconds.
    pub time_limit_ms: u64,
}

impl SyncOptions {
    /// For how long the gateway may keep a sync waiting before it is given up: ten minutes, unless said otherwise.
    pub const TIME_LIMIT: Duration = Duration::from_mins(10);

    /// The time limit.
    pub fn time_limit(&self) -> Duration {
        Duration::from_millis(self.time_limit_ms)
    }
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            board: None,
            user: None,
            include_main: true,
            reset_sessions: false,
            rotate_tokens: false,
            force_bootstrap: false,
            overwrite: false,
            time_limit_ms: u64::try_from(Self::TIME_LIMIT.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// A sync that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// Its id.
    pub id: SyncId,
    /// The gateway.
    pub gateway: GatewayId,
    /// What was asked for.
    pub options: SyncOptions,
    /// When, by the database's clock: also the name of the request for new tokens, if there is one.
    pub requested_at: DateTime<Utc>,
}

/// What became of one agent in a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncedAgent {
    /// The agent.
    pub agent: AgentId,
    /// Whether it matches now; if not, it was skipped.
    pub updated: bool,
    /// What there is to say about it.
    pub error: Option<SyncError>,
}

/// Something that a sync has to say. The keys and their order are a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncError {
    /// The agent that it is about; `None`: the gateway.
    pub agent_id: Option<AgentId>,
    /// Its display name.
    pub agent_name: Option<String>,
    /// Its board.
    pub board_id: Option<BoardId>,
    /// What there is to say.
    pub message: String,
}

impl SyncError {
    /// Something about the gateway, or about the request.
    pub fn general(message: impl Into<String>) -> Self {
        Self {
            agent_id: None,
            agent_name: None,
            board_id: None,
            message: message.into(),
        }
    }
}

/// What a sync came to. The keys and their order are a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncResult {
    /// The gateway.
    pub gateway_id: GatewayId,
    /// Whether the main agent was to be synced.
    pub include_main: bool,
    /// Whether sessions were to be reset.
    pub reset_sessions: bool,
    /// How many agents of boards match now.
    pub agents_updated: usize,
    /// How many agents of boards were skipped.
    pub agents_skipped: usize,
    /// Whether the main agent matches now.
    pub main_updated: bool,
    /// All that there is to say, oldest agent first.
    pub errors: Vec<SyncError>,
}

impl SyncResult {
    /// The result of a sync that has not begun.
    pub fn of(request: &SyncRequest) -> Self {
        Self {
            gateway_id: request.gateway,
            include_main: request.options.include_main,
            reset_sessions: request.options.reset_sessions,
            agents_updated: 0,
            agents_skipped: 0,
            main_updated: false,
            errors: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_has_the_keys_of_the_contract_in_their_order() {
        let request = SyncRequest {
            id: SyncId(Uuid::nil()),
            gateway: GatewayId(Uuid::nil()),
            options: SyncOptions::default(),
            requested_at: DateTime::default(),
        };
        let mut result = SyncResult::of(&request);
        result.errors = vec![
            SyncError::general("Board does not belong to this gateway."),
            SyncError {
                agent_id: Some(AgentId(Uuid::from_u128(1))),
                agent_name: Some("Wren".into()),
                board_id: Some(BoardId(Uuid::from_u128(2))),
                message: "Skipping agent: board not found for agent.".into(),
            },
        ];
        assert_eq!(
            serde_json::to_string(&result).unwrap(),
            concat!(
                r#"{"gateway_id":"00000000-0000-0000-0000-000000000000","include_main":true,"reset_sessions":false,"#,
                r#""agents_updated":0,"agents_skipped":0,"main_updated":false,"errors":["#,
                r#"{"agent_id":null,"agent_name":null,"board_id":null,"message":"Board does not belong to this gateway."},"#,
                r#"{"agent_id":"00000000-0000-0000-0000-000000000001","agent_name":"Wren","#,
                r#""board_id":"00000000-0000-0000-0000-000000000002","message":"Skipping agent: board not found for agent."}]}"#,
            )
        );
    }
}
