//! One-shot syncs within the loop.
//!
//! A sync does nothing to an agent itself: it gives the agent reconciler an order, has the agent looked at, and is told what
//! the look came to. So a key is still never worked on twice at once, and what a sync does is what the loop does, with a few
//! more rights. A look without an order costs one lookup in an empty map.

mod carry_out;
mod look;
mod text;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};

use look::GatewayLook;
pub(super) use look::Look;

use super::gateway_status::{GatewayFailure, GatewayOutcome};
use crate::model::{AgentId, GatewayId, SyncId, SyncOptions};

/// What the reconcilers and the informer share with the syncs that are being carried out.
#[derive(Default)]
pub(super) struct Syncs {
    /// There may be requests.
    requests: Notify,
    /// Somebody waits for a gateway's rows to be loaded.
    reloads: Notify,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What is to be done with an agent besides the usual.
    orders: HashMap<AgentId, Order>,
    /// Who wants to hear what looks at a gateway come to.
    watchers: HashMap<GatewayId, UnboundedSender<Told>>,
    /// Whose wakes wait until the sync of their gateway has ended.
    held: HashMap<GatewayId, HashSet<AgentId>>,
    reloads: Vec<Reload>,
}

/// A wish to have a gateway's rows loaded, and whom to tell when a load that began after it was made is done.
pub(super) struct Reload {
    pub(super) gateway: GatewayId,
    done: oneshot::Sender<()>,
}

impl Reload {
    pub(super) fn done(self) {
        // Whoever wished it may have lost interest.
        let _ = self.done.send(());
    }
}

/// What a sync is told.
enum Told {
    Agent(AgentId, Look),
    Gateway(GatewayLook),
}

/// What a sync wants of the looks at one agent.
#[derive(Clone)]
pub(super) struct Order {
    agent: AgentId,
    sync: SyncId,
    options: SyncOptions,
    told: UnboundedSender<Told>,
    reset: Arc<Mutex<Reset>>,
}

/// How far the reset of an agent's session has come, as far as this process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reset {
    /// It was not begun.
    New,
    /// It was begun, and has certainly not happened.
    Open,
    /// It has happened.
    Done,
    /// It may have happened, and is not repeated.
    Unknown(String),
}

impl Syncs {
    /// Has requests looked for.
    pub(super) fn look_for_requests(&self) {
        self.requests.notify_one();
    }

    /// The order for an agent, if there is one.
    pub(super) fn order(&self, agent: AgentId) -> Option<Order> {
        self.lock().orders.get(&agent).cloned()
    }

    /// Whether a wake has to wait, because a sync works on the gateway: what a woken agent does can keep a gateway from answering
    /// for as long as a call may take, and the sync has many to make. The agent is looked at again when the sync has ended.
    pub(super) fn holds_wake(&self, gateway: GatewayId, agent: AgentId) -> bool {
        let mut inner = self.lock();
        let works = inner.watchers.contains_key(&gateway);
        if works {
            inner.held.entry(gateway).or_default().insert(agent);
        }
        works
    }

    /// Tells whoever wants to hear it what a look at a gateway came to.
    pub(super) fn gateway_looked_at(&self, id: GatewayId, outcome: &Result<GatewayOutcome, GatewayFailure>) {
        if let Some(watcher) = self.lock().watchers.get(&id)
            && let Some(look) = GatewayLook::of(outcome)
        {
            // A sync that has ended hears nothing any more.
            let _ = watcher.send(Told::Gateway(look));
        }
    }

    /// Waits until somebody wishes rows to be loaded.
    pub(super) async fn reload_wanted(&self) {
        self.reloads.notified().await;
    }

    /// Takes those wishes.
    pub(super) fn take_reloads(&self) -> Vec<Reload> {
        std::mem::take(&mut self.lock().reloads)
    }

    /// Waits until a gateway's rows were loaded anew.
    async fn reload(&self, gateway: GatewayId) {
        let (done, loaded) = oneshot::channel();
        self.lock().reloads.push(Reload { gateway, done });
        self.reloads.notify_one();
        // If the informer has ended, so has the tenure.
        let _ = loaded.await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing is left half-done in here by a panic elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// Tells the sync what a look at the agent came to.
    pub(super) fn tell(&self, look: Look) {
        // A sync that has ended hears nothing any more.
        let _ = self.told.send(Told::Agent(self.agent, look));
    }

    fn reset(&self) -> Reset {
        self.reset.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_reset(&self, reset: Reset) {
        *self.reset.lock().unwrap_or_else(PoisonError::into_inner) = reset;
    }
}
