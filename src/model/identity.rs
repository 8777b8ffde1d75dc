//! Who is who: database ids, and the names derived from them on a gateway.
//!
//! Every name here is derived from ids alone, never from display names and never from the row's `openclaw_session_id`: a
//! session key taken from a row could name the operator's own agent.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A row of `gateways`.
    GatewayId
);
id!(
    /// A row of `boards`.
    BoardId
);
id!(
    /// A row of `agents`.
    AgentId
);

/// What an agent is for; decides its name on the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgentRole {
    /// The lead of a board: one per board.
    Lead(BoardId),
    /// A worker of a board.
    Worker(BoardId),
    /// The gateway's own agent, which belongs to no board: one per gateway.
    Main,
}

impl AgentRole {
    /// Whether this is a board lead.
    pub fn is_lead(self) -> bool {
        matches!(self, Self::Lead(_))
    }

    /// Whether this is the gateway's main agent.
    pub fn is_main(self) -> bool {
        self == Self::Main
    }
}

/// An agent's id on its gateway.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayAgentId(String);

impl GatewayAgentId {
    /// The id that the agent with this role must have on its gateway.
    pub fn derive(role: AgentRole, agent: AgentId, gateway: GatewayId) -> Self {
        Self(match role {
            AgentRole::Lead(board) => format!("lead-{board}"),
            AgentRole::Worker(_) => format!("mc-{agent}"),
            AgentRole::Main => format!("mc-gateway-{gateway}"),
        })
    }

    /// An id as a gateway reported it.
    pub fn observed(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the id has one of the forms that this controller derives; other agents on a gateway are never ours.
    pub fn looks_managed(&self) -> bool {
        let uuid_after = |prefix: &str| {
            self.0
                .strip_prefix(prefix)
                .is_some_and(|rest| Uuid::try_parse(rest).is_ok())
        };
        uuid_after("lead-") || uuid_after("mc-") || uuid_after("mc-gateway-")
    }
}

impl fmt::Display for GatewayAgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GatewayAgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of an agent's main session.
pub fn session_key(agent: &GatewayAgentId) -> String {
    format!("agent:{agent}:main")
}

/// Lower case; runs of anything but a–z and 0–9 become one `-`; none at either end.
pub fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for c in text.to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    if slug.ends_with('-') {
        slug.pop();
    }
    slug
}

/// Where an agent's workspace lies on the gateway's host, or `None` if `workspace_root` is blank.
///
/// The main agent's directory drops the leading `mc-` of its id.
pub fn workspace_path(workspace_root: &str, agent: &GatewayAgentId) -> Option<String> {
    let root = workspace_root.trim();
    if root.is_empty() {
        return None;
    }
    let id = agent.as_str();
    let id = if id.starts_with("mc-gateway-") {
        id.trim_start_matches("mc-")
    } else {
        id
    };
    Some(format!("{}/workspace-{}", root.trim_end_matches('/'), slug(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x1234);

    #[test]
    fn gateway_agent_ids_are_derived_from_ids_alone() {
        let (agent, board, gateway) = (AgentId(ID), BoardId(ID), GatewayId(ID));
        for (role, expected) in [
            (AgentRole::Lead(board), format!("lead-{ID}")),
            (AgentRole::Worker(board), format!("mc-{ID}")),
            (AgentRole::Main, format!("mc-gateway-{ID}")),
        ] {
            let id = GatewayAgentId::derive(role, agent, gateway);
            assert_eq!(id.as_str(), expected);
            assert_eq!(session_key(&id), format!("agent:{expected}:main"));
            assert!(id.looks_managed());
        }
        assert!(!GatewayAgentId::observed("main").looks_managed());
        assert!(!GatewayAgentId::observed("mc-nonsense").looks_managed());
    }

    #[test]
    fn slugs_hold_only_lower_case_digits_and_single_inner_dashes() {
        for (text, expected) in [
            ("Hello World", "hello-world"),
            ("--A__b..C--", "a-b-c"),
            ("", ""),
            ("Ünï", "n"),
            ("x1", "x1"),
        ] {
            assert_eq!(slug(text), expected);
        }
    }

    #[test]
    fn workspaces_lie_under_the_root_and_main_agents_drop_mc() {
        let worker = GatewayAgentId::derive(AgentRole::Worker(BoardId(ID)), AgentId(ID), GatewayId(ID));
        let main = GatewayAgentId::derive(AgentRole::Main, AgentId(ID), GatewayId(ID));
        assert_eq!(
            workspace_path("/srv/ws//", &worker),
            Some(format!("/srv/ws/workspace-mc-{ID}"))
        );
        assert_eq!(
            workspace_path("/srv/ws", &main),
            Some(format!("/srv/ws/workspace-gateway-{ID}"))
        );
        assert_eq!(workspace_path("  ", &worker), None);
    }
}
