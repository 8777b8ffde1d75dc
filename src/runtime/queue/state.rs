//! The work queue as a state machine without waiting: everything happens at an instant that is passed in.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    time::Duration,
};

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::{
    Outcome, Priority, QueueKey,
    pick::{Place, ReadyLines},
};
use crate::runtime::{
    backoff::BackoffPolicy,
    metrics::{QueueLevels, QueueRecorder},
    rate_limit::Bucket,
};

/// The longest timer; keeps a nonsensical delay from overflowing an instant.
const LONGEST_DELAY: Duration = Duration::from_hours(365 * 24);

/// When a timer fires, and a ticket that makes it unique.
type Alarm = (Instant, u64);

/// What the queue knows about a key. A key about which nothing needs to be known has no entry.
struct Entry {
    /// Failures in a row, of the current generation.
    failures: u32,
    phase: Phase,
}

enum Phase {
    /// In `ready`.
    Ready(Place),
    /// In `delayed`: somebody asked for a run at a certain time.
    Delayed { alarm: Alarm, priority: Priority },
    /// In `retries`: the last run failed.
    Backoff {
        alarm: Alarm,
        priority: Priority,
        /// Whether somebody asked for a run meanwhile; only `forget` needs to know.
        hinted: bool,
    },
    /// Handed out.
    Running {
        since: Instant,
        priority: Priority,
        /// It was added meanwhile: with which priority, and since when.
        dirty: Option<(Priority, Instant)>,
        /// It was added meanwhile as a new generation: however this run ends, its failures do not count.
        fresh: bool,
        /// It was meanwhile asked for at a later time.
        again_at: Option<Instant>,
    },
}

pub(super) struct State<K> {
    /// Invariant: each entry's phase says in which one of the three collections below the key is, if in any.
    entries: HashMap<K, Entry>,
    ready: ReadyLines<K>,
    delayed: BTreeMap<Alarm, K>,
    retries: BTreeMap<Alarm, K>,
    /// No retry becomes ready before this instant: the bucket was found empty.
    retry_gate: Option<Instant>,
    next_ticket: u64,
    backoff: BackoffPolicy,
    bucket: Bucket,
    recorder: QueueRecorder,
    rng: StdRng,
}

impl<K: QueueKey> State<K> {
    pub(super) fn new(backoff: BackoffPolicy, bucket: Bucket, recorder: QueueRecorder, rng: StdRng) -> Self {
        Self {
            entries: HashMap::new(),
            ready: ReadyLines::new(),
            delayed: BTreeMap::new(),
            retries: BTreeMap::new(),
            retry_gate: None,
            next_ticket: 0,
            backoff,
            bucket,
            recorder,
            rng,
        }
    }

    pub(super) fn add(&mut self, key: K, priority: Priority, now: Instant) {
        match self.entries.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                let key = vacant.into_key();
                self.make_ready(key, 0, priority, now);
            }
            hash_map::Entry::Occupied(mut occupied) => match &mut occupied.get_mut().phase {
                Phase::Ready(place) => {
                    if priority == Priority::Change {
                        *place = self.ready.promote(*place);
                    }
                }
                Phase::Delayed { alarm, priority: asked } => {
                    let (alarm, priority) = (*alarm, priority.max(*asked));
                    let (key, entry) = occupied.remove_entry();
                    self.delayed.remove(&alarm);
                    self.make_ready(key, entry.failures, priority, now);
                }
                Phase::Backoff {
                    hinted,
                    priority: asked,
                    ..
                } => {
                    *hinted = true;
                    *asked = priority.max(*asked);
                }
                Phase::Running { dirty, .. } => {
                    *dirty = Some(match *dirty {
                        Some((already, since)) => (priority.max(already), since),
                        None => (priority, now),
                    });
                }
            },
        }
    }

    pub(super) fn add_fresh(&mut self, key: K, now: Instant) {
        match self.entries.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                let key = vacant.into_key();
                self.make_ready(key, 0, Priority::Change, now);
            }
            hash_map::Entry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                entry.failures = 0;
                match &mut entry.phase {
                    Phase::Ready(place) => *place = self.ready.promote(*place),
                    Phase::Delayed { alarm, .. } => {
                        let alarm = *alarm;
                        self.delayed.remove(&alarm);
                        let (key, _) = occupied.remove_entry();
                        self.make_ready(key, 0, Priority::Change, now);
                    }
                    Phase::Backoff { alarm, .. } => {
                        let alarm = *alarm;
                        self.retries.remove(&alarm);
                        let (key, _) = occupied.remove_entry();
                        self.make_ready(key, 0, Priority::Change, now);
                    }
                    Phase::Running { dirty, fresh, .. } => {
                        *fresh = true;
                        let since = dirty.map_or(now, |(_, since)| since);
                        *dirty = Some((Priority::Change, since));
                    }
                }
            }
        }
    }

    pub(super) fn add_after(&mut self, key: K, delay: Duration, now: Instant) {
        let at = now + delay.min(LONGEST_DELAY);
        match self.entries.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                let key = vacant.into_key();
                self.recorder.retried();
                self.delay(key, at, Priority::Change);
            }
            hash_map::Entry::Occupied(mut occupied) => match &mut occupied.get_mut().phase {
                Phase::Ready(_) => {}
                Phase::Delayed { alarm, .. } => {
                    if at < alarm.0 {
                        let alarm = *alarm;
                        self.delayed.remove(&alarm);
                        let (key, _) = occupied.remove_entry();
                        self.recorder.retried();
                        self.delay(key, at, Priority::Change);
                    }
                }
                Phase::Backoff { hinted, .. } => *hinted = true,
                Phase::Running { again_at, .. } => {
                    *again_at = Some(again_at.map_or(at, |already| already.min(at)));
                    self.recorder.retried();
                }
            },
        }
    }

    /// Hands out the key whose turn it is, with its failures so far.
    pub(super) fn take(&mut self, now: Instant) -> Option<(K, u32)> {
        self.wake_due(now);
        let (key, place) = self.ready.pop(now)?;
        self.recorder.taken(now.saturating_duration_since(place.since));
        let running = Phase::Running {
            since: now,
            priority: place.priority,
            dirty: None,
            fresh: false,
            again_at: None,
        };
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            failures: 0,
            phase: Phase::Ready(place),
        });
        entry.phase = running;
        Some((key, entry.failures))
    }

    /// Takes a key back that was handed out.
    pub(super) fn finish(&mut self, key: &K, outcome: Outcome, now: Instant) {
        let Some((key, entry)) = self.entries.remove_entry(key) else {
            return;
        };
        let Phase::Running {
            since,
            priority,
            dirty,
            fresh,
            again_at,
        } = entry.phase
        else {
            // Cannot happen: only a `Work` finishes, once, and its key is running until then.
            self.entries.insert(key, entry);
            return;
        };
        self.recorder.worked(now.saturating_duration_since(since));

        let again = match outcome {
            Outcome::Retry { at_least } if !fresh => {
                let failures = entry.failures.saturating_add(1);
                let delay = self
                    .backoff
                    .delay(failures, &mut self.rng)
                    .max(at_least.unwrap_or_default())
                    .min(LONGEST_DELAY);
                self.recorder.retried();
                let alarm = self.alarm(now + delay);
                self.retries.insert(alarm, key.clone());
                let phase = Phase::Backoff {
                    alarm,
                    priority: dirty.map_or(priority, |(asked, _)| asked.max(priority)),
                    hinted: dirty.is_some() || again_at.is_some(),
                };
                self.entries.insert(key, Entry { failures, phase });
                return;
            }
            Outcome::RequeueAfter(delay) => {
                self.recorder.retried();
                Some((now + delay.min(LONGEST_DELAY), priority))
            }
            Outcome::Done | Outcome::Retry { .. } => None,
        };
        // The run that a dirty key gets takes the place of every timer: whoever reconciles it decides anew.
        if let Some((priority, since)) = dirty {
            self.make_ready(key, 0, priority, since);
            return;
        }
        let asked = again_at.map(|at| (at, Priority::Change));
        if let Some((at, priority)) = [again, asked].into_iter().flatten().min_by_key(|(at, _)| *at) {
            self.delay(key, at, priority);
        }
    }

    pub(super) fn forget(&mut self, key: &K, now: Instant) {
        let Some((key, mut entry)) = self.entries.remove_entry(key) else {
            return;
        };
        entry.failures = 0;
        match &mut entry.phase {
            Phase::Ready(_) => {
                self.entries.insert(key, entry);
            }
            Phase::Delayed { alarm, .. } => {
                self.delayed.remove(alarm);
            }
            Phase::Backoff {
                alarm,
                priority,
                hinted,
            } => {
                self.retries.remove(alarm);
                // An `add` that the backoff swallowed must not be lost with it: the object may be back.
                if *hinted {
                    let priority = *priority;
                    self.make_ready(key, 0, priority, now);
                }
            }
            Phase::Running { again_at, .. } => {
                *again_at = None;
                self.entries.insert(key, entry);
            }
        }
    }

    pub(super) fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }

    pub(super) fn next_retry(&self, key: &K) -> Option<Instant> {
        match self.entries.get(key)?.phase {
            Phase::Backoff { alarm, .. } => Some(self.retry_gate.map_or(alarm.0, |gate| gate.max(alarm.0))),
            _ => None,
        }
    }

    /// Whether nothing is ready and nothing is timed.
    pub(super) fn is_idle(&self) -> bool {
        self.delayed.is_empty()
            && self.retries.is_empty()
            && self.ready.len(Priority::Change) == 0
            && self.ready.len(Priority::Resync) == 0
    }

    /// When the next key becomes ready by itself.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|(alarm, _)| alarm.0);
        let retry = self
            .retries
            .first_key_value()
            .map(|(alarm, _)| self.retry_gate.map_or(alarm.0, |gate| gate.max(alarm.0)));
        delayed.into_iter().chain(retry).min()
    }

    pub(super) fn levels(&mut self, now: Instant) -> QueueLevels {
        self.wake_due(now);
        let mut levels = QueueLevels {
            changes: self.ready.len(Priority::Change),
            resyncs: self.ready.len(Priority::Resync),
            ..QueueLevels::default()
        };
        for entry in self.entries.values() {
            if let Phase::Running { since, .. } = entry.phase {
                let age = now.saturating_duration_since(since);
                levels.unfinished += age;
                levels.longest_running = levels.longest_running.max(age);
            }
        }
        levels
    }

    /// Makes those keys ready whose time has come; retries only as fast as the bucket allows.
    fn wake_due(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let key = first.remove();
            self.wake(&key, now);
        }
        if self.retry_gate.is_some_and(|gate| now < gate) {
            return;
        }
        self.retry_gate = None;
        while let Some(first) = self.retries.first_entry() {
            if first.key().0 > now {
                break;
            }
            if let Err(gate) = self.bucket.take() {
                self.retry_gate = Some(gate);
                break;
            }
            let key = first.remove();
            self.wake(&key, now);
        }
    }

    fn wake(&mut self, key: &K, now: Instant) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            let (Phase::Delayed { priority, .. } | Phase::Backoff { priority, .. }) = entry.phase else {
                self.entries.insert(key, entry);
                return;
            };
            self.make_ready(key, entry.failures, priority, now);
        }
    }

    fn make_ready(&mut self, key: K, failures: u32, priority: Priority, since: Instant) {
        self.recorder.added();
        let place = self.ready.push(key.clone(), priority, since);
        let phase = Phase::Ready(place);
        self.entries.insert(key, Entry { failures, phase });
    }

    fn delay(&mut self, key: K, at: Instant, priority: Priority) {
        let alarm = self.alarm(at);
        self.delayed.insert(alarm, key.clone());
        let phase = Phase::Delayed { alarm, priority };
        self.entries.insert(key, Entry { failures: 0, phase });
    }

    fn alarm(&mut self, at: Instant) -> Alarm {
        self.next_ticket += 1;
        (at, self.next_ticket)
    }
}
