//! Events, each counted rather than repeated.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::PgStore;
use super::records::{object_of, object_parts};
use crate::model::{Event, EventKind};
use crate::store::record::storable;
use crate::store::{Fence, RecordedEvent, StoreError};

/// Events that were not seen again for this long are dropped: enough for a look after a holiday.
const KEPT: &str = "14 days";

impl PgStore {
    pub(super) async fn store_events(&self, fence: &Fence, events: &[Event]) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        insert_events(&mut tx, events).await?;
        sqlx::query("DELETE FROM openclaw_controller.events WHERE last_seen < clock_timestamp() - $1::interval")
            .bind(KEPT)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    /// The newest events, of these objects or of all.
    pub(super) async fn load_events(
        &self,
        objects: Option<&[(&'static str, Uuid)]>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let objects = objects.map(|objects| objects.iter().copied().unzip::<_, _, Vec<_>, Vec<_>>());
        let (kinds, ids) = objects.map_or((None, None), |(kinds, ids)| (Some(kinds), Some(ids)));
        type Row = (String, Uuid, String, String, String, i64, DateTime<Utc>, DateTime<Utc>);
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT object_kind, object_id, kind, reason, message, count, first_seen, last_seen
               FROM openclaw_controller.events
              WHERE $2::text[] IS NULL OR (object_kind, object_id) IN (SELECT * FROM unnest($2::text[], $3::uuid[]))
              ORDER BY last_seen DESC, id DESC LIMIT $1",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(kinds)
        .bind(ids)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(
                |(object, id, kind, reason, message, count, first_seen, last_seen)| RecordedEvent {
                    event: Event {
                        object: object_of(&object, id),
                        kind: if kind == "Warning" {
                            EventKind::Warning
                        } else {
                            EventKind::Normal
                        },
                        reason,
                        message,
                    },
                    count,
                    first_seen,
                    last_seen,
                },
            )
            .collect())
    }
}

/// Records events in a transaction that others have begun.
pub(super) async fn insert_events(tx: &mut PgConnection, events: &[Event]) -> Result<(), StoreError> {
    // One statement cannot touch a row twice.
    let mut counts: BTreeMap<(&str, Uuid, &str, String, String), i64> = BTreeMap::new();
    for event in events {
        let (kind, id) = object_parts(event.object);
        let key = (
            kind,
            id,
            kind_text(event.kind),
            storable(&event.reason).into_owned(),
            storable(&event.message).into_owned(),
        );
        *counts.entry(key).or_default() += 1;
    }
    let (mut objects, mut ids, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reasons, mut messages, mut totals) = (Vec::new(), Vec::new(), Vec::new());
    for ((object, id, kind, reason, message), count) in counts {
        objects.push(object);
        ids.push(id);
        kinds.push(kind);
        reasons.push(reason);
        messages.push(message);
        totals.push(count);
    }
    sqlx::query(
        "INSERT INTO openclaw_controller.events AS e
                (object_kind, object_id, kind, reason, message, count, first_seen, last_seen)
         SELECT i.*, clock_timestamp(), clock_timestamp()
           FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[]) AS i
         ON CONFLICT (object_kind, object_id, kind, reason, md5(message)) DO UPDATE
            SET count = e.count + excluded.count, last_seen = excluded.last_seen",
    )
    .bind(&objects)
    .bind(&ids)
    .bind(&kinds)
    .bind(&reasons)
    .bind(&messages)
    .bind(&totals)
    .execute(tx)
    .await?;
    Ok(())
}

fn kind_text(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Normal => "Normal",
        EventKind::Warning => "Warning",
    }
}
