//! Writing an agent's files: each once, and read back.

use std::collections::BTreeMap;

use futures::future::join_all;
use secrecy::{ExposeSecret, SecretString};

use super::failure::AgentFailure;
use super::memory::{Fingerprint, KnownToken, RememberedFile};
use super::session::Session;
use super::spec::AgentSpec;
use super::tokens::TokenUse;
use super::world::World;
use crate::gateway::{Connector, ErrorClass, SetOutcome};
use crate::model::{AgentPlan, FileName, FileStat, FileStep, TOKEN_SENTINEL};
use crate::plan::ObservedFile;
use crate::store::Store;
use crate::token;

impl<S: Store, C: Connector> World<S, C> {
    /// Writes files, several at a time, and checks what the gateway answers. Returns what to remember of them.
    pub(super) async fn write_files(
        &self,
        session: &Session,
        agent: &AgentSpec,
        steps: &[FileStep],
        token: Option<&SecretString>,
        look: u64,
    ) -> Result<BTreeMap<FileName, RememberedFile>, AgentFailure> {
        let id = &agent.gateway_agent_id;
        let results = join_all(steps.iter().map(async |step| {
            let text = match token {
                Some(token) if step.text.contains(TOKEN_SENTINEL) => token::insert(&step.text, token),
                _ => step.text.clone(),
            };
            tracing::debug!(agent = %agent.row.id, file = %step.file, why = step.why, "writing");
            let expected = step.expected_hash.as_deref();
            let answer = session.client.files_set(id, step.file, &text, expected).await;
            let answer = answer.map_err(|error| match error.class() {
                ErrorClass::Conflict => AgentFailure::Overtaken(step.file, error),
                _ => AgentFailure::Gateway(error),
            })?;
            if confirms(&answer, &text) {
                tracing::debug!(agent = %agent.row.id, file = %step.file, "read back equal");
                let stat = FileStat {
                    name: step.file.to_string(),
                    missing: false,
                    size: answer.size,
                    updated_at_ms: answer.updated_at_ms,
                };
                let file = ObservedFile::present(&step.text, answer.hash.clone());
                return Ok((
                    step.file,
                    Fingerprint::of(&stat).map(|fingerprint| RememberedFile {
                        fingerprint: Some(fingerprint),
                        file,
                        written_in: Some(look),
                    }),
                ));
            }
            // The answer says too little: read it back.
            let content = session.client.files_get(id, step.file).await?;
            if content.missing || content.text != text {
                return Err(AgentFailure::NotKept(step.file));
            }
            tracing::debug!(agent = %agent.row.id, file = %step.file, "read back equal");
            Ok((step.file, None))
        }))
        .await;
        let mut written = BTreeMap::new();
        for result in results {
            if let (file, Some(remembered)) = result? {
                written.insert(file, remembered);
            }
        }
        Ok(written)
    }

    /// After the writes: reads the token file back if it was written, and makes a new token the agent's. `false` if there is a
    /// new token that no file holds yet. `departures` is what the agent's memory counted when the look began.
    pub(super) async fn settled(
        &self,
        agent: &AgentSpec,
        session: &Session,
        token: &TokenUse,
        plan: &AgentPlan,
        files: &mut BTreeMap<FileName, RememberedFile>,
        departures: u64,
    ) -> Result<bool, AgentFailure> {
        let id = agent.row.id;
        let file = session.dialect.token_file();
        let wrote_token = plan
            .files
            .iter()
            .any(|step| step.file == file && step.text.contains(TOKEN_SENTINEL));
        let Some(secret) = &token.token else { return Ok(true) };
        if wrote_token {
            let content = session.client.files_get(&agent.gateway_agent_id, file).await?;
            let found = token::extract(&content.text);
            let holds = found
                .tokens()
                .iter()
                .any(|token| token.expose_secret() == secret.expose_secret());
            if content.missing || !holds {
                files.remove(&file);
                return Err(AgentFailure::NotKept(file));
            }
        }
        let hash = match &token.promote {
            Some(promotion) if wrote_token || promotion.in_file => {
                let expected = promotion.expected_current.as_deref();
                if !self
                    .store
                    .promote(&self.fence, id, expected, &promotion.candidate)
                    .await?
                {
                    return Err(AgentFailure::TokenRace);
                }
                self.promoted(agent, promotion).await?;
                Some(promotion.candidate.hash.clone())
            }
            Some(_) => return Ok(false),
            None => token.verified_hash.clone(),
        };
        if let Some(hash) = hash {
            let mut state = self.state();
            let memory = state.agents.entry(id).or_default();
            if memory.departures != departures {
                return Err(AgentFailure::Departed);
            }
            memory.token = Some(KnownToken {
                token: secret.clone(),
                hash,
            });
            memory.minted = None;
            memory.token_file_unchanged_since = None;
        }
        Ok(true)
    }
}

/// Whether the answer to a write shows that the file holds what was written: by its text, or by its hash (hex SHA-256 where
/// gateways give one). Both may be of what was sent; the size is of what was there a moment later.
fn confirms(answer: &SetOutcome, text: &str) -> bool {
    if answer.size.is_some_and(|size| size != text.len() as u64) {
        return false;
    }
    match (&answer.text, &answer.hash) {
        (Some(there), _) => there == text,
        (None, Some(hash)) => *hash == token::fingerprint(text),
        (None, None) => false,
    }
}
