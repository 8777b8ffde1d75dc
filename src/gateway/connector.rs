//! From a gateway's row to an open WebSocket.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::SecretString;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header::ORIGIN};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};
use url::{Host, Url};

use super::client::Client;
use super::connection::{MAX_INCOMING, broken};
use super::device::DeviceIdentity;
use super::error::{ErrorClass, GatewayError};
use super::handshake::{CONNECT_DEADLINE, negotiate};
use super::metrics::RpcMetrics;
use super::tls;
use crate::model::{GatewayId, GatewayRow};

/// Where a gateway is and how to show oneself there. `Debug` shows neither the token nor the URL's query.
#[derive(Clone)]
pub struct Target {
    /// Which gateway it is, for logs.
    pub gateway: GatewayId,
    /// `ws://` or `wss://`; as it stands in the row, so it may be blank or malformed.
    pub url: String,
    /// The gateway's token.
    pub token: Option<SecretString>,
    /// Connect as a control UI, without a device identity.
    pub disable_device_pairing: bool,
    /// Accept any TLS certificate.
    pub allow_insecure_tls: bool,
}

impl Target {
    /// The target that a gateway's row describes.
    pub fn of(row: &GatewayRow) -> Self {
        Self {
            gateway: row.id,
            url: row.url.clone(),
            token: row.token.clone(),
            disable_device_pairing: row.disable_device_pairing,
            allow_insecure_tls: row.allow_insecure_tls,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Endpoint::parse(&self.url).map_or_else(|_| "(unusable)".to_owned(), |endpoint| endpoint.shown());
        f.debug_struct("Target")
            .field("gateway", &self.gateway)
            .field("url", &url)
            .field("token", &self.token.as_ref().map(|_| "[redacted]"))
            .field("disable_device_pairing", &self.disable_device_pairing)
            .field("allow_insecure_tls", &self.allow_insecure_tls)
            .finish()
    }
}

/// What opens connections to gateways: the real one, or a simulation.
pub trait Connector: Send + Sync + 'static {
    /// Connects, once, within [`CONNECT_DEADLINE`].
    fn connect(&self, target: &Target) -> impl Future<Output = Result<Client, GatewayError>> + Send;
}

/// Connects over TCP, and TLS for `wss://`.
pub struct WebSocketConnector {
    identity: Arc<DeviceIdentity>,
    metrics: RpcMetrics,
    /// The platform's root certificates, loaded when first needed.
    verified: OnceCell<Arc<ClientConfig>>,
}

impl WebSocketConnector {
    /// A connector that shows itself to gateways by this identity.
    pub fn new(identity: Arc<DeviceIdentity>, metrics: RpcMetrics) -> Self {
        Self {
            identity,
            metrics,
            verified: OnceCell::new(),
        }
    }

    async fn open(
        &self,
        target: &Target,
        until: Instant,
    ) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, GatewayError> {
        let endpoint = Endpoint::parse(&target.url)?;
        let tcp = dial(&endpoint, until).await?;
        let stream = if endpoint.tls {
            let config = if target.allow_insecure_tls {
                tracing::warn!(
                    gateway = %target.gateway,
                    "allow_insecure_tls is set: the gateway's certificate is NOT checked, so anybody between can read its token"
                );
                tls::unverified()?
            } else {
                Arc::clone(self.verified.get_or_try_init(tls::verified).await?)
            };
            let tls = TlsConnector::from(config).connect(endpoint.server_name()?, tcp).await;
            MaybeTlsStream::Rustls(tls.map_err(|error| endpoint.tls_error(&error))?)
        } else {
            MaybeTlsStream::Plain(tcp)
        };
        let request = endpoint.request(target.disable_device_pairing)?;
        client_async_with_config(request, stream, Some(websocket_config()))
            .await
            .map(|(stream, _)| stream)
            .map_err(|error| endpoint.upgrade_error(&error))
    }
}

impl Connector for WebSocketConnector {
    async fn connect(&self, target: &Target) -> Result<Client, GatewayError> {
        let started = Instant::now();
        let until = started + CONNECT_DEADLINE;
        let attempt = async {
            let stream = self.open(target, until).await?;
            negotiate(stream, target, &self.identity, self.metrics.clone()).await
        };
        let result = match timeout_at(until, attempt).await {
            Ok(result) => result,
            Err(_) => Err(GatewayError::new(
                ErrorClass::Timeout,
                format!(
                    "the gateway did not finish the handshake within {} s",
                    CONNECT_DEADLINE.as_secs()
                ),
            )),
        };
        let outcome = result.as_ref().map_or_else(GatewayError::reason, |_| "ok");
        self.metrics.record("connect", outcome, started.elapsed());
        result.map_err(|error| error.during("connect"))
    }
}

/// The limits that every WebSocket to a gateway has; a frame beyond them is refused before memory is taken for it.
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_INCOMING))
        .max_frame_size(Some(MAX_INCOMING))
}

/// A usable URL, taken apart.
struct Endpoint {
    url: Url,
    host: Host<String>,
    port: u16,
    tls: bool,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, GatewayError> {
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
    fn shown(&self) -> String {
        format!("{}://{}:{}", self.url.scheme(), self.host, self.port)
    }

    fn request(&self, control_ui: bool) -> Result<Request, GatewayError> {
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
    fn server_name(&self) -> Result<ServerName<'static>, GatewayError> {
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
    fn tls_error(&self, error: &io::Error) -> GatewayError {
        let at = self.shown();
        let message = format!("the TLS handshake with {at} failed: {error}");
        GatewayError::new(ErrorClass::TlsFailed, message).with_retryable(!is_tls(error))
    }

    /// What a failed WebSocket handshake means.
    fn upgrade_error(&self, error: &WsError) -> GatewayError {
        let at = self.shown();
        match error {
            WsError::Http(response) => {
                let status = response.status();
                let passing = [
                    StatusCode::BAD_GATEWAY,
                    StatusCode::SERVICE_UNAVAILABLE,
                    StatusCode::GATEWAY_TIMEOUT,
                ];
                GatewayError::new(
                    ErrorClass::HandshakeFailed,
                    format!("{at} answered HTTP {status} instead of opening a WebSocket"),
                )
                .with_retryable(passing.contains(&status))
            }
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

/// Whether an I/O error comes from TLS itself rather than from the connection below it.
fn is_tls(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some()
}

/// Opens a TCP connection to the first address that answers; each gets its share of the time that is left.
async fn dial(endpoint: &Endpoint, until: Instant) -> Result<TcpStream, GatewayError> {
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

    #[test]
    fn a_target_shows_neither_its_token_nor_its_query() {
        let target = Target {
            gateway: GatewayId(uuid::Uuid::nil()),
            url: "wss://h/?token=s3cret".to_owned(),
            token: Some("s3cret".into()),
            disable_device_pairing: false,
            allow_insecure_tls: false,
        };
        assert!(!format!("{target:?}").contains("s3cret"));
    }
}
