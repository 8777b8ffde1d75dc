//! Settling an agent's token before its files are written: the decision is `token`'s, the reads and writes are here.

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};

use super::failure::AgentFailure;
use super::memory::AgentMemory;
use super::observe::{TokenFile, Workspace};
use super::rotation::{Due, TokenPolicy};
use super::spec::AgentSpec;
use super::world::World;
use crate::gateway::Connector;
use crate::model::ConditionStatus;
use crate::store::{Candidate, Store, TokenState};
use crate::token::{self, Extracted, MemoryToken, MintReason, TokenDecision, TokenInput, TokenProblem, VerifiedPair};

/// Until the next look, where one more is needed although nothing changes.
const AT_ONCE: Duration = Duration::from_millis(10);

/// Stands for the digest of a token file that does not exist.
const MISSING: [u8; 32] = [0; 32];

/// Whether a token may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Minting {
    /// It may.
    Allowed,
    /// No file of this agent may be written.
    Withheld,
    /// No file of this agent would hold it.
    NoPlace,
}

/// Whether a token that is lost or does not match is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// As the operator chose.
    AsUsual,
    /// It is; for this look, that was asked for.
    Asked,
    /// It is not, in this look. That another program may be about to put it right is waited for all the same.
    Never,
}

/// A candidate that becomes the agent's token once the file is seen to hold it.
pub(super) struct Promotion {
    pub(super) candidate: Candidate,
    /// What the row's hash must still be.
    pub(super) expected_current: Option<String>,
    /// The file holds it already.
    pub(super) in_file: bool,
    /// Why a token was replaced, for people; `None` if the agent had none.
    pub(super) why: Option<&'static str>,
}

/// What is known of an agent's token, and what it is used for.
pub(super) struct TokenUse {
    /// The token that files are compared and written with; files that hold one are not written without it.
    pub(super) token: Option<SecretString>,
    /// The row's hash, if the token verified against it.
    pub(super) verified_hash: Option<String>,
    /// The candidate to promote.
    pub(super) promote: Option<Promotion>,
    /// The condition `TokenValid`.
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// When to look again.
    pub(super) requeue: Option<Duration>,
    /// Whether something is wrong that another program may be about to put right.
    pub(super) waits: bool,
    /// Whether the agent's file has lost the token: without it the agent is locked out.
    pub(super) restores: bool,
}

impl TokenUse {
    fn valid(token: SecretString, hash: Option<String>, promote: Option<Promotion>) -> Self {
        Self {
            token: Some(token),
            verified_hash: hash,
            promote,
            status: ConditionStatus::True,
            reason: "Verified",
            message: "the token in the agent's file belongs to the stored hash".into(),
            requeue: None,
            waits: false,
            restores: false,
        }
    }

    /// Whether this is the token.
    pub(super) fn is(&self, other: Option<&SecretString>) -> bool {
        self.token.as_ref().map(ExposeSecret::expose_secret) == other.map(ExposeSecret::expose_secret)
    }

    /// Whether files that hold a token have to be written, whoever else insists on what is in them.
    pub(super) fn has_to_be_written(&self) -> bool {
        self.promote.is_some() || self.restores
    }

    /// Whether the file has to be written because it does not hold this token.
    pub(super) fn replaces_lost(&self) -> bool {
        self.restores || self.promote.as_ref().is_some_and(|promotion| !promotion.in_file)
    }

    /// There is a newer request than the one that this token answers.
    fn goes_on(&mut self) {
        self.status = ConditionStatus::False;
        self.reason = "Rotating";
        self.message = "a token that was begun is completed first; the one that was requested since follows".into();
        self.requeue = Some(AT_ONCE);
    }

    /// The token is a new one, and the file that is to hold it was not written.
    pub(super) fn not_written(&mut self) {
        self.status = ConditionStatus::False;
        self.reason = "NotWritten";
        self.message = "a new token was made, and the file that holds the token could not be written yet".into();
    }

    /// Something is wrong with the token: files are compared with what was found and none that holds a token is written.
    fn invalid(reason: &'static str, message: String, requeue: Option<Duration>) -> Self {
        Self {
            token: None,
            verified_hash: None,
            promote: None,
            status: ConditionStatus::False,
            reason,
            message,
            requeue,
            waits: false,
            restores: false,
        }
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// Finds the token that the agent's files are to be written with; mints one, and stores its hash as a candidate, if the
    /// agent has none that counts and one can be written.
    pub(super) async fn settle_token(
        &self,
        agent: &AgentSpec,
        memory: &AgentMemory,
        workspace: &Workspace,
        minting: Minting,
        repair: Repair,
    ) -> Result<TokenUse, AgentFailure> {
        let id = agent.row.id;
        let usual = self.settings.tokens;
        let policy = TokenPolicy {
            repair_auto: match repair {
                Repair::AsUsual => usual.repair_auto,
                Repair::Asked => true,
                // Not carried out below; but whether it is time for it is.
                Repair::Never => self.settings.second_writer,
            },
            ..usual
        };
        if let (TokenFile::Unchanged, Some(known)) = (&workspace.token_file, &memory.token)
            && agent.row.token_hash.as_ref() == Some(&known.hash)
            && !self.may_be_due(agent, memory)
        {
            return Ok(TokenUse::valid(known.token.clone(), Some(known.hash.clone()), None));
        }
        let mut state = self.store.token_state(id).await?;
        let due = self.due(agent, &state);
        let unchanged_for = self.unchanged_for(agent, &state, workspace, &due);
        let mut decision = decide(&state, memory, workspace, unchanged_for, &due, policy, self.now()).await?;
        if let (TokenDecision::Valid { token, .. }, true, Some(hash)) = (&decision, due.is_any(), &state.current_hash) {
            // What is replaced has to be known, so that it can be retired.
            let fingerprint = token::fingerprint(token.expose_secret());
            self.store
                .remember_verified(&self.fence, id, hash, &fingerprint)
                .await?;
            state = self.store.token_state(id).await?;
            decision = decide(&state, memory, workspace, unchanged_for, &due, policy, self.now()).await?;
        }
        let current = state.current_hash.clone();
        if due.is_any()
            && minting != Minting::Allowed
            && let TokenDecision::Mint { reason } = &decision
        {
            let message = no_token_message(*reason, minting);
            let present = decide(
                &state,
                memory,
                workspace,
                unchanged_for,
                &Due::default(),
                policy,
                self.now(),
            )
            .await?;
            return Ok(rotation_waits(present, current, minting, message));
        }
        match decision {
            TokenDecision::Valid { token, newly_verified } => {
                self.drop_stale_candidates(agent, &state).await?;
                if let (true, Some(hash)) = (newly_verified && token::is_minted_form(token.expose_secret()), &current) {
                    let fingerprint = token::fingerprint(token.expose_secret());
                    self.store
                        .remember_verified(&self.fence, id, hash, &fingerprint)
                        .await?;
                }
                Ok(TokenUse::valid(token, current, None))
            }
            TokenDecision::Restore { token } => Ok(TokenUse {
                restores: true,
                ..TokenUse::valid(token, current, None)
            }),
            TokenDecision::Promote {
                token,
                candidate_hash,
                replaces,
            } => {
                let promotion = promotion(&state, &candidate_hash, replaces, true, policy)?;
                let more = due.request.is_some() && promotion.candidate.rotates != due.request;
                let mut token = TokenUse::valid(token, None, Some(promotion));
                if more {
                    token.goes_on();
                }
                Ok(token)
            }
            TokenDecision::Resume { token, candidate_hash } => {
                let promotion = promotion(&state, &candidate_hash, current, false, policy)?;
                Ok(TokenUse::valid(token, None, Some(promotion)))
            }
            TokenDecision::Mint {
                reason: reason @ (MintReason::TokenLost | MintReason::Mismatch),
            } if repair == Repair::Never => {
                let problem = match reason {
                    MintReason::TokenLost => TokenProblem::Unreadable,
                    _ => TokenProblem::Mismatch,
                };
                Ok(TokenUse::invalid(problem.reason(), reason.to_string(), None))
            }
            TokenDecision::Mint { reason } if minting != Minting::Allowed => Ok(TokenUse::invalid(
                no_token_reason(minting),
                no_token_message(reason, minting),
                None,
            )),
            TokenDecision::Mint { reason } => self.mint(agent, &state, reason, &due).await,
            TokenDecision::Wait {
                remaining,
                problem,
                message,
            } => {
                self.store.note_mismatch(&self.fence, id, current.as_deref()).await?;
                Ok(TokenUse {
                    waits: true,
                    ..TokenUse::invalid(problem.reason(), message, Some(remaining))
                })
            }
            TokenDecision::Invalid { problem, message } => Ok(TokenUse::invalid(problem.reason(), message, None)),
        }
    }

    /// Drops candidates that nobody can need any more: no write from that long ago is still on its way.
    async fn drop_stale_candidates(&self, agent: &AgentSpec, state: &TokenState) -> Result<(), AgentFailure> {
        let now = self.now();
        let stale =
            |candidate: &Candidate| Some(&candidate.hash) != state.current_hash.as_ref() && candidate.is_stale(now);
        let others = state
            .candidates
            .iter()
            .filter(|candidate| Some(&candidate.hash) != state.current_hash.as_ref())
            .count();
        if others > 0 && state.candidates.iter().filter(|candidate| stale(candidate)).count() == others {
            self.store.drop_candidates(&self.fence, agent.row.id).await?;
        }
        Ok(())
    }

    /// Makes a token, and stores its hash as a candidate.
    pub(super) async fn mint(
        &self,
        agent: &AgentSpec,
        state: &TokenState,
        reason: MintReason,
        due: &Due,
    ) -> Result<TokenUse, AgentFailure> {
        tracing::info!(agent = %agent.row.id, %reason, "minting a token");
        let token = token::mint();
        let hash = {
            let (token, format) = (token.clone(), self.settings.token_format);
            blocking(move || token::hash(&token, format))
                .await?
                .map_err(|error| AgentFailure::Token(error.to_string()))?
        };
        let candidate = Candidate {
            token_sha256: token::fingerprint(token.expose_secret()),
            hash,
            replaces: state.current_hash.clone(),
            created_at: self.now(),
            // Whatever it is made for, it answers the request as well.
            rotates: due.request,
        };
        // Committed before any write: whatever becomes of the write, the file's token has a hash in the database.
        self.store.add_candidate(&self.fence, agent.row.id, &candidate).await?;
        // Remembered, so that a write that fails is tried again with the same token.
        self.state().agents.entry(agent.row.id).or_default().minted = Some(super::memory::KnownToken {
            token: token.clone(),
            hash: candidate.hash.clone(),
        });
        let promotion = Promotion {
            why: super::rotation::why(&candidate, state, self.settings.tokens),
            candidate,
            expected_current: state.current_hash.clone(),
            in_file: false,
        };
        Ok(TokenUse::valid(token, None, Some(promotion)))
    }

    /// For how long hash and file have both stood still while they did not match.
    fn unchanged_for(&self, agent: &AgentSpec, state: &TokenState, workspace: &Workspace, due: &Due) -> Duration {
        let (tokens, digest) = match &workspace.token_file {
            TokenFile::Read { extracted, digest } => (!extracted.tokens().is_empty(), *digest),
            TokenFile::Missing => (false, MISSING),
            TokenFile::Unchanged => (true, MISSING),
        };
        if (!tokens || due.is_any()) && !self.settings.second_writer {
            // Nobody else could be about to write the file, and whoever has put another token there wants it replaced or
            // waits for the repair.
            return Duration::MAX;
        }
        let now = self.now();
        let file_since = {
            let mut world = self.state();
            let since = &mut world.agents.entry(agent.row.id).or_default().token_file_unchanged_since;
            match since {
                Some((seen, since)) if *seen == digest => *since,
                _ => {
                    *since = Some((digest, now));
                    now
                }
            }
        };
        let Some(hash_since) = state.hash_unchanged_since else {
            return Duration::ZERO;
        };
        (now - hash_since.max(file_since)).to_std().unwrap_or_default()
    }
}

/// The reason for a condition, where no token may be made.
fn no_token_reason(minting: Minting) -> &'static str {
    match minting {
        Minting::NoPlace => "NoPlaceForToken",
        _ => "Withheld",
    }
}

fn no_token_message(reason: MintReason, minting: Minting) -> String {
    match minting {
        Minting::NoPlace => format!(
            "{reason}, and none is made: the file that holds the token could not be rendered, or its template has no line \
             AUTH_TOKEN={{{{ auth_token }}}}"
        ),
        _ => format!("{reason}; files are withheld, so none is made"),
    }
}

/// A rotation is due, and no token may be made: the present one goes on, and the condition tells.
fn rotation_waits(present: TokenDecision, current: Option<String>, minting: Minting, message: String) -> TokenUse {
    let reason = no_token_reason(minting);
    let message = match minting {
        Minting::Withheld => format!(
            "{message}: the rotation waits until --templates-dir and --base-url are given; the agent's present token stays \
             valid meanwhile"
        ),
        _ => message,
    };
    match present {
        TokenDecision::Valid { token, .. } => TokenUse {
            status: ConditionStatus::False,
            reason,
            message,
            ..TokenUse::valid(token, current, None)
        },
        _ => TokenUse::invalid(reason, message, None),
    }
}

/// Lets `token` decide, where blocking is allowed if keys have to be derived.
pub(super) async fn decide(
    state: &TokenState,
    memory: &AgentMemory,
    workspace: &Workspace,
    unchanged_for: Duration,
    due: &Due,
    policy: TokenPolicy,
    now: DateTime<Utc>,
) -> Result<TokenDecision, AgentFailure> {
    let observed = match &workspace.token_file {
        TokenFile::Read { extracted, .. } => Some(extracted.clone()),
        TokenFile::Missing => None,
        TokenFile::Unchanged => memory.token.as_ref().map(|known| Extracted::One(known.token.clone())),
    };
    let candidates: Vec<_> = state
        .candidates_in_question(now)
        .rev()
        .map(|candidate| token::Candidate {
            hash: candidate.hash.clone(),
            replaces: candidate.replaces.clone(),
            // Any new token will do for one that has come of age.
            answers: due.is_any() && (due.request.is_none() || candidate.rotates == due.request),
        })
        .collect();
    // A candidate that was written and one that verified are found by their fingerprints: no key is derived for ours.
    let tokens = observed.as_ref().map(Extracted::tokens).unwrap_or_default();
    let by_fingerprint = tokens.iter().find_map(|token| {
        let fingerprint = token::fingerprint(token.expose_secret());
        let candidate = state
            .candidates_in_question(now)
            .find(|candidate| candidate.token_sha256 == fingerprint)?;
        Some(super::memory::KnownToken {
            token: token.clone(),
            hash: candidate.hash.clone(),
        })
    });
    let known = match (&memory.token, &memory.minted, by_fingerprint) {
        (_, _, Some(known)) => Some(known),
        (Some(known), _, _) if Some(&known.hash) == state.current_hash.as_ref() => Some(known.clone()),
        (_, Some(known), _) => Some(known.clone()),
        (known, ..) => known.clone(),
    };
    let (state, minted, rotation) = (state.clone(), memory.minted.clone(), due.rotation);
    let run = move || {
        let input = TokenInput {
            current_hash: state.current_hash.as_deref(),
            candidates: &candidates,
            verified: state.verified.as_ref().map(|pair| VerifiedPair {
                fingerprint: &pair.token_sha256,
                hash: &pair.hash,
            }),
            observed: observed.as_ref(),
            memory: known.as_ref().map(|known| MemoryToken {
                token: &known.token,
                hash: &known.hash,
            }),
            minted: minted.as_ref().map(|known| MemoryToken {
                token: &known.token,
                hash: &known.hash,
            }),
            rotation,
            unchanged_for,
            repair_auto: policy.repair_auto,
        };
        token::decide(&input, token::verify)
    };
    blocking(run).await
}

/// Runs what takes CPU where it holds nothing up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AgentFailure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| AgentFailure::Token(error.to_string()))
}

fn promotion(
    state: &TokenState,
    hash: &str,
    expected_current: Option<String>,
    in_file: bool,
    policy: TokenPolicy,
) -> Result<Promotion, AgentFailure> {
    let candidate = state
        .candidates
        .iter()
        .find(|candidate| candidate.hash == hash)
        .cloned();
    let candidate = candidate.ok_or_else(|| AgentFailure::Token("a decision named an unknown candidate".into()))?;
    Ok(Promotion {
        why: super::rotation::why(&candidate, state, policy),
        candidate,
        expected_current,
        in_file,
    })
}
