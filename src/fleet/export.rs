//! From rows to a file that changes nothing when it is applied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use secrecy::ExposeSecret;
use serde_json::Value;
use uuid::Uuid;

use super::check;
use super::model::{
    Agent, Board, Field, Fleet, Gateway, Instant, Marked, Named, Nullable, Organization, Owner, STORED_TOKEN, Text,
};
use super::rows::{AgentRow, BoardRow, GatewayRow, OrganizationRow, Rows};
use crate::model::{JsonColumn, TokenSetting};

/// What the file begins with.
const HEADER: &str = "\
# A fleet of openclaw-controller, as its database said it. `openclaw-controller apply -f` this file changes nothing.
# What is left out is left alone; `null` takes a value away. Keep the ids: agents are known on their gateways by them.
";

/// Longer lines than this are not broken: a diff of two files would show the whole text.
const NEVER_FOLDED: usize = 1 << 30;

/// A file, and what is not in it.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The YAML.
    pub yaml: String,
    /// What was left out, for whom it may concern.
    pub notes: Vec<String>,
}

/// Writes these organisations, or all of them, as a file.
///
/// # Errors
/// When the text cannot be made; says why.
pub fn export(rows: &Rows, only: Option<&BTreeSet<Uuid>>) -> Result<Exported, String> {
    let mut exporter = Exporter::new(rows);
    let fleet = exporter.fleet(only);
    let options = serde_saphyr::ser_options! { folded_wrap_chars: NEVER_FOLDED };
    let yaml = serde_saphyr::to_string_with_options(&fleet, options).map_err(|error| error.to_string())?;
    Ok(Exported {
        yaml: format!("{HEADER}{yaml}"),
        notes: exporter.notes,
    })
}

struct Exporter<'a> {
    rows: &'a Rows,
    /// The names of texts that several agents have.
    shared: HashMap<&'a str, String>,
    gateways: HashMap<Uuid, &'a GatewayRow>,
    notes: Vec<String>,
}

impl<'a> Exporter<'a> {
    fn new(rows: &'a Rows) -> Self {
        Self {
            rows,
            shared: HashMap::new(),
            gateways: rows.gateways.iter().map(|row| (row.id, row)).collect(),
            notes: Vec::new(),
        }
    }

    fn fleet(&mut self, only: Option<&BTreeSet<Uuid>>) -> Fleet {
        let rows = self.rows;
        let wanted = |id: Uuid| only.is_none_or(|only| only.contains(&id));
        let homeless = |id: Option<Uuid>| !rows.organizations.iter().any(|row| Some(row.id) == id);
        for (kind, count) in [
            (
                "gateway",
                rows.gateways.iter().filter(|row| homeless(row.organization_id)).count(),
            ),
            (
                "board",
                rows.boards.iter().filter(|row| homeless(row.organization_id)).count(),
            ),
        ] {
            if count > 0 && only.is_none() {
                self.notes
                    .push(format!("{count} {kind}(s) that belong to no organization are left out"));
            }
        }
        let mut by_board: HashMap<Uuid, Vec<&AgentRow>> = HashMap::new();
        let mut by_gateway: HashMap<Uuid, Vec<&AgentRow>> = HashMap::new();
        for row in rows.agents.iter().filter(|row| row.delete_requested_at.is_none()) {
            match row.board_id {
                Some(board) => by_board.entry(board).or_default().push(row),
                None => by_gateway.entry(row.gateway_id).or_default().push(row),
            }
        }
        let in_order = || {
            rows.organizations.iter().filter(|row| wanted(row.id)).map(|row| {
                let gateways: Vec<_> = rows
                    .gateways
                    .iter()
                    .filter(|it| it.organization_id == Some(row.id))
                    .collect();
                let boards: Vec<_> = rows
                    .boards
                    .iter()
                    .filter(|it| it.organization_id == Some(row.id))
                    .collect();
                (row, gateways, boards)
            })
        };
        let nobody = Vec::new();
        let mut agents: Vec<&AgentRow> = Vec::new();
        for (_, gateways, boards) in in_order() {
            agents.extend(gateways.iter().flat_map(|it| by_gateway.get(&it.id).unwrap_or(&nobody)));
            agents.extend(boards.iter().flat_map(|it| by_board.get(&it.id).unwrap_or(&nobody)));
        }
        let templates = self.share(&agents);
        let organizations = in_order()
            .map(|(row, gateways, boards)| {
                let gateways = gateways
                    .iter()
                    .map(|it| self.gateway(it, by_gateway.get(&it.id).unwrap_or(&nobody)))
                    .collect();
                let boards = boards
                    .iter()
                    .map(|it| self.board(it, by_board.get(&it.id).unwrap_or(&nobody)))
                    .collect();
                Organization {
                    id: field(row.id),
                    name: row.name.clone().and_then(field),
                    owner: owner(row),
                    gateways,
                    boards,
                    ..Organization::default()
                }
            })
            .collect();
        Fleet {
            version: field(1),
            organizations,
            templates,
        }
    }

    /// Gives those texts a name that are long and that several agents have.
    fn share(&mut self, agents: &[&'a AgentRow]) -> BTreeMap<String, String> {
        let mut uses: HashMap<&str, usize> = HashMap::new();
        let texts = || {
            agents
                .iter()
                .flat_map(|row| [("identity", &row.identity_template), ("soul", &row.soul_template)])
                .filter_map(|(kind, text)| Some((kind, text.as_deref()?)))
                .filter(|(_, text)| text.contains('\n'))
        };
        for (_, text) in texts() {
            *uses.entry(text).or_default() += 1;
        }
        let mut templates = BTreeMap::new();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (kind, text) in texts() {
            if uses.get(text).is_some_and(|count| *count > 1) && !self.shared.contains_key(text) {
                let count = counts.entry(kind).or_default();
                *count += 1;
                let name = format!("{kind}-{count}");
                self.shared.insert(text, name.clone());
                templates.insert(name, text.to_owned());
            }
        }
        templates
    }

    fn gateway(&mut self, row: &GatewayRow, agents: &[&AgentRow]) -> Gateway {
        let token = row
            .token
            .as_ref()
            .map(ExposeSecret::expose_secret)
            .filter(|token| !token.is_empty());
        let url = check::without_secrets(&row.url);
        if url.is_some() {
            self.notes.push(format!(
                "the URL of gateway {} has a query, which may hold a secret and is left out; the file says so in its place",
                row.id
            ));
        }
        Gateway {
            id: field(row.id),
            name: row.name.clone().and_then(field),
            url: field(url.unwrap_or_else(|| row.url.clone())),
            token: token.and_then(|token| {
                let shown = if TokenSetting::of(token).is_plausible() {
                    token
                } else {
                    STORED_TOKEN
                };
                field(Some(shown.to_owned()))
            }),
            workspace_root: field(row.workspace_root.clone()),
            disable_device_pairing: field(row.disable_device_pairing),
            allow_insecure_tls: field(row.allow_insecure_tls),
            agents: agents.iter().map(|it| self.agent(it)).collect(),
            ..Gateway::default()
        }
    }

    fn board(&mut self, row: &BoardRow, agents: &[&AgentRow]) -> Board {
        let about = |column: &str| format!("{column} of board {}", row.id);
        Board {
            id: field(row.id),
            name: row.name.clone().and_then(field),
            slug: field(row.slug.clone()),
            gateway: row
                .gateway_id
                .and_then(|id| field(Some(self.home(id, row.organization_id)))),
            board_type: field(row.board_type.clone()),
            description: field(row.description.clone()),
            objective: nullable(row.objective.clone()),
            success_metrics: self.json(&row.success_metrics, || about("success_metrics")),
            target_date: nullable(row.target_date.map(Instant)),
            goal_confirmed: field(row.goal_confirmed),
            require_approval_for_done: field(row.require_approval_for_done),
            require_review_before_done: field(row.require_review_before_done),
            block_status_changes_with_pending_approval: field(row.block_status_changes_with_pending_approval),
            only_lead_can_change_status: field(row.only_lead_can_change_status),
            comment_required_for_review: field(row.comment_required_for_review),
            max_agents: field(row.max_agents),
            lead_name: nullable(row.lead_name.clone()),
            lead_identity: self.object(&row.lead_identity, || about("lead_identity")),
            agents: agents.iter().map(|it| self.agent(it)).collect(),
            ..Board::default()
        }
    }

    /// How a board names its gateway: by name, where that is one gateway of the same organisation, or else by id.
    fn home(&self, gateway: Uuid, organization: Option<Uuid>) -> String {
        let Some(row) = self.gateways.get(&gateway) else {
            return gateway.to_string();
        };
        let here = |other: &&GatewayRow| other.organization_id == organization && other.name == row.name;
        match &row.name {
            Some(name)
                if row.organization_id == organization && self.rows.gateways.iter().filter(here).count() == 1 =>
            {
                name.clone()
            }
            _ => gateway.to_string(),
        }
    }

    fn agent(&mut self, row: &AgentRow) -> Agent {
        let about = |column: &str| format!("{column} of agent {}", row.id);
        let text = |text: &Option<String>| {
            let text = text.as_ref()?;
            field(Some(match self.shared.get(text.as_str()) {
                Some(name) => Text::Named(Named { template: name.clone() }),
                None => Text::Inline(text.clone()),
            }))
        };
        let (identity_template, soul_template) = (text(&row.identity_template), text(&row.soul_template));
        Agent {
            id: field(row.id),
            name: row.name.clone().and_then(field),
            is_board_lead: row.is_board_lead.then(|| Marked::new(true)),
            heartbeat_config: self.object(&row.heartbeat_config, || about("heartbeat_config")),
            identity_profile: self.object(&row.identity_profile, || about("identity_profile")),
            identity_template,
            soul_template,
            ..Agent::default()
        }
    }

    /// A column of JSON; one that cannot be read is left out, and so left alone.
    fn json(&mut self, column: &JsonColumn, about: impl Fn() -> String) -> Nullable<Value> {
        match column {
            None => None,
            Some(Ok(value)) => field(Some(value.clone())),
            Some(Err(problem)) => {
                self.notes
                    .push(format!("{} is left out, since it cannot be read: {problem}", about()));
                None
            }
        }
    }

    /// The same for a column that a file can only say as a mapping.
    fn object(&mut self, column: &JsonColumn, about: impl Fn() -> String) -> Nullable<Value> {
        if let Some(Ok(value)) = column
            && !value.is_object()
        {
            self.notes
                .push(format!("{} is left out, since it is no JSON object", about()));
            return None;
        }
        self.json(column, about)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "fields are options")]
fn field<T>(value: T) -> Field<T> {
    Some(Marked::new(value))
}

/// A value, unless it is null in a column where new rows have null anyway.
fn nullable<T>(value: Option<T>) -> Nullable<T> {
    value.map(|value| Marked::new(Some(value)))
}

fn owner(row: &OrganizationRow) -> Option<Owner> {
    let (user, it) = row.owner.as_ref()?;
    Some(Owner {
        user: Marked::new(user.clone()),
        email: nullable(it.email.clone()),
        name: nullable(it.name.clone()),
        preferred_name: nullable(it.preferred_name.clone()),
        pronouns: nullable(it.pronouns.clone()),
        timezone: nullable(it.timezone.clone()),
        notes: nullable(it.notes.clone()),
        context: nullable(it.context.clone()),
        ..Owner::default()
    })
}
