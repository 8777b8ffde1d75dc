//! How gateways are connected to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::gateway::{DeviceIdentity, RpcMetrics, TokenReferences, Trust, WebSocketConnector};

/// How gateways are connected to, for the commands that do.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectionArgs {
    /// PEM file of certificates of private CAs that sign gateways' certificates, trusted besides the platform's.
    ///
    /// Read anew at every connection, so that it can be replaced while the controller runs.
    #[arg(long, env = "OPENCLAW_CONTROLLER_GATEWAY_CA_FILE", value_name = "FILE")]
    pub gateway_ca_file: Option<PathBuf>,

    /// Directory of files that hold gateways' tokens: a gateway's row whose token is `file:<path>` means the file of that path in here.
    ///
    /// A row may also say `env:OPENCLAW_GATEWAY_TOKEN_<NAME>`, which needs no flag; whatever else begins with `file:` or `env:` is
    /// refused. Files are read anew at every connection.
    #[arg(long, env = "OPENCLAW_CONTROLLER_GATEWAY_TOKEN_DIR", value_name = "DIR")]
    pub gateway_token_dir: Option<PathBuf>,
}

impl ConnectionArgs {
    /// What connects so, as the device whose key is in this file; tokens that gateways issue to it are kept beside it.
    ///
    /// # Errors
    /// The key, the CA file or the directory of tokens cannot be used.
    pub fn connector(&self, identity: &Path, metrics: RpcMetrics) -> anyhow::Result<WebSocketConnector> {
        let device = Arc::new(DeviceIdentity::load_or_create(identity)?);
        let mut connector = WebSocketConnector::new(device, metrics).keeping_device_tokens_beside(identity);
        if let Some(path) = &self.gateway_ca_file {
            connector = connector.trusting(Trust::with_ca_file(path)?);
        }
        if let Some(path) = &self.gateway_token_dir {
            connector = connector.resolving(TokenReferences::below(path)?);
        }
        Ok(connector)
    }
}
