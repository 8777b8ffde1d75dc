//! How many wakes are begun at a time: a woken agent's run can keep a gateway from answering anything for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{AgentId, GatewayId};

/// At most this many wakes are begun on one gateway …
pub(super) const WAKES_AT_ONCE: usize = 4;

/// … within this time.
pub(super) const WAKES_WITHIN: Duration = Duration::from_secs(5);

/// Hands out turns, per gateway. Whoever has to wait is told for how long, and finds a turn then.
#[derive(Default)]
pub(super) struct WakeSlots(Mutex<HashMap<GatewayId, Lane>>);

#[derive(Default)]
struct Lane {
    /// When the last wakes were begun.
    begun: VecDeque<Instant>,
    /// When those who wait are to come back.
    waiting: HashMap<AgentId, Instant>,
}

impl WakeSlots {
    /// Takes a turn, which is used up by that; or tells when to come back for it.
    pub(super) fn take(&self, gateway: GatewayId, agent: AgentId) -> Result<(), Duration> {
        // Nothing is left half-done in here by a panic elsewhere.
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(gateway).or_default();
        let now = Instant::now();
        lane.begun.retain(|at| *at + WAKES_WITHIN > now);
        // Whoever did not come for its turn has no use for it.
        lane.waiting.retain(|_, at| *at + WAKES_WITHIN > now);
        let mine = lane.waiting.remove(&agent);
        let free = match mine {
            Some(at) if at > now => {
                lane.waiting.insert(agent, at);
                return Err(at - now);
            }
            Some(_) => lane.begun.len() < WAKES_AT_ONCE,
            None => lane.begun.len() + lane.waiting.len() < WAKES_AT_ONCE,
        };
        if free {
            lane.begun.push_back(now);
            return Ok(());
        }
        let mut turns: Vec<_> = lane.begun.iter().chain(lane.waiting.values()).copied().collect();
        turns.sort_unstable();
        let fourth = turns.len().checked_sub(WAKES_AT_ONCE).map(|i| turns[i]);
        let at = fourth
            .map_or(now, |at| at + WAKES_WITHIN)
            .max(now + Duration::from_millis(1));
        lane.waiting.insert(agent, at);
        Err(at - now)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(1));

    fn agent(n: u128) -> AgentId {
        AgentId(Uuid::from_u128(n))
    }

    #[tokio::test(start_paused = true)]
    async fn four_begin_within_five_seconds_and_the_others_come_back_once_each() {
        let slots = WakeSlots::default();
        let begin = Instant::now();
        let mut begun = Vec::new();
        // When each is to be asked for next.
        let mut due: Vec<_> = (0..18).map(|n| (Duration::ZERO, agent(n))).collect();
        let mut asked = 0;
        while !due.is_empty() {
            due.sort();
            let (at, agent) = due.remove(0);
            tokio::time::sleep_until(begin + at).await;
            asked += 1;
            match slots.take(GATEWAY, agent) {
                Ok(()) => begun.push(begin.elapsed()),
                Err(wait) => due.push((begin.elapsed() + wait, agent)),
            }
        }
        assert_eq!(begun.len(), 18);
        for window in begun.windows(WAKES_AT_ONCE + 1) {
            assert!(window[WAKES_AT_ONCE] >= window[0] + WAKES_WITHIN, "{begun:?}");
        }
        assert!(begun[17] < Duration::from_secs(21), "{begun:?}");
        assert_eq!(asked, 18 + 14, "nobody is sent away twice");
    }

    #[tokio::test(start_paused = true)]
    async fn gateways_do_not_wait_for_each_other_and_a_turn_that_nobody_takes_is_no_loss() {
        let slots = WakeSlots::default();
        for n in 0..4 {
            assert_eq!(slots.take(GATEWAY, agent(n)), Ok(()));
        }
        assert_eq!(slots.take(GatewayId(Uuid::from_u128(2)), agent(9)), Ok(()));
        for n in 4..12 {
            assert!(slots.take(GATEWAY, agent(n)).is_err());
        }
        tokio::time::sleep(Duration::from_mins(1)).await;
        for n in 4..8 {
            assert_eq!(slots.take(GATEWAY, agent(n)), Ok(()), "all of them are late");
        }
        assert_eq!(slots.take(GATEWAY, agent(8)), Err(WAKES_WITHIN));
    }
}
