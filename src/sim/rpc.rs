//! Errors as gateways answer them, and the checks of a request's parameters.

use serde_json::{Map, Value, json};

/// An error answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RpcError {
    /// `INVALID_REQUEST`, `UNAVAILABLE`, `FORBIDDEN`.
    pub(super) code: String,
    /// For people; differs between versions.
    pub(super) message: String,
    /// More for programs.
    pub(super) details: Option<Value>,
    /// Set to the time to wait, in milliseconds, where the request may be repeated.
    pub(super) retry_after_ms: Option<u64>,
}

impl RpcError {
    /// The answer to a request that the gateway will not carry out.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new("INVALID_REQUEST", message)
    }

    /// The answer to a request that failed inside the gateway.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new("UNAVAILABLE", message)
    }

    /// An answer with this code and message and nothing more.
    pub(super) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            details: None,
            retry_after_ms: None,
        }
    }

    /// With details.
    pub(super) fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Marked as one that may be retried.
    pub(super) fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// The `error` object of the frame.
    pub(super) fn to_json(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(ms) = self.retry_after_ms {
            error["retryable"] = json!(true);
            error["retryAfterMs"] = json!(ms);
        }
        if let Some(details) = &self.details {
            error["details"] = details.clone();
        }
        error
    }
}

/// What a method answers.
pub(super) type RpcResult = Result<Value, RpcError>;

/// Type of a parameter.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// A string of at least one character.
    NonEmpty,
    /// A boolean.
    Flag,
    /// Whatever the simulation does not look at.
    Any,
}

/// One parameter of a method: its name, its type, and whether it must be there.
pub(super) type Param = (&'static str, Kind, bool);

/// The parameters of a request, checked.
#[derive(Debug)]
pub(super) struct Params<'a>(&'a Map<String, Value>);

impl<'a> Params<'a> {
    /// Checks the parameters as strictly as the real gateways: nothing missing, nothing unexpected, types right.
    pub(super) fn check(method: &str, params: &'a Map<String, Value>, spec: &[Param]) -> Result<Self, RpcError> {
        let mut problems = Vec::new();
        for (name, _, required) in spec {
            if *required && !params.contains_key(*name) {
                problems.push(format!("must have required property '{name}'"));
            }
        }
        for name in params.keys() {
            if !spec.iter().any(|(known, ..)| known == name) {
                problems.push(format!("at root: unexpected property '{name}'"));
            }
        }
        for (name, kind, _) in spec {
            match (kind, params.get(*name)) {
                (Kind::Text | Kind::NonEmpty, Some(value)) if !value.is_string() => {
                    problems.push(format!("at /{name}: must be string"));
                }
                (Kind::NonEmpty, Some(Value::String(text))) if text.is_empty() => {
                    problems.push(format!("at /{name}: must not have fewer than 1 characters"));
                }
                (Kind::Flag, Some(value)) if !value.is_boolean() => {
                    problems.push(format!("at /{name}: must be boolean"));
                }
                _ => {}
            }
        }
        if problems.is_empty() {
            Ok(Self(params))
        } else {
            Err(RpcError::invalid(format!(
                "invalid {method} params: {}",
                problems.join("; ")
            )))
        }
    }

    /// A text parameter, if given.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A text parameter that [`Params::check`] has seen to be there.
    pub(super) fn required(&self, name: &str) -> &'a str {
        self.text(name).unwrap_or_default()
    }

    /// A boolean parameter.
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(default)
    }

    /// A parameter as it came.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: [Param; 3] = [
        ("agentId", Kind::NonEmpty, true),
        ("name", Kind::Text, true),
        ("deleteFiles", Kind::Flag, false),
    ];

    fn check(params: &Value) -> Result<(), String> {
        Params::check("m", params.as_object().unwrap(), &SPEC)
            .map(drop)
            .map_err(|e| e.message)
    }

    #[test]
    fn parameters_are_checked_in_the_words_of_the_real_gateways() {
        for (params, expected) in [
            (json!({"agentId": "a", "name": "b"}), Ok(())),
            (json!({"agentId": "a"}), Err("must have required property 'name'")),
            (
                json!({"agentId": "a", "zzz": 1}),
                Err("must have required property 'name'; at root: unexpected property 'zzz'"),
            ),
            (json!({"agentId": "a", "name": null}), Err("at /name: must be string")),
            (
                json!({"agentId": "", "name": ""}),
                Err("at /agentId: must not have fewer than 1 characters"),
            ),
            (
                json!({"agentId": "a", "name": "", "deleteFiles": 1}),
                Err("at /deleteFiles: must be boolean"),
            ),
        ] {
            let expected = expected.map_err(|problems: &str| format!("invalid m params: {problems}"));
            assert_eq!(check(&params), expected, "{params}");
        }
    }
}
