//! One-shot syncs.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::MemoryStore;
use super::state::{State, Sync};
use crate::model::{AgentId, GatewayId, SyncId, SyncOptions, SyncRequest, SyncResult, SyncedAgent};
use crate::store::sync::{GATEWAYS_ARE_LISTED, KEPT_FOR, USERS_ARE_LISTED, unknown};
use crate::store::{Fence, StoreError, SyncProgress, SyncStore};

impl SyncStore for MemoryStore {
    async fn request_sync(&self, gateway: GatewayId, options: &SyncOptions) -> Result<SyncId, StoreError> {
        self.reachable()?;
        let now = self.database_now();
        let mut state = self.state();
        if !state.gateways.contains_key(&gateway) {
            return Err(unknown("gateway", &gateway, GATEWAYS_ARE_LISTED));
        }
        let mut concerned = None;
        if let Some(user) = options.user {
            let Some(user) = state.owners.values().find(|known| known.id == user).cloned() else {
                return Err(unknown("user", &user, USERS_ARE_LISTED));
            };
            let changed = state.rendered_for.insert(gateway, user.clone()) != Some(user);
            concerned = changed.then_some(gateway);
        }
        state.drop_old_syncs(now);
        state.syncs_ever += 1;
        let request = SyncRequest {
            id: SyncId(Uuid::from_u128(state.syncs_ever)),
            gateway,
            options: options.clone(),
            requested_at: now,
        };
        let id = request.id;
        state.syncs.push(Sync::new(request));
        drop(state);
        self.hint(concerned);
        self.hint_sync();
        Ok(id)
    }

    async fn sync_progress(&self, sync: SyncId) -> Result<Option<SyncProgress>, StoreError> {
        self.read(|state| {
            let sync = state.syncs.iter().find(|known| known.request.id == sync)?;
            Some(SyncProgress {
                started: sync.started,
                agents: sync.agents,
                done: sync.done.len(),
                result: sync.result.clone(),
            })
        })
    }

    async fn withdraw_sync(&self, sync: SyncId, unstarted: bool) -> Result<bool, StoreError> {
        self.reachable()?;
        let mut state = self.state();
        let before = state.syncs.len();
        state
            .syncs
            .retain(|known| known.request.id != sync || known.result.is_some() || (unstarted && known.started));
        Ok(state.syncs.len() != before)
    }

    async fn open_syncs(&self) -> Result<Vec<SyncRequest>, StoreError> {
        let now = self.database_now();
        self.read(|state| {
            let open = state
                .syncs
                .iter()
                .filter(|sync| sync.result.is_none() && !sync.is_old(now));
            let mut open: Vec<_> = open.map(|sync| sync.request.clone()).collect();
            open.sort_by_key(|request| (request.requested_at, request.id));
            open
        })
    }

    async fn begin_sync(&self, fence: &Fence, sync: SyncId, agents: usize) -> Result<bool, StoreError> {
        let open = self.write_sync("begin_sync", fence, sync, |sync| {
            if sync.result.is_some() {
                return (false, false);
            }
            let changed = !sync.started || sync.agents != Some(agents);
            sync.started = true;
            sync.agents = Some(agents);
            (changed, true)
        })?;
        Ok(open.unwrap_or(false))
    }

    async fn synced_agents(&self, sync: SyncId) -> Result<Vec<SyncedAgent>, StoreError> {
        self.read(|state| {
            let sync = state.syncs.iter().find(|known| known.request.id == sync);
            sync.map(|sync| sync.done.values().cloned().collect())
                .unwrap_or_default()
        })
    }

    async fn request_sync_rotation(
        &self,
        fence: &Fence,
        at: DateTime<Utc>,
        agents: &[AgentId],
    ) -> Result<(), StoreError> {
        let mut concerned = Vec::new();
        let written = self.write("request_sync_rotation", fence, |state| {
            for id in agents {
                if let Some(row) = state.agents.get_mut(id).filter(|row| row.requests.rotate < Some(at)) {
                    row.requests.rotate = Some(at);
                    let home = state.agents.get(id).map(|row| state.home(row));
                    concerned.extend(home);
                }
            }
            (!concerned.is_empty(), ())
        });
        self.hint(concerned);
        written
    }

    async fn begin_sync_reset(&self, fence: &Fence, sync: SyncId, agent: AgentId) -> Result<bool, StoreError> {
        let noted = self.write_sync("begin_sync_reset", fence, sync, |sync| {
            let new = sync.result.is_none() && sync.resets.insert(agent);
            (new, new)
        })?;
        Ok(noted.unwrap_or(false))
    }

    async fn sync_resets(&self, sync: SyncId) -> Result<Vec<AgentId>, StoreError> {
        self.read(|state| {
            let sync = state.syncs.iter().find(|known| known.request.id == sync);
            sync.map(|sync| sync.resets.iter().copied().collect())
                .unwrap_or_default()
        })
    }

    async fn finish_sync_agent(&self, fence: &Fence, sync: SyncId, agent: &SyncedAgent) -> Result<(), StoreError> {
        self.write_sync("finish_sync_agent", fence, sync, |sync| {
            let changed = sync.done.insert(agent.agent, agent.clone()).as_ref() != Some(agent);
            (changed, ())
        })
        .map(drop)
    }

    async fn finish_sync(&self, fence: &Fence, sync: SyncId, result: &SyncResult) -> Result<(), StoreError> {
        self.write_sync("finish_sync", fence, sync, |sync| {
            let new = sync.result.is_none();
            sync.started = true;
            sync.result.get_or_insert_with(|| result.clone());
            (new, ())
        })
        .map(drop)
    }

    async fn drop_old_syncs(&self, fence: &Fence) -> Result<(), StoreError> {
        let now = self.database_now();
        self.write("drop_old_syncs", fence, |state| (state.drop_old_syncs(now), ()))
    }
}

impl MemoryStore {
    /// One transaction about a request; `None` if there is no such request.
    fn write_sync<T>(
        &self,
        name: &'static str,
        fence: &Fence,
        sync: SyncId,
        change: impl FnOnce(&mut Sync) -> (bool, T),
    ) -> Result<Option<T>, StoreError> {
        self.write(name, fence, |state| {
            match state.syncs.iter_mut().find(|known| known.request.id == sync) {
                None => (false, None),
                Some(sync) => {
                    let (changed, answer) = change(sync);
                    (changed, Some(answer))
                }
            }
        })
    }
}

impl State {
    /// Removes requests that are too old, and tells whether there were any.
    fn drop_old_syncs(&mut self, now: DateTime<Utc>) -> bool {
        let before = self.syncs.len();
        self.syncs.retain(|sync| !sync.is_old(now));
        self.syncs.len() != before
    }
}

impl Sync {
    fn is_old(&self, now: DateTime<Utc>) -> bool {
        now - self.request.requested_at > TimeDelta::from_std(KEPT_FOR).unwrap_or_default()
    }
}
