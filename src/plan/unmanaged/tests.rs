use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDateTime};

use super::*;
use crate::model::{AgentRequests, GatewayRecord};

const HERE: u128 = 1;
const THERE: u128 = 2;

fn board(n: u128, gateway: u128) -> Board {
    Board {
        id: BoardId(Uuid::from_u128(n)),
        organization_id: Uuid::nil(),
        name: format!("Board {n}"),
        slug: "board".into(),
        gateway_id: Some(GatewayId(Uuid::from_u128(gateway))),
        board_type: "general".into(),
        objective: None,
        success_metrics: None,
        target_date: None,
        goal_confirmed: false,
        require_approval_for_done: true,
        require_review_before_done: false,
        block_status_changes_with_pending_approval: false,
        only_lead_can_change_status: false,
        comment_required_for_review: false,
        max_agents: 5,
        paused: false,
    }
}

fn agent(n: u128, board: Option<u128>, gateway: u128, lead: bool) -> AgentRow {
    AgentRow {
        id: AgentId(Uuid::from_u128(n)),
        board_id: board.map(|n| BoardId(Uuid::from_u128(n))),
        gateway_id: GatewayId(Uuid::from_u128(gateway)),
        name: format!("Agent {n}"),
        status: "online".into(),
        session_key: None,
        token_hash: None,
        heartbeat_config: None,
        identity_profile: None,
        identity_template: None,
        soul_template: None,
        delete_requested_at: None,
        last_seen_at: None,
        is_board_lead: lead,
        last_provision_error: None,
        created_at: NaiveDateTime::default(),
        requests: AgentRequests::default(),
    }
}

fn snapshot(gateway: u128, boards: Vec<Board>, agents: Vec<AgentRow>) -> GatewaySnapshot {
    GatewaySnapshot {
        gateway: GatewayRow {
            id: GatewayId(Uuid::from_u128(gateway)),
            organization_id: Uuid::nil(),
            name: format!("Gateway {gateway}"),
            url: "ws://x".into(),
            token: None,
            workspace_root: "/ws/".into(),
            disable_device_pairing: false,
            allow_insecure_tls: false,
            created_at: NaiveDateTime::default(),
        },
        owner: None,
        boards: boards.into_iter().map(|board| (board.id, board)).collect(),
        lead_settings: BTreeMap::new(),
        agents,
        record: GatewayRecord::default(),
        agent_records: HashMap::new(),
    }
}

/// A gateway with a main agent, and with a lead and a worker (whose removal was requested) of a board; another with a board, a
/// lead and a worker; and a board of the first without a lead.
fn fleet() -> Vec<GatewaySnapshot> {
    let mut leaving = agent(12, Some(21), HERE, false);
    leaving.delete_requested_at = Some(NaiveDateTime::default());
    vec![
        snapshot(
            HERE,
            vec![board(21, HERE), board(22, HERE)],
            vec![agent(10, None, HERE, false), agent(11, Some(21), HERE, true), leaving],
        ),
        snapshot(
            THERE,
            vec![board(23, THERE)],
            vec![agent(13, Some(23), THERE, false), agent(14, Some(23), THERE, true)],
        ),
    ]
}

fn entry(id: &str, name: Option<&str>, workspace: Option<&str>) -> RosterEntry {
    RosterEntry {
        id: GatewayAgentId::observed(id),
        name: name.map(str::to_owned),
        workspace: workspace.map(str::to_owned),
        heartbeat: None,
    }
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn found(roster: &[RosterEntry], leftovers: &[Leftover]) -> Vec<(String, UnmanagedReason, String)> {
    let fleet = fleet();
    find_unmanaged(&fleet, &fleet[0], roster, leftovers)
        .into_iter()
        .map(|agent| (agent.id.to_string(), agent.reason, agent.message))
        .collect()
}

#[test]
fn agents_that_rows_explain_are_not_listed_whether_or_not_they_are_managed() {
    let ids = [
        format!("mc-gateway-{}", uuid(HERE)),
        format!("lead-{}", uuid(21)),
        format!("mc-{}", uuid(12)),
    ];
    let roster: Vec<_> = ids.iter().map(|id| entry(id, None, None)).collect();
    assert_eq!(found(&roster, &[]), []);
}

#[test]
fn every_other_agent_is_listed_with_what_it_is() {
    use UnmanagedReason::{Duplicate, Unmanaged};
    let workspace = format!("/ws/workspace-lead-{}/", uuid(21));
    for (entry, reason, message) in [
        (entry("main", None, None), Unmanaged, "somebody else's".to_owned()),
        (
            entry("scout", Some("Scout"), Some("/own")),
            Unmanaged,
            "somebody else's".into(),
        ),
        (entry("mc-scout", Some(""), None), Unmanaged, "somebody else's".into()),
        (
            entry(&format!("mc-gateway-{}", uuid(9)), None, None),
            Duplicate,
            format!(
                "the main agent of a gateway row that is not there any more, {}",
                uuid(9)
            ),
        ),
        (
            entry(&format!("mc-gateway-{}", uuid(THERE)), None, None),
            Duplicate,
            format!("the main agent of another gateway row, {} (Gateway 2)", uuid(THERE)),
        ),
        (
            entry(&format!("lead-{}", uuid(22)), None, None),
            Duplicate,
            format!("the lead of board {} (Board 22), which has no row", uuid(22)),
        ),
        (
            entry(&format!("lead-{}", uuid(23)), None, None),
            Duplicate,
            format!(
                "the lead of board {} (Board 23), which is on gateway {} (Gateway 2) now",
                uuid(23),
                uuid(THERE)
            ),
        ),
        (
            entry(&format!("lead-{}", uuid(99)), None, None),
            Duplicate,
            format!(
                "the lead of board {}, which is not there any more or on no gateway",
                uuid(99)
            ),
        ),
        (
            entry(&format!("mc-{}", uuid(11)), None, None),
            Duplicate,
            format!(
                "agent {} (Agent 11) is lead-{} on gateway {} (Gateway 1) now",
                uuid(11),
                uuid(21),
                uuid(HERE)
            ),
        ),
        (
            entry(&format!("mc-{}", uuid(99)), None, None),
            Duplicate,
            format!("agent {} has no row", uuid(99)),
        ),
        (
            entry("copy", Some("Copy"), Some(&workspace)),
            Duplicate,
            format!("has the workspace of lead-{}: both have the same files", uuid(21)),
        ),
        (
            entry("copy", Some(" agent 11 "), None),
            Duplicate,
            format!("has the name of lead-{}, and is another agent", uuid(21)),
        ),
    ] {
        let id = entry.id.to_string();
        assert_eq!(found(&[entry], &[]), [(id, reason, message)]);
    }
}

#[test]
fn a_main_agent_without_a_row_is_told_as_such() {
    let fleet = vec![snapshot(HERE, vec![], vec![])];
    let id = format!("mc-gateway-{}", uuid(HERE));
    let found = find_unmanaged(&fleet, &fleet[0], &[entry(&id, None, None)], &[]);
    assert_eq!(found[0].message, "the main agent of this gateway, which has no row");
}

#[test]
fn what_this_controller_left_is_a_leftover_and_duplicates_come_first() {
    let ids = [
        format!("mc-{}", uuid(98)),
        format!("mc-{}", uuid(99)),
        "main".to_owned(),
    ];
    let leftover = Leftover {
        gateway: GatewayId(uuid(HERE)),
        id: GatewayAgentId::observed(&ids[0]),
        agent: AgentId(uuid(98)),
        since: DateTime::UNIX_EPOCH,
        reason: LeftoverReason::RowDeleted,
    };
    let roster: Vec<_> = ids.iter().rev().map(|id| entry(id, None, None)).collect();
    let found = found(&roster, &[leftover]);
    let listed: Vec<_> = found.iter().map(|(id, reason, _)| (id.as_str(), *reason)).collect();
    assert_eq!(
        listed,
        [
            (ids[1].as_str(), UnmanagedReason::Duplicate),
            (ids[0].as_str(), UnmanagedReason::Leftover),
            ("main", UnmanagedReason::Unmanaged),
        ]
    );
}
