//! The heartbeat of a roster entry.

use serde_json::{Map, Value, json};

use super::variables::kind;
use crate::model::{AgentRow, Dialect};

/// The heartbeat that an agent should have in its gateway's roster, and the keys that were left out because the gateway
/// does not know them.
///
/// The default (every 10 minutes, to the last channel used, without reasoning) is overlaid by the row's
/// `heartbeat_config`, key by key; a `null` there takes a key away. `prompt` is what [`render`](super::render()) asks
/// for; the row's own goes before it.
///
/// # Errors
///
/// What is wrong with the row's `heartbeat_config`. Values of known keys are checked because a gateway refuses a whole
/// patch, with all its agents, for one bad value.
pub fn heartbeat(
    agent: &AgentRow,
    dialect: &Dialect,
    prompt: Option<&str>,
) -> Result<(Map<String, Value>, Vec<String>), String> {
    let wrong = |what: String| format!("agents.heartbeat_config {what}");
    let mut desired = Map::new();
    desired.insert("every".to_owned(), json!("10m"));
    desired.insert("target".to_owned(), json!("last"));
    desired.insert("includeReasoning".to_owned(), json!(false));
    if let Some(prompt) = prompt {
        desired.insert("prompt".to_owned(), json!(prompt));
    }
    match &agent.heartbeat_config {
        None | Some(Ok(Value::Null)) => {}
        Some(Ok(Value::Object(overlay))) => {
            for (key, value) in overlay {
                if value.is_null() {
                    desired.remove(key);
                } else if key == "prompt" && value.as_str().is_some_and(|own| own.trim().is_empty()) {
                    // A blank prompt is none, and must not silence the one that the files need.
                } else {
                    check(key, value).map_err(|what| wrong(format!("has a bad \"{key}\": {what}; correct the row")))?;
                    desired.insert(key.clone(), without_nulls(value));
                }
            }
        }
        Some(Ok(other)) => {
            let kind = kind(other);
            return Err(wrong(format!(
                "is {kind}, not an object; give one such as {{\"every\": \"10m\"}}"
            )));
        }
        Some(Err(error)) => return Err(wrong(format!("cannot be parsed: {error}; correct the row"))),
    }
    let mut dropped = Vec::new();
    if let Some(known) = &dialect.heartbeat_keys {
        desired.retain(|key, _| {
            let keep = known.contains(key);
            if !keep {
                dropped.push(key.clone());
            }
            keep
        });
    }
    dropped.sort_unstable();
    Ok((desired, dropped))
}

/// A value without what is null inside it: a gateway's config holds no nulls, since one in a patch takes a key away.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Checks the value of a key as gateways of all versions do (their config schema, 2026.4.29 to 2026.9.6). Keys that are
/// not known here are let through.
fn check(key: &str, value: &Value) -> Result<(), String> {
    let expected = |what: &str| Err(format!("it must be {what}, not {}", kind(value)));
    match key {
        "every" => match value.as_str() {
            Some(text) if is_duration(text) => Ok(()),
            Some(_) => Err("it must be a duration such as \"10m\", \"1h30m\" or \"45s\"".to_owned()),
            None => expected("a duration such as \"10m\""),
        },
        "model" | "session" | "target" | "to" | "accountId" | "prompt" if !value.is_string() => expected("a text"),
        "directPolicy" if !matches!(value.as_str(), Some("allow" | "block")) => {
            Err("it must be \"allow\" or \"block\"".to_owned())
        }
        "includeReasoning"
        | "includeSystemPromptSection"
        | "suppressToolErrorWarnings"
        | "lightContext"
        | "isolatedSession"
        | "skipWhenBusy"
            if !value.is_boolean() =>
        {
            expected("true or false")
        }
        "timeoutSeconds" if value.as_u64().is_none_or(|seconds| seconds == 0) => {
            Err("it must be a whole number of seconds, 1 or more".to_owned())
        }
        "ackMaxChars" if value.as_u64().is_none() => Err("it must be a whole number, 0 or more".to_owned()),
        "activeHours" => {
            let Some(hours) = value.as_object() else {
                return expected("an object with start and end");
            };
            let is_wrong = |key: &str| {
                hours
                    .get(key)
                    .is_some_and(|time| !time.as_str().is_some_and(is_time_of_day))
            };
            match ["start", "end"].into_iter().find(|key| is_wrong(key)) {
                Some(key) => Err(format!("its {key} must be a time such as \"08:30\"")),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Whether gateways take a text as a duration: numbers, each with a unit of `ms`, `s`, `m`, `h`, `d`; a single one may
/// go without.
fn is_duration(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let mut rest = text.as_str();
    let mut segments = 0;
    while !rest.is_empty() {
        let Some(after) = after_number(rest) else {
            return false;
        };
        segments += 1;
        if after.is_empty() {
            return segments == 1;
        }
        let Some(after) = ["ms", "s", "m", "h", "d"]
            .iter()
            .find_map(|unit| after.strip_prefix(unit))
        else {
            return false;
        };
        rest = after;
    }
    segments > 0
}

/// What follows the digits, with or without a fraction, at the start of a text.
fn after_number(text: &str) -> Option<&str> {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole = digits(text);
    if whole == 0 {
        return None;
    }
    let rest = &text[whole..];
    match rest.strip_prefix('.') {
        Some(fraction) => match digits(fraction) {
            0 => None,
            length => Some(&fraction[length..]),
        },
        None => Some(rest),
    }
}

/// `HH:MM`, up to `24:00`.
fn is_time_of_day(text: &str) -> bool {
    let two_digits = |text: &str| {
        let ok = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        ok.then(|| text.parse::<u8>().ok()).flatten()
    };
    let Some((hour, minute)) = text.split_once(':') else {
        return false;
    };
    match (two_digits(hour), two_digits(minute)) {
        (Some(24), Some(minute)) => minute == 0,
        (Some(hour), Some(minute)) => hour < 24 && minute < 60,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{agent, legacy, modern};
    use super::*;
    use crate::model::AgentRole;

    fn check_config(config: &str, dialect: &Dialect, prompt: Option<&str>, expected: Result<(Value, &[&str]), &str>) {
        let mut agent = agent(AgentRole::Main);
        agent.heartbeat_config = Some(serde_json::from_str(config).map_err(|error| error.to_string()));
        match (heartbeat(&agent, dialect, prompt), expected) {
            (Ok((found, dropped)), Ok((expected, expected_dropped))) => {
                assert_eq!(Value::Object(found), expected, "{config}");
                assert_eq!(dropped, expected_dropped, "{config}");
            }
            (Err(found), Err(expected)) => assert!(
                found.starts_with("agents.heartbeat_config") && found.contains(expected),
                "{config}: {found}"
            ),
            (found, _) => panic!("{config}: {found:?}"),
        }
    }

    #[test]
    fn the_row_overlays_the_default_key_by_key() {
        let dialect = legacy();
        for (config, expected) in [
            (
                "null",
                json!({"every": "10m", "target": "last", "includeReasoning": false}),
            ),
            (
                "{}",
                json!({"every": "10m", "target": "last", "includeReasoning": false}),
            ),
            (
                r#"{"every":"1h30m","model":"m"}"#,
                json!({"every": "1h30m", "target": "last", "includeReasoning": false, "model": "m"}),
            ),
            (r#"{"target":null}"#, json!({"every": "10m", "includeReasoning": false})),
            (
                r#"{"target":null,"activeHours":{"start":"08:00","timezone":null}}"#,
                json!({"every": "10m", "includeReasoning": false, "activeHours": {"start": "08:00"}}),
            ),
        ] {
            check_config(config, &dialect, None, Ok((expected, &[])));
        }
        let without = heartbeat(&agent(AgentRole::Main), &dialect, None).unwrap();
        assert_eq!(without.0["every"], "10m");
    }

    #[test]
    fn keys_that_the_gateway_does_not_know_are_dropped_and_told() {
        check_config(
            r#"{"zzz":1,"ackMaxChars":30}"#,
            &modern(),
            Some("P"),
            Ok((
                json!({"every": "10m", "target": "last", "prompt": "P"}),
                &["ackMaxChars", "includeReasoning", "zzz"],
            )),
        );
        let all = Dialect {
            heartbeat_keys: None,
            ..modern()
        };
        check_config(
            r#"{"zzz":1}"#,
            &all,
            None,
            Ok((
                json!({"every": "10m", "target": "last", "includeReasoning": false, "zzz": 1}),
                &[],
            )),
        );
    }

    #[test]
    fn the_row_s_own_prompt_goes_first_unless_blank() {
        let expected = |prompt| json!({"every": "10m", "target": "last", "prompt": prompt});
        let dropped: &[&str] = &["includeReasoning"];
        check_config(
            r#"{"prompt":"own"}"#,
            &modern(),
            Some("P"),
            Ok((expected("own"), dropped)),
        );
        check_config(r#"{"prompt":" "}"#, &modern(), Some("P"), Ok((expected("P"), dropped)));
    }

    #[test]
    fn a_config_of_the_wrong_shape_is_told() {
        for (config, expected) in [
            ("[1]", "is a list, not an object"),
            ("\"10m\"", "is a text, not an object"),
            ("{", "cannot be parsed"),
            (
                r#"{"every":10}"#,
                "bad \"every\": it must be a duration such as \"10m\", not a number",
            ),
            (r#"{"every":"soon"}"#, "bad \"every\""),
            (r#"{"every":""}"#, "bad \"every\""),
            (r#"{"every":"1h 30m"}"#, "bad \"every\""),
            (r#"{"every":"1h30"}"#, "bad \"every\""),
            (r#"{"every":"1."}"#, "bad \"every\""),
            (r#"{"target":true}"#, "bad \"target\": it must be a text, not a boolean"),
            (r#"{"includeReasoning":"no"}"#, "bad \"includeReasoning\""),
            (r#"{"directPolicy":"maybe"}"#, "bad \"directPolicy\""),
            (r#"{"timeoutSeconds":0}"#, "bad \"timeoutSeconds\""),
            (r#"{"ackMaxChars":-1}"#, "bad \"ackMaxChars\""),
            (r#"{"activeHours":"day"}"#, "bad \"activeHours\""),
            (r#"{"activeHours":{"start":"8:30"}}"#, "bad \"activeHours\": its start"),
            (
                r#"{"activeHours":{"start":"08:30","end":"24:01"}}"#,
                "bad \"activeHours\": its end",
            ),
        ] {
            check_config(config, &legacy(), None, Err(expected));
        }
        for every in ["10m", "0m", "45", "1.5h", "1h30m", "500ms", "2D", " 5s "] {
            assert!(is_duration(every), "{every}");
        }
        assert!(
            check(
                "activeHours",
                &json!({"start": "08:30", "end": "24:00", "timezone": "user"})
            )
            .is_ok()
        );
    }
}
