//! The live connections, one per gateway, and what was learnt over each.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::ExposeSecret;

use super::held::HeldBack;
use crate::gateway::{Client, Target};
use crate::model::{Dialect, GatewayAgentId, GatewayId};

/// What was last seen of a gateway's roster; nothing until the gateway reconciler has seen its config.
#[derive(Default)]
pub(super) struct SeenRoster {
    /// The digest of the spec that it was compared with.
    pub(super) digest: String,
    /// The agents in it whose workspace is as desired.
    pub(super) registered: HashSet<GatewayAgentId>,
    /// Of those, the ones of which something else is still to be changed.
    pub(super) pending: HashSet<GatewayAgentId>,
    /// Agents whose entries are left as they are although they differ, and why: what differs in them is not pending.
    pub(super) held: HashMap<GatewayAgentId, HeldBack>,
    /// All agents in it, and those whose removal was begun and is not known to have ended.
    pub(super) present: HashSet<GatewayAgentId>,
}

/// A connection to a gateway.
#[derive(Clone)]
pub(super) struct Session {
    /// The connection.
    pub(super) client: Client,
    /// What the gateway can do.
    pub(super) dialect: Arc<Dialect>,
    /// To what, and as whom, the connection was made: another target needs another connection.
    target: Arc<Target>,
    /// What was last seen of the roster.
    roster: Arc<SeenRoster>,
}

impl Session {
    /// A session over a fresh connection, before anything is known of the roster.
    pub(super) fn new(client: Client, dialect: Dialect, target: Target) -> Self {
        Self {
            client,
            dialect: Arc::new(dialect),
            target: Arc::new(target),
            roster: Arc::default(),
        }
    }

    /// Whether the agent is in the roster with the workspace that it should have: its files can be looked at.
    pub(super) fn is_registered(&self, agent: &GatewayAgentId) -> bool {
        self.roster.registered.contains(agent)
    }

    /// Whether the roster was seen to hold all that the spec with this digest says of the agent.
    pub(super) fn is_settled(&self, agent: &GatewayAgentId, roster_digest: &str) -> bool {
        self.roster.digest == roster_digest && self.is_registered(agent) && !self.roster.pending.contains(agent)
    }

    /// Why the agent's entry, compared with the spec of this digest, is left as it is although it differs.
    pub(super) fn held_back(&self, agent: &GatewayAgentId, roster_digest: &str) -> Option<&HeldBack> {
        let held = self.roster.held.get(agent)?;
        (self.roster.digest == roster_digest && !self.roster.pending.contains(agent)).then_some(held)
    }

    /// Whether the gateway was seen to hold none of these agents when it was last compared with the spec of this digest; `None`
    /// if it was not compared with that.
    pub(super) fn is_without(&self, agents: &[GatewayAgentId], roster_digest: &str) -> Option<bool> {
        let absent = |id| !self.roster.present.contains(id);
        (self.roster.digest == roster_digest).then(|| agents.iter().all(absent))
    }

    /// Whether this connection serves for that target.
    pub(super) fn serves(&self, target: &Target) -> bool {
        let secret = |target: &Target| target.token.as_ref().map(|token| token.expose_secret().to_owned());
        self.target.url == target.url
            && self.target.disable_device_pairing == target.disable_device_pairing
            && self.target.allow_insecure_tls == target.allow_insecure_tls
            && secret(&self.target) == secret(target)
            && !self.client.is_closed()
    }
}

impl Drop for Sessions {
    /// A tenure that is dropped rather than ended closes its connections too: the tasks that watch them hold clients of
    /// their own, which would keep the sockets open for as long as the gateway likes.
    fn drop(&mut self) {
        self.clear();
    }
}

/// All sessions, by gateway.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<GatewayId, Session>>);

impl Sessions {
    /// The gateway's session, if its connection is open.
    pub(super) fn get(&self, gateway: GatewayId) -> Option<Session> {
        self.lock()
            .get(&gateway)
            .filter(|session| !session.client.is_closed())
            .cloned()
    }

    /// Puts a session in the place of the gateway's last one, which is closed.
    pub(super) fn insert(&self, gateway: GatewayId, session: Session) {
        let old = self.lock().insert(gateway, session);
        if let Some(old) = old {
            old.client.close();
        }
    }

    /// Records what was seen of the roster. Returns the agents of which it is news whether and why they are held back.
    pub(super) fn set_roster(&self, gateway: GatewayId, roster: SeenRoster) -> HashSet<GatewayAgentId> {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(&gateway) else {
            return HashSet::new();
        };
        let old = std::mem::replace(&mut session.roster, Arc::new(roster));
        let ids = old.held.keys().chain(session.roster.held.keys());
        ids.filter(|id| old.held.get(*id) != session.roster.held.get(*id))
            .cloned()
            .collect()
    }

    /// Closes and forgets the gateway's session.
    pub(super) fn remove(&self, gateway: GatewayId) {
        if let Some(session) = self.lock().remove(&gateway) {
            session.client.close();
        }
    }

    /// Closes and forgets all sessions.
    pub(super) fn clear(&self) {
        for (_, session) in self.lock().drain() {
            session.client.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GatewayId, Session>> {
        // Nothing is left half-done in here by a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
