//! A plan, for people.

use std::fmt::Write as _;

use serde_json::Value;
use similar::TextDiff;

use super::change::{Action, Cell, Change, FieldChange, Plan, Table};
use super::check;
use super::problem::printable;
use crate::model::TokenSetting;

/// The plan as text: an object a line, what changes of it below. Nothing in it is a token or holds one.
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    let mut last = None;
    for change in &plan.changes {
        let object = (change.table.object(), change.id);
        let (sign, after) = match change.action {
            Action::Create => ("+", format!(" ({})", change.id)),
            Action::Update => ("~", format!(" ({})", change.id)),
            Action::RequestRemoval => (
                "-",
                format!(
                    " ({}): its removal is requested, and the controller takes it from its gateway",
                    change.id
                ),
            ),
            Action::Delete => ("-", format!(" ({}): its row is deleted", change.id)),
        };
        // A board is written to two tables.
        if last.replace(object) != Some(object) {
            let _ = writeln!(text, "{sign} {} {}{after}", change.table.object(), line(&change.name));
        }
        for field in change.fields.iter().filter(|field| is_shown(change, field)) {
            text.push_str(&described(field));
        }
    }
    for note in &plan.notes {
        let _ = writeln!(text, "! {}", line(note));
    }
    text
}

/// One line that counts what a plan does.
pub fn summary(plan: &Plan) -> String {
    // What is chosen for a board's lead is part of the board.
    let count = |actions: &[Action]| {
        let mut objects: Vec<_> = plan
            .changes
            .iter()
            .filter(|change| actions.contains(&change.action))
            .map(|change| (change.table.object(), change.id))
            .collect();
        objects.sort_unstable();
        objects.dedup();
        objects.len()
    };
    format!(
        "{} to add, {} to change, {} to remove",
        count(&[Action::Create]),
        count(&[Action::Update]),
        count(&[Action::RequestRemoval, Action::Delete])
    )
}

fn is_shown(change: &Change, field: &FieldChange) -> bool {
    let is_place = matches!(field.column, "organization_id" | "board_id" | "user_id")
        || (change.table == Table::Agents && field.column == "gateway_id");
    let is_name = matches!(field.column, "name" | "clerk_user_id");
    field.is_given && (change.action == Action::Update || !(is_place || is_name))
}

fn described(field: &FieldChange) -> String {
    let column = field.column;
    let to = shown(column, &field.to);
    let Some(from) = &field.from else {
        return match &to {
            Shown::Short(to) => format!("    {column}: {to}\n"),
            Shown::Long(to) => format!("    {column}:\n{}", indented(to, "      ")),
        };
    };
    let from = shown(column, from);
    match (&from, &to) {
        (Shown::Short(from), Shown::Short(to)) if from == to => {
            format!("    {column}: {from} -> another one\n")
        }
        (Shown::Short(from), Shown::Short(to)) => format!("    {column}: {from} -> {to}\n"),
        (from, to) => {
            let (from, to) = (from.lines(), to.lines());
            let diff = TextDiff::from_lines(&from, &to);
            let diff = diff.unified_diff().context_radius(2).to_string();
            format!("    {column}:\n{}", indented(&diff, "      "))
        }
    }
}

enum Shown {
    /// On the same line.
    Short(String),
    /// Several lines.
    Long(String),
}

impl Shown {
    /// As the lines of a file.
    fn lines(&self) -> String {
        match self {
            Self::Short(text) if text == "null" => String::new(),
            Self::Short(text) => format!("{}\n", text.trim_matches('"')),
            Self::Long(text) if text.ends_with('\n') => text.clone(),
            Self::Long(text) => format!("{text}\n"),
        }
    }
}

fn shown(column: &str, cell: &Cell) -> Shown {
    Shown::Short(match cell {
        Cell::Text(None) | Cell::Bool(None) | Cell::Id(None) | Cell::Json(None) | Cell::Time(None) => "null".to_owned(),
        Cell::Text(Some(text)) => match column {
            "token" if TokenSetting::of(text).is_plausible() => printable(text),
            "token" => "(a token)".to_owned(),
            "url" => quoted(&check::without_secrets(text).unwrap_or_else(|| text.clone())),
            _ if text.contains('\n') => return Shown::Long(printable(text)),
            _ => quoted(text),
        },
        Cell::Bool(Some(value)) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Id(Some(id)) => id.to_string(),
        Cell::Time(Some(time)) => super::model::Instant(*time).to_string(),
        Cell::Json(Some(value)) => match value {
            Value::Object(_) | Value::Array(_) => {
                let short = value.to_string();
                if short.len() > 60 {
                    return Shown::Long(format!("{value:#}\n"));
                }
                short
            }
            value => value.to_string(),
        },
        Cell::Unreadable => "(JSON that cannot be read)".to_owned(),
    })
}

/// A text as JSON writes it: on one line, and harmless on a terminal.
fn quoted(text: &str) -> String {
    printable(&Value::from(text).to_string())
}

fn line(text: &str) -> String {
    printable(&text.replace('\n', " "))
}

fn indented(text: &str, by: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "{by}{line}");
        all
    })
}
