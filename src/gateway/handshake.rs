//! From an open socket to a client: challenge, `connect`, `hello-ok`.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::client::{Client, Hello};
use super::connection::{MAX_INCOMING, broken};
use super::connector::Target;
use super::device::{Claim, DeviceIdentity};
use super::error::{ErrorClass, GatewayError, milliseconds};
use super::frame::{self, Incoming};
use super::metrics::RpcMetrics;

/// How long connecting may take in all: resolving, TCP, TLS, WebSocket and the handshake.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// The protocols that this client speaks.
const PROTOCOLS: std::ops::RangeInclusive<u32> = 3..=4;

pub(super) const ROLE: &str = "operator";

/// The scope without which nothing here works.
const NEEDED_SCOPE: &str = "operator.admin";

const SCOPES: [&str; 5] = [
    "operator.read",
    "operator.write",
    NEEDED_SCOPE,
    "operator.approvals",
    "operator.pairing",
];

/// Taken where a gateway does not say: the value measured on all versions, in bytes.
const DEFAULT_MAX_PAYLOAD: u64 = 26_214_400;

/// Taken where a gateway does not say: the value measured on all versions.
const DEFAULT_TICK: Duration = Duration::from_secs(30);

/// The id of the one request of the handshake.
const CONNECT_ID: &str = "connect";

/// What we show a gateway to be let in.
#[derive(Clone, Default)]
pub(super) struct Credential {
    /// The secret itself, if there is any.
    pub(super) token: Option<SecretString>,
    /// Whether the gateway issued it to this device, rather than sharing it with everybody.
    pub(super) device: bool,
}

impl Credential {
    /// The gateway's own token.
    pub(super) fn shared(token: Option<SecretString>) -> Self {
        Self {
            token: token.filter(|token| !token.expose_secret().is_empty()),
            device: false,
        }
    }

    /// A token that the gateway issued to this device.
    pub(super) fn device(token: SecretString) -> Self {
        Self {
            token: Some(token),
            device: true,
        }
    }

    fn text(&self) -> Option<&str> {
        self.token.as_ref().map(ExposeSecret::expose_secret)
    }
}

/// What a gateway that lets us in gives us.
pub(super) struct Welcome {
    pub(super) client: Client,
    /// The token that it issued to our device, if it did.
    pub(super) device_token: Option<SecretString>,
}

/// Does the gateway handshake on an open WebSocket and hands the socket to a [`Client`], within [`CONNECT_DEADLINE`].
///
/// Works over any stream, also in memory under a paused clock. A gateway that is only starting refuses with a transient
/// error and a [`retry_after`](GatewayError::retry_after).
///
/// # Errors
/// When the gateway refuses, does not answer in time, talks nonsense, or does not grant `operator.admin`.
pub async fn handshake<S>(
    stream: WebSocketStream<S>,
    target: &Target,
    identity: &DeviceIdentity,
    metrics: RpcMetrics,
) -> Result<Client, GatewayError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let started = Instant::now();
    let credential = Credential::shared(target.token.clone());
    let attempt = negotiate(stream, target, &credential, identity, metrics.clone());
    let result = match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
        Ok(result) => result.map(|welcome| welcome.client),
        Err(_) => Err(GatewayError::new(
            ErrorClass::Timeout,
            format!(
                "the gateway did not finish the handshake within {} s",
                CONNECT_DEADLINE.as_secs()
            ),
        )),
    };
    let outcome = result.as_ref().map_or_else(GatewayError::reason, |_| "ok");
    metrics.record("connect", outcome, started.elapsed());
    result.map_err(|error| error.during("connect"))
}

/// The handshake without deadline and metrics, for callers that have their own.
pub(super) async fn negotiate<S>(
    mut stream: WebSocketStream<S>,
    target: &Target,
    credential: &Credential,
    identity: &DeviceIdentity,
    metrics: RpcMetrics,
) -> Result<Welcome, GatewayError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let challenge = loop {
        if let Incoming::Event { name, payload } = next_frame(&mut stream).await?
            && name == "connect.challenge"
        {
            break payload;
        }
    };
    let params = connect_params(target.disable_device_pairing, credential, identity, &challenge)?;
    let request = frame::request(CONNECT_ID, "connect", &params);
    stream
        .send(Message::text(request))
        .await
        .map_err(|error| broken(&error).to_error(false))?;
    let answer = loop {
        if let Incoming::Response { id, result } = next_frame(&mut stream).await?
            && id == CONNECT_ID
        {
            break result;
        }
    };
    let payload = answer.map_err(|error| GatewayError::from_response(&error).without(credential.text()))?;
    let hello = parse_hello(&payload)?;
    let device_token = payload
        .pointer("/auth/deviceToken")
        .and_then(Value::as_str)
        .filter(|token| !token.is_empty())
        .map(SecretString::from);
    tracing::debug!(
        gateway = %target.gateway, protocol = hello.protocol, version = %hello.server_version, "connected to the gateway"
    );
    let secrets = credential.token.iter().chain(&device_token).cloned().collect();
    Ok(Welcome {
        client: Client::start(stream, target.gateway, secrets, hello, metrics),
        device_token,
    })
}

async fn next_frame<S>(stream: &mut WebSocketStream<S>) -> Result<Incoming, GatewayError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match stream.next().await {
            Some(Ok(Message::Text(text))) if text.len() > MAX_INCOMING => {
                return Err(GatewayError::new(
                    ErrorClass::FrameTooLarge,
                    format!(
                        "the gateway sent a message of {} bytes; at most {MAX_INCOMING} are taken",
                        text.len()
                    ),
                ));
            }
            Some(Ok(Message::Text(text))) => return frame::parse(&text),
            Some(Ok(Message::Close(close))) => {
                let (class, text) = match close {
                    Some(close) => (
                        match close.code {
                            CloseCode::Restart => ErrorClass::Restarting,
                            CloseCode::Again => ErrorClass::Unavailable,
                            CloseCode::Policy => ErrorClass::HandshakeFailed,
                            _ => ErrorClass::ConnectionClosed,
                        },
                        format!(" ({} {})", u16::from(close.code), close.reason),
                    ),
                    None => (ErrorClass::ConnectionClosed, String::new()),
                };
                let message = format!("the gateway closed the connection during the handshake{text}");
                return Err(GatewayError::new(class, message));
            }
            Some(Ok(Message::Binary(_))) => {
                return Err(GatewayError::protocol(
                    "the gateway sent a binary message during the handshake",
                ));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(broken(&error).to_error(false)),
            None => {
                return Err(GatewayError::new(
                    ErrorClass::ConnectionClosed,
                    "the gateway closed the connection during the handshake",
                ));
            }
        }
    }
}

/// The parameters of `connect`. A control UI (for gateways without device pairing) shows no device.
fn connect_params(
    control_ui: bool,
    credential: &Credential,
    identity: &DeviceIdentity,
    challenge: &Value,
) -> Result<Value, GatewayError> {
    let (client_id, client_mode) = if control_ui {
        ("openclaw-control-ui", "ui")
    } else {
        ("gateway-client", "backend")
    };
    let mut params = json!({
        "minProtocol": PROTOCOLS.start(),
        "maxProtocol": PROTOCOLS.end(),
        "client": {
            "id": client_id,
            "version": env!("CARGO_PKG_VERSION"),
            "platform": std::env::consts::OS,
            "mode": client_mode,
        },
        "role": ROLE,
        "scopes": SCOPES,
        "caps": [],
    });
    if let Some(token) = credential.text() {
        params["auth"] = if credential.device {
            json!({"deviceToken": token})
        } else {
            json!({"token": token})
        };
    }
    if !control_ui {
        let nonce = challenge.get("nonce").and_then(Value::as_str);
        let ts = challenge.get("ts").and_then(Value::as_i64);
        let (Some(nonce), Some(signed_at)) = (nonce, ts) else {
            return Err(GatewayError::protocol(
                "the gateway's challenge has no nonce or no time stamp",
            ));
        };
        params["device"] = identity.sign(&Claim {
            client_id,
            client_mode,
            role: ROLE,
            scopes: &SCOPES,
            signed_at,
            token: credential.text().unwrap_or_default(),
            nonce,
        });
    }
    Ok(params)
}

pub(super) fn parse_hello(payload: &Value) -> Result<Hello, GatewayError> {
    let Some(protocol) = payload.get("protocol").and_then(Value::as_u64) else {
        return Err(GatewayError::protocol("the gateway's hello-ok names no protocol"));
    };
    let protocol = u32::try_from(protocol).unwrap_or(u32::MAX);
    if !PROTOCOLS.contains(&protocol) {
        let message = format!("the gateway chose protocol {protocol}, which was not offered");
        return Err(GatewayError::new(ErrorClass::IncompatibleProtocol, message));
    }
    let scopes = strings(payload.pointer("/auth/scopes"));
    // A gateway that does not tell the scopes at all is believed until a call fails.
    if payload.pointer("/auth/scopes").is_some() && !scopes.contains(NEEDED_SCOPE) {
        let granted = if scopes.is_empty() { "none" } else { "only some" };
        let message = format!("the gateway granted {granted} of the scopes asked for: missing scope: {NEEDED_SCOPE}");
        return Err(GatewayError::new(ErrorClass::MissingScope, message));
    }
    let max_payload = payload
        .pointer("/policy/maxPayload")
        .and_then(Value::as_u64)
        .filter(|bytes| *bytes > 0);
    let tick = payload
        .pointer("/policy/tickIntervalMs")
        .and_then(Value::as_f64)
        .and_then(milliseconds);
    Ok(Hello {
        protocol,
        server_version: payload
            .pointer("/server/version")
            .and_then(Value::as_str)
            .map_or_else(|| "unknown".to_owned(), super::redact::clean),
        methods: strings(payload.pointer("/features/methods")),
        scopes,
        max_payload: usize::try_from(max_payload.unwrap_or(DEFAULT_MAX_PAYLOAD)).unwrap_or(usize::MAX),
        tick_interval: tick
            .filter(|tick| *tick >= Duration::from_millis(100))
            .unwrap_or(DEFAULT_TICK),
        uptime: payload
            .pointer("/snapshot/uptimeMs")
            .and_then(Value::as_f64)
            .and_then(milliseconds),
    })
}

fn strings(value: Option<&Value>) -> BTreeSet<String> {
    value
        .and_then(Value::as_array)
        .map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_ui_shows_no_device_and_needs_no_challenge() {
        let identity = DeviceIdentity::generate();
        let params = connect_params(true, &Credential::shared(Some("tok".into())), &identity, &Value::Null).unwrap();
        assert_eq!(params["client"]["id"], "openclaw-control-ui");
        assert_eq!(params["client"]["mode"], "ui");
        assert_eq!(params.get("device"), None);
        assert_eq!(params["auth"]["token"], "tok");
    }

    #[test]
    fn a_device_needs_a_challenge_and_no_token_means_no_auth() {
        let identity = DeviceIdentity::generate();
        let challenge = json!({"nonce": "n", "ts": 5});
        let nothing = Credential::shared(Some("".into()));
        let params = connect_params(false, &nothing, &identity, &challenge).unwrap();
        assert_eq!(params.get("auth"), None);
        assert_eq!(
            (&params["device"]["nonce"], &params["device"]["signedAt"]),
            (&json!("n"), &json!(5))
        );
        assert_eq!((&params["minProtocol"], &params["maxProtocol"]), (&json!(3), &json!(4)));
        let error = connect_params(false, &nothing, &identity, &json!({"nonce": "n"})).unwrap_err();
        assert_eq!(error.class(), ErrorClass::ProtocolError);
    }

    #[test]
    fn hello_falls_back_to_the_measured_policy_and_checks_protocol_and_scopes() {
        let hello = parse_hello(&json!({"protocol": 3})).unwrap();
        assert_eq!(
            (hello.max_payload, hello.tick_interval),
            (26_214_400, Duration::from_secs(30))
        );
        assert!(hello.offers("anything"), "a gateway that lists no methods may have it");
        let class = |payload: Value| parse_hello(&payload).unwrap_err().class();
        assert_eq!(class(json!({})), ErrorClass::ProtocolError);
        assert_eq!(class(json!({"protocol": 5})), ErrorClass::IncompatibleProtocol);
        assert_eq!(
            class(json!({"protocol": 4, "auth": {"scopes": []}})),
            ErrorClass::MissingScope
        );
        assert_eq!(
            class(json!({"protocol": 4, "auth": {"scopes": ["operator.read"]}})),
            ErrorClass::MissingScope
        );
    }
}
