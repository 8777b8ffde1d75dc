//! How gateways are connected to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use crate::gateway::{DeviceIdentity, RpcMetrics, TokenReferences, Trust, WebSocketConnector};

/// How gateways are connected to, for the commands that do.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectionArgs {
    /// File of the Ed25519 key by which gateways know this controller; made, with mode 0600, if it does not exist.
    ///
    /// Defaults to device.json in $STATE_DIRECTORY, in /var/lib/openclaw-controller (for root), or in
    /// ~/.local/state/openclaw-controller.
    #[arg(long, env = "OPENCLAW_CONTROLLER_DEVICE_IDENTITY", value_name = "FILE")]
    pub device_identity: Option<PathBuf>,

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
    /// What connects so, as the device whose key this is; tokens that gateways issue to it are kept beside the key.
    ///
    /// # Errors
    /// The key, the CA file or the directory of tokens cannot be used.
    pub fn connector(&self, metrics: RpcMetrics) -> anyhow::Result<WebSocketConnector> {
        let identity = self.device_identity()?;
        let device = Arc::new(DeviceIdentity::load_or_create(&identity)?);
        let mut connector = WebSocketConnector::new(device, metrics).keeping_device_tokens_beside(&identity);
        if let Some(path) = &self.gateway_ca_file {
            connector = connector.trusting(Trust::with_ca_file(path)?);
        }
        if let Some(path) = &self.gateway_token_dir {
            connector = connector.resolving(TokenReferences::below(path)?);
        }
        Ok(connector)
    }

    /// Where the device's key is kept: where it was said, or else where this machine keeps such things.
    ///
    /// # Errors
    /// Nothing was said, and there is no home directory.
    pub fn device_identity(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.device_identity {
            return Ok(path.clone());
        }
        let var = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let directory = match (var("STATE_DIRECTORY"), var("HOME")) {
            (Some(state), _) => state,
            (None, Some(home)) if home.as_path() != Path::new("/root") => var("XDG_STATE_HOME")
                .unwrap_or_else(|| home.join(".local/state"))
                .join("openclaw-controller"),
            (None, Some(_)) => PathBuf::from("/var/lib/openclaw-controller"),
            (None, None) => bail!("HOME is not set; say with --device-identity where the device's key is to be kept"),
        };
        Ok(directory.join("device.json"))
    }
}
