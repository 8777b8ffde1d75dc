//! Which leads are missing.

use std::collections::{BTreeMap, HashSet};

use crate::model::{AgentRow, Board, BoardId, EnsureLeads, GatewayId, LeadSettings, NewLead};

/// What a gateway's boards want for leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadPlan {
    /// The leads whose rows are to be made, ordered by board.
    pub create: Vec<NewLead>,
    /// Why others cannot be made, in words; each names its board.
    pub refused: Vec<String>,
}

impl LeadPlan {
    /// Whether every board that is to have a lead has one.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.refused.is_empty()
    }
}

/// Finds the boards on a gateway that are to have a lead and have none. `agents` are those of its boards.
///
/// Whatever is said of a lead's row, it counts: also of one whose removal was requested, because a second lead would be the same
/// agent on the gateway, which cannot go for the one and stay for the other. A board that is paused gets its lead when it goes
/// on.
pub fn plan_leads<'a>(
    ensure: EnsureLeads,
    gateway: GatewayId,
    boards: impl IntoIterator<Item = &'a Board>,
    agents: impl IntoIterator<Item = &'a AgentRow>,
    settings: &BTreeMap<BoardId, LeadSettings>,
) -> LeadPlan {
    if ensure == EnsureLeads::None {
        return LeadPlan::default();
    }
    let leads = agents.into_iter().filter(|agent| agent.is_board_lead);
    let led: HashSet<BoardId> = leads.filter_map(|lead| lead.board_id).collect();
    let mut wanting: Vec<&Board> = boards
        .into_iter()
        .filter(|board| board.gateway_id == Some(gateway) && !board.paused && ensure.wants(board))
        .filter(|board| !led.contains(&board.id))
        .collect();
    wanting.sort_by_key(|board| board.id);
    let mut plan = LeadPlan::default();
    for board in wanting {
        match NewLead::of(board, gateway, settings.get(&board.id)) {
            Ok(lead) => plan.create.push(lead),
            Err(problem) => plan.refused.push(problem),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::model::AgentId;

    const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(1));

    fn board(n: u128) -> Board {
        Board {
            id: BoardId(Uuid::from_u128(n)),
            organization_id: Uuid::nil(),
            name: format!("Board {n}"),
            slug: "board".into(),
            gateway_id: Some(GATEWAY),
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

    fn lead_of(board: &Board) -> AgentRow {
        let lead = NewLead::of(board, GATEWAY, None).unwrap();
        lead.row(AgentId(Uuid::from_u128(99)), NaiveDateTime::default())
    }

    fn wanting(ensure: EnsureLeads, boards: &[Board], agents: &[AgentRow]) -> Vec<BoardId> {
        let plan = plan_leads(ensure, GATEWAY, boards, agents, &BTreeMap::new());
        assert!(plan.refused.is_empty());
        plan.create.iter().map(|lead| lead.board).collect()
    }

    #[test]
    fn boards_without_a_lead_want_one_in_the_order_of_their_ids() {
        let boards = [board(22), board(21), board(23)];
        let ids = |ns: &[u128]| ns.iter().map(|n| BoardId(Uuid::from_u128(*n))).collect::<Vec<_>>();
        assert_eq!(wanting(EnsureLeads::All, &boards, &[]), ids(&[21, 22, 23]));
        assert_eq!(
            wanting(EnsureLeads::All, &boards, &[lead_of(&boards[0])]),
            ids(&[21, 23])
        );
        assert_eq!(wanting(EnsureLeads::None, &boards, &[]), ids(&[]));
        let mut worker = lead_of(&boards[0]);
        worker.is_board_lead = false;
        assert_eq!(wanting(EnsureLeads::All, &boards, &[worker]), ids(&[21, 22, 23]));
    }

    #[test]
    fn boards_that_are_paused_elsewhere_or_not_confirmed_want_none() {
        let mut boards = [board(21), board(22), board(23), board(24)];
        boards[0].paused = true;
        boards[1].gateway_id = None;
        boards[2].gateway_id = Some(GatewayId(Uuid::from_u128(2)));
        boards[3].board_type = "goal".into();
        assert_eq!(wanting(EnsureLeads::Confirmed, &boards, &[]), []);
        assert_eq!(wanting(EnsureLeads::All, &boards, &[]), [boards[3].id]);
    }

    #[test]
    fn no_second_lead_while_the_first_is_being_deleted() {
        let boards = [board(21)];
        let mut requested = lead_of(&boards[0]);
        requested.delete_requested_at = Some(NaiveDateTime::default());
        let mut deleting = lead_of(&boards[0]);
        deleting.status = "deleting".into();
        for lead in [requested, deleting] {
            assert_eq!(wanting(EnsureLeads::All, &boards, &[lead]), []);
        }
    }

    #[test]
    fn a_lead_that_cannot_be_made_stands_in_nobodys_way() {
        let boards = [board(21), board(22)];
        let bad = LeadSettings {
            name: None,
            identity: Some(Ok(json!([]))),
        };
        let settings = BTreeMap::from([(boards[0].id, bad)]);
        let plan = plan_leads(EnsureLeads::All, GATEWAY, &boards, &[], &settings);
        assert_eq!(plan.create.len(), 1);
        assert_eq!(plan.create[0].board, boards[1].id);
        assert!(
            plan.refused[0].contains(&boards[0].id.to_string()),
            "{:?}",
            plan.refused
        );
    }
}
