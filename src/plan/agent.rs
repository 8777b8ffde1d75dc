//! Planning an agent's workspace: which files to write, and with what text.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::model::{AgentPlan, Dialect, FileName, FileStep, FileWrite, TOKEN_SENTINEL};

/// What one file was found to hold, as a digest of its text with [`TOKEN_SENTINEL`] in the token's place, so that what is
/// remembered between reconciles is small and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedFile {
    /// It does not exist.
    Missing,
    /// It exists.
    Present {
        /// [`ObservedFile::digest`] of its text.
        digest: [u8; 32],
        /// The gateway's own hash of the file, where it gave one.
        gateway_hash: Option<String>,
    },
}

impl ObservedFile {
    /// Digest of a text in which the token was replaced by the sentinel.
    pub fn digest(text: &str) -> [u8; 32] {
        // Rendered text is trimmed; a trailing line break, which some editors and gateways add, is no difference worth a write.
        Sha256::digest(text.trim_end_matches(['\r', '\n'])).into()
    }

    /// A file that holds this text.
    pub fn present(text: &str, gateway_hash: Option<String>) -> Self {
        Self::Present {
            digest: Self::digest(text),
            gateway_hash,
        }
    }
}

/// The files of one workspace; a file that was not looked at is absent from the map and is not planned.
pub type ObservedFiles = BTreeMap<FileName, ObservedFile>;

/// When a file may be written at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilePolicy {
    /// The agent is its gateway's main agent: its `USER.md` is managed like any other file.
    pub is_main: bool,
    /// The agent was never provisioned before: `BOOTSTRAP.md` is written.
    pub first_provisioning: bool,
    /// Write `BOOTSTRAP.md` again although the agent was provisioned before.
    pub force_bootstrap: bool,
    /// Write `USER.md` and `MEMORY.md` although they exist.
    pub overwrite: bool,
    /// A token is at hand; without one, files that hold it cannot be written.
    pub has_token: bool,
}

/// What a workspace should hold.
#[derive(Clone, Debug)]
pub struct AgentGoal<'a> {
    /// The rendered files, for the dialect, with [`TOKEN_SENTINEL`] where the token goes.
    pub files: &'a BTreeMap<FileName, String>,
    /// When a file may be written.
    pub policy: FilePolicy,
}

/// Plans the writes that take a workspace to the goal.
pub fn plan_agent(goal: &AgentGoal<'_>, observed: &ObservedFiles, dialect: &Dialect) -> AgentPlan {
    let mut plan = AgentPlan::default();
    for (&file, text) in goal.files {
        if !dialect.has_file(file) {
            plan.warnings.push(format!(
                "{file} is not supported by this gateway and has no other home there"
            ));
            continue;
        }
        let Some(have) = observed.get(&file) else { continue };
        if !may_write(file, have, goal.policy) {
            continue;
        }
        let (write, expected_hash, why) = match have {
            ObservedFile::Missing => (FileWrite::Create, None, "missing"),
            ObservedFile::Present { digest, .. } if *digest == ObservedFile::digest(text) => continue,
            ObservedFile::Present { gateway_hash, .. } => (
                FileWrite::Replace,
                gateway_hash.clone(),
                "differs from the rendered template",
            ),
        };
        if text.contains(TOKEN_SENTINEL) && !goal.policy.has_token {
            plan.warnings.push(format!(
                "{file} holds the agent's token, which is not known, and is not written"
            ));
            continue;
        }
        plan.files.push(FileStep {
            file,
            write,
            text: text.clone(),
            expected_hash,
            why: why.into(),
        });
    }
    plan
}

/// Whether the rules of ownership allow a write of this file.
fn may_write(file: FileName, have: &ObservedFile, policy: FilePolicy) -> bool {
    let exists = *have != ObservedFile::Missing;
    match file {
        // They belong to the agent once they exist.
        FileName::User => !exists || policy.is_main || policy.overwrite,
        FileName::Memory => !exists || policy.overwrite,
        // The agent deletes it when it has read it; that is no drift.
        FileName::Bootstrap => exists || policy.first_provisioning || policy.force_bootstrap,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{Effect, RosterShape};

    fn dialect(retired: &[FileName]) -> Dialect {
        Dialect {
            protocol: 4,
            roster: RosterShape::Entries,
            heartbeat_keys: None,
            visibility: None,
            retired_files: retired.iter().copied().collect(),
            unlisted_files: BTreeSet::new(),
            channels_effect: Effect::None,
            roster_effect: Effect::Hot,
            heartbeat_effect: Effect::Hot,
            ownership_effect: Effect::Hot,
            tools_effect: Effect::Hot,
        }
    }

    fn check(file: FileName, have: &ObservedFile, policy: FilePolicy, expected: Option<FileWrite>) {
        let files = BTreeMap::from([(file, "new".to_owned())]);
        let observed = BTreeMap::from([(file, have.clone())]);
        let plan = plan_agent(&AgentGoal { files: &files, policy }, &observed, &dialect(&[]));
        assert_eq!(
            plan.files.first().map(|step| step.write),
            expected,
            "{file} {have:?} {policy:?}"
        );
    }

    #[test]
    fn files_are_written_where_they_differ_and_left_where_they_belong_to_the_agent() {
        let policy = FilePolicy {
            has_token: true,
            ..FilePolicy::default()
        };
        let other = ObservedFile::present("old", Some("h".into()));
        let same = ObservedFile::present("new\n", None);
        let (create, replace) = (Some(FileWrite::Create), Some(FileWrite::Replace));
        for file in FileName::ALL {
            check(file, &same, policy, None);
        }
        for file in [
            FileName::Agents,
            FileName::Soul,
            FileName::Tools,
            FileName::Identity,
            FileName::Heartbeat,
        ] {
            check(file, &ObservedFile::Missing, policy, create);
            check(file, &other, policy, replace);
        }
        for file in [FileName::User, FileName::Memory] {
            check(file, &ObservedFile::Missing, policy, create);
            check(file, &other, policy, None);
            check(
                file,
                &other,
                FilePolicy {
                    overwrite: true,
                    ..policy
                },
                replace,
            );
        }
        let main = FilePolicy {
            is_main: true,
            ..policy
        };
        check(FileName::User, &other, main, replace);
        check(FileName::Memory, &other, main, None);
    }

    #[test]
    fn bootstrap_is_written_first_or_forced_or_while_it_still_exists() {
        let policy = FilePolicy::default();
        let file = FileName::Bootstrap;
        check(file, &ObservedFile::Missing, policy, None);
        check(
            file,
            &ObservedFile::present("old", None),
            policy,
            Some(FileWrite::Replace),
        );
        check(
            file,
            &ObservedFile::Missing,
            FilePolicy {
                first_provisioning: true,
                ..policy
            },
            Some(FileWrite::Create),
        );
        check(
            file,
            &ObservedFile::Missing,
            FilePolicy {
                force_bootstrap: true,
                ..policy
            },
            Some(FileWrite::Create),
        );
    }

    #[test]
    fn a_file_that_holds_the_token_waits_for_one_and_says_so() {
        let files = BTreeMap::from([
            (FileName::Agents, "plain".to_owned()),
            (FileName::Tools, format!("AUTH_TOKEN={TOKEN_SENTINEL}")),
        ]);
        let observed = BTreeMap::from([
            (FileName::Agents, ObservedFile::Missing),
            (FileName::Tools, ObservedFile::Missing),
        ]);
        let mut goal = AgentGoal {
            files: &files,
            policy: FilePolicy::default(),
        };
        let plan = plan_agent(&goal, &observed, &dialect(&[]));
        assert_eq!(plan.files.len(), 1);
        assert_eq!(plan.warnings.len(), 1);
        goal.policy.has_token = true;
        assert_eq!(plan_agent(&goal, &observed, &dialect(&[])).files.len(), 2);
    }

    #[test]
    fn a_retired_file_is_told_and_not_written() {
        let files = BTreeMap::from([(FileName::Tools, "text".to_owned())]);
        let observed = BTreeMap::from([(FileName::Tools, ObservedFile::Missing)]);
        let goal = AgentGoal {
            files: &files,
            policy: FilePolicy::default(),
        };
        let plan = plan_agent(&goal, &observed, &dialect(&[FileName::Tools]));
        assert!(plan.files.is_empty());
        assert_eq!(plan.warnings.len(), 1);
    }

    #[test]
    fn a_replacement_carries_the_hash_that_was_read() {
        let files = BTreeMap::from([(FileName::Soul, "new".to_owned())]);
        let observed = BTreeMap::from([(FileName::Soul, ObservedFile::present("old", Some("h1".into())))]);
        let goal = AgentGoal {
            files: &files,
            policy: FilePolicy::default(),
        };
        let plan = plan_agent(&goal, &observed, &dialect(&[]));
        assert_eq!(plan.files[0].expected_hash.as_deref(), Some("h1"));
    }
}
