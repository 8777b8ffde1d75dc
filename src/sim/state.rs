//! Everything a simulated gateway holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::clock::Clock;
use super::config::{self, Entry};
use super::connection::Outgoing;
use super::devices::Devices;
use super::dialect::{Restart, SimDialect};
use super::frames::FrameHook;
use super::journal::JournalEntry;
use super::limits::WriteLimits;
use super::rpc::RpcError;
use super::sessions::{ChatMessage, SimSession};
use super::wake::WakeHook;

/// Where the simulated gateway's state directory would be.
pub(super) const STATE_DIR: &str = "/sim/state";

/// Where the simulated gateway's home would be.
pub(super) const HOME: &str = "/sim/home";

/// Config files shorter than this may shrink as they like (bytes).
const SHRINK_FLOOR: usize = 512;

/// One workspace file.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its text.
    pub(super) text: String,
    /// When it was written; unique, so that even two writes in one paused instant can be told apart.
    pub(super) updated_ms: u64,
}

/// The state of one gateway, behind one lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) dialect: SimDialect,
    pub(super) token: String,
    /// The devices that it knows; `None` where it is reached over loopback and asks nobody for approval.
    pub(super) devices: Option<Devices>,
    pub(super) clock: Clock,
    /// The config file.
    pub(super) config: Value,
    /// Files by name, by workspace directory.
    pub(super) workspaces: BTreeMap<String, BTreeMap<String, File>>,
    /// What somebody else puts into the file that the request under way writes, right after it was written.
    pub(super) overwrite: Option<String>,
    /// Agents that the running gateway does not know before that time.
    pub(super) visible_from: BTreeMap<String, Duration>,
    /// Agents that `agents.delete` removed: 2026.9.6 remembers them, and only `agents.create` brings them back to life.
    pub(super) deleted: BTreeSet<String>,
    /// Workspaces that cannot be removed.
    pub(super) pinned: BTreeSet<String>,
    /// Agents whose removal is not finished, with the workspace that is in the way, as on 2026.8.2.
    pub(super) pending_removals: BTreeMap<String, String>,
    pub(super) sessions: BTreeMap<String, SimSession>,
    pub(super) messages: Vec<ChatMessage>,
    /// Whom to tell of an agent that got a message.
    pub(super) on_wake: Option<WakeHook>,
    /// Whom to show every frame.
    pub(super) on_frame: Option<FrameHook>,
    /// When each run was started, by idempotency key; a restart forgets.
    pub(super) runs: BTreeMap<String, Duration>,
    pub(super) limits: WriteLimits,
    pub(super) journal: Vec<JournalEntry>,
    /// Requests that were received before a restart die with it.
    pub(super) epoch: u64,
    pub(super) restarts: usize,
    /// Connections are refused until then.
    pub(super) down_until: Option<Duration>,
    /// Connections are accepted, but `connect` is put off until then.
    pub(super) starting_until: Option<Duration>,
    /// The restart that has been decided on but has not happened yet.
    pub(super) pending_restart: Option<Restart>,
    pub(super) connections: BTreeMap<u64, UnboundedSender<Outgoing>>,
    /// Events to tell everybody once the request is done.
    pub(super) events: Vec<(&'static str, Value)>,
    /// Around which request the gateway stands still, how many requests still come up to it, and whom to tell then.
    pub(super) freeze: Option<(Freeze, usize, oneshot::Sender<()>)>,
    /// Nothing that comes due is carried out.
    pub(super) frozen: bool,
    counter: u64,
    last_update_ms: u64,
}

/// When, around a request, a gateway begins to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freeze {
    /// Before it is carried out.
    Before,
    /// After it was carried out, before it is answered.
    After,
}

impl State {
    /// A fresh gateway that only its main agent lives on.
    pub(super) fn new(dialect: SimDialect, token: &str) -> Self {
        Self {
            dialect,
            token: token.to_owned(),
            devices: None,
            clock: Clock::start(),
            config: config::fresh(token),
            workspaces: BTreeMap::new(),
            overwrite: None,
            visible_from: BTreeMap::new(),
            deleted: BTreeSet::new(),
            pinned: BTreeSet::new(),
            pending_removals: BTreeMap::new(),
            sessions: BTreeMap::new(),
            messages: Vec::new(),
            on_wake: None,
            on_frame: None,
            runs: BTreeMap::new(),
            limits: WriteLimits::default(),
            journal: Vec::new(),
            epoch: 0,
            restarts: 0,
            down_until: None,
            starting_until: None,
            pending_restart: None,
            connections: BTreeMap::new(),
            events: Vec::new(),
            freeze: None,
            frozen: false,
            counter: 0,
            last_update_ms: 0,
        }
    }

    /// A number that was never given out before.
    pub(super) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A unique id in the shape of a UUID; the same in every run of a test.
    pub(super) fn unique_id(&mut self) -> String {
        uuid::Uuid::from_u128(u128::from(self.next()) << 64 | 0x5143).to_string()
    }

    /// The time of a write, later than that of any other.
    pub(super) fn update_ms(&mut self) -> u64 {
        self.last_update_ms = self.clock.now_ms().max(self.last_update_ms + 1);
        self.last_update_ms
    }

    /// Counts a request that is about to be carried out, or was. Answers whether the gateway stands still from now on.
    pub(super) fn count_down(&mut self, now: Freeze) -> bool {
        match self.freeze.take() {
            Some((when, 1, told)) if when == now => {
                // Whoever asked may have lost interest.
                let _ = told.send(());
                self.frozen = true;
            }
            Some((when, left, told)) if when == now => self.freeze = Some((when, left - 1, told)),
            other => self.freeze = other,
        }
        self.frozen
    }

    /// Whether the process is down.
    pub(super) fn is_down(&self) -> bool {
        self.down_until.is_some_and(|until| self.clock.elapsed() < until)
    }

    /// Whether the process is up but not ready.
    pub(super) fn is_starting(&self) -> bool {
        self.starting_until.is_some_and(|until| self.clock.elapsed() < until)
    }

    /// Whether the roster holds an agent that is remembered as deleted: whatever changes the roster then restarts the gateway.
    pub(super) fn is_haunted(&self) -> bool {
        self.roster().iter().any(|entry| self.deleted.contains(&entry.id))
    }

    /// The path of the config file.
    pub(super) fn config_path() -> String {
        format!("{STATE_DIR}/openclaw.json")
    }

    /// The roster as the config file has it.
    pub(super) fn roster(&self) -> Vec<Entry> {
        config::roster(self.dialect, &self.config)
    }

    /// The roster as the running gateway knows it: new agents appear with the next reload.
    pub(super) fn known_roster(&self) -> Vec<Entry> {
        let now = self.clock.elapsed();
        let mut roster = self.roster();
        roster.retain(|entry| self.visible_from.get(&entry.id).is_none_or(|from| *from <= now));
        roster
    }

    /// The agent that is used where none is named.
    pub(super) fn default_agent(&self) -> String {
        let roster = self.known_roster();
        let marked = roster
            .iter()
            .find(|entry| entry.value.get("default").and_then(Value::as_bool) == Some(true));
        if let Some(entry) = marked {
            return entry.id.clone();
        }
        if self.dialect.has_entries() {
            return config::MAIN.to_owned();
        }
        roster
            .first()
            .map_or_else(|| config::MAIN.to_owned(), |entry| entry.id.clone())
    }

    /// An agent's workspace directory.
    pub(super) fn workspace(&self, entry: &Entry) -> String {
        match entry.text("workspace") {
            Some(workspace) => workspace.to_owned(),
            None if entry.id == self.default_agent() && self.dialect.has_entries() => format!("{STATE_DIR}/workspace"),
            None if entry.id == self.default_agent() => format!("{HOME}/.openclaw/workspace"),
            None => format!("{STATE_DIR}/workspace-{}", entry.id),
        }
    }

    /// Writes the config file, unless it would lose more than half its size at once: the gateways take that for a mistake.
    /// Decides on a restart where the change asks for one.
    pub(super) fn write_config(&mut self, mut next: Value) -> Result<Vec<String>, RpcError> {
        let changed = config::changed_paths(&self.config, &next);
        if changed.is_empty() {
            return Ok(changed);
        }
        let meta = config::object_at(&mut next, &["meta"]);
        meta.insert("lastTouchedVersion".to_owned(), Value::from(self.dialect.version()));
        if !self.dialect.has_entries() {
            meta.insert("lastTouchedAt".to_owned(), Value::from(self.clock.now_ms()));
        }
        let (before, after) = (config::text(&self.config).len(), config::text(&next).len());
        if before >= SHRINK_FLOOR && after * 2 < before {
            let path = Self::config_path();
            return Err(RpcError::unavailable(format!(
                "Error: Config write rejected: {path} (size-drop:{before}->{after}). Rejected payload saved to \
                 {path}.rejected.: code=CONFIG_WRITE_REJECTED"
            )));
        }
        self.config = next;
        self.reload(&changed);
        Ok(changed)
    }

    /// Notices that the config file has changed.
    pub(super) fn reload(&mut self, changed: &[String]) {
        if changed
            .iter()
            .any(|path| path == "channels" || path.starts_with("channels."))
        {
            self.pending_restart = self.dialect.restart_on_channels();
        }
        if self.dialect.has_entries() && self.is_haunted() && changed.iter().any(|path| path.starts_with("agents")) {
            self.pending_restart = Some(Restart {
                close_after: Duration::from_millis(1500),
                down_for: Duration::from_secs(8),
                answers: true,
            });
        }
        if self.dialect.has_entries() {
            let hash = config::hash(self.dialect, &self.config);
            let payload = serde_json::json!({ "path": Self::config_path(), "hash": hash, "ts": self.clock.now_ms() });
            self.events.push(("config.changed", payload));
        }
    }
}
