//! The rules by which a token becomes, stays and stops being valid: one pure decision at a time.
//!
//! A new token reaches an agent in two phases: its hash is stored as a candidate, the file is written and read back, and
//! only then is the hash promoted to be the row's. A crash at any point leaves a file whose token verifies against the
//! row's hash or against a candidate, and the next decision carries on from there.
//!
//! Another program may write the same hash and the same file, the hash first. What looks wrong may therefore be half of
//! its work; it is judged only once nothing has changed for [`STABLE_FOR`].
//!
//! A rotation replaces a token that may well be valid, in the same two phases. One that was begun is continued, with the
//! token that was minted for it while memory has that, and with another one after a crash.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::hash::{TokenError, fingerprint, is_minted_form};
use super::text::Extracted;

/// How long hash and file must both have been unchanged before a mismatch is repaired.
pub const STABLE_FOR: Duration = Duration::from_mins(1);

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
    /// Whether its promotion completes the rotation that is due.
    pub answers: bool,
}

/// Why a token is to be replaced whether or not it is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Somebody asked for it.
    Requested,
    /// The token is older than the operator wants tokens to be.
    Age,
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
    /// A token that this process minted and that was not promoted yet. May be the same as `memory`.
    pub minted: Option<MemoryToken<'a>>,
    /// The rotation that is due, if one is.
    pub rotation: Option<Rotation>,
    /// For how long hash and file have both been unchanged. Where nobody else writes, any long time will do.
    pub unchanged_for: Duration,
    /// Whether a token that is lost or does not match is replaced without being asked. A rotation that is due needs no such
    /// leave.
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
    /// Somebody asked for a new one.
    Requested,
    /// The token is older than the operator wants tokens to be.
    Age,
}

impl fmt::Display for MintReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHash => "the agent has no token yet",
            Self::TokenLost => "the agent's token is gone from its file",
            Self::Mismatch => "the token in the agent's file does not match the stored hash",
            Self::Requested => "a new token was requested",
            Self::Age => "the agent's token has come of age",
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
    ///
    /// Where a rotation is due, only a pair that was verified anew comes as this, to be remembered first: what is replaced
    /// can then be retired.
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

impl Candidate {
    /// What it replaces; blank is as good as nothing.
    fn replaced(&self) -> Option<&str> {
        self.replaces.as_deref().map(str::trim).filter(|hash| !hash.is_empty())
    }
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
            return rotate(input).unwrap_or_else(|| TokenDecision::Valid {
                token: token.clone(),
                newly_verified: false,
            });
        }
        for token in tokens {
            match verify(token.expose_secret(), hash) {
                Ok(true) => {
                    let valid = TokenDecision::Valid {
                        token: token.clone(),
                        newly_verified: true,
                    };
                    // Any other token is not remembered, and would be verified anew for ever.
                    let remembered = is_minted_form(token.expose_secret());
                    return rotate(input).filter(|_| !remembered).unwrap_or(valid);
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
        let foreign = current != candidate.replaced();
        if foreign
            && !candidate.answers
            && let Some(error) = &bad_hash
        {
            // It may be a format of a later backend, and of this very token: only a person knows.
            return rotate(input).unwrap_or_else(|| invalid(TokenProblem::BadHash, Some(error)));
        }
        if foreign && let Some(wait) = wait(input, TokenProblem::Mismatch) {
            return wait;
        }
        if foreign && !candidate.answers {
            // Promoted, it would only be replaced.
            if let Some(rotation) = rotate(input) {
                return rotation;
            }
            if !input.repair_auto {
                return invalid(TokenProblem::Mismatch, None);
            }
        }
        return TokenDecision::Promote {
            token: token.clone(),
            candidate_hash: candidate.hash.clone(),
            replaces: current.map(str::to_owned),
        };
    }

    if let Some(rotation) = rotate(input) {
        // Without a hash there is nothing that another program could be about to write a file for.
        let problem = current.map(|_| match tokens {
            [] => TokenProblem::Unreadable,
            _ => TokenProblem::Mismatch,
        });
        return problem.and_then(|problem| wait(input, problem)).unwrap_or(rotation);
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
        && current == candidate.replaced()
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

/// What a rotation that is due comes to once nothing else has to be settled first: the token that was minted for it, or else
/// another.
fn rotate(input: &TokenInput<'_>) -> Option<TokenDecision> {
    let reason = match input.rotation? {
        Rotation::Requested => MintReason::Requested,
        Rotation::Age => MintReason::Age,
    };
    let begun = input.minted.and_then(|minted| {
        let mut candidates = input.candidates.iter();
        let candidate = candidates.find(|candidate| {
            candidate.answers && candidate.hash == minted.hash && candidate.replaced() == input.current_hash()
        })?;
        Some(TokenDecision::Resume {
            token: minted.token.clone(),
            candidate_hash: candidate.hash.clone(),
        })
    });
    Some(begun.unwrap_or(TokenDecision::Mint { reason }))
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
            "There is no readable AUTH_TOKEN in the agent's file, and automatic repair is off. Give it a new \
             one: `openclaw-controller rotate-token --agent …` with the agent's id."
                .to_owned()
        }
        TokenProblem::Mismatch => {
            "AUTH_TOKEN in the agent's file does not match the stored token hash, and automatic repair is off: the agent \
             can probably not authenticate. Give it a new one: `openclaw-controller rotate-token --agent …` with the agent's \
             id."
                .to_owned()
        }
        TokenProblem::BadHash => format!(
            "{}. Give the agent a new token: `openclaw-controller rotate-token --agent …` with its id.",
            error.map_or_else(|| "the stored token hash cannot be used".to_owned(), ToString::to_string)
        ),
    };
    TokenDecision::Invalid { problem, message }
}

#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
