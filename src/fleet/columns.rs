//! The columns of a row of which the file may say something.

use serde_json::Value;
use uuid::Uuid;

use super::change::{Action, Cell, Change, FieldChange, Table};
use super::find::Found;
use super::model::{Agent, Board, Fleet, Marked, Nullable, Text};
use super::rows::{AgentRow, BoardRow};
use crate::model::JsonColumn;

/// The columns of a row that differ.
pub(super) struct Columns {
    pub(super) is_new: bool,
    pub(super) fields: Vec<FieldChange>,
}

impl Columns {
    /// A column that the file may say something about. Whether it is to be written.
    pub(super) fn set(&mut self, column: &'static str, from: impl FnOnce() -> Cell, to: Option<Cell>) -> bool {
        let Some(to) = to else {
            return false;
        };
        let from = (!self.is_new).then(from);
        let differs = from.as_ref() != Some(&to);
        if differs {
            self.fields.push(FieldChange {
                column,
                from,
                to,
                is_given: true,
            });
        }
        differs
    }

    /// What a column of a new row holds if the file says nothing.
    pub(super) fn default(&mut self, column: &'static str, to: Cell) {
        if self.is_new && !self.fields.iter().any(|field| field.column == column) {
            self.fields.push(FieldChange {
                column,
                from: None,
                to,
                is_given: false,
            });
        }
    }

    pub(super) fn into_change(self, table: Table, id: Uuid, name: String) -> Option<Change> {
        let action = if self.is_new { Action::Create } else { Action::Update };
        (self.is_new || !self.fields.is_empty()).then_some(Change {
            table,
            id,
            name,
            action,
            fields: self.fields,
        })
    }
}

pub(super) fn columns(found: Found) -> Columns {
    Columns {
        is_new: found.row().is_none(),
        fields: Vec::new(),
    }
}

/// The columns of a board about which there is nothing to check.
pub(super) fn board_columns(columns: &mut Columns, it: &Board, row: Option<&BoardRow>) {
    let text = |field: &Nullable<String>| field.as_ref().map(|field| Cell::Text(field.value.clone()));
    let truth = |field: &Nullable<bool>| field.as_ref().map(|field| Cell::Bool(field.value));
    columns.set(
        "board_type",
        || Cell::Text(row.and_then(|row| row.board_type.clone())),
        text(&it.board_type),
    );
    columns.set(
        "description",
        || Cell::Text(row.map(|row| row.description.clone())),
        it.description
            .as_ref()
            .map(|field| Cell::Text(Some(field.value.clone()))),
    );
    columns.set(
        "objective",
        || Cell::Text(row.and_then(|row| row.objective.clone())),
        text(&it.objective),
    );
    columns.set(
        "success_metrics",
        || row.map_or(Cell::Json(None), |row| json(&row.success_metrics)),
        given_json(it.success_metrics.as_ref()),
    );
    columns.set(
        "target_date",
        || Cell::Time(row.and_then(|row| row.target_date)),
        it.target_date
            .as_ref()
            .map(|field| Cell::Time(field.value.map(|instant| instant.0))),
    );
    columns.set(
        "goal_confirmed",
        || Cell::Bool(row.and_then(|row| row.goal_confirmed)),
        truth(&it.goal_confirmed),
    );
    columns.set(
        "require_approval_for_done",
        || Cell::Bool(row.and_then(|row| row.require_approval_for_done)),
        truth(&it.require_approval_for_done),
    );
    columns.set(
        "require_review_before_done",
        || Cell::Bool(row.and_then(|row| row.require_review_before_done)),
        truth(&it.require_review_before_done),
    );
    columns.set(
        "block_status_changes_with_pending_approval",
        || Cell::Bool(row.and_then(|row| row.block_status_changes_with_pending_approval)),
        truth(&it.block_status_changes_with_pending_approval),
    );
    columns.set(
        "only_lead_can_change_status",
        || Cell::Bool(row.and_then(|row| row.only_lead_can_change_status)),
        truth(&it.only_lead_can_change_status),
    );
    columns.set(
        "comment_required_for_review",
        || Cell::Bool(row.and_then(|row| row.comment_required_for_review)),
        truth(&it.comment_required_for_review),
    );
}

/// The columns of an agent about which there is nothing to check.
pub(super) fn agent_columns(columns: &mut Columns, fleet: &Fleet, it: &Agent, row: Option<&AgentRow>) {
    let text = |field: &Nullable<Text>| {
        let field = field.as_ref()?;
        Some(Cell::Text(field.value.as_ref().and_then(|text| match text {
            Text::Inline(text) => Some(text.clone()),
            Text::Named(named) => fleet.templates.get(&named.template).cloned(),
        })))
    };
    columns.set(
        "is_board_lead",
        || Cell::Bool(row.map(|row| row.is_board_lead)),
        it.is_board_lead.as_ref().map(|field| Cell::Bool(Some(field.value))),
    );
    columns.set(
        "heartbeat_config",
        || row.map_or(Cell::Json(None), |row| json(&row.heartbeat_config)),
        given_json(it.heartbeat_config.as_ref()),
    );
    columns.set(
        "identity_profile",
        || row.map_or(Cell::Json(None), |row| json(&row.identity_profile)),
        given_json(it.identity_profile.as_ref()),
    );
    columns.set(
        "identity_template",
        || Cell::Text(row.and_then(|row| row.identity_template.clone())),
        text(&it.identity_template),
    );
    columns.set(
        "soul_template",
        || Cell::Text(row.and_then(|row| row.soul_template.clone())),
        text(&it.soul_template),
    );
    // What is in the file is to be there: a removal that somebody has asked for is taken back.
    if row.is_some_and(|row| row.delete_requested_at.is_some()) {
        columns.set(
            "delete_requested_at",
            || Cell::Time(row.and_then(|row| row.delete_requested_at)),
            Some(Cell::Time(None)),
        );
    }
}

/// A column that holds JSON.
pub(super) fn json(column: &JsonColumn) -> Cell {
    match column {
        None => Cell::Json(None),
        Some(Ok(value)) => Cell::Json(Some(value.clone())),
        Some(Err(_)) => Cell::Unreadable,
    }
}

pub(super) fn given_json(field: Option<&Marked<Option<Value>>>) -> Option<Cell> {
    field.map(|field| Cell::Json(field.value.clone()))
}
