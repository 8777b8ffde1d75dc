//! Leases on tokio's clock.

use std::time::Duration;

use super::state::Lease;
use super::{MemoryStore, later};
use crate::store::{Fence, LeaseInfo, LeaseStore, StoreError};

impl LeaseStore for MemoryStore {
    async fn acquire(&self, scope: &str, holder: &str, ttl: Duration) -> Result<Option<i64>, StoreError> {
        self.reachable()?;
        let now = self.now();
        let mut state = self.state();
        let term = match state.leases.get(scope) {
            None => 1,
            Some(lease) => {
                let free = lease
                    .holder
                    .as_deref()
                    .is_none_or(|current| current == holder || lease.expires_at <= now);
                if !free {
                    return Ok(None);
                }
                lease.term + 1
            }
        };
        state.leases.insert(
            scope.to_owned(),
            Lease {
                holder: Some(holder.to_owned()),
                term,
                expires_at: later(now, ttl),
            },
        );
        Ok(Some(term))
    }

    async fn renew(&self, fence: &Fence, ttl: Duration) -> Result<bool, StoreError> {
        self.reachable()?;
        let now = self.now();
        let mut state = self.state();
        let held = state.holds(fence);
        if held && let Some(lease) = state.leases.get_mut(&fence.scope) {
            lease.expires_at = later(now, ttl);
        }
        Ok(held)
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        self.reachable()?;
        let now = self.now();
        let mut state = self.state();
        if state.holds(fence)
            && let Some(lease) = state.leases.get_mut(&fence.scope)
        {
            lease.holder = None;
            lease.expires_at = now;
        }
        Ok(())
    }

    async fn current(&self, scope: &str) -> Result<Option<LeaseInfo>, StoreError> {
        let now = self.now();
        self.read(|state| {
            state.leases.get(scope).map(|lease| LeaseInfo {
                holder: lease.holder.clone(),
                term: lease.term,
                expires_at: lease.expires_at,
                held: lease.holder.is_some() && lease.expires_at > now,
            })
        })
    }
}
