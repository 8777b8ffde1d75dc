//! Reading an agent's workspace: one listing as a fingerprint, and only the files whose fingerprint is new.

use std::collections::BTreeMap;

use futures::future::{try_join, try_join_all};
use secrecy::{ExposeSecret, SecretString};

use super::memory::{AgentMemory, Fingerprint, RememberedFile};
use super::session::Session;
use super::spec::AgentSpec;
use crate::gateway::GatewayError;
use crate::model::{FileContent, FileName, FileStat};
use crate::plan::{ObservedFile, ObservedFiles};
use crate::token::{self, Extracted};

/// Stands for the digest of a file of which it matters only that it exists.
const NOT_READ: [u8; 32] = [0; 32];

/// Stands for a token that is not the agent's, where texts are shown.
const OTHER_TOKEN: &str = "(another token)";

/// The file that holds the token, as far as the token is concerned.
pub(super) enum TokenFile {
    /// It was not read again: it is the same as when the remembered token was verified.
    Unchanged,
    /// It does not exist.
    Missing,
    /// It was read. The digest tells whether it has changed since.
    Read { extracted: Extracted, digest: [u8; 32] },
}

/// How much of a workspace is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Only files whose listing changed since they were read.
    Changed,
    /// Those, and files that are never listed: nothing else tells that one of them changed.
    Unlisted,
    /// All of them.
    All,
}

/// A workspace as read.
pub(super) struct Workspace {
    listed: BTreeMap<String, FileStat>,
    read: BTreeMap<FileName, FileContent>,
    remembered: BTreeMap<FileName, RememberedFile>,
    pub(super) token_file: TokenFile,
}

impl Workspace {
    /// Reads what is new in the workspace of an agent. `files` are those that are desired; `how` says what of them is read
    /// although it may be known.
    pub(super) async fn read(
        session: &Session,
        agent: &AgentSpec,
        files: impl Iterator<Item = FileName>,
        memory: &AgentMemory,
        how: Reading,
    ) -> Result<Self, GatewayError> {
        let id = &agent.gateway_agent_id;
        let dialect = &session.dialect;
        let token_file = dialect.token_file();
        let mut wanted: Vec<_> = files.filter(|file| dialect.has_file(*file)).collect();
        if !wanted.contains(&token_file) {
            wanted.push(token_file);
        }
        let get = async |file| {
            let content = session.client.files_get(id, file).await?;
            Ok::<_, GatewayError>((file, content))
        };
        let (unlisted, wanted): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|file| dialect.unlisted_files.contains(file));
        let mut remembered = BTreeMap::new();
        let mut at_once = Vec::new();
        for file in unlisted {
            match memory.files.get(&file) {
                Some(known) if how == Reading::Changed && file != token_file => {
                    remembered.insert(file, known.clone());
                }
                _ => at_once.push(file),
            }
        }
        // What is never listed need not wait for the list.
        let at_once = try_join_all(at_once.into_iter().map(get));
        let (listed, unlisted) = try_join(session.client.files_list(id), at_once).await?;
        let listed: BTreeMap<_, _> = listed.into_iter().map(|stat| (stat.name.clone(), stat)).collect();
        let mut to_read = Vec::new();
        for file in wanted {
            let Some(stat) = listed.get(file.as_str()).filter(|stat| !stat.missing) else {
                continue;
            };
            if how != Reading::All && belongs_to_the_agent(file, agent) {
                continue;
            }
            let fingerprint = Fingerprint::of(stat);
            let known = memory
                .files
                .get(&file)
                .filter(|known| fingerprint.is_some() && known.fingerprint == fingerprint);
            let token_known = file != token_file || memory.token.is_some();
            if let (true, true, Some(known)) = (how != Reading::All, token_known, known) {
                remembered.insert(file, known.clone());
                continue;
            }
            to_read.push(file);
        }
        let read: BTreeMap<_, _> = try_join_all(to_read.into_iter().map(get))
            .await?
            .into_iter()
            .chain(unlisted)
            .collect();
        let token_file = match (read.get(&token_file), remembered.contains_key(&token_file)) {
            (Some(content), _) if !content.missing => TokenFile::Read {
                extracted: token::extract(&content.text),
                digest: ObservedFile::digest(&content.text),
            },
            (None, true) => TokenFile::Unchanged,
            _ => TokenFile::Missing,
        };
        Ok(Self {
            listed,
            read,
            remembered,
            token_file,
        })
    }

    /// A workspace of which nothing can be read but what is given.
    pub(super) fn unknown(token_file: TokenFile) -> Self {
        Self {
            listed: BTreeMap::new(),
            read: BTreeMap::new(),
            remembered: BTreeMap::new(),
            token_file,
        }
    }

    /// Whether the file that is to hold this token was read and does not, or is not there.
    pub(super) fn has_lost(&self, token: &SecretString) -> bool {
        match &self.token_file {
            TokenFile::Unchanged => false,
            TokenFile::Missing => true,
            TokenFile::Read { extracted, .. } => {
                let mut found = extracted.tokens().iter();
                !found.any(|there| there.expose_secret() == token.expose_secret())
            }
        }
    }

    /// Whether anything was not read because it seemed unchanged.
    pub(super) fn has_remembered(&self) -> bool {
        !self.remembered.is_empty()
    }

    /// The files as the planner compares them, with this token replaced by the sentinel.
    pub(super) fn observed(
        &self,
        files: impl Iterator<Item = FileName>,
        token: Option<&SecretString>,
    ) -> ObservedFiles {
        files
            .map(|file| {
                let observed = if let Some(content) = self.read.get(&file) {
                    present(content, token)
                } else if let Some(known) = self.remembered.get(&file) {
                    known.file.clone()
                } else if self.listed.get(file.as_str()).is_some_and(|stat| !stat.missing) {
                    ObservedFile::Present {
                        digest: NOT_READ,
                        gateway_hash: None,
                    }
                } else {
                    ObservedFile::Missing
                };
                (file, observed)
            })
            .collect()
    }

    /// The text of a file with the token replaced by the sentinel, if it was read. It is meant to be shown: tokens that are
    /// not the agent's are taken out as well, for they may be somebody's.
    pub(super) fn text(&self, file: FileName, token: Option<&SecretString>) -> Option<String> {
        let content = self.read.get(&file)?;
        let text = token::redact(&content.text, token.map(ExposeSecret::expose_secret));
        // A token may stand in one file as an assignment and in another within a command.
        let others = self.read.values().map(|content| token::extract(&content.text));
        Some(others.fold(text, |text, found| {
            let tokens = found.tokens().iter();
            tokens.fold(text, |text, other| text.replace(other.expose_secret(), OTHER_TOKEN))
        }))
    }

    /// What to remember of the files that were found, under this token.
    pub(super) fn to_remember(&self, token: Option<&SecretString>) -> BTreeMap<FileName, RememberedFile> {
        let mut files = self.remembered.clone();
        for (file, content) in &self.read {
            let fingerprint = match self.listed.get(file.as_str()) {
                Some(stat) => match Fingerprint::of(stat) {
                    Some(fingerprint) => Some(fingerprint),
                    // Listed in a way that shows no change: it has to be read every time.
                    None => continue,
                },
                None => None,
            };
            let file_read = RememberedFile {
                fingerprint,
                file: present(content, token),
                written_in: None,
            };
            files.insert(*file, file_read);
        }
        files
    }
}

fn present(content: &FileContent, token: Option<&SecretString>) -> ObservedFile {
    if content.missing {
        return ObservedFile::Missing;
    }
    let text = token::redact(&content.text, token.map(ExposeSecret::expose_secret));
    ObservedFile::present(&text, content.hash.clone())
}

/// Whether the file is left alone once it exists, so that its text need not be read.
fn belongs_to_the_agent(file: FileName, agent: &AgentSpec) -> bool {
    match file {
        FileName::Memory => true,
        FileName::User => !agent.role.is_main(),
        _ => false,
    }
}
