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

pub use agent::{AgentStatus, AgentView, OFFLINE_AFTER, is_online, role, shown_status};
pub use board::BoardView;
pub use due::{Due, Retry, agent_due, gateway_due};
pub use event::{EventView, Names};
pub use gateway::{GatewayStatus, GatewayView, shown_url};
pub use token::TokenView;

use chrono::TimeDelta;
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

    /// Whether an agent is as desired, by its own conditions and those of its gateway, whose name is given. One condition of the gateway
    /// stands for all its agents: what was true of them was true when they were last looked at.
    pub fn of_agent(conditions: &Conditions, gateway: &Conditions, name: &str) -> Self {
        let mut ready = Self::of(conditions);
        let gateway_ready = gateway
            .get(ConditionType::Ready)
            .filter(|ready| ready.status != ConditionStatus::True);
        if ready.is_true() && !gateway.is_true(ConditionType::Reachable) {
            ready = Self {
                status: ConditionStatus::Unknown,
                reason: "GatewayNotReachable".into(),
                message: format!("its gateway {name} is not reachable"),
            };
        } else if let (None, Some(gateway)) = (conditions.get(ConditionType::Ready), gateway_ready) {
            ready.reason = "GatewayNotReady".into();
            ready.message = format!(
                "its gateway {name} is not ready: {}: {}",
                gateway.reason, gateway.message
            );
        }
        ready
    }

    /// Whether it is as desired.
    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }
}

/// A span as kubectl shows it: its largest unit.
pub fn ago(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
