//! What happened on gateways lately.

use chrono::{DateTime, Utc};
use sqlx::Row;
use uuid::Uuid;

use super::PgStore;
use super::records::{object_of, object_parts};
use crate::model::{CausedRestart, ConfigPart, GatewayHistory, GatewayId, ObjectRef, Undoing};
use crate::store::record::storable;
use crate::store::{Fence, StoreError};

/// Records a restart, and forgets those that count no longer. `$1` the gateway, `$2` when, `$3` whether it is foreseen, `$4` what
/// was changed.
const RECORD_RESTART: &str = "
    WITH old AS (DELETE FROM openclaw_controller.caused_restarts
                  WHERE gateway_id = $1 AND at <= $2::timestamptz - interval '1 hour')
    INSERT INTO openclaw_controller.caused_restarts (gateway_id, at, foreseen, parts) VALUES ($1, $2, $3, $4)
    RETURNING id";

/// Forgets fields of the gateway `$1` that were undone too long before `$2` to count, and that are not fought over.
const FORGET_OLD: &str = "
    DELETE FROM openclaw_controller.undone_fields
     WHERE gateway_id = $1 AND tried_at <= $2::timestamptz - interval '1 hour' AND cardinality(times) < 3";

/// Records one undone field.
const RECORD_UNDONE: &str = "
    INSERT INTO openclaw_controller.undone_fields AS u
           (gateway_id, object_kind, object_id, field, generation, times, tried_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (gateway_id, object_kind, object_id, field) DO UPDATE
       SET generation = excluded.generation, times = excluded.times, tried_at = excluded.tried_at
     WHERE (u.generation, u.times, u.tried_at) IS DISTINCT FROM (excluded.generation, excluded.times, excluded.tried_at)";

impl PgStore {
    pub(super) async fn load_history(&self, gateway: GatewayId) -> Result<GatewayHistory, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let restarts = sqlx::query(
            "SELECT id, at, foreseen, parts FROM openclaw_controller.caused_restarts WHERE gateway_id = $1 ORDER BY at, id",
        )
        .bind(gateway.0)
        .fetch_all(&mut *tx)
        .await?;
        let undone = sqlx::query(
            "SELECT object_kind, object_id, field, generation, times, tried_at FROM openclaw_controller.undone_fields
              WHERE gateway_id = $1 ORDER BY object_kind DESC, object_id, field",
        )
        .bind(gateway.0)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        let restart = |row: &sqlx::postgres::PgRow| -> Result<_, sqlx::Error> {
            let parts: Vec<String> = row.try_get("parts")?;
            Ok(CausedRestart {
                id: row.try_get("id")?,
                at: row.try_get("at")?,
                foreseen: row.try_get("foreseen")?,
                parts: parts.iter().filter_map(|part| ConfigPart::of(part)).collect(),
            })
        };
        let undoing = |row: &sqlx::postgres::PgRow| -> Result<_, sqlx::Error> {
            Ok(Undoing {
                object: object_of(row.try_get("object_kind")?, row.try_get("object_id")?),
                field: row.try_get("field")?,
                generation: row.try_get("generation")?,
                times: row.try_get("times")?,
                tried_at: row.try_get("tried_at")?,
            })
        };
        Ok(GatewayHistory {
            restarts: restarts.iter().map(restart).collect::<Result<_, _>>()?,
            undone: undone.iter().map(undoing).collect::<Result<_, _>>()?,
        })
    }

    pub(super) async fn store_restart(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        restart: &CausedRestart,
    ) -> Result<i64, StoreError> {
        let parts: Vec<&str> = restart.parts.iter().map(|part| part.as_str()).collect();
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        let id: i64 = sqlx::query_scalar(RECORD_RESTART)
            .bind(gateway.0)
            .bind(restart.at)
            .bind(restart.foreseen)
            .bind(&parts)
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(id)
    }

    pub(super) async fn drop_restart(&self, fence: &Fence, gateway: GatewayId, restart: i64) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query("DELETE FROM openclaw_controller.caused_restarts WHERE gateway_id = $1 AND id = $2")
            .bind(gateway.0)
            .bind(restart)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn store_undone(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        fields: &[Undoing],
    ) -> Result<(), StoreError> {
        let known = self.load_history(gateway).await?.undone;
        let is_known = |undoing: &&Undoing| {
            let stored = Undoing {
                field: storable(&undoing.field).into_owned(),
                ..(*undoing).clone()
            };
            known.contains(&stored)
        };
        let new: Vec<_> = fields.iter().filter(|undoing| !is_known(undoing)).collect();
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        if new.is_empty() {
            tx.rollback().await?;
            session.done();
            return Ok(());
        }
        if let Some(now) = new.iter().map(|undoing| undoing.tried_at).max() {
            sqlx::query(FORGET_OLD)
                .bind(gateway.0)
                .bind(now)
                .execute(&mut *tx)
                .await?;
        }
        for undoing in new {
            let (kind, id) = object_parts(undoing.object);
            let times: &[DateTime<Utc>] = &undoing.times;
            sqlx::query(RECORD_UNDONE)
                .bind(gateway.0)
                .bind(kind)
                .bind(id)
                .bind(storable(&undoing.field))
                .bind(undoing.generation)
                .bind(times)
                .bind(undoing.tried_at)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn drop_undone(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        fields: &[(ObjectRef, String)],
    ) -> Result<(), StoreError> {
        let (kinds, ids): (Vec<&str>, Vec<Uuid>) = fields.iter().map(|(object, _)| object_parts(*object)).unzip();
        let names: Vec<_> = fields.iter().map(|(_, field)| storable(field).into_owned()).collect();
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(
            "DELETE FROM openclaw_controller.undone_fields u
              USING unnest($2::text[], $3::uuid[], $4::text[]) AS i (kind, id, field)
              WHERE u.gateway_id = $1 AND u.object_kind = i.kind AND u.object_id = i.id AND u.field = i.field",
        )
        .bind(gateway.0)
        .bind(&kinds)
        .bind(&ids)
        .bind(&names)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }
}
