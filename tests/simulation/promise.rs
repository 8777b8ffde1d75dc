//! The promise: rows and gateways agree, statuses tell the truth, and nothing of anybody else's was touched.

use std::collections::HashSet;

use openclaw_controller::model::{
    AgentRow, Board, Condition, ConditionStatus, ConditionType, EnsureLeads, FileName, GatewayAgentId, GatewaySnapshot,
    session_key, workspace_path,
};
use openclaw_controller::render::{self, RenderInput};
use openclaw_controller::store::Store;
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::fleet::{BASE_URL, FOREIGN, Place, World, entry, foreign_files};

/// What is not as it should be, in words; empty if the promise holds. What the statuses say comes first, and the rest is
/// only looked at once they say what they should.
pub(crate) async fn broken(world: &World) -> Vec<String> {
    let statuses = look(world, true).await;
    if statuses.is_empty() {
        look(world, false).await
    } else {
        statuses
    }
}

async fn look(world: &World, statuses_only: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for snapshot in world.store.load_fleet().await.unwrap() {
        let place = world
            .places
            .iter()
            .find(|place| place.id == snapshot.gateway.id)
            .unwrap();
        Check {
            world,
            place,
            config: place.gateway.config(),
            snapshot: &snapshot,
            statuses_only,
            problems: &mut problems,
        }
        .run()
        .await;
    }
    problems
}

struct Check<'a> {
    world: &'a World,
    place: &'a Place,
    config: Value,
    snapshot: &'a GatewaySnapshot,
    statuses_only: bool,
    problems: &'a mut Vec<String>,
}

impl Check<'_> {
    async fn run(mut self) {
        let mut taken = HashSet::new();
        let mut held_back = None;
        for row in &self.snapshot.agents {
            let id = row.gateway_agent_id(self.place.id);
            let excluded = self.excluded(row, &id, &mut taken);
            if let Some(reason @ ("OwnerNotFound" | "WorkspaceRootNotConfigured")) = excluded {
                held_back.get_or_insert(reason);
            }
            match excluded {
                Some("Deleting") => self.deleted(row, &id).await,
                Some(reason) => self.status(row, ConditionStatus::False, Some(reason)),
                None => self.managed(row, &id),
            }
        }
        self.boards();
        let record = &self.snapshot.record;
        let (status, reason) = match held_back {
            Some(reason) => (ConditionStatus::False, Some(reason)),
            None => (ConditionStatus::True, None),
        };
        let ready = record.conditions.get(ConditionType::Ready).cloned();
        let what = format!("gateway {}", self.place.id);
        self.ready(&what, ready.as_ref(), record.generation, status, reason);
        self.leftovers().await;
        if !self.statuses_only {
            self.foreign();
        }
    }

    /// An agent whose removal was requested is gone with all that was its own, and its row says so.
    async fn deleted(&mut self, row: &AgentRow, id: &GatewayAgentId) {
        self.status(row, ConditionStatus::False, Some("Deleted"));
        let record = self.snapshot.agent_records.get(&row.id).cloned().unwrap_or_default();
        if !record.conditions.is_true(ConditionType::Deleted) {
            self.say(format!("{id}: it is not said to be deleted"));
        }
        if self.statuses_only {
            return;
        }
        if row.status != "deleting" || row.token_hash.is_some() || record.placement.is_some() {
            let (status, place) = (&row.status, &record.placement);
            self.say(format!(
                "{id}: deleted, and its row says {status}, its place is {place:?}"
            ));
        }
        if self.world.store.wake_columns(row.id).checkin_deadline_at.is_some() || record.wake.deadline.is_some() {
            self.say(format!("{id}: deleted, and its check-in is awaited"));
        }
        let tokens = self.world.store.token_state(row.id).await.unwrap();
        if tokens.verified.is_some() || !tokens.candidates.is_empty() {
            self.say(format!("{id}: deleted, and its token is remembered"));
        }
        if self.explained(id, true) {
            return;
        }
        if entry(&self.config, id.as_str()).is_some() {
            self.say(format!("{id}: deleted, and still in the roster"));
        }
        if self.place.gateway.session(&session_key(id)).is_some() {
            self.say(format!("{id}: deleted, and its session is there"));
        }
    }

    /// Whether a row gives an agent of this gateway that id; `alive`: one whose removal was not requested.
    fn explained(&self, id: &GatewayAgentId, alive: bool) -> bool {
        let rows = &mut self.snapshot.agents.iter();
        rows.any(|row| row.gateway_agent_id(self.place.id) == *id && !(alive && row.delete_requested_at.is_some()))
    }

    /// Nothing that we made is on the gateway without a row or a word about it, and nothing at all if it is to be removed.
    async fn leftovers(&mut self) {
        let known = self.world.store.traces(self.place.id).await.unwrap().leftovers;
        let told = self.snapshot.record.conditions.is_true(ConditionType::Leftovers);
        if told == known.is_empty() {
            self.say(format!(
                "gateway {}: Leftovers={told}, there are {known:?}",
                self.place.id
            ));
        }
        if self.statuses_only {
            return;
        }
        for leftover in &known {
            let there = entry(&self.config, leftover.id.as_str()).is_some();
            if !there || self.explained(&leftover.id, false) || self.world.prune {
                self.say(format!("{}: still a leftover", leftover.id));
            }
        }
        for id in self.place.gateway.roster() {
            let id = GatewayAgentId::observed(id);
            let before = self.world.existing.contains(&(self.place.id, id.clone()));
            if id.looks_managed()
                && !before
                && !self.explained(&id, false)
                && known.iter().all(|leftover| leftover.id != id)
            {
                self.say(format!("{id}: nobody knows why it is on gateway {}", self.place.id));
            }
        }
    }

    /// Boards that are to have a lead have one, and the gateway says so; and whether it has a main agent.
    fn boards(&mut self) {
        let is_led = |board: &Board| {
            let mut agents = self.snapshot.agents.iter();
            agents.any(|row| row.is_board_lead && row.board_id == Some(board.id))
        };
        let wanting: Vec<_> = self
            .snapshot
            .boards
            .values()
            .filter(|board| board.gateway_id == Some(self.place.id) && !board.paused && self.world.leads.wants(board))
            .filter(|board| !is_led(board))
            .map(|board| board.id)
            .collect();
        for board in wanting {
            self.say(format!("board {board} has no lead"));
        }
        let ensured = (self.world.leads != EnsureLeads::None).then_some(ConditionStatus::True);
        let has_main = self.snapshot.agents.iter().any(|row| row.board_id.is_none());
        let main = if has_main {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        for (kind, expected) in [
            (ConditionType::LeadsEnsured, ensured),
            (ConditionType::MainAgent, Some(main)),
        ] {
            let told = self.snapshot.record.conditions.get(kind).map(|told| told.status);
            if told != expected {
                self.say(format!(
                    "gateway {} says {kind}={told:?}, expected {expected:?}",
                    self.place.id
                ));
            }
        }
    }

    fn say(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Why an agent is not to be managed, by the rules of the system.
    fn excluded(
        &self,
        row: &AgentRow,
        id: &GatewayAgentId,
        taken: &mut HashSet<GatewayAgentId>,
    ) -> Option<&'static str> {
        let board = row.board_id.and_then(|board| self.snapshot.boards.get(&board));
        if row.delete_requested_at.is_some() {
            return Some("Deleting");
        }
        if row.board_id.is_some() && board.and_then(|board| board.gateway_id) != Some(self.place.id) {
            return Some("BoardNotFound");
        }
        if !taken.insert(id.clone()) {
            return Some("DuplicateAgent");
        }
        if board.is_some_and(|board| board.paused) {
            return Some("BoardPaused");
        }
        if self.snapshot.gateway.workspace_root.trim().is_empty() {
            return Some("WorkspaceRootNotConfigured");
        }
        (row.board_id.is_none() && self.snapshot.owner.is_none()).then_some("OwnerNotFound")
    }

    fn status(&mut self, row: &AgentRow, status: ConditionStatus, reason: Option<&str>) {
        let record = self.snapshot.agent_records.get(&row.id).cloned().unwrap_or_default();
        let ready = record.conditions.get(ConditionType::Ready);
        self.ready(&format!("agent {}", row.id), ready, record.generation, status, reason);
    }

    fn ready(
        &mut self,
        what: &str,
        ready: Option<&Condition>,
        generation: i64,
        status: ConditionStatus,
        reason: Option<&str>,
    ) {
        let Some(ready) = ready else {
            return self.say(format!("{what} has no status"));
        };
        if ready.status != status || reason.is_some_and(|reason| ready.reason != reason) {
            self.say(format!(
                "{what} says Ready={} {} ({}), expected {status} {reason:?}",
                ready.status, ready.reason, ready.message
            ));
        }
        if ready.observed_generation != generation {
            self.say(format!(
                "{what} is at generation {generation}, its status is of {}",
                ready.observed_generation
            ));
        }
    }

    fn managed(&mut self, row: &AgentRow, id: &GatewayAgentId) {
        self.status(row, ConditionStatus::True, None);
        if self.statuses_only {
            return;
        }
        if row.session_key.as_deref() != Some(&session_key(id)) {
            self.say(format!("{id}: the row's session key is {:?}", row.session_key));
        }
        if row.is_board_lead && row.gateway_id != self.place.id {
            self.say(format!("{id}: the row's gateway is {}", row.gateway_id));
        }
        if let Some(error) = &row.last_provision_error {
            self.say(format!("{id}: ready, yet last_provision_error is {error:?}"));
        }
        let record = self.snapshot.agent_records.get(&row.id);
        let rotated_for = record.and_then(|record| record.rotated_for);
        if row.requests.rotate.is_some() && rotated_for != row.requests.rotate {
            self.say(format!("{id}: a new token was requested, and there is none"));
        }
        self.roster(row, id);
        self.files(row, id);
    }

    fn roster(&mut self, row: &AgentRow, id: &GatewayAgentId) {
        let Some(entry) = entry(&self.config, id.as_str()).cloned() else {
            return self.say(format!("{id} is not in the roster"));
        };
        let dialect = self.place.gateway.dialect().expected();
        let (heartbeat, _) = render::heartbeat(row, &dialect, render::heartbeat_prompt(&dialect)).unwrap();
        let workspace = workspace_path(&self.snapshot.gateway.workspace_root, id).unwrap();
        for (key, expected) in [
            ("name", Value::from(row.name.clone())),
            ("workspace", Value::from(workspace)),
            ("heartbeat", Value::Object(heartbeat)),
        ] {
            if entry.get(key) != Some(&expected) {
                self.say(format!(
                    "{id}: {key} is {:?}, expected {expected}",
                    entry.get(key).map(ToString::to_string)
                ));
            }
        }
    }

    fn files(&mut self, row: &AgentRow, id: &GatewayAgentId) {
        let gateway = &self.place.gateway;
        let dialect = gateway.dialect().expected();
        let main = GatewayAgentId::derive(
            openclaw_controller::model::AgentRole::Main,
            openclaw_controller::model::AgentId(self.place.id.0),
            self.place.id,
        );
        let input = RenderInput {
            gateway: &self.snapshot.gateway,
            agent: row,
            role: row.role(),
            gateway_agent_id: id,
            board: row.board_id.and_then(|board| self.snapshot.boards.get(&board)),
            owner: self.snapshot.owner.as_ref(),
            base_url: BASE_URL,
            main_session_key: &session_key(&main),
        };
        let rendered = render::render(&self.world.templates, &input, &dialect);
        for error in &rendered.errors {
            self.say(format!("{id}: {} cannot be rendered: {}", error.file, error.message));
        }
        let holder = gateway.file(id.as_str(), dialect.token_file().as_str());
        let extracted = token::extract(holder.as_deref().unwrap_or_default());
        let [secret] = extracted.tokens() else {
            return self.say(format!("{id}: there is not one token in {}", dialect.token_file()));
        };
        let hash = row.token_hash.as_deref().unwrap_or_default();
        if token::verify(secret.expose_secret(), hash) != Ok(true) {
            self.say(format!("{id}: the token does not belong to the row's hash"));
        }
        for (file, text) in &rendered.files {
            let actual = gateway.file(id.as_str(), file.as_str());
            let own = match file {
                FileName::User => !row.role().is_main(),
                FileName::Memory => true,
                _ => false,
            };
            match actual {
                None if *file == FileName::Bootstrap => {}
                None => self.say(format!("{id}: {file} is missing")),
                Some(_) if own => {}
                Some(actual) => {
                    let actual = token::redact(&actual, Some(secret.expose_secret()));
                    if actual.trim_end_matches(['\r', '\n']) != text {
                        self.say(format!("{id}: {file} is not as rendered"));
                    }
                }
            }
        }
    }

    /// Whatever was in the config before us is still there, and so are the files of the operator's agent.
    fn foreign(&mut self) {
        let baseline = self.place.baseline.clone();
        let config = self.config.clone();
        self.kept(&baseline, &config, "");
        for (name, text) in foreign_files() {
            if self.place.gateway.file(FOREIGN, name).as_deref() != Some(text) {
                self.say(format!("{FOREIGN}'s {name} was touched"));
            }
        }
        let theirs = |config: &Value| entry(config, FOREIGN).cloned();
        if theirs(&baseline) != theirs(&config) {
            self.say(format!("{FOREIGN}'s roster entry was touched"));
        }
    }

    fn kept(&mut self, before: &Value, after: &Value, path: &str) {
        match (before, after) {
            _ if path == "/meta" || path == "/gateway/auth/token" => {}
            (Value::Object(before), Value::Object(after)) => {
                for (key, value) in before {
                    let path = format!("{path}/{key}");
                    self.kept(value, after.get(key).unwrap_or(&Value::Null), &path);
                }
            }
            (Value::Array(before), Value::Array(after)) => {
                for value in before {
                    if !after.contains(value) {
                        self.say(format!("config {path} lost {value}"));
                    }
                }
            }
            (before, after) if before != after => self.say(format!("config {path} was {before}, is {after}")),
            _ => {}
        }
    }
}
