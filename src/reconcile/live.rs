//! What the replica that works knows of its objects beyond what it writes down, for whoever looks: what was found to differ and is
//! not right yet, and when it is tried again.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::world::World;
use crate::gateway::Connector;
use crate::model::{AgentPlan, GatewayPlan, ObjectRef, RosterShape};
use crate::store::Store;

/// How many differences of one object are kept: a new gateway of hundreds of agents differs in thousands of ways.
const DIFFERENCES: usize = 50;

/// Something that was found to differ and has not been seen to be right since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The file, or the path in the gateway's config.
    pub what: String,
    /// Why it is to be written, in a few words.
    pub why: String,
}

/// What is known of one object beyond the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveObject {
    /// How many times in a row it could not be made as desired.
    pub failures: u32,
    /// When that is tried again, if the last time failed.
    pub retry_in: Option<Duration>,
    /// It is an agent, and waits for its gateway.
    pub waits_for_gateway: bool,
    /// What differed when it was last looked at; the first few of many.
    pub differences: Vec<Difference>,
}

/// A way to ask the tenure that is under way in this process, if one is. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Live(Arc<RwLock<Option<Weak<dyn Source>>>>);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("active", &self.is_active()).finish()
    }
}

impl Live {
    /// Whether this process is the one that works.
    pub fn is_active(&self) -> bool {
        self.source().is_some()
    }

    /// What is known of an object; `None` if another process is the one that works. Takes no longer than a few look-ups in maps.
    pub fn object(&self, object: ObjectRef) -> Option<LiveObject> {
        Some(self.source()?.object(object))
    }

    /// From now on this tenure is asked, until it ends.
    pub(super) fn follow(&self, source: &Arc<impl Source>) {
        let source: Arc<dyn Source> = Arc::clone(source) as _;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(&source));
    }

    /// The tenure has ended.
    pub(super) fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn source(&self) -> Option<Arc<dyn Source>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()?
            .upgrade()
    }
}

/// Who knows.
pub(super) trait Source: Send + Sync + 'static {
    /// What is known of an object.
    fn object(&self, object: ObjectRef) -> LiveObject;
}

impl<S: Store, C: Connector> Source for World<S, C> {
    fn object(&self, object: ObjectRef) -> LiveObject {
        let (failures, retry) = match object {
            ObjectRef::Gateway(id) => (self.gateway_queue.failures(&id), self.gateway_queue.next_retry(&id)),
            ObjectRef::Agent(id) => (self.agent_queue.failures(&id), self.agent_queue.next_retry(&id)),
        };
        let state = self.state();
        LiveObject {
            failures,
            retry_in: retry.map(|at| at.saturating_duration_since(Instant::now())),
            waits_for_gateway: matches!(object, ObjectRef::Agent(id) if state.parked.contains(&id)),
            differences: state.differences.get(&object).cloned().unwrap_or_default(),
        }
    }
}

impl<S, C> World<S, C> {
    /// Remembers what differs in an object, in the place of what did before.
    pub(super) fn differs(&self, object: ObjectRef, differences: Vec<Difference>) {
        let mut state = self.state();
        if differences.is_empty() {
            state.differences.remove(&object);
        } else {
            state.differences.insert(object, differences);
        }
    }
}

/// What a plan for a gateway's config is about, what is held back included.
pub(super) fn of_config(plan: &GatewayPlan, shape: RosterShape) -> Vec<Difference> {
    let created = plan.creations.iter().map(|step| (step.id.to_string(), &step.why));
    let steps = plan.steps.iter().chain(&plan.held);
    let steps = steps.map(|step| (step.change.field(shape), &step.why));
    let removed = plan.removals.iter().chain(&plan.held_removals);
    let removed = removed.map(|step| (step.id.to_string(), &step.why));
    created
        .chain(steps)
        .chain(removed)
        .take(DIFFERENCES)
        .map(|(what, why)| Difference { what, why: why.clone() })
        .collect()
}

/// What a plan for a workspace is about.
pub(super) fn of_files(plan: &AgentPlan) -> Vec<Difference> {
    let steps = plan.files.iter().take(DIFFERENCES);
    steps
        .map(|step| Difference {
            what: step.file.to_string(),
            why: step.why.clone(),
        })
        .collect()
}
