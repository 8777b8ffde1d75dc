//! Restarts of gateways: how many there may be, what is expected of a write and what came of it, and waiting one out.
//!
//! A restart that is foreseen is written down before the write is sent, so that no crash can make it one too many. One that comes
//! unforeseen counts as well, and is foreseen the next time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use tokio::time::Instant;

use super::session::Session;
use super::world::World;
use crate::gateway::{Client, Connector, GatewayError};
use crate::model::{
    CausedRestart, ConfigPart, Dialect, Effect, Event, EventKind, GatewayHistory, GatewayId, GatewayPlan, ObjectRef,
    Undoing,
};
use crate::store::{Store, StoreError};

/// How long to wait for a foreseen restart to begin, so that the agents' file writes do not run into it (measured on 2026.7.1:
/// it begins 3.4 s after the answer).
const RESTART_GRACE: Duration = Duration::from_secs(6);

/// For how long after a write of ours a restart is taken for its consequence: a busy gateway puts it off.
const CONSEQUENCE: Duration = Duration::from_secs(20);

/// How often a gateway that restarts is knocked at.
pub(super) const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// For how long a gateway that restarts may be away before that is a failure.
const RESTART_PATIENCE: Duration = Duration::from_mins(1);

pub(super) use crate::model::RESTART_BUDGET_EXHAUSTED as BUDGET_EXHAUSTED;

/// A write of ours of which it is not known yet whether it restarts the gateway.
pub(super) struct Written {
    client: Client,
    sent: Instant,
    /// When the gateway answered, or was waited for no longer.
    over: Option<Instant>,
    parts: BTreeSet<ConfigPart>,
    foreseen: Effect,
    /// What was written down before.
    permit: Option<i64>,
    /// The connection has broken since without a word.
    lost: bool,
    /// It is not known to have arrived: that nothing follows tells nothing of what it would do.
    doubtful: bool,
}

impl Written {
    /// Whether a restart at that time would be its consequence.
    fn explains(&self, at: Instant) -> bool {
        self.over.is_none_or(|over| at <= over + CONSEQUENCE)
    }

    /// Whether a process that began then can be the one that came after this connection broke, rather than one that somebody
    /// started since.
    fn is_followed_by(&self, begun: Instant) -> bool {
        let broken = self.client.close_reason();
        broken.is_none_or(|reason| begun <= reason.at + RESTART_PATIENCE)
    }

    /// It has not done what was foreseen: what was written down of it, and what it changed.
    fn give_up(&mut self) -> (Option<i64>, BTreeSet<ConfigPart>) {
        let parts = if self.doubtful {
            BTreeSet::new()
        } else {
            self.parts.clone()
        };
        (self.permit.take(), parts)
    }
}

/// What is remembered of restarts between looks.
#[derive(Default)]
pub(super) struct Restarts {
    /// Per gateway: the writes of which it is not known yet whether they restart it, oldest first.
    written: HashMap<GatewayId, Vec<Written>>,
    /// Per gateway: parts that did not restart it after all since they last did.
    disproved: HashMap<GatewayId, BTreeSet<ConfigPart>>,
    /// Gateways that are restarting, and for how long they may yet be away.
    away: HashMap<GatewayId, Instant>,
    /// Wrong predictions that were told.
    told: HashSet<(GatewayId, Effect, Effect)>,
}

impl Restarts {
    /// The last write to a gateway, if it is not known yet what it does.
    fn last(&mut self, gateway: GatewayId) -> Option<&mut Written> {
        self.written.get_mut(&gateway)?.last_mut()
    }

    /// Forgets a gateway whose row is gone.
    pub(super) fn forget(&mut self, gateway: GatewayId) {
        self.written.remove(&gateway);
        self.disproved.remove(&gateway);
        self.away.remove(&gateway);
        self.told.retain(|(of, ..)| *of != gateway);
    }
}

/// The gateway may not be restarted at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    /// When it may be again; `None` if never.
    pub(super) until: Option<DateTime<Utc>>,
    most: u32,
}

impl Spent {
    /// What to tell people of what waits.
    pub(super) fn message(&self, waiting: &[String]) -> String {
        let waiting = waiting.join(", ");
        match self.until {
            Some(until) => format!(
                "these changes would restart the gateway, which this controller has restarted {} times within the last hour, \
                 and wait until {}: {waiting}; --max-restarts-per-hour allows more",
                self.most,
                until.format("%F %T UTC"),
            ),
            None => format!(
                "these changes would restart the gateway, which --max-restarts-per-hour=0 forbids: {waiting}; allow restarts, or \
                 make the changes yourself"
            ),
        }
    }
}

/// What restarted a gateway lately without having been expected to.
pub(super) fn learnt(history: &GatewayHistory, now: DateTime<Utc>) -> BTreeSet<ConfigPart> {
    let unforeseen = history
        .restarts
        .iter()
        .filter(|restart| !restart.foreseen && restart.at > now - Undoing::SPAN);
    unforeseen.flat_map(|restart| &restart.parts).copied().collect()
}

/// Whether a gateway that was restarted like this may be restarted once more.
pub(super) fn spent(history: &GatewayHistory, most: u32, now: DateTime<Utc>) -> Option<Spent> {
    let recent: Vec<_> = history
        .restarts
        .iter()
        .map(|restart| restart.at)
        .filter(|at| *at > now - Undoing::SPAN)
        .collect();
    let allowed = usize::try_from(most).unwrap_or(usize::MAX);
    if recent.len() < allowed {
        return None;
    }
    let until = (allowed > 0).then(|| recent.get(recent.len() - allowed).map(|at| *at + Undoing::SPAN));
    Some(Spent {
        until: until.flatten(),
        most,
    })
}

impl<S: Store, C: Connector> World<S, C> {
    /// What the gateway can do, and what writes are expected to do to it, with what was learnt from restarts that came
    /// unforeseen.
    pub(super) async fn foreseen(&self, session: &Session) -> Result<Dialect, StoreError> {
        let gateway = session.client.gateway();
        let learnt = learnt(&self.history(gateway).await?, self.now());
        let dialect = (*session.dialect).clone();
        if learnt.is_empty() {
            return Ok(dialect);
        }
        let disproved = self
            .state()
            .restarts
            .disproved
            .get(&gateway)
            .cloned()
            .unwrap_or_default();
        Ok(dialect.restarted_by(learnt.difference(&disproved)))
    }

    /// Whether what is planned may not be done now, because it would restart the gateway once too often.
    pub(super) async fn restarts_spent(
        &self,
        gateway: GatewayId,
        plan: &GatewayPlan,
    ) -> Result<Option<Spent>, StoreError> {
        if !plan.restarts() {
            return Ok(None);
        }
        let history = self.history(gateway).await?;
        Ok(spent(&history, self.settings.max_restarts_per_hour, self.now()))
    }

    /// To be called before a write is sent that is foreseen to have this effect.
    pub(super) async fn about_to_write(
        &self,
        session: &Session,
        foreseen: Effect,
        parts: BTreeSet<ConfigPart>,
    ) -> Result<(), StoreError> {
        let gateway = session.client.gateway();
        let permit = if foreseen == Effect::Restart {
            let restart = CausedRestart {
                id: 0,
                at: self.now().trunc_subsecs(6),
                foreseen: true,
                parts: parts.clone(),
            };
            Some(self.record_restart(gateway, &restart).await?)
        } else {
            None
        };
        let written = Written {
            client: session.client.clone(),
            sent: Instant::now(),
            over: None,
            parts,
            foreseen,
            permit,
            lost: false,
            doubtful: false,
        };
        // What the one before it does may not be known yet.
        self.state().restarts.written.entry(gateway).or_default().push(written);
        Ok(())
    }

    /// After a write that the gateway took: waits for the restart that is expected to follow. `told`: what the gateway says of
    /// that. Returns whether it restarts.
    pub(super) async fn await_restart(&self, session: &Session, told: Option<bool>) -> Result<bool, StoreError> {
        let gateway = session.client.gateway();
        let foreseen = self.state().restarts.last(gateway).map(|written| written.foreseen);
        if told.unwrap_or(foreseen == Some(Effect::Restart)) {
            let closed = tokio::time::timeout(RESTART_GRACE, session.client.closed()).await;
            if closed.is_ok() {
                self.restarted(gateway).await?;
                return Ok(true);
            }
        }
        if foreseen == Some(Effect::Restart) && told == Some(false) {
            let unfounded = self.state().restarts.last(gateway).map(Written::give_up);
            self.not_restarted(gateway, unfounded).await?;
        }
        // Else it may yet come; whether it has is known a while later.
        Ok(false)
    }

    /// How long until it is known whether the last write restarts the gateway, where that is foreseen.
    pub(super) fn restart_known_in(&self, gateway: GatewayId) -> Option<Duration> {
        let state = self.state();
        let writes = state.restarts.written.get(&gateway)?;
        let foreseen = writes.iter().filter(|written| written.permit.is_some());
        let left = foreseen
            .filter_map(|written| written.over)
            .map(|over| CONSEQUENCE.saturating_sub(over.elapsed()));
        left.min().map(|left| left + RESTART_PAUSE)
    }

    /// The write was not carried out: what was written down of a restart was for nothing.
    pub(super) async fn not_written(&self, gateway: GatewayId) -> Result<(), StoreError> {
        let written = self.state().restarts.written.get_mut(&gateway).and_then(Vec::pop);
        match written.and_then(|written| written.permit) {
            Some(permit) => self.forget_restart(gateway, permit).await,
            None => Ok(()),
        }
    }

    /// The gateway restarts, as a consequence of our last writes.
    pub(super) async fn restarted(&self, gateway: GatewayId) -> Result<(), StoreError> {
        let now = Instant::now();
        let writes = {
            let restarts = &mut self.state().restarts;
            restarts.away.insert(gateway, now + RESTART_PATIENCE);
            restarts.written.remove(&gateway).unwrap_or_default()
        };
        let (writes, mut old): (Vec<_>, Vec<_>) = writes.into_iter().partition(|written| {
            let broken = written.client.close_reason();
            written.explains(broken.map_or(now, |reason| reason.at))
        });
        self.not_restarted(gateway, old.iter_mut().map(Written::give_up))
            .await?;
        if writes.is_empty() {
            return Ok(());
        }
        self.metrics.restart_caused();
        let foreseen = writes
            .iter()
            .map(|written| written.foreseen)
            .max()
            .unwrap_or(Effect::None);
        let parts: BTreeSet<_> = writes.iter().flat_map(|written| &written.parts).copied().collect();
        if foreseen != Effect::Restart {
            self.state().restarts.disproved.remove(&gateway);
            self.mispredicted(gateway, foreseen, Effect::Restart, &parts).await?;
        }
        let mut permits = writes.iter().filter_map(|written| written.permit);
        if permits.next().is_none() {
            let restart = CausedRestart {
                id: 0,
                at: self.now().trunc_subsecs(6),
                foreseen: foreseen == Effect::Restart,
                parts,
            };
            self.record_restart(gateway, &restart).await?;
        }
        // The new process has read what all of them wrote: one restart, however many were foreseen.
        for permit in permits {
            self.forget_restart(gateway, permit).await?;
        }
        Ok(())
    }

    /// The restart that was foreseen has not come: what was written down of it is forgotten.
    async fn not_restarted(
        &self,
        gateway: GatewayId,
        writes: impl IntoIterator<Item = (Option<i64>, BTreeSet<ConfigPart>)>,
    ) -> Result<(), StoreError> {
        for (permit, parts) in writes {
            let disproved = |restarts: &mut Restarts| restarts.disproved.entry(gateway).or_default().extend(&parts);
            disproved(&mut self.state().restarts);
            if let Some(permit) = permit {
                if !parts.is_empty() {
                    self.mispredicted(gateway, Effect::Restart, Effect::Hot, &parts).await?;
                }
                self.forget_restart(gateway, permit).await?;
            }
        }
        Ok(())
    }

    /// The gateway has answered to the write, whatever it said, or is not waited for any longer.
    pub(super) fn answered(&self, gateway: GatewayId) {
        if let Some(written) = self.state().restarts.last(gateway) {
            written.over = Some(Instant::now());
        }
    }

    /// Before a look at the gateway: what has become of the last writes since.
    pub(super) async fn account_for_last_write(&self, gateway: GatewayId) -> Result<(), StoreError> {
        let (mut restarted, mut quiet) = (false, Vec::new());
        {
            let mut state = self.state();
            let Some(writes) = state.restarts.written.get_mut(&gateway) else {
                return Ok(());
            };
            let now = Instant::now();
            writes.retain_mut(|written| {
                // A look that ran out of time has left it behind.
                written.over.get_or_insert(now);
                match written.client.close_reason() {
                    Some(reason) if reason.restart && written.explains(reason.at) => {
                        restarted = true;
                        true
                    }
                    Some(reason) if !reason.ours && written.explains(reason.at) => {
                        // Its process tells, once it is back.
                        written.lost = true;
                        true
                    }
                    // Whether a write whose permit remains has restarted it is not known: it counts.
                    Some(reason) if written.explains(reason.at) => false,
                    None if written.explains(now) => true,
                    // The connection has outlived whatever the write could have done.
                    _ => {
                        quiet.push(written.give_up());
                        false
                    }
                }
            });
            if writes.is_empty() {
                state.restarts.written.remove(&gateway);
            }
        }
        self.not_restarted(gateway, quiet).await?;
        if restarted {
            self.restarted(gateway).await?;
        }
        Ok(())
    }

    /// The gateway is there again: whether it is a new process since our last write.
    pub(super) async fn is_back(&self, client: &Client) -> Result<(), StoreError> {
        let gateway = client.gateway();
        let uptime = client.hello().uptime;
        let begun = uptime.and_then(|uptime| Instant::now().checked_sub(uptime));
        let restarted = {
            let restarts = &mut self.state().restarts;
            restarts.away.remove(&gateway);
            let writes = restarts.written.get(&gateway).into_iter().flatten();
            let mut lost = writes.filter(|written| written.lost);
            lost.any(|written| begun.is_some_and(|begun| written.sent < begun && written.is_followed_by(begun)))
        };
        if restarted {
            self.restarted(gateway).await?;
            self.state().restarts.away.remove(&gateway);
        }
        if let Some(writes) = self.state().restarts.written.get_mut(&gateway) {
            writes.retain_mut(|written| {
                if !written.lost {
                    return true;
                }
                // The same process as before the write may yet restart for it, if it has arrived.
                written.client = client.clone();
                (written.lost, written.doubtful) = (false, true);
                begun.is_some_and(|begun| begun <= written.sent)
            });
        }
        Ok(())
    }

    /// The gateway cannot be reached: whether that is because it restarts, so that it is only to be knocked at again.
    pub(super) fn is_restarting(&self, gateway: GatewayId, error: &GatewayError) -> bool {
        let restarts = &mut self.state().restarts;
        let away = restarts.away.get(&gateway).is_some_and(|until| Instant::now() < *until);
        if !away {
            restarts.away.remove(&gateway);
        }
        away && error.is_transient()
    }

    /// Counts a wrong prediction, and tells of it the first time.
    async fn mispredicted(
        &self,
        gateway: GatewayId,
        foreseen: Effect,
        observed: Effect,
        parts: &BTreeSet<ConfigPart>,
    ) -> Result<(), StoreError> {
        self.metrics.mispredicted(foreseen, observed);
        if !self.state().restarts.told.insert((gateway, foreseen, observed)) {
            return Ok(());
        }
        let parts: Vec<_> = parts.iter().map(|part| part.as_str()).collect();
        let parts = parts.join(", ");
        let message = match observed {
            Effect::Restart => format!(
                "a change of its config ({parts}) that was expected to be applied while it runs has restarted the gateway"
            ),
            _ => format!(
                "a change of its config ({parts}) that was expected to restart the gateway was applied while it runs"
            ),
        };
        tracing::warn!(%gateway, foreseen = foreseen.as_str(), observed = observed.as_str(), parts, "{message}");
        let event = Event {
            object: ObjectRef::Gateway(gateway),
            kind: EventKind::Warning,
            reason: "RestartPredictionMismatch".into(),
            message,
        };
        self.store.record_events(&self.fence, &[event]).await
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn minute(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    fn history(minutes: &[i64]) -> GatewayHistory {
        let restart = |at: &i64| CausedRestart {
            id: *at,
            at: minute(*at),
            foreseen: true,
            parts: BTreeSet::new(),
        };
        GatewayHistory {
            restarts: minutes.iter().map(restart).collect(),
            ..GatewayHistory::default()
        }
    }

    fn spent_at(minutes: &[i64], most: u32, now: i64) -> Option<Spent> {
        spent(&history(minutes), most, minute(now))
    }

    fn until(most: u32, at: i64) -> Spent {
        let until = Some(minute(at));
        Spent { until, most }
    }

    #[test]
    fn a_budget_has_room_again_an_hour_after_the_restart_that_was_one_too_many() {
        assert_eq!(spent_at(&[], 4, 0), None);
        assert_eq!(spent_at(&[0, 10, 20], 4, 30), None);
        assert_eq!(spent_at(&[0, 10, 20, 30], 4, 31), Some(until(4, 60)));
        assert_eq!(spent_at(&[0, 10, 20, 30], 4, 60), None, "the first counts no longer");
        assert_eq!(
            spent_at(&[0, 10, 20, 30, 40], 4, 41),
            Some(until(4, 70)),
            "more than allowed"
        );
        assert_eq!(spent_at(&[0], 1, 59), Some(until(1, 60)));
    }

    #[test]
    fn no_budget_at_all_never_has_room() {
        let never = Some(Spent { until: None, most: 0 });
        assert_eq!(spent_at(&[], 0, 0), never);
        assert_eq!(spent_at(&[0], 0, 90), never);
    }
}
