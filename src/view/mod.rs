//! What is known of gateways, boards and agents, as people are shown it: read from the database alone, and written nowhere.
//!
//! Each view is made of what the store loads anyway, at a given time, and is plain data that can be serialised. It says what a
//! controller last saw, with what follows from that for an object whose gateway cannot be seen.

mod agent;
mod board;
mod due;
mod event;
mod gateway;
mod token;

pub use agent::{AgentStatus, AgentView, OFFLINE_AFTER};
pub use board::BoardView;
pub use due::{Due, Retry, agent_due, gateway_due};
pub use event::{EventView, Names};
pub use gateway::{GatewayStatus, GatewayView, shown_url};
pub use token::TokenView;

use serde::Serialize;

use crate::model::{ConditionStatus, ConditionType, Conditions};

/// Whether an object is as desired, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Whether it is.
    pub status: ConditionStatus,
    /// A CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl Ready {
    /// The condition, or that there is none yet.
    pub fn of(conditions: &Conditions) -> Self {
        match conditions.get(ConditionType::Ready) {
            Some(ready) => Self {
                status: ready.status,
                reason: ready.reason.clone(),
                message: ready.message.clone(),
            },
            None => Self {
                status: ConditionStatus::Unknown,
                reason: "NotObserved".into(),
                message: "no controller has looked at it yet; is one running?".into(),
            },
        }
    }

    /// Whether it is as desired.
    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }
}
