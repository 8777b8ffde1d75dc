//! `openclaw-controller get`: gateways, boards and agents with their conditions, from the database alone; and agents on gateways
//! that no row explains.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{FAILED, unmanaged};
use crate::config::{self, ConnectionArgs};
use crate::gateway::RpcMetrics;
use crate::model::{
    AgentRole, ConditionStatus, ConditionType, Conditions, EnsureLeads, GatewayAgentId, GatewayId, GatewaySnapshot,
    Leftover,
};
use crate::store::Store;

/// How long after its last heartbeat an agent counts as offline; heartbeats come every ten minutes. Computed here and stored
/// nowhere.
const OFFLINE_AFTER: chrono::TimeDelta = chrono::TimeDelta::minutes(10);

/// The arguments of `get`.
#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// What to list.
    kind: Kind,

    /// How to print: `wide` adds ids and messages, `json` has everything.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Only what belongs to this gateway.
    #[arg(long, value_name = "ID")]
    gateway: Option<Uuid>,

    /// For `unmanaged`: file of the Ed25519 key by which gateways know this controller, as for `run`.
    #[arg(long, env = "OPENCLAW_CONTROLLER_DEVICE_IDENTITY", value_name = "FILE")]
    device_identity: Option<PathBuf>,

    #[command(flatten, next_help_heading = "For `unmanaged`, which asks gateways")]
    connections: ConnectionArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    #[value(alias = "gateway", alias = "gw")]
    Gateways,
    #[value(alias = "board")]
    Boards,
    #[value(alias = "agent")]
    Agents,
    /// Agents on gateways that no row explains.
    Unmanaged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
}

pub(super) async fn command(args: GetArgs) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let fleet = store.load_fleet().await?;
    let only = args.gateway.map(GatewayId);
    anyhow::ensure!(
        only.is_none_or(|id| fleet.iter().any(|snapshot| snapshot.gateway.id == id)),
        "there is no gateway {}; `openclaw-controller get gateways` lists them",
        args.gateway.unwrap_or_default()
    );
    let chosen = fleet
        .iter()
        .filter(|snapshot| only.is_none_or(|id| snapshot.gateway.id == id));
    let mut errors = Vec::new();
    let items = match args.kind {
        Kind::Gateways => {
            let leftovers = store.leftovers().await?;
            chosen.map(|snapshot| gateway(snapshot, &leftovers)).collect()
        }
        Kind::Boards => chosen.flat_map(boards).collect(),
        Kind::Agents => chosen.flat_map(agents).collect::<Vec<_>>(),
        Kind::Unmanaged => {
            let identity = config::device_identity(args.device_identity.as_ref())?;
            let connector = args.connections.connector(&identity, RpcMetrics::unregistered())?;
            let looks = unmanaged::look(&store, &connector, &fleet, only).await?;
            let mut items = Vec::new();
            for look in looks {
                items.extend(look.agents.iter().map(|agent| unmanaged::item(&look.name, agent)));
                if let Some(message) = look.error {
                    eprintln!(
                        "error: gateway {} ({}) could not be asked: {message}",
                        look.gateway, look.name
                    );
                    errors.push(json!({"gatewayId": look.gateway, "gateway": look.name, "message": message}));
                }
            }
            items
        }
    };
    let code = if errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    };
    if args.output == Output::Json {
        let items: Vec<_> = items.into_iter().map(|item| item.json).collect();
        let mut list = json!({ "items": items });
        if matches!(args.kind, Kind::Unmanaged) {
            list["errors"] = errors.into();
        }
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(code);
    }
    if items.is_empty() && errors.is_empty() {
        let kind = match args.kind {
            Kind::Gateways => "gateways",
            Kind::Boards => "boards",
            Kind::Agents => "agents",
            Kind::Unmanaged => "unmanaged agents",
        };
        eprintln!("no {kind} found");
        return Ok(code);
    }
    let wide = args.output == Output::Wide;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (i, item) in items.into_iter().enumerate() {
        let cells: Vec<_> = item.cells.into_iter().filter(|cell| wide || !cell.wide).collect();
        if i == 0 {
            table.set_header(cells.iter().map(|cell| cell.title));
        }
        table.add_row(cells.into_iter().map(|cell| cell.text));
    }
    if !table.is_empty() {
        println!("{}", lines(&table));
    }
    Ok(code)
}

/// A table's lines, as they are printed.
pub(super) fn lines(table: &Table) -> String {
    let table = table.to_string();
    // The table pads its first column on the left.
    let lines = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

/// A row of a table, and the same object as JSON.
pub(super) struct Item {
    /// The row.
    pub(super) cells: Vec<Cell>,
    /// The object.
    pub(super) json: Value,
}

/// A cell of a row, with the title of its column.
pub(super) struct Cell {
    title: &'static str,
    text: String,
    /// Shown only in wide tables.
    wide: bool,
}

/// A cell of every table.
pub(super) fn cell(title: &'static str, text: impl std::fmt::Display) -> Cell {
    Cell {
        title,
        text: text.to_string(),
        wide: false,
    }
}

/// A cell of wide tables.
pub(super) fn wide(title: &'static str, text: impl std::fmt::Display) -> Cell {
    Cell {
        title,
        text: text.to_string(),
        wide: true,
    }
}

fn gateway(snapshot: &GatewaySnapshot, leftovers: &[Leftover]) -> Item {
    let (row, record) = (&snapshot.gateway, &snapshot.record);
    let left: Vec<_> = leftovers.iter().filter(|leftover| leftover.gateway == row.id).collect();
    let ready = ready(&record.conditions);
    Item {
        cells: vec![
            cell("NAME", &row.name),
            cell("READY", &ready.status),
            cell("REASON", &ready.reason),
            cell("VERSION", record.server_version.as_deref().unwrap_or("-")),
            cell("AGENTS", snapshot.agents.len()),
            wide("ID", row.id),
            wide("URL", shown_url(&row.url)),
            wide(
                "PROTOCOL",
                record
                    .protocol
                    .map_or_else(|| "-".to_owned(), |protocol| protocol.to_string()),
            ),
            wide("LEFTOVERS", left.len()),
            wide("MESSAGE", &ready.message),
        ],
        json: json!({
            "kind": "Gateway",
            "id": row.id,
            "name": row.name,
            "url": shown_url(&row.url),
            "agents": snapshot.agents.len(),
            "leftovers": left,
            "status": {
                "generation": record.generation,
                "serverVersion": record.server_version,
                "protocol": record.protocol,
                "conditions": record.conditions,
            },
        }),
    }
}

fn boards(snapshot: &GatewaySnapshot) -> Vec<Item> {
    let mut boards: Vec<_> = snapshot.boards.values().collect();
    boards.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    boards
        .into_iter()
        .map(|board| {
            let agents: Vec<_> = snapshot
                .agents
                .iter()
                .filter(|agent| agent.board_id == Some(board.id))
                .collect();
            let lead = agents.iter().find(|agent| agent.is_board_lead);
            let qualifies = EnsureLeads::Confirmed.wants(board);
            let ready = agents
                .iter()
                .filter(|agent| {
                    let record = snapshot.agent_records.get(&agent.id);
                    record.is_some_and(|record| record.conditions.is_true(ConditionType::Ready))
                })
                .count();
            let on_gateway = board.gateway_id == Some(snapshot.gateway.id);
            let gateway = if on_gateway {
                snapshot.gateway.name.as_str()
            } else {
                "-"
            };
            Item {
                cells: vec![
                    cell("NAME", &board.name),
                    cell("READY", format!("{ready}/{}", agents.len())),
                    cell("LEAD", lead.map_or("-", |lead| lead.name.as_str())),
                    cell("GATEWAY", gateway),
                    cell("PAUSED", board.paused),
                    wide("ID", board.id),
                    wide("TYPE", &board.board_type),
                    wide("QUALIFIES FOR LEAD", qualifies),
                ],
                json: json!({
                    "kind": "Board",
                    "id": board.id,
                    "name": board.name,
                    "gatewayId": board.gateway_id,
                    "paused": board.paused,
                    "type": board.board_type,
                    "agents": agents.len(),
                    "readyAgents": ready,
                    "leadId": lead.map(|lead| lead.id),
                    "leadName": lead.map(|lead| lead.name.as_str()),
                    "qualifiesForLead": qualifies,
                }),
            }
        })
        .collect()
}

fn agents(snapshot: &GatewaySnapshot) -> Vec<Item> {
    let gateway_ready = snapshot.record.conditions.is_true(ConditionType::Reachable);
    let gateway_not_ready = snapshot
        .record
        .conditions
        .get(ConditionType::Ready)
        .filter(|ready| ready.status != ConditionStatus::True);
    snapshot
        .agents
        .iter()
        .map(|agent| {
            let record = snapshot.agent_records.get(&agent.id).cloned().unwrap_or_default();
            let mut ready = ready(&record.conditions);
            if !gateway_ready && ready.status == "True" {
                // One condition of the gateway stands for all its agents: what was true of them was true when last looked at.
                ready = Ready {
                    status: "Unknown".into(),
                    reason: "GatewayNotReachable".into(),
                    message: format!("its gateway {} is not reachable", snapshot.gateway.name),
                };
            } else if let (None, Some(gateway)) = (record.conditions.get(ConditionType::Ready), gateway_not_ready) {
                ready.reason = "GatewayNotReady".into();
                ready.message = format!(
                    "its gateway {} is not ready: {}: {}",
                    snapshot.gateway.name, gateway.reason, gateway.message
                );
            }
            let board = agent
                .board_id
                .and_then(|id| snapshot.boards.get(&id))
                .map_or("-", |board| &board.name);
            let role = match agent.role() {
                AgentRole::Lead(_) => "lead",
                AgentRole::Worker(_) => "worker",
                AgentRole::Main => "main",
            };
            let id = GatewayAgentId::derive(agent.role(), agent.id, snapshot.gateway.id);
            let seen = agent.last_seen_at.map(|at| chrono::Utc::now() - at.and_utc());
            let online = seen.is_some_and(|ago| ago < OFFLINE_AFTER);
            let status = shown_status(&agent.status, seen);
            Item {
                cells: vec![
                    cell("NAME", &agent.name),
                    cell("ROLE", role),
                    cell("BOARD", board),
                    cell("READY", &ready.status),
                    cell("REASON", &ready.reason),
                    cell("STATUS", status),
                    cell("LAST SEEN", seen.map_or_else(|| "never".to_owned(), ago)),
                    wide("GENERATION", record.generation),
                    wide("ID", agent.id),
                    wide("GATEWAY AGENT", &id),
                    wide("GATEWAY", &snapshot.gateway.name),
                    wide("MESSAGE", &ready.message),
                ],
                json: json!({
                    "kind": "Agent",
                    "id": agent.id,
                    "name": agent.name,
                    "role": role,
                    "boardId": agent.board_id,
                    "gatewayId": snapshot.gateway.id,
                    "gatewayAgentId": id,
                    "online": online,
                    "shownStatus": status,
                    "lastSeenAt": agent.last_seen_at.map(|at| at.and_utc()),
                    "ready": {"status": ready.status, "reason": ready.reason, "message": ready.message},
                    "status": {
                        "generation": record.generation,
                        "firstProvisionedAt": record.first_provisioned_at,
                        "conditions": record.conditions,
                    },
                }),
            }
        })
        .collect()
}

/// An agent's status as it is shown: who has not been seen for a while is offline, whatever the row says.
fn shown_status(stored: &str, seen: Option<chrono::TimeDelta>) -> &str {
    match seen {
        _ if matches!(stored, "deleting" | "updating" | "offline") => stored,
        Some(ago) if ago >= OFFLINE_AFTER => "offline",
        _ => stored,
    }
}

struct Ready {
    status: String,
    reason: String,
    message: String,
}

fn ready(conditions: &Conditions) -> Ready {
    match conditions.get(ConditionType::Ready) {
        Some(ready) => Ready {
            status: ready.status.to_string(),
            reason: ready.reason.clone(),
            message: ready.message.clone(),
        },
        None => Ready {
            status: ConditionStatus::Unknown.to_string(),
            reason: "NotObserved".into(),
            message: "no controller has looked at it yet; is one running?".into(),
        },
    }
}

/// A gateway's URL without user, password or query: people have been seen to put tokens there.
fn shown_url(url: &str) -> String {
    match url::Url::parse(url.trim()) {
        Ok(mut url) => {
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) if url.trim().is_empty() => "(none)".to_owned(),
        Err(_) => "(malformed)".to_owned(),
    }
}

/// A span as kubectl shows it: its largest unit.
fn ago(span: chrono::TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn who_was_not_seen_for_ten_minutes_is_shown_as_offline() {
        let minutes = |n| Some(TimeDelta::minutes(n));
        for (stored, seen, shown) in [
            ("online", minutes(9), "online"),
            ("online", minutes(10), "offline"),
            ("provisioning", None, "provisioning"),
            ("online", None, "online"),
            ("offline", minutes(1), "offline"),
            ("updating", minutes(60), "updating"),
            ("deleting", minutes(60), "deleting"),
        ] {
            assert_eq!(shown_status(stored, seen), shown, "{stored} {seen:?}");
        }
    }
}
