//! What differs between a file and the rows.

use std::collections::{HashMap, HashSet};

use secrecy::ExposeSecret;
use uuid::Uuid;

use super::change::{Action, Cell, Plan, Table};
use super::columns::{Columns, agent_columns, board_columns, columns, given_json, json};
use super::find::{Finds, find};
use super::model::{Agent, Board, Fleet, Gateway, Marked, Nullable, Organization};
use super::problem::{Mark, Problem};
use super::rows::Rows;
use super::{check, prune};
use crate::model::{AgentId, AgentRole, BoardId, GatewayAgentId, GatewayId, session_key, slug};

/// How many agents a new board may have, unless the file says so.
const MAX_AGENTS: i32 = 5;

/// What has to be written so that the rows say what the file says. Deterministic: `new_id` gives the id of a new object by its
/// key, and has to give the same for the same key.
///
/// # Errors
/// Everything that is wrong with the file, given these rows, in the order of the lines.
pub fn diff(
    fleet: &Fleet,
    rows: &Rows,
    prune: bool,
    mut new_id: impl FnMut(usize) -> Uuid,
) -> Result<Plan, Vec<Problem>> {
    let mut problems = Vec::new();
    let finds = find(fleet, rows, &mut new_id, &mut problems);
    let mut differ = Differ {
        fleet,
        rows,
        finds: &finds,
        problems,
        plan: Plan::default(),
        homes: HashMap::new(),
    };
    for organization in &fleet.organizations {
        differ.organization(organization, &mut new_id);
    }
    for (organization, gateway) in each(fleet, |it| &it.gateways) {
        differ.gateway(organization, gateway);
    }
    for (organization, board) in each(fleet, |it| &it.boards) {
        differ.board(organization, board);
    }
    for (organization, gateway) in each(fleet, |it| &it.gateways) {
        let place = Place {
            name: path(&[&organization.name, &gateway.name]),
            board: None,
            gateway: finds.gateways.get(&gateway.key).map(|found| found.id()),
            moved_from: None,
        };
        for agent in &gateway.agents {
            differ.agent(&place, agent);
        }
    }
    for (organization, board) in each(fleet, |it| &it.boards) {
        let Some(found) = finds.boards.get(&board.key).copied() else {
            continue;
        };
        let home = differ.homes.get(&found.id()).copied().flatten();
        let before = found.row().and_then(|index| rows.boards[index].gateway_id);
        let place = Place {
            name: path(&[&organization.name, &board.name]),
            board: Some(found.id()),
            gateway: home,
            moved_from: before.filter(|_| before != home),
        };
        for agent in &board.agents {
            differ.agent(&place, agent);
        }
        differ.followers(&place);
    }
    let Differ {
        mut problems,
        mut plan,
        homes,
        ..
    } = differ;
    if !problems.is_empty() {
        problems.sort();
        problems.dedup();
        return Err(problems);
    }
    if prune {
        prune::prune(fleet, rows, &finds, &homes, &mut plan);
    }
    Ok(plan)
}

fn each<'a, T: 'a>(
    fleet: &'a Fleet,
    of: fn(&Organization) -> &Vec<T>,
) -> impl Iterator<Item = (&'a Organization, &'a T)> {
    fleet
        .organizations
        .iter()
        .flat_map(move |it| of(it).iter().map(move |object| (it, object)))
}

/// Where agents are listed.
struct Place {
    name: String,
    board: Option<Uuid>,
    gateway: Option<Uuid>,
    /// The gateway that the board leaves by this plan.
    moved_from: Option<Uuid>,
}

pub(super) struct Differ<'a> {
    fleet: &'a Fleet,
    pub(super) rows: &'a Rows,
    finds: &'a Finds,
    problems: Vec<Problem>,
    pub(super) plan: Plan,
    /// The gateway of each board of the file.
    homes: HashMap<Uuid, Option<Uuid>>,
}

impl Differ<'_> {
    pub(super) fn tell(&mut self, at: Mark, message: impl Into<String>) {
        self.problems.push(Problem::new(at, message));
    }

    /// The name of an object: a new one needs one, and whoever gives one gives a real one.
    fn name(&mut self, columns: &mut Columns, at: Mark, given: Option<&Marked<String>>, stored: Option<&String>) {
        let is_new = columns.is_new;
        match given {
            None if is_new => self.tell(
                at,
                "there is nothing with this id in the database, and something new needs a `name`",
            ),
            None => {}
            Some(name) => {
                let written = columns.set(
                    "name",
                    || Cell::Text(stored.cloned()),
                    Some(Cell::Text(Some(name.value.clone()))),
                );
                if written && name.value.trim().is_empty() {
                    self.tell(name.at, "a name is not blank");
                } else if written && name.value.chars().any(char::is_control) {
                    self.tell(name.at, "a name has one line, and no control characters");
                }
            }
        }
    }

    fn organization(&mut self, it: &Organization, new_id: &mut dyn FnMut(usize) -> Uuid) {
        let Some(found) = self.finds.organizations.get(&it.key).copied() else {
            return;
        };
        let row = found.row().map(|index| &self.rows.organizations[index]);
        let mut columns = columns(found);
        self.name(
            &mut columns,
            it.at,
            it.name.as_ref(),
            row.and_then(|row| row.name.as_ref()),
        );
        let shown = path(&[&it.name]);
        self.plan
            .changes
            .extend(columns.into_change(Table::Organizations, found.id(), shown.clone()));
        let Some(owner) = &it.owner else {
            return;
        };
        match row.and_then(|row| row.owner.as_ref()) {
            None => self.owner(owner, found.id(), &shown, new_id),
            Some((user, stored)) => {
                let same = |given: &Nullable<String>, stored: &Option<String>| {
                    given.as_ref().is_none_or(|given| given.value == *stored)
                };
                let is_same = *user == owner.user.value
                    && same(&owner.email, &stored.email)
                    && same(&owner.name, &stored.name)
                    && same(&owner.preferred_name, &stored.preferred_name)
                    && same(&owner.pronouns, &stored.pronouns)
                    && same(&owner.timezone, &stored.timezone)
                    && same(&owner.notes, &stored.notes)
                    && same(&owner.context, &stored.context);
                if !is_same {
                    self.plan.notes.push(format!(
                        "organization {shown}: it has an owner who is not as the file says, and is left alone: people's data is \
                         theirs"
                    ));
                }
            }
        }
    }

    /// The organisation that an object of the file is listed in.
    fn owned_by(&self, columns: &mut Columns, organization: &Organization, stored: Option<Uuid>) {
        let id = self.finds.organizations.get(&organization.key).map(|found| found.id());
        columns.set("organization_id", || Cell::Id(stored), Some(Cell::Id(id)));
    }

    fn gateway(&mut self, organization: &Organization, it: &Gateway) {
        let Some(found) = self.finds.gateways.get(&it.key).copied() else {
            return;
        };
        let row = found.row().map(|index| &self.rows.gateways[index]);
        let mut columns = columns(found);
        self.owned_by(&mut columns, organization, row.and_then(|row| row.organization_id));
        self.name(
            &mut columns,
            it.at,
            it.name.as_ref(),
            row.and_then(|row| row.name.as_ref()),
        );
        if let Some(url) = &it.url {
            match check::meant_url(&url.value, row.map(|row| row.url.as_str())) {
                Ok(meant) => {
                    let problem = check::url(&meant);
                    let stored = || Cell::Text(row.map(|row| row.url.clone()));
                    if columns.set("url", stored, Some(Cell::Text(Some(meant))))
                        && let Some(problem) = problem
                    {
                        self.tell(url.at, problem);
                    }
                }
                Err(problem) => self.tell(url.at, problem),
            }
        } else if row.is_none() {
            self.tell(it.at, "a new gateway needs a `url`");
        }
        if let Some(root) = &it.workspace_root {
            let stored = || Cell::Text(row.map(|row| row.workspace_root.clone()));
            if columns.set("workspace_root", stored, Some(Cell::Text(Some(root.value.clone()))))
                && root.value.trim().is_empty()
            {
                self.tell(
                    root.at,
                    "`workspace_root` is a directory on the gateway's host, not blank",
                );
            }
        } else if row.is_none() {
            self.tell(it.at, "a new gateway needs a `workspace_root`: a directory on its host");
        }
        self.token(
            &mut columns,
            it,
            row.and_then(|row| row.token.as_ref()).map(ExposeSecret::expose_secret),
        );
        for (column, field, stored) in [
            (
                "disable_device_pairing",
                &it.disable_device_pairing,
                row.map(|row| row.disable_device_pairing),
            ),
            (
                "allow_insecure_tls",
                &it.allow_insecure_tls,
                row.map(|row| row.allow_insecure_tls),
            ),
        ] {
            let given = field.as_ref().map(|field| Cell::Bool(Some(field.value)));
            columns.set(column, || Cell::Bool(stored), given);
            columns.default(column, Cell::Bool(Some(false)));
        }
        let name = path(&[&organization.name, &it.name]);
        self.plan
            .changes
            .extend(columns.into_change(Table::Gateways, found.id(), name));
    }

    fn token(&mut self, columns: &mut Columns, it: &Gateway, stored: Option<&str>) {
        let Some(token) = &it.token else {
            return;
        };
        match &token.value {
            Some(text) if check::is_stored_token(text) => {
                if stored.is_none_or(str::is_empty) {
                    self.tell(
                        token.at,
                        "there is no token in the database that could be kept: write env:OPENCLAW_GATEWAY_TOKEN_<NAME> or \
                         file:<path>, or null",
                    );
                }
            }
            given => {
                if let Some(problem) = given.as_deref().and_then(check::token) {
                    self.tell(token.at, problem);
                }
                columns.set(
                    "token",
                    || Cell::Text(stored.map(ToOwned::to_owned)),
                    Some(Cell::Text(given.clone())),
                );
            }
        }
    }

    fn board(&mut self, organization: &Organization, it: &Board) {
        let Some(found) = self.finds.boards.get(&it.key).copied() else {
            return;
        };
        let row = found.row().map(|index| &self.rows.boards[index]);
        let mut columns = columns(found);
        self.owned_by(&mut columns, organization, row.and_then(|row| row.organization_id));
        self.name(
            &mut columns,
            it.at,
            it.name.as_ref(),
            row.and_then(|row| row.name.as_ref()),
        );
        let text = |field: &Nullable<String>| field.as_ref().map(|field| Cell::Text(field.value.clone()));
        columns.set(
            "slug",
            || Cell::Text(row.and_then(|row| row.slug.clone())),
            text(&it.slug),
        );
        let home = match &it.gateway {
            None => row.and_then(|row| row.gateway_id),
            Some(gateway) => {
                let home = match &gateway.value {
                    None => None,
                    Some(name) => self.home(organization, gateway.at, name),
                };
                let stored = row.and_then(|row| row.gateway_id);
                columns.set("gateway_id", || Cell::Id(stored), Some(Cell::Id(home)));
                home
            }
        };
        self.homes.insert(found.id(), home);
        board_columns(&mut columns, it, row);
        if let Some(most) = &it.max_agents {
            let stored = || Cell::Int(row.map_or(0, |row| row.max_agents));
            if columns.set("max_agents", stored, Some(Cell::Int(most.value))) && most.value < 0 {
                self.tell(most.at, "`max_agents` is not negative");
            }
        }
        let name = it.name.as_ref().map(|name| name.value.as_str()).unwrap_or_default();
        columns.default("slug", Cell::Text(Some(slug(name))));
        columns.default("board_type", Cell::Text(Some("general".to_owned())));
        columns.default("description", Cell::Text(Some(String::new())));
        columns.default("goal_confirmed", Cell::Bool(Some(false)));
        columns.default("require_approval_for_done", Cell::Bool(Some(true)));
        for column in [
            "require_review_before_done",
            "block_status_changes_with_pending_approval",
            "only_lead_can_change_status",
            "comment_required_for_review",
        ] {
            columns.default(column, Cell::Bool(Some(false)));
        }
        columns.default("max_agents", Cell::Int(MAX_AGENTS));
        let name = path(&[&organization.name, &it.name]);
        self.plan
            .changes
            .extend(columns.into_change(Table::Boards, found.id(), name.clone()));

        // Nothing chosen is the same as no row: both columns are compared, never made for their own sake.
        let mut settings = Columns {
            is_new: false,
            fields: Vec::new(),
        };
        settings.set(
            "lead_name",
            || Cell::Text(row.and_then(|row| row.lead_name.clone())),
            text(&it.lead_name),
        );
        settings.set(
            "lead_identity",
            || row.map_or(Cell::Json(None), |row| json(&row.lead_identity)),
            given_json(it.lead_identity.as_ref()),
        );
        self.plan.changes.extend(
            settings
                .into_change(Table::BoardSettings, found.id(), name)
                .map(|mut change| {
                    if row.is_none() {
                        change.action = Action::Create;
                        change.fields.iter_mut().for_each(|field| field.from = None);
                    }
                    change
                }),
        );
    }

    /// The gateway that a board's `gateway` names.
    fn home(&mut self, organization: &Organization, at: Mark, name: &str) -> Option<Uuid> {
        let owner = self.finds.organizations.get(&organization.key)?.id();
        let found = |gateway: &Gateway| self.finds.gateways.get(&gateway.key).map(|found| found.id());
        let mut these: Vec<Uuid> = organization
            .gateways
            .iter()
            .filter(|gateway| gateway.name.as_ref().is_some_and(|given| given.value == name))
            .filter_map(found)
            .collect();
        if these.is_empty() {
            // One that the file gives another name has no longer this one.
            let renamed: HashSet<Uuid> = each(self.fleet, |it| &it.gateways)
                .filter(|(_, gateway)| gateway.name.is_some())
                .filter_map(|(_, gateway)| found(gateway))
                .collect();
            these = self
                .rows
                .gateways
                .iter()
                .filter(|row| row.organization_id == Some(owner) && row.name.as_deref() == Some(name))
                .map(|row| row.id)
                .filter(|id| !renamed.contains(id))
                .collect();
        }
        if these.is_empty()
            && let Ok(id) = name.parse::<Uuid>()
            && (self.rows.gateways.iter().any(|row| row.id == id)
                || self.finds.gateways.values().any(|found| found.id() == id))
        {
            these.push(id);
        }
        match these[..] {
            [id] => Some(id),
            [] => {
                let message = format!(
                    "this organization has no gateway {name:?}, neither in this file nor in the database: add it below \
                     `gateways`, or name another one"
                );
                self.tell(at, message);
                None
            }
            _ => {
                let message = format!(
                    "{} gateways are called {name:?}: write the `id` of one instead",
                    these.len()
                );
                self.tell(at, message);
                None
            }
        }
    }

    fn agent(&mut self, place: &Place, it: &Agent) {
        let Some(found) = self.finds.agents.get(&it.key).copied() else {
            return;
        };
        let row = found.row().map(|index| &self.rows.agents[index]);
        let mut columns = columns(found);
        self.name(
            &mut columns,
            it.at,
            it.name.as_ref(),
            row.and_then(|row| row.name.as_ref()),
        );
        let moved = columns.set(
            "board_id",
            || Cell::Id(row.and_then(|row| row.board_id)),
            Some(Cell::Id(place.board)),
        );
        let stored = row.map(|row| row.gateway_id);
        // A board's own gateway counts wherever its agents' rows say something else; so these follow only when something moves.
        let follows = place.board.is_none() || moved || (stored.is_some() && stored == place.moved_from);
        match place.gateway {
            Some(gateway) if follows => {
                columns.set("gateway_id", || Cell::Id(stored), Some(Cell::Id(Some(gateway))));
            }
            None if row.is_none() => {
                self.tell(
                    it.at,
                    "this board has no gateway, so no agent can be made for it: give the board a `gateway`",
                );
            }
            _ => {}
        }
        agent_columns(&mut columns, self.fleet, it, row);
        if let Some(gateway) = place.gateway.filter(|_| row.is_none()) {
            let lead = it.is_board_lead.as_ref().is_some_and(|lead| lead.value);
            let role = match place.board.map(BoardId) {
                None => AgentRole::Main,
                Some(board) if lead => AgentRole::Lead(board),
                Some(board) => AgentRole::Worker(board),
            };
            let key = session_key(&GatewayAgentId::derive(role, AgentId(found.id()), GatewayId(gateway)));
            columns.default("openclaw_session_id", Cell::Text(Some(key)));
        }
        columns.default("status", Cell::Text(Some("provisioning".to_owned())));
        columns.default("is_board_lead", Cell::Bool(Some(false)));
        columns.default("lifecycle_generation", Cell::Int(0));
        columns.default("wake_attempts", Cell::Int(0));
        let own = it.name.as_ref().map(|name| name.value.as_str());
        let own = own
            .or_else(|| row.and_then(|row| row.name.as_deref()))
            .unwrap_or_default();
        let name = format!("{} / {own}", place.name);
        self.plan
            .changes
            .extend(columns.into_change(Table::Agents, found.id(), name));
    }

    /// The agents of a board that the file does not name follow it to another gateway like those that it does.
    fn followers(&mut self, place: &Place) {
        let (Some(board), Some(from), Some(to)) = (place.board, place.moved_from, place.gateway) else {
            return;
        };
        let named: HashSet<Uuid> = self.finds.agents.values().map(|found| found.id()).collect();
        let rows = self.rows.agents.iter();
        for row in rows.filter(|row| row.board_id == Some(board) && row.gateway_id == from && !named.contains(&row.id))
        {
            let mut columns = Columns {
                is_new: false,
                fields: Vec::new(),
            };
            columns.set("gateway_id", || Cell::Id(Some(from)), Some(Cell::Id(Some(to))));
            let name = format!("{} / {}", place.name, row.name.as_deref().unwrap_or("(unnamed)"));
            self.plan
                .changes
                .extend(columns.into_change(Table::Agents, row.id, name));
        }
    }
}

/// The names of an object and of what it belongs to.
fn path(names: &[&Option<Marked<String>>]) -> String {
    let names: Vec<&str> = names
        .iter()
        .map(|name| name.as_ref().map_or("(unnamed)", |name| name.value.as_str()))
        .collect();
    names.join(" / ")
}
