//! What an order changes about a look at an agent, and what the look means for the sync.

use std::time::Duration;

use super::text;
use super::{Order, Reset};
use crate::gateway::{Connector, ErrorClass, GatewayError};
use crate::model::{ConditionType, SyncOptions};
use crate::plan::FilePolicy;
use crate::reconcile::TokenPolicy;
use crate::reconcile::failure::AgentFailure;
use crate::reconcile::gateway::session_lost;
use crate::reconcile::gateway_status::{GatewayFailure, GatewayOutcome};
use crate::reconcile::held::HeldBack;
use crate::reconcile::observe::{Reading, TokenFile, Workspace};
use crate::reconcile::session::Session;
use crate::reconcile::spec::{AgentSpec, Excluded};
use crate::reconcile::status::AgentReport;
use crate::reconcile::tokens::{Repair, TokenUse};
use crate::reconcile::world::World;
use crate::runtime::ReconcileError;
use crate::store::Store;
use crate::token::TokenProblem;

/// How soon after a sync has left a token alone the loop looks at it.
const REPAIRED_AFTER: Duration = Duration::from_secs(1);

/// What a look at an agent came to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Look {
    /// It has no row any more.
    Gone,
    /// It is not managed.
    Excluded(Excluded),
    /// All that can be done is done.
    Done {
        /// Whether the agent is as desired.
        updated: bool,
        /// What there is to say about it.
        message: Option<String>,
    },
    /// It will be looked at again.
    NotYet,
    /// Something failed.
    Failed {
        /// What.
        message: String,
        /// Whether trying again is of no use.
        for_good: bool,
        /// Whether the gateway did not answer; `None` if that was told already, or nothing is known of it.
        silent: Option<bool>,
    },
}

impl Look {
    /// What a failure means for a sync.
    pub(in crate::reconcile) fn failed(failure: &AgentFailure) -> Self {
        let for_good = match failure {
            // One that is not found was found in the roster before: the gateway is looked at again.
            AgentFailure::Gateway(error) => {
                !(error.is_transient() || session_lost(error) || error.class() == ErrorClass::NotFound)
            }
            AgentFailure::NotKept(_) | AgentFailure::Token(_) => true,
            AgentFailure::Overtaken(..) | AgentFailure::Store(_) | AgentFailure::TokenRace | AgentFailure::Departed => {
                false
            }
        };
        let silent = matches!(failure, AgentFailure::Gateway(error)
            if session_lost(error) || error.class() == ErrorClass::Timeout);
        Self::Failed {
            message: failure.to_string(),
            for_good,
            silent: Some(silent),
        }
    }

    /// What it means for a sync that the agent is not put into the roster now.
    pub(in crate::reconcile) fn held_back(held: &HeldBack) -> Self {
        Self::skipped(format!("{}: {}", held.reason, held.message))
    }

    fn updated() -> Self {
        Self::Done {
            updated: true,
            message: None,
        }
    }

    fn skipped(message: impl Into<String>) -> Self {
        Self::Done {
            updated: false,
            message: Some(message.into()),
        }
    }

    /// What a report says to a sync with these options.
    fn of(report: &AgentReport, options: &SyncOptions) -> Self {
        let mut obstacles = report.obstacles();
        let Some((kind, _, reason, message)) = obstacles.next() else {
            return Self::updated();
        };
        let told = |reason: &str, message: &str| Self::skipped(format!("{reason}: {message}"));
        if *kind != ConditionType::TokenValid {
            return told(reason, message);
        }
        let is = |problem: TokenProblem| *reason == problem.reason();
        let (unreadable, mismatch) = (
            is(TokenProblem::Unreadable),
            is(TokenProblem::Mismatch) || is(TokenProblem::BadHash),
        );
        if report.waits || *reason == "Rotating" || (options.rotate_tokens && (unreadable || mismatch)) {
            return Self::NotYet;
        }
        if unreadable {
            return Self::skipped(text::UNREADABLE);
        }
        if !mismatch {
            return told(reason, message);
        }
        match obstacles.next() {
            Some((_, _, reason, message)) => told(reason, message),
            None => Self::Done {
                updated: true,
                message: Some(text::MISMATCH.to_owned()),
            },
        }
    }
}

/// What a look at a gateway came to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum GatewayLook {
    /// It answers, and its config is as desired or will be after some more patches.
    Ready {
        /// What is left as it is although it differs, and why.
        held: Option<String>,
    },
    /// It does not answer.
    Away {
        /// Why.
        message: String,
        /// Whether trying again is of no use.
        for_good: bool,
    },
    /// It answers, and its config is not as desired.
    Unsettled {
        /// Why.
        message: String,
        /// Whether trying again is of no use.
        for_good: bool,
    },
}

impl GatewayLook {
    /// What an outcome means for a sync; `None` if it says nothing of the gateway.
    pub(super) fn of(outcome: &Result<GatewayOutcome, GatewayFailure>) -> Option<Self> {
        let away = |error: &GatewayError| Self::Away {
            message: error.to_string(),
            for_good: !error.is_transient(),
        };
        Some(match outcome {
            Ok(outcome) => Self::Ready {
                held: outcome.held.waiting(),
            },
            Err(GatewayFailure::Incompatible(incompatible)) => Self::Away {
                message: incompatible.message.clone(),
                for_good: true,
            },
            Err(GatewayFailure::Connect(error) | GatewayFailure::Probe(error)) => away(error),
            Err(GatewayFailure::Config(error)) if session_lost(error) || error.class() == ErrorClass::Timeout => {
                away(error)
            }
            Err(GatewayFailure::Config(error)) => Self::Unsettled {
                message: error.to_string(),
                for_good: !error.is_transient(),
            },
            Err(GatewayFailure::Restarting) => Self::Away {
                message: "the gateway restarts to apply its config".to_owned(),
                for_good: false,
            },
            Err(GatewayFailure::PatchRefused(error)) => Self::Unsettled {
                message: error.to_string(),
                for_good: true,
            },
            Err(GatewayFailure::NotKept(message)) => Self::Unsettled {
                message: message.clone(),
                for_good: true,
            },
            Err(GatewayFailure::Store(_) | GatewayFailure::Outdated | GatewayFailure::Cancelled) => return None,
        })
    }
}

impl Order {
    /// How much of the workspace is read.
    pub(in crate::reconcile) fn reading(&self) -> Reading {
        if self.options.overwrite {
            // Files that belong to the agent are compared this once.
            Reading::All
        } else {
            Reading::Unlisted
        }
    }

    /// A sync gives nobody a new token without being asked to.
    pub(in crate::reconcile) fn repair(&self) -> Repair {
        if self.options.rotate_tokens {
            Repair::Asked
        } else {
            Repair::Never
        }
    }

    /// Has files written with the token that they hold although it does not match, unless a new one is asked for. If the
    /// loop would repair it, it does so right afterwards.
    pub(in crate::reconcile) fn take_as_it_is(&self, token: &mut TokenUse, workspace: &Workspace, usual: TokenPolicy) {
        let is = |problem: TokenProblem| token.reason == problem.reason();
        let mismatch = is(TokenProblem::Mismatch) || is(TokenProblem::BadHash);
        if self.options.rotate_tokens || token.waits || !(mismatch || is(TokenProblem::Unreadable)) {
            return;
        }
        if usual.repair_auto {
            token.requeue = Some(REPAIRED_AFTER);
        }
        let what = if mismatch {
            "the token in the agent's file does not match the stored hash"
        } else {
            "there is no readable AUTH_TOKEN in the agent's file"
        };
        token.message = format!("{what}; a sync gives it a new one only if asked to (--rotate-tokens)");
        if let (true, None, TokenFile::Read { extracted, .. }) = (mismatch, &token.token, &workspace.token_file) {
            token.token = extracted.tokens().first().cloned();
        }
    }

    /// Allows the writes that were asked for. An agent without a readable token is skipped.
    pub(in crate::reconcile) fn widen(&self, policy: FilePolicy) -> FilePolicy {
        FilePolicy {
            force_bootstrap: policy.force_bootstrap || (self.options.force_bootstrap && policy.has_token),
            overwrite: policy.overwrite || (self.options.overwrite && policy.has_token),
            ..policy
        }
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// What a look at an agent means for the sync that wanted it; resets the agent's session if that is asked for.
    pub(in crate::reconcile) async fn settle_order(
        &self,
        order: &Order,
        agent: &AgentSpec,
        session: &Session,
        report: &AgentReport,
    ) -> Result<Look, ReconcileError> {
        let look = Look::of(report, &order.options);
        let Look::Done { updated: true, message } = &look else {
            return Ok(look);
        };
        if !order.options.reset_sessions {
            return Ok(look);
        }
        Ok(match self.reset_session(order, agent, session).await? {
            Ok(()) => look,
            Err(Unreset::Unknown(problem)) => Look::Done {
                updated: true,
                message: Some(
                    message
                        .as_ref()
                        .map_or(problem.clone(), |told| format!("{told} {problem}")),
                ),
            },
            Err(Unreset::Refused(problem)) => Look::skipped(problem),
        })
    }

    /// Resets an agent's session, if this request has not done so yet: noted first, then sent, and never sent twice, unless
    /// it certainly had no effect.
    async fn reset_session(
        &self,
        order: &Order,
        agent: &AgentSpec,
        session: &Session,
    ) -> Result<Result<(), Unreset>, ReconcileError> {
        match order.reset() {
            Reset::Done => return Ok(Ok(())),
            Reset::Unknown(problem) => return Ok(Err(Unreset::Unknown(problem))),
            before @ (Reset::New | Reset::Open) => {
                // What was noted by others was looked up when the order was given; from now on it can only be ours.
                order.set_reset(Reset::Open);
                let noted = self
                    .store
                    .begin_sync_reset(&self.fence, order.sync, agent.row.id)
                    .await
                    .map_err(ReconcileError::from_error)?;
                if !noted && before == Reset::New {
                    order.set_reset(Reset::Unknown(text::RESET_BY_ANOTHER.to_owned()));
                    return Ok(Err(Unreset::Unknown(text::RESET_BY_ANOTHER.to_owned())));
                }
            }
        }
        // Until the answer is here.
        order.set_reset(Reset::Unknown(
            "The session may or may not have been reset: no answer came; it is not reset twice.".to_owned(),
        ));
        // A session that is not there needs no reset.
        match session.client.sessions_reset(&agent.session_key).await {
            Ok(_) => {
                order.set_reset(Reset::Done);
                Ok(Ok(()))
            }
            Err(error) if error.outcome_unknown() => {
                let problem = format!("The session may or may not have been reset, and is not reset twice: {error}");
                order.set_reset(Reset::Unknown(problem.clone()));
                Ok(Err(Unreset::Unknown(problem)))
            }
            Err(error) if error.is_transient() || session_lost(&error) => {
                order.set_reset(Reset::Open);
                Err(ReconcileError::new(format!("cannot reset the session: {error}")))
            }
            Err(error) => Ok(Err(Unreset::Refused(format!("Failed to reset session: {error}")))),
        }
    }
}

/// Why a session was not reset.
enum Unreset {
    /// Perhaps it was.
    Unknown(String),
    /// The gateway does not.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConditionStatus;

    fn report(findings: &[(ConditionType, ConditionStatus, &'static str)]) -> AgentReport {
        let mut report = AgentReport::default();
        for (kind, status, reason) in findings {
            report.set(*kind, *status, reason, format!("because of {reason}"));
        }
        report
    }

    fn look(rotate_tokens: bool, findings: &[(ConditionType, ConditionStatus, &'static str)]) -> Look {
        let options = SyncOptions {
            rotate_tokens,
            ..SyncOptions::default()
        };
        Look::of(&report(findings), &options)
    }

    #[test]
    fn a_report_without_obstacles_is_an_update() {
        use ConditionStatus::{False, True};
        use ConditionType::{FilesSynced, Paused, Registered, TokenValid};
        let fine = [
            (Paused, False, "NotPaused"),
            (Registered, True, "InRoster"),
            (TokenValid, True, "Verified"),
            (FilesSynced, True, "ReadBackEqual"),
        ];
        assert_eq!(look(false, &fine), Look::updated());
        let mut broken = fine;
        broken[3] = (FilesSynced, False, "UnknownVariable");
        assert_eq!(
            look(false, &broken),
            Look::skipped("UnknownVariable: because of UnknownVariable")
        );
    }

    #[test]
    fn a_token_that_cannot_be_read_skips_the_agent_and_one_that_does_not_match_is_a_warning() {
        use ConditionStatus::{False, True};
        use ConditionType::{FilesSynced, TokenValid};
        let with = |reason, files| [(TokenValid, False, reason), (FilesSynced, files, "Some")];
        assert_eq!(
            look(false, &with("TokenUnreadable", True)),
            Look::skipped(text::UNREADABLE)
        );
        for reason in ["TokenMismatch", "UnusableTokenHash"] {
            let warned = Look::Done {
                updated: true,
                message: Some(text::MISMATCH.into()),
            };
            assert_eq!(look(false, &with(reason, True)), warned);
            assert_eq!(
                look(false, &with(reason, False)),
                Look::skipped("Some: because of Some")
            );
            assert_eq!(
                look(true, &with(reason, True)),
                Look::NotYet,
                "it is waited for its repair"
            );
        }
        assert_eq!(look(true, &with("Rotating", True)), Look::NotYet);
        assert_eq!(look(false, &with("Rotating", True)), Look::NotYet);
        assert_eq!(
            look(true, &with("NoPlaceForToken", True)),
            Look::skipped("NoPlaceForToken: because of NoPlaceForToken")
        );
    }

    #[test]
    fn failures_that_may_pass_are_waited_for() {
        let look = |class| match Look::failed(&AgentFailure::Gateway(GatewayError::new(class, "no"))) {
            Look::Failed { for_good, .. } => for_good,
            look => panic!("{look:?}"),
        };
        for class in [
            ErrorClass::Timeout,
            ErrorClass::ConnectionClosed,
            ErrorClass::Restarting,
            ErrorClass::Unavailable,
            ErrorClass::RateLimited,
            ErrorClass::Conflict,
            ErrorClass::NotFound,
        ] {
            assert!(!look(class), "{class:?}");
        }
        for class in [
            ErrorClass::UnsupportedFile,
            ErrorClass::Invalid,
            ErrorClass::MissingScope,
        ] {
            assert!(look(class), "{class:?}");
        }
    }

    #[test]
    fn a_gateway_that_lets_nobody_in_is_not_waited_for() {
        let look = |class| GatewayLook::of(&Err(GatewayFailure::Connect(GatewayError::new(class, "no"))));
        let away = |for_good| move |look: Option<GatewayLook>| matches!(look, Some(GatewayLook::Away { for_good: is, .. }) if is == for_good);
        for class in [
            ErrorClass::Unauthorized,
            ErrorClass::PairingRequired,
            ErrorClass::NotConfigured,
        ] {
            assert!(away(true)(look(class)), "{class:?}");
        }
        for class in [
            ErrorClass::ConnectionRefused,
            ErrorClass::DnsFailed,
            ErrorClass::Timeout,
        ] {
            assert!(away(false)(look(class)), "{class:?}");
        }
    }
}
