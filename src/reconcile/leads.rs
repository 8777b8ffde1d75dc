//! Rows for leads that are missing, and what is told of a gateway's rows: a lead for each board, a main agent.
//!
//! Only the row is made here. From then on a lead is an agent like any other, which is why none is ever forgotten between its
//! row and its first wake.

use std::sync::Arc;

use super::gateway_status::GatewayFailure;
use super::spec::{Excluded, GatewaySpec};
use super::status::Finding;
use super::world::World;
use crate::gateway::Connector;
use crate::model::{ConditionStatus, ConditionType, EnsureLeads};
use crate::plan::plan_leads;
use crate::runtime::ReconcileError;
use crate::store::{LeadCreation, Store, StoreError};

/// So many boards are told of one by one.
const TOLD: usize = 3;

impl GatewaySpec {
    /// With the leads that are missing.
    pub(super) fn wanting_leads(mut self, ensure: EnsureLeads) -> Self {
        let rows = self.agents.iter().map(|agent| &agent.row);
        let (boards, settings) = (self.snapshot.boards.values(), &self.snapshot.lead_settings);
        self.leads = plan_leads(ensure, self.id(), boards, rows, settings);
        self
    }

    /// Whether the gateway's main agent has a row.
    pub(super) fn has_main(&self) -> bool {
        self.agents.iter().any(|agent| agent.role.is_main())
    }

    /// What keeps agents out of the roster that has to be put right for the whole gateway.
    pub(super) fn held_back(&self) -> Option<Excluded> {
        self.agents.iter().find_map(|agent| {
            let excluded = agent.excluded?;
            matches!(excluded, Excluded::NoOwner | Excluded::NoWorkspaceRoot).then_some(excluded)
        })
    }

    /// Whether another spec has to be told differently in the gateway's conditions, or to be done something else for, although
    /// the roster may be the same.
    pub(super) fn concerns_gateway_otherwise_than(&self, other: &Self) -> bool {
        self.leads != other.leads || self.has_main() != other.has_main() || self.held_back() != other.held_back()
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// Makes the rows of leads that are missing, and returns the gateway's spec with them in it: they are to be part of the
    /// same patch as everything else. What stands in the way of one is remembered, and in the way of nothing else.
    pub(super) async fn ensure_leads(&self, spec: Arc<GatewaySpec>) -> Result<Arc<GatewaySpec>, GatewayFailure> {
        let id = spec.id();
        if self.only.is_some() {
            // A lead has to be woken as well, and that is the business of a controller that stays.
            return Ok(spec);
        }
        if spec.leads.is_empty() {
            self.state().leads.remove(&id);
            return Ok(spec);
        }
        let mut problems = spec.leads.refused.clone();
        let mut changed = false;
        for lead in &spec.leads.create {
            match self.store.create_lead(&self.fence, lead).await {
                Ok(outcome) => {
                    changed = true;
                    if let LeadCreation::Created(agent) = outcome {
                        tracing::info!(gateway = %id, board = %lead.board, %agent, "made the row of a lead");
                    }
                }
                Err(error @ StoreError::Fenced { .. }) => return Err(GatewayFailure::Store(error)),
                Err(error) => {
                    let no_answer = matches!(error, StoreError::Unreachable(_));
                    problems.push(format!("board {} ({}): {error}", lead.board, lead.board_name));
                    if no_answer {
                        // A trigger of theirs that hangs, or the database is gone: either way the next would be waited for as long.
                        break;
                    }
                }
            }
        }
        self.state().leads.insert(id, problems);
        if !changed {
            return Ok(spec);
        }
        // Loaded here and now: whether and when a notification of it arrives is another matter.
        self.refresh(id).await.map_err(GatewayFailure::Store)?;
        self.cache.gateway(id).ok_or(GatewayFailure::Cancelled)
    }

    /// The error by which leads that could not be made are tried again, everything else being done.
    pub(super) fn missing_leads(&self, spec: &GatewaySpec) -> Option<ReconcileError> {
        let (kind, status, reason, message) = self.lead_finding(spec)?;
        let missing = status == ConditionStatus::False;
        missing.then(|| ReconcileError::new(format!("gateway {}: {kind}: {reason}: {message}", spec.id())))
    }

    /// What is to be told of the gateway's rows, whether or not it could be reached.
    pub(super) fn row_findings(&self, spec: &GatewaySpec) -> Vec<Finding> {
        self.lead_finding(spec)
            .into_iter()
            .chain([main_finding(spec)])
            .collect()
    }

    fn lead_finding(&self, spec: &GatewaySpec) -> Option<Finding> {
        use ConditionStatus::{False, True, Unknown};
        if self.settings.ensure_leads == EnsureLeads::None || self.only.is_some() {
            return None;
        }
        let problem = self.state().leads.get(&spec.id()).and_then(|all| summary(all));
        let (status, reason, message) = if spec.leads.is_empty() {
            let message = "every board that is to have a lead has one".to_owned();
            (True, "EveryBoardHasOne", message)
        } else if let Some(problem) = problem {
            (False, "LeadNotCreated", problem)
        } else {
            let message = "leads are missing; their rows are made once the gateway is reached".to_owned();
            (Unknown, "NotObserved", message)
        };
        Some((ConditionType::LeadsEnsured, status, reason, message))
    }
}

/// What stands in the way of leads, if anything does.
fn summary(problems: &[String]) -> Option<String> {
    if problems.is_empty() {
        return None;
    }
    let told: Vec<&str> = problems.iter().take(TOLD).map(String::as_str).collect();
    let more = match problems.len() - told.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Some(format!(
        "leads could not be made: {}{more}. It is tried again; put right what is in the way, make the rows yourself, or run \
         with --ensure-leads=none.",
        told.join("; ")
    ))
}

/// Whether the gateway's main agent has a row. That it has none keeps nothing from being ready.
fn main_finding(spec: &GatewaySpec) -> Finding {
    let (status, reason, message) = if spec.has_main() {
        (
            ConditionStatus::True,
            "RecordFound",
            "the gateway's main agent has a row",
        )
    } else {
        (
            ConditionStatus::False,
            "RecordNotFound",
            "Gateway agent record not found; add a row to agents with this gateway_id and without a board_id to have one.",
        )
    };
    (ConditionType::MainAgent, status, reason, message.to_owned())
}
