use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use uuid::Uuid;

use super::*;
use crate::model::{AgentRequests, GatewayRecord, GatewayRow, User};

const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(1));

fn board(n: u128, gateway: Option<GatewayId>) -> Board {
    Board {
        id: BoardId(Uuid::from_u128(n)),
        organization_id: Uuid::nil(),
        name: "Board".into(),
        slug: "board".into(),
        gateway_id: gateway,
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

fn agent(n: u128, board: Option<u128>, lead: bool) -> AgentRow {
    AgentRow {
        id: AgentId(Uuid::from_u128(n)),
        board_id: board.map(|n| BoardId(Uuid::from_u128(n))),
        gateway_id: GATEWAY,
        name: format!("Agent {n}"),
        status: "provisioning".into(),
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

fn snapshot(boards: Vec<Board>, agents: Vec<AgentRow>) -> GatewaySnapshot {
    GatewaySnapshot {
        gateway: GatewayRow {
            id: GATEWAY,
            organization_id: Uuid::nil(),
            name: "Gateway".into(),
            url: "ws://x".into(),
            token: None,
            workspace_root: "/ws".into(),
            disable_device_pairing: false,
            allow_insecure_tls: false,
            created_at: NaiveDateTime::default(),
        },
        owner: Some(User {
            id: Uuid::nil(),
            email: None,
            name: None,
            preferred_name: None,
            pronouns: None,
            timezone: None,
            notes: None,
            context: None,
        }),
        boards: boards.into_iter().map(|board| (board.id, board)).collect(),
        lead_settings: BTreeMap::new(),
        agents,
        record: GatewayRecord::default(),
        agent_records: HashMap::new(),
    }
}

fn excluded(snapshot: GatewaySnapshot) -> Vec<Option<Excluded>> {
    derive(snapshot, "", 1)
        .agents
        .iter()
        .map(|agent| agent.excluded)
        .collect()
}

#[test]
fn agents_that_cannot_be_managed_say_why() {
    let elsewhere = Some(GatewayId(Uuid::from_u128(9)));
    let agents = || vec![agent(30, Some(20), false), agent(31, None, false)];
    let here = || vec![board(20, Some(GATEWAY))];
    assert_eq!(excluded(snapshot(here(), agents())), [None, None]);
    for gateway in [None, elsewhere] {
        let boards = vec![board(20, gateway)];
        assert_eq!(
            excluded(snapshot(boards, agents())),
            [Some(Excluded::BoardNotFound), None]
        );
    }
    let mut paused = snapshot(here(), agents());
    paused.boards.values_mut().for_each(|board| board.paused = true);
    assert_eq!(excluded(paused), [Some(Excluded::BoardPaused), None]);
    let mut rootless = snapshot(here(), agents());
    rootless.gateway.workspace_root = " ".into();
    assert_eq!(excluded(rootless), [Some(Excluded::NoWorkspaceRoot); 2]);
    let mut ownerless = snapshot(here(), agents());
    ownerless.owner = None;
    assert_eq!(excluded(ownerless), [None, Some(Excluded::NoOwner)]);
    let mut deleting = snapshot(here(), agents());
    deleting.agents[0].delete_requested_at = Some(NaiveDateTime::default());
    assert_eq!(excluded(deleting), [Some(Excluded::Deleting), None]);
}

#[test]
fn what_goes_with_an_agent_is_its_place_and_nothing_that_another_row_claims() {
    let here = || vec![board(20, Some(GATEWAY))];
    let removed = || AgentRow {
        delete_requested_at: Some(NaiveDateTime::default()),
        ..agent(30, Some(20), true)
    };
    let removes = |rows: GatewaySnapshot| derive(rows, "", 1).agents[0].removes.clone();
    let named = |id: String| GatewayAgentId::observed(id);
    let lead = named(format!("lead-{}", Uuid::from_u128(20)));
    assert_eq!(removes(snapshot(here(), vec![removed()])), std::slice::from_ref(&lead));
    assert_eq!(removes(snapshot(here(), vec![agent(30, Some(20), true)])), []);
    // Another lead has its place.
    assert_eq!(
        removes(snapshot(here(), vec![removed(), agent(31, Some(20), true)])),
        []
    );
    // It was a worker when we last knew it.
    let worker = named(format!("mc-{}", Uuid::from_u128(30)));
    let placed = |gateway| {
        let mut rows = snapshot(here(), vec![removed()]);
        let record = AgentRecord {
            placement: Some((gateway, worker.clone())),
            ..AgentRecord::default()
        };
        rows.agent_records.insert(AgentId(Uuid::from_u128(30)), record);
        rows
    };
    assert_eq!(removes(placed(GATEWAY)), [lead.clone(), worker.clone()]);
    assert_eq!(removes(placed(GatewayId(Uuid::from_u128(9)))), [lead]);
}

#[test]
fn of_two_agents_in_one_place_the_older_wins() {
    let leads = vec![
        agent(30, Some(20), true),
        agent(31, Some(20), true),
        agent(32, None, false),
    ];
    let mut rows = snapshot(vec![board(20, Some(GATEWAY))], leads);
    rows.agents.push(agent(33, None, false));
    let duplicate = Some(Excluded::Duplicate);
    assert_eq!(excluded(rows), [None, duplicate, None, duplicate]);
}

#[test]
fn a_digest_changes_with_what_it_stands_for_and_with_nothing_else() {
    let rows = || snapshot(vec![board(20, Some(GATEWAY))], vec![agent(30, Some(20), false)]);
    let digests = |rows, environment| {
        let spec = derive(rows, environment, 1);
        (
            spec.digest.clone(),
            spec.roster_digest.clone(),
            spec.agents[0].digest.clone(),
        )
    };
    let before = digests(rows(), "");
    assert_eq!(digests(rows(), ""), before);

    let mut other_status = rows();
    other_status.agents[0].status = "online".into();
    other_status.agents[0].token_hash = Some("hash".into());
    other_status.agents[0].last_provision_error = Some("error".into());
    other_status.gateway.token = Some("secret".to_owned().into());
    assert_eq!(digests(other_status, ""), before, "neither status nor secrets are spec");

    let mut edited_board = rows();
    edited_board
        .boards
        .values_mut()
        .for_each(|board| board.objective = Some("Win".into()));
    let after = digests(edited_board, "");
    assert_eq!(
        (&after.0, &after.1),
        (&before.0, &before.1),
        "the config does not depend on it"
    );
    assert_ne!(after.2, before.2, "the files do");

    let mut renamed = rows();
    renamed.agents[0].name = "Other".into();
    let after = digests(renamed, "");
    assert_eq!(after.0, before.0);
    assert_ne!(after.1, before.1);
    assert_ne!(after.2, before.2);

    let after = digests(rows(), "other templates");
    assert_eq!(after.1, before.1);
    assert_ne!(after.2, before.2);
}
