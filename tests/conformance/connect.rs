//! The handshake, scopes, frames and parameters.

use std::collections::BTreeSet;

use openclaw_controller::gateway::{ErrorClass, GatewayError, probe};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::env::{CALL, Env};
use crate::raw::{Raw, SCOPES};

pub(crate) async fn every_scope_and_the_right_protocol_are_granted(env: &Env) {
    let client = env.client().await;
    let hello = client.hello();
    assert_eq!(hello.protocol, env.facts.dialect.protocol);
    assert_eq!(hello.server_version, env.facts.reports);
    assert_eq!(
        hello.scopes,
        SCOPES.map(str::to_owned).into_iter().collect::<BTreeSet<_>>()
    );
    assert_eq!(hello.max_payload, 26_214_400);
    assert_eq!(hello.tick_interval.as_secs(), 30);
    for method in ["config.get", "config.patch", "agents.files.set", "chat.send"] {
        assert!(hello.offers(method), "{method}");
    }
    assert_eq!(hello.offers("config.schema.lookup"), env.facts.schema);
    assert!(!hello.offers("agents.files.delete"));
}

pub(crate) async fn probing_finds_the_dialect_and_writes_nothing(env: &Env) {
    let client = env.client().await;
    assert_eq!(probe(&client).await.unwrap(), env.facts.dialect);
}

pub(crate) async fn a_wrong_token_is_refused(env: &Env) {
    let mut target = env.target();
    target.token = Some(SecretString::from("wrong"));
    let error = env.connect(&target).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unauthorized, "{error}");
    assert!(!error.is_transient());
    refused(env, json!({ "token": "wrong" }), "AUTH_TOKEN_MISMATCH").await;
}

pub(crate) async fn a_missing_token_is_refused(env: &Env) {
    let mut target = env.target();
    target.token = None;
    let error = env.connect(&target).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unauthorized, "{error}");
}

/// Without a device, so that the token alone decides.
async fn refused(env: &Env, auth: Value, code: &str) {
    let mut raw = Raw::open(env, None).await;
    let mut params = raw.connect_params(env.token(), &SCOPES);
    params["auth"] = auth;
    params.as_object_mut().unwrap().remove("device");
    let answer = raw.request("connect", params).await;
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    assert_eq!(answer["error"]["details"]["code"], code, "{answer}");
    assert_eq!(raw.close_code().await, 1008);
}

pub(crate) async fn a_forged_device_is_refused(env: &Env) {
    for (key, value, code) in [
        ("signature", json!("AAAA"), "DEVICE_AUTH_SIGNATURE_INVALID"),
        ("nonce", json!("another"), "DEVICE_AUTH_NONCE_MISMATCH"),
        ("id", json!("00"), "DEVICE_AUTH_DEVICE_ID_MISMATCH"),
        ("signedAt", json!(1_000_000), "DEVICE_AUTH_SIGNATURE_EXPIRED"),
    ] {
        let mut raw = Raw::open(env, None).await;
        let mut params = raw.connect_params(env.token(), &SCOPES);
        params["device"][key] = value;
        let answer = raw.request("connect", params).await;
        let code = if env.facts.device_codes {
            code
        } else {
            "DEVICE_AUTH_INVALID"
        };
        assert_eq!(answer["error"]["details"]["code"], code, "{key}: {answer}");
        assert_eq!(raw.close_code().await, 1008, "{key}");
    }
    // A signature is over the scopes too.
    let mut raw = Raw::open(env, None).await;
    let mut params = raw.connect_params(env.token(), &["operator.read"]);
    params["scopes"] = json!(SCOPES);
    let answer = raw.request("connect", params).await;
    let code = answer["error"]["details"]["code"].as_str();
    assert!(
        code.is_some_and(|code| code.starts_with("DEVICE_AUTH_") && code.ends_with("INVALID")),
        "{answer}"
    );
}

pub(crate) async fn an_unknown_protocol_is_refused(env: &Env) {
    let protocol = env.facts.dialect.protocol;
    let other = if protocol == 3 { 4 } else { 3 };
    for (min, max) in [(other, other), (1, 2), (5, 9)] {
        let mut raw = Raw::open(env, None).await;
        let mut params = raw.connect_params(env.token(), &SCOPES);
        params["minProtocol"] = json!(min);
        params["maxProtocol"] = json!(max);
        let answer = raw.request("connect", params).await;
        assert_eq!(answer["error"]["message"], "protocol mismatch", "{min}–{max}: {answer}");
        let details = &answer["error"]["details"];
        assert_eq!(details["expectedProtocol"], protocol);
        let code = env.facts.protocol_code.then_some("PROTOCOL_MISMATCH");
        assert_eq!(details["code"].as_str(), code);
        assert_eq!(raw.close_code().await, 1002);
    }
}

pub(crate) async fn a_foreign_control_ui_is_refused(env: &Env) {
    for origin in [None, Some("http://elsewhere.example")] {
        let mut raw = Raw::open(env, origin).await;
        let params = raw.control_ui_params(env.token());
        let answer = raw.request("connect", params).await;
        let code = env.facts.origin_code.then_some("CONTROL_UI_ORIGIN_NOT_ALLOWED");
        let error = &answer["error"];
        assert_eq!(error["details"]["code"].as_str(), code, "{origin:?}: {answer}");
        let class = GatewayError::from_response(error).class();
        assert_eq!(class, ErrorClass::Unauthorized, "{origin:?}: {answer}");
    }
}

pub(crate) async fn a_control_ui_without_a_device_is_refused_unless_the_operator_allows_it(env: &Env) {
    let mut raw = Raw::open(env, Some(&format!("http://{}", env.host()))).await;
    let params = raw.control_ui_params(env.token());
    let answer = raw.request("connect", params).await;
    assert_eq!(
        answer["error"]["details"]["code"], "CONTROL_UI_DEVICE_IDENTITY_REQUIRED",
        "{answer}"
    );
    assert_eq!(raw.close_code().await, 1008);
}

pub(crate) async fn scopes_are_enforced(env: &Env) {
    let mut raw = Raw::admitted(env, &["operator.read"]).await;
    for method in ["config.get", "agents.list"] {
        assert_eq!(raw.request(method, json!({})).await["ok"], true, "{method}");
    }
    for (method, missing) in [
        ("config.patch", "operator.admin"),
        ("agents.files.set", "operator.admin"),
        ("agents.create", "operator.admin"),
        ("agents.update", "operator.admin"),
        ("agents.delete", "operator.admin"),
        ("chat.send", "operator.write"),
        ("sessions.patch", env.facts.label_scope.as_str()),
        ("sessions.reset", "operator.admin"),
        ("sessions.delete", "operator.admin"),
        ("no.such.method", "operator.admin"),
    ] {
        let answer = raw.request(method, json!({})).await;
        let error = &answer["error"];
        assert_eq!(
            error["message"],
            format!("missing scope: {missing}"),
            "{method}: {answer}"
        );
        if env.facts.scope_code {
            assert_eq!(error["code"], "FORBIDDEN", "{method}");
            assert_eq!(error["details"]["code"], "MISSING_SCOPE", "{method}");
            assert_eq!(error["details"]["missingScope"], missing, "{method}");
        } else {
            assert_eq!(error["code"], "INVALID_REQUEST", "{method}");
        }
    }
    let mut none = Raw::admitted(env, &[]).await;
    let answer = none.request("config.get", json!({})).await;
    assert_eq!(answer["error"]["message"], "missing scope: operator.read");
}

pub(crate) async fn odd_frames_are_answered_or_ignored(env: &Env) {
    let mut raw = Raw::admitted(env, &SCOPES).await;
    raw.send("garbage").await;
    let answer = raw.request("connect", json!({})).await;
    assert_eq!(answer["error"]["message"], "connect is only valid as the first request");
    raw.send(&json!({ "type": "req", "id": "odd", "params": {} }).to_string())
        .await;
    let answer = raw.until(|frame| frame["id"] == "odd").await;
    assert_eq!(
        answer["error"]["message"],
        "invalid request frame: must have required property 'method'"
    );
    let mut raw = Raw::open(env, None).await;
    let answer = raw.request("health", json!({})).await;
    assert_eq!(
        answer["error"]["message"],
        "invalid handshake: first request must be connect"
    );
    assert_eq!(raw.close_code().await, 1008);
}

pub(crate) async fn unknown_methods_and_odd_parameters_are_refused(env: &Env) {
    let client = env.client().await;
    for (method, params, message) in [
        ("agents.nonsense", json!({}), "unknown method: agents.nonsense"),
        ("agents.files.delete", json!({}), "unknown method: agents.files.delete"),
        (
            "agents.files.get",
            json!({ "agentId": "main" }),
            "invalid agents.files.get params: must have required property 'name'",
        ),
        (
            "agents.files.get",
            json!({ "agentId": "main", "name": "SOUL.md", "zzz": 1 }),
            "invalid agents.files.get params: at root: unexpected property 'zzz'",
        ),
        (
            "config.get",
            json!({ "x": 1 }),
            "invalid config.get params: at root: unexpected property 'x'",
        ),
        (
            "config.patch",
            json!({ "patch": {} }),
            "invalid config.patch params: must have required property 'raw'; at root: unexpected property 'patch'",
        ),
    ] {
        let error = client.request(method, params, CALL).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{method}: {error}");
        assert!(error.message().contains(message), "{method}: {}", error.message());
    }
}
