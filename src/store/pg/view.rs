//! What people look at. Each list is one statement, planned for what is looked for: which rows, in which order, how many in all, and
//! only then what there is to say of those that are shown.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::errors::About;
use super::records::{object_of, object_parts};
use super::{PgStore, rows};
use crate::model::{AgentId, AgentRole, BoardId, Conditions, Event, EventKind, GatewayId};
use crate::store::view::{
    AgentSummary, BoardSummary, EventFilter, EventPosition, EventSummary, GatewaySummary, Listed, Totals, ViewFilter,
    ViewStore, Window,
};
use crate::store::{RecordedEvent, StoreError};

/// What is true of an agent was true when it was last looked at: it counts only while its gateway can be reached.
macro_rules! agent_ready {
    () => {
        r#"(coalesce(r.conditions @> '[{"type": "Ready", "status": "True"}]', false)
            AND coalesce(gr.conditions @> '[{"type": "Reachable", "status": "True"}]', false))"#
    };
}

macro_rules! gateway_ready {
    () => {
        r#"coalesce(gr.conditions @> '[{"type": "Ready", "status": "True"}]', false)"#
    };
}

/// Agents with their boards and gateways, and our records of them.
macro_rules! agents_joined {
    () => {
        "agents a
          LEFT JOIN boards b ON b.id = a.board_id
          JOIN gateways g ON g.id = coalesce(b.gateway_id, a.gateway_id)
          LEFT JOIN openclaw_controller.gateway_records gr ON gr.gateway_id = g.id
          LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id"
    };
}

/// The part of what was found that is shown, with how much was found. Only what it is ordered by is carried along until here: that
/// takes half the time of a window function over whole rows.
macro_rules! page {
    () => {
        " page AS (SELECT *, (SELECT count(*) FROM found) AS total FROM found ORDER BY ready, name, id OFFSET $6 LIMIT $7)"
    };
}

const TOTALS: &str = concat!(
    "SELECT (SELECT count(*) FROM gateways) AS gateways,
            (SELECT count(*) FROM gateways g JOIN openclaw_controller.gateway_records gr ON gr.gateway_id = g.id WHERE ",
    gateway_ready!(),
    ") AS gateways_ready,
            (SELECT count(*) FROM boards) AS boards,
            (SELECT count(*) FROM agents) AS agents,
            (SELECT count(*) FROM ",
    agents_joined!(),
    " WHERE ",
    agent_ready!(),
    ") AS agents_ready"
);

/// `$1` id, `$2` gateway, `$3` board, `$4` search, `$5` ready, `$6` offset, `$7` limit; in the following as well.
const GATEWAYS: &str = concat!(
    "WITH found AS MATERIALIZED (
        SELECT g.id, ",
    gateway_ready!(),
    " AS ready, lower(coalesce(g.name, '')) COLLATE \"C\" AS name
          FROM gateways g LEFT JOIN openclaw_controller.gateway_records gr ON gr.gateway_id = g.id
         WHERE ($1::uuid IS NULL OR g.id = $1) AND ($2::uuid IS NULL OR g.id = $2)
           AND ($3::uuid IS NULL OR EXISTS (SELECT FROM boards b WHERE b.id = $3 AND b.gateway_id = g.id))
           AND ($4::text IS NULL OR strpos(lower(concat_ws(' ', g.name, g.id)), lower($4)) > 0)
           AND ($5::boolean IS NULL OR ",
    gateway_ready!(),
    " = $5)),",
    page!(),
    ", counts AS (
        SELECT g.id, count(*) AS agents, count(*) FILTER (WHERE ",
    agent_ready!(),
    ") AS agents_ready FROM ",
    agents_joined!(),
    " WHERE g.id IN (SELECT id FROM page) GROUP BY g.id)
    SELECT g.id, coalesce(g.name, '') AS name, g.url, coalesce(gr.generation, 0) AS generation, gr.server_version, gr.protocol,
           gr.conditions::text AS conditions, page.total, coalesce(counts.agents, 0) AS agents,
           coalesce(counts.agents_ready, 0) AS agents_ready,
           (SELECT count(*) FROM boards b WHERE b.gateway_id = g.id) AS boards
      FROM page JOIN gateways g ON g.id = page.id
      LEFT JOIN openclaw_controller.gateway_records gr ON gr.gateway_id = g.id
      LEFT JOIN counts ON counts.id = g.id
     ORDER BY page.ready, page.name, page.id"
);

const BOARDS: &str = concat!(
    "WITH counts AS (
        SELECT a.board_id, count(*) AS agents, count(*) FILTER (WHERE ",
    agent_ready!(),
    ") AS agents_ready FROM ",
    agents_joined!(),
    " WHERE a.board_id IS NOT NULL AND ($1::uuid IS NULL OR a.board_id = $1) AND ($2::uuid IS NULL OR b.gateway_id = $2)
         GROUP BY a.board_id),
    found AS MATERIALIZED (
        SELECT b.id, coalesce(counts.agents = counts.agents_ready, true) AS ready,
               lower(coalesce(b.name, '')) COLLATE \"C\" AS name,
               coalesce(counts.agents, 0) AS agents, coalesce(counts.agents_ready, 0) AS agents_ready
          FROM boards b LEFT JOIN counts ON counts.board_id = b.id LEFT JOIN gateways g ON g.id = b.gateway_id
         WHERE ($1::uuid IS NULL OR b.id = $1) AND ($2::uuid IS NULL OR b.gateway_id = $2)
           AND ($3::uuid IS NULL OR b.id = $3)
           AND ($4::text IS NULL OR strpos(lower(concat_ws(' ', b.name, b.id, g.name)), lower($4)) > 0)
           AND ($5::boolean IS NULL OR coalesce(counts.agents = counts.agents_ready, true) = $5)),",
    page!(),
    " SELECT b.id, coalesce(b.name, '') AS name, coalesce(b.board_type, '') AS board_type, b.gateway_id,
           coalesce(g.name, '') AS gateway_name, page.total, page.agents, page.agents_ready,
           lead.id AS lead_id, coalesce(lead.name, '') AS lead_name
      FROM page JOIN boards b ON b.id = page.id LEFT JOIN gateways g ON g.id = b.gateway_id
      LEFT JOIN LATERAL (
            SELECT a.id, a.name FROM agents a WHERE a.board_id = b.id AND a.is_board_lead
             ORDER BY a.created_at, a.id LIMIT 1) lead ON true
     ORDER BY page.ready, page.name, page.id"
);

const AGENTS: &str = concat!(
    "WITH found AS MATERIALIZED (
        SELECT a.id, ",
    agent_ready!(),
    " AS ready, lower(coalesce(a.name, '')) COLLATE \"C\" AS name
          FROM ",
    agents_joined!(),
    " WHERE ($1::uuid IS NULL OR a.id = $1) AND ($2::uuid IS NULL OR g.id = $2) AND ($3::uuid IS NULL OR a.board_id = $3)
           AND ($4::text IS NULL OR strpos(lower(concat_ws(' ', a.name, a.id, b.name, b.id, g.name, g.id)), lower($4)) > 0)
           AND ($5::boolean IS NULL OR ",
    agent_ready!(),
    " = $5)),",
    page!(),
    " SELECT a.id, coalesce(a.name, '') AS name, a.board_id, b.name AS board_name, coalesce(a.is_board_lead, false) AS is_board_lead,
           b.id IS NOT NULL AS board_exists, g.id AS gateway_id, coalesce(g.name, '') AS gateway_name,
           gr.conditions::text AS gateway_conditions, coalesce(a.status, '') AS status,
           CASE WHEN a.last_seen_at IS NOT NULL
                THEN least(greatest(a.last_seen_at, '0001-01-01'), '9999-12-31') END AS last_seen_at,
           coalesce(r.generation, 0) AS generation, r.first_provisioned_at, r.conditions::text AS conditions, page.total
      FROM page JOIN (",
    agents_joined!(),
    ") ON a.id = page.id
     ORDER BY page.ready, page.name, page.id"
);

macro_rules! events {
    ($total:literal, $from:literal) => {
        concat!(
            "SELECT e.id, e.object_kind, e.object_id, e.kind, e.reason, e.message, e.count, e.first_seen, e.last_seen,
                    coalesce(g.name, a.name) AS object_name, ",
            $total,
            " AS total FROM ",
            $from,
            " LEFT JOIN gateways g ON e.object_kind = 'gateway' AND g.id = e.object_id
              LEFT JOIN agents a ON e.object_kind = 'agent' AND a.id = e.object_id "
        )
    };
}

/// `$1` id, `$2` and `$3` kind and id of the object, `$4` search, `$5` warning, `$6` offset, `$7` limit.
const EVENTS: &str = concat!(
    "WITH found AS MATERIALIZED (
        SELECT e.id, e.last_seen
          FROM openclaw_controller.events e
          LEFT JOIN gateways g ON e.object_kind = 'gateway' AND g.id = e.object_id
          LEFT JOIN agents a ON e.object_kind = 'agent' AND a.id = e.object_id
         WHERE ($1::bigint IS NULL OR e.id = $1)
           AND ($2::text IS NULL OR (e.object_kind = $2 AND e.object_id = $3))
           AND ($4::text IS NULL
                OR strpos(lower(concat_ws(' ', e.reason, e.message, g.name, a.name, e.object_id)), lower($4)) > 0)
           AND ($5::boolean IS NULL OR (e.kind = 'Warning') = $5)),
    page AS (SELECT * FROM found ORDER BY last_seen DESC, id DESC OFFSET $6 LIMIT $7) ",
    events!(
        "(SELECT count(*) FROM found)",
        "page JOIN openclaw_controller.events e ON e.id = page.id"
    ),
    "ORDER BY page.last_seen DESC, page.id DESC"
);

const EVENTS_AFTER: &str = concat!(
    events!("0::bigint", "openclaw_controller.events e"),
    "WHERE (e.last_seen, e.id) > ($1, $2) ORDER BY e.last_seen, e.id LIMIT $3"
);

/// A look that takes longer than this is given up: whoever looks can look again.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);

type Prepared<'a> = Query<'a, Postgres, PgArguments>;

impl PgStore {
    /// The rows of a statement, from the connections that are there for people.
    async fn view_rows(&self, query: Prepared<'_>) -> Result<Vec<PgRow>, StoreError> {
        self.bounded(async {
            let mut session = self.session_of(&self.view_pool).await?;
            let begin = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL jit = off",
                STATEMENT_TIMEOUT.min(self.options.statement_timeout).as_millis()
            );
            let mut tx = session.begin(begin).await?;
            // Planned for these values: a list of everything and a single object want different plans.
            let rows = query.persistent(false).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            session.done();
            Ok(rows)
        })
        .await
    }

    /// A part of a list. How many there are in all stands in its rows, so an empty part asks once more.
    async fn view_list<'a, T>(
        &self,
        window: Window,
        query: impl Fn(Window) -> Prepared<'a>,
        read: impl Fn(&PgRow) -> Result<T, StoreError>,
    ) -> Result<Listed<T>, StoreError> {
        let rows = self.view_rows(query(window)).await?;
        let mut total = rows.first().map_or(Ok(0), total_of)?;
        if rows.is_empty() && window.offset > 0 {
            let first = Window { offset: 0, limit: 1 };
            let rows = self.view_rows(query(first)).await?;
            total = rows.first().map_or(Ok(0), total_of)?;
        }
        let items = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Listed { items, total })
    }
}

impl ViewStore for PgStore {
    async fn view_totals(&self) -> Result<Totals, StoreError> {
        let rows = self.view_rows(sqlx::query(TOTALS)).await?;
        let Some(row) = rows.first() else {
            return Ok(Totals::default());
        };
        Ok(Totals {
            gateways: count(row, "gateways")?,
            gateways_ready: count(row, "gateways_ready")?,
            boards: count(row, "boards")?,
            agents: count(row, "agents")?,
            agents_ready: count(row, "agents_ready")?,
        })
    }

    async fn view_gateways(&self, filter: &ViewFilter, window: Window) -> Result<Listed<GatewaySummary>, StoreError> {
        self.view_list(window, |window| bind(GATEWAYS, filter, window), gateway)
            .await
    }

    async fn view_boards(&self, filter: &ViewFilter, window: Window) -> Result<Listed<BoardSummary>, StoreError> {
        let mut listed = self
            .view_list(window, |window| bind(BOARDS, filter, window), board)
            .await?;
        let ids: Vec<Uuid> = listed.items.iter().map(|board| board.id.0).collect();
        if !ids.is_empty() {
            for row in self.view_rows(sqlx::query(rows::PAUSED).bind(ids)).await? {
                let id = BoardId(row.try_get("board_id")?);
                if let Some(board) = listed.items.iter_mut().find(|board| board.id == id) {
                    board.paused = true;
                }
            }
        }
        Ok(listed)
    }

    async fn view_agents(&self, filter: &ViewFilter, window: Window) -> Result<Listed<AgentSummary>, StoreError> {
        self.view_list(window, |window| bind(AGENTS, filter, window), agent)
            .await
    }

    async fn view_events(&self, filter: &EventFilter, window: Window) -> Result<Listed<EventSummary>, StoreError> {
        let object = filter.object.map(object_parts);
        let query = |window: Window| {
            sqlx::query(EVENTS)
                .bind(filter.id)
                .bind(object.map(|(kind, _)| kind))
                .bind(object.map(|(_, id)| id))
                .bind(filter.search.as_deref())
                .bind(filter.warning)
                .bind(i64::try_from(window.offset).unwrap_or(i64::MAX))
                .bind(i64::from(window.limit))
        };
        self.view_list(window, query, event).await
    }

    async fn view_events_after(&self, after: EventPosition, limit: u32) -> Result<Vec<EventSummary>, StoreError> {
        let query = sqlx::query(EVENTS_AFTER)
            .bind(after.last_seen)
            .bind(after.id)
            .bind(i64::from(limit));
        self.view_rows(query).await?.iter().map(event).collect()
    }

    async fn view_last_event(&self) -> Result<EventPosition, StoreError> {
        let last = sqlx::query(
            "SELECT last_seen, id FROM openclaw_controller.events ORDER BY last_seen DESC, id DESC LIMIT 1",
        );
        let rows = self.view_rows(last).await?;
        rows.first().map_or(Ok(EventPosition::START), |row| {
            Ok(EventPosition {
                last_seen: row.try_get("last_seen")?,
                id: row.try_get("id")?,
            })
        })
    }
}

fn bind<'a>(statement: &'static str, filter: &'a ViewFilter, window: Window) -> Prepared<'a> {
    sqlx::query(statement)
        .bind(filter.id)
        .bind(filter.gateway.map(|id| id.0))
        .bind(filter.board.map(|id| id.0))
        .bind(filter.search.as_deref())
        .bind(filter.ready)
        .bind(i64::try_from(window.offset).unwrap_or(i64::MAX))
        .bind(i64::from(window.limit))
}

fn count(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

fn total_of(row: &PgRow) -> Result<u64, StoreError> {
    Ok(count(row, "total")?)
}

/// Conditions; those that another version of this program wrote and this one cannot read are none.
fn conditions(row: &PgRow, column: &str) -> Result<Conditions, sqlx::Error> {
    let json: Option<String> = row.try_get(column)?;
    Ok(json
        .and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default())
}

fn gateway(row: &PgRow) -> Result<GatewaySummary, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        Ok(GatewaySummary {
            id: GatewayId(id),
            name: row.try_get("name")?,
            url: row.try_get("url")?,
            generation: row.try_get("generation")?,
            server_version: row.try_get("server_version")?,
            protocol: row.try_get("protocol")?,
            conditions: conditions(row, "conditions")?,
            boards: count(row, "boards")?,
            agents: count(row, "agents")?,
            agents_ready: count(row, "agents_ready")?,
        })
    };
    read().about(|| format!("gateway {id}"))
}

fn board(row: &PgRow) -> Result<BoardSummary, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        let gateway: Option<Uuid> = row.try_get("gateway_id")?;
        let lead: Option<Uuid> = row.try_get("lead_id")?;
        let gateway_name: String = row.try_get("gateway_name")?;
        let lead_name: String = row.try_get("lead_name")?;
        Ok(BoardSummary {
            id: BoardId(id),
            name: row.try_get("name")?,
            board_type: row.try_get("board_type")?,
            gateway: gateway.map(|id| (GatewayId(id), gateway_name)),
            paused: false,
            lead: lead.map(|id| (AgentId(id), lead_name)),
            agents: count(row, "agents")?,
            agents_ready: count(row, "agents_ready")?,
        })
    };
    read().about(|| format!("board {id}"))
}

fn agent(row: &PgRow) -> Result<AgentSummary, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        let board = row.try_get::<Option<Uuid>, _>("board_id")?.map(BoardId);
        let role = match board {
            None => AgentRole::Main,
            Some(board) if row.try_get("is_board_lead")? => AgentRole::Lead(board),
            Some(board) => AgentRole::Worker(board),
        };
        let exists: bool = row.try_get("board_exists")?;
        let board_name: Option<String> = row.try_get("board_name")?;
        Ok(AgentSummary {
            id: AgentId(id),
            name: row.try_get("name")?,
            role,
            board: board.map(|id| (id, exists.then(|| board_name.unwrap_or_default()))),
            gateway: (GatewayId(row.try_get("gateway_id")?), row.try_get("gateway_name")?),
            gateway_conditions: conditions(row, "gateway_conditions")?,
            status: row.try_get("status")?,
            last_seen_at: row.try_get("last_seen_at")?,
            generation: row.try_get("generation")?,
            first_provisioned_at: row.try_get("first_provisioned_at")?,
            conditions: conditions(row, "conditions")?,
        })
    };
    read().about(|| format!("agent {id}"))
}

fn event(row: &PgRow) -> Result<EventSummary, StoreError> {
    let id: i64 = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        let kind: String = row.try_get("kind")?;
        Ok(EventSummary {
            id,
            recorded: RecordedEvent {
                event: Event {
                    object: object_of(&row.try_get::<String, _>("object_kind")?, row.try_get("object_id")?),
                    kind: if kind == "Warning" {
                        EventKind::Warning
                    } else {
                        EventKind::Normal
                    },
                    reason: row.try_get("reason")?,
                    message: row.try_get("message")?,
                },
                count: row.try_get("count")?,
                first_seen: row.try_get("first_seen")?,
                last_seen: row.try_get("last_seen")?,
            },
            object_name: row.try_get("object_name")?,
        })
    };
    read().about(|| format!("event {id}"))
}
