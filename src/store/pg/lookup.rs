//! What people mean, and what happened to it.

use sqlx::Row;
use uuid::Uuid;

use super::PgStore;
use super::records::object_parts;
use crate::model::{AgentId, BoardId, GatewayId, ObjectRef};
use crate::store::lookup::named_agent;
use crate::store::{LookupStore, Named, RecordedEvent, StoreError};

impl LookupStore for PgStore {
    async fn names(&self) -> Result<Vec<Named>, StoreError> {
        self.bounded(self.load_names()).await
    }

    async fn events_of(&self, objects: Option<&[ObjectRef]>, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        let parts: Option<Vec<_>> = objects.map(|objects| objects.iter().copied().map(object_parts).collect());
        self.bounded(self.load_events(parts.as_deref(), limit)).await
    }
}

impl PgStore {
    async fn load_names(&self) -> Result<Vec<Named>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let mut names = Vec::new();
        let rows = sqlx::query("SELECT id, coalesce(name, '') AS name FROM gateways ORDER BY id")
            .fetch_all(&mut *tx)
            .await?;
        for row in rows {
            names.push(Named::Gateway {
                id: GatewayId(row.try_get("id")?),
                name: row.try_get("name")?,
            });
        }
        let rows = sqlx::query(
            "SELECT id, coalesce(name, '') AS name, coalesce(slug, '') AS slug, gateway_id FROM boards ORDER BY id",
        )
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            names.push(Named::Board {
                id: BoardId(row.try_get("id")?),
                name: row.try_get("name")?,
                slug: row.try_get("slug")?,
                gateway: row.try_get::<Option<Uuid>, _>("gateway_id")?.map(GatewayId),
            });
        }
        let rows = sqlx::query(
            "SELECT a.id, coalesce(a.name, '') AS name, a.board_id, coalesce(a.is_board_lead, false) AS lead,
                    coalesce(b.gateway_id, a.gateway_id) AS home
               FROM agents a LEFT JOIN boards b ON b.id = a.board_id ORDER BY a.id",
        )
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            names.push(named_agent(
                AgentId(row.try_get("id")?),
                row.try_get("name")?,
                row.try_get::<Option<Uuid>, _>("board_id")?.map(BoardId),
                row.try_get("lead")?,
                GatewayId(row.try_get("home")?),
            ));
        }
        tx.commit().await?;
        session.done();
        Ok(names)
    }
}
