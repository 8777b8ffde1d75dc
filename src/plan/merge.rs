//! JSON merge patches: what takes one object to another.

use serde_json::{Map, Value};

/// The patch that makes `want` of `have`. A merge patch keeps whatever it does not name, inside nested objects as well, so what is
/// to go is named with null at every depth. `want` holds no nulls itself.
pub(super) fn patch_to(have: &Map<String, Value>, want: &Map<String, Value>) -> Map<String, Value> {
    let mut patch: Map<String, Value> = want
        .iter()
        .map(|(key, value)| {
            let value = match (have.get(key), value) {
                (Some(Value::Object(have)), Value::Object(want)) => patch_to(have, want).into(),
                _ => value.clone(),
            };
            (key.clone(), value)
        })
        .collect();
    for key in have.keys() {
        patch.entry(key.clone()).or_insert(Value::Null);
    }
    patch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_to_go_is_named_at_every_depth() {
        for (have, want, patch) in [
            (json!({}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), json!({"a": 1, "b": null})),
            (
                json!({"a": {"b": 1, "c": {"d": 1}}}),
                json!({"a": {"c": {}}}),
                json!({"a": {"b": null, "c": {"d": null}}}),
            ),
            (json!({"a": {"b": 1}}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
        ] {
            let (from, to) = (have.as_object().unwrap(), want.as_object().unwrap());
            assert_eq!(Value::from(patch_to(from, to)), patch, "{have} to {want}");
        }
    }
}
