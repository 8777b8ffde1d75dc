//! The variables that templates may use, from the rows.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use minijinja::value::{Object, Value as Jinja};
use minijinja::{Error, ErrorKind};
use serde_json::Value;

use super::python;
use crate::model::{
    AgentRole, AgentRow, Board, GatewayAgentId, GatewayRow, TOKEN_SENTINEL, User, break_sentinel, session_key,
    workspace_path,
};

/// Keys of `identity_profile` that become `identity_<key>`, with the value used where the row gives none.
const IDENTITY: [(&str, &str); 10] = [
    ("role", "Generalist"),
    ("communication_style", "direct, concise, practical"),
    ("emoji", ":gear:"),
    ("autonomy_level", ""),
    ("verbosity", ""),
    ("output_format", ""),
    ("update_cadence", ""),
    ("purpose", ""),
    ("personality", ""),
    ("custom_instructions", ""),
];

/// What one agent's files are rendered from.
#[derive(Clone, Copy, Debug)]
pub struct RenderInput<'a> {
    /// The gateway that the agent lives on.
    pub gateway: &'a GatewayRow,
    /// The agent.
    pub agent: &'a AgentRow,
    /// What it is for.
    pub role: AgentRole,
    /// Its id on the gateway.
    pub gateway_agent_id: &'a GatewayAgentId,
    /// Its board; `None` for a main agent.
    pub board: Option<&'a Board>,
    /// The organisation's owner, for whom the files are written; their variables are empty without one.
    pub owner: Option<&'a User>,
    /// What agents call, without a slash at the end: the address of the API with the check-in.
    pub base_url: &'a str,
    /// The session key of the gateway's main agent.
    pub main_session_key: &'a str,
}

/// Why a variable has no value: a fault of a row. It fails the files that use the variable, and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// A CamelCase word.
    pub(super) reason: &'static str,
    /// The same for people, with what to do.
    pub(super) message: String,
}

/// The variables of one agent.
#[derive(Clone, Debug)]
pub(super) struct Variables {
    values: Arc<BTreeMap<String, Result<String, Fault>>>,
}

impl Variables {
    pub(super) fn new(input: &RenderInput<'_>) -> Self {
        let mut values = BTreeMap::new();
        add_common(&mut values, input);
        add_user(&mut values, input.owner);
        add_identity(&mut values, input.agent);
        if let Some(board) = input.board.filter(|_| !input.role.is_main()) {
            add_board(&mut values, input, board);
        }
        // A literal sentinel in a row is not a place for the token.
        let mut values: BTreeMap<String, Result<String, Fault>> = values
            .into_iter()
            .map(|(name, value)| (name, value.map(|text| break_sentinel(&text))))
            .collect();
        values.insert("auth_token".to_owned(), Ok(TOKEN_SENTINEL.to_owned()));
        Self {
            values: Arc::new(values),
        }
    }

    /// The context for one rendering, which remembers the first fault that was met.
    pub(super) fn context(&self) -> Arc<Context> {
        Arc::new(Context {
            values: Arc::clone(&self.values),
            met: OnceLock::new(),
        })
    }
}

/// The variables as one rendering sees them.
#[derive(Debug)]
pub(super) struct Context {
    values: Arc<BTreeMap<String, Result<String, Fault>>>,
    met: OnceLock<Fault>,
}

impl Context {
    /// The first variable without a value that was looked at, if any.
    pub(super) fn met(&self) -> Option<&Fault> {
        self.met.get()
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        Some(match self.values.get(key.as_str()?)? {
            Ok(text) => Jinja::from(text.as_str()),
            Err(fault) => {
                let met = self.met.get_or_init(|| fault.clone());
                Jinja::from(Error::new(ErrorKind::InvalidOperation, met.message.clone()))
            }
        })
    }
}

type Values = BTreeMap<String, Result<String, Fault>>;

fn add(values: &mut Values, name: &str, value: impl Into<String>) {
    values.insert(name.to_owned(), Ok(value.into()));
}

fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn add_common(values: &mut Values, input: &RenderInput<'_>) {
    add(values, "agent_name", &input.agent.name);
    add(values, "agent_id", input.agent.id.to_string());
    add(values, "session_key", session_key(input.gateway_agent_id));
    add(values, "base_url", input.base_url);
    add(values, "main_session_key", input.main_session_key);
    add(values, "workspace_root", &input.gateway.workspace_root);
    add(values, "is_main_agent", flag(input.role.is_main()));
}

fn add_user(values: &mut Values, user: Option<&User>) {
    let field = |get: fn(&User) -> &Option<String>| user.and_then(|user| get(user).as_deref()).unwrap_or_default();
    let name = field(|user| &user.name).trim();
    let email = field(|user| &user.email).trim();
    let full_name = if name.is_empty() { email } else { name };
    let first_word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    let preferred = match first_word(field(|user| &user.preferred_name)) {
        preferred if !preferred.is_empty() => preferred,
        _ if full_name.contains('@') => local_part(full_name),
        _ => first_word(full_name),
    };
    add(values, "user_name", full_name);
    add(values, "user_preferred_name", preferred);
    add(values, "user_pronouns", field(|user| &user.pronouns));
    add(values, "user_timezone", field(|user| &user.timezone));
    add(values, "user_notes", field(|user| &user.notes));
    add(values, "user_context", field(|user| &user.context));
}

/// What stands before the `@` of an e-mail address, or all of it if nothing does.
fn local_part(email: &str) -> String {
    let local = email.split('@').next().unwrap_or_default().trim();
    if local.is_empty() { email } else { local }.to_owned()
}

fn add_identity(values: &mut Values, agent: &AgentRow) {
    let profile = match &agent.identity_profile {
        None | Some(Ok(Value::Null)) => Ok(None),
        Some(Ok(Value::Object(profile))) => Ok(Some(profile)),
        Some(Ok(other)) => Err(profile_fault(&format!("is {}, not an object", kind(other)))),
        Some(Err(error)) => Err(profile_fault(&format!("cannot be parsed: {error}"))),
    };
    for (key, default) in IDENTITY {
        let value = match &profile {
            Ok(profile) => match profile.and_then(|profile| profile.get(key)) {
                None => Ok(None),
                Some(value) => profile_text(value)
                    .map_err(|wrong| profile_fault(&format!("has {wrong} under \"{key}\", which must be text"))),
            },
            Err(fault) => Err(fault.clone()),
        };
        let value = value.map(|text| text.unwrap_or_else(|| default.to_owned()));
        values.insert(format!("identity_{key}"), value);
    }
}

fn profile_fault(what: &str) -> Fault {
    Fault {
        reason: "InvalidProfile",
        message: format!(
            "agents.identity_profile {what}; give an object with text, numbers, booleans or lists of them"
        ),
    }
}

/// The text of a value in a profile, `None` if it is as good as absent, or what is wrong with it.
fn profile_text(value: &Value) -> Result<Option<String>, &'static str> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(scalar).collect::<Result<_, _>>()?;
            let parts: Vec<&str> = parts
                .iter()
                .map(|part| part.trim())
                .filter(|part| !part.is_empty())
                .collect();
            parts.join(", ")
        }
        other => scalar(other)?.trim().to_owned(),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn scalar(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(flag(*value).to_owned()),
        Value::Number(number) => Ok(python::number(number)),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(kind(value)),
    }
}

/// What a JSON value is, for people.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn add_board(values: &mut Values, input: &RenderInput<'_>, board: &Board) {
    add(values, "board_id", board.id.to_string());
    add(values, "board_name", &board.name);
    add(values, "board_type", &board.board_type);
    add(
        values,
        "board_objective",
        board.objective.as_deref().unwrap_or_default(),
    );
    let metrics = match &board.success_metrics {
        Some(Ok(metrics)) if !python::is_falsy(metrics) => Ok(python::json(metrics)),
        None | Some(Ok(_)) => Ok("{}".to_owned()),
        Some(Err(error)) => Err(Fault {
            reason: "InvalidSuccessMetrics",
            message: format!(
                "boards.success_metrics of board {} cannot be parsed: {error}; correct the row",
                board.id
            ),
        }),
    };
    values.insert("board_success_metrics".to_owned(), metrics);
    let target_date = board.target_date.map(python::isoformat);
    add(values, "board_target_date", target_date.unwrap_or_default());
    for (name, value) in [
        ("board_goal_confirmed", board.goal_confirmed),
        ("is_board_lead", input.role.is_lead()),
        ("board_rule_require_approval_for_done", board.require_approval_for_done),
        (
            "board_rule_require_review_before_done",
            board.require_review_before_done,
        ),
        (
            "board_rule_comment_required_for_review",
            board.comment_required_for_review,
        ),
        (
            "board_rule_block_status_changes_with_pending_approval",
            board.block_status_changes_with_pending_approval,
        ),
        (
            "board_rule_only_lead_can_change_status",
            board.only_lead_can_change_status,
        ),
    ] {
        add(values, name, flag(value));
    }
    add(values, "board_rule_max_agents", board.max_agents.to_string());
    let workspace = workspace_path(&input.gateway.workspace_root, input.gateway_agent_id).ok_or_else(|| Fault {
        reason: "NoWorkspaceRoot",
        message: format!(
            "gateways.workspace_root of gateway {} is empty; set it",
            input.gateway.id
        ),
    });
    values.insert("workspace_path".to_owned(), workspace);
    add(values, "directory_role_soul_markdown", "");
    add(values, "directory_role_soul_source_url", "");
}
