//! Rendering as a whole: what rows, templates and dialects together give.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::model::{
    AgentId, AgentRequests, AgentRole, AgentRow, Board, BoardId, Dialect, Effect, FileName, GatewayAgentId, GatewayId,
    GatewayRow, RosterShape, TOKEN_SENTINEL, User, Visibility, session_key,
};
use crate::token::{Extracted, extract, insert, mint};

mod built_in;
mod rows;
mod templates;

const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(0x1));
const BOARD: BoardId = BoardId(Uuid::from_u128(0x2));
const AGENT: AgentId = AgentId(Uuid::from_u128(0x3));
const ROLES: [AgentRole; 3] = [AgentRole::Worker(BOARD), AgentRole::Lead(BOARD), AgentRole::Main];

pub(in crate::render) fn agent(role: AgentRole) -> AgentRow {
    AgentRow {
        id: AGENT,
        board_id: (!role.is_main()).then_some(BOARD),
        gateway_id: GATEWAY,
        name: "Ada <& Co>".to_owned(),
        status: "online".to_owned(),
        session_key: None,
        token_hash: None,
        heartbeat_config: None,
        identity_profile: None,
        identity_template: None,
        soul_template: None,
        delete_requested_at: None,
        last_seen_at: None,
        is_board_lead: role.is_lead(),
        last_provision_error: None,
        created_at: "2026-01-01T00:00:00".parse().unwrap(),
        requests: AgentRequests::default(),
    }
}

/// A gateway with all eight files.
pub(in crate::render) fn legacy() -> Dialect {
    Dialect {
        protocol: 3,
        roster: RosterShape::List,
        heartbeat_keys: None,
        visibility: Some(Visibility::Heartbeat),
        retired_files: BTreeSet::new(),
        unlisted_files: BTreeSet::new(),
        channels_effect: Effect::Restart,
        roster_effect: Effect::Hot,
        heartbeat_effect: Effect::Hot,
        ownership_effect: Effect::Hot,
        tools_effect: Effect::Hot,
    }
}

/// A gateway without `TOOLS.md` and `HEARTBEAT.md`.
pub(in crate::render) fn modern() -> Dialect {
    let keys = ["every", "target", "model", "prompt", "activeHours"];
    Dialect {
        protocol: 4,
        roster: RosterShape::Entries,
        heartbeat_keys: Some(keys.into_iter().map(str::to_owned).collect()),
        visibility: Some(Visibility::HeartbeatVisibility),
        retired_files: BTreeSet::from([FileName::Tools, FileName::Heartbeat]),
        unlisted_files: BTreeSet::from([FileName::Identity]),
        channels_effect: Effect::None,
        ..legacy()
    }
}

fn gateway() -> GatewayRow {
    GatewayRow {
        id: GATEWAY,
        organization_id: Uuid::from_u128(0x4),
        name: "Gateway".to_owned(),
        url: "ws://localhost:1".to_owned(),
        token: None,
        workspace_root: "/srv/ws/".to_owned(),
        disable_device_pairing: false,
        allow_insecure_tls: false,
        created_at: "2026-01-01T00:00:00".parse().unwrap(),
    }
}

fn board() -> Board {
    Board {
        id: BOARD,
        organization_id: Uuid::from_u128(0x4),
        name: "Launch".to_owned(),
        slug: "launch".to_owned(),
        gateway_id: Some(GATEWAY),
        board_type: "goal".to_owned(),
        objective: Some("Ship it".to_owned()),
        success_metrics: Some(Ok(json!({"users": 100, "words": ["a", "ü"]}))),
        target_date: Some("2026-12-31T18:00:00".parse().unwrap()),
        goal_confirmed: false,
        require_approval_for_done: true,
        require_review_before_done: false,
        block_status_changes_with_pending_approval: false,
        only_lead_can_change_status: false,
        comment_required_for_review: true,
        max_agents: 4,
        paused: false,
    }
}

fn owner() -> User {
    User {
        id: Uuid::from_u128(0x5),
        email: Some("grace@example.org".to_owned()),
        name: Some(" Grace Hopper ".to_owned()),
        preferred_name: Some(" Amazing Grace".to_owned()),
        pronouns: Some("she/her".to_owned()),
        timezone: Some("Europe/Berlin".to_owned()),
        notes: None,
        context: Some("Likes short answers.".to_owned()),
    }
}

/// Rows to render from, each of which a test may change.
struct World {
    gateway: GatewayRow,
    agent: AgentRow,
    board: Board,
    owner: Option<User>,
}

impl World {
    fn new(role: AgentRole) -> Self {
        Self {
            gateway: gateway(),
            agent: agent(role),
            board: board(),
            owner: Some(owner()),
        }
    }

    fn render(&self, set: &TemplateSet, dialect: &Dialect) -> Rendered {
        let role = self.agent.role();
        let id = GatewayAgentId::derive(role, AGENT, GATEWAY);
        let main = GatewayAgentId::derive(AgentRole::Main, AGENT, GATEWAY);
        let input = RenderInput {
            gateway: &self.gateway,
            agent: &self.agent,
            role,
            gateway_agent_id: &id,
            board: Some(&self.board).filter(|_| !role.is_main()),
            owner: self.owner.as_ref(),
            base_url: "http://control.example:8080",
            main_session_key: &session_key(&main),
        };
        render(set, &input, dialect)
    }

    /// What a row's soul template renders to, or the error of SOUL.md.
    fn soul(&mut self, template: &str) -> Result<String, FileError> {
        self.agent.soul_template = Some(template.to_owned());
        let mut rendered = self.render(&TemplateSet::builtin(), &legacy());
        match rendered.errors.pop() {
            Some(error) => {
                assert_eq!((error.file, rendered.errors.len()), (FileName::Soul, 0), "{error:?}");
                assert_eq!(rendered.files.get(&FileName::Soul), None);
                assert!(rendered.files.len() >= 6, "the other files are rendered");
                Err(error)
            }
            None => Ok(rendered.files.remove(&FileName::Soul).unwrap_or_default()),
        }
    }
}

fn set_of(files: &[(&str, &str)]) -> TemplateSet {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), files);
    TemplateSet::load(dir.path()).unwrap()
}

fn write_files(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
