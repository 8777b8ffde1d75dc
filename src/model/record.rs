//! What the controller itself remembers about an object, in its own schema.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{AgentId, Conditions, GatewayAgentId, GatewayId, WakeRecord};

/// Our record of a gateway; the default is that of one never seen before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayRecord {
    /// Counts changes of the spec; 0 before it was first seen.
    pub generation: i64,
    /// Digest of the spec that `generation` counts. Holds no secret.
    pub spec_digest: Option<String>,
    /// The last written conditions.
    pub conditions: Conditions,
    /// The server version that it last reported.
    pub server_version: Option<String>,
    /// The protocol that was last agreed on.
    pub protocol: Option<i32>,
}

/// Our record of an agent; the default is that of one never seen before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRecord {
    /// Counts changes of the spec; 0 before it was first seen.
    pub generation: i64,
    /// Digest of the spec that `generation` counts. Holds no secret.
    pub spec_digest: Option<String>,
    /// The last written conditions.
    pub conditions: Conditions,
    /// The gateway on which, and the id under which, we last managed it.
    pub placement: Option<(GatewayId, GatewayAgentId)>,
    /// When we decided to add it to its gateway's roster, committed before the write: it was not there before us.
    pub registering_since: Option<DateTime<Utc>>,
    /// When its first provisioning (ours, or the one we found) was complete.
    pub first_provisioned_at: Option<DateTime<Utc>>,
    /// The request for a new token ([`AgentRequests::rotate`](super::AgentRequests)) that the agent's token answers.
    pub rotated_for: Option<DateTime<Utc>>,
    /// What we know of waking it.
    pub wake: WakeRecord,
}

impl AgentRecord {
    /// Whether we put the agent on its gateway, rather than finding it there.
    pub fn created_by_us(&self) -> bool {
        self.registering_since.is_some()
    }
}

/// What an event or a generation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", content = "id", rename_all = "lowercase")]
pub enum ObjectRef {
    /// A gateway.
    Gateway(GatewayId),
    /// An agent.
    Agent(AgentId),
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EventKind {
    /// Something went as it should.
    Normal,
    /// Something needs a look.
    Warning,
}

/// Something that happened to an object; the same one again only raises its count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What it happened to.
    pub object: ObjectRef,
    /// How much it matters.
    pub kind: EventKind,
    /// A CamelCase word for programs.
    pub reason: String,
    /// A sentence for people. Never holds a secret.
    pub message: String,
}
