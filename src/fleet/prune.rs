//! What is in the database and not in the file.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::change::{Action, Change, Plan, Table};
use super::find::Finds;
use super::model::Fleet;
use super::rows::{AgentRow, Rows};

/// Adds what has to go: of the organisations that the file names, all that it does not.
///
/// Agents are not deleted but asked to go, since only the controller can take them from their gateways; their rows, and
/// whatever these refer to, can go once that is done.
pub(super) fn prune(fleet: &Fleet, rows: &Rows, finds: &Finds, homes: &HashMap<Uuid, Option<Uuid>>, plan: &mut Plan) {
    let ids =
        |finds: &HashMap<usize, super::find::Found>| finds.values().map(|found| found.id()).collect::<HashSet<_>>();
    let mut pruner = Pruner {
        rows,
        organizations: ids(&finds.organizations),
        gateways: ids(&finds.gateways),
        boards: ids(&finds.boards),
        agents: ids(&finds.agents),
        led: fleet
            .organizations
            .iter()
            .flat_map(|it| &it.boards)
            .filter(|it| {
                let leads = |lead: &super::model::Marked<bool>| lead.value;
                it.agents
                    .iter()
                    .any(|agent| agent.is_board_lead.as_ref().is_some_and(leads))
            })
            .filter_map(|it| finds.boards.get(&it.key).map(|found| found.id()))
            .collect(),
        names: rows
            .organizations
            .iter()
            .map(|row| (row.id, row.name.as_deref().unwrap_or("(unnamed)")))
            .collect(),
        staying: Vec::new(),
    };
    pruner.agents(plan);
    pruner.boards(plan);
    pruner.gateways(homes, plan);
}

struct Pruner<'a> {
    rows: &'a Rows,
    /// What the file names, by kind.
    organizations: HashSet<Uuid>,
    gateways: HashSet<Uuid>,
    boards: HashSet<Uuid>,
    agents: HashSet<Uuid>,
    /// Boards for which the file names a lead.
    led: HashSet<Uuid>,
    names: HashMap<Uuid, &'a str>,
    /// Agents whose rows are there after this plan.
    staying: Vec<&'a AgentRow>,
}

impl<'a> Pruner<'a> {
    fn name(&self, organization: Option<Uuid>, name: Option<&str>) -> String {
        let owner = organization
            .and_then(|id| self.names.get(&id))
            .copied()
            .unwrap_or("(unnamed)");
        format!("{owner} / {}", name.unwrap_or("(unnamed)"))
    }

    /// Whether it belongs to an organisation that the file names.
    fn is_ours(&self, organization: Option<Uuid>) -> bool {
        organization.is_some_and(|id| self.organizations.contains(&id))
    }

    fn agents(&mut self, plan: &mut Plan) {
        let boards: HashMap<Uuid, _> = self.rows.boards.iter().map(|row| (row.id, row)).collect();
        let gateways: HashMap<Uuid, _> = self.rows.gateways.iter().map(|row| (row.id, row)).collect();
        let mut last_leads = Vec::new();
        for row in &self.rows.agents {
            let place = match row.board_id {
                Some(board) => boards
                    .get(&board)
                    .map(|board| (board.organization_id, board.name.as_deref())),
                None => gateways
                    .get(&row.gateway_id)
                    .map(|gateway| (gateway.organization_id, gateway.name.as_deref())),
            };
            let Some((organization, place)) = place.filter(|(organization, _)| self.is_ours(*organization)) else {
                self.staying.push(row);
                continue;
            };
            // The controller makes a lead for a board that has none: one that the file does not name is its business.
            let is_ensured = row.is_board_lead
                && row
                    .board_id
                    .is_some_and(|board| self.boards.contains(&board) && !self.led.contains(&board));
            if self.agents.contains(&row.id) || is_ensured {
                self.staying.push(row);
                continue;
            }
            let name = format!(
                "{} / {}",
                self.name(organization, place),
                row.name.as_deref().unwrap_or("(unnamed)")
            );
            let action = match row.delete_requested_at {
                None => Action::RequestRemoval,
                Some(_) if !row.is_gone => {
                    plan.notes.push(format!(
                        "agent {name}: its removal was requested, and the controller has not taken it from its gateway yet"
                    ));
                    self.staying.push(row);
                    continue;
                }
                Some(_) => match self.references(Table::Agents, row.id) {
                    None => Action::Delete,
                    Some(why) => {
                        plan.notes.push(format!(
                            "agent {name}: it is gone from its gateway, and its row stays: {why}"
                        ));
                        self.staying.push(row);
                        continue;
                    }
                },
            };
            if action == Action::RequestRemoval {
                self.staying.push(row);
            }
            match row
                .board_id
                .filter(|board| row.is_board_lead && !self.boards.contains(board))
            {
                Some(board) if action == Action::Delete => last_leads.push((row, board, name)),
                _ => plan.changes.push(change(Table::Agents, row.id, name, action)),
            }
        }
        self.last_leads(last_leads, plan);
    }

    /// The controller gives a board that has no lead a new one, so the row of its last one goes when the board does.
    fn last_leads(&mut self, leads: Vec<(&'a AgentRow, Uuid, String)>, plan: &mut Plan) {
        let with_boards: HashSet<Uuid> = leads.iter().map(|(_, board, _)| *board).collect();
        let staying: HashSet<Uuid> = with_boards
            .into_iter()
            .filter(|board| {
                self.staying.iter().any(|agent| agent.board_id == Some(*board))
                    || self.references(Table::Boards, *board).is_some()
            })
            .collect();
        for (row, board, name) in leads {
            if staying.contains(&board) {
                plan.notes.push(format!(
                    "agent {name}: it is gone from its gateway, and its row goes when its board does, which would be given \
                     another lead before{}",
                    self.references(Table::Boards, board)
                        .map(|why| format!(": {why}"))
                        .unwrap_or_default()
                ));
                self.staying.push(row);
            } else {
                plan.changes.push(change(Table::Agents, row.id, name, Action::Delete));
            }
        }
    }

    fn boards(&self, plan: &mut Plan) {
        for row in &self.rows.boards {
            if self.boards.contains(&row.id) || !self.is_ours(row.organization_id) {
                continue;
            }
            let name = self.name(row.organization_id, row.name.as_deref());
            let agents = self
                .staying
                .iter()
                .filter(|agent| agent.board_id == Some(row.id))
                .count();
            let why = agents_in_the_way(agents).or_else(|| self.references(Table::Boards, row.id));
            match why {
                Some(why) => plan.notes.push(format!("board {name}: stays for now: {why}")),
                None => plan.changes.push(change(Table::Boards, row.id, name, Action::Delete)),
            }
        }
    }

    fn gateways(&self, homes: &HashMap<Uuid, Option<Uuid>>, plan: &mut Plan) {
        let deleted: HashSet<Uuid> = plan.deletions().into_iter().map(|(_, id)| id).collect();
        for row in &self.rows.gateways {
            if self.gateways.contains(&row.id) || !self.is_ours(row.organization_id) {
                continue;
            }
            let name = self.name(row.organization_id, row.name.as_deref());
            let lives_here = |board: &super::rows::BoardRow| {
                homes.get(&board.id).copied().unwrap_or(board.gateway_id) == Some(row.id)
                    && !deleted.contains(&board.id)
            };
            let board = self.rows.boards.iter().find(|board| lives_here(board));
            let agents = self.staying.iter().filter(|agent| agent.gateway_id == row.id).count();
            let why = board
                .map(|board| {
                    format!(
                        "board {} is on it",
                        self.name(board.organization_id, board.name.as_deref())
                    )
                })
                .or_else(|| agents_in_the_way(agents))
                .or_else(|| self.references(Table::Gateways, row.id));
            match why {
                Some(why) => plan.notes.push(format!("gateway {name}: stays for now: {why}")),
                None => plan.changes.push(change(Table::Gateways, row.id, name, Action::Delete)),
            }
        }
    }

    /// Why other tables keep a row from being deleted.
    fn references(&self, table: Table, id: Uuid) -> Option<String> {
        let tables = self.rows.references.get(&(table, id))?;
        let all: Vec<String> = tables
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(table, count)| format!("{table} ({count})"))
            .collect();
        (!all.is_empty()).then(|| {
            format!(
                "rows of other tables refer to it, which are not this command's to delete: {}",
                all.join(", ")
            )
        })
    }
}

fn agents_in_the_way(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("an agent's row refers to it; prune again once the controller has removed the agent".to_owned()),
        count => Some(format!(
            "the rows of {count} agents refer to it; prune again once the controller has removed them"
        )),
    }
}

fn change(table: Table, id: Uuid, name: String, action: Action) -> Change {
    Change {
        table,
        id,
        name,
        action,
        fields: Vec::new(),
    }
}
