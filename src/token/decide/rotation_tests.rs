//! The same table where a rotation is due.

use super::tests::{HASHED, Situation, check, decided};
use super::*;

/// A valid token, and a rotation that somebody asked for.
const DUE: Situation = Situation {
    file: Some("a"),
    verified: Some(('a', "hash-a")),
    rotation: Some(Rotation::Requested),
    ..HASHED
};

/// The same, and a candidate that was made for it.
const BEGUN: Situation = Situation {
    candidates: &[("hash-c", Some("hash-a"))],
    answers: true,
    ..DUE
};

#[test]
fn a_valid_token_is_replaced_when_asked_and_when_it_comes_of_age() {
    for manual in [false, true] {
        check(Situation { manual, ..DUE }, "mint Requested");
        let rotation = Some(Rotation::Age);
        check(
            Situation {
                manual,
                rotation,
                ..DUE
            },
            "mint Age",
        );
    }
    assert_eq!(decided(DUE).1, 0, "a known pair derives no key");
}

#[test]
fn a_token_that_was_never_remembered_is_remembered_before_it_is_replaced() {
    let found = Situation { verified: None, ..DUE };
    check(found, "valid a anew");
}

#[test]
fn a_rotation_that_was_begun_goes_on_with_the_same_token_as_long_as_memory_has_it() {
    let minted = Some(('c', "hash-c"));
    check(Situation { minted, ..BEGUN }, "resume c hash-c");
    // What this process remembers of the token that is valid changes nothing about that.
    let memory = Some(('a', "hash-a"));
    check(
        Situation {
            memory,
            minted,
            ..BEGUN
        },
        "resume c hash-c",
    );
    // After a crash nobody knows it any more.
    check(BEGUN, "mint Requested");
    // It was made for another request, or for a hash that is no longer the row's.
    check(
        Situation {
            minted,
            answers: false,
            ..BEGUN
        },
        "mint Requested",
    );
    let candidates = &[("hash-c", Some("hash-b"))];
    check(
        Situation {
            candidates,
            minted,
            ..BEGUN
        },
        "mint Requested",
    );
}

#[test]
fn a_candidate_that_was_written_is_promoted_before_anything_else_is_made() {
    for answers in [false, true] {
        let file = Some("c");
        check(Situation { file, answers, ..BEGUN }, "promote c hash-c over hash-a");
    }
}

#[test]
fn a_rotation_needs_no_valid_old_token() {
    for manual in [false, true] {
        // Nobody else writes: any long time will do.
        let due = Situation {
            manual,
            unchanged_for: 600,
            ..DUE
        };
        for file in [None, Some(""), Some("b")] {
            check(Situation { file, ..due }, "mint Requested");
        }
        check(
            Situation {
                current: Some("md5$x"),
                ..due
            },
            "mint Requested",
        );
        check(Situation { current: None, ..due }, "mint Requested");
        // Restored it would only be replaced.
        let memory = Some(('a', "hash-a"));
        check(
            Situation {
                file: None,
                memory,
                ..due
            },
            "mint Requested",
        );
        let overtaken = Situation {
            current: Some("hash-b"),
            file: Some("c"),
            candidates: &[("hash-c", Some("hash-a"))],
            ..due
        };
        check(overtaken, "mint Requested");
        check(
            Situation {
                answers: true,
                ..overtaken
            },
            "promote c hash-c over hash-b",
        );
    }
}

#[test]
fn a_rotation_waits_for_another_program_that_may_be_in_the_middle_of_its_own() {
    let half = Situation { file: Some("b"), ..DUE };
    check(half, "wait 60 Mismatch");
    check(
        Situation {
            unchanged_for: 59,
            ..half
        },
        "wait 1 Mismatch",
    );
    check(
        Situation {
            unchanged_for: 60,
            ..half
        },
        "mint Requested",
    );
    check(Situation { file: None, ..half }, "wait 60 Unreadable");
    // An agent without a hash is nobody's.
    check(Situation { current: None, ..half }, "mint Requested");
}
