//! From a gateway's row to an open WebSocket.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};

use super::client::Client;
use super::connection::MAX_INCOMING;
use super::device::DeviceIdentity;
use super::device_tokens::{DeviceTokens, Key};
use super::endpoint::{Endpoint, dial};
use super::error::{ErrorClass, GatewayError};
use super::handshake::{CONNECT_DEADLINE, Credential, ROLE, Welcome, negotiate};
use super::metrics::RpcMetrics;
use super::reference::TokenReferences;
use super::tls::{self, Trust};
use crate::model::{GatewayId, GatewayRow};

/// Where a gateway is and how to show oneself there. `Debug` shows neither the token nor the URL's query.
#[derive(Clone)]
pub struct Target {
    /// Which gateway it is, for logs.
    pub gateway: GatewayId,
    /// `ws://` or `wss://`; as it stands in the row, so it may be blank or malformed.
    pub url: String,
    /// The gateway's token, or where it is, as the row says.
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
    trust: Trust,
    references: TokenReferences,
    device_tokens: DeviceTokens,
}

impl WebSocketConnector {
    /// A connector that shows itself to gateways by this identity, trusts whom the platform trusts, and keeps nothing.
    pub fn new(identity: Arc<DeviceIdentity>, metrics: RpcMetrics) -> Self {
        Self {
            identity,
            metrics,
            trust: Trust::default(),
            references: TokenReferences::default(),
            device_tokens: DeviceTokens::default(),
        }
    }

    /// With other words about whose certificates count.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// With a place where tokens are that rows refer to.
    #[must_use]
    pub fn resolving(mut self, references: TokenReferences) -> Self {
        self.references = references;
        self
    }

    /// Keeping the tokens that gateways issue to its device beside the file of its identity.
    #[must_use]
    pub fn keeping_device_tokens_beside(mut self, identity: &Path) -> Self {
        self.device_tokens = DeviceTokens::beside(identity);
        self
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
                self.trust.verified().await?
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

    /// One connection with one credential.
    async fn attempt(&self, target: &Target, credential: Credential, until: Instant) -> Result<Welcome, GatewayError> {
        let stream = self.open(target, until).await?;
        negotiate(stream, target, &credential, &self.identity, self.metrics.clone()).await
    }

    /// Connects with the token that the gateway issued to our device, if there is one, and else, or if that is refused, with the
    /// row's. So there are two connections at most. Returns what is to be kept as well.
    async fn enter(&self, target: &Target, until: Instant) -> Result<(Client, Option<Issued>), GatewayError> {
        let token = self.references.resolve(target.token.as_ref()).await?;
        if target.disable_device_pairing {
            // Without a device there are no tokens of it.
            let welcome = self.attempt(target, Credential::shared(token), until).await?;
            return Ok((welcome.client, None));
        }
        let key = Key::new(target, ROLE, self.identity.id(), token.as_ref());
        if let Some(issued) = self.device_tokens.find(&key).await {
            match self.attempt(target, Credential::device(issued.clone()), until).await {
                Ok(welcome) => {
                    let issued = welcome.device_token.map(|token| (key, Some(token)));
                    return Ok((welcome.client, issued));
                }
                Err(error) if refuses_token(&error) => {
                    tracing::warn!(
                        gateway = %target.gateway, %error,
                        "the gateway does not take the token that it issued to this device any more; it is shown the row's token"
                    );
                    self.device_tokens.forget(&key, &issued).await;
                }
                // That another kind of token is tried too often says nothing of this one. (A proxy's limit is for both.)
                Err(error) if error.code() == Some("AUTH_RATE_LIMITED") => {}
                Err(error) => return Err(error),
            }
        }
        let welcome = self.attempt(target, Credential::shared(token), until).await?;
        Ok((welcome.client, Some((key, welcome.device_token))))
    }
}

/// What a gateway has issued to this device; `None` if nothing, so that what was there before is not shown again.
type Issued = (Key, Option<SecretString>);

impl Connector for WebSocketConnector {
    async fn connect(&self, target: &Target) -> Result<Client, GatewayError> {
        let started = Instant::now();
        let until = started + CONNECT_DEADLINE;
        let result = match timeout_at(until, self.enter(target, until)).await {
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
        let (client, issued) = result.map_err(|error| error.during("connect"))?;
        if let Some((key, issued)) = issued {
            // The gateway has let us in: a slow disk is no reason to say that it did not.
            self.device_tokens.keep(&key, issued.as_ref()).await;
        }
        Ok(client)
    }
}

/// Whether a gateway refuses the token that it was shown, rather than the device or its signature.
fn refuses_token(error: &GatewayError) -> bool {
    matches!(error.class(), ErrorClass::Unauthorized | ErrorClass::MissingScope)
        && !error.code().is_some_and(|code| code.starts_with("DEVICE_AUTH_"))
}

/// The limits that every WebSocket to a gateway has; a frame beyond them is refused before memory is taken for it.
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_INCOMING))
        .max_frame_size(Some(MAX_INCOMING))
}

#[cfg(test)]
mod tests {
    use super::*;

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
