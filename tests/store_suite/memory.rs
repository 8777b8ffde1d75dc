//! The world in memory.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use openclaw_controller::model::{AgentId, AgentRow, Board, BoardId, GatewayId, GatewayRow, LeadSettings, User};
use openclaw_controller::store::{HintSource, MemoryStore, Store as _};
use uuid::Uuid;

use super::world::World;

pub(crate) struct Memory(MemoryStore);

impl Memory {
    pub(crate) fn new() -> std::future::Ready<Self> {
        std::future::ready(Self(MemoryStore::new()))
    }
}

impl World for Memory {
    type Store = MemoryStore;

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    fn hints(&self) -> impl HintSource {
        self.0.listen()
    }

    async fn put_gateway(&self, row: &GatewayRow) {
        self.0.upsert_gateway(row.clone());
    }

    async fn put_board(&self, board: &Board) {
        self.0.upsert_board(board.clone());
    }

    async fn put_agent(&self, row: &AgentRow) {
        self.0.upsert_agent(row.clone());
    }

    async fn put_owner(&self, organization: Uuid, owner: &User) {
        self.0.set_owner(organization, Some(owner.clone()));
    }

    async fn put_lead_settings(&self, board: BoardId, settings: &LeadSettings) {
        self.0.set_lead_settings(board, Some(settings.clone()));
    }

    async fn delete_agent(&self, id: AgentId) {
        self.0.delete_agent(id);
    }

    async fn delete_gateway(&self, id: GatewayId) {
        let snapshot = self.0.load_gateway(id).await.unwrap().unwrap();
        for agent in snapshot.agents {
            self.0.delete_agent(agent.id);
        }
        for board in snapshot.boards.into_keys() {
            self.0.delete_board(board);
        }
        self.0.delete_gateway(id);
    }

    async fn agent_row(&self, id: AgentId) -> AgentRow {
        self.0.agent(id).unwrap()
    }

    async fn pass(&self, time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    async fn retired(&self) -> usize {
        self.0.retired_tokens()
    }

    async fn wake_columns(&self, id: AgentId) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>, i32) {
        let columns = self.0.wake_columns(id);
        (
            columns.last_wake_sent_at,
            columns.checkin_deadline_at,
            columns.wake_attempts,
        )
    }

    async fn set_wake_sent(&self, id: AgentId, at: DateTime<Utc>) {
        self.0
            .edit_wake_columns(id, |columns| columns.last_wake_sent_at = Some(at));
    }

    async fn heartbeat(&self, id: AgentId, at: NaiveDateTime) {
        self.0.check_in(id, at);
    }

    async fn mark(&self) -> String {
        self.0.writes().to_string()
    }
}
