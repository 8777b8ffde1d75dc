//! Lists: as a table, as JSON, and as YAML.

use clap::ValueEnum;
use comfy_table::{Color, ColumnConstraint, Table, Width, presets};
use serde_json::Value;

use super::out::plain;
use crate::model::ConditionStatus;

/// How lists are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A table.
    Table,
    /// A table with ids and messages.
    Wide,
    /// Everything, as JSON.
    Json,
    /// Everything, as YAML.
    Yaml,
}

/// A row of a table, and the same object as JSON.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What tells it from all others of its list.
    pub(super) key: String,
    /// The row.
    pub(super) cells: Vec<Cell>,
    /// The object.
    pub(super) json: Value,
    /// What has to change for the object to be news: the object without what changes by itself.
    pub(super) news: Value,
}

impl Item {
    /// An item of which everything is news.
    pub(super) fn new(key: impl std::fmt::Display, cells: Vec<Cell>, json: Value) -> Self {
        Self {
            key: format!("{key}"),
            cells,
            news: json.clone(),
            json,
        }
    }

    /// Without these members of the object when it comes to news.
    pub(super) fn but_for(mut self, members: &[&str]) -> Self {
        if let Value::Object(news) = &mut self.news {
            news.retain(|key, _| !members.contains(&key.as_str()));
        }
        self
    }
}

/// A cell of a row, with the title of its column.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) title: &'static str,
    pub(super) text: String,
    color: Option<Color>,
    /// Shown only in wide tables.
    wide: bool,
}

impl Cell {
    /// Green if all is well, red if not, yellow if nobody knows.
    pub(super) fn by(mut self, status: ConditionStatus) -> Self {
        self.color = Some(match status {
            ConditionStatus::True => Color::Green,
            ConditionStatus::False => Color::Red,
            ConditionStatus::Unknown => Color::Yellow,
        });
        self
    }
}

/// A cell of every table.
pub(super) fn cell(title: &'static str, text: impl std::fmt::Display) -> Cell {
    Cell {
        title,
        text: plain(&text.to_string()),
        color: None,
        wide: false,
    }
}

/// A cell of wide tables.
pub(super) fn wide(title: &'static str, text: impl std::fmt::Display) -> Cell {
    Cell {
        wide: true,
        ..cell(title, text)
    }
}

/// Tables whose columns keep the widths that they once had, so that rows that come later stand below the earlier ones.
#[derive(Default)]
pub(super) struct Columns {
    widths: Vec<u16>,
    titled: bool,
}

impl Columns {
    /// These items as lines, below the titles if those were not printed before.
    pub(super) fn lines<'a>(&mut self, items: impl IntoIterator<Item = &'a Item>, all: bool) -> String {
        let mut table = bare();
        for item in items {
            let cells: Vec<_> = item.cells.iter().filter(|cell| all || !cell.wide).collect();
            if !self.titled {
                table.set_header(cells.iter().map(|cell| cell.title));
                self.titled = true;
            }
            table.add_row(cells.into_iter().map(|cell| {
                let shown = comfy_table::Cell::new(&cell.text);
                match cell.color {
                    Some(color) => shown.fg(color),
                    None => shown,
                }
            }));
        }
        let widths = table.column_max_content_widths();
        self.widths.resize(widths.len().max(self.widths.len()), 0);
        for ((kept, width), column) in self.widths.iter_mut().zip(widths).zip(table.column_iter_mut()) {
            *kept = width.max(*kept);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(kept.saturating_add(2))));
        }
        lines(&table)
    }
}

/// A table without lines. It is always coloured: whatever is printed loses its colours where they are not wanted.
pub(super) fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).enforce_styling();
    table.style_text_only();
    table
}

/// A table's lines, as they are printed.
pub(super) fn lines(table: &Table) -> String {
    let table = table.to_string();
    // The table pads its first column on the left.
    let lines = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

/// A value as YAML, which ends with a line break.
pub(super) fn yaml(value: &impl serde::Serialize) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value)?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}
