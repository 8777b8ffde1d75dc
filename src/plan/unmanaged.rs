//! Which agents of a gateway no row explains, what they are, and what to do about them.

use uuid::Uuid;

use crate::model::{
    AgentId, AgentRow, Board, BoardId, GatewayAgentId, GatewayId, GatewayRow, GatewaySnapshot, Leftover,
    LeftoverReason, RosterEntry, Unmanaged, UnmanagedReason, workspace_path,
};

/// Finds the agents of a gateway that no row explains: duplicates first, then leftovers, then those of others, each by id.
///
/// `fleet` is all that the rows say, `here` the gateway's part of it. Rows that are not managed at present (a paused board, a
/// removal under way) explain their agents all the same.
pub fn find_unmanaged(
    fleet: &[GatewaySnapshot],
    here: &GatewaySnapshot,
    roster: &[RosterEntry],
    leftovers: &[Leftover],
) -> Vec<Unmanaged> {
    let explained: Vec<Explained<'_>> = here.agents.iter().map(|row| Explained::new(here, row)).collect();
    let mut found: Vec<_> = roster
        .iter()
        .filter(|entry| !explained.iter().any(|agent| agent.id == entry.id))
        .map(|entry| {
            let leftover = leftovers.iter().find(|leftover| leftover.id == entry.id);
            let verdict = leftover.map_or_else(|| judge(fleet, here, entry, &explained), of_leftover);
            Unmanaged {
                gateway: here.gateway.id,
                id: entry.id.clone(),
                name: entry.name.clone(),
                workspace: entry.workspace.clone(),
                reason: verdict.reason,
                message: verdict.message,
                advice: verdict.advice,
                since: leftover.map(|leftover| leftover.since),
            }
        })
        .collect();
    found.sort_by(|a, b| (a.reason, &a.id).cmp(&(b.reason, &b.id)));
    found.dedup_by(|a, b| a.id == b.id);
    found
}

/// An agent that a row explains.
struct Explained<'a> {
    id: GatewayAgentId,
    name: &'a str,
    workspace: Option<String>,
}

impl<'a> Explained<'a> {
    fn new(here: &GatewaySnapshot, row: &'a AgentRow) -> Self {
        let id = row.gateway_agent_id(here.gateway.id);
        Self {
            workspace: workspace_path(&here.gateway.workspace_root, &id),
            name: row.name.trim(),
            id,
        }
    }
}

/// What was made of one agent.
struct Verdict {
    reason: UnmanagedReason,
    message: String,
    advice: String,
}

impl Verdict {
    fn duplicate(message: String, advice: String) -> Self {
        Self {
            reason: UnmanagedReason::Duplicate,
            message,
            advice,
        }
    }
}

fn of_leftover(leftover: &Leftover) -> Verdict {
    let why = match leftover.reason {
        LeftoverReason::RowDeleted => "whose row is gone",
        LeftoverReason::Moved => "whose row says another gateway now",
        LeftoverReason::IdChanged => "whose row gives it another id now",
    };
    Verdict {
        reason: UnmanagedReason::Leftover,
        message: format!("made by this controller for agent {}, {why}", leftover.agent),
        advice: "run with --prune to have it removed, or give it its row back".to_owned(),
    }
}

/// What an agent is that nothing of ours explains.
fn judge(
    fleet: &[GatewaySnapshot],
    here: &GatewaySnapshot,
    entry: &RosterEntry,
    explained: &[Explained<'_>],
) -> Verdict {
    let remove = format!(
        "if nobody uses it, remove it on the gateway's host: openclaw agents delete {}",
        entry.id
    );
    if let Some(verdict) = derived(fleet, here, &entry.id, &remove) {
        return verdict;
    }
    let same_place = |agent: &&Explained<'_>| {
        let place = entry.workspace.as_deref().map(without_slash);
        place.is_some() && agent.workspace.as_deref() == place
    };
    if let Some(agent) = explained.iter().find(same_place) {
        let message = format!("has the workspace of {}: both have the same files", agent.id);
        let advice = format!("give it a workspace of its own in the gateway's config, or {remove}");
        return Verdict::duplicate(message, advice);
    }
    let name = entry.name.as_deref().map(str::trim).unwrap_or_default();
    let same_name = |agent: &&Explained<'_>| !name.is_empty() && agent.name.eq_ignore_ascii_case(name);
    if let Some(agent) = explained.iter().find(same_name) {
        let message = format!("has the name of {}, and is another agent", agent.id);
        return Verdict::duplicate(message, remove);
    }
    Verdict {
        reason: UnmanagedReason::Unmanaged,
        message: "somebody else's".to_owned(),
        advice: "nothing: it is never touched".to_owned(),
    }
}

/// What an agent is whose id has one of the forms that are derived from rows.
fn derived(fleet: &[GatewaySnapshot], here: &GatewaySnapshot, id: &GatewayAgentId, remove: &str) -> Option<Verdict> {
    let uuid = |prefix: &str| Uuid::try_parse(id.as_str().strip_prefix(prefix)?).ok();
    if let Some(gateway) = uuid("mc-gateway-").map(GatewayId) {
        return Some(main_agent(fleet, here, gateway, remove));
    }
    if let Some(board) = uuid("lead-").map(BoardId) {
        return Some(lead(fleet, here, board, remove));
    }
    let agent = AgentId(uuid("mc-")?);
    let row = fleet
        .iter()
        .find_map(|snapshot| Some((snapshot, snapshot.agents.iter().find(|row| row.id == agent)?)));
    Some(match row {
        Some((snapshot, row)) => {
            let place = row.gateway_agent_id(snapshot.gateway.id);
            Verdict::duplicate(
                format!(
                    "agent {agent} ({}) is {place} on gateway {} now",
                    row.name,
                    named(&snapshot.gateway)
                ),
                remove.to_owned(),
            )
        }
        None => Verdict::duplicate(format!("agent {agent} has no row"), remove.to_owned()),
    })
}

fn main_agent(fleet: &[GatewaySnapshot], here: &GatewaySnapshot, gateway: GatewayId, remove: &str) -> Verdict {
    if gateway == here.gateway.id {
        let message = "the main agent of this gateway, which has no row".to_owned();
        let advice = format!("insert its row (an agent of this gateway without a board), or {remove}");
        return Verdict::duplicate(message, advice);
    }
    match fleet.iter().find(|snapshot| snapshot.gateway.id == gateway) {
        Some(other) => Verdict::duplicate(
            format!("the main agent of another gateway row, {}", named(&other.gateway)),
            format!("if both rows lead to this gateway, keep one of them; else, {remove}"),
        ),
        None => Verdict::duplicate(
            format!("the main agent of a gateway row that is not there any more, {gateway}"),
            remove.to_owned(),
        ),
    }
}

fn lead(fleet: &[GatewaySnapshot], here: &GatewaySnapshot, board: BoardId, remove: &str) -> Verdict {
    let known: Option<&Board> = fleet.iter().find_map(|snapshot| snapshot.boards.get(&board));
    match known {
        Some(known) if known.gateway_id == Some(here.gateway.id) => Verdict::duplicate(
            format!("the lead of board {board} ({}), which has no row", known.name),
            "insert its row (is_board_lead), or let --ensure-leads do so: it is then taken over".to_owned(),
        ),
        Some(known) => {
            let home = known
                .gateway_id
                .and_then(|id| fleet.iter().find(|snapshot| snapshot.gateway.id == id));
            let place = home.map_or_else(
                || "on no gateway".to_owned(),
                |home| format!("on gateway {}", named(&home.gateway)),
            );
            Verdict::duplicate(
                format!("the lead of board {board} ({}), which is {place} now", known.name),
                remove.to_owned(),
            )
        }
        None => Verdict::duplicate(
            format!("the lead of board {board}, which is not there any more or on no gateway"),
            remove.to_owned(),
        ),
    }
}

fn named(gateway: &GatewayRow) -> String {
    format!("{} ({})", gateway.id, gateway.name)
}

fn without_slash(path: &str) -> &str {
    path.trim_end_matches('/')
}

#[cfg(test)]
#[path = "unmanaged/tests.rs"]
mod tests;
