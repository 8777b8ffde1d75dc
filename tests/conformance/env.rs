//! The gateway under test, simulated or real.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openclaw_controller::gateway::{
    Client, Connector, DeviceIdentity, ErrorClass, GatewayError, PatchOutcome, RpcMetrics, Target, WebSocketConnector,
    probe,
};
use openclaw_controller::lab::{Options, RealGateway};
use openclaw_controller::model::{GatewayAgentId, GatewayId, ObservedConfig};
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::facts::Facts;

/// How long one call may take. Real gateways answer nothing for up to 22 s while an agent's run begins.
pub(crate) const CALL: Duration = Duration::from_mins(2);

/// How long a gateway may take to come back.
const BACK: Duration = Duration::from_mins(2);

/// How many agents wait for checks to use them.
const POOL: usize = 26;

/// A real gateway that all its checks share.
struct Shared {
    gateway: OnceCell<Arc<RealGateway>>,
    lock: RwLock<()>,
    taken: AtomicUsize,
}

impl Shared {
    const fn new() -> Self {
        Self {
            gateway: OnceCell::const_new(),
            lock: RwLock::const_new(()),
            taken: AtomicUsize::new(0),
        }
    }
}

static REAL: [Shared; 3] = [const { Shared::new() }; 3];

enum Server {
    Sim {
        _server: SimServer,
        lock: RwLock<()>,
        taken: AtomicUsize,
    },
    Shared(&'static Shared),
    Own {
        gateway: Box<RealGateway>,
        lock: RwLock<()>,
        taken: AtomicUsize,
    },
}

/// A gateway under test.
pub(crate) struct Env {
    /// What is to be expected of it.
    pub(crate) facts: Facts,
    url: String,
    token: String,
    root: String,
    server: Server,
}

impl Env {
    /// A simulated gateway of its own.
    pub(crate) async fn sim(dialect: SimDialect) -> Self {
        let token = Uuid::new_v4().simple().to_string();
        let gateway = SimGateway::new(dialect, &token);
        gateway.faults().latency("*", Duration::from_millis(2));
        let server = gateway.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let env = Self {
            facts: Facts::of(dialect.version()).expect("what is simulated was measured"),
            url: server.url(),
            token,
            root: "/sim/work".to_owned(),
            server: Server::Sim {
                _server: server,
                lock: RwLock::new(()),
                taken: AtomicUsize::new(0),
            },
        };
        env.fill_pool().await;
        env
    }

    /// The real gateway of this version.
    pub(crate) async fn real(dialect: SimDialect) -> Self {
        let index = SimDialect::ALL.iter().position(|other| *other == dialect).unwrap();
        let shared = &REAL[index];
        let of = |gateway: &RealGateway| Self {
            facts: Facts::of(dialect.version()).expect("what is tested was measured"),
            url: gateway.url(),
            token: gateway.token().to_owned(),
            root: gateway.workspace_root().display().to_string(),
            server: Server::Shared(shared),
        };
        let start = || async {
            let gateway = RealGateway::start(dialect.version(), Options::default())
                .await
                .expect("the real gateway starts");
            of(&gateway).fill_pool().await;
            Arc::new(gateway)
        };
        of(shared.gateway.get_or_init(start).await)
    }

    /// A real gateway of its own, of any version, with what was measured of this version or else is found out now.
    ///
    /// # Errors
    /// When it says, or probing finds, that this controller cannot provision it.
    pub(crate) async fn started(gateway: RealGateway) -> Result<Self, GatewayError> {
        let mut env = Self {
            facts: Facts::unknown(&gateway.version()),
            url: gateway.url(),
            token: gateway.token().to_owned(),
            root: gateway.workspace_root().display().to_string(),
            server: Server::Own {
                gateway: Box::new(gateway),
                lock: RwLock::const_new(()),
                taken: AtomicUsize::new(0),
            },
        };
        let probed = match env.connect(&env.target()).await {
            Ok(client) => probe(&client).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = probed
            && matches!(
                error.class(),
                ErrorClass::UnsupportedGateway | ErrorClass::IncompatibleProtocol
            )
        {
            return Err(error);
        }
        env.facts = match Facts::of(&env.facts.version) {
            Some(facts) => facts,
            None => Box::pin(Facts::ask(&env)).await,
        };
        env.fill_pool().await;
        Ok(env)
    }

    /// Puts all agents that checks will use into the roster, by one patch.
    async fn fill_pool(&self) {
        let agents = (0..POOL).map(|i| {
            // Rare, for every heartbeat is a run, and a run keeps an old gateway from answering.
            let heartbeat = json!({ "every": "24h", "target": "last" });
            let entry = json!({ "name": format!("Agent {i}"), "workspace": self.workspace(&pooled(i)), "heartbeat": heartbeat });
            (pooled(i), entry)
        });
        let patch = self.roster_patch(agents);
        self.patch(&patch).await.expect("the first patch is taken");
        let client = self.client().await;
        let last = GatewayAgentId::observed(pooled(POOL - 1));
        until("the new agents can be used", || async {
            client.files_list(&last).await.is_ok()
        })
        .await;
    }

    /// Holds off checks that need the gateway for themselves.
    pub(crate) async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.lock().read().await
    }

    /// Holds off all other checks.
    pub(crate) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock().write().await
    }

    fn lock(&self) -> &RwLock<()> {
        match &self.server {
            Server::Sim { lock, .. } | Server::Own { lock, .. } => lock,
            Server::Shared(shared) => &shared.lock,
        }
    }

    /// An agent that no other check uses.
    pub(crate) fn agent(&self) -> GatewayAgentId {
        let taken = match &self.server {
            Server::Sim { taken, .. } | Server::Own { taken, .. } => taken,
            Server::Shared(shared) => &shared.taken,
        };
        let i = taken.fetch_add(1, Ordering::Relaxed);
        assert!(i < POOL, "the pool of agents is too small for the checks");
        GatewayAgentId::observed(pooled(i))
    }

    /// A workspace directory.
    pub(crate) fn workspace(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    /// Where the gateway listens, without the scheme.
    pub(crate) fn host(&self) -> &str {
        self.url.trim_start_matches("ws://")
    }

    /// The gateway's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// How to reach the gateway.
    pub(crate) fn target(&self) -> Target {
        Target {
            gateway: GatewayId(Uuid::from_u128(1)),
            url: self.url.clone(),
            token: Some(SecretString::from(self.token.clone())),
            disable_device_pairing: false,
            allow_insecure_tls: false,
        }
    }

    /// Connects as a device that was never seen before: config writes are limited per device.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Client, GatewayError> {
        let identity = Arc::new(DeviceIdentity::generate());
        WebSocketConnector::new(identity, RpcMetrics::unregistered())
            .connect(target)
            .await
    }

    /// A connection; waits out a restart.
    pub(crate) async fn client(&self) -> Client {
        let deadline = Instant::now() + BACK;
        loop {
            match self.connect(&self.target()).await {
                Ok(client) => return client,
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    tokio::time::sleep(error.retry_after().unwrap_or(Duration::from_millis(200))).await;
                }
                Err(error) => panic!("no connection: {error}"),
            }
        }
    }

    /// A call that must succeed.
    pub(crate) async fn call(&self, client: &Client, method: &str, params: Value) -> Value {
        client
            .request(method, params, CALL)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The config file, as the gateway shows it.
    pub(crate) async fn config(&self) -> Value {
        let client = self.client().await;
        self.call(&client, "config.get", json!({})).await["parsed"].take()
    }

    /// The config as the client reads it, however long the gateway is busy with something else.
    pub(crate) async fn observed(&self, client: &Client) -> ObservedConfig {
        for _ in 0..4 {
            match client.config_get().await {
                Err(error) if error.class() == ErrorClass::Timeout => {}
                result => return result.expect("the config can be read"),
            }
        }
        panic!("the gateway did not answer for two minutes");
    }

    /// Waits out a restart that has to come.
    pub(crate) async fn restarted(&self, client: &Client) {
        let closed = timeout(BACK, client.closed()).await.expect("the gateway restarts");
        assert!(closed.restart, "{closed:?}");
        self.client().await;
    }

    /// One agent's entry of the config file.
    pub(crate) async fn entry(&self, agent: &GatewayAgentId) -> Option<Value> {
        let config = self.config().await;
        if self.facts.has_entries() {
            return config["agents"]["entries"].get(agent.as_str()).cloned();
        }
        let list = config["agents"]["list"].as_array()?;
        list.iter().find(|entry| entry["id"] == agent.as_str()).cloned()
    }

    /// A patch of the roster in this dialect.
    pub(crate) fn roster_patch(&self, agents: impl IntoIterator<Item = (String, Value)>) -> Value {
        if self.facts.has_entries() {
            let entries: Map<String, Value> = agents.into_iter().collect();
            json!({ "agents": { "ownership": "explicit", "entries": entries } })
        } else {
            // The first roster displaces the main agent unless it names it.
            let mut list = vec![json!({ "id": "main" })];
            list.extend(agents.into_iter().map(|(id, mut entry)| {
                entry["id"] = json!(id);
                entry
            }));
            json!({ "agents": { "list": list } })
        }
    }

    /// Sends a patch with the right hash, again if another check was faster.
    pub(crate) async fn patch(&self, patch: &Value) -> Result<PatchOutcome, GatewayError> {
        self.patch_replacing(patch, &[]).await
    }

    /// Like [`Env::patch`], with paths to replace.
    pub(crate) async fn patch_replacing(
        &self,
        patch: &Value,
        replace: &[String],
    ) -> Result<PatchOutcome, GatewayError> {
        let (client, result) = self.patch_once(patch, replace).await;
        match result {
            // A busy 2026.9.6 that could not follow several removals restarts by itself, and refuses like this whatever it is asked
            // to write until then: it has written it all the same.
            Err(error) if error.message().contains("a recovery restart is required") => {
                self.restarted(&client).await;
                let again = self.patch_once(patch, replace).await.1?;
                Ok(PatchOutcome { noop: false, ..again })
            }
            result => result,
        }
    }

    /// Patches the config, and answers what the gateway says of it, even if it is about to restart for something else, and the
    /// connection that it said it on.
    pub(crate) async fn patch_once(
        &self,
        patch: &Value,
        replace: &[String],
    ) -> (Client, Result<PatchOutcome, GatewayError>) {
        let deadline = Instant::now() + BACK;
        let mut conflict = None;
        while Instant::now() < deadline {
            if conflict.is_some() {
                // A busy gateway goes by the hash of its former config for up to twenty seconds.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let client = self.client().await;
            let hash = self.observed(&client).await.hash;
            match client.config_patch(patch, hash.as_deref(), replace, CALL).await {
                Err(error) if error.class() == ErrorClass::Conflict => conflict = Some(error),
                Ok(outcome) if self.facts.every_patch_restarts => {
                    self.restarted(&client).await;
                    return (client, Ok(outcome));
                }
                result => return (client, result),
            }
        }
        panic!("somebody else was always faster: {conflict:?}");
    }
}

fn pooled(i: usize) -> String {
    format!("pool-{i}")
}

/// Waits until something is so.
pub(crate) async fn until<F, R>(what: &str, mut so: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let deadline = Instant::now() + BACK;
    while !so().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
