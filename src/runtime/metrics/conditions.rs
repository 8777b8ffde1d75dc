//! How many objects have which condition.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus::{IntGaugeVec, Registry};

use super::{ours, registered};
use crate::model::{ConditionStatus, ConditionType, Conditions};

/// How many objects are held back, by the kind of object and the reason.
#[derive(Clone, Debug)]
pub(super) struct HeldBack(IntGaugeVec);

impl HeldBack {
    /// Builds and registers it, at zero for these kinds and reasons; no other reason is counted.
    pub(super) fn register(
        registry: &Registry,
        counted: &[(&'static str, &[&'static str])],
    ) -> prometheus::Result<Self> {
        let help = "Gateways and agents of which something is left as it is on purpose, by reason";
        let gauge = registered(
            registry,
            IntGaugeVec::new(ours("held_back", help), &["object", "reason"])?,
        )?;
        for (object, reasons) in counted {
            for reason in *reasons {
                gauge.with_label_values(&[*object, *reason]);
            }
        }
        Ok(Self(gauge))
    }
}

/// What one object last counted as.
#[derive(Debug)]
struct Counted {
    conditions: Vec<(ConditionType, ConditionStatus)>,
    /// Each once, however many conditions have it.
    reasons: BTreeSet<&'static str>,
}

const STATUSES: [ConditionStatus; 3] = [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown];

/// A gauge of objects of one kind, by condition and status.
///
/// It remembers what each object last counted as, so that whoever reconciles an object only has to say what that object looks
/// like now.
#[derive(Debug)]
pub struct ConditionGauges<K> {
    gauge: IntGaugeVec,
    held_back: HeldBack,
    /// The label of these objects among those that are held back.
    object: &'static str,
    /// The reasons by which they are.
    reasons: &'static [&'static str],
    known: Mutex<HashMap<K, Counted>>,
}

impl<K: Eq + Hash> ConditionGauges<K> {
    pub(super) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        conditions: &[ConditionType],
        (held_back, (object, reasons)): (&HeldBack, (&'static str, &'static [&'static str])),
    ) -> prometheus::Result<Self> {
        let gauge = registered(registry, IntGaugeVec::new(ours(name, help), &["condition", "status"])?)?;
        for condition in conditions {
            for status in STATUSES {
                gauge.with_label_values(&[&condition.to_string(), &status.to_string()]);
            }
        }
        Ok(Self {
            gauge,
            held_back: held_back.clone(),
            object,
            reasons,
            known: Mutex::default(),
        })
    }

    /// Counts an object as having these conditions, instead of those it had before.
    pub fn record(&self, object: K, conditions: &Conditions) {
        let reason_of = |held: &str| {
            let mut conditions = conditions.iter().filter(|c| c.status == ConditionStatus::False);
            conditions.any(|c| c.reason == held)
        };
        let now = Counted {
            conditions: conditions.iter().map(|c| (c.kind, c.status)).collect(),
            reasons: self.reasons.iter().copied().filter(|held| reason_of(held)).collect(),
        };
        let mut known = self.lock();
        self.add(&now, 1);
        if let Some(before) = known.insert(object, now) {
            self.add(&before, -1);
        }
    }

    /// Stops counting an object.
    pub fn forget(&self, object: &K) {
        if let Some(before) = self.lock().remove(object) {
            self.add(&before, -1);
        }
    }

    /// Stops counting everything, for example because this replica is no longer the one that reconciles.
    pub fn clear(&self) {
        for (_, before) in self.lock().drain() {
            self.add(&before, -1);
        }
    }

    fn add(&self, counted: &Counted, by: i64) {
        for reason in &counted.reasons {
            self.held_back.0.with_label_values(&[self.object, *reason]).add(by);
        }
        for (condition, status) in &counted.conditions {
            self.gauge
                .with_label_values(&[&condition.to_string(), &status.to_string()])
                .add(by);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Counted>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn an_object_counts_once_whatever_becomes_of_it() {
        let registry = Registry::new();
        let held = ("agent", ["Fight"].as_slice());
        let held_back = HeldBack::register(&registry, &[held]).unwrap();
        let gauges =
            ConditionGauges::register(&registry, "agents", "…", &[ConditionType::Ready], (&held_back, held)).unwrap();
        let counts =
            || ["True", "False", "Unknown"].map(|status| gauges.gauge.with_label_values(&["Ready", status]).get());
        let ready = |status| {
            let mut conditions = Conditions::default();
            conditions.set(ConditionType::Ready, status, "R", "m", 1, DateTime::UNIX_EPOCH);
            conditions
        };
        assert_eq!(counts(), [0, 0, 0]);
        gauges.record(1, &ready(ConditionStatus::False));
        gauges.record(2, &ready(ConditionStatus::False));
        assert_eq!(counts(), [0, 2, 0]);
        gauges.record(1, &ready(ConditionStatus::True));
        gauges.record(1, &ready(ConditionStatus::True));
        assert_eq!(counts(), [1, 1, 0]);
        gauges.forget(&2);
        gauges.forget(&2);
        assert_eq!(counts(), [1, 0, 0]);
        gauges.clear();
        assert_eq!(counts(), [0, 0, 0]);

        // What is held back counts once, for whatever number of its conditions, and only while they do not hold.
        let fought = || held_back.0.with_label_values(&["agent", "Fight"]).get();
        let both = |status| {
            let mut conditions = Conditions::default();
            for kind in [ConditionType::FilesSynced, ConditionType::Ready] {
                conditions.set(kind, status, "Fight", "m", 1, DateTime::UNIX_EPOCH);
            }
            conditions
        };
        gauges.record(1, &both(ConditionStatus::False));
        gauges.record(2, &both(ConditionStatus::Unknown));
        gauges.record(3, &ready(ConditionStatus::False));
        assert_eq!(fought(), 1);
        gauges.record(1, &ready(ConditionStatus::False));
        assert_eq!(fought(), 0);
    }
}
