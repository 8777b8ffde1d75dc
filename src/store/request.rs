//! What people ask for agents, as desired state: requests are times, and whoever runs the controller honours them.

use std::future::Future;

use chrono::{DateTime, Utc};

use super::StoreError;
use crate::model::{AgentId, BoardId, Conditions, GatewayId};

/// Which agents something is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSelector {
    /// These.
    Agents(Vec<AgentId>),
    /// Those of these boards.
    Boards(Vec<BoardId>),
    /// Those that belong to these gateways: agents of their boards, and their main agents.
    Gateways(Vec<GatewayId>),
    /// All.
    All,
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// When, by the database's clock: the request's name.
    pub at: DateTime<Utc>,
    /// For which agents, ordered by id.
    pub agents: Vec<AgentId>,
    /// How many agents were selected and left out, because their removal was requested.
    pub deleting: usize,
}

/// How far the rotation of an agent's token has come.
#[derive(Clone, Debug)]
pub struct RotationProgress {
    /// The agent.
    pub agent: AgentId,
    /// Its display name.
    pub name: String,
    /// The newest request.
    pub requested: Option<DateTime<Utc>>,
    /// The request that its token answers.
    pub rotated_for: Option<DateTime<Utc>>,
    /// The conditions last written for it.
    pub conditions: Conditions,
    /// The conditions last written for its gateway.
    pub gateway: Conditions,
}

impl RotationProgress {
    /// Whether a request made at this time is done, or a newer one that took its place.
    pub fn is_done(&self, at: DateTime<Utc>) -> bool {
        self.rotated_for
            .is_some_and(|done| done == at || Some(done) == self.requested)
    }
}

/// Where requests are made and followed. Needs no lease: a request is desired state.
pub trait RequestStore: Send + Sync + 'static {
    /// Asks for a new token for each of these agents that has a row and whose removal was not requested.
    ///
    /// # Errors
    /// [`StoreError::BadData`] if an id that was given is nobody's: nothing was written.
    fn request_rotation(&self, of: &AgentSelector) -> impl Future<Output = Result<Requested, StoreError>> + Send;

    /// Asks for a wake of each of these agents that has a row and whose removal was not requested.
    ///
    /// # Errors
    /// [`StoreError::BadData`] if an id that was given is nobody's: nothing was written.
    fn request_wake(&self, of: &AgentSelector) -> impl Future<Output = Result<Requested, StoreError>> + Send;

    /// Has these boards paused, or going on, by a word in their chats; a board that is so already gets none. Returns those that got
    /// one, ordered by id.
    ///
    /// # Errors
    /// [`StoreError::BadData`] if a board is not there, or its chat has a word that no other can be newer than: nothing was written.
    fn set_paused(
        &self,
        boards: &[BoardId],
        paused: bool,
    ) -> impl Future<Output = Result<Vec<BoardId>, StoreError>> + Send;

    /// How far the rotations of these agents have come, ordered by id; agents whose rows are gone are left out.
    fn rotation_progress(
        &self,
        agents: &[AgentId],
    ) -> impl Future<Output = Result<Vec<RotationProgress>, StoreError>> + Send;
}

/// The word in a board's chat that pauses it, or has it go on.
pub(super) fn pause_word(paused: bool) -> &'static str {
    if paused { "/pause" } else { "/resume" }
}

/// The error of a selector that names what is not there.
pub(super) fn unknown(kind: &str, ids: &[String]) -> StoreError {
    let (kind, verb) = if let [_] = ids {
        (kind.to_owned(), "it does")
    } else {
        (format!("{kind}s"), "they do")
    };
    StoreError::BadData {
        object: format!("{kind} {}", ids.join(", ")),
        problem: format!(
            "{verb} not exist, so nothing was requested; `openclaw-controller get -o wide` lists agents, boards and gateways \
             with their ids"
        ),
    }
}
