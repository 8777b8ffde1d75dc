//! Carrying out what a fleet file asks for: rows are locked, and written in the order of the plan.

use std::collections::BTreeMap;

use chrono::{NaiveDateTime, TimeDelta};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};
use uuid::Uuid;

use super::errors::About;
use crate::fleet::{Action, Cell, Change, Plan, Table};
use crate::store::StoreError;

/// Locks the rows that change, table by table and in the order of their ids.
pub(super) async fn lock(tx: &mut PgConnection, plan: &Plan) -> Result<(), StoreError> {
    let mut by_table: BTreeMap<Table, Vec<Uuid>> = BTreeMap::new();
    for (table, id) in plan.rows() {
        by_table.entry(table).or_default().push(id);
    }
    for (table, ids) in by_table {
        // Ours, and made where it is missing.
        if table == Table::BoardSettings {
            continue;
        }
        let statement = format!(
            "SELECT 1 FROM {} WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE",
            table.name()
        );
        sqlx::query(AssertSqlSafe(statement))
            .bind(&ids)
            .execute(&mut *tx)
            .await
            .about(|| match ids[..] {
                [id] => format!("{} {id}", table.object()),
                _ => format!("one of {} {}s", ids.len(), table.object()),
            })?;
    }
    Ok(())
}

pub(super) async fn carry_out(tx: &mut PgConnection, plan: &Plan) -> Result<(), StoreError> {
    let now: NaiveDateTime = sqlx::query_scalar("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
        .fetch_one(&mut *tx)
        .await?;
    // Of two agents in one place the older counts, and the one that is named first in the file is.
    for (change, place) in plan.changes.iter().zip(0i64..) {
        let now = now.checked_add_signed(TimeDelta::microseconds(place)).unwrap_or(now);
        let about = || format!("{} {} ({})", change.table.object(), change.name, change.id);
        let done = match (change.action, change.table) {
            (Action::RequestRemoval, table) => {
                let statement = format!(
                    "UPDATE {} SET delete_requested_at = $2, updated_at = $2 WHERE id = $1",
                    table.name()
                );
                sqlx::query(AssertSqlSafe(statement))
                    .bind(change.id)
                    .bind(now)
                    .execute(&mut *tx)
                    .await
            }
            (Action::Delete, table) => delete(tx, table, change.id).await,
            (_, Table::BoardSettings) => settings(tx, change).await,
            (Action::Create, table) => insert(tx, table, change, now).await,
            (Action::Update, table) => update(tx, table, change, now).await,
        };
        done.map_err(|error| told(error, &about()))?;
    }
    Ok(())
}

/// The error of a write, with its object.
pub(super) fn told(error: sqlx::Error, object: &str) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .map(std::borrow::Cow::into_owned);
    let message = error
        .as_database_error()
        .map(|error| error.message().to_owned())
        .unwrap_or_default();
    let problem = match code.as_deref() {
        Some("23503") => {
            format!("{message}: another table refers to it, so it cannot be deleted; apply without --prune")
        }
        Some("23505") => format!("{message}: another program has made it meanwhile, or its id is taken; apply again"),
        Some(code) if code.starts_with("23") => message,
        Some("42501") => {
            return StoreError::Permission(format!(
                "{message}, for {object}: grant this role INSERT, UPDATE and, for --prune, DELETE on it"
            ));
        }
        _ => {
            return Err::<(), _>(error)
                .about(|| object.to_owned())
                .err()
                .unwrap_or(StoreError::Other(message));
        }
    };
    StoreError::BadData {
        object: object.to_owned(),
        problem,
    }
}

type Done = Result<sqlx::postgres::PgQueryResult, sqlx::Error>;

async fn delete(tx: &mut PgConnection, table: Table, id: Uuid) -> Done {
    // What is ours of it goes with it, where only this row explains it.
    let ours = match table {
        Table::Boards => Some("DELETE FROM openclaw_controller.board_settings WHERE board_id = $1"),
        Table::Gateways => Some("DELETE FROM openclaw_controller.gateway_settings WHERE gateway_id = $1"),
        Table::Agents => Some("DELETE FROM openclaw_controller.agent_requests WHERE agent_id = $1"),
        _ => None,
    };
    let statement = format!("DELETE FROM {} WHERE id = $1", table.name());
    let done = sqlx::query(AssertSqlSafe(statement)).bind(id).execute(&mut *tx).await?;
    if let Some(ours) = ours {
        sqlx::query(ours).bind(id).execute(&mut *tx).await?;
    }
    Ok(done)
}

async fn insert(tx: &mut PgConnection, table: Table, change: &Change, now: NaiveDateTime) -> Done {
    let is_stamped = table != Table::Users;
    let mut names = vec!["id"];
    let mut values = vec!["$1".to_owned()];
    if is_stamped {
        names.extend(["created_at", "updated_at"]);
        values.extend(["$2".to_owned(), "$2".to_owned()]);
    }
    let first = if is_stamped { 3 } else { 2 };
    for (field, number) in change.fields.iter().zip(first..) {
        names.push(field.column);
        values.push(placeholder(&field.to, number));
    }
    let statement = format!(
        "INSERT INTO {} ({}) VALUES ({})",
        table.name(),
        names.join(", "),
        values.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(statement)).bind(change.id);
    if is_stamped {
        query = query.bind(now);
    }
    for field in &change.fields {
        query = bind(query, &field.to);
    }
    query.execute(tx).await
}

async fn update(tx: &mut PgConnection, table: Table, change: &Change, now: NaiveDateTime) -> Done {
    let sets: Vec<String> = change
        .fields
        .iter()
        .zip(3..)
        .map(|(field, number)| format!("{} = {}", field.column, placeholder(&field.to, number)))
        .collect();
    let statement = format!(
        "UPDATE {} SET updated_at = $2, {} WHERE id = $1",
        table.name(),
        sets.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(statement)).bind(change.id).bind(now);
    for field in &change.fields {
        query = bind(query, &field.to);
    }
    query.execute(tx).await
}

/// What was chosen for a board's lead: a row of ours.
async fn settings(tx: &mut PgConnection, change: &Change) -> Done {
    let names: Vec<&str> = change.fields.iter().map(|field| field.column).collect();
    let values: Vec<String> = change
        .fields
        .iter()
        .zip(2..)
        .map(|(field, number)| placeholder(&field.to, number))
        .collect();
    let sets: Vec<String> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let statement = format!(
        "INSERT INTO openclaw_controller.board_settings (board_id, {}) VALUES ($1, {}) ON CONFLICT (board_id) DO UPDATE SET {}",
        names.join(", "),
        values.join(", "),
        sets.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(statement)).bind(change.id);
    for field in &change.fields {
        query = bind(query, &field.to);
    }
    query.execute(tx).await
}

fn placeholder(cell: &Cell, number: usize) -> String {
    match cell {
        // As text, so that it is stored as it is written here.
        Cell::Json(_) => format!("${number}::text::json"),
        _ => format!("${number}"),
    }
}

fn bind<'q>(query: Query<'q, Postgres, PgArguments>, cell: &'q Cell) -> Query<'q, Postgres, PgArguments> {
    match cell {
        Cell::Text(text) => query.bind(text.as_deref()),
        Cell::Bool(value) => query.bind(*value),
        Cell::Int(value) => query.bind(*value),
        Cell::Id(id) => query.bind(*id),
        Cell::Json(value) => query.bind(value.as_ref().map(ToString::to_string)),
        Cell::Time(time) => query.bind(*time),
        // Only ever found, never written.
        Cell::Unreadable => query.bind(None::<String>),
    }
}
