//! What syncs say, word for word: programs read these texts.

use std::time::Duration;

use crate::reconcile::spec::Excluded;

/// The gateway's row has no URL.
pub(super) const NO_URL: &str = "Gateway URL is not configured for this gateway.";

/// The board that was named is on another gateway, or nowhere.
pub(super) const FOREIGN_BOARD: &str = "Board does not belong to this gateway.";

/// There is no main agent.
pub(super) const NO_MAIN_AGENT: &str = "Gateway agent record not found; skipping gateway agent template sync.";

/// The agent's board is not on this gateway.
const NO_BOARD: &str = "Skipping agent: board not found for agent.";

/// No token in the agent's file.
pub(super) const UNREADABLE: &str =
    "Skipping agent: unable to read AUTH_TOKEN from TOOLS.md (run with rotate_tokens=true to re-key).";

/// Another token in the agent's file than the row's hash belongs to.
pub(super) const MISMATCH: &str =
    "AUTH_TOKEN in TOOLS.md does not match backend token hash (agent auth may be broken).";

/// The row of the gateway went away meanwhile.
pub(super) const GATEWAY_GONE: &str = "The gateway's row is gone.";

/// The row of the agent went away meanwhile.
pub(super) const AGENT_GONE: &str = "Skipping agent: its row is gone.";

/// New tokens are asked for, and files are withheld.
pub(super) const WITHHELD: &str = "Skipping agent: beside an existing installation no file of an existing agent is written until --templates-dir and \
     --base-url are given, so it gets no new token (`openclaw-controller diff` shows what would change).";

/// What happened to a reset that somebody else began is not known.
pub(super) const RESET_BY_ANOTHER: &str = "The session may or may not have been reset: the controller that was about to do it has ended; it is not reset twice.";

/// An agent was not done in time, and nothing was said of it.
pub(super) const NOTHING_HEARD: &str = "it was not done in time";

/// What there is to say of an agent that is not managed; nothing of one that is left alone on purpose.
pub(super) fn excluded(excluded: Excluded) -> Option<String> {
    match excluded {
        Excluded::BoardPaused | Excluded::Deleting => None,
        Excluded::BoardNotFound => Some(NO_BOARD.to_owned()),
        _ => Some(excluded.message().to_owned()),
    }
}

/// A failure that is not tried again.
pub(super) fn failed(message: &str) -> String {
    format!("Failed to sync templates: {message}")
}

/// What of the gateway's config is left as it is.
pub(super) fn held(held: &str) -> String {
    format!("Not all of the gateway's config was changed. {held}")
}

/// The gateway kept the sync waiting for too long.
pub(super) fn timed_out(limit: Duration, last: Option<&str>) -> String {
    let seconds = limit.as_secs();
    let span = if seconds >= 120 {
        format!("{} minutes", seconds / 60)
    } else {
        format!("{seconds} seconds")
    };
    let last = last.unwrap_or("the gateway has not been heard of");
    format!("Gateway unreachable after {span} (template sync timeout). Last error: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_is_told_in_minutes_from_two_on() {
        let told = |seconds| timed_out(Duration::from_secs(seconds), Some("it is away"));
        assert_eq!(
            told(600),
            "Gateway unreachable after 10 minutes (template sync timeout). Last error: it is away"
        );
        for (seconds, span) in [
            (1, "1 seconds"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (179, "2 minutes"),
        ] {
            assert!(told(seconds).contains(&format!("after {span} (")), "{}", told(seconds));
        }
        assert!(timed_out(Duration::ZERO, None).ends_with("Last error: the gateway has not been heard of"));
    }

    #[test]
    fn the_texts_are_those_of_the_contract() {
        assert_eq!(NO_URL, "Gateway URL is not configured for this gateway.");
        assert_eq!(FOREIGN_BOARD, "Board does not belong to this gateway.");
        assert!(NO_MAIN_AGENT.starts_with("Gateway agent record not found; "));
        assert_eq!(
            UNREADABLE,
            "Skipping agent: unable to read AUTH_TOKEN from TOOLS.md (run with rotate_tokens=true to re-key)."
        );
        assert_eq!(
            MISMATCH,
            "AUTH_TOKEN in TOOLS.md does not match backend token hash (agent auth may be broken)."
        );
        assert_eq!(
            excluded(Excluded::BoardNotFound).as_deref(),
            Some("Skipping agent: board not found for agent.")
        );
        assert_eq!(excluded(Excluded::BoardPaused), None, "skipped, and not an error");
        assert!(excluded(Excluded::NoOwner).is_some());
    }
}
