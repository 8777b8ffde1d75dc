//! What a simulated gateway does about a woken agent: it runs none, but can tell whoever plays the agents.

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;

use super::state::State;
use crate::token;

/// An agent whose main session got a message.
pub struct Woken {
    /// Its id on the gateway.
    pub agent: String,
    /// The token that its file holds, if there is one.
    pub token: Option<SecretString>,
}

/// Called for every message that starts a run in an agent's main session, in a task of its own.
#[derive(Clone)]
pub(super) struct WakeHook(Arc<dyn Fn(Woken) + Send + Sync>);

impl WakeHook {
    pub(super) fn new(hook: impl Fn(Woken) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }
}

impl fmt::Debug for WakeHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WakeHook")
    }
}

/// Tells of a message to this session.
pub(super) fn tell(state: &State, session_key: &str) {
    let agent = session_key
        .strip_prefix("agent:")
        .and_then(|rest| rest.strip_suffix(":main"));
    let (Some(hook), Some(agent)) = (state.on_wake.clone(), agent) else {
        return;
    };
    let entry = state.roster().into_iter().find(|entry| entry.id == agent);
    let workspace = entry.and_then(|entry| state.workspaces.get(&state.workspace(&entry)));
    let file = state.dialect.expected().token_file();
    let token = workspace
        .and_then(|files| files.get(file.as_str()))
        .and_then(|file| token::extract(&file.text).tokens().first().cloned());
    let woken = Woken {
        agent: agent.to_owned(),
        token,
    };
    // The caller holds the state's lock.
    tokio::spawn(async move { (hook.0)(woken) });
}
