//! What the error answers of gateways mean.

use std::borrow::Cow;
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

/// What to do next, where the answer's details tell more than its class.
pub(super) fn advice(class: ErrorClass, detail_code: &str, details: &Value) -> Option<Cow<'static, str>> {
    let advice = match detail_code {
        "CONTROL_UI_DEVICE_IDENTITY_REQUIRED" | "DEVICE_IDENTITY_REQUIRED" => {
            "The gateway wants a device: clear disable_device_pairing in its row. (Older gateways can be told to do without one by \
             gateway.controlUi.dangerouslyDisableDeviceAuth in their config; newer ones have retired that key.)"
        }
        "CONTROL_UI_ORIGIN_NOT_ALLOWED" => {
            "Add the origin of the URL in the gateway's row to gateway.controlUi.allowedOrigins in its config."
        }
        "AUTH_RATE_LIMITED" => {
            "Too many wrong tokens came from this address: put the gateway's current token into its row and wait."
        }
        _ if detail_code.starts_with("DEVICE_AUTH_") => {
            "The gateway rejected the controller's device signature: check its clock and the device identity file."
        }
        _ if class == ErrorClass::PairingRequired => return pairing_request(details).map(Cow::Owned),
        _ => return None,
    };
    Some(Cow::Borrowed(advice))
}

/// The command by which the operator lets our device in. The id is theirs to paste into a shell, so it has to look like one.
fn pairing_request(details: &Value) -> Option<String> {
    let plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !id.starts_with('-')
    };
    let id = details.get("requestId").and_then(Value::as_str).filter(plain)?;
    Some(format!(
        "Approve the controller's device on the gateway's host: `openclaw devices approve {id}`, or in its Control UI. The connection is \
         then made by itself."
    ))
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
    fn who_has_to_approve_the_device_gets_the_exact_command_and_nothing_that_a_shell_would_run() {
        let told = |id: &str| {
            let error = json!({"code": "NOT_PAIRED", "message": "pairing required",
                               "details": {"code": "PAIRING_REQUIRED", "requestId": id}});
            let error = GatewayError::from_response(&error);
            assert!(error.awaits_approval());
            error.to_string()
        };
        let shown = told("6f0c2f57-8d5e-4a43-9d6f-8f8e2a7a1f4b");
        assert!(
            shown.contains("`openclaw devices approve 6f0c2f57-8d5e-4a43-9d6f-8f8e2a7a1f4b`"),
            "{shown}"
        );
        for odd in ["", "--all", "x; reboot", "`reboot`", &"a".repeat(65)] {
            assert!(told(odd).contains("`openclaw devices approve <id>`"), "{odd}");
        }
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
