//! What a fleet file can say.
//!
//! Fields have the names of the columns that they are about. One that is left out is left alone: an object that is there
//! keeps what it has, a new one gets the default. `null` takes a value away.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::problem::Mark;

/// What an exported file says in the place of a token that the database holds. It is taken for "as it is".
pub const STORED_TOKEN: &str =
    "in the database; to keep it elsewhere write env:OPENCLAW_GATEWAY_TOKEN_<NAME> or file:<path>";

/// A value that knows where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marked<T> {
    /// Where.
    pub at: Mark,
    /// What.
    pub value: T,
}

impl<T> Marked<T> {
    /// A value that stands nowhere yet.
    pub fn new(value: T) -> Self {
        Self {
            at: Mark::default(),
            value,
        }
    }
}

impl<T: Serialize> Serialize for Marked<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Marked<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// A field that can be left out.
pub type Field<T> = Option<Marked<T>>;

/// A field that can be left out, or be `null`.
pub type Nullable<T> = Option<Marked<Option<T>>>;

/// A fleet: organisations with their gateways, boards and agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The version of this format: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "version")]
    pub version: Field<u64>,
    /// The organisations. Whatever belongs to an organisation that is not named here is left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub organizations: Vec<Organization>,
    /// Texts by name, for agents that share them: `soul_template: {template: <name>}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub templates: BTreeMap<String, String>,
}

/// An organisation, found by its id, or else by its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// Where it begins.
    #[serde(skip)]
    #[schemars(skip)]
    pub at: Mark,
    /// Its number among all objects of the file. An alias can put two of them into one place.
    #[serde(skip)]
    #[schemars(skip)]
    pub key: usize,
    /// Its primary key; made if it is left out and there is no organisation of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    pub id: Field<Uuid>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Field<String>,
    /// The person for whom agents' files are rendered. Made if the organisation has no owner; one that it has is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub gateways: Vec<Gateway>,
    /// Its boards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub boards: Vec<Board>,
}

/// The owner of an organisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Where it begins.
    #[serde(skip)]
    #[schemars(skip)]
    pub at: Mark,
    /// Its number among all objects of the file. An alias can put two of them into one place.
    #[serde(skip)]
    #[schemars(skip)]
    pub key: usize,
    /// The user's unique name at whoever signs people in (`clerk_user_id`); a user of this name is taken if there is one.
    pub user: Marked<String>,
    /// E-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub email: Nullable<String>,
    /// Full name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub name: Nullable<String>,
    /// What the agents are to call them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub preferred_name: Nullable<String>,
    /// Pronouns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub pronouns: Nullable<String>,
    /// Time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub timezone: Nullable<String>,
    /// Notes for the agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub notes: Nullable<String>,
    /// What the agents should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub context: Nullable<String>,
}

/// A gateway, found by its id, or else by its name within the organisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Where it begins.
    #[serde(skip)]
    #[schemars(skip)]
    pub at: Mark,
    /// Its number among all objects of the file. An alias can put two of them into one place.
    #[serde(skip)]
    #[schemars(skip)]
    pub key: usize,
    /// Its primary key; made if it is left out and the organisation has no gateway of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    pub id: Field<Uuid>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Field<String>,
    /// Where it is: `ws://` or `wss://`. A new gateway needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub url: Field<String>,
    /// Where its token is: `env:OPENCLAW_GATEWAY_TOKEN_<NAME>` or `file:<path>`; never the token itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "token")]
    pub token: Nullable<String>,
    /// The directory on its host below which workspaces lie. A new gateway needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub workspace_root: Field<String>,
    /// Connect as a control UI, without a device identity. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub disable_device_pairing: Field<bool>,
    /// Accept any TLS certificate. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub allow_insecure_tls: Field<bool>,
    /// Its main agent: an agent without a board.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub agents: Vec<Agent>,
}

/// A board, found by its id, or else by its name within the organisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Where it begins.
    #[serde(skip)]
    #[schemars(skip)]
    pub at: Mark,
    /// Its number among all objects of the file. An alias can put two of them into one place.
    #[serde(skip)]
    #[schemars(skip)]
    pub key: usize,
    /// Its primary key; made if it is left out and the organisation has no board of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    pub id: Field<Uuid>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Field<String>,
    /// Its name in URLs. Default: made of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub slug: Nullable<String>,
    /// The name (or id) of the gateway that its agents live on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Nullable<String>,
    /// `general`, `goal`, … Default: general.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub board_type: Nullable<String>,
    /// What it is for. Default: empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub description: Field<String>,
    /// What is to be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub objective: Nullable<String>,
    /// By what success is told: anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Value")]
    pub success_metrics: Nullable<Value>,
    /// When (UTC): `2027-01-31`, or `2027-01-31T12:00:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub target_date: Nullable<Instant>,
    /// Whether somebody has confirmed the goal. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<bool>")]
    pub goal_confirmed: Nullable<bool>,
    /// A rule. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<bool>")]
    pub require_approval_for_done: Nullable<bool>,
    /// A rule. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<bool>")]
    pub require_review_before_done: Nullable<bool>,
    /// A rule. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<bool>")]
    pub block_status_changes_with_pending_approval: Nullable<bool>,
    /// A rule. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<bool>")]
    pub only_lead_can_change_status: Nullable<bool>,
    /// A rule. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<bool>")]
    pub comment_required_for_review: Nullable<bool>,
    /// How many agents it may have. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub max_agents: Field<i32>,
    /// The name of the lead that the controller makes for it, if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub lead_name: Nullable<String>,
    /// Overrides of that lead's identity profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub lead_identity: Nullable<Value>,
    /// Its agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub agents: Vec<Agent>,
}

/// An agent, found by its id, or else by its name within its board or gateway; a board's lead and a gateway's main agent also
/// by being that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Where it begins.
    #[serde(skip)]
    #[schemars(skip)]
    pub at: Mark,
    /// Its number among all objects of the file. An alias can put two of them into one place.
    #[serde(skip)]
    #[schemars(skip)]
    pub key: usize,
    /// Its primary key, of which its id on the gateway is made; made if it is left out and there is no such agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    pub id: Field<Uuid>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Field<String>,
    /// Whether it leads its board. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub is_board_lead: Field<bool>,
    /// Overlay for the default heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub heartbeat_config: Nullable<Value>,
    /// Overrides of the identity variables of templates: `role`, `emoji`, `communication_style`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub identity_profile: Nullable<Value>,
    /// Replaces the template of IDENTITY.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub identity_template: Nullable<Text>,
    /// Replaces the template of SOUL.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub soul_template: Nullable<Text>,
}

/// A template: its text, or the name of one of `templates`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Text {
    /// The text itself.
    Inline(String),
    /// One that several agents share.
    Named(Named),
}

/// The name of one of the file's templates.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The name.
    pub template: String,
}

/// A time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant(pub chrono::NaiveDateTime);

impl Instant {
    /// Understands a date, or a date and a time.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('Z');
        text.parse()
            .ok()
            .or_else(|| text.replacen(' ', "T", 1).parse().ok())
            .or_else(|| text.parse::<chrono::NaiveDate>().ok()?.and_hms_opt(0, 0, 0))
            .map(Self)
    }
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%dT%H:%M:%S%.f"))
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The schema of an id.
struct Id;

impl JsonSchema for Id {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "format": "uuid" })
    }
}

fn version(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "const": 1 })
}

fn token(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": ["string", "null"],
        "pattern": "^(env:OPENCLAW_GATEWAY_TOKEN_[A-Za-z0-9_]+|file:.+|in the database.*)$"
    })
}
