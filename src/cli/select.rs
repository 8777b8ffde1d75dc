//! Which agents something is asked for.

use clap::Args;

use super::reference::References;
use crate::store::AgentSelector;

/// Which agents: by one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// This agent: its id, the beginning of that, or its name; may be given several times.
    #[arg(long, value_name = "AGENT")]
    agent: Vec<String>,

    /// The agents of this board; may be given several times.
    #[arg(long, value_name = "BOARD")]
    board: Vec<String>,

    /// The agents of this gateway's boards, and its main agent; may be given several times.
    #[arg(long, value_name = "GATEWAY")]
    gateway: Vec<String>,

    /// Every agent.
    #[arg(long)]
    all: bool,
}

impl Which {
    /// The agents that are meant.
    pub(super) fn selector(&self, references: &References) -> anyhow::Result<AgentSelector> {
        Ok(if !self.agent.is_empty() {
            AgentSelector::Agents(References::each(&self.agent, |agent| references.agent(agent))?)
        } else if !self.board.is_empty() {
            AgentSelector::Boards(References::each(&self.board, |board| references.board(board))?)
        } else if !self.gateway.is_empty() {
            AgentSelector::Gateways(References::each(&self.gateway, |gateway| references.gateway(gateway))?)
        } else {
            AgentSelector::All
        })
    }
}
