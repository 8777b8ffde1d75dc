//! The part of the config's schema that the controller's patches touch.

use serde_json::{Map, Value, json};

use super::config::{self, join};
use super::dialect::SimDialect;
use super::rpc::RpcError;
use super::schema;

/// One problem of a config.
#[derive(Debug, PartialEq)]
struct Issue {
    path: String,
    message: String,
}

/// Checks a whole config, in the words of the real gateways.
pub(super) fn validate(dialect: SimDialect, file: &Value) -> Result<(), RpcError> {
    let mut check = Checker {
        dialect,
        issues: Vec::new(),
    };
    check.root(file);
    let Some(first) = check.issues.first() else {
        return Ok(());
    };
    let at = if first.path.is_empty() { "<root>" } else { &first.path };
    let message = format!("invalid config: {at}: {}", first.message);
    let issues: Vec<Value> = check
        .issues
        .iter()
        .map(|issue| json!({ "path": issue.path, "message": issue.message }))
        .collect();
    Err(RpcError::invalid(message).details(json!({ "issues": issues })))
}

struct Checker {
    dialect: SimDialect,
    issues: Vec<Issue>,
}

impl Checker {
    fn issue(&mut self, path: &str, message: impl Into<String>) {
        self.issues.push(Issue {
            path: path.to_owned(),
            message: message.into(),
        });
    }

    fn root(&mut self, file: &Value) {
        let Some(root) = self.object("", file) else { return };
        self.keys("", root, schema::ROOT_KEYS);
        if let Some(tools) = root.get("tools") {
            self.tools(tools);
        }
        if let Some(channels) = root.get("channels") {
            self.channels(channels);
        }
        if let Some(agents) = root.get("agents") {
            self.agents(file, agents);
        }
    }

    fn tools(&mut self, tools: &Value) {
        let Some(map) = self.object("tools", tools) else { return };
        self.keys("tools", map, schema::TOOLS_KEYS);
        let Some(exec) = map.get("exec").and_then(|exec| self.object("tools.exec", exec)) else {
            return;
        };
        self.keys("tools.exec", exec, schema::EXEC_KEYS);
        if let Some(host) = exec.get("host")
            && !host.as_str().is_some_and(|host| schema::EXEC_HOSTS.contains(&host))
        {
            let allowed = schema::EXEC_HOSTS.map(|host| format!("\"{host}\"")).join("|");
            self.issue("tools.exec.host", format!("Invalid option: expected one of {allowed}"));
        }
    }

    fn channels(&mut self, channels: &Value) {
        let Some(map) = self.object("channels", channels) else {
            return;
        };
        let path = "channels.defaults";
        let Some(defaults) = map.get("defaults").and_then(|defaults| self.object(path, defaults)) else {
            return;
        };
        self.keys(path, defaults, schema::channel_default_keys(self.dialect));
        let key = self.dialect.visibility_key();
        let path = join(path, key);
        let Some(visibility) = defaults.get(key).and_then(|visibility| self.object(&path, visibility)) else {
            return;
        };
        self.keys(&path, visibility, &schema::VISIBILITY_KEYS);
        for (name, value) in visibility {
            if !value.is_boolean() {
                self.wrong_type(&join(&path, name), "boolean", Some(value));
            }
        }
    }

    fn agents(&mut self, file: &Value, agents: &Value) {
        let Some(map) = self.object("agents", agents) else {
            return;
        };
        self.keys("agents", map, schema::agents_keys(self.dialect));
        if self.dialect.has_entries() {
            if let Some(entries) = map
                .get("entries")
                .and_then(|entries| self.object("agents.entries", entries))
            {
                for (id, entry) in entries {
                    self.entry(&format!("agents.entries.{id}"), entry);
                }
            }
            let explicit = map.get("ownership").and_then(Value::as_str) == Some("explicit");
            if !explicit && config::roster(self.dialect, file).len() > 1 {
                self.issue(
                    "agents.ownership",
                    "multi-agent rosters require agents.ownership=\"explicit\" or one legacy default=true marker; add \
                     agents.ownership=\"explicit\" or run openclaw doctor",
                );
            }
        } else if let Some(list) = map.get("list") {
            let Some(items) = list.as_array() else {
                self.wrong_type("agents.list", "array", Some(list));
                return;
            };
            for (i, entry) in items.iter().enumerate() {
                let path = format!("agents.list.{i}");
                if !entry.get("id").is_some_and(Value::is_string) {
                    self.wrong_type(&join(&path, "id"), "string", entry.get("id"));
                }
                self.entry(&path, entry);
            }
        }
    }

    fn entry(&mut self, path: &str, entry: &Value) {
        let Some(map) = self.object(path, entry) else { return };
        self.keys(path, map, schema::entry_keys(self.dialect));
        for key in ["name", "workspace", "agentDir"] {
            if let Some(value) = map.get(key)
                && !value.is_string()
            {
                self.wrong_type(&join(path, key), "string", Some(value));
            }
        }
        let path = join(path, "heartbeat");
        let Some(heartbeat) = map.get("heartbeat").and_then(|heartbeat| self.object(&path, heartbeat)) else {
            return;
        };
        self.keys(&path, heartbeat, self.dialect.heartbeat_keys());
        for (key, value) in heartbeat {
            let path = join(&path, key);
            match key.as_str() {
                "every" | "target" | "prompt" | "model" | "session" | "to" | "accountId" if !value.is_string() => {
                    self.wrong_type(&path, "string", Some(value));
                }
                "every" if !value.as_str().is_some_and(is_duration) => {
                    self.issue(&path, "invalid duration (use ms, s, m, h)");
                }
                "includeReasoning" | "lightContext" | "isolatedSession" if !value.is_boolean() => {
                    self.wrong_type(&path, "boolean", Some(value));
                }
                _ => {}
            }
        }
    }

    fn object<'a>(&mut self, path: &str, value: &'a Value) -> Option<&'a Map<String, Value>> {
        if !value.is_object() {
            self.wrong_type(path, "object", Some(value));
        }
        value.as_object()
    }

    fn keys(&mut self, path: &str, map: &Map<String, Value>, known: &[&str]) {
        let unknown: Vec<String> = map
            .keys()
            .filter(|key| !known.contains(&key.as_str()))
            .map(|key| format!("\"{key}\""))
            .collect();
        match unknown.as_slice() {
            [] => {}
            [one] => self.issue(path, format!("Unrecognized key: {one}")),
            many => self.issue(path, format!("Unrecognized keys: {}", many.join(", "))),
        }
    }

    fn wrong_type(&mut self, path: &str, expected: &str, found: Option<&Value>) {
        let found = match found {
            None => "undefined",
            Some(Value::Null) => "null",
            Some(Value::Bool(_)) => "boolean",
            Some(Value::Number(_)) => "number",
            Some(Value::String(_)) => "string",
            Some(Value::Array(_)) => "array",
            Some(Value::Object(_)) => "object",
        };
        self.issue(path, format!("Invalid input: expected {expected}, received {found}"));
    }
}

/// Whether a text is a duration such as `10m`; without a unit it means minutes, several may be joined (`1h30m`).
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let Some(unit) = ["ms", "s", "m", "h", "d"].iter().find(|unit| tail.starts_with(**unit)) else {
            return false;
        };
        if number.is_empty() {
            return false;
        }
        rest = &tail[unit.len()..];
    }
    !text.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_real_gateways_refuse_is_refused_in_their_words() {
        let old = SimDialect::V2026_4_29;
        let new = SimDialect::V2026_9_6;
        for (dialect, file, expected) in [
            (old, json!({"tools": {"exec": {"host": "gateway"}}}), None),
            (
                old,
                json!({"tools": {"exec": {"host": "mars"}}}),
                Some("tools.exec.host: Invalid option: expected one of \"auto\"|\"sandbox\"|\"gateway\"|\"node\""),
            ),
            (old, json!({"nope": 1}), Some("<root>: Unrecognized key: \"nope\"")),
            (
                old,
                json!({"agents": {"list": [{"name": "x"}]}}),
                Some("agents.list.0.id: Invalid input: expected string, received undefined"),
            ),
            (
                old,
                json!({"agents": {"list": [{"id": "x", "heartbeat": {"every": "10m", "includeReasoning": false}}]}}),
                None,
            ),
            (
                new,
                json!({"agents": {"ownership": "explicit", "entries": {"x": {"heartbeat": {"includeReasoning": false}}}}}),
                Some("agents.entries.x.heartbeat: Unrecognized key: \"includeReasoning\""),
            ),
            (
                new,
                json!({"channels": {"defaults": {"heartbeat": {}}}}),
                Some("channels.defaults: Unrecognized key: \"heartbeat\""),
            ),
            (
                new,
                json!({"agents": {"list": []}}),
                Some("agents: Unrecognized key: \"list\""),
            ),
        ] {
            let found = validate(dialect, &file).err().map(|error| error.message);
            assert_eq!(found, expected.map(|text| format!("invalid config: {text}")), "{file}");
        }
    }

    #[test]
    fn a_second_agent_needs_explicit_ownership() {
        let mut file = json!({"agents": {"entries": {"a": {}}}});
        let error = validate(SimDialect::V2026_9_6, &file).unwrap_err();
        assert!(
            error
                .message
                .starts_with("invalid config: agents.ownership: multi-agent rosters")
        );
        file["agents"]["ownership"] = json!("explicit");
        validate(SimDialect::V2026_9_6, &file).unwrap();
    }

    #[test]
    fn durations_have_units() {
        for (text, valid) in [
            ("10m", true),
            ("1h30m", true),
            ("500ms", true),
            ("10", true),
            ("ten", false),
            ("", false),
        ] {
            assert_eq!(is_duration(text), valid, "{text}");
        }
    }
}
