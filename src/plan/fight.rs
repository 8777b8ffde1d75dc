//! Fields that somebody else undoes: what is put right again, and what is left for an hour.

use chrono::{DateTime, Utc};

use crate::model::{ObjectRef, Undoing};

/// A field that is not as desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The object that it belongs to.
    pub object: ObjectRef,
    /// A path in the gateway's config, or the name of a file.
    pub field: String,
    /// The object's generation.
    pub generation: i64,
    /// Whether it was as desired before, and nothing else was asked for since: somebody has changed it.
    pub undone: bool,
}

/// What follows for fields that are not as desired. Those that are not held are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What is to be remembered of them before anything is written.
    pub record: Vec<Undoing>,
    /// Those that are left as they are until their next try.
    pub held: Vec<Undoing>,
}

/// Decides on fields that are not as desired. `known`: what is remembered of fields that were undone before.
pub fn judge(differing: &[Differing], known: &[Undoing], now: DateTime<Utc>) -> Judgement {
    let mut judgement = Judgement::default();
    for field in differing {
        let before = known.iter().find(|undoing| {
            (undoing.object, undoing.generation) == (field.object, field.generation) && undoing.field == field.field
        });
        let undoing = match before {
            Some(fight) if fight.is_fight() && now < fight.next_try() => {
                judgement.held.push(fight.clone());
                continue;
            }
            Some(fight) if fight.is_fight() => Undoing {
                tried_at: now,
                ..fight.clone()
            },
            _ if !field.undone => continue,
            before => Undoing {
                object: field.object,
                field: field.field.clone(),
                generation: field.generation,
                times: before
                    .iter()
                    .flat_map(|before| &before.times)
                    .copied()
                    .filter(|time| *time > now - Undoing::SPAN)
                    .chain([now])
                    .collect(),
                tried_at: now,
            },
        };
        let tried = before.is_some_and(Undoing::is_fight);
        if undoing.is_fight() && !tried {
            judgement.held.push(undoing.clone());
        }
        judgement.record.push(undoing);
    }
    judgement
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;
    use crate::model::GatewayId;

    const GATEWAY: ObjectRef = ObjectRef::Gateway(GatewayId(Uuid::from_u128(1)));

    fn minute(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    fn field(generation: i64, undone: bool) -> Differing {
        Differing {
            object: GATEWAY,
            field: "tools.exec.host".into(),
            generation,
            undone,
        }
    }

    /// What becomes of a field that is undone at these minutes: whether it is held each time.
    fn story(minutes: &[i64]) -> (Vec<bool>, Vec<Undoing>) {
        let mut known: Vec<Undoing> = Vec::new();
        let held = minutes
            .iter()
            .map(|at| {
                let judgement = judge(&[field(1, true)], &known, minute(*at));
                if !judgement.record.is_empty() {
                    known = judgement.record;
                }
                !judgement.held.is_empty()
            })
            .collect();
        (held, known)
    }

    #[test]
    fn three_times_within_an_hour_are_a_fight_and_less_are_not() {
        assert_eq!(story(&[0, 10]).0, [false, false]);
        assert_eq!(story(&[0, 10, 20]).0, [false, false, true]);
        assert_eq!(
            story(&[0, 59, 61, 118]).0,
            [false, false, false, true],
            "0 counts no longer"
        );
        assert_eq!(story(&[0, 31, 62, 93, 124]).0, [false; 5], "never three within an hour");
    }

    #[test]
    fn a_fight_is_tried_once_an_hour() {
        let (held, known) = story(&[0, 10, 20, 50, 79, 80, 90, 139, 140, 141]);
        assert_eq!(held, [false, false, true, true, true, false, true, true, false, true]);
        assert_eq!(known[0].tried_at, minute(140));
        assert_eq!(
            known[0].times,
            [minute(0), minute(10), minute(20)],
            "since when it is one"
        );
    }

    #[test]
    fn another_generation_starts_anew() {
        let (_, known) = story(&[0, 10, 20]);
        let judgement = judge(&[field(2, true)], &known, minute(25));
        assert_eq!(judgement.held, []);
        assert_eq!(judgement.record[0].times, [minute(25)]);
        assert_eq!(judgement.record[0].generation, 2);
    }

    #[test]
    fn what_was_not_put_right_since_is_not_undone_once_more() {
        let (_, known) = story(&[0, 10]);
        let judgement = judge(&[field(1, false)], &known, minute(11));
        assert_eq!(judgement, Judgement::default());
        assert_eq!(judge(&[field(1, false)], &[], minute(11)), Judgement::default());
    }
}
