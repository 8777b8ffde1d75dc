//! How large a gateway's config file is, and how much of it each agent: gateways refuse a write that loses half of it.
//!
//! An estimate. The file may be formatted in another way, and secrets in it are shown to us by a word of another length.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::{ConfigSizes, EntrySize, GatewayAgentId};

/// How deep an agent's entry lies in the file: `agents`, then `list` or `entries`.
const ENTRY_DEPTH: usize = 3;

/// The sizes of what `config.get` answered; `config` is the part of it that the roster was read from.
pub(super) fn sizes(payload: &Value, config: &Map<String, Value>) -> ConfigSizes {
    let file = ["sourceConfig", "parsed"]
        .into_iter()
        .filter_map(|key| payload.get(key))
        .find(|file| file.is_object());
    let file = match (file, payload.get("raw").and_then(Value::as_str)) {
        // As the gateway writes it. One that a person wrote may be longer, for its spaces and comments.
        (Some(file), _) => pretty(file, 0) + 1,
        (None, Some(raw)) => raw.len(),
        (None, None) => return ConfigSizes::default(),
    };
    let agents = config.get("agents");
    let mut entries = BTreeMap::new();
    if let Some(Value::Object(map)) = agents.and_then(|agents| agents.get("entries")) {
        for (id, entry) in map {
            entries.insert(GatewayAgentId::observed(id), entry_size(entry, quoted(id) + 2));
        }
    } else {
        let list = agents.and_then(|agents| agents.get("list")).and_then(Value::as_array);
        for entry in list.into_iter().flatten() {
            if let Some(id) = entry.get("id").and_then(Value::as_str) {
                // Of two with one id the first is the one that is read, and that a patch changes.
                entries
                    .entry(GatewayAgentId::observed(id))
                    .or_insert_with(|| entry_size(entry, 0));
            }
        }
    }
    ConfigSizes { file, entries }
}

/// The size of an entry, with the indentation, comma and line break around it.
fn entry_size(entry: &Value, key: usize) -> EntrySize {
    let around = |depth: usize| 2 * depth + 2;
    let keys = entry.as_object().into_iter().flatten().map(|(name, value)| {
        let depth = ENTRY_DEPTH + 1;
        (name.clone(), around(depth) + quoted(name) + 2 + pretty(value, depth))
    });
    EntrySize {
        total: around(ENTRY_DEPTH) + key + pretty(entry, ENTRY_DEPTH),
        keys: keys.collect(),
    }
}

/// The length of a value as gateways write it, at this depth, without the indentation of its first line.
fn pretty(value: &Value, depth: usize) -> usize {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let breaks = text.bytes().filter(|byte| *byte == b'\n').count();
    text.len() + breaks * 2 * depth
}

fn quoted(text: &str) -> usize {
    Value::from(text).to_string().len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The length of a config without an entry, or without one of its keys, is what the sizes say that remains.
    #[test]
    fn what_remains_without_an_entry_or_a_key_is_told_to_the_byte() {
        let entry =
            json!({"id": "mc-1", "name": "One", "heartbeat": {"every": "10m", "prompt": "a\nb"}, "tools": ["x", 2]});
        let list = json!({"agents": {"list": [{"id": "main"}, entry]}, "gateway": {"port": 1}});
        let entries = json!({"agents": {"entries": {"main": {}, "mc-1": entry}}, "gateway": {"port": 1}});
        for (config, at) in [(list, "/agents/list/1"), (entries, "/agents/entries/mc-1")] {
            let found = sizes(&json!({ "parsed": config }), config.as_object().unwrap());
            let text = |config: &Value| serde_json::to_string_pretty(config).unwrap().len() + 1;
            assert_eq!(found.file, text(&config));
            let size = &found.entries[&GatewayAgentId::observed("mc-1")];
            for key in ["name", "heartbeat", "tools"] {
                let mut without = config.clone();
                without.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(key);
                assert_eq!(found.file - size.keys[key], text(&without), "{at} {key}");
            }
            let mut without = config.clone();
            match without
                .pointer_mut("/agents")
                .unwrap()
                .as_object_mut()
                .unwrap()
                .iter_mut()
                .next()
            {
                Some((_, Value::Array(list))) => drop(list.pop()),
                Some((_, Value::Object(map))) => drop(map.remove("mc-1")),
                _ => unreachable!("agents has one key"),
            }
            assert_eq!(found.file - size.total, text(&without), "{at}");
        }
    }

    #[test]
    fn nothing_is_known_of_a_file_that_is_not_shown() {
        let config = json!({"agents": {"list": [{"id": "mc-1"}]}});
        assert_eq!(
            sizes(&json!({ "config": config }), config.as_object().unwrap()),
            ConfigSizes::default()
        );
        let raw = sizes(&json!({"raw": "0123456789"}), config.as_object().unwrap());
        assert_eq!((raw.file, raw.entries.len()), (10, 1));
    }
}
