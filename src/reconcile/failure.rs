//! Why a look at an agent ended early.

use std::fmt;

use crate::gateway::GatewayError;
use crate::model::FileName;
use crate::store::StoreError;

/// Why a look at an agent ended early.
pub(super) enum AgentFailure {
    /// The gateway's answer.
    Gateway(GatewayError),
    /// A file does not hold what was written.
    NotKept(FileName),
    /// Somebody else wrote a file between our look and our write, which the gateway has refused therefore.
    Overtaken(FileName, GatewayError),
    /// The database's answer.
    Store(StoreError),
    /// Another program changed the token's hash meanwhile.
    TokenRace,
    /// A hash could not be computed.
    Token(String),
    /// The agent has left its place meanwhile.
    Departed,
}

impl fmt::Display for AgentFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(error) => error.fmt(f),
            Self::NotKept(file) => {
                write!(
                    f,
                    "{file} was written and does not hold what was written; something else may be writing it"
                )
            }
            Self::Overtaken(file, error) => write!(f, "something else was faster to write {file}: {error}"),
            Self::Store(error) => error.fmt(f),
            Self::TokenRace => f.write_str("another program changed the agent's token hash meanwhile"),
            Self::Token(message) => f.write_str(message),
            Self::Departed => f.write_str("the agent has left its place meanwhile"),
        }
    }
}

impl From<GatewayError> for AgentFailure {
    fn from(error: GatewayError) -> Self {
        Self::Gateway(error)
    }
}

impl From<StoreError> for AgentFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
