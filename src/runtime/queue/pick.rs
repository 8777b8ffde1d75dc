//! Who goes first among the keys that are ready.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::Priority;

/// How long a resync stands back for changes.
pub(super) const RESYNC_PATIENCE: Duration = Duration::from_secs(30);

/// How many changes still go before each resync whose patience is over: it gets every fourth turn.
const CHANGES_PER_AGED_RESYNC: u32 = 3;

/// A place among the ready keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: Priority,
    /// Since when the key is ready.
    pub(super) since: Instant,
    ticket: u64,
}

/// The ready keys, in two lines of first come, first served.
///
/// A resync at place n of its line waits for its patience and 4 n turns at most, however many changes arrive; and changes get
/// three turns of four however many resyncs wait.
pub(super) struct ReadyLines<K> {
    changes: BTreeMap<u64, (K, Instant)>,
    resyncs: BTreeMap<u64, (K, Instant)>,
    next_ticket: u64,
    changes_in_a_row: u32,
}

impl<K> ReadyLines<K> {
    pub(super) fn new() -> Self {
        Self {
            changes: BTreeMap::new(),
            resyncs: BTreeMap::new(),
            next_ticket: 0,
            changes_in_a_row: 0,
        }
    }

    /// How many keys are ready, by priority.
    pub(super) fn len(&self, priority: Priority) -> usize {
        match priority {
            Priority::Change => self.changes.len(),
            Priority::Resync => self.resyncs.len(),
        }
    }

    /// Puts a key at the end of its line.
    pub(super) fn push(&mut self, key: K, priority: Priority, since: Instant) -> Place {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.line(priority).insert(ticket, (key, since));
        Place {
            priority,
            since,
            ticket,
        }
    }

    /// Moves a key from the resyncs to the changes; it keeps the time since when it is ready.
    pub(super) fn promote(&mut self, place: Place) -> Place {
        match place.priority {
            Priority::Change => place,
            Priority::Resync => match self.resyncs.remove(&place.ticket) {
                Some((key, since)) => self.push(key, Priority::Change, since),
                None => place,
            },
        }
    }

    /// Takes the key whose turn it is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(K, Place)> {
        let aged = self
            .resyncs
            .first_key_value()
            .is_some_and(|(_, (_, since))| now.saturating_duration_since(*since) >= RESYNC_PATIENCE);
        let resync = self.changes.is_empty() || (aged && self.changes_in_a_row >= CHANGES_PER_AGED_RESYNC);
        let priority = if resync { Priority::Resync } else { Priority::Change };
        let (ticket, (key, since)) = self.line(priority).pop_first()?;
        self.changes_in_a_row = if resync {
            0
        } else {
            self.changes_in_a_row.saturating_add(1)
        };
        let place = Place {
            priority,
            since,
            ticket,
        };
        Some((key, place))
    }

    fn line(&mut self, priority: Priority) -> &mut BTreeMap<u64, (K, Instant)> {
        match priority {
            Priority::Change => &mut self.changes,
            Priority::Resync => &mut self.resyncs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lines: &mut ReadyLines<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| lines.pop(now).map(|(key, _)| key)).collect()
    }

    #[test]
    fn changes_go_before_resyncs_in_order_of_arrival() {
        let now = Instant::now();
        let mut lines = ReadyLines::new();
        for (key, priority) in [
            ("r1", Priority::Resync),
            ("c1", Priority::Change),
            ("r2", Priority::Resync),
            ("c2", Priority::Change),
        ] {
            lines.push(key, priority, now);
        }
        assert_eq!(order(&mut lines, now), ["c1", "c2", "r1", "r2"]);
    }

    #[test]
    fn a_resync_that_has_waited_long_gets_every_fourth_turn() {
        let now = Instant::now();
        let mut lines = ReadyLines::new();
        for key in ["r1", "r2"] {
            lines.push(key, Priority::Resync, now);
        }
        for key in ["c1", "c2", "c3", "c4", "c5", "c6", "c7"] {
            lines.push(key, Priority::Change, now);
        }
        let later = now + RESYNC_PATIENCE;
        assert_eq!(
            order(&mut lines, later),
            ["c1", "c2", "c3", "r1", "c4", "c5", "c6", "r2", "c7"]
        );
    }

    #[test]
    fn a_promoted_resync_goes_behind_the_changes_that_were_there() {
        let now = Instant::now();
        let mut lines = ReadyLines::new();
        lines.push("r1", Priority::Resync, now);
        let place = lines.push("r2", Priority::Resync, now);
        lines.push("c1", Priority::Change, now);
        let place = lines.promote(place);
        assert_eq!(place.priority, Priority::Change);
        assert_eq!(lines.promote(place), place, "promoting twice changes nothing");
        assert_eq!(order(&mut lines, now), ["c1", "r2", "r1"]);
    }
}
