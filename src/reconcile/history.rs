//! What happened on gateways lately, as the database remembers it: asked for once per tenure, and again after each change.

use std::collections::HashMap;

use super::world::World;
use crate::model::{CausedRestart, GatewayHistory, GatewayId, ObjectRef, Undoing};
use crate::store::{Store, StoreError};

/// What is known of the histories of all gateways.
#[derive(Default)]
pub(super) struct Histories {
    known: HashMap<GatewayId, GatewayHistory>,
    /// Counts what made `known` untrue: what was asked for before is not kept.
    epoch: u64,
}

impl Histories {
    /// What is known of this gateway is true no longer.
    pub(super) fn forget(&mut self, gateway: GatewayId) {
        self.known.remove(&gateway);
        self.epoch += 1;
    }
}

impl<S: Store, C> World<S, C> {
    /// What happened on a gateway lately.
    pub(super) async fn history(&self, gateway: GatewayId) -> Result<GatewayHistory, StoreError> {
        let epoch = {
            let histories = &self.state().histories;
            if let Some(known) = histories.known.get(&gateway) {
                return Ok(known.clone());
            }
            histories.epoch
        };
        let history = self.store.history(gateway).await?;
        let histories = &mut self.state().histories;
        if histories.epoch == epoch {
            histories.known.insert(gateway, history.clone());
        }
        Ok(history)
    }

    /// Records a restart that we caused or are about to cause. Returns its number.
    pub(super) async fn record_restart(&self, gateway: GatewayId, restart: &CausedRestart) -> Result<i64, StoreError> {
        let _changing = self.changing_history(gateway);
        self.store.record_restart(&self.fence, gateway, restart).await
    }

    /// Forgets a restart that did not come.
    pub(super) async fn forget_restart(&self, gateway: GatewayId, restart: i64) -> Result<(), StoreError> {
        let _changing = self.changing_history(gateway);
        self.store.forget_restart(&self.fence, gateway, restart).await
    }

    /// Records fields that somebody else undoes.
    pub(super) async fn record_undone(&self, gateway: GatewayId, fields: &[Undoing]) -> Result<(), StoreError> {
        let _changing = self.changing_history(gateway);
        self.store.record_undone(&self.fence, gateway, fields).await
    }

    /// Forgets that these fields were undone.
    pub(super) async fn forget_undone(
        &self,
        gateway: GatewayId,
        fields: &[(ObjectRef, String)],
    ) -> Result<(), StoreError> {
        let _changing = self.changing_history(gateway);
        self.store.forget_undone(&self.fence, gateway, fields).await
    }

    /// To be held while the database is told something: however that ends, it is asked again.
    pub(super) fn changing_history(&self, gateway: GatewayId) -> Changing<'_, S, C> {
        self.state().histories.forget(gateway);
        Changing { world: self, gateway }
    }
}

/// See [`World::changing_history`].
pub(super) struct Changing<'a, S, C> {
    world: &'a World<S, C>,
    gateway: GatewayId,
}

impl<S, C> Drop for Changing<'_, S, C> {
    fn drop(&mut self) {
        self.world.state().histories.forget(self.gateway);
    }
}
