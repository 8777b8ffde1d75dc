//! Tokens for agents that are being added to a roster, made while the gateway is busy with that: a patch takes seconds, and
//! deriving keys for a hundred agents does, too.

use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::goal;
use super::session::Session;
use super::spec::{AgentSpec, GatewaySpec};
use super::world::World;
use crate::gateway::Connector;
use crate::store::Store;
use crate::token::MintReason;

/// How many keys are derived at once: each takes one core.
const AT_ONCE: usize = 2;

impl<S: Store, C: Connector> World<S, C> {
    /// Makes tokens for those of `agents` that have none, one after the other until `enough` fires; one that was begun is
    /// completed. They must not be worked on by anybody else. What is not done here is done when their files are written.
    pub(super) async fn mint_ahead(
        &self,
        gateway: &GatewaySpec,
        session: &Session,
        agents: &[Arc<AgentSpec>],
        enough: &CancellationToken,
    ) {
        futures::stream::iter(agents)
            .take_until(enough.cancelled())
            .for_each_concurrent(AT_ONCE, async |agent| {
                if let Err(failure) = self.mint_one_ahead(gateway, session, agent).await {
                    // Told with the agent, if it happens again there.
                    tracing::debug!(agent = %agent.row.id, %failure, "no token was made ahead");
                    enough.cancel();
                }
            })
            .await;
    }

    async fn mint_one_ahead(
        &self,
        gateway: &GatewaySpec,
        session: &Session,
        agent: &AgentSpec,
    ) -> Result<(), super::failure::AgentFailure> {
        let has_hash = |hash: Option<&String>| hash.is_some_and(|hash| !hash.trim().is_empty());
        if has_hash(agent.row.token_hash.as_ref()) {
            return Ok(());
        }
        let rendered = goal::files(gateway, agent, &session.dialect, &self.templates, &self.settings);
        if goal::token_home(&rendered, &session.dialect).is_none() {
            return Ok(());
        }
        let state = self.store.token_state(agent.row.id).await?;
        if has_hash(state.current_hash.as_ref()) || !state.candidates.is_empty() {
            return Ok(());
        }
        let due = self.due(agent, &state);
        self.mint(agent, &state, MintReason::NoHash, &due).await.map(drop)
    }
}
