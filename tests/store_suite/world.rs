//! What a behavioural test needs of a store besides its traits: rows to look at, and a way to see whether anything was written.

use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use openclaw_controller::model::{
    AgentId, AgentRequests, AgentRow, Board, BoardId, GatewayId, GatewayRow, LeadSettings, User,
};
use openclaw_controller::store::{
    CheckInStore, Fence, Hint, HintSource, LeaseStore, LookupStore, RequestStore, Store, ViewStore,
};
use uuid::Uuid;

pub(crate) const TTL: Duration = Duration::from_secs(15);

/// A store with a way to edit its rows.
pub(crate) trait World: Sync {
    type Store: Store + LeaseStore + CheckInStore + RequestStore + LookupStore + ViewStore;

    fn store(&self) -> &Self::Store;
    fn hints(&self) -> impl HintSource;
    /// Inserts or replaces.
    fn put_gateway(&self, row: &GatewayRow) -> impl Future<Output = ()>;
    /// Inserts or replaces; `paused` becomes a word in the board's chat.
    fn put_board(&self, board: &Board) -> impl Future<Output = ()>;
    /// Inserts or replaces.
    fn put_agent(&self, row: &AgentRow) -> impl Future<Output = ()>;
    /// Makes a user the owner.
    fn put_owner(&self, organization: Uuid, owner: &User) -> impl Future<Output = ()>;
    /// Chooses something for the lead of a board.
    fn put_lead_settings(&self, board: BoardId, settings: &LeadSettings) -> impl Future<Output = ()>;
    fn delete_agent(&self, id: AgentId) -> impl Future<Output = ()>;
    /// With all boards and agents on it.
    fn delete_gateway(&self, id: GatewayId) -> impl Future<Output = ()>;
    fn agent_row(&self, id: AgentId) -> impl Future<Output = AgentRow>;
    /// Lets time pass, for tokens that were retired and syncs that were asked for.
    fn pass(&self, time: Duration) -> impl Future<Output = ()>;
    /// How many retired tokens are remembered.
    fn retired(&self) -> impl Future<Output = usize>;
    /// `last_wake_sent_at`, `checkin_deadline_at` and `wake_attempts` of an agent's row.
    fn wake_columns(&self, id: AgentId) -> impl Future<Output = (Option<DateTime<Utc>>, Option<DateTime<Utc>>, i32)>;
    /// Another program wakes an agent.
    fn set_wake_sent(&self, id: AgentId, at: DateTime<Utc>) -> impl Future<Output = ()>;
    /// Another program records a heartbeat.
    fn heartbeat(&self, id: AgentId, at: NaiveDateTime) -> impl Future<Output = ()>;
    /// Changes with every write, leases aside.
    fn mark(&self) -> impl Future<Output = String>;
}

/// Takes the lease.
pub(crate) async fn fence(world: &impl World) -> Fence {
    let term = world.store().acquire("all", "a", TTL).await.unwrap().unwrap();
    Fence {
        scope: "all".to_owned(),
        holder: "a".to_owned(),
        term,
    }
}

/// The next hint, which must come soon.
pub(crate) async fn next(hints: &mut impl HintSource) -> Hint {
    tokio::time::timeout(Duration::from_secs(20), hints.next())
        .await
        .expect("no hint came")
        .unwrap()
}

pub(crate) fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

pub(crate) fn at(second: u32) -> NaiveDateTime {
    NaiveDateTime::parse_from_str("2026-03-01 00:00:00", "%Y-%m-%d %H:%M:%S").unwrap()
        + chrono::TimeDelta::seconds(i64::from(second))
}

pub(crate) const ORGANIZATION: u128 = 1;

pub(crate) fn gateway(n: u128) -> GatewayRow {
    GatewayRow {
        id: GatewayId(id(n)),
        organization_id: id(ORGANIZATION),
        name: format!("gateway {n}"),
        url: "ws://127.0.0.1:1".to_owned(),
        token: Some("gateway-secret".to_owned().into()),
        workspace_root: "/srv".to_owned(),
        disable_device_pairing: false,
        allow_insecure_tls: true,
        created_at: at(0),
    }
}

pub(crate) fn board(n: u128, gateway: Option<u128>) -> Board {
    Board {
        id: BoardId(id(n)),
        organization_id: id(ORGANIZATION),
        name: format!("board {n}"),
        slug: format!("board-{n}"),
        gateway_id: gateway.map(|n| GatewayId(id(n))),
        board_type: "goal".to_owned(),
        objective: Some("win".to_owned()),
        success_metrics: Some(Ok(serde_json::json!({"goals": 3}))),
        target_date: Some(at(9)),
        goal_confirmed: true,
        require_approval_for_done: true,
        require_review_before_done: false,
        block_status_changes_with_pending_approval: true,
        only_lead_can_change_status: false,
        comment_required_for_review: true,
        max_agents: 5,
        paused: false,
    }
}

pub(crate) fn agent(n: u128, board: Option<u128>, gateway: u128) -> AgentRow {
    AgentRow {
        id: AgentId(id(n)),
        board_id: board.map(|n| BoardId(id(n))),
        gateway_id: GatewayId(id(gateway)),
        name: format!("agent {n}"),
        status: "provisioning".to_owned(),
        session_key: None,
        token_hash: None,
        heartbeat_config: Some(Ok(serde_json::json!({"every": "5m"}))),
        identity_profile: None,
        identity_template: None,
        soul_template: Some("be kind".to_owned()),
        delete_requested_at: None,
        last_seen_at: None,
        is_board_lead: false,
        last_provision_error: None,
        created_at: at(1),
        requests: AgentRequests::default(),
    }
}

pub(crate) fn owner(n: u128) -> User {
    User {
        id: id(n),
        email: Some(format!("{n}@example.org")),
        name: Some("Ada Lovelace".to_owned()),
        preferred_name: None,
        pronouns: Some("she".to_owned()),
        timezone: Some("UTC".to_owned()),
        notes: None,
        context: None,
    }
}
