//! Board leads: which boards are to have one, and what a new one is like.

use chrono::NaiveDateTime;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    AgentId, AgentRequests, AgentRole, AgentRow, Board, BoardId, Event, EventKind, GatewayAgentId, GatewayId,
    JsonColumn, ObjectRef, session_key,
};

/// The name of a lead for whom nobody chose another.
const NAME: &str = "Lead Agent";

/// The type of those boards that have a goal, which somebody has to confirm.
const GOAL: &str = "goal";

/// Which boards are given a lead where they have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsureLeads {
    /// Those whose goal is confirmed, and those that are not of the type `goal`.
    Confirmed,
    /// All.
    All,
    /// None: leads are somebody else's business.
    None,
}

impl EnsureLeads {
    /// Whether this board is to have a lead.
    pub fn wants(self, board: &Board) -> bool {
        match self {
            Self::Confirmed => board.goal_confirmed || board.board_type != GOAL,
            Self::All => true,
            Self::None => false,
        }
    }
}

/// What was chosen for the lead of a board, in our own schema. It counts when the lead's row is made, and never again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadSettings {
    /// Its name; blank is none.
    pub name: Option<String>,
    /// Overrides of its identity profile: a JSON object. Blank texts are none.
    pub identity: JsonColumn,
}

/// A lead whose row is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewLead {
    /// The board that it leads.
    pub board: BoardId,
    /// That board's name.
    pub board_name: String,
    /// The board's gateway.
    pub gateway: GatewayId,
    /// Its display name.
    pub name: String,
    /// Its identity profile.
    pub identity: Map<String, Value>,
}

impl NewLead {
    /// The lead of a board on a gateway, with what was chosen for it.
    ///
    /// # Errors
    /// What was chosen is not of the form that it must have; says what to correct.
    pub fn of(board: &Board, gateway: GatewayId, settings: Option<&LeadSettings>) -> Result<Self, String> {
        let mut identity = Map::new();
        for (key, value) in [
            ("role", "Board Lead"),
            ("communication_style", "direct, concise, practical"),
            ("emoji", ":gear:"),
        ] {
            identity.insert(key.to_owned(), json!(value));
        }
        let problem = |problem: &str| {
            format!(
                "openclaw_controller.board_settings.lead_identity of board {} {problem}; set it to a JSON object or to NULL",
                board.id
            )
        };
        match settings.and_then(|settings| settings.identity.as_ref()) {
            None => {}
            Some(Ok(Value::Object(overrides))) => identity.extend(given(overrides)),
            Some(Ok(_)) => return Err(problem("is not an object")),
            Some(Err(error)) => return Err(problem(&format!("is not JSON ({error})"))),
        }
        let name = settings.and_then(|settings| settings.name.as_deref()).map(str::trim);
        Ok(Self {
            board: board.id,
            board_name: board.name.clone(),
            gateway,
            name: name.filter(|name| !name.is_empty()).unwrap_or(NAME).to_owned(),
            identity,
        })
    }

    /// Its id on the gateway, which depends on the board alone.
    pub fn gateway_agent_id(&self) -> GatewayAgentId {
        GatewayAgentId::derive(AgentRole::Lead(self.board), AgentId(self.board.0), self.gateway)
    }

    /// The key of its main session.
    pub fn session_key(&self) -> String {
        session_key(&self.gateway_agent_id())
    }

    /// The event that its row was made under this id.
    pub fn created(&self, id: AgentId) -> Event {
        Event {
            object: ObjectRef::Agent(id),
            kind: EventKind::Normal,
            reason: "LeadCreated".to_owned(),
            message: format!(
                "Board {} ({}) had no lead; a row was made for {:?}.",
                self.board, self.board_name, self.name
            ),
        }
    }

    /// Its row under this id.
    pub fn row(&self, id: AgentId, created_at: NaiveDateTime) -> AgentRow {
        AgentRow {
            id,
            board_id: Some(self.board),
            gateway_id: self.gateway,
            name: self.name.clone(),
            status: "provisioning".to_owned(),
            session_key: Some(self.session_key()),
            token_hash: None,
            heartbeat_config: None,
            identity_profile: Some(Ok(Value::Object(self.identity.clone()))),
            identity_template: None,
            soul_template: None,
            delete_requested_at: None,
            last_seen_at: None,
            is_board_lead: true,
            last_provision_error: None,
            created_at,
            requests: AgentRequests::default(),
        }
    }
}

/// What an object of overrides gives: texts without the blanks around them, and no blank ones.
fn given(overrides: &Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    overrides.iter().filter_map(|(key, value)| match value {
        Value::Null => None,
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some((key.clone(), json!(text.trim()))),
        other => Some((key.clone(), other.clone())),
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn board(board_type: &str, goal_confirmed: bool) -> Board {
        Board {
            id: BoardId(Uuid::from_u128(7)),
            organization_id: Uuid::nil(),
            name: "Website".into(),
            slug: "website".into(),
            gateway_id: None,
            board_type: board_type.into(),
            objective: None,
            success_metrics: None,
            target_date: None,
            goal_confirmed,
            require_approval_for_done: true,
            require_review_before_done: false,
            block_status_changes_with_pending_approval: false,
            only_lead_can_change_status: false,
            comment_required_for_review: false,
            max_agents: 5,
            paused: false,
        }
    }

    fn lead(settings: Option<&LeadSettings>) -> Result<NewLead, String> {
        NewLead::of(&board("goal", true), GatewayId(Uuid::from_u128(1)), settings)
    }

    #[test]
    fn a_board_is_to_have_a_lead_once_its_goal_is_confirmed_or_if_it_has_none() {
        for (board, confirmed) in [
            (board("goal", false), false),
            (board("goal", true), true),
            (board("general", false), true),
            (board("", false), true),
        ] {
            let what = format!("{} {}", board.board_type, board.goal_confirmed);
            assert_eq!(EnsureLeads::Confirmed.wants(&board), confirmed, "{what}");
            assert!(EnsureLeads::All.wants(&board), "{what}");
            assert!(!EnsureLeads::None.wants(&board), "{what}");
        }
    }

    #[test]
    fn a_new_lead_is_as_the_system_says_and_chosen_words_win_if_there_are_any() {
        let plain = lead(None).unwrap();
        assert_eq!(plain.name, "Lead Agent");
        let style = "direct, concise, practical";
        assert_eq!(
            Value::from(plain.identity.clone()),
            json!({"role": "Board Lead", "communication_style": style, "emoji": ":gear:"})
        );
        assert_eq!(plain.session_key(), format!("agent:lead-{}:main", Uuid::from_u128(7)));
        let blank = LeadSettings {
            name: Some("  ".into()),
            identity: Some(Ok(json!({"role": " ", "emoji": null}))),
        };
        assert_eq!(lead(Some(&blank)), Ok(plain));
        let chosen = LeadSettings {
            name: Some(" Marlow\n".into()),
            identity: Some(Ok(
                json!({"role": " Captain ", "purpose": "Arrive.", "custom_instructions": ["a", "b"]}),
            )),
        };
        let chosen = lead(Some(&chosen)).unwrap();
        assert_eq!(chosen.name, "Marlow");
        assert_eq!(
            Value::from(chosen.identity),
            json!({"role": "Captain", "communication_style": style, "emoji": ":gear:", "purpose": "Arrive.",
                   "custom_instructions": ["a", "b"]})
        );
    }

    #[test]
    fn settings_that_are_no_object_are_told_with_the_board_and_the_remedy() {
        for identity in [Ok(json!("Captain")), Err("expected value".to_owned())] {
            let settings = LeadSettings {
                name: None,
                identity: Some(identity),
            };
            let problem = lead(Some(&settings)).unwrap_err();
            for says in ["board_settings.lead_identity", &Uuid::from_u128(7).to_string(), "NULL"] {
                assert!(problem.contains(says), "{problem}");
            }
        }
    }
}
