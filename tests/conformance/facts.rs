//! What is to be expected of a gateway, beyond what is the same for all.
//!
//! [`Facts::of`] has what was measured of the versions that the tests name. Of any other version [`Facts::ask`] finds it out by
//! questions that change nothing; what no question can tell is `None` there, and left open by the checks. That the questions find
//! what the table says is a check itself.

use openclaw_controller::gateway::{ErrorClass, probe};
use openclaw_controller::model::{ConfigPart, Dialect, Effect, FileName, RosterShape};
use openclaw_controller::sim::SimDialect;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::env::{CALL, Env};
use crate::raw::{Raw, SCOPES};

/// The versions whose facts are known, oldest first.
pub(crate) const NAMED: [&str; 8] = [
    "2026.2.26",
    "2026.3.31",
    "2026.4.29",
    "2026.5.28",
    "2026.6.11",
    "2026.7.1",
    "2026.8.2",
    "2026.9.6",
];

/// What is to be expected of one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its version, as the registry has it.
    pub(crate) version: String,
    /// What it says of its version.
    pub(crate) reports: String,
    /// What probing should find.
    pub(crate) dialect: Dialect,
    /// Whether `config.get` shows the gateway's token in spite of all: 2026.3.31 does in `sourceConfig` and `runtimeConfig`, 2026.8.2 in
    /// `sourceConfigBeforeMigrations`.
    pub(crate) shows_token: bool,
    /// Whether it has `config.schema.lookup`.
    pub(crate) schema: bool,
    /// Whether the root of the schema can be looked up.
    pub(crate) schema_root: bool,
    /// Whether `channels.defaults` is in the schema.
    pub(crate) schema_channel_defaults: bool,
    /// Whether the schema tells what a change does.
    pub(crate) schema_effects: bool,
    /// Whether a refused device is told what was wrong with it by a code of its own.
    pub(crate) device_codes: bool,
    /// Whether a refused protocol has a code.
    pub(crate) protocol_code: bool,
    /// Whether a refused origin has a code.
    pub(crate) origin_code: bool,
    /// Whether a missing scope has a code.
    pub(crate) scope_code: bool,
    /// The scope that `sessions.patch` needs.
    pub(crate) label_scope: String,
    /// How long a session's label may be.
    pub(crate) label_limit: usize,
    /// Whether the main session of any agent is kept, and not that of the default agent only.
    pub(crate) main_sessions_stay: bool,
    /// Whether files have hashes.
    pub(crate) file_hashes: bool,
    /// Whether it restarts after every patch, whatever that changes; then it also takes a patch that changes nothing for one.
    pub(crate) every_patch_restarts: bool,
    /// Whether the answer to a patch has the new hash.
    pub(crate) patch_hash: bool,
    /// Whether the answer to a patch tells what changed.
    pub(crate) patch_paths: bool,
    /// Whether `replacePaths` is known.
    pub(crate) replace_paths: bool,
    /// How many config writes a device has in a minute.
    pub(crate) writes_per_minute: u32,
    /// Whether the message of a refused config names the path of its first issue.
    pub(crate) issue_in_message: bool,
    /// Whether `tools.exec.host` may be `auto`.
    pub(crate) host_auto: bool,
    /// Whether a write that loses half of the config is refused.
    pub(crate) size_guard: Option<bool>,
    /// Whether a removed agent's workspace goes wherever it is, and not only below the home directory.
    pub(crate) removes_any_workspace: Option<bool>,
    /// Whether a removal is finished although the agent's workspace cannot be moved to the trash. 2026.8.2 leaves it pending, and
    /// makes no agent of this name before.
    pub(crate) removals_finish: Option<bool>,
    /// Whether a removal stays although another follows before the config was loaded anew.
    pub(crate) removals_stay: Option<bool>,
    /// Whether `agents.create` notes the name as the agent's identity in the config.
    pub(crate) notes_identity: Option<bool>,
    /// Whether an agent that was removed cannot be brought back by a patch alone.
    pub(crate) remembers_removed: Option<bool>,
    /// Whether the update of an agent loses the `channels` of a gateway that was started without them.
    pub(crate) update_loses_channels: Option<bool>,
    /// Whether `chat.send` refuses the session of an agent that is not in the config.
    pub(crate) chat_knows_agents: Option<bool>,
    /// Whether `sessions.delete` and `sessions.reset` work at all: an installation without the scripts of its dependencies may lack a module for them.
    pub(crate) session_delete: Option<bool>,
}

impl Facts {
    /// What was measured of a version.
    pub(crate) fn of(version: &str) -> Option<Self> {
        let place = |wanted: &str| NAMED.iter().position(|named| *named == wanted);
        let at = place(version)?;
        let since = |first: &str| at >= place(first).expect("a version that is named");
        let entries = since("2026.8.2");
        let mut facts = Self {
            reports: if since("2026.3.31") { version } else { "dev" }.to_owned(),
            dialect: if entries { entries_dialect() } else { list_dialect() },
            shows_token: matches!(version, "2026.3.31" | "2026.8.2"),
            schema: since("2026.3.31"),
            schema_root: since("2026.5.28"),
            schema_channel_defaults: entries,
            schema_effects: since("2026.5.28"),
            device_codes: since("2026.3.31"),
            protocol_code: since("2026.5.28"),
            origin_code: since("2026.3.31"),
            scope_code: entries,
            label_scope: if since("2026.7.1") {
                "operator.write"
            } else {
                "operator.admin"
            }
            .to_owned(),
            label_limit: if since("2026.3.31") { 512 } else { 64 },
            main_sessions_stay: entries,
            file_hashes: since("2026.9.6"),
            every_patch_restarts: !since("2026.4.29"),
            patch_hash: entries,
            patch_paths: since("2026.9.6"),
            replace_paths: since("2026.6.11"),
            writes_per_minute: if entries { 30 } else { 3 },
            issue_in_message: since("2026.3.31"),
            host_auto: since("2026.3.31"),
            size_guard: Some(since("2026.4.29")),
            removes_any_workspace: Some(!since("2026.4.29") || since("2026.9.6")),
            removals_finish: Some(version != "2026.8.2"),
            // Not measured on 2026.3.31.
            removals_stay: (version != "2026.3.31").then_some(since("2026.4.29")),
            notes_identity: (version != "2026.3.31").then_some(since("2026.4.29")),
            remembers_removed: Some(entries),
            update_loses_channels: Some(version == "2026.4.29"),
            chat_knows_agents: Some(since("2026.4.29")),
            session_delete: Some(version != "2026.3.31"),
            ..Self::unknown(version)
        };
        let dialect = &mut facts.dialect;
        if !since("2026.5.28") {
            dialect.protocol = 3;
        }
        if version == "2026.2.26" {
            dialect.heartbeat_keys = None;
            // It tells nothing of itself.
            *dialect = dialect.clone().restarted_by(&ConfigPart::ALL);
        } else if version == "2026.3.31" {
            let later = ["includeSystemPromptSection", "timeoutSeconds", "skipWhenBusy"];
            dialect
                .heartbeat_keys
                .as_mut()
                .expect("told")
                .retain(|key| !later.contains(&key.as_str()));
        }
        if !entries && since("2026.5.28") {
            dialect.tools_effect = Effect::None;
        }
        if version == "2026.8.2" {
            dialect.channels_effect = Effect::Restart;
        }
        Some(facts)
    }

    /// What can be said of any version before it was asked.
    pub(crate) fn unknown(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            reports: version.to_owned(),
            dialect: list_dialect(),
            shows_token: false,
            schema: false,
            schema_root: false,
            schema_channel_defaults: false,
            schema_effects: false,
            device_codes: false,
            protocol_code: false,
            origin_code: false,
            scope_code: false,
            label_scope: String::new(),
            label_limit: 0,
            main_sessions_stay: false,
            file_hashes: false,
            every_patch_restarts: false,
            patch_hash: false,
            patch_paths: false,
            replace_paths: false,
            writes_per_minute: 0,
            issue_in_message: false,
            host_auto: false,
            size_guard: None,
            removes_any_workspace: None,
            removals_finish: None,
            removals_stay: None,
            notes_identity: None,
            remembers_removed: None,
            update_loses_channels: None,
            chat_knows_agents: None,
            session_delete: None,
        }
    }

    /// The simulated gateway that is one of this version.
    pub(crate) fn simulated(&self) -> Option<SimDialect> {
        SimDialect::ALL
            .into_iter()
            .find(|dialect| dialect.version() == self.version)
    }

    /// Whether the roster is `agents.entries`.
    pub(crate) fn has_entries(&self) -> bool {
        self.dialect.roster == RosterShape::Entries
    }

    /// Whether a patch of the channels' heartbeat visibility restarts the gateway.
    pub(crate) fn channels_restart(&self) -> bool {
        self.dialect.channels_effect == Effect::Restart
    }

    /// Asks the gateway for everything that a question can tell. Nothing is changed but labels of sessions of nobody; a gateway
    /// that restarts after every patch does so once.
    pub(crate) async fn ask(env: &Env) -> Self {
        let client = env.client().await;
        let reports = client.hello().server_version.clone();
        let schema = client.hello().offers("config.schema.lookup");
        let mut facts = Self {
            reports,
            schema,
            dialect: probe(&client).await.expect("probing succeeds"),
            ..Self::unknown(&env.facts.version)
        };
        let shown = env.call(&client, "config.get", json!({})).await;
        facts.shows_token = shown.to_string().contains(env.token());
        if schema {
            facts.schema_root = client.schema_lookup(".").await.unwrap().is_some();
            facts.schema_channel_defaults = client.schema_lookup("channels.defaults").await.unwrap().is_some();
            let channels = client
                .schema_lookup("channels")
                .await
                .unwrap()
                .expect("channels are known");
            facts.schema_effects = channels.reload.is_some();
        }
        facts.ask_about_files_and_sessions(env).await;
        Box::pin(facts.ask_about_refusals(env)).await;
        facts.ask_about_patches(env).await;
        facts
    }

    async fn ask_about_files_and_sessions(&mut self, env: &Env) {
        let client = env.client().await;
        // Whatever main's file is like, this is not its hash. Anything but a hash would be refused before it is compared.
        let hash = "0".repeat(64);
        let main = client
            .agents_list()
            .await
            .unwrap()
            .default_id
            .expect("there is a default agent");
        let mut tries = 0;
        self.file_hashes = loop {
            tries += 1;
            let set = client.files_set(&main, FileName::Soul, "x", Some(&hash)).await;
            let error = set.expect_err("this is no file's hash");
            match error.class() {
                ErrorClass::Conflict => break true,
                ErrorClass::Invalid => break false,
                _ => assert!(error.is_transient() && tries < 10, "{error}"),
            }
        };
        let key = format!("agent:asked-{}:main", Uuid::new_v4().simple());
        let long = client.sessions_patch(&key, &"x".repeat(65)).await;
        self.label_limit = if long.is_ok() { 512 } else { 64 };
        client.sessions_patch(&key, "Label").await.unwrap();
        let deleted = client.request("sessions.delete", json!({ "key": key }), CALL).await;
        self.main_sessions_stay =
            deleted.is_err_and(|error| error.message().contains("Cannot delete the main session"));
    }

    async fn ask_about_refusals(&mut self, env: &Env) {
        let code = |answer: &Value| answer["error"]["details"]["code"].as_str().map(str::to_owned);
        let mut raw = Raw::open(env, None).await;
        let mut params = raw.connect_params(env.token(), &SCOPES);
        params["device"]["signature"] = json!("AAAA");
        let answer = raw.request("connect", params).await;
        self.device_codes = code(&answer).as_deref() == Some("DEVICE_AUTH_SIGNATURE_INVALID");

        let mut raw = Raw::open(env, None).await;
        let mut params = raw.connect_params(env.token(), &SCOPES);
        (params["minProtocol"], params["maxProtocol"]) = (json!(1), json!(2));
        self.protocol_code = code(&raw.request("connect", params).await).is_some();

        let mut raw = Raw::open(env, None).await;
        let params = raw.control_ui_params(env.token());
        self.origin_code = code(&raw.request("connect", params).await).is_some();

        let mut raw = Raw::admitted(env, &["operator.read"]).await;
        let answer = raw.request("sessions.patch", json!({})).await;
        self.scope_code = code(&answer).is_some();
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        message
            .trim_start_matches("missing scope: ")
            .clone_into(&mut self.label_scope);
    }

    async fn ask_about_patches(&mut self, env: &Env) {
        let client = env.client().await;
        let replacing = [("tools.allow".to_owned())];
        let error = client
            .config_patch(&json!({}), Some("stale"), &replacing, CALL)
            .await
            .unwrap_err();
        self.replace_paths = error.class() == ErrorClass::Conflict;
        for patch in [json!({ "nope": 1 }), json!({ "tools": { "exec": { "host": "mars" } } })] {
            let error = env.patch(&patch).await.unwrap_err();
            self.host_auto |= error.message().contains("\"auto\"");
            self.issue_in_message |= error.message().contains("<root>");
        }
        let (client, outcome) = loop {
            let client = env.client().await;
            let hash = env.observed(&client).await.hash;
            match client.config_patch(&json!({}), hash.as_deref(), &[], CALL).await {
                Err(error) if error.class() == ErrorClass::Conflict => {}
                result => break (client, result.expect("a patch of nothing is taken")),
            }
        };
        self.patch_paths = outcome.changed_paths.is_some();
        self.every_patch_restarts = !outcome.noop;
        if self.every_patch_restarts {
            env.restarted(&client).await;
        }
        // The answer to a patch that changes nothing has no hash on any version.
        self.patch_hash = self.has_entries();
        let client = env.client().await;
        while let Err(error) = client.config_patch(&json!({}), Some("stale"), &[], CALL).await {
            if error.class() == ErrorClass::RateLimited {
                break;
            }
            self.writes_per_minute += 1;
            assert!(self.writes_per_minute < 1000, "writes are limited");
        }
    }

    /// The same, as far as questions can tell.
    pub(crate) fn askable(&self) -> Self {
        Self {
            size_guard: None,
            removes_any_workspace: None,
            removals_finish: None,
            removals_stay: None,
            notes_identity: None,
            remembers_removed: None,
            update_loses_channels: None,
            chat_knows_agents: None,
            session_delete: None,
            ..self.clone()
        }
    }
}

/// What the questions find is what is known: otherwise what they find of an unknown version would be worth nothing.
pub(crate) async fn asking_finds_what_is_known(env: &Env) {
    assert_eq!(Box::pin(Facts::ask(env)).await, env.facts.askable());
}

/// The same dialects as the simulation's: that real gateways have them is what is checked.
fn list_dialect() -> Dialect {
    Dialect {
        tools_effect: Effect::Hot,
        ..SimDialect::V2026_7_1.expected()
    }
}

fn entries_dialect() -> Dialect {
    SimDialect::V2026_9_6.expected()
}
