//! The table of situations and decisions.

use std::cell::Cell;

use super::super::text::extract;
use super::*;

/// A token of minted form; `verify` below matches it with the hash `hash-<letter>`.
fn token(letter: char) -> String {
    format!("{letter}-{}", "x0Y_".repeat(10)) + "z"
}

fn fake_verify(token: &str, hash: &str) -> Result<bool, TokenError> {
    match hash.strip_prefix("hash-") {
        Some(letter) => Ok(token.starts_with(letter)),
        None => Err(TokenError::UnknownFormat),
    }
}

/// One situation; the default is an agent that never had anything.
#[derive(Clone, Copy, Default)]
pub(super) struct Situation {
    pub(super) current: Option<&'static str>,
    /// Hash and what it replaces.
    pub(super) candidates: &'static [(&'static str, Option<&'static str>)],
    /// Letter of the token and hash.
    pub(super) verified: Option<(char, &'static str)>,
    /// Letters of the tokens in the file; `None` if there is no file.
    pub(super) file: Option<&'static str>,
    /// Letter of the token and hash.
    pub(super) memory: Option<(char, &'static str)>,
    pub(super) unchanged_for: u64,
    pub(super) manual: bool,
    pub(super) rotation: Option<Rotation>,
    /// Letter of the token and hash.
    pub(super) minted: Option<(char, &'static str)>,
    /// Whether the candidates are for the rotation that is due.
    pub(super) answers: bool,
}

/// The decision in a few words, and the number of keys derived.
pub(super) fn decided(situation: Situation) -> (String, u32) {
    let candidates: Vec<Candidate> = situation
        .candidates
        .iter()
        .map(|(hash, replaces)| Candidate {
            hash: (*hash).to_owned(),
            replaces: replaces.map(str::to_owned),
            answers: situation.answers,
        })
        .collect();
    let print = situation
        .verified
        .map(|(letter, hash)| (fingerprint(&token(letter)), hash));
    let observed = situation.file.map(|letters| {
        let lines: Vec<String> = letters.chars().map(|c| format!("AUTH_TOKEN={}", token(c))).collect();
        extract(&lines.join("\n"))
    });
    let secret = |(letter, hash)| (SecretString::from(token(letter)), hash);
    let (memory, minted) = (situation.memory.map(secret), situation.minted.map(secret));
    let input = TokenInput {
        current_hash: situation.current,
        candidates: &candidates,
        verified: print
            .as_ref()
            .map(|(fingerprint, hash)| VerifiedPair { fingerprint, hash }),
        observed: observed.as_ref(),
        memory: memory.as_ref().map(|(token, hash)| MemoryToken { token, hash }),
        minted: minted.as_ref().map(|(token, hash)| MemoryToken { token, hash }),
        rotation: situation.rotation,
        unchanged_for: Duration::from_secs(situation.unchanged_for),
        repair_auto: !situation.manual,
    };
    let calls = Cell::new(0);
    let decision = decide(&input, |token, hash| {
        calls.set(calls.get() + 1);
        fake_verify(token, hash)
    });
    assert!(
        input.needs_verification() || calls.get() == 0,
        "derived a key without having announced it"
    );
    let debug = format!("{decision:?} {input:?}");
    assert!(!debug.contains("x0Y_"), "Debug output holds a token: {debug}");
    let letter = |token: &SecretString| token.expose_secret().chars().next().unwrap();
    let text = match decision {
        TokenDecision::Valid { token, newly_verified } => {
            format!("valid {}{}", letter(&token), if newly_verified { " anew" } else { "" })
        }
        TokenDecision::Promote {
            token,
            candidate_hash,
            replaces,
        } => format!(
            "promote {} {candidate_hash} over {}",
            letter(&token),
            replaces.unwrap_or_default()
        ),
        TokenDecision::Restore { token } => format!("restore {}", letter(&token)),
        TokenDecision::Resume { token, candidate_hash } => format!("resume {} {candidate_hash}", letter(&token)),
        TokenDecision::Mint { reason } => format!("mint {reason:?}"),
        TokenDecision::Wait { remaining, problem, .. } => format!("wait {} {problem:?}", remaining.as_secs()),
        TokenDecision::Invalid { problem, message } => {
            assert!(
                message.contains("new token") || message.contains("new one"),
                "says what to do next: {message}"
            );
            format!("invalid {problem:?}")
        }
    };
    (text, calls.get())
}

pub(super) fn check(situation: Situation, expected: &str) {
    assert_eq!(decided(situation).0, expected);
}

const NEW: Situation = Situation {
    current: None,
    candidates: &[],
    verified: None,
    file: None,
    memory: None,
    unchanged_for: 0,
    manual: false,
    rotation: None,
    minted: None,
    answers: false,
};
pub(super) const HASHED: Situation = Situation {
    current: Some("hash-a"),
    ..NEW
};

#[test]
fn an_agent_without_hash_gets_a_token_whatever_its_file_holds() {
    for current in [None, Some(""), Some("  ")] {
        for file in [None, Some(""), Some("a"), Some("ab")] {
            for manual in [false, true] {
                check(
                    Situation {
                        current,
                        file,
                        manual,
                        ..NEW
                    },
                    "mint NoHash",
                );
            }
        }
    }
}

#[test]
fn a_token_that_matches_the_hash_is_valid_even_among_others() {
    check(
        Situation {
            file: Some("a"),
            ..HASHED
        },
        "valid a anew",
    );
    check(
        Situation {
            file: Some("ba"),
            ..HASHED
        },
        "valid a anew",
    );
    check(
        Situation {
            file: Some("a"),
            manual: true,
            ..HASHED
        },
        "valid a anew",
    );
}

#[test]
fn a_known_pair_derives_no_key() {
    let verified = Some(('a', "hash-a"));
    assert_eq!(
        decided(Situation {
            file: Some("a"),
            verified,
            ..HASHED
        }),
        ("valid a".to_owned(), 0)
    );
    assert_eq!(
        decided(Situation {
            file: Some("ba"),
            verified,
            ..HASHED
        }),
        ("valid a".to_owned(), 0)
    );
    let memory = Some(('a', "hash-a"));
    assert_eq!(
        decided(Situation {
            file: Some("a"),
            memory,
            ..HASHED
        }),
        ("valid a".to_owned(), 0)
    );
    // A pair that was verified against another hash says nothing about this one.
    let verified = Some(('b', "hash-b"));
    assert_eq!(
        decided(Situation {
            file: Some("b"),
            verified,
            ..HASHED
        }),
        ("wait 60 Mismatch".to_owned(), 1)
    );
}

#[test]
fn a_mismatch_is_repaired_only_after_a_minute_without_change() {
    let mismatch = Situation {
        file: Some("b"),
        ..HASHED
    };
    check(mismatch, "wait 60 Mismatch");
    check(
        Situation {
            unchanged_for: 59,
            ..mismatch
        },
        "wait 1 Mismatch",
    );
    check(
        Situation {
            unchanged_for: 60,
            ..mismatch
        },
        "mint Mismatch",
    );
    check(
        Situation {
            unchanged_for: 600,
            manual: true,
            ..mismatch
        },
        "invalid Mismatch",
    );
}

#[test]
fn a_lost_token_is_put_back_from_memory_at_once_or_replaced_after_a_minute() {
    for file in [None, Some("")] {
        let lost = Situation { file, ..HASHED };
        let memory = Some(('a', "hash-a"));
        check(Situation { memory, ..lost }, "restore a");
        check(
            Situation {
                memory,
                manual: true,
                ..lost
            },
            "restore a",
        );
        check(lost, "wait 60 Unreadable");
        check(
            Situation {
                memory: Some(('b', "hash-b")),
                ..lost
            },
            "wait 60 Unreadable",
        );
        check(
            Situation {
                unchanged_for: 61,
                ..lost
            },
            "mint TokenLost",
        );
        check(
            Situation {
                unchanged_for: 61,
                manual: true,
                ..lost
            },
            "invalid Unreadable",
        );
    }
}

#[test]
fn a_token_that_was_replaced_in_the_file_is_put_back_after_a_minute() {
    let edited = Situation {
        file: Some("b"),
        memory: Some(('a', "hash-a")),
        ..HASHED
    };
    check(edited, "wait 60 Mismatch");
    check(
        Situation {
            unchanged_for: 60,
            ..edited
        },
        "restore a",
    );
}

#[test]
fn a_written_candidate_is_promoted_over_exactly_what_it_replaces() {
    let first = Situation {
        candidates: &[("hash-c", None)],
        file: Some("c"),
        ..NEW
    };
    check(first, "promote c hash-c over ");
    check(Situation { manual: true, ..first }, "promote c hash-c over ");
    let next = Situation {
        current: Some("hash-a"),
        candidates: &[("hash-d", Some("hash-a")), ("hash-c", Some("hash-a"))],
        ..first
    };
    check(next, "promote c hash-c over hash-a");
    let over_bad = Situation {
        current: Some("plain text"),
        candidates: &[("hash-c", Some("plain text"))],
        ..first
    };
    check(over_bad, "promote c hash-c over plain text");
}

#[test]
fn a_candidate_waits_if_somebody_else_has_set_another_hash_meanwhile() {
    let overtaken = Situation {
        current: Some("hash-b"),
        candidates: &[("hash-c", Some("hash-a"))],
        file: Some("c"),
        ..NEW
    };
    check(overtaken, "wait 60 Mismatch");
    check(
        Situation {
            unchanged_for: 60,
            ..overtaken
        },
        "promote c hash-c over hash-b",
    );
    check(
        Situation {
            unchanged_for: 60,
            manual: true,
            ..overtaken
        },
        "invalid Mismatch",
    );
    // The other program has finished: its token counts.
    check(
        Situation {
            file: Some("b"),
            ..overtaken
        },
        "valid b anew",
    );
}

#[test]
fn a_candidate_that_is_not_written_yet_is_resumed_from_memory() {
    let minted = Situation {
        candidates: &[("hash-c", None)],
        memory: Some(('c', "hash-c")),
        ..NEW
    };
    check(minted, "resume c hash-c");
    check(
        Situation {
            file: Some("b"),
            ..minted
        },
        "resume c hash-c",
    );
    check(
        Situation {
            file: Some("c"),
            ..minted
        },
        "promote c hash-c over ",
    );
    // After a crash nobody knows the candidate's token any more.
    check(Situation { memory: None, ..minted }, "mint NoHash");
}

#[test]
fn a_hash_that_cannot_be_used_is_left_to_a_person() {
    let bad = Situation {
        current: Some("md5$x"),
        file: Some("a"),
        unchanged_for: 600,
        ..NEW
    };
    check(bad, "invalid BadHash");
    assert_eq!(decided(bad).1, 1, "one attempt per decision");
}

#[test]
fn the_number_of_keys_derived_is_bounded() {
    let many = Situation {
        candidates: &[("hash-w", None), ("hash-z", None)],
        file: Some("bcdefghijklmnopqrstuv"),
        ..HASHED
    };
    assert_eq!(decided(many).1, 12);
}

#[test]
fn a_hash_that_cannot_be_used_is_not_replaced_by_a_candidate_that_was_not_made_for_it() {
    let bad = Situation {
        current: Some("md5$abc"),
        candidates: &[("hash-a", None)],
        file: Some("a"),
        memory: Some(('a', "hash-a")),
        unchanged_for: 3600,
        ..Situation::default()
    };
    check(bad, "invalid BadHash");
    let asked = Situation {
        rotation: Some(Rotation::Requested),
        ..bad
    };
    check(asked, "mint Requested");
    let begun = Situation {
        candidates: &[("hash-a", None), ("hash-b", Some("md5$abc"))],
        file: Some("b"),
        answers: true,
        ..asked
    };
    check(begun, "promote b hash-b over md5$abc");
}
