//! Reading desired state: a handful of queries in one transaction, however many gateways there are.

use std::collections::{BTreeMap, HashMap};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{PgStore, rows};
use crate::model::{AgentId, AgentRecord, Board, BoardId, GatewayId, GatewaySnapshot, LeadSettings};
use crate::store::StoreError;

impl PgStore {
    /// This gateway, or all of them, as of one instant; ordered by id. `conditions`: whether with those of the agents.
    pub(super) async fn load(
        &self,
        only: Option<GatewayId>,
        conditions: bool,
    ) -> Result<Vec<GatewaySnapshot>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let snapshots = snapshots(&mut tx, only.map(|id| id.0), conditions).await?;
        tx.commit().await?;
        session.done();
        Ok(snapshots)
    }
}

async fn snapshots(
    tx: &mut PgConnection,
    only: Option<Uuid>,
    conditions: bool,
) -> Result<Vec<GatewaySnapshot>, StoreError> {
    let mut fleet: BTreeMap<GatewayId, GatewaySnapshot> = BTreeMap::new();
    let gateways = match only {
        None => sqlx::query(rows::GATEWAYS),
        Some(id) => sqlx::query(rows::GATEWAY).bind(id),
    };
    let mut has_vanished = false;
    for row in &gateways.fetch_all(&mut *tx).await? {
        let (gateway, owner, record) = rows::gateway(row)?;
        has_vanished |= row.try_get::<bool, _>("has_vanished")?;
        fleet.insert(
            gateway.id,
            GatewaySnapshot {
                gateway,
                owner,
                boards: HashMap::new(),
                lead_settings: BTreeMap::new(),
                agents: Vec::new(),
                record,
                agent_records: HashMap::new(),
            },
        );
    }
    if fleet.is_empty() {
        return Ok(Vec::new());
    }

    let on_them = match only {
        None => sqlx::query(rows::BOARDS),
        Some(id) => sqlx::query(rows::BOARDS_ON).bind(id),
    };
    let (mut boards, lead_settings) = boards(&on_them.fetch_all(&mut *tx).await?)?;
    let agents = match only {
        None => sqlx::query(rows::AGENTS),
        Some(id) => sqlx::query(rows::AGENTS_ON).bind(id),
    };
    let agents = agents.bind(conditions);
    let rows = agents.fetch_all(&mut *tx).await?;
    let mut elsewhere: Vec<Uuid> = Vec::new();
    let mut wanted: Vec<(GatewayId, BoardId)> = Vec::new();
    for row in &rows {
        let (home, agent) = rows::agent(row)?;
        let Some(snapshot) = fleet.get_mut(&home) else {
            continue;
        };
        if let Some(board) = agent.board_id
            && boards.get(&board).and_then(|board| board.gateway_id) != Some(home)
        {
            wanted.push((home, board));
            if !boards.contains_key(&board) {
                elsewhere.push(board.0);
            }
        }
        snapshot.agents.push(agent);
        snapshot.agent_records.extend(rows::agent_record(row)?);
    }
    // Boards without a gateway, whose agents can only be reported.
    if !elsewhere.is_empty() {
        let rows = sqlx::query(rows::BOARDS_OF)
            .bind(&elsewhere)
            .fetch_all(&mut *tx)
            .await?;
        boards.extend(self::boards(&rows)?.0);
    }
    for (id, settings) in lead_settings {
        let home = boards.get(&id).and_then(|board| board.gateway_id);
        if let Some(snapshot) = home.and_then(|home| fleet.get_mut(&home)) {
            snapshot.lead_settings.insert(id, settings);
        }
    }
    for (home, board) in wanted {
        if let (Some(snapshot), Some(board)) = (fleet.get_mut(&home), boards.get(&board)) {
            snapshot.boards.insert(board.id, board.clone());
        }
    }
    for (id, board) in boards {
        if let Some(snapshot) = board.gateway_id.and_then(|home| fleet.get_mut(&home)) {
            snapshot.boards.insert(id, board);
        }
    }

    if has_vanished {
        for (agent, last, record) in vanished(tx, only, conditions).await? {
            if let Some(snapshot) = last.and_then(|last| fleet.get_mut(&last)) {
                snapshot.agent_records.insert(agent, record);
            }
        }
    }
    Ok(fleet.into_values().collect())
}

/// Boards, and what was chosen for the leads of some of them.
type Boards = (HashMap<BoardId, Board>, HashMap<BoardId, LeadSettings>);

fn boards(rows: &[PgRow]) -> Result<Boards, StoreError> {
    let (mut boards, mut settings) = (HashMap::with_capacity(rows.len()), HashMap::new());
    for row in rows {
        let board = rows::board(row)?;
        if let Some(chosen) = rows::lead_settings(row)? {
            settings.insert(board.id, chosen);
        }
        boards.insert(board.id, board);
    }
    Ok((boards, settings))
}

/// Records of agents without a row that were last on this gateway, or on any, and on which.
async fn vanished(
    tx: &mut PgConnection,
    gateway: Option<Uuid>,
    conditions: bool,
) -> Result<Vec<(AgentId, Option<GatewayId>, AgentRecord)>, StoreError> {
    let query = match gateway {
        None => sqlx::query(rows::VANISHED),
        Some(gateway) => sqlx::query(rows::VANISHED_FROM).bind(gateway),
    };
    let mut vanished = Vec::new();
    for row in &query.bind(conditions).fetch_all(&mut *tx).await? {
        if let Some((agent, record)) = rows::agent_record(row)? {
            let last = row.try_get::<Option<Uuid>, _>("last_gateway_id")?.map(GatewayId);
            vanished.push((agent, last, record));
        }
    }
    Ok(vanished)
}
