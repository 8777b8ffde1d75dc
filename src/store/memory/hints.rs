//! Hints as the database's triggers would send them, and the ways in which they get lost.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::MemoryStore;
use crate::model::GatewayId;
use crate::store::{Hint, HintSource, StoreError};

#[derive(Default)]
pub(super) struct Subscribers(Mutex<List>);

#[derive(Default)]
struct List {
    senders: Vec<UnboundedSender<Hint>>,
    lossy: bool,
}

impl Subscribers {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One hint for each gateway at most, as for one transaction.
    pub(super) fn send(&self, gateways: impl IntoIterator<Item = GatewayId>) {
        let gateways: BTreeSet<GatewayId> = gateways.into_iter().collect();
        let mut list = self.list();
        if list.lossy {
            return;
        }
        for gateway in gateways {
            list.senders
                .retain(|sender| sender.send(Hint::Gateway(gateway)).is_ok());
        }
    }
}

/// Hints from a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryHints(UnboundedReceiver<Hint>);

impl MemoryStore {
    /// Hints from this store; the first is [`Hint::Everything`], as after every connect.
    pub fn listen(&self) -> MemoryHints {
        let (sender, receiver) = unbounded_channel();
        // The receiver is right here.
        let _ = sender.send(Hint::Everything);
        self.inner.subscribers.list().senders.push(sender);
        MemoryHints(receiver)
    }

    /// Sends a hint that nothing caused: late, double, or about a gateway that is not there.
    pub fn send_hint(&self, hint: Hint) {
        self.inner
            .subscribers
            .list()
            .senders
            .retain(|sender| sender.send(hint).is_ok());
    }

    /// Tells the listeners that a sync was asked for.
    pub(super) fn hint_sync(&self) {
        if !self.inner.subscribers.list().lossy {
            self.send_hint(Hint::Sync);
        }
    }

    /// Swallows all hints silently from now on, or no longer: only resyncs find changes then.
    pub fn lose_hints(&self, lossy: bool) {
        self.inner.subscribers.list().lossy = lossy;
    }
}

impl HintSource for MemoryHints {
    async fn next(&mut self) -> Result<Hint, StoreError> {
        match self.0.recv().await {
            Some(hint) => Ok(hint),
            // The store is gone: a quiet database for ever.
            None => std::future::pending().await,
        }
    }
}
