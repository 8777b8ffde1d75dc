//! Reading desired state: a handful of queries in one transaction, however many gateways there are.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{PgStore, rows};
use crate::model::{AgentId, AgentRecord, Board, BoardId, GatewayId, GatewayRecord, GatewaySnapshot, LeadSettings};
use crate::store::{OrphanGateway, StoreError};

impl PgStore {
    /// These gateways, or all of them, as of one instant; ordered by id. `conditions`: whether with those of the agents.
    pub(super) async fn load(
        &self,
        ids: Option<&[GatewayId]>,
        conditions: bool,
    ) -> Result<Vec<GatewaySnapshot>, StoreError> {
        let ids: Option<Vec<Uuid>> = ids.map(|ids| ids.iter().map(|id| id.0).collect());
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let snapshots = snapshots(&mut tx, ids, conditions).await?;
        tx.commit().await?;
        session.done();
        Ok(snapshots)
    }

    /// Gateways that only our records still know, ordered by id.
    pub(super) async fn load_orphans(&self) -> Result<Vec<OrphanGateway>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = self.begin_read(&mut session).await?;
        let rows = sqlx::query(
            "SELECT r.gateway_id, r.generation, r.spec_digest, r.conditions::text AS conditions, r.server_version, r.protocol
               FROM openclaw_controller.gateway_records r
              WHERE NOT EXISTS (SELECT FROM gateways g WHERE g.id = r.gateway_id)",
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut orphans = BTreeMap::new();
        for row in &rows {
            let id = GatewayId(row.try_get("gateway_id")?);
            orphans.insert(id, (rows::gateway_record(row)?, HashMap::new()));
        }
        let known: HashSet<Uuid> = sqlx::query_scalar("SELECT id FROM gateways")
            .fetch_all(&mut *tx)
            .await?
            .into_iter()
            .collect();
        for (agent, last, record) in agent_records(&mut tx, &[], None, true).await? {
            let Some(gateway) = last.filter(|gateway| !known.contains(&gateway.0)) else {
                continue;
            };
            let (_, agents) = orphans
                .entry(gateway)
                .or_insert_with(|| (GatewayRecord::default(), HashMap::new()));
            agents.insert(agent, record);
        }
        tx.commit().await?;
        session.done();
        Ok(orphans
            .into_iter()
            .map(|(id, (record, agent_records))| OrphanGateway {
                id,
                record,
                agent_records,
            })
            .collect())
    }
}

async fn snapshots(
    tx: &mut PgConnection,
    ids: Option<Vec<Uuid>>,
    conditions: bool,
) -> Result<Vec<GatewaySnapshot>, StoreError> {
    let mut fleet: BTreeMap<GatewayId, GatewaySnapshot> = BTreeMap::new();
    for row in &sqlx::query(rows::GATEWAYS).bind(&ids).fetch_all(&mut *tx).await? {
        let (gateway, owner, record) = rows::gateway(row)?;
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

    let (mut boards, lead_settings) = boards(tx, ids.as_deref(), None).await?;
    let on_gateways: Vec<Uuid> = boards.keys().map(|id| id.0).collect();
    let agents = match &ids {
        None => sqlx::query(rows::AGENTS),
        Some(ids) => sqlx::query(rows::AGENTS_OF).bind(ids).bind(&on_gateways),
    };
    let rows = agents.fetch_all(&mut *tx).await?;
    let mut home_of: HashMap<AgentId, GatewayId> = HashMap::with_capacity(rows.len());
    let mut elsewhere: Vec<Uuid> = Vec::new();
    let mut wanted: Vec<(GatewayId, BoardId)> = Vec::new();
    for row in &rows {
        let (home, agent) = rows::agent(row)?;
        let Some(snapshot) = fleet.get_mut(&home) else {
            continue;
        };
        home_of.insert(agent.id, home);
        if let Some(board) = agent.board_id
            && boards.get(&board).and_then(|board| board.gateway_id) != Some(home)
        {
            wanted.push((home, board));
            if !boards.contains_key(&board) {
                elsewhere.push(board.0);
            }
        }
        snapshot.agents.push(agent);
    }
    // Boards without a gateway, whose agents can only be reported.
    if !elsewhere.is_empty() {
        boards.extend(self::boards(tx, None, Some(&elsewhere)).await?.0);
    }
    let board_ids: Vec<Uuid> = boards.keys().map(|id| id.0).collect();
    let paused: Vec<Uuid> = sqlx::query_scalar(rows::PAUSED)
        .bind(&board_ids)
        .fetch_all(&mut *tx)
        .await?;
    for id in paused {
        if let Some(board) = boards.get_mut(&BoardId(id)) {
            board.paused = true;
        }
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

    let agent_ids: Vec<Uuid> = home_of.keys().map(|id| id.0).collect();
    for (agent, last, record) in agent_records(tx, &agent_ids, ids.as_deref(), conditions).await? {
        let home = home_of.get(&agent).copied().or(last);
        if let Some(snapshot) = home.and_then(|home| fleet.get_mut(&home)) {
            snapshot.agent_records.insert(agent, record);
        }
    }
    Ok(fleet.into_values().collect())
}

/// Boards, and what was chosen for the leads of some of them.
type Boards = (HashMap<BoardId, Board>, HashMap<BoardId, LeadSettings>);

async fn boards(tx: &mut PgConnection, gateways: Option<&[Uuid]>, ids: Option<&[Uuid]>) -> Result<Boards, StoreError> {
    let rows = sqlx::query(rows::BOARDS)
        .bind(gateways)
        .bind(ids)
        .fetch_all(&mut *tx)
        .await?;
    let (mut boards, mut settings) = (HashMap::with_capacity(rows.len()), HashMap::new());
    for row in &rows {
        let board = rows::board(row)?;
        if let Some(chosen) = rows::lead_settings(row)? {
            settings.insert(board.id, chosen);
        }
        boards.insert(board.id, board);
    }
    Ok((boards, settings))
}

async fn agent_records(
    tx: &mut PgConnection,
    agents: &[Uuid],
    gateways: Option<&[Uuid]>,
    conditions: bool,
) -> Result<Vec<(AgentId, Option<GatewayId>, AgentRecord)>, StoreError> {
    let rows = sqlx::query(rows::AGENT_RECORDS)
        .bind(agents)
        .bind(gateways)
        .bind(conditions)
        .fetch_all(&mut *tx)
        .await?;
    rows.iter().map(rows::agent_record).collect()
}
