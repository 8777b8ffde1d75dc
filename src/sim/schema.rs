//! What `config.schema.lookup` answers, and the keys that validation knows.

use serde_json::{Map, Value, json};

use super::dialect::SimDialect;
use super::rpc::{Kind, Params, RpcError, RpcResult};

/// Top-level keys; those of all versions together, for the differences do not matter here.
pub(super) const ROOT_KEYS: &[&str] = &[
    "$schema",
    "meta",
    "env",
    "wizard",
    "diagnostics",
    "audit",
    "logging",
    "cli",
    "crestodian",
    "update",
    "telemetry",
    "browser",
    "ui",
    "tui",
    "secrets",
    "marketplaces",
    "auth",
    "accessGroups",
    "acp",
    "models",
    "nodeHost",
    "agents",
    "worktreeRoot",
    "worktreeAcceleration",
    "tools",
    "security",
    "bindings",
    "broadcast",
    "attachments",
    "audio",
    "media",
    "messages",
    "tts",
    "commands",
    "approvals",
    "session",
    "cron",
    "transcripts",
    "commitments",
    "hooks",
    "web",
    "channels",
    "discovery",
    "talk",
    "gateway",
    "cloudWorkers",
    "desktop",
    "memory",
    "mcp",
    "skills",
    "plugins",
    "surfaces",
    "proxy",
];

/// Keys of `tools`.
pub(super) const TOOLS_KEYS: &[&str] = &[
    "profile",
    "allow",
    "alsoAllow",
    "deny",
    "byProvider",
    "toolsBySender",
    "web",
    "github",
    "media",
    "links",
    "sessions",
    "loopDetection",
    "toolSearch",
    "codeMode",
    "swarm",
    "message",
    "agentToAgent",
    "elevated",
    "exec",
    "fs",
    "subagents",
    "sandbox",
    "sessions_spawn",
    "updatePlan",
    "experimental",
];

/// Keys of `tools.exec`.
pub(super) const EXEC_KEYS: &[&str] = &[
    "host",
    "mode",
    "security",
    "ask",
    "node",
    "pathPrepend",
    "safeBins",
    "strictInlineEval",
    "commandHighlighting",
    "grantExpiryDays",
    "safeBinTrustedDirs",
    "safeBinProfiles",
    "reviewer",
    "backgroundMs",
    "approvalRunningNoticeMs",
    "timeoutSec",
    "timeoutSeconds",
    "cleanupMs",
    "notifyOnExit",
    "notifyOnExitEmptySuccess",
    "applyPatch",
];

/// Values of `tools.exec.host`.
pub(super) const EXEC_HOSTS: [&str; 4] = ["auto", "sandbox", "gateway", "node"];

/// Keys of the default heartbeat visibility.
pub(super) const VISIBILITY_KEYS: [&str; 3] = ["showOk", "showAlerts", "useIndicator"];

const CHANNELS: &[&str] = &[
    "discord",
    "feishu",
    "googlechat",
    "imessage",
    "irc",
    "line",
    "matrix",
    "mattermost",
    "msteams",
    "nextcloud-talk",
    "nostr",
    "signal",
    "slack",
    "synology-chat",
    "telegram",
    "tlon",
    "twitch",
    "whatsapp",
    "zalo",
    "zalouser",
];

const ENTRY_KEYS: &[&str] = &[
    "default",
    "name",
    "description",
    "workspace",
    "cwd",
    "agentDir",
    "model",
    "utilityModel",
    "decisionModel",
    "models",
    "modelPolicy",
    "thinkingDefault",
    "verboseDefault",
    "toolProgressDetail",
    "reasoningDefault",
    "fastModeDefault",
    "contextInjection",
    "bootstrapMaxChars",
    "bootstrapTotalMaxChars",
    "experimental",
    "skills",
    "memorySearch",
    "memory",
    "humanDelay",
    "typingMode",
    "tts",
    "skillsLimits",
    "contextLimits",
    "contextTokens",
    "heartbeat",
    "identity",
    "groupChat",
    "subagents",
    "embeddedAgent",
    "sandbox",
    "params",
    "tools",
    "runtime",
];

const LIST_ENTRY_KEYS: &[&str] = &[
    "id",
    "default",
    "name",
    "description",
    "workspace",
    "agentDir",
    "systemPromptOverride",
    "agentRuntime",
    "embeddedHarness",
    "embeddedPi",
    "model",
    "utilityModel",
    "models",
    "thinkingDefault",
    "verboseDefault",
    "toolProgressDetail",
    "reasoningDefault",
    "fastModeDefault",
    "contextInjection",
    "bootstrapMaxChars",
    "bootstrapTotalMaxChars",
    "experimental",
    "skills",
    "memorySearch",
    "humanDelay",
    "tts",
    "skillsLimits",
    "contextLimits",
    "contextTokens",
    "heartbeat",
    "identity",
    "groupChat",
    "subagents",
    "runRetries",
    "embeddedAgent",
    "sandbox",
    "params",
    "tools",
    "runtime",
];

/// Keys of a roster entry.
pub(super) fn entry_keys(dialect: SimDialect) -> &'static [&'static str] {
    if dialect.has_entries() {
        ENTRY_KEYS
    } else {
        LIST_ENTRY_KEYS
    }
}

/// Keys of `agents`.
pub(super) fn agents_keys(dialect: SimDialect) -> &'static [&'static str] {
    if dialect.has_entries() {
        &["ownership", "defaults", "entries"]
    } else {
        &["defaults", "list"]
    }
}

/// Keys of `channels.defaults`.
pub(super) fn channel_default_keys(dialect: SimDialect) -> &'static [&'static str] {
    if dialect.has_entries() {
        &[
            "groupPolicy",
            "contextVisibility",
            "heartbeatVisibility",
            "botLoopProtection",
            "implicitMentions",
        ]
    } else {
        &["groupPolicy", "contextVisibility", "heartbeat"]
    }
}

/// A node of the schema: its children and what a change of it does.
struct Node {
    children: Vec<&'static str>,
    kind: &'static str,
    effect: &'static str,
    child_effect: &'static str,
}

/// `config.schema.lookup`.
pub(super) fn lookup(dialect: SimDialect, params: &Map<String, Value>) -> RpcResult {
    let params = Params::check("config.schema.lookup", params, &[("path", Kind::NonEmpty, true)])?;
    // The real ones answer `agents.list[]` with `agents.list.*`.
    let path = params.required("path").replace("[]", ".*");
    let node = find(dialect, &path).ok_or_else(|| RpcError::invalid("config schema path not found"))?;
    let children: Vec<Value> = node
        .children
        .iter()
        .map(|key| {
            let child_path = if path == "." {
                (*key).to_owned()
            } else {
                format!("{path}.{key}")
            };
            let mut child = json!({
                "key": key,
                "path": child_path,
                "required": *key == "id",
                "hasChildren": find(dialect, &child_path).is_some_and(|node| !node.children.is_empty()),
            });
            if dialect.tells_effects() {
                child["reloadKind"] = json!(effect_of_child(&path, key, &node));
            }
            child
        })
        .collect();
    let mut answer = json!({
        "path": path,
        "schema": { "type": node.kind, "additionalProperties": node.kind == "object" && path == "channels" },
        "children": children,
    });
    if dialect.tells_effects() {
        answer["reloadKind"] = json!(node.effect);
    }
    Ok(answer)
}

fn effect_of_child<'a>(path: &str, key: &str, node: &Node) -> &'a str {
    match (path, key) {
        ("channels", "defaults") => "none",
        _ => node.child_effect,
    }
}

fn find(dialect: SimDialect, path: &str) -> Option<Node> {
    let entries = dialect.has_entries();
    let parts: Vec<&str> = path.split('.').collect();
    let tools = if entries { "hot" } else { "none" };
    let channels = if entries { "hot" } else { "restart" };
    let object = |children: &[&'static str], effect, child_effect| {
        Some(Node {
            children: children.to_vec(),
            kind: "object",
            effect,
            child_effect,
        })
    };
    let leaf = |kind, effect| {
        Some(Node {
            children: Vec::new(),
            kind,
            effect,
            child_effect: effect,
        })
    };
    if path == "." {
        // The oldest dialect does not know its own root.
        return dialect.tells_effects().then(|| Node {
            children: ROOT_KEYS.to_vec(),
            kind: "object",
            effect: "restart",
            child_effect: "restart",
        });
    }
    match parts.as_slice() {
        ["tools"] => object(TOOLS_KEYS, tools, tools),
        ["tools", "exec"] => object(EXEC_KEYS, tools, tools),
        ["tools", "exec", "host"] => leaf("string", tools),
        ["channels"] if entries => {
            let mut node = object(&["defaults", "modelByChannel"], channels, channels)?;
            node.children.extend(CHANNELS);
            Some(node)
        }
        ["channels"] => object(CHANNELS, channels, channels),
        ["channels", "defaults"] if entries => object(channel_default_keys(dialect), "none", "none"),
        ["channels", "defaults", "heartbeatVisibility"] if entries => object(&VISIBILITY_KEYS, "none", "none"),
        ["channels", name] if CHANNELS.contains(name) => leaf("object", channels),
        ["agents"] => object(agents_keys(dialect), "none", "hot"),
        ["agents", "defaults"] => leaf("object", if entries { "hot" } else { "none" }),
        ["agents", "ownership"] if entries => leaf("string", "hot"),
        ["agents", "entries"] if entries => leaf("object", "hot"),
        ["agents", "list"] if !entries => Some(Node {
            children: vec!["*"],
            kind: "array",
            effect: "hot",
            child_effect: "hot",
        }),
        ["agents", roster, _] if *roster == dialect.roster_key() => object(entry_keys(dialect), "hot", "hot"),
        ["agents", roster, _, "heartbeat"] if *roster == dialect.roster_key() => {
            object(dialect.heartbeat_keys(), "hot", "hot")
        }
        ["agents", roster, _, "heartbeat", key]
            if *roster == dialect.roster_key() && dialect.heartbeat_keys().contains(key) =>
        {
            leaf("string", "hot")
        }
        ["agents", roster, _, key] if *roster == dialect.roster_key() && entry_keys(dialect).contains(key) => {
            leaf("string", "hot")
        }
        ["gateway"] => leaf("object", "restart"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(dialect: SimDialect, path: &str) -> Option<Vec<String>> {
        let params = json!({ "path": path });
        let answer = lookup(dialect, params.as_object().unwrap()).ok()?;
        let children = answer["children"].as_array().unwrap();
        Some(children.iter().map(|c| c["key"].as_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn heartbeat_keys_are_found_where_the_dialect_keeps_its_roster() {
        for dialect in SimDialect::ALL {
            let (here, elsewhere) = if dialect.has_entries() {
                ("agents.entries.*.heartbeat", "agents.list[].heartbeat")
            } else {
                ("agents.list[].heartbeat", "agents.entries.*.heartbeat")
            };
            let found = keys(dialect, here).unwrap();
            assert_eq!(found, dialect.heartbeat_keys());
            assert_eq!(keys(dialect, elsewhere), None);
            assert_eq!(keys(dialect, "channels.defaults").is_some(), dialect.has_entries());
        }
    }

    #[test]
    fn only_newer_dialects_tell_what_a_change_does() {
        for (dialect, expected) in [
            (SimDialect::V2026_4_29, None),
            (SimDialect::V2026_7_1, Some("restart")),
            (SimDialect::V2026_9_6, Some("hot")),
        ] {
            let params = json!({ "path": "channels" });
            let answer = lookup(dialect, params.as_object().unwrap()).unwrap();
            assert_eq!(answer.get("reloadKind").and_then(Value::as_str), expected);
        }
    }
}
