//! The handle of a simulated gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::agents;
use super::config;
use super::connection::{self, Outgoing};
use super::devices::Devices;
use super::dialect::SimDialect;
use super::faults::Faults;
use super::files;
use super::frames::{FrameHook, SeenFrame, Sender};
use super::journal::JournalEntry;
use super::server::SimServer;
use super::sessions::{ChatMessage, SimSession};
use super::state::{Freeze, State};
use super::wake::{WakeHook, Woken};

/// How long a restart that a test asked for keeps connections out.
const DOWN: Duration = Duration::from_secs(4);

/// How long after that `connect` is still put off.
const STARTING: Duration = Duration::from_secs(1);

/// A simulated gateway; a cheap handle to shared state. Must be made inside a tokio runtime, whose clock it uses.
#[derive(Clone)]
pub struct SimGateway {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl fmt::Debug for SimGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state holds tokens.
        f.debug_struct("SimGateway")
            .field("dialect", &self.dialect())
            .finish_non_exhaustive()
    }
}

impl SimGateway {
    /// A fresh gateway on which only its main agent lives.
    pub fn new(dialect: SimDialect, token: &str) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(dialect, token))),
            faults: Faults::default(),
        }
    }

    /// Which gateway it simulates.
    pub fn dialect(&self) -> SimDialect {
        self.lock().dialect
    }

    /// What goes wrong.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Serves one WebSocket connection on a byte stream, from the HTTP upgrade on. While the gateway is down the stream is
    /// dropped at once.
    pub fn attach<S>(&self, stream: S) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::spawn(connection::serve(self.clone(), stream))
    }

    /// Serves connections over TCP.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn listen(&self, address: SocketAddr) -> std::io::Result<SimServer> {
        SimServer::start(self.clone(), address).await
    }

    /// Whether connections are refused at present, because the gateway restarts.
    pub fn is_down(&self) -> bool {
        self.lock().is_down()
    }

    // ---- What a test may look at ----

    /// The config file, with its secrets.
    pub fn config(&self) -> Value {
        self.lock().config.clone()
    }

    /// The ids of the roster, in the config's order; `main` where the config names nobody.
    pub fn roster(&self) -> Vec<String> {
        self.lock().roster().into_iter().map(|entry| entry.id).collect()
    }

    /// The text of a workspace file, whether or not the gateway would give it to a client.
    pub fn file(&self, agent: &str, name: &str) -> Option<String> {
        let state = self.lock();
        let workspace = workspace_of(&state, agent)?;
        Some(state.workspaces.get(&workspace)?.get(name)?.text.clone())
    }

    /// All files of an agent's workspace, by name.
    pub fn files(&self, agent: &str) -> BTreeMap<String, String> {
        let state = self.lock();
        let files = workspace_of(&state, agent).and_then(|workspace| state.workspaces.get(&workspace));
        let text = |(name, file): (&String, &super::state::File)| (name.clone(), file.text.clone());
        files.map(|files| files.iter().map(text).collect()).unwrap_or_default()
    }

    /// A session.
    pub fn session(&self, key: &str) -> Option<SimSession> {
        self.lock().sessions.get(key).cloned()
    }

    /// The messages for which runs were started, oldest first.
    pub fn messages(&self) -> Vec<ChatMessage> {
        self.lock().messages.clone()
    }

    /// Everything that was asked and carried out, oldest first. The handshakes are not in it.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.lock().journal.clone()
    }

    /// How many requests tried to change something.
    pub fn writes(&self) -> usize {
        self.lock().journal.iter().filter(|entry| entry.write).count()
    }

    /// How often it restarted.
    pub fn restarts(&self) -> usize {
        self.lock().restarts
    }

    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    // ---- Devices ----

    /// Asks from now on for the approval of every device, as a gateway does that is reached from elsewhere. All connections are cut.
    pub fn pair_devices(&self) {
        self.lock().devices = Some(Devices::default());
        self.cut_connections();
    }

    /// The pairing requests that wait for somebody.
    pub fn pairing_requests(&self) -> Vec<String> {
        self.lock().devices.as_ref().map(Devices::requests).unwrap_or_default()
    }

    /// Approves a device by the id of its request; says whether there was one.
    pub fn approve_device(&self, request: &str) -> bool {
        self.lock()
            .devices
            .as_mut()
            .is_some_and(|devices| devices.approve(request))
    }

    /// The tokens that were issued to devices.
    pub fn device_tokens(&self) -> Vec<String> {
        self.lock().devices.as_ref().map(Devices::tokens).unwrap_or_default()
    }

    /// Replaces the tokens of all devices, and cuts all connections.
    pub fn rotate_device_tokens(&self) {
        if let Some(devices) = &mut self.lock().devices {
            devices.rotate();
        }
        self.cut_connections();
    }

    /// Replaces the gateway's own token, as a restart with another config does; connections stay.
    pub fn replace_token(&self, token: &str) {
        token.clone_into(&mut self.lock().token);
    }

    /// Forgets all devices, and cuts all connections.
    pub fn remove_devices(&self) {
        if let Some(devices) = &mut self.lock().devices {
            devices.forget();
        }
        self.cut_connections();
    }

    // ---- What is said ----

    /// Has this called with every frame that a client sends and every frame that is sent to one, in the order of each
    /// connection. Rubbish that a fault asked for is left out. The hook must not ask anything of the gateway.
    pub fn on_frame(&self, hook: impl Fn(&SeenFrame<'_>) + Send + Sync + 'static) {
        self.lock().on_frame = Some(FrameHook::new(hook));
    }

    // ---- What somebody else does ----

    /// Has this called, in a task of its own, whenever a message starts a run in an agent's main session: the gateway runs
    /// no agents, so whoever wants them to do something does it there.
    pub fn on_wake(&self, hook: impl Fn(Woken) + Send + Sync + 'static) {
        self.lock().on_wake = Some(WakeHook::new(hook));
    }

    /// Somebody writes a workspace file. Nothing happens if the agent does not exist.
    pub fn edit_file(&self, agent: &str, name: &str, text: &str) {
        let mut state = self.lock();
        if let Some(workspace) = workspace_of(&state, agent) {
            files::write(&mut state, &workspace, name, text);
        }
    }

    /// From now on an agent's workspace cannot be removed with it, or can be again; as on 2026.8.2 where it is outside the home
    /// directory. Only gateways with `agents.entries` say so.
    pub fn pin_workspace(&self, workspace: &str, pinned: bool) {
        let pins = &mut self.lock().pinned;
        if pinned {
            pins.insert(workspace.to_owned());
        } else {
            pins.remove(workspace);
        }
    }

    /// The workspace directory of an agent.
    pub fn workspace(&self, agent: &str) -> Option<String> {
        workspace_of(&self.lock(), agent)
    }

    /// Somebody removes a workspace file. Answers whether it was there.
    pub fn delete_file(&self, agent: &str, name: &str) -> bool {
        let mut state = self.lock();
        let Some(workspace) = workspace_of(&state, agent) else {
            return false;
        };
        state
            .workspaces
            .get_mut(&workspace)
            .is_some_and(|files| files.remove(name).is_some())
    }

    /// Somebody edits the config file; the gateway notices, and restarts where the change asks for it.
    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let restart = {
            let mut state = self.lock();
            let mut next = state.config.clone();
            edit(&mut next);
            let changed = config::changed_paths(&state.config, &next);
            state.config = next;
            if !changed.is_empty() {
                state.reload(&changed);
            }
            for (event, payload) in std::mem::take(&mut state.events) {
                for sender in state.connections.values() {
                    let _ = sender.send(Outgoing::Event(event, payload.clone()));
                }
            }
            state.pending_restart.take()
        };
        if let Some(restart) = restart {
            self.restart_after(restart.close_after, restart.down_for);
        }
    }

    /// Somebody removes an agent, with its files.
    pub fn remove_agent(&self, agent: &str) {
        let mut state = self.lock();
        if let Some(workspace) = workspace_of(&state, agent) {
            state.workspaces.remove(&workspace);
        }
        let mut next = state.config.clone();
        agents::remove_entry(&state, &mut next, agent);
        state.config = next;
    }

    /// Somebody changes the gateway's token and restarts it.
    pub fn set_token(&self, token: &str) {
        {
            let mut state = self.lock();
            token.clone_into(&mut state.token);
            config::object_at(&mut state.config, &["gateway", "auth"]).insert("token".to_owned(), json!(token));
        }
        self.restart();
    }

    /// Restarts in an orderly way: a `shutdown` event, close code 1012, then a few seconds without service.
    pub fn restart(&self) {
        shut_down(&mut self.lock(), DOWN);
    }

    /// Cuts all connections without a word; the process lives on.
    pub fn cut_connections(&self) {
        for sender in std::mem::take(&mut self.lock().connections).into_values() {
            let _ = sender.send(Outgoing::Abort);
        }
    }

    /// Stands still right after the `nth` request from now on (1 is the next one) was carried out, before it is answered:
    /// from then on nothing that comes due is carried out, until [`SimGateway::thaw`]. The receiver is told at that moment.
    pub fn freeze_after(&self, nth: usize) -> oneshot::Receiver<()> {
        self.freeze(Freeze::After, nth)
    }

    /// Like [`SimGateway::freeze_after`], right before the `nth` request is carried out: it was sent, and has no effect.
    pub fn freeze_before(&self, nth: usize) -> oneshot::Receiver<()> {
        self.freeze(Freeze::Before, nth)
    }

    fn freeze(&self, when: Freeze, nth: usize) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.lock().freeze = Some((when, nth.max(1), sender));
        receiver
    }

    /// Goes on after [`SimGateway::freeze_after`]; what came due meanwhile is lost.
    pub fn thaw(&self) {
        let mut state = self.lock();
        state.frozen = false;
        state.freeze = None;
    }

    /// Shows a frame to whoever wants to see them.
    pub(super) fn saw(&self, connection: u64, sender: Sender, text: &str) {
        let hook = self.lock().on_frame.clone();
        if let Some(hook) = hook {
            hook.call(&SeenFrame {
                connection,
                sender,
                text,
            });
        }
    }

    pub(super) fn restart_now(&self) {
        self.restart();
    }

    /// Restarts after a while, as after a change that asks for it.
    pub(super) fn restart_after(&self, close_after: Duration, down_for: Duration) {
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            tokio::time::sleep(close_after).await;
            shut_down(&mut lock(&state), down_for);
        });
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn workspace_of(state: &State, agent: &str) -> Option<String> {
    let entry = state.roster().into_iter().find(|entry| entry.id == agent)?;
    Some(state.workspace(&entry))
}

fn shut_down(state: &mut State, down_for: Duration) {
    for sender in std::mem::take(&mut state.connections).into_values() {
        let payload = json!({ "reason": "gateway restarting", "restartExpectedMs": 1500 });
        let _ = sender.send(Outgoing::Event("shutdown", payload));
        let _ = sender.send(Outgoing::Close(1012, "service restart".to_owned()));
    }
    let up = state.clock.elapsed() + down_for;
    state.down_until = Some(up);
    state.starting_until = Some(up + STARTING);
    state.epoch += 1;
    state.restarts += 1;
    state.limits.clear();
    state.runs.clear();
    state.visible_from.clear();
    state.pending_restart = None;
}
