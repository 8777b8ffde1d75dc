//! How many objects have which condition.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus::{IntGaugeVec, Registry};

use super::{ours, registered};
use crate::model::{ConditionStatus, ConditionType, Conditions};

const STATUSES: [ConditionStatus; 3] = [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown];

/// A gauge of objects of one kind, by condition and status.
///
/// It remembers what each object last counted as, so that whoever reconciles an object only has to say what that object looks
/// like now.
#[derive(Debug)]
pub struct ConditionGauges<K> {
    gauge: IntGaugeVec,
    known: Mutex<HashMap<K, Vec<(ConditionType, ConditionStatus)>>>,
}

impl<K: Eq + Hash> ConditionGauges<K> {
    pub(super) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        conditions: &[ConditionType],
    ) -> prometheus::Result<Self> {
        let gauge = registered(registry, IntGaugeVec::new(ours(name, help), &["condition", "status"])?)?;
        for condition in conditions {
            for status in STATUSES {
                gauge.with_label_values(&[&condition.to_string(), &status.to_string()]);
            }
        }
        Ok(Self {
            gauge,
            known: Mutex::default(),
        })
    }

    /// Counts an object as having these conditions, instead of those it had before.
    pub fn record(&self, object: K, conditions: &Conditions) {
        let now: Vec<_> = conditions.iter().map(|c| (c.kind, c.status)).collect();
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

    fn add(&self, conditions: &[(ConditionType, ConditionStatus)], by: i64) {
        for (condition, status) in conditions {
            self.gauge
                .with_label_values(&[&condition.to_string(), &status.to_string()])
                .add(by);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Vec<(ConditionType, ConditionStatus)>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn an_object_counts_once_whatever_becomes_of_it() {
        let gauges = ConditionGauges::register(&Registry::new(), "agents", "…", &[ConditionType::Ready]).unwrap();
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
    }
}
