//! Whether the program can do its work, check by check.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, PoisonError, RwLock},
};

use tracing::{info, warn};

/// The state of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// All is well; the note, if any, is shown beside it, for example `standby`.
    Ok {
        /// Something worth knowing about it.
        note: Option<String>,
    },
    /// Something is wrong; the text says what, and what to do about it. Never holds a secret.
    Failed(String),
}

/// The checks behind `/readyz`. Cheap to clone; all clones are the same.
///
/// Those who know set them; ready is whoever has no failed check. A replica that stands by for another is ready: it does what it
/// should.
#[derive(Clone, Debug)]
pub struct Health {
    checks: Arc<RwLock<BTreeMap<&'static str, Check>>>,
}

impl Health {
    /// Expects these checks: each has failed until somebody has set it.
    pub fn expecting(names: &[&'static str]) -> Self {
        let checks = names
            .iter()
            .map(|&name| (name, Check::Failed("not checked yet".to_owned())))
            .collect();
        Self {
            checks: Arc::new(RwLock::new(checks)),
        }
    }

    /// Sets a check: all is well, or what is wrong.
    pub fn set(&self, name: &'static str, result: Result<(), String>) {
        self.put(
            name,
            match result {
                Ok(()) => Check::Ok { note: None },
                Err(problem) => Check::Failed(problem),
            },
        );
    }

    /// Sets a check: all is well, with a note, for example `standby`.
    pub fn set_noted(&self, name: &'static str, note: impl Into<String>) {
        let note = Some(note.into());
        self.put(name, Check::Ok { note });
    }

    /// The state of a check; `None` if nobody expected or set it.
    pub fn get(&self, name: &str) -> Option<Check> {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        checks.get(name).cloned()
    }

    /// Whether no check has failed.
    pub fn is_ready(&self) -> bool {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        checks.values().all(|check| matches!(check, Check::Ok { .. }))
    }

    /// Each check, and whether it passes.
    pub(super) fn passing(&self) -> Vec<(&'static str, bool)> {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        let passes = |check: &Check| matches!(check, Check::Ok { .. });
        checks.iter().map(|(name, check)| (*name, passes(check))).collect()
    }

    /// Whether no check has failed, and all of them as text, in the form that Kubernetes' own probes have.
    pub fn report(&self) -> (bool, String) {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut ready = true;
        for (name, check) in checks.iter() {
            // Writing to a string cannot fail.
            let _ = match check {
                Check::Ok { note: None } => writeln!(text, "[+]{name} ok"),
                Check::Ok { note: Some(note) } => writeln!(text, "[+]{name} ok: {}", one_line(note)),
                Check::Failed(problem) => {
                    ready = false;
                    writeln!(text, "[-]{name} failed: {}", one_line(problem))
                }
            };
        }
        text.push_str(if ready {
            "readyz check passed\n"
        } else {
            "readyz check failed\n"
        });
        (ready, text)
    }

    fn put(&self, name: &'static str, check: Check) {
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        if checks.get(name) == Some(&check) {
            return;
        }
        match &check {
            Check::Ok { note } => info!(check = name, note, "check passes"),
            Check::Failed(problem) => warn!(check = name, "check fails: {problem}"),
        }
        checks.insert(name, check);
    }
}

/// One check, one line: a text with line breaks must not look like further checks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ready_before_every_expected_check_was_set() {
        let health = Health::expecting(&["database", "listener"]);
        assert!(!health.is_ready());
        health.set("database", Ok(()));
        assert_eq!(
            health.report(),
            (
                false,
                "[+]database ok\n[-]listener failed: not checked yet\nreadyz check failed\n".to_owned()
            )
        );
        health.set("listener", Ok(()));
        assert!(health.is_ready());
    }

    #[test]
    fn a_standby_is_ready_and_says_so() {
        let health = Health::expecting(&["ownership"]);
        health.set_noted("ownership", "standby");
        assert_eq!(
            health.report(),
            (true, "[+]ownership ok: standby\nreadyz check passed\n".to_owned())
        );
    }

    #[test]
    fn a_problem_of_several_lines_stays_one_line() {
        let health = Health::expecting(&[]);
        health.set("database", Err("gone\n[+]forged ok".to_owned()));
        let (ready, text) = health.report();
        assert!(!ready);
        assert_eq!(text, "[-]database failed: gone [+]forged ok\nreadyz check failed\n");
    }
}
