//! The gateway's config file: what a fresh one holds, how patches merge, what readers get to see.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::dialect::SimDialect;

/// What secrets read as.
pub(super) const REDACTED: &str = "__OPENCLAW_REDACTED__";

/// The agent that every gateway has.
pub(super) const MAIN: &str = "main";

/// A config file as an operator would write it for a first start.
pub(super) fn fresh(token: &str) -> Value {
    json!({ "gateway": { "mode": "local", "port": 18789, "bind": "loopback", "auth": { "mode": "token", "token": token } } })
}

/// The file's text; its length is what the gateway's check for sudden shrinking looks at.
pub(super) fn text(config: &Value) -> String {
    serde_json::to_string_pretty(config).unwrap_or_default()
}

/// The hash that goes out with `config.get` and comes back as `baseHash`.
pub(super) fn hash(dialect: SimDialect, config: &Value) -> String {
    let digest = Sha256::digest(text(config));
    if dialect.has_entries() {
        format!("hmac-sha256:v1:{}", URL_SAFE_NO_PAD.encode(digest))
    } else {
        hex(&digest)
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The config as the gateway runs it: the file and the defaults of that version.
pub(super) fn effective(dialect: SimDialect, file: &Value) -> Value {
    let mut defaults = match dialect {
        SimDialect::V2026_4_29 => json!({
            "commands": { "native": "auto", "nativeSkills": "auto", "restart": true, "ownerDisplay": "raw" },
            "messages": { "ackReactionScope": "group-mentions" },
            "agents": { "defaults": { "maxConcurrent": 4, "subagents": { "maxConcurrent": 8 } } }
        }),
        SimDialect::V2026_7_1 => json!({
            "commands": { "native": "auto", "nativeSkills": "auto", "restart": true, "ownerDisplay": "raw" },
            "messages": { "ackReactionScope": "group-mentions" },
            "agents": { "defaults": { "maxConcurrent": 4, "subagents": { "maxConcurrent": 8, "archiveAfterMinutes": 60 } } },
            "cron": { "maxConcurrentRuns": 8 }
        }),
        SimDialect::V2026_9_6 => json!({
            "commands": { "native": "auto", "nativeSkills": "auto", "restart": true },
            "messages": { "ackReactionScope": "group-mentions" },
            "agents": {
                "defaults": {
                    "maxConcurrent": 8,
                    "subagents": { "maxConcurrent": 8, "archiveAfterMinutes": 60 },
                    "compaction": { "mode": "safeguard" }
                },
                "entries": { MAIN: {} }
            }
        }),
    };
    merge(&mut defaults, file, "", &[]);
    defaults
}

/// The config with its secrets blanked.
pub(super) fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let shown = if value.is_string() && is_secret(key) {
                        Value::from(REDACTED)
                    } else {
                        redacted(value)
                    };
                    (key.clone(), shown)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(redacted).collect()),
        other => other.clone(),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "password", "secret", "apikey"]
        .iter()
        .any(|end| key.ends_with(end))
}

/// Merges a patch: objects key by key, `null` deletes, arrays of objects with an `id` by that, other arrays and those at one
/// of the `replace` paths as a whole. A redacted secret stands for the one that is there.
pub(super) fn merge(base: &mut Value, patch: &Value, path: &str, replace: &[String]) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                let path = join(path, key);
                if value.is_null() {
                    base.remove(key);
                } else if value == REDACTED && base.contains_key(key) {
                    // Keeps the secret.
                } else {
                    merge(base.entry(key.clone()).or_insert(Value::Null), value, &path, replace);
                }
            }
        }
        (Value::Array(base), Value::Array(patch)) if mergeable(base) && !replace.iter().any(|p| p == path) => {
            for item in patch {
                let known = item
                    .get("id")
                    .and_then(|id| base.iter().position(|old| old.get("id") == Some(id)));
                match known {
                    Some(at) => merge(&mut base[at], item, path, replace),
                    None => base.push(without_nulls(item)),
                }
            }
        }
        (base, patch) => *base = without_nulls(patch),
    }
}

/// Whether an array's items can be told apart by their ids.
fn mergeable(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item.get("id").is_some_and(Value::is_string))
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// A path with one more key.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The paths at which two configs differ: as deep as both sides have objects.
pub(super) fn changed_paths(old: &Value, new: &Value) -> Vec<String> {
    fn walk(old: &Value, new: &Value, path: &str, paths: &mut Vec<String>) {
        if let (Value::Object(old_map), Value::Object(new_map)) = (old, new) {
            let mut keys: Vec<&String> = old_map.keys().chain(new_map.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = join(path, key);
                match (old_map.get(key), new_map.get(key)) {
                    (Some(old), Some(new)) => walk(old, new, &path, paths),
                    _ => paths.push(path),
                }
            }
        } else if old != new {
            paths.push(path.to_owned());
        }
    }
    let mut paths = Vec::new();
    walk(old, new, "", &mut paths);
    paths
}

/// One agent of the roster, as the config has it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its id.
    pub(super) id: String,
    /// The rest.
    pub(super) value: Map<String, Value>,
}

impl Entry {
    /// A text of the entry.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key).and_then(Value::as_str)
    }
}

/// The roster: what the config says, or the implicit main agent where it says nothing.
pub(super) fn roster(dialect: SimDialect, file: &Value) -> Vec<Entry> {
    let mut entries: Vec<Entry> = if dialect.has_entries() {
        file.pointer("/agents/entries")
            .and_then(Value::as_object)
            .map_or_else(Vec::new, |map| {
                map.iter()
                    .map(|(id, value)| Entry {
                        id: id.clone(),
                        value: value.as_object().cloned().unwrap_or_default(),
                    })
                    .collect()
            })
    } else {
        file.pointer("/agents/list")
            .and_then(Value::as_array)
            .map_or_else(Vec::new, |list| {
                list.iter()
                    .filter_map(|value| {
                        Some(Entry {
                            id: value.get("id")?.as_str()?.to_owned(),
                            value: value.as_object()?.clone(),
                        })
                    })
                    .collect()
            })
    };
    // The new dialect always has its main agent; the old ones only as long as there is no other.
    let implicit = if dialect.has_entries() {
        !entries.iter().any(|entry| entry.id == MAIN)
    } else {
        entries.is_empty()
    };
    if implicit {
        entries.insert(
            0,
            Entry {
                id: MAIN.to_owned(),
                value: Map::new(),
            },
        );
    }
    entries
}

/// The object at a path of keys, made where it is missing.
pub(super) fn object_at<'a>(config: &'a mut Value, keys: &[&str]) -> &'a mut Map<String, Value> {
    let mut at = config;
    for key in keys {
        at = ensure_object(at).entry((*key).to_owned()).or_insert_with(|| json!({}));
    }
    ensure_object(at)
}

fn ensure_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &Value, patch: &Value) -> Value {
        let mut base = base.clone();
        merge(&mut base, patch, "", &[]);
        base
    }

    #[test]
    fn objects_merge_null_deletes_and_lists_merge_by_id() {
        for (base, patch, expected) in [
            (
                json!({"a": {"b": 1}}),
                json!({"a": {"c": 2}}),
                json!({"a": {"b": 1, "c": 2}}),
            ),
            (json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2})),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (
                json!({"l": [{"id": "x", "n": 1}, {"id": "y"}]}),
                json!({"l": [{"id": "x", "n": null}, {"id": "z", "n": null}]}),
                json!({"l": [{"id": "x"}, {"id": "y"}, {"id": "z"}]}),
            ),
            (
                json!({"l": [{"id": "x"}]}),
                json!({"l": []}),
                json!({"l": [{"id": "x"}]}),
            ),
            (json!({"token": "t"}), json!({"token": REDACTED}), json!({"token": "t"})),
        ] {
            assert_eq!(merged(&base, &patch), expected, "{base} + {patch}");
        }
    }

    #[test]
    fn a_replaced_path_is_not_merged() {
        let mut base = json!({"agents": {"list": [{"id": "x"}, {"id": "y"}]}});
        let patch = json!({"agents": {"list": [{"id": "y"}]}});
        merge(&mut base, &patch, "", &["agents.list".to_owned()]);
        assert_eq!(base, patch);
    }

    #[test]
    fn the_token_is_never_shown() {
        let shown = redacted(&fresh("hunter2"));
        assert_eq!(shown.pointer("/gateway/auth/token").unwrap(), REDACTED);
        assert!(!shown.to_string().contains("hunter2"));
    }

    #[test]
    fn the_main_agent_of_a_list_is_displaced_by_the_first_other() {
        let config = json!({"agents": {"list": [{"id": "p"}]}});
        let ids = |dialect, config: &Value| roster(dialect, config).into_iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(SimDialect::V2026_7_1, &json!({})), ["main"]);
        assert_eq!(ids(SimDialect::V2026_7_1, &config), ["p"]);
        let config = json!({"agents": {"entries": {"p": {}}}});
        assert_eq!(ids(SimDialect::V2026_9_6, &config), ["main", "p"]);
    }
}
