//! Where looks are answered: a few at a time, each with a deadline, all from the store's connections for people.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use chrono::Utc;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::API;
use super::answer::Problem;
use super::html::Templates;
use super::item::{Agent, Board, Event, Gateway, List, instant};
use super::query::Asked;
use crate::model::{AgentId, GatewayId, ObjectRef};
use crate::reconcile::Live;
use crate::store::{EventFilter, Listed, StoreError, Totals, ViewFilter, ViewStore, Window};

/// How many looks are answered at once; the others wait for their turn.
const TURNS: usize = 4;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a look may take once it is its turn: less than the server gives any request.
const DEADLINE: Duration = Duration::from_secs(9);
/// How many may follow the events at once.
const STREAMS: usize = 16;

/// Where looks are answered.
pub(super) struct Desk<S> {
    pub(super) store: Arc<S>,
    pub(super) live: Live,
    pub(super) templates: Templates,
    turns: Semaphore,
    pub(super) streams: Arc<Semaphore>,
    /// Fires when the server stops: those who follow the events would not end by themselves.
    pub(super) stop: CancellationToken,
}

/// What there is in all, and who says so.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview {
    kind: &'static str,
    version: &'static str,
    replica: &'static str,
    at: String,
    pub(super) totals: BTreeMap<&'static str, u64>,
}

impl<S: ViewStore> Desk<S> {
    pub(super) fn new(store: Arc<S>, live: Live, stop: CancellationToken) -> Self {
        Self {
            store,
            live,
            templates: Templates::default(),
            turns: Semaphore::new(TURNS),
            streams: Arc::new(Semaphore::new(STREAMS)),
            stop,
        }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Problem> {
        match tokio::time::timeout(PATIENCE, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many are looking at once; try again in a moment.",
            )
            .retry_after(1)),
        }
    }

    async fn bounded<T>(&self, look: impl Future<Output = Result<T, StoreError>>) -> Result<T, Problem> {
        let late = || {
            let text = "The database did not answer in time; /readyz says how it is.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(1)
        };
        Ok(tokio::time::timeout(DEADLINE, look).await.map_err(|_| late())??)
    }

    pub(super) async fn overview(&self) -> Result<Overview, Problem> {
        let Totals {
            gateways,
            gateways_ready,
            boards,
            agents,
            agents_ready,
        } = self.bounded(self.store.view_totals()).await?;
        Ok(Overview {
            kind: "Overview",
            version: env!("CARGO_PKG_VERSION"),
            replica: if self.live.is_active() { "active" } else { "standby" },
            at: instant(Utc::now()),
            totals: BTreeMap::from([
                ("gateways", gateways),
                ("gatewaysReady", gateways_ready),
                ("boards", boards),
                ("agents", agents),
                ("agentsReady", agents_ready),
            ]),
        })
    }

    pub(super) async fn gateways(&self, filter: &ViewFilter, window: Window) -> Result<Listed<Gateway>, Problem> {
        let listed = self.bounded(self.store.view_gateways(filter, window)).await?;
        let now = Utc::now();
        Ok(map(listed, |view| {
            let live = self.live.object(ObjectRef::Gateway(view.id));
            Gateway::new(view, live, now)
        }))
    }

    pub(super) async fn boards(&self, filter: &ViewFilter, window: Window) -> Result<Listed<Board>, Problem> {
        let listed = self.bounded(self.store.view_boards(filter, window)).await?;
        Ok(map(listed, Board::from))
    }

    pub(super) async fn agents(&self, filter: &ViewFilter, window: Window) -> Result<Listed<Agent>, Problem> {
        let listed = self.bounded(self.store.view_agents(filter, window)).await?;
        let now = Utc::now();
        Ok(map(listed, |view| {
            let live = self.live.object(ObjectRef::Agent(view.id));
            Agent::new(view, live, now)
        }))
    }

    pub(super) async fn events(&self, filter: &EventFilter, window: Window) -> Result<Listed<Event>, Problem> {
        let listed = self.bounded(self.store.view_events(filter, window)).await?;
        Ok(map(listed, Event::from))
    }

    pub(super) async fn gateway(&self, id: &str) -> Result<(GatewayId, Gateway), Problem> {
        let id = known("gateway", id)?;
        let filter = ViewFilter {
            id: Some(id),
            ..ViewFilter::default()
        };
        let found = self.gateways(&filter, ONE).await?.items.pop();
        found
            .map(|gateway| (GatewayId(id), gateway))
            .ok_or_else(|| missing("gateway", &id.to_string()))
    }

    pub(super) async fn board(&self, id: &str) -> Result<(Uuid, Board), Problem> {
        let id = known("board", id)?;
        let filter = ViewFilter {
            id: Some(id),
            ..ViewFilter::default()
        };
        let found = self.boards(&filter, ONE).await?.items.pop();
        found
            .map(|board| (id, board))
            .ok_or_else(|| missing("board", &id.to_string()))
    }

    pub(super) async fn agent(&self, id: &str) -> Result<(AgentId, Agent), Problem> {
        let id = known("agent", id)?;
        let filter = ViewFilter {
            id: Some(id),
            ..ViewFilter::default()
        };
        let found = self.agents(&filter, ONE).await?.items.pop();
        found
            .map(|agent| (AgentId(id), agent))
            .ok_or_else(|| missing("agent", &id.to_string()))
    }

    pub(super) async fn event(&self, id: &str) -> Result<Event, Problem> {
        let number = id.parse().map_err(|_| missing("event", id))?;
        let filter = EventFilter {
            id: Some(number),
            ..EventFilter::default()
        };
        let found = self.events(&filter, ONE).await?.items.pop();
        found.ok_or_else(|| missing("event", id))
    }
}

const ONE: Window = Window { offset: 0, limit: 1 };

fn map<T, U>(listed: Listed<T>, each: impl FnMut(T) -> U) -> Listed<U> {
    Listed {
        items: listed.items.into_iter().map(each).collect(),
        total: listed.total,
    }
}

/// A part of a list at this path, with where the others are.
pub(super) fn list<T>(listed: Listed<T>, path: &str, asked: &Asked) -> List<T> {
    let Window { offset, limit } = asked.window();
    let at = |offset: u64| format!("{path}{}", asked.at(offset));
    let end = offset.saturating_add(u64::try_from(listed.items.len()).unwrap_or_default());
    List {
        next: (!listed.items.is_empty() && end < listed.total).then(|| at(end)),
        // From beyond the end one comes back to the last part.
        previous: (offset > 0).then(|| at(offset.min(listed.total).saturating_sub(u64::from(limit)))),
        items: listed.items,
        total: listed.total,
        offset,
        limit,
    }
}

/// An id, if it can be one.
fn known(kind: &str, id: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(id).map_err(|_| missing(kind, id))
}

fn missing(kind: &str, id: &str) -> Problem {
    let mut shown: String = id.chars().take(80).collect();
    if shown.len() < id.len() {
        shown.push('…');
    }
    let advice = match kind {
        "event" => format!("{API}/events lists those there are; one that was not seen again for 14 days is dropped"),
        _ if Uuid::parse_str(id).is_err() => format!(
            "an id looks like 3f0c8a52-9c1e-4d6b-8a70-5b1d2c3e4f50, and {API}/{kind}s?search=NAME finds one by its name"
        ),
        _ => format!("its row is gone, or never was; {API}/{kind}s lists those there are"),
    };
    Problem::new(StatusCode::NOT_FOUND, format!("There is no {kind} {shown}: {advice}."))
}
