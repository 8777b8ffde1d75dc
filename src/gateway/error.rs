//! What can go wrong between the controller and a gateway, and what follows from it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::classify::{advice, classify, issues};
use super::redact::clean;

/// The kinds of failure that anything here branches on. The names are the reasons that conditions carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The gateway's row has no URL.
    NotConfigured,
    /// The gateway's URL cannot be used.
    InvalidUrl,
    /// The host name could not be resolved.
    DnsFailed,
    /// The host answered that nothing listens on the port.
    ConnectionRefused,
    /// The TCP connection could not be made for another reason.
    TcpFailed,
    /// The TLS handshake failed.
    TlsFailed,
    /// The WebSocket or gateway handshake failed.
    HandshakeFailed,
    /// A proxy answered, which cannot reach the gateway.
    ProxyUnavailable,
    /// A proxy answered, which lets nobody through without another authentication.
    ProxyRefused,
    /// The URL leads elsewhere; not followed.
    Redirected,
    /// The row's token refers to something that a row may not refer to.
    TokenReferenceRefused,
    /// What the row's token refers to cannot be had.
    TokenUnavailable,
    /// The token or the device signature was not accepted.
    Unauthorized,
    /// An operator has to approve our device first.
    PairingRequired,
    /// A scope that we need was not granted.
    MissingScope,
    /// No protocol that both sides speak.
    IncompatibleProtocol,
    /// It is a gateway that this controller cannot provision: a call that is needed is missing, or agents are kept in a way that
    /// is not known.
    UnsupportedGateway,
    /// No answer within the deadline.
    Timeout,
    /// The connection ended.
    ConnectionClosed,
    /// The connection ended because the gateway restarts.
    Restarting,
    /// The gateway cannot serve at present.
    Unavailable,
    /// Too many requests of a kind.
    RateLimited,
    /// Somebody else wrote first: read again, then decide anew.
    Conflict,
    /// The agent, session or path does not exist.
    NotFound,
    /// The gateway does not take a file of this name.
    UnsupportedFile,
    /// The gateway says that the request is wrong.
    Invalid,
    /// The gateway sent something that makes no sense.
    ProtocolError,
    /// The gateway sent a frame larger than we take.
    FrameTooLarge,
    /// Anything else.
    Other,
}

impl ErrorClass {
    /// The CamelCase word for conditions and for the metrics' `outcome` label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotConfigured => "NotConfigured",
            Self::InvalidUrl => "InvalidUrl",
            Self::DnsFailed => "DnsFailed",
            Self::ConnectionRefused => "ConnectionRefused",
            Self::TcpFailed => "TcpFailed",
            Self::TlsFailed => "TlsFailed",
            Self::HandshakeFailed => "HandshakeFailed",
            Self::ProxyUnavailable => "ProxyUnavailable",
            Self::ProxyRefused => "ProxyRefused",
            Self::Redirected => "Redirected",
            Self::TokenReferenceRefused => "TokenReferenceRefused",
            Self::TokenUnavailable => "TokenUnavailable",
            Self::Unauthorized => "Unauthorized",
            Self::PairingRequired => "PairingRequired",
            Self::MissingScope => "MissingScope",
            Self::IncompatibleProtocol => "IncompatibleProtocol",
            Self::UnsupportedGateway => "UnsupportedGateway",
            Self::Timeout => "Timeout",
            Self::ConnectionClosed => "ConnectionClosed",
            Self::Restarting => "Restarting",
            Self::Unavailable => "Unavailable",
            Self::RateLimited => "RateLimited",
            Self::Conflict => "Conflict",
            Self::NotFound => "NotFound",
            Self::UnsupportedFile => "UnsupportedFile",
            Self::Invalid => "Invalid",
            Self::ProtocolError => "ProtocolError",
            Self::FrameTooLarge => "FrameTooLarge",
            Self::Other => "Other",
        }
    }

    /// What a person can do about it; empty where the message says it all.
    fn advice(self) -> &'static str {
        match self {
            Self::NotConfigured | Self::Conflict | Self::NotFound | Self::Other => "",
            Self::InvalidUrl => "Set the gateway's URL to ws://host:port or wss://host:port.",
            Self::DnsFailed => "Check the host name in the gateway's URL and the resolver.",
            Self::ConnectionRefused => "Check that the gateway is running and that host and port are right.",
            Self::TcpFailed => "Check the network and the firewall between the controller and the gateway.",
            Self::TlsFailed => {
                "Check that the port speaks TLS, and the certificate; one of a private CA needs --gateway-ca-file, or else allow_insecure_tls in the gateway's row."
            }
            Self::HandshakeFailed => "Check that the URL leads to an OpenClaw gateway.",
            Self::ProxyUnavailable => {
                "Check that the gateway is running and that the proxy before it is told the right address. It will be tried again."
            }
            Self::ProxyRefused => {
                "This is not about the gateway's token: let the proxy before it pass WebSockets from this address without a login of its own."
            }
            Self::Redirected => "Put the URL that it points to into the gateway's row, with ws:// or wss://.",
            Self::TokenReferenceRefused => {
                "A row's token may refer to env:OPENCLAW_GATEWAY_TOKEN_<NAME> or to file:<path> below --gateway-token-dir, and to nothing else."
            }
            Self::TokenUnavailable => "It is looked for again at the next attempt.",
            Self::Unauthorized => {
                "Put the gateway's current token into its row; it is gateway.auth.token in its config."
            }
            Self::PairingRequired => {
                "Approve the controller's device on the gateway's host: `openclaw devices list`, then `openclaw devices approve <id>`."
            }
            Self::MissingScope => "Approve the controller's device with the scope operator.admin.",
            Self::IncompatibleProtocol => "This controller speaks the protocols 3 and 4: upgrade the older of the two.",
            Self::UnsupportedGateway => {
                "Upgrade the gateway or the controller, whichever is older: docs/gateways.md says which versions go together."
            }
            Self::Timeout | Self::ConnectionClosed | Self::Restarting | Self::Unavailable | Self::RateLimited => {
                "It will be tried again."
            }
            Self::UnsupportedFile => "The gateway has no such workspace file.",
            Self::Invalid => "The same request would be refused again: correct what the message names.",
            Self::ProtocolError => "Check that the URL leads to an OpenClaw gateway, and its version.",
            Self::FrameTooLarge => "The connection was closed; look for what makes the gateway's answer so large.",
        }
    }
}

/// A failed call to a gateway. `Display` is for people and says what to do next; no secret is ever in it.
#[derive(Clone)]
pub struct GatewayError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    class: ErrorClass,
    /// What happened, without advice; cleaned of control characters and bounded.
    message: String,
    /// The call that failed and the object it was about.
    call: Option<String>,
    /// The gateway's own `code`, and `details.code` where there is one.
    code: Option<String>,
    retryable: bool,
    retry_after: Option<Duration>,
    outcome_unknown: bool,
    /// Paths in the config that the gateway refused, and why.
    issues: Vec<(String, String)>,
    /// What to do next, where it is not what the class says.
    advice: Option<Cow<'static, str>>,
}

impl GatewayError {
    /// An error of this class, told in these words.
    pub fn new(class: ErrorClass, message: impl AsRef<str>) -> Self {
        Self(Box::new(Inner {
            class,
            message: clean(message.as_ref()),
            call: None,
            code: None,
            retryable: false,
            retry_after: None,
            outcome_unknown: false,
            issues: Vec::new(),
            advice: None,
        }))
    }

    /// An answer that makes no sense.
    pub(super) fn protocol(message: impl AsRef<str>) -> Self {
        Self::new(ErrorClass::ProtocolError, message)
    }

    /// The error that a gateway's `error` object stands for.
    ///
    /// Codes decide where there are any; the gateways measured answer nearly everything with `INVALID_REQUEST`, so that
    /// the text has to tell the rest.
    pub fn from_response(error: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let details = error.get("details").unwrap_or(&Value::Null);
        let code = text(error, "code").unwrap_or_default();
        let detail_code = text(details, "code").unwrap_or_default();
        let retryable = error.get("retryable").and_then(Value::as_bool).unwrap_or(false);
        let mut message = text(error, "message").unwrap_or_else(|| "the gateway gave no message".to_owned());
        let class = classify(&code, &detail_code, details, &message, retryable);
        message.push_str(&issues(&message, details));
        if let Some(protocol) = details.get("expectedProtocol").and_then(Value::as_u64) {
            message = format!("{message}: the gateway speaks protocol {protocol}");
        }
        if let Some(request) = text(details, "requestId").filter(|request| !message.contains(request.as_str())) {
            message.push_str(" (pairing request ");
            message.push_str(&request);
            message.push(')');
        }
        let mut this = Self::new(class, message);
        this.0.code = match (code.is_empty(), detail_code.is_empty()) {
            (true, true) => None,
            (false, true) => Some(clean(&code)),
            (_, false) => Some(clean(&detail_code)),
        };
        this.0.advice = advice(class, &detail_code, details);
        this.0.retryable = retryable;
        this.0.issues = refused_paths(details);
        this.0.retry_after = error.get("retryAfterMs").and_then(Value::as_f64).and_then(milliseconds);
        this
    }

    /// Says which call failed, and about what.
    #[must_use]
    pub(super) fn during(mut self, call: impl Into<String>) -> Self {
        self.0.call.get_or_insert_with(|| call.into());
        self
    }

    /// Says what the call was about: an agent, a file, a session.
    #[must_use]
    pub(super) fn about(mut self, object: &str) -> Self {
        if let Some(call) = &mut self.0.call {
            call.push_str(" (");
            call.push_str(object);
            call.push(')');
        }
        self
    }

    /// Says whether the call may have taken effect all the same.
    #[must_use]
    pub(super) fn with_outcome_unknown(mut self, unknown: bool) -> Self {
        self.0.outcome_unknown = unknown;
        self
    }

    /// Says how long to wait at least.
    #[must_use]
    pub(super) fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.0.retry_after = self.0.retry_after.or(after);
        self
    }

    /// Says whether it may pass by itself.
    #[must_use]
    pub(super) fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Says what to do next, where that is not what the class says.
    #[must_use]
    pub(super) fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Takes a secret out of the message, should the other side have echoed it.
    #[must_use]
    pub(super) fn without(mut self, secret: Option<&str>) -> Self {
        if let Some(secret) = secret.filter(|secret| !secret.is_empty() && self.0.message.contains(secret)) {
            self.0.message = self.0.message.replace(secret, "[redacted]");
        }
        self
    }

    /// What kind of failure it is.
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// The CamelCase word for a condition.
    pub fn reason(&self) -> &'static str {
        self.0.class.reason()
    }

    /// What happened, without the call and without advice.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The gateway's code for it (the more specific one), if it came from the gateway.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The paths in the config that the gateway refused, each with its reason, where it named any.
    pub fn issues(&self) -> &[(String, String)] {
        &self.0.issues
    }

    /// How long the gateway asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the request was a write that may have taken effect although no answer came: read back before repeating it.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// Whether somebody has been asked to let this controller's device in, and may do so at any time.
    pub fn awaits_approval(&self) -> bool {
        self.0.class == ErrorClass::PairingRequired && matches!(self.code(), Some("PAIRING_REQUIRED" | "NOT_PAIRED"))
    }

    /// Whether the same call may well succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self.0.class {
            ErrorClass::DnsFailed
            | ErrorClass::ConnectionRefused
            | ErrorClass::TcpFailed
            | ErrorClass::ProxyUnavailable
            | ErrorClass::Timeout
            | ErrorClass::ConnectionClosed
            | ErrorClass::Restarting
            | ErrorClass::Unavailable
            | ErrorClass::RateLimited
            | ErrorClass::Conflict => true,
            ErrorClass::Unauthorized
            | ErrorClass::PairingRequired
            | ErrorClass::MissingScope
            | ErrorClass::TokenReferenceRefused
            | ErrorClass::TokenUnavailable
            | ErrorClass::UnsupportedFile
            | ErrorClass::Invalid => false,
            _ => self.0.retryable,
        }
    }
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(call) = &self.0.call {
            write!(f, "{call}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(code) = &self.0.code {
            write!(f, " [{code}]")?;
        }
        if !self.0.message.ends_with(['.', '!', '?']) || self.0.code.is_some() {
            f.write_str(".")?;
        }
        if let Some(after) = self.0.retry_after {
            write!(f, " The gateway asks to wait {:.1} s.", after.as_secs_f64())?;
        }
        if self.0.outcome_unknown {
            f.write_str(" Whether it took effect is not known until it is read back.")?;
        }
        let advice = self.0.advice.as_deref().unwrap_or_else(|| self.0.class.advice());
        if !advice.is_empty() {
            write!(f, " {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayError({}: {self})", self.reason())
    }
}

impl std::error::Error for GatewayError {}

/// A number of milliseconds from the wire; nonsense is no number. At most a day.
pub(super) fn milliseconds(value: f64) -> Option<Duration> {
    (value.is_finite() && value >= 0.0).then(|| Duration::from_secs_f64((value / 1000.0).min(86_400.0)))
}

/// The refused paths of `details.issues`, each with its reason.
fn refused_paths(details: &Value) -> Vec<(String, String)> {
    const MOST: usize = 1000;
    let text = |issue: &Value, key: &str| issue.get(key).and_then(Value::as_str).map(clean);
    let issues = details
        .get("issues")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    issues
        .iter()
        .take(MOST)
        .filter_map(|issue| Some((text(issue, "path")?, text(issue, "message")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_message_names_every_issue_the_code_the_wait_and_what_to_do() {
        let error = GatewayError::from_response(&json!({
            "code": "UNAVAILABLE", "message": "rate limit exceeded", "retryable": true, "retryAfterMs": 1500,
            "details": {"issues": [{"path": "a.b", "message": "no"}, {"path": "c", "message": "nor this"}]}
        }))
        .during("config.patch");
        assert_eq!(
            error.to_string(),
            "config.patch: rate limit exceeded; a.b: no; c: nor this [UNAVAILABLE]. The gateway asks to wait 1.5 s. \
             It will be tried again."
        );
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        assert_eq!(error.code(), Some("UNAVAILABLE"));
    }

    #[test]
    fn an_echoed_secret_is_taken_out() {
        let error = GatewayError::new(ErrorClass::Other, "bad token s3cret!").without(Some("s3cret"));
        assert_eq!(error.message(), "bad token [redacted]!");
    }

    #[test]
    fn a_wait_that_makes_no_sense_is_no_wait() {
        for (value, expected) in [
            (-1.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (0.5, Some(Duration::from_micros(500))),
            (1e300, Some(Duration::from_hours(24))),
        ] {
            assert_eq!(milliseconds(value), expected, "{value}");
        }
    }
}
