//! `--condition TYPE=STATUS`.

use std::str::FromStr;

use crate::model::{ConditionStatus, ConditionType, Conditions};
use crate::view::Ready;

/// A condition, and what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    kind: ConditionType,
    status: ConditionStatus,
}

impl Wanted {
    /// Whether an object with these conditions has it. What is shown as `Ready` counts as that condition; one that there is not
    /// has no status.
    pub(super) fn holds(self, ready: &Ready, conditions: &Conditions) -> bool {
        let status = match self.kind {
            ConditionType::Ready => Some(ready.status),
            kind => conditions.get(kind).map(|condition| condition.status),
        };
        status == Some(self.status)
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, status) = text
            .split_once('=')
            .ok_or("write it as TYPE=STATUS, for example Ready=False")?;
        let kind = ConditionType::ALL
            .into_iter()
            .find(|known| known.to_string().eq_ignore_ascii_case(kind.trim()))
            .ok_or_else(|| {
                let known: Vec<_> = ConditionType::ALL.iter().map(ToString::to_string).collect();
                format!(
                    "there is no condition {:?}; there are {}",
                    kind.trim(),
                    known.join(", ")
                )
            })?;
        let status = [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown]
            .into_iter()
            .find(|known| known.to_string().eq_ignore_ascii_case(status.trim()))
            .ok_or_else(|| format!("a condition is True, False or Unknown, not {:?}", status.trim()))?;
        Ok(Self { kind, status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_written_in_any_case_and_what_is_not_one_is_told() {
        let wanted: Wanted = "ready=false".parse().unwrap();
        assert_eq!(
            (wanted.kind, wanted.status),
            (ConditionType::Ready, ConditionStatus::False)
        );
        assert!("Paused=True".parse::<Wanted>().is_ok());
        for (text, says) in [
            ("Ready", "TYPE=STATUS"),
            ("Redy=True", "TokenValid"),
            ("Ready=maybe", "Unknown"),
            ("", "TYPE=STATUS"),
        ] {
            let error = text.parse::<Wanted>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
