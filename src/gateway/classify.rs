//! What the error answers of gateways mean.

use std::fmt::Write as _;

use serde_json::Value;

use super::error::ErrorClass;

/// How many issues of a refused config are shown.
const SHOWN: usize = 5;

/// The class of an `error` object, by its code, its details' code, and as a last resort its text.
pub(super) fn classify(code: &str, detail_code: &str, details: &Value, message: &str, retryable: bool) -> ErrorClass {
    match detail_code {
        "AUTH_RATE_LIMITED" => return ErrorClass::RateLimited,
        "PAIRING_REQUIRED" | "DEVICE_IDENTITY_REQUIRED" | "CONTROL_UI_DEVICE_IDENTITY_REQUIRED" => {
            return ErrorClass::PairingRequired;
        }
        "MISSING_SCOPE" | "AUTH_SCOPE_MISMATCH" => return ErrorClass::MissingScope,
        "PROTOCOL_MISMATCH" => return ErrorClass::IncompatibleProtocol,
        "CONTROL_UI_ORIGIN_NOT_ALLOWED" => return ErrorClass::Unauthorized,
        _ if detail_code.starts_with("AUTH_") || detail_code.starts_with("DEVICE_") => return ErrorClass::Unauthorized,
        _ => {}
    }
    if details.get("type").and_then(Value::as_str) == Some("agent_file_conflict") {
        return ErrorClass::Conflict;
    }
    match code {
        "NOT_PAIRED" => return ErrorClass::PairingRequired,
        "NOT_FOUND" => return ErrorClass::NotFound,
        "UNAUTHORIZED" => return ErrorClass::Unauthorized,
        "AGENT_TIMEOUT" => return ErrorClass::Timeout,
        "RATE_LIMITED" => return ErrorClass::RateLimited,
        _ => {}
    }
    let lower = message.to_lowercase();
    let says = |text: &str| lower.contains(text);
    if lower.starts_with("missing scope") {
        ErrorClass::MissingScope
    } else if lower.starts_with("unauthorized") || lower.starts_with("origin not allowed") {
        ErrorClass::Unauthorized
    } else if says("protocol mismatch") {
        ErrorClass::IncompatibleProtocol
    } else if code == "UNAVAILABLE" {
        if says("rate limit") {
            ErrorClass::RateLimited
        } else if !retryable && (says("config_write_rejected") || says("config write")) {
            // The gateway's own guard against a write that loses too much: the same write is refused again.
            ErrorClass::Invalid
        } else {
            ErrorClass::Unavailable
        }
    } else if says("config changed since last load") || says("config base hash required") {
        ErrorClass::Conflict
    } else if lower.starts_with("unsupported file") {
        ErrorClass::UnsupportedFile
    } else if says("unknown agent id")
        || says("no longer exists in configuration")
        || says("config schema path not found")
        || (says("not found") && (lower.starts_with("agent ") || lower.starts_with("session ")))
    {
        ErrorClass::NotFound
    } else if code == "FORBIDDEN" {
        ErrorClass::Unauthorized
    } else if code == "INVALID_REQUEST" {
        ErrorClass::Invalid
    } else if retryable {
        ErrorClass::Unavailable
    } else {
        ErrorClass::Other
    }
}

/// What to do next, where the details' code tells more than the class.
pub(super) fn advice(detail_code: &str) -> Option<&'static str> {
    match detail_code {
        "CONTROL_UI_DEVICE_IDENTITY_REQUIRED" => Some(
            "The gateway wants a device: clear disable_device_pairing in its row. (Older gateways can be told to do without one \
             by gateway.controlUi.dangerouslyDisableDeviceAuth in their config; newer ones have retired that key.)",
        ),
        "CONTROL_UI_ORIGIN_NOT_ALLOWED" => {
            Some("Add the origin of the URL in the gateway's row to gateway.controlUi.allowedOrigins in its config.")
        }
        "AUTH_RATE_LIMITED" => {
            Some("Too many wrong tokens came from this address: put the gateway's current token into its row and wait.")
        }
        _ if detail_code.starts_with("DEVICE_AUTH_") => Some(
            "The gateway rejected the controller's device signature: check its clock and the device identity file.",
        ),
        _ => None,
    }
}

/// The issues that the message does not yet name, each after a semicolon: the gateway puts only the first into its message.
pub(super) fn issues(message: &str, details: &Value) -> String {
    let mut text = String::new();
    let issues = details
        .get("issues")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    for issue in issues.iter().take(SHOWN) {
        let path = issue.get("path").and_then(Value::as_str).unwrap_or("?");
        let issue = format!(
            "{path}: {}",
            issue.get("message").and_then(Value::as_str).unwrap_or("?")
        );
        if !message.contains(&issue) {
            text.push_str("; ");
            text.push_str(&issue);
        }
    }
    if issues.len() > SHOWN {
        // Writing to a string cannot fail.
        let _ = write!(text, "; and {} more", issues.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::GatewayError;

    #[test]
    fn answers_measured_on_real_gateways_get_their_class() {
        let invalid = |message: &str| json!({"code": "INVALID_REQUEST", "message": message});
        let check = |error: Value, class: ErrorClass, transient: bool| {
            let found = GatewayError::from_response(&error);
            assert_eq!((found.class(), found.is_transient()), (class, transient), "{error}");
        };
        check(invalid("agent \"x\" not found"), ErrorClass::NotFound, false);
        check(invalid("unknown agent id"), ErrorClass::NotFound, false);
        check(
            invalid("Agent \"x\" no longer exists in configuration"),
            ErrorClass::NotFound,
            false,
        );
        check(invalid("config schema path not found"), ErrorClass::NotFound, false);
        check(
            invalid("unsupported file \"TOOLS.md\""),
            ErrorClass::UnsupportedFile,
            false,
        );
        check(
            invalid("config changed since last load; re-run config.get and retry"),
            ErrorClass::Conflict,
            true,
        );
        check(
            invalid("config base hash required; re-run config.get and retry"),
            ErrorClass::Conflict,
            true,
        );
        check(
            invalid("missing scope: operator.admin"),
            ErrorClass::MissingScope,
            false,
        );
        check(invalid("unknown method: no.such"), ErrorClass::Invalid, false);
        check(
            json!({"code": "FORBIDDEN", "message": "missing scope: operator.admin", "details": {"code": "MISSING_SCOPE"}}),
            ErrorClass::MissingScope,
            false,
        );
        check(
            json!({"code": "INVALID_REQUEST", "message": "agent file \"A\" changed since it was read",
                   "details": {"type": "agent_file_conflict", "currentHash": "ab"}}),
            ErrorClass::Conflict,
            true,
        );
        check(
            json!({"code": "INVALID_REQUEST", "message": "unauthorized: gateway token mismatch",
                   "details": {"code": "AUTH_TOKEN_MISMATCH"}}),
            ErrorClass::Unauthorized,
            false,
        );
        check(
            json!({"code": "NOT_PAIRED", "message": "pairing required", "details": {"code": "PAIRING_REQUIRED"}}),
            ErrorClass::PairingRequired,
            false,
        );
        check(
            json!({"code": "INVALID_REQUEST", "message": "protocol mismatch", "details": {"expectedProtocol": 3}}),
            ErrorClass::IncompatibleProtocol,
            false,
        );
        check(
            json!({"code": "UNAVAILABLE", "message": "gateway starting; retry shortly", "retryable": true,
                   "retryAfterMs": 500, "details": {"reason": "startup-sidecars"}}),
            ErrorClass::Unavailable,
            true,
        );
        check(
            json!({"code": "UNAVAILABLE", "message": "rate limit exceeded for config.patch; retry after 60s",
                   "retryable": true, "retryAfterMs": 59639}),
            ErrorClass::RateLimited,
            true,
        );
        check(
            json!({"code": "UNAVAILABLE", "message": "Error: CONFIG_WRITE_REJECTED (size-drop:792->340)"}),
            ErrorClass::Invalid,
            false,
        );
        check(
            json!({"code": "NEW_CODE", "message": "?", "retryable": true}),
            ErrorClass::Unavailable,
            true,
        );
        check(json!("nonsense"), ErrorClass::Other, false);
    }

    #[test]
    fn only_issues_that_the_message_lacks_are_added_and_not_all_of_many() {
        let issue = |path: &str| json!({"path": path, "message": "no"});
        let many = ["a", "b", "c", "d", "e", "f", "g"].map(issue);
        let details = json!({ "issues": many });
        assert_eq!(
            issues("invalid config: a: no", &details),
            "; b: no; c: no; d: no; e: no; and 2 more"
        );
        assert_eq!(issues("", &json!({"issues": "x"})), "");
    }
}
