//! Status: our own records first, then what the other program's columns show of them.

use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};

use super::PgStore;
use super::errors::About;
use crate::model::{AgentId, GatewayId};
use crate::store::record::{storable, storable_conditions};
use crate::store::{AgentStatusWrite, Fence, GatewayStatusWrite, StoreError};

/// What an agent's row shows: session key, error, status, gateway.
type Shown = (Option<String>, Option<String>, Option<String>, Option<String>);

impl PgStore {
    pub(super) async fn gateway_status(
        &self,
        fence: &Fence,
        gateway: GatewayId,
        status: &GatewayStatusWrite,
    ) -> Result<(), StoreError> {
        let conditions = Json(storable_conditions(&status.conditions));
        let version = status.server_version.as_deref().map(storable);
        let differs = sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT FROM openclaw_controller.gateway_records WHERE gateway_id = $1
                AND conditions = $2 AND coalesce(server_version = $3, $3 IS NULL) AND coalesce(protocol = $4, $4 IS NULL))",
        )
        .bind(gateway.0)
        .bind(&conditions)
        .bind(version.as_deref())
        .bind(status.protocol);
        if !self.differs(fence, differs).await? {
            return Ok(());
        }
        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        sqlx::query(
            "INSERT INTO openclaw_controller.gateway_records AS r (gateway_id, conditions, server_version, protocol)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (gateway_id) DO UPDATE
                SET conditions = excluded.conditions,
                    server_version = coalesce(excluded.server_version, r.server_version),
                    protocol = coalesce(excluded.protocol, r.protocol)",
        )
        .bind(gateway.0)
        .bind(&conditions)
        .bind(version.as_deref())
        .bind(status.protocol)
        .execute(&mut *tx)
        .await
        .about(|| format!("record of gateway {gateway}"))?;
        tx.commit().await?;
        session.done();
        Ok(())
    }

    pub(super) async fn agent_status(
        &self,
        fence: &Fence,
        agent: AgentId,
        status: &AgentStatusWrite,
    ) -> Result<(), StoreError> {
        let conditions = Json(storable_conditions(&status.conditions));
        let differs = sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT FROM openclaw_controller.agent_records WHERE agent_id = $1 AND conditions = $2)",
        )
        .bind(agent.0)
        .bind(&conditions);
        if self.differs(fence, differs).await? {
            let mut session = self.session().await?;
            let mut tx = self.begin_fenced(&mut session, fence).await?;
            sqlx::query(
                "INSERT INTO openclaw_controller.agent_records AS r (agent_id, conditions) VALUES ($1, $2)
                 ON CONFLICT (agent_id) DO UPDATE SET conditions = excluded.conditions",
            )
            .bind(agent.0)
            .bind(&conditions)
            .execute(&mut *tx)
            .await
            .about(|| format!("record of agent {agent}"))?;
            tx.commit().await?;
            session.done();
        }
        // A transaction of its own: another program may hold the row for minutes.
        if status.projects() {
            self.project(fence, agent, status).await?;
        }
        Ok(())
    }

    async fn project(&self, fence: &Fence, agent: AgentId, status: &AgentStatusWrite) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let row: Option<Shown> = sqlx::query_as(
            "SELECT openclaw_session_id, last_provision_error, status, gateway_id::text FROM agents WHERE id = $1",
        )
        .bind(agent.0)
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        session.done();
        let Some((session_key, last_error, shown, gateway)) = row else {
            return Ok(());
        };

        let wanted = |text: &str| Some(storable(text).into_owned());
        // Each with its type, for those that are no text.
        let mut changes: Vec<(&str, Option<String>, &str)> = Vec::new();
        let mut set = |column, new: Option<String>, old: &Option<String>| {
            if new != *old {
                changes.push((column, new, if column == "gateway_id" { "::uuid" } else { "" }));
            }
        };
        if let Some(new) = &status.session_key {
            set("openclaw_session_id", wanted(new), &session_key);
        }
        if let Some(new) = &status.last_provision_error {
            set("last_provision_error", new.as_deref().and_then(wanted), &last_error);
        }
        if let Some(new) = &status.status {
            set("status", wanted(new), &shown);
        }
        if let Some(new) = &status.gateway_id {
            set("gateway_id", Some(new.to_string()), &gateway);
        }
        if changes.is_empty() {
            return Ok(());
        }

        let mut update = QueryBuilder::<Postgres>::new("UPDATE agents SET ");
        for (i, (column, value, kind)) in changes.iter().enumerate() {
            if i > 0 {
                update.push(", ");
            }
            update.push(*column).push(" = ").push_bind(value).push(*kind);
        }
        update.push(" WHERE id = ").push_bind(agent.0).push(" AND (");
        for (i, (column, value, kind)) in changes.iter().enumerate() {
            if i > 0 {
                update.push(" OR ");
            }
            update
                .push(*column)
                .push(" IS DISTINCT FROM ")
                .push_bind(value)
                .push(*kind);
        }
        update.push(")");

        let mut session = self.session().await?;
        let mut tx = self.begin_fenced(&mut session, fence).await?;
        update
            .build()
            .execute(&mut *tx)
            .await
            .about(|| format!("the row of agent {agent}"))?;
        tx.commit().await?;
        session.done();
        Ok(())
    }
}
