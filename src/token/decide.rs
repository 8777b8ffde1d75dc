//! The rules by which a token becomes, stays and stops being valid: one pure decision at a time.
//!
//! A new token reaches an agent in two phases: its hash is stored as a candidate, the file is written and read back, and
//! only then is the hash promoted to be the row's. A crash at any point leaves a file whose token verifies against the
//! row's hash or against a candidate, and the next decision carries on from there.
//!
//! Another program may write the same hash and the same file, the hash first. What looks wrong may therefore be half of
//! its work; it is judged only once nothing has changed for [`STABLE_FOR`].

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::hash::{TokenError, fingerprint, is_minted_form};
use super::text::Extracted;

/// How long hash and file must both have been unchanged before a mismatch is repaired.
pub const STABLE_FOR: Duration = Duration::from_secs(60);

/// More different tokens than this in one file are not looked at: each may cost a key derivation per hash.
const MAX_TOKENS: usize = 4;

/// A pair that verified before, as it is remembered in the database: no key needs to be derived for it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedPair<'a> {
    /// [`fingerprint`] of the token.
    pub fingerprint: &'a str,
    /// The stored hash that it verified against.
    pub hash: &'a str,
}

/// A token that this process still knows, and the hash that it is known to verify against.
#[derive(Clone, Copy, Debug)]
pub struct MemoryToken<'a> {
    /// The token.
    pub token: &'a SecretString,
    /// The hash: the row's, or a candidate's.
    pub hash: &'a str,
}

/// The hash of a token that was minted but not yet promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The hash.
    pub hash: String,
    /// The row's hash when the token was minted: promotion replaces exactly this.
    pub replaces: Option<String>,
}

/// All that a decision depends on.
#[derive(Clone, Debug)]
pub struct TokenInput<'a> {
    /// `agents.agent_token_hash`. Blank counts as absent.
    pub current_hash: Option<&'a str>,
    /// Our candidates, newest first.
    pub candidates: &'a [Candidate],
    /// The pair that verified last.
    pub verified: Option<VerifiedPair<'a>>,
    /// What the file holds that has the token on this gateway; `None` if there is no such file.
    pub observed: Option<&'a Extracted>,
    /// A token that this process still knows.
    pub memory: Option<MemoryToken<'a>>,
    /// For how long hash and file have both been unchanged. Where nobody else writes, any long time will do.
    pub unchanged_for: Duration,
    /// Whether a token that is lost or does not match is replaced without being asked.
    pub repair_auto: bool,
}

/// Why a new token is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintReason {
    /// The row has no hash, and no token of ours is on its way: the agent never had a token that counts.
    NoHash,
    /// The row has a hash, but the token is gone from the file and from memory.
    TokenLost,
    /// The file's token does not match the row's hash.
    Mismatch,
}

impl fmt::Display for MintReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHash => "the agent has no token yet",
            Self::TokenLost => "the agent's token is gone from its file",
            Self::Mismatch => "the token in the agent's file does not match the stored hash",
        })
    }
}

/// What is wrong with an agent's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenProblem {
    /// There is a hash but no readable token.
    Unreadable,
    /// The token does not match the hash.
    Mismatch,
    /// The hash cannot be used to verify anything.
    BadHash,
}

impl TokenProblem {
    /// The reason for a condition: a CamelCase word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unreadable => "TokenUnreadable",
            Self::Mismatch => "TokenMismatch",
            Self::BadHash => "UnusableTokenHash",
        }
    }
}

/// What to do about an agent's token.
#[derive(Clone, Debug)]
pub enum TokenDecision {
    /// The file's token verifies against the row's hash. Files are compared and written with it.
    Valid {
        /// The token.
        token: SecretString,
        /// Whether the pair was verified anew, and should be remembered if the token is of minted form.
        newly_verified: bool,
    },
    /// The file's token verifies against a candidate: make that hash the row's, provided that the row's hash is still
    /// the one given here. Until then files are compared and written with this token.
    Promote {
        /// The token.
        token: SecretString,
        /// The candidate's hash.
        candidate_hash: String,
        /// What the row's hash must still be.
        replaces: Option<String>,
    },
    /// The file lost its token, but memory has one that verifies against the row's hash: write the file with it.
    Restore {
        /// The token.
        token: SecretString,
    },
    /// A candidate's token is not in the file yet, but memory has it: write the file with it, read back, promote.
    Resume {
        /// The token.
        token: SecretString,
        /// The candidate's hash.
        candidate_hash: String,
    },
    /// Mint a token, store its hash as a candidate, write the file with it, read back, promote.
    Mint {
        /// Why.
        reason: MintReason,
    },
    /// Something looks wrong, but another program may be about to put it right: decide again later, and leave the file
    /// alone until then.
    Wait {
        /// When to decide again.
        remaining: Duration,
        /// What looks wrong.
        problem: TokenProblem,
        /// The same for people, with what happens next.
        message: String,
    },
    /// Something is wrong, and a person has to decide. The file is left alone.
    Invalid {
        /// What is wrong.
        problem: TokenProblem,
        /// The same for people, with what to do.
        message: String,
    },
}

impl TokenInput<'_> {
    /// Whether [`decide`] may have to derive keys, which takes tens of milliseconds of CPU each: if so, call it where
    /// blocking is allowed. A converged agent needs none.
    pub fn needs_verification(&self) -> bool {
        let tokens = self.tokens();
        let current = self.current_hash();
        !tokens.is_empty()
            && (current.is_some() || !self.candidates.is_empty())
            && !tokens
                .iter()
                .any(|token| current.is_some_and(|hash| self.is_known(token, hash)))
    }

    fn current_hash(&self) -> Option<&str> {
        self.current_hash.map(str::trim).filter(|hash| !hash.is_empty())
    }

    fn tokens(&self) -> &[SecretString] {
        let tokens = self.observed.map_or(&[][..], Extracted::tokens);
        &tokens[..tokens.len().min(MAX_TOKENS)]
    }

    /// Whether the pair is known to verify, from the database or from memory.
    fn is_known(&self, token: &SecretString, hash: &str) -> bool {
        let token = token.expose_secret();
        self.memory
            .is_some_and(|memory| memory.hash == hash && memory.token.expose_secret() == token)
            || self.verified.is_some_and(|pair| {
                pair.hash == hash && is_minted_form(token) && pair.fingerprint == fingerprint(token)
            })
    }
}

/// Decides what to do about an agent's token.
///
/// `verify` is [`verify`](super::verify()); it is called only for pairs that are not known to match, the row's hash first.
pub fn decide(input: &TokenInput<'_>, mut verify: impl FnMut(&str, &str) -> Result<bool, TokenError>) -> TokenDecision {
    let tokens = input.tokens();
    let current = input.current_hash();

    let mut bad_hash = None;
    if let Some(hash) = current {
        if let Some(token) = tokens.iter().find(|token| input.is_known(token, hash)) {
            return TokenDecision::Valid {
                token: token.clone(),
                newly_verified: false,
            };
        }
        for token in tokens {
            match verify(token.expose_secret(), hash) {
                Ok(true) => {
                    return TokenDecision::Valid {
                        token: token.clone(),
                        newly_verified: true,
                    };
                }
                Ok(false) => {}
                Err(error) => {
                    bad_hash = Some(error);
                    break;
                }
            }
        }
    }

    let candidate = tokens.iter().find_map(|token| {
        // A candidate that cannot be verified is as good as none: we only ever write good ones.
        let candidate = input.candidates.iter().find(|candidate| {
            input.is_known(token, &candidate.hash) || verify(token.expose_secret(), &candidate.hash).unwrap_or(false)
        })?;
        Some((token, candidate))
    });
    if let Some((token, candidate)) = candidate {
        // If the row's hash is no longer the one that was to be replaced, somebody else has set it, and is perhaps just
        // about to write the file as well.
        let foreign = current
            != candidate
                .replaces
                .as_deref()
                .map(str::trim)
                .filter(|hash| !hash.is_empty());
        if foreign && let Some(wait) = wait(input, TokenProblem::Mismatch) {
            return wait;
        }
        if foreign && !input.repair_auto {
            return invalid(TokenProblem::Mismatch, None);
        }
        return TokenDecision::Promote {
            token: token.clone(),
            candidate_hash: candidate.hash.clone(),
            replaces: current.map(str::to_owned),
        };
    }

    if let (Some(memory), Some(hash)) = (input.memory, current)
        && memory.hash == hash
    {
        // A token that is merely gone can be put back at once: nobody replaces a token by leaving it out.
        if !tokens.is_empty()
            && let Some(wait) = wait(input, TokenProblem::Mismatch)
        {
            return wait;
        }
        return TokenDecision::Restore {
            token: memory.token.clone(),
        };
    }
    if let Some(memory) = input.memory
        && let Some(candidate) = input.candidates.iter().find(|candidate| candidate.hash == memory.hash)
        && current == candidate.replaces.as_deref()
    {
        return TokenDecision::Resume {
            token: memory.token.clone(),
            candidate_hash: candidate.hash.clone(),
        };
    }

    let (problem, reason) = match (current, bad_hash, tokens.is_empty()) {
        // Without a hash nothing can verify: whatever the file holds, nobody can be locked out by replacing it.
        (None, ..) => {
            return TokenDecision::Mint {
                reason: MintReason::NoHash,
            };
        }
        (Some(_), Some(error), _) => return invalid(TokenProblem::BadHash, Some(&error)),
        (Some(_), None, true) => (TokenProblem::Unreadable, MintReason::TokenLost),
        (Some(_), None, false) => (TokenProblem::Mismatch, MintReason::Mismatch),
    };
    if !input.repair_auto {
        return invalid(problem, None);
    }
    wait(input, problem).unwrap_or(TokenDecision::Mint { reason })
}

/// The decision to wait, unless hash and file have been unchanged for long enough.
fn wait(input: &TokenInput<'_>, problem: TokenProblem) -> Option<TokenDecision> {
    let remaining = STABLE_FOR
        .checked_sub(input.unchanged_for)
        .filter(|rest| !rest.is_zero())?;
    let what = match problem {
        TokenProblem::Unreadable => "There is no readable AUTH_TOKEN in the agent's file",
        TokenProblem::Mismatch | TokenProblem::BadHash => {
            "AUTH_TOKEN in the agent's file does not match the stored token hash"
        }
    };
    Some(TokenDecision::Wait {
        remaining,
        problem,
        message: format!(
            "{what}; another program may be about to write it. Repaired once both have been unchanged for {} s.",
            STABLE_FOR.as_secs()
        ),
    })
}

fn invalid(problem: TokenProblem, error: Option<&TokenError>) -> TokenDecision {
    let message = match problem {
        TokenProblem::Unreadable => {
            "There is no readable AUTH_TOKEN in the agent's file, and automatic repair is off. Rotate the agent's token to \
             give it a new one."
                .to_owned()
        }
        TokenProblem::Mismatch => {
            "AUTH_TOKEN in the agent's file does not match the stored token hash, and automatic repair is off: the agent \
             can probably not authenticate. Rotate the agent's token to give it a new one."
                .to_owned()
        }
        TokenProblem::BadHash => format!(
            "{}. Clear agents.agent_token_hash of this agent to give it a new token.",
            error.map_or_else(|| "the stored token hash cannot be used".to_owned(), ToString::to_string)
        ),
    };
    TokenDecision::Invalid { problem, message }
}

#[cfg(test)]
mod tests {
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
    struct Situation {
        current: Option<&'static str>,
        /// Hash and what it replaces.
        candidates: &'static [(&'static str, Option<&'static str>)],
        /// Letter of the token and hash.
        verified: Option<(char, &'static str)>,
        /// Letters of the tokens in the file; `None` if there is no file.
        file: Option<&'static str>,
        /// Letter of the token and hash.
        memory: Option<(char, &'static str)>,
        unchanged_for: u64,
        manual: bool,
    }

    /// The decision in a few words, and the number of keys derived.
    fn decided(situation: Situation) -> (String, u32) {
        let candidates: Vec<Candidate> = situation
            .candidates
            .iter()
            .map(|(hash, replaces)| Candidate {
                hash: (*hash).to_owned(),
                replaces: replaces.map(str::to_owned),
            })
            .collect();
        let print = situation
            .verified
            .map(|(letter, hash)| (fingerprint(&token(letter)), hash));
        let observed = situation.file.map(|letters| {
            let lines: Vec<String> = letters.chars().map(|c| format!("AUTH_TOKEN={}", token(c))).collect();
            extract(&lines.join("\n"))
        });
        let memory = situation
            .memory
            .map(|(letter, hash)| (SecretString::from(token(letter)), hash));
        let input = TokenInput {
            current_hash: situation.current,
            candidates: &candidates,
            verified: print
                .as_ref()
                .map(|(fingerprint, hash)| VerifiedPair { fingerprint, hash }),
            observed: observed.as_ref(),
            memory: memory.as_ref().map(|(token, hash)| MemoryToken { token, hash }),
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

    fn check(situation: Situation, expected: &str) {
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
    };
    const HASHED: Situation = Situation {
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
}
