//! What has to be written so that the rows say what the file says.

use chrono::NaiveDateTime;
use serde_json::Value;
use uuid::Uuid;

/// The tables that a file is about, in the order in which their rows are locked and made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `organizations`
    Organizations,
    /// `users`
    Users,
    /// `organization_members`
    Members,
    /// `gateways`
    Gateways,
    /// `boards`
    Boards,
    /// `openclaw_controller.board_settings`
    BoardSettings,
    /// `agents`
    Agents,
}

impl Table {
    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Organizations => "organizations",
            Self::Users => "users",
            Self::Members => "organization_members",
            Self::Gateways => "gateways",
            Self::Boards => "boards",
            Self::BoardSettings => "openclaw_controller.board_settings",
            Self::Agents => "agents",
        }
    }

    /// What one of its rows is called.
    pub fn object(self) -> &'static str {
        match self {
            Self::Organizations => "organization",
            Self::Users => "user",
            Self::Members => "owner",
            Self::Gateways => "gateway",
            Self::Boards | Self::BoardSettings => "board",
            Self::Agents => "agent",
        }
    }
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the kinds of columns")]
pub enum Cell {
    Text(Option<String>),
    Bool(Option<bool>),
    Int(i32),
    Id(Option<Uuid>),
    Json(Option<Value>),
    Time(Option<NaiveDateTime>),
    /// JSON that this program cannot read; only ever found.
    Unreadable,
}

/// A column that gets a value.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// The column.
    pub column: &'static str,
    /// What is there; `None` for a new row.
    pub from: Option<Cell>,
    /// What is to be there.
    pub to: Cell,
    /// Whether the file says so, rather than a default.
    pub is_given: bool,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// Some columns get other values.
    Update,
    /// An agent's removal is requested: the controller takes it from its gateway first.
    RequestRemoval,
    /// It is deleted.
    Delete,
}

/// A row that has to change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Its primary key.
    pub id: Uuid,
    /// What people call it: the names of what it belongs to and its own.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// The columns, for [`Action::Create`] and [`Action::Update`].
    pub fields: Vec<FieldChange>,
}

/// All that has to change. Printed by [`describe`](super::describe), carried out by the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which it is carried out.
    pub changes: Vec<Change>,
    /// What is not done although it might be expected, and why.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether nothing has to be written.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The rows that are there and change, in the order of the tables and ids: who locks them in this order waits for
    /// others who do, rather than for ever.
    pub fn rows(&self) -> Vec<(Table, Uuid)> {
        let mut rows: Vec<_> = self
            .changes
            .iter()
            .filter(|change| change.action != Action::Create)
            .map(|change| (change.table, change.id))
            .collect();
        rows.sort();
        rows.dedup();
        rows
    }

    /// The rows that are deleted.
    pub fn deletions(&self) -> Vec<(Table, Uuid)> {
        self.changes
            .iter()
            .filter(|change| change.action == Action::Delete)
            .map(|change| (change.table, change.id))
            .collect()
    }
}
