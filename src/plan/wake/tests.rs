use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_000_000 + second, 0).unwrap()
}

/// Sent at 100, to be answered by 130, for the digest "a".
fn outstanding(attempts: i32) -> WakeRecord {
    WakeRecord {
        woken_for: Some("a".into()),
        counter: 7,
        attempts,
        first: true,
        sent_at: Some(at(100)),
        deadline: Some(at(130)),
        ..WakeRecord::default()
    }
}

fn settled() -> WakeRecord {
    outstanding(1).checked_in()
}

fn given_up() -> WakeRecord {
    outstanding(3).given_up()
}

fn wake(attempt: i32, first: bool, digest: &str, asked: Option<DateTime<Utc>>) -> WakeDecision {
    WakeDecision::Begin(Wake {
        attempt,
        reset: attempt > 1,
        first,
        digest: digest.into(),
        asked,
    })
}

/// One case: what is known and what is so, by default an agent of ours, with the digest "a", at 110.
struct Case {
    record: WakeRecord,
    seen: Option<i64>,
    woken: Option<i64>,
    digest: &'static str,
    requested: Option<i64>,
    ours: bool,
    begun_elsewhere: bool,
    now: i64,
    hold: Option<i64>,
    changed_at: Option<i64>,
}

impl Case {
    fn of(record: WakeRecord) -> Self {
        let woken = record.sent_at.map(|at| at.timestamp() - 1_770_000_000);
        Self {
            record,
            seen: None,
            woken,
            digest: "a",
            requested: None,
            ours: true,
            begun_elsewhere: false,
            now: 110,
            hold: None,
            changed_at: None,
        }
    }

    fn decide(&self) -> WakeDecision {
        let state = WakeState {
            record: self.record.clone(),
            last_seen_at: self.seen.map(at),
            last_wake_sent_at: self.woken.map(at),
        };
        decide_wake(&WakeInput {
            state: &state,
            digest: self.digest,
            requested: self.requested.map(at),
            ours: self.ours,
            begun_elsewhere: self.begun_elsewhere,
            now: at(self.now),
            hold_until: self.hold.map(at),
            changed_at: self.changed_at.map(at),
        })
    }
}

macro_rules! case {
    ($record:expr $(, $field:ident: $value:expr)*) => {
        Case { $($field: $value,)* ..Case::of($record) }.decide()
    };
}

#[test]
fn an_agent_is_woken_at_its_first_provisioning_by_us_and_only_then() {
    let none = WakeRecord::default;
    assert_eq!(case!(none()), wake(1, true, "a", None));
    let found = none().settled("a", None, Some(at(50)));
    assert_eq!(
        case!(none(), ours: false, woken: Some(50)),
        WakeDecision::Baseline(found.clone())
    );
    assert_eq!(
        case!(found.clone(), ours: false, woken: Some(50)),
        WakeDecision::Nothing
    );
    assert_eq!(case!(found.clone(), woken: Some(50)), WakeDecision::Nothing, "drift");
    // Its row changes later.
    assert_eq!(
        case!(found, ours: false, woken: Some(50), digest: "b"),
        wake(1, false, "b", None)
    );
}

#[test]
fn a_change_of_its_row_or_a_request_wakes_whatever_came_before() {
    for record in [settled(), outstanding(2), given_up()] {
        for seen in [None, Some(90), Some(105)] {
            assert_eq!(
                case!(record.clone(), digest: "b", seen: seen),
                wake(1, false, "b", None)
            );
            assert_eq!(
                case!(record.clone(), requested: Some(95), seen: seen),
                wake(1, false, "a", Some(at(95)))
            );
        }
        let answered = WakeRecord {
            asked: Some(at(95)),
            ..settled()
        };
        assert_eq!(case!(answered.clone(), requested: Some(95)), WakeDecision::Nothing);
        assert_eq!(
            case!(answered.clone(), requested: Some(40)),
            wake(1, false, "a", Some(at(40))),
            "another time, even an earlier one"
        );
        assert_eq!(
            case!(answered.clone()),
            WakeDecision::Nothing,
            "the request was taken back"
        );
        assert_eq!(case!(answered, digest: "b"), wake(1, false, "b", Some(at(95))));
    }
    // Also of an agent that was found.
    assert_eq!(
        case!(WakeRecord::default(), ours: false, requested: Some(95)),
        wake(1, false, "a", Some(at(95)))
    );
}

#[test]
fn a_check_in_at_or_after_the_wake_ends_it_in_time_or_late() {
    for record in [outstanding(1), outstanding(3), given_up()] {
        for now in [110, 130, 9000] {
            for seen in [100, 120, 8000] {
                assert_eq!(
                    case!(record.clone(), seen: Some(seen), now: now),
                    WakeDecision::CheckedIn
                );
            }
        }
    }
    assert_eq!(case!(settled(), seen: Some(120)), WakeDecision::Nothing);
    assert_eq!(
        case!(outstanding(1), seen: Some(99)),
        WakeDecision::Wait { until: at(130) },
        "that was before"
    );
}

#[test]
fn without_a_check_in_there_are_three_wakes_in_all_and_then_silence() {
    for seen in [None, Some(99)] {
        for attempts in 1..=3 {
            assert_eq!(
                case!(outstanding(attempts), seen: seen, now: 129),
                WakeDecision::Wait { until: at(130) }
            );
        }
        for now in [130, 9000] {
            assert_eq!(case!(outstanding(1), seen: seen, now: now), wake(2, true, "a", None));
            assert_eq!(case!(outstanding(2), seen: seen, now: now), wake(3, true, "a", None));
            assert_eq!(case!(outstanding(3), seen: seen, now: now), WakeDecision::GiveUp);
            assert_eq!(case!(given_up(), seen: seen, now: now), WakeDecision::Nothing);
        }
    }
    let asked = WakeRecord {
        asked: Some(at(95)),
        first: false,
        ..outstanding(1)
    };
    assert_eq!(
        case!(asked, requested: Some(95), now: 130),
        wake(2, false, "a", Some(at(95)))
    );
}

#[test]
fn another_programs_wake_counts_for_what_had_changed_before_it() {
    let adopted = |record: WakeRecord, digest: &str, asked: Option<i64>| {
        WakeDecision::Adopt(record.settled(digest, asked.map(at), Some(at(105))))
    };
    for record in [settled(), outstanding(1), given_up(), WakeRecord::default()] {
        assert_eq!(
            case!(record.clone(), digest: "b", woken: Some(105)),
            adopted(record.clone(), "b", None)
        );
        assert_eq!(
            case!(record.clone(), woken: Some(105), requested: Some(105)),
            adopted(record.clone(), "a", Some(105))
        );
        assert_eq!(
            case!(record.clone(), woken: Some(105), requested: Some(106)),
            wake(1, record.woken_for.is_none(), "a", Some(at(106))),
            "that was before the request"
        );
    }
    // Without a change it takes our wake's place, whose deadline is then its business.
    assert_eq!(
        case!(outstanding(1), woken: Some(105), now: 200),
        adopted(outstanding(1), "a", None)
    );
    assert_eq!(case!(settled(), woken: Some(105)), WakeDecision::Nothing);
    assert_eq!(case!(given_up(), woken: Some(105)), WakeDecision::Nothing);
    // One that counted does not count again.
    let after = settled().settled("a", None, Some(at(105)));
    assert!(after.is_foreign());
    assert_eq!(
        case!(after, digest: "b", woken: Some(105), now: 200),
        wake(1, false, "b", None)
    );
    // Ours, as it stands in the row, or one that somebody erased.
    assert_eq!(
        case!(settled(), digest: "b", woken: Some(100)),
        wake(1, false, "b", None)
    );
    assert_eq!(case!(settled(), digest: "b", woken: None), wake(1, false, "b", None));
}

#[test]
fn another_programs_wake_from_long_before_a_change_does_not_tell_of_it() {
    for record in [settled(), outstanding(1), given_up()] {
        let of = |changed_at: i64| case!(record.clone(), digest: "b", woken: Some(105), changed_at: Some(changed_at), now: 500);
        let adopted = WakeDecision::Adopt(record.settled("b", None, Some(at(105))));
        assert_eq!(of(100), adopted);
        assert_eq!(of(165), adopted, "the clocks may differ");
        assert_eq!(of(166), wake(1, false, "b", None));
    }
}

#[test]
fn where_another_program_wakes_too_a_change_waits_for_it() {
    let until = at(115);
    for record in [settled(), outstanding(1), given_up(), WakeRecord::default()] {
        assert_eq!(
            case!(record.clone(), digest: "b", hold: Some(115)),
            WakeDecision::Postpone { until }
        );
        assert_eq!(
            case!(record.clone(), digest: "b", hold: Some(115), now: 115),
            wake(1, record.woken_for.is_none(), "b", None)
        );
    }
    assert_eq!(
        case!(settled(), requested: Some(95), hold: Some(115)),
        wake(1, false, "a", Some(at(95))),
        "who asks us asks us"
    );
    assert_eq!(
        case!(outstanding(1), hold: Some(200), now: 130),
        wake(2, true, "a", None),
        "a deadline is ours"
    );
}

#[test]
fn transitions_keep_the_counter_growing_and_what_was_asked() {
    let first = WakeRecord::default().begun(
        &Wake {
            attempt: 1,
            reset: false,
            first: true,
            digest: "a".into(),
            asked: Some(at(1)),
        },
        at(100),
        check_in_deadline(at(100)),
    );
    assert_eq!(first.deadline, Some(at(130)));
    assert!(first.awaits_check_in() && first.is_answered_by(Some(at(100))) && !first.is_answered_by(Some(at(99))));
    for after in [first.checked_in(), first.given_up(), first.settled("b", None, None)] {
        assert_eq!((after.counter, after.deadline, after.sent_at), (1, None, Some(at(100))));
    }
    assert!(first.given_up().awaits_check_in());
    assert!(!first.given_up().checked_in().awaits_check_in());
    assert_eq!(first.checked_in().asked, Some(at(1)));
}

#[test]
fn an_agent_that_another_program_began_and_never_woke_is_woken_and_one_that_it_woke_is_not() {
    let found = || Case {
        ours: false,
        begun_elsewhere: true,
        ..Case::of(WakeRecord::default())
    };
    assert_eq!(found().decide(), wake(1, true, "a", None));
    // It may still be at it.
    let busy = Case {
        hold: Some(115),
        ..found()
    };
    assert_eq!(busy.decide(), WakeDecision::Postpone { until: at(115) });
    for (woken, seen) in [(Some(100), None), (None, Some(100))] {
        let known = Case { seen, woken, ..found() };
        assert!(
            matches!(known.decide(), WakeDecision::Baseline(_)),
            "{woken:?} {seen:?}"
        );
    }
}
