//! One-shot syncs: requests that people make, and what whoever holds the lease writes down while it carries them out.

use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Fence, StoreError};
use crate::model::{AgentId, GatewayId, SyncId, SyncOptions, SyncRequest, SyncResult, SyncedAgent};

/// For how long a request is kept, done or not: nobody waits for one so old, and nobody would expect it to be carried out.
pub(super) const KEPT_FOR: Duration = Duration::from_hours(24);

/// How far a sync has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncProgress {
    /// Whether somebody has taken it up.
    pub started: bool,
    /// How many agents are looked at, once that is known.
    pub agents: Option<usize>,
    /// How many of them are done.
    pub done: usize,
    /// What it came to, once it is finished.
    pub result: Option<SyncResult>,
}

/// Where syncs are asked for and followed, and where they are carried out from.
pub trait SyncStore: Send + Sync + 'static {
    /// Asks for a sync of a gateway, and has files rendered for another user from now on if the options name one. Needs no
    /// lease: a request is desired state. Removes requests that are older than a day.
    ///
    /// # Errors
    /// [`StoreError::BadData`] if there is no such gateway or user: nothing was written.
    fn request_sync(
        &self,
        gateway: GatewayId,
        options: &SyncOptions,
    ) -> impl Future<Output = Result<SyncId, StoreError>> + Send;

    /// How far a sync has come; `None` if there is no such request any more.
    fn sync_progress(&self, sync: SyncId) -> impl Future<Output = Result<Option<SyncProgress>, StoreError>> + Send;

    /// Takes a request back that is not finished; `unstarted`: only if nobody has taken it up. `false` if it was left as it is.
    fn withdraw_sync(&self, sync: SyncId, unstarted: bool) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The requests that are not finished and not older than a day, oldest first.
    fn open_syncs(&self) -> impl Future<Output = Result<Vec<SyncRequest>, StoreError>> + Send;

    /// Notes that a sync was taken up, and how many agents are looked at. `false` if it was taken back or finished.
    fn begin_sync(
        &self,
        fence: &Fence,
        sync: SyncId,
        agents: usize,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The agents that are done, in no order.
    fn synced_agents(&self, sync: SyncId) -> impl Future<Output = Result<Vec<SyncedAgent>, StoreError>> + Send;

    /// Asks, on behalf of a sync, for new tokens for these agents: a request made at `at`, unless there is a newer one.
    fn request_sync_rotation(
        &self,
        fence: &Fence,
        at: DateTime<Utc>,
        agents: &[AgentId],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The agents of which it was noted that their sessions are about to be reset, ordered by id.
    fn sync_resets(&self, sync: SyncId) -> impl Future<Output = Result<Vec<AgentId>, StoreError>> + Send;

    /// Notes that an agent's session is about to be reset. `false` if that was noted before, or there is no such request any
    /// more.
    fn begin_sync_reset(
        &self,
        fence: &Fence,
        sync: SyncId,
        agent: AgentId,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Notes what became of an agent.
    fn finish_sync_agent(
        &self,
        fence: &Fence,
        sync: SyncId,
        agent: &SyncedAgent,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Notes what a sync came to.
    fn finish_sync(
        &self,
        fence: &Fence,
        sync: SyncId,
        result: &SyncResult,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes requests that are older than a day.
    fn drop_old_syncs(&self, fence: &Fence) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The error of a request that names what is not there.
pub(super) fn unknown(kind: &str, id: &impl ToString, hint: &str) -> StoreError {
    StoreError::BadData {
        object: format!("{kind} {}", id.to_string()),
        problem: format!("it does not exist, so nothing was requested; {hint}"),
    }
}

/// Where to look for a gateway's id.
pub(super) const GATEWAYS_ARE_LISTED: &str = "`openclaw-controller get gateways -o wide` lists gateways with their ids";

/// Where to look for a user's id.
pub(super) const USERS_ARE_LISTED: &str = "the table users has the ids";
