//! The demo's gateway: simulated or real.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::lab::{Options, RealGateway};
use crate::sim::{SimDialect, SimGateway, SimServer};

/// The gateway that the demo's rows name.
pub(super) enum DemoGateway {
    /// A simulated one in this process.
    Sim {
        /// Its state.
        gateway: SimGateway,
        /// Its port.
        server: SimServer,
        /// Its shared secret.
        token: String,
    },
    /// A real one.
    Real(Box<RealGateway>),
}

impl DemoGateway {
    /// Starts `sim`, or this version of OpenClaw.
    pub(super) async fn start(kind: &str) -> Result<Self> {
        if kind != "sim" {
            let gateway = RealGateway::start(kind, Options::default()).await?;
            return Ok(Self::Real(Box::new(gateway)));
        }
        let token = Uuid::new_v4().simple().to_string();
        let gateway = SimGateway::new(SimDialect::V2026_9_6, &token);
        let server = gateway
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .context("the simulated gateway cannot listen on 127.0.0.1")?;
        Ok(Self::Sim { gateway, server, token })
    }

    /// The URL of its WebSocket.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sim { server, .. } => server.url(),
            Self::Real(gateway) => gateway.url(),
        }
    }

    /// Its shared secret.
    pub(super) fn token(&self) -> &str {
        match self {
            Self::Sim { token, .. } => token,
            Self::Real(gateway) => gateway.token(),
        }
    }

    /// Where its agents' workspaces belong.
    pub(super) fn workspace_root(&self) -> String {
        match self {
            Self::Sim { .. } => "/demo/workspaces".to_owned(),
            Self::Real(gateway) => gateway.workspace_root().display().to_string(),
        }
    }

    /// Begins to watch: what is there now is not news.
    pub(super) fn watch(&self) -> Watch {
        let mut watch = Watch::default();
        watch.news(self);
        watch
    }
}

/// What the demo has already said about its gateway.
#[derive(Default)]
pub(super) struct Watch {
    entries: usize,
    files: BTreeMap<PathBuf, SystemTime>,
}

impl Watch {
    /// What was written on the gateway since the last call, a line each. Never any content: the files hold tokens.
    pub(super) fn news(&mut self, gateway: &DemoGateway) -> Vec<String> {
        match gateway {
            DemoGateway::Sim { gateway, .. } => {
                let journal = gateway.journal();
                let new = journal.iter().skip(self.entries).filter(|entry| entry.write);
                let lines = new.map(|entry| format!("{} {}", entry.method, entry.summary)).collect();
                self.entries = journal.len();
                lines
            }
            DemoGateway::Real(gateway) => {
                let now = workspace_files(&gateway.workspace_root());
                let changed = now.iter().filter(|(path, time)| self.files.get(*path) != Some(*time));
                let gone = self.files.keys().filter(|path| !now.contains_key(*path));
                let lines = changed
                    .map(|(path, _)| format!("written: {}", path.display()))
                    .chain(gone.map(|path| format!("deleted: {}", path.display())))
                    .collect();
                self.files = now;
                lines
            }
        }
    }
}

/// The Markdown files of all workspaces; a directory that cannot be read has none.
fn workspace_files(root: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries(root)
        .flat_map(|workspace| entries(&workspace.path()).collect::<Vec<_>>())
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "md"))
        .filter_map(|file| Some((file.path(), file.metadata().ok()?.modified().ok()?)))
        .collect()
}
