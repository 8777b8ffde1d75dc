//! What would become of an agent's token, without doing it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::failure::AgentFailure;
use super::memory::AgentMemory;
use super::observe::Workspace;
use super::rotation::{Due, TokenPolicy};
use super::tokens::decide;
use crate::store::TokenState;
use crate::token::TokenDecision;

/// What would become of a token, if it were settled now.
pub(super) struct Foreseen {
    /// The token that the files hold.
    pub(super) token: Option<SecretString>,
    /// Whether files that hold a token could be written.
    pub(super) available: bool,
    /// What would happen to the token, if anything.
    pub(super) change: Option<String>,
}

/// Finds what [`World::settle_token`](super::world::World::settle_token) would do, without doing it.
pub(super) async fn foresee(
    state: &TokenState,
    memory: &AgentMemory,
    workspace: &Workspace,
    due: &Due,
    policy: TokenPolicy,
    now: DateTime<Utc>,
) -> Result<Foreseen, AgentFailure> {
    let mut decision = decide(state, memory, workspace, Duration::MAX, due, policy, now).await?;
    let mut token = None;
    if due.is_any()
        && let (TokenDecision::Mint { .. }, TokenDecision::Valid { token: present, .. }) = (
            &decision,
            decide(state, memory, workspace, Duration::MAX, &Due::default(), policy, now).await?,
        )
    {
        token = Some(present);
    } else if let (TokenDecision::Valid { token: present, .. }, Some(reason)) = (&decision, due.mint_reason()) {
        // It would be remembered first.
        token = Some(present.clone());
        decision = TokenDecision::Mint { reason };
    }
    Ok(match decision {
        TokenDecision::Valid { token, .. } | TokenDecision::Restore { token } => Foreseen {
            token: Some(token),
            available: true,
            change: None,
        },
        TokenDecision::Promote { token, .. } | TokenDecision::Resume { token, .. } => Foreseen {
            token: Some(token),
            available: true,
            change: Some("a token that was begun would be completed".into()),
        },
        TokenDecision::Mint { reason } => Foreseen {
            token,
            available: true,
            change: Some(format!("a new token would be made: {reason}")),
        },
        TokenDecision::Wait { message, .. } | TokenDecision::Invalid { message, .. } => Foreseen {
            token: None,
            available: false,
            change: Some(message),
        },
    })
}
