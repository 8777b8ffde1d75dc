//! The store without a database: the same behaviour, for tests under a paused clock.
//!
//! Rows are edited through [`MemoryStore`]'s own methods, which send the hints that the database's triggers would send.
//! Time is tokio's, from a fixed epoch on. Every write can be made to fail, before or after it lands.

mod checkin;
mod edit;
mod hints;
mod history;
mod leads;
mod lease;
mod lookup;
mod removals;
mod request;
mod state;
mod store;
mod sync;
mod view;
mod wakes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use hints::MemoryHints;
pub use wakes::WakeColumns;

use self::hints::Subscribers;
use self::state::State;
use super::{Fence, StoreError};
use crate::model::GatewayId;

/// The instant at which every in-memory store is made: 2026-01-01T00:00:00Z, in seconds since 1970.
const EPOCH: i64 = 1_767_225_600;

/// How an injected fault fails a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// Nothing is written.
    Before,
    /// It is written, and the answer is lost.
    After,
}

/// Desired state, records and leases in memory. A cheap handle: clones share their content.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    made: Instant,
    state: Mutex<State>,
    control: Mutex<Control>,
    subscribers: Subscribers,
}

/// What tests watch and disturb.
#[derive(Default)]
struct Control {
    /// Writes that landed, by the name of the method.
    writes: Vec<&'static str>,
    /// Faults to come: how many writes are still let through before each.
    faults: Vec<(usize, WriteFault)>,
    unreachable: bool,
    /// How many writes come up to the one around which the network is cut, whether that one still lands, and whom to tell.
    cut: Option<(usize, WriteFault, oneshot::Sender<()>)>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("writes", &self.writes())
            .finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store. Needs a tokio runtime, for its clock.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                made: Instant::now(),
                state: Mutex::default(),
                control: Mutex::default(),
                subscribers: Subscribers::default(),
            }),
        }
    }

    /// What time it is: the epoch, and what has passed on tokio's clock.
    pub fn now(&self) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(self.inner.made.elapsed()).unwrap_or_default();
        DateTime::from_timestamp(EPOCH, 0).unwrap_or_default() + passed
    }

    /// How many writes have landed: one for each transaction that the real store would commit, leases aside.
    pub fn writes(&self) -> usize {
        self.control().writes.len()
    }

    /// The names of the methods whose writes have landed, in order.
    pub fn write_log(&self) -> Vec<&'static str> {
        self.control().writes.clone()
    }

    /// Makes the `nth` write from now (1 is the next one) fail as [`StoreError::Unreachable`].
    pub fn fail_write(&self, nth: usize, fault: WriteFault) {
        self.control().faults.push((nth.saturating_sub(1), fault));
    }

    /// Makes every call fail as [`StoreError::Unreachable`], or work again.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.control().unreachable = unreachable;
    }

    /// Ends everything that makes calls fail.
    pub fn calm(&self) {
        let mut control = self.control();
        control.faults.clear();
        control.unreachable = false;
        control.cut = None;
    }

    /// Cuts the network right after the `nth` write from now (1 is the next one) has landed: its answer is lost, and every
    /// call fails until [`MemoryStore::set_unreachable`] says otherwise. The receiver is told at that moment.
    pub fn cut_after_write(&self, nth: usize) -> oneshot::Receiver<()> {
        self.cut(nth, WriteFault::After)
    }

    /// Like [`MemoryStore::cut_after_write`], right before the `nth` write: it does not land.
    pub fn cut_before_write(&self, nth: usize) -> oneshot::Receiver<()> {
        self.cut(nth, WriteFault::Before)
    }

    fn cut(&self, nth: usize, when: WriteFault) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.control().cut = Some((nth.max(1), when, sender));
        receiver
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.inner.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reachable(&self) -> Result<(), StoreError> {
        if self.control().unreachable {
            return Err(StoreError::Unreachable("the network is cut".to_owned()));
        }
        Ok(())
    }

    /// Reads as of one instant.
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        self.reachable()?;
        Ok(read(&self.state()))
    }

    /// One transaction under a lease. `change` tells whether it changed anything; what changes nothing is no write.
    fn write<T>(
        &self,
        name: &'static str,
        fence: &Fence,
        change: impl FnOnce(&mut State) -> (bool, T),
    ) -> Result<T, StoreError> {
        self.reachable()?;
        let mut state = self.state();
        if !state.holds(fence) {
            return Err(StoreError::Fenced {
                scope: fence.scope.clone(),
                term: fence.term,
            });
        }
        let mut control = self.control();
        let fault = control.faults.iter().position(|(left, _)| *left == 0);
        let fault = fault.map(|i| (i, control.faults[i].1));
        // A write that is going to fail must still be one: only then is the fault used up.
        let cut_before = matches!(control.cut, Some((1, WriteFault::Before, _)));
        let mut undo = (cut_before || matches!(fault, Some((_, WriteFault::Before)))).then(|| state.clone());
        let (changed, answer) = change(&mut state);
        if !changed {
            return Ok(answer);
        }
        if let Some((i, _)) = fault {
            control.faults.remove(i);
        }
        for (left, _) in &mut control.faults {
            *left = left.saturating_sub(1);
        }
        if cut_before && let (Some(before), Some((.., told))) = (undo.take(), control.cut.take()) {
            *state = before;
            // Whoever asked may have lost interest.
            let _ = told.send(());
            control.unreachable = true;
            return Err(StoreError::Unreachable(format!("the network was cut before {name}")));
        }
        if let Some(before) = undo.take() {
            *state = before;
            return Err(StoreError::Unreachable(format!("{name} failed as the test asked")));
        }
        control.writes.push(name);
        match control.cut.take() {
            Some((1, _, told)) => {
                let _ = told.send(());
                control.unreachable = true;
                return Err(StoreError::Unreachable(format!("the network was cut after {name}")));
            }
            Some((left, when, told)) => control.cut = Some((left - 1, when, told)),
            None => {}
        }
        match fault {
            Some((_, WriteFault::After)) => Err(StoreError::Unreachable(format!(
                "the answer to {name} was lost as the test asked"
            ))),
            _ => Ok(answer),
        }
    }

    /// Tells the listeners that a gateway's rows changed.
    fn hint(&self, gateways: impl IntoIterator<Item = GatewayId>) {
        self.inner.subscribers.send(gateways);
    }
}

/// When a lease taken now expires.
fn later(now: DateTime<Utc>, ttl: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(ttl).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AgentId, GatewayAgentId};
    use crate::store::{Hint, HintSource, LeaseStore, Store};
    use uuid::Uuid;

    const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(1));
    const AGENT: AgentId = AgentId(Uuid::from_u128(2));

    async fn held(store: &MemoryStore) -> Fence {
        let ttl = Duration::from_secs(15);
        Fence {
            scope: "all".to_owned(),
            holder: "a".to_owned(),
            term: store.acquire("all", "a", ttl).await.unwrap().unwrap(),
        }
    }

    async fn register(store: &MemoryStore, fence: &Fence, agent: u128) -> Result<(), StoreError> {
        let agent = (AgentId(Uuid::from_u128(agent)), GatewayAgentId::observed("x"));
        store.begin_registration(fence, GATEWAY, &[agent]).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_nth_write_fails_before_or_after_it_lands() {
        let store = MemoryStore::new();
        let fence = held(&store).await;
        store.fail_write(2, WriteFault::Before);
        store.fail_write(3, WriteFault::After);
        register(&store, &fence, 2).await.unwrap();
        // What changes nothing is no write, and uses no fault up.
        register(&store, &fence, 2).await.unwrap();
        assert!(register(&store, &fence, 3).await.unwrap_err().is_transient());
        assert!(store.agent_record(AgentId(Uuid::from_u128(3))).is_none());
        assert!(register(&store, &fence, 3).await.unwrap_err().is_transient());
        assert!(store.agent_record(AgentId(Uuid::from_u128(3))).is_some());
        register(&store, &fence, 4).await.unwrap();
        assert_eq!(store.write_log(), ["begin_registration"; 3]);
        assert!(store.agent_record(AGENT).unwrap().created_by_us());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_expires_on_the_paused_clock() {
        let store = MemoryStore::new();
        let fence = held(&store).await;
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(store.acquire("all", "b", Duration::from_secs(15)).await, Ok(None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(store.acquire("all", "b", Duration::from_secs(15)).await, Ok(Some(2)));
        assert_eq!(store.renew(&fence, Duration::from_secs(15)).await, Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn hints_can_be_lost_and_invented() {
        let store = MemoryStore::new();
        let mut hints = store.listen();
        assert_eq!(hints.next().await, Ok(Hint::Everything));
        store.lose_hints(true);
        store.hint([GATEWAY]);
        store.lose_hints(false);
        store.send_hint(Hint::Everything);
        store.hint([GATEWAY, GATEWAY]);
        assert_eq!(hints.next().await, Ok(Hint::Everything), "the first was lost");
        assert_eq!(hints.next().await, Ok(Hint::Gateway(GATEWAY)));
        let more = tokio::time::timeout(Duration::from_secs(1), hints.next()).await;
        assert!(more.is_err(), "one hint per gateway and transaction");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_works_without_a_network() {
        let store = MemoryStore::new();
        store.set_unreachable(true);
        assert!(store.load_fleet().await.unwrap_err().is_transient());
        assert!(
            store
                .acquire("all", "a", Duration::ZERO)
                .await
                .unwrap_err()
                .is_transient()
        );
        store.set_unreachable(false);
        assert!(store.load_fleet().await.unwrap().is_empty());
    }
}
