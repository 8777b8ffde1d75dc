//! A gateway's URL: what may be in it, how it is dialled, and what a failure on the way means.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::{LOCATION, ORIGIN, RETRY_AFTER};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use url::{Host, Url};

use super::connection::broken;
use super::error::{ErrorClass, GatewayError};

/// A usable URL, taken apart.
pub(super) struct Endpoint {
    url: Url,
    host: Host<String>,
    port: u16,
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, GatewayError> {
        let text = text.trim();
        if text.is_empty() {
            let message = "Gateway URL is not configured for this gateway.";
            return Err(GatewayError::new(ErrorClass::NotConfigured, message));
        }
        // The URL itself is not repeated: its query may hold a token.
        let invalid = |why: &str| {
            Err(GatewayError::new(
                ErrorClass::InvalidUrl,
                format!("the gateway's URL {why}"),
            ))
        };
        let mut url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return invalid(&format!("is malformed ({error})")),
        };
        let tls = match url.scheme() {
            "ws" => false,
            "wss" => true,
            other => return invalid(&format!("has the scheme \"{other}\", not ws or wss")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("holds a user name or password, which gateways do not take");
        }
        url.set_fragment(None);
        let Some(host) = url.host().map(|host| host.to_owned()) else {
            return invalid("names no host");
        };
        let Some(port) = url.port_or_known_default().filter(|port| *port != 0) else {
            return invalid("names no port");
        };
        Ok(Self { url, host, port, tls })
    }

    /// Scheme, host and port: what may be shown.
    pub(super) fn shown(&self) -> String {
        format!("{}://{}:{}", self.url.scheme(), self.host, self.port)
    }

    /// The request that asks for a WebSocket, with the URL's path and query.
    pub(super) fn request(&self, control_ui: bool) -> Result<Request, GatewayError> {
        let invalid = |_| {
            GatewayError::new(
                ErrorClass::InvalidUrl,
                "the gateway's URL cannot be used in a WebSocket request",
            )
        };
        let mut request = self.url.as_str().into_client_request().map_err(invalid)?;
        if control_ui {
            // What a browser would send: gateways take a control UI only from their own origin.
            let scheme = if self.tls { "https" } else { "http" };
            let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let origin = HeaderValue::try_from(format!("{scheme}://{}{port}", self.host));
            request
                .headers_mut()
                .insert(ORIGIN, origin.map_err(|error| invalid(error.into()))?);
        }
        Ok(request)
    }

    /// Whom the server's certificate has to name.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, GatewayError> {
        Ok(match &self.host {
            Host::Ipv4(ip) => ServerName::IpAddress((*ip).into()),
            Host::Ipv6(ip) => ServerName::IpAddress((*ip).into()),
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|_| {
                let message = format!("the gateway's URL names the host {name}, for which there can be no certificate");
                GatewayError::new(ErrorClass::InvalidUrl, message)
            })?,
        })
    }

    /// What a failed TLS handshake means. A server that does not speak TLS may as well hang up as answer something else.
    pub(super) fn tls_error(&self, error: &io::Error) -> GatewayError {
        let at = self.shown();
        let message = format!("the TLS handshake with {at} failed: {error}");
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let told = GatewayError::new(ErrorClass::TlsFailed, message).with_retryable(tls.is_none());
        match tls.and_then(certificate_advice) {
            Some(advice) => told.with_advice(advice),
            None => told,
        }
    }

    /// What a failed WebSocket handshake means.
    pub(super) fn upgrade_error(&self, error: &WsError) -> GatewayError {
        let at = self.shown();
        match error {
            WsError::Http(response) => answered(&at, response),
            WsError::Io(_) | WsError::ConnectionClosed => broken(error).to_error(false),
            other => GatewayError::new(
                ErrorClass::HandshakeFailed,
                format!("{at} did not open a WebSocket: {other}"),
            )
            // It hung up, as one does that is just starting.
            .with_retryable(matches!(other, WsError::Protocol(ProtocolError::HandshakeIncomplete))),
        }
    }
}

/// What to do about a certificate that was not accepted.
fn certificate_advice(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::InvalidCertificate(why) = error else {
        return None;
    };
    match why {
        CertificateError::UnknownIssuer => Some(
            "Nobody who is trusted here has signed its certificate: put its CA's certificate into the file of --gateway-ca-file. \
             (With allow_insecure_tls in the gateway's row it would not be checked at all.)",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("Its certificate is for other names: use one of them in the gateway's URL, or have one made for this.")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("Renew its certificate, or check the clock of this machine.")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("Its certificate is not valid yet: check the clocks of both machines.")
        }
        _ => None,
    }
}

/// What an HTTP answer in the place of a WebSocket means. Gateways answer so only when they have too many visitors or are about
/// to start, so that it is nearly always somebody between them and us who speaks.
fn answered(at: &str, response: &Response) -> GatewayError {
    let status = response.status();
    let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let wait = header(RETRY_AFTER)
        .and_then(|seconds| seconds.trim().parse().ok())
        .map(|seconds: u64| Duration::from_secs(seconds.min(300)));
    let (class, what) = match status.as_u16() {
        502..=504 => (
            ErrorClass::ProxyUnavailable,
            "it cannot reach the gateway, or the gateway cannot take connections".to_owned(),
        ),
        401 | 403 | 407 => (
            ErrorClass::ProxyRefused,
            "it did not let the request through to the gateway".to_owned(),
        ),
        300..=399 => {
            // Of where it points to no more is shown than of our own URL.
            let to = header(LOCATION).and_then(|to| Url::parse(to).ok()).map(|to| {
                let to = to.origin().ascii_serialization();
                format!("it points to {to}, which is not followed, since the token would go there")
            });
            let to = to.unwrap_or_else(|| "redirections are not followed, since the token would go there".to_owned());
            (ErrorClass::Redirected, to)
        }
        429 => (
            ErrorClass::RateLimited,
            "too many connections came from this address".to_owned(),
        ),
        _ => {
            let message = format!("{at} answered HTTP {status} instead of opening a WebSocket");
            return GatewayError::new(ErrorClass::HandshakeFailed, message);
        }
    };
    let message = format!("{at} answered HTTP {status} instead of opening a WebSocket: {what}");
    GatewayError::new(class, message).with_retry_after(wait)
}

/// Opens a TCP connection to the first address that answers; each gets its share of the time that is left.
pub(super) async fn dial(endpoint: &Endpoint, until: Instant) -> Result<TcpStream, GatewayError> {
    let addresses = resolve(endpoint, until).await?;
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
        let error = match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and wait for their answers: Nagle's algorithm would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%address, %error, "cannot disable Nagle's algorithm");
                }
                return Ok(stream);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => GatewayError::new(
                ErrorClass::ConnectionRefused,
                format!("{address} refused the connection"),
            ),
            Ok(Err(error)) => GatewayError::new(ErrorClass::TcpFailed, format!("cannot connect to {address}: {error}")),
            Err(_) => GatewayError::new(
                ErrorClass::Timeout,
                format!(
                    "{address} did not accept a connection within {:.1} s",
                    share.as_secs_f64()
                ),
            ),
        };
        last = Some(error);
    }
    Err(last.unwrap_or_else(|| {
        GatewayError::new(
            ErrorClass::DnsFailed,
            format!("the host {} has no address", endpoint.host),
        )
    }))
}

async fn resolve(endpoint: &Endpoint, until: Instant) -> Result<Vec<SocketAddr>, GatewayError> {
    let name = match &endpoint.host {
        Host::Ipv4(ip) => return Ok(vec![(*ip, endpoint.port).into()]),
        Host::Ipv6(ip) => return Ok(vec![(*ip, endpoint.port).into()]),
        Host::Domain(name) => name,
    };
    match timeout_at(until, lookup_host((name.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(GatewayError::new(
            ErrorClass::DnsFailed,
            format!("cannot resolve the host {name}: {error}"),
        )),
        Err(_) => Err(GatewayError::new(
            ErrorClass::DnsFailed,
            format!("the resolver did not answer for the host {name}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_urls_pass_and_none_is_repeated_in_an_error() {
        let check = |url: &str, expected: Result<&str, ErrorClass>| match (Endpoint::parse(url), expected) {
            (Ok(endpoint), Ok(shown)) => assert_eq!(endpoint.shown(), shown, "{url}"),
            (Err(error), Err(class)) => {
                assert_eq!(error.class(), class, "{url}");
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
            (Ok(_), Err(class)) => panic!("{url} should be {class:?}"),
            (Err(error), Ok(_)) => panic!("{url}: {error}"),
        };
        check("ws://127.0.0.1:18789", Ok("ws://127.0.0.1:18789"));
        check(" wss://gw.example/path?token=s3cret#x ", Ok("wss://gw.example:443"));
        check("ws://[::1]:5", Ok("ws://[::1]:5"));
        check("", Err(ErrorClass::NotConfigured));
        check("  ", Err(ErrorClass::NotConfigured));
        check("not a url s3cret", Err(ErrorClass::InvalidUrl));
        check("http://host?token=s3cret", Err(ErrorClass::InvalidUrl));
        check("ws://", Err(ErrorClass::InvalidUrl));
        check("ws://user:s3cret@host", Err(ErrorClass::InvalidUrl));
        check("ws://host:99999", Err(ErrorClass::InvalidUrl));
        check("ws://host:0", Err(ErrorClass::InvalidUrl));
    }

    #[test]
    fn a_control_ui_comes_from_the_gateways_own_origin() {
        let origin = |url: &str, control_ui| {
            let request = Endpoint::parse(url).unwrap().request(control_ui).unwrap();
            request
                .headers()
                .get(ORIGIN)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(origin("ws://h:18789/x", true).as_deref(), Some("http://h:18789"));
        assert_eq!(origin("wss://h", true).as_deref(), Some("https://h"));
        assert_eq!(origin("wss://h", false), None);
    }
}
