//! Rows for board leads.

use chrono::NaiveDateTime;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::PgStore;
use super::errors::About;
use super::events::insert_events;
use crate::model::{AgentId, NewLead};
use crate::store::record::storable;
use crate::store::{Fence, LeadCreation, SCHEMA, StoreError};

/// How long to wait for whoever else is at the same board. Short, because a gateway has many boards, and its other work waits.
const LOCK_TIMEOUT: &str = "1s";

impl PgStore {
    pub(super) async fn insert_lead(&self, fence: &Fence, lead: &NewLead) -> Result<LeadCreation, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let created = match create(&mut tx, lead)
            .await
            .about(|| format!("the lead of board {}", lead.board))
        {
            Ok(LeadCreation::Created(id)) => insert_events(&mut tx, &[lead.created(id)])
                .await
                .map(|()| LeadCreation::Created(id)),
            other => other,
        };
        if matches!(created, Ok(LeadCreation::Created(_))) {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        session.done();
        created
    }
}

/// Looks whether the board is still there and without a lead, with all others kept out who would do the same, and makes the
/// row.
async fn create(tx: &mut PgConnection, lead: &NewLead) -> Result<LeadCreation, sqlx::Error> {
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(LOCK_TIMEOUT)
        .execute(&mut *tx)
        .await?;
    // Another controller. Their table gets no unique index from us, so this lock is what makes it one lead.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("{SCHEMA}.lead {}", lead.board))
        .execute(&mut *tx)
        .await?;
    if has_lead(&mut *tx, lead).await? {
        return Ok(LeadCreation::Present);
    }
    // The other program: a lead that it has inserted and not committed yet holds its board's row, by the foreign key. Locking
    // takes a right that we need for nothing else, so it is only done where we have it.
    let may_lock: bool = sqlx::query_scalar("SELECT has_any_column_privilege('boards', 'UPDATE')")
        .fetch_one(&mut *tx)
        .await?;
    let board = if may_lock {
        "SELECT 1 FROM boards WHERE id = $1 AND gateway_id = $2 FOR UPDATE"
    } else {
        "SELECT 1 FROM boards WHERE id = $1 AND gateway_id = $2"
    };
    let here: Option<i32> = sqlx::query_scalar(board)
        .bind(lead.board.0)
        .bind(lead.gateway.0)
        .fetch_optional(&mut *tx)
        .await?;
    if here.is_none() {
        return Ok(LeadCreation::BoardElsewhere);
    }
    // Again: what was committed while we waited is seen by a later statement only.
    if has_lead(&mut *tx, lead).await? {
        return Ok(LeadCreation::Present);
    }
    let (id, now): (Uuid, NaiveDateTime) =
        sqlx::query_as("SELECT gen_random_uuid(), clock_timestamp() AT TIME ZONE 'UTC'")
            .fetch_one(&mut *tx)
            .await?;
    let row = lead.row(AgentId(id), now);
    sqlx::query(
        "INSERT INTO agents (id, board_id, gateway_id, name, status, openclaw_session_id, identity_profile, is_board_lead,
                             lifecycle_generation, wake_attempts, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7::json, true, 0, 0, $8, $8)",
    )
    .bind(id)
    .bind(lead.board.0)
    .bind(lead.gateway.0)
    .bind(storable(&row.name))
    .bind(&row.status)
    .bind(row.session_key)
    .bind(Value::from(lead.identity.clone()).to_string())
    .bind(now)
    .execute(&mut *tx)
    .await?;
    Ok(LeadCreation::Created(AgentId(id)))
}

async fn has_lead(tx: &mut PgConnection, lead: &NewLead) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM agents WHERE board_id = $1 AND is_board_lead)")
        .bind(lead.board.0)
        .fetch_one(tx)
        .await
}
