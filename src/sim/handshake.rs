//! `connect`: who may come in, and with what.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::config::hex;
use super::devices;
use super::dialect::SimDialect;
use super::faults::Faults;
use super::methods::{self, Caller};
use super::rpc::RpcError;
use super::state::State;

/// How far a signature's time may be off (ms).
const SIGNATURE_SKEW_MS: u64 = 120_000;

/// A refused `connect`: the error, and the close code that follows it.
pub(super) type Refusal = (RpcError, u16);

/// What the connection itself brings.
#[derive(Debug)]
pub(super) struct Opening {
    /// The nonce of the challenge.
    pub(super) nonce: String,
    /// The `Origin` header.
    pub(super) origin: Option<String>,
    /// The `Host` header.
    pub(super) host: Option<String>,
    /// A number for this connection.
    pub(super) id: u64,
}

/// Decides on a `connect` request. Answers the caller and the payload of `hello-ok`.
pub(super) fn connect(
    state: &mut State,
    faults: &Faults,
    opening: &Opening,
    params: &Map<String, Value>,
) -> Result<(Caller, Value), Refusal> {
    if state.is_starting() {
        let error = RpcError::unavailable("gateway starting; retry shortly")
            .retry_after(500)
            .details(json!({ "reason": "startup-sidecars" }));
        return Err((error, 1013));
    }
    let text = |pointer: &str| {
        Value::Object(params.clone())
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let client_id = text("/client/id").unwrap_or_default();
    let control_ui = client_id == "openclaw-control-ui";
    if !control_ui && client_id != "gateway-client" {
        let message = "invalid connect params: at /client/id: must be equal to one of the allowed values";
        return Err((RpcError::invalid(message), 1008));
    }
    protocol(state, params)?;
    if control_ui {
        origin(opening)?;
        let disabled = state.config.pointer("/gateway/controlUi/dangerouslyDisableDeviceAuth") == Some(&json!(true));
        if params.get("device").is_none() && !disabled {
            let message = "control ui requires device identity (use HTTPS or localhost secure context)";
            let details = json!({ "code": "CONTROL_UI_DEVICE_IDENTITY_REQUIRED" });
            return Err((RpcError::invalid(message).details(details), 1008));
        }
    }
    let token = text("/auth/token");
    let device_token = text("/auth/deviceToken");
    let scopes: Vec<String> = params
        .get("scopes")
        .and_then(Value::as_array)
        .map(|scopes| scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    let device = match params.get("device") {
        Some(device) => {
            let mode = text("/client/mode").unwrap_or_default();
            let role = text("/role").unwrap_or_default();
            let claim = [client_id, mode, role, scopes.join(",")];
            let signed = token.as_deref().or(device_token.as_deref());
            verify_device(state, opening, device, &claim, signed.unwrap_or_default())?
        }
        None => "no device".to_owned(),
    };
    admit_token(state, token.as_deref(), device_token.as_deref(), &device)?;
    let issued = match &mut state.devices {
        Some(devices) if params.get("device").is_some() => Some(devices.admit(&device)?),
        _ => None,
    };
    let scopes = faults.grant(scopes);
    let uptime = u64::try_from(state.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut hello = json!({
        "type": "hello-ok",
        "protocol": state.dialect.protocol(),
        "server": { "version": state.dialect.version(), "connId": format!("sim-{}", opening.id) },
        "features": {
            "methods": methods::names(),
            "events": ["connect.challenge", "presence", "tick", "shutdown", "health"],
        },
        "snapshot": {
            "presence": [],
            "health": {},
            "stateVersion": { "presence": 1, "health": 1 },
            "uptimeMs": uptime,
        },
        "auth": devices::auth(&scopes, issued.as_deref()),
        "policy": {
            "maxPayload": 26_214_400,
            "maxBufferedBytes": 52_428_800,
            "tickIntervalMs": u64::try_from(faults.tick().as_millis()).unwrap_or(u64::MAX),
        },
    });
    match state.dialect {
        SimDialect::V2026_4_29 => hello["canvasHostUrl"] = json!("http://127.0.0.1:18789"),
        SimDialect::V2026_7_1 => {}
        SimDialect::V2026_9_6 => hello["auth"]["method"] = json!("token"),
    }
    Ok((Caller { scopes, device }, hello))
}

fn protocol(state: &State, params: &Map<String, Value>) -> Result<(), Refusal> {
    let number = |key: &str| params.get(key).and_then(Value::as_u64);
    let (Some(min), Some(max)) = (number("minProtocol"), number("maxProtocol")) else {
        let message = "invalid connect params: must have required property 'minProtocol'";
        return Err((RpcError::invalid(message), 1008));
    };
    let ours = u64::from(state.dialect.protocol());
    if (min..=max).contains(&ours) {
        return Ok(());
    }
    let details = if ours == 3 {
        json!({ "expectedProtocol": ours })
    } else {
        json!({
            "code": "PROTOCOL_MISMATCH",
            "clientMinProtocol": min,
            "clientMaxProtocol": max,
            "expectedProtocol": ours,
            "minimumProbeProtocol": 3,
        })
    };
    Err((RpcError::invalid("protocol mismatch").details(details), 1002))
}

/// A control UI must come from the gateway's own pages.
fn origin(opening: &Opening) -> Result<(), Refusal> {
    let host = opening
        .origin
        .as_deref()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, host)| host);
    if host.is_some() && host == opening.host.as_deref() {
        return Ok(());
    }
    let message = "origin not allowed (open the Control UI from the gateway host or allow it in \
                   gateway.controlUi.allowedOrigins)";
    let details = json!({ "code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": "origin missing or invalid" });
    Err((RpcError::invalid(message).details(details), 1008))
}

/// Whether one of the tokens lets in: the gateway's own, or else the one that was issued to this device.
fn admit_token(state: &State, token: Option<&str>, device_token: Option<&str>, device: &str) -> Result<(), Refusal> {
    let issued = |token| {
        state
            .devices
            .as_ref()
            .is_some_and(|devices| devices.is_token(device, token))
    };
    match (token, device_token) {
        (Some(token), _) if token == state.token => Ok(()),
        (_, Some(token)) if issued(token) => Ok(()),
        (_, Some(_)) => {
            let message = "unauthorized: device token mismatch (rotate/reissue device token)";
            let details = json!({
                "code": "AUTH_DEVICE_TOKEN_MISMATCH",
                "authReason": "device_token_mismatch",
                "canRetryWithDeviceToken": false,
                "recommendedNextStep": "update_auth_credentials",
            });
            Err((RpcError::invalid(message).details(details), 1008))
        }
        (Some(token), None) if issued(token) => Ok(()),
        (Some(_), None) => Err(unauthorized(
            "mismatch",
            "AUTH_TOKEN_MISMATCH",
            "retry_with_device_token",
        )),
        (None, None) => Err(unauthorized(
            "missing",
            "AUTH_TOKEN_MISSING",
            "update_auth_configuration",
        )),
    }
}

fn unauthorized(what: &str, code: &str, next: &str) -> Refusal {
    let message = format!("unauthorized: gateway token {what} (provide gateway auth token)");
    let details = json!({
        "code": code,
        "authReason": format!("token_{what}"),
        "canRetryWithDeviceToken": what == "mismatch",
        "recommendedNextStep": next,
    });
    (RpcError::invalid(message).details(details), 1008)
}

/// Checks the signature over who the device says it is. Answers its id.
fn verify_device(
    state: &State,
    opening: &Opening,
    device: &Value,
    claim: &[String; 4],
    token: &str,
) -> Result<String, Refusal> {
    let refuse = |message: &str, code: &str, reason: &str| {
        let details = json!({ "code": code, "reason": reason });
        (RpcError::invalid(message).details(details), 1008)
    };
    let text = |key: &str| device.get(key).and_then(Value::as_str).unwrap_or_default();
    let invalid = || {
        refuse(
            "device signature invalid",
            "DEVICE_AUTH_SIGNATURE_INVALID",
            "device-signature",
        )
    };
    let key = URL_SAFE_NO_PAD.decode(text("publicKey")).ok();
    let key: Option<[u8; 32]> = key.and_then(|key| key.try_into().ok());
    let id = text("id");
    let Some(key) = key.filter(|key| hex(&Sha256::digest(key)) == id) else {
        return Err(refuse(
            "device identity mismatch",
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            "device-id-mismatch",
        ));
    };
    let signed_at = device.get("signedAt").and_then(Value::as_u64).unwrap_or_default();
    if state.clock.now_ms().abs_diff(signed_at) > SIGNATURE_SKEW_MS {
        return Err(refuse(
            "device signature expired",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            "device-signature-stale",
        ));
    }
    let nonce = text("nonce");
    if nonce != opening.nonce {
        return Err(refuse(
            "device nonce mismatch",
            "DEVICE_AUTH_NONCE_MISMATCH",
            "device-nonce-mismatch",
        ));
    }
    let [client, mode, role, scopes] = claim;
    let signed = format!("v2|{id}|{client}|{mode}|{role}|{scopes}|{signed_at}|{token}|{nonce}");
    let signature = URL_SAFE_NO_PAD.decode(text("signature")).map_err(|_| invalid())?;
    let signature = Signature::from_slice(&signature).map_err(|_| invalid())?;
    VerifyingKey::from_bytes(&key)
        .and_then(|key| key.verify_strict(signed.as_bytes(), &signature))
        .map_err(|_| invalid())?;
    Ok(id.to_owned())
}
