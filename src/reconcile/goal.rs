//! From specs to what the planner is asked for.

use std::collections::{BTreeSet, HashMap};

use super::spec::{AgentSpec, GatewaySpec};
use super::world::Settings;
use crate::model::{AgentId, Dialect, FileName, TOKEN_SENTINEL};
use crate::plan::{GatewayGoal, RosterGoal};
use crate::render::{self, RenderInput, Rendered, TemplateSet};

/// What a gateway's config should hold, and what had to be left out of it.
pub(super) struct ConfigGoal {
    pub(super) gateway: GatewayGoal,
    pub(super) warnings: Vec<String>,
}

/// The goal for a gateway's config. `refused` names agents whose heartbeats the gateway does not take.
pub(super) fn gateway(
    spec: &GatewaySpec,
    dialect: &Dialect,
    refused: &HashMap<AgentId, (String, String)>,
) -> ConfigGoal {
    let mut dropped = BTreeSet::new();
    let roster = spec
        .managed()
        .map(|agent| {
            let is_refused = refused
                .get(&agent.row.id)
                .is_some_and(|(digest, _)| *digest == agent.digest);
            let heartbeat = match render::heartbeat(&agent.row, dialect, render::heartbeat_prompt(dialect)) {
                Ok((heartbeat, keys)) if !is_refused => {
                    dropped.extend(keys);
                    Some(heartbeat)
                }
                // Told on the agent; its heartbeat stays what it is.
                _ => None,
            };
            RosterGoal {
                id: agent.gateway_agent_id.clone(),
                name: agent.row.name.clone(),
                workspace: agent.workspace.clone(),
                heartbeat,
            }
        })
        .collect();
    let mut warnings = Vec::new();
    if !dropped.is_empty() {
        let keys = dropped.into_iter().collect::<Vec<_>>().join(", ");
        warnings.push(format!(
            "this gateway does not know these heartbeat keys, they are left out: {keys}"
        ));
    }
    if dialect.visibility.is_none() {
        warnings.push("this gateway has no channel heartbeat visibility, it is left out".to_owned());
    }
    ConfigGoal {
        gateway: GatewayGoal {
            roster,
            ..GatewayGoal::default()
        },
        warnings,
    }
}

/// What is wrong with the heartbeat that an agent's row asks for, whatever the gateway.
pub(super) fn heartbeat_error(agent: &AgentSpec, dialect: &Dialect) -> Option<String> {
    render::heartbeat(&agent.row, dialect, render::heartbeat_prompt(dialect)).err()
}

/// The file that holds the agent's token, if its rendering does.
pub(super) fn token_home(rendered: &Rendered, dialect: &Dialect) -> Option<FileName> {
    let file = dialect.token_file();
    rendered
        .files
        .get(&file)
        .is_some_and(|text| text.contains(TOKEN_SENTINEL))
        .then_some(file)
}

/// An agent's files, rendered for a dialect.
pub(super) fn files(
    gateway: &GatewaySpec,
    agent: &AgentSpec,
    dialect: &Dialect,
    templates: &TemplateSet,
    settings: &Settings,
) -> Rendered {
    let main_session_key = gateway.main_session_key();
    let input = RenderInput {
        gateway: &gateway.snapshot.gateway,
        agent: &agent.row,
        role: agent.role,
        gateway_agent_id: &agent.gateway_agent_id,
        board: gateway.board(agent),
        owner: gateway.snapshot.owner.as_ref(),
        base_url: &settings.base_url,
        main_session_key: &main_session_key,
    };
    render::render(templates, &input, dialect)
}
