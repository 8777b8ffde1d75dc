//! What is to be listed, and the list.

use std::collections::HashSet;

use anyhow::Context;
use chrono::Utc;
use uuid::Uuid;

use super::condition::Wanted;
use super::{GetArgs, Kind, items};
use crate::cli::reference::References;
use crate::cli::table::Item;
use crate::model::{BoardId, Conditions, EventKind, GatewayId, GatewaySnapshot, ObjectRef};
use crate::store::{LookupStore, PgStore, Store, StoreError};
use crate::view::{AgentView, BoardView, EventView, GatewayView, Ready};

/// What is to be listed, with everything that was referred to found.
pub(super) struct Selection {
    kind: Kind,
    pub(super) gateway: Option<GatewayId>,
    board: Option<BoardId>,
    /// Only these, if any were named.
    named: Option<HashSet<Uuid>>,
    conditions: Vec<Wanted>,
    not_ready: bool,
    warnings: bool,
    limit: usize,
}

impl Selection {
    pub(super) fn of(args: &GetArgs, references: &References) -> anyhow::Result<Self> {
        let find = |name: &String| match args.kind {
            Kind::Gateways => references.gateway(name).map(|id| id.0),
            Kind::Boards => references.board(name).map(|id| id.0),
            Kind::Agents | Kind::Unmanaged => references.agent(name).map(|id| id.0),
            Kind::Events => references.agent(name).map(|id| id.0).or_else(|no_agent| {
                let gateway = references.gateway(name).map(|id| id.0);
                gateway.map_err(|no_gateway| no_gateway.context(format!("{no_agent}")))
            }),
        };
        let named: HashSet<Uuid> = args.names.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Self {
            kind: args.kind,
            gateway: args
                .gateway
                .as_deref()
                .map(|name| references.gateway(name))
                .transpose()?,
            board: args
                .board
                .as_deref()
                .map(|name| references.board(name).context("--board"))
                .transpose()?,
            named: (!named.is_empty()).then_some(named),
            conditions: args.condition.clone(),
            not_ready: args.not_ready,
            warnings: args.warnings,
            limit: args.limit,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The list, as of now.
    pub(super) async fn items(&self, store: &PgStore) -> Result<Vec<Item>, StoreError> {
        let fleet = match self.gateway {
            Some(id) => store.load_gateway(id).await?.into_iter().collect(),
            None => store.load_fleet().await?,
        };
        let now = Utc::now();
        Ok(match self.kind {
            Kind::Gateways => {
                let leftovers = store.leftovers().await?;
                let views = fleet.iter().map(|snapshot| GatewayView::of(snapshot, &leftovers));
                views
                    .filter(|view| self.is_named(view.id.0) && self.wants(&view.ready, &view.status.conditions))
                    .map(|view| items::gateway(&view))
                    .collect()
            }
            Kind::Boards => {
                let views = fleet.iter().flat_map(BoardView::all);
                views
                    .filter(|view| self.is_named(view.id.0) && self.is_on(Some(view.id)))
                    .filter(|view| !self.not_ready || !view.is_ready())
                    .map(|view| items::board(&view))
                    .collect()
            }
            Kind::Agents => {
                let agents = fleet
                    .iter()
                    .flat_map(|snapshot| snapshot.agents.iter().map(move |agent| (snapshot, agent)));
                agents
                    .filter(|(_, agent)| self.is_named(agent.id.0) && self.is_on(agent.board_id))
                    .map(|(snapshot, agent)| AgentView::of(snapshot, agent, now))
                    .filter(|view| self.wants(&view.ready, &view.status.conditions))
                    .map(|view| items::agent(&view, now))
                    .collect()
            }
            Kind::Events => self.events(store, &fleet).await?,
            Kind::Unmanaged => Vec::new(),
        })
    }

    async fn events(&self, store: &PgStore, fleet: &[GatewaySnapshot]) -> Result<Vec<Item>, StoreError> {
        let narrowed = self.gateway.is_some() || self.board.is_some() || self.named.is_some();
        let objects: Option<Vec<ObjectRef>> = narrowed.then(|| {
            let of_snapshot = |snapshot: &GatewaySnapshot| {
                let agents = snapshot.agents.iter().filter(|agent| self.is_on(agent.board_id));
                let agents: Vec<_> = agents.map(|agent| (agent.id.0, ObjectRef::Agent(agent.id))).collect();
                let gateway = (snapshot.gateway.id.0, ObjectRef::Gateway(snapshot.gateway.id));
                agents.into_iter().chain(self.board.is_none().then_some(gateway))
            };
            let all = fleet.iter().flat_map(of_snapshot);
            all.filter(|(id, _)| self.is_named(*id))
                .map(|(_, object)| object)
                .collect()
        });
        // Of those that need a look there may be few among many.
        let asked = if self.warnings { usize::MAX } else { self.limit };
        let recorded = store.events_of(objects.as_deref(), asked).await?;
        let (names, now) = (EventView::names(fleet), Utc::now());
        let mut items: Vec<_> = recorded
            .into_iter()
            .filter(|recorded| !self.warnings || recorded.event.kind == EventKind::Warning)
            .take(self.limit)
            .map(|recorded| items::event(&EventView::of(recorded, &names), now))
            .collect();
        items.reverse();
        Ok(items)
    }

    fn is_named(&self, id: Uuid) -> bool {
        self.named.as_ref().is_none_or(|named| named.contains(&id))
    }

    fn is_on(&self, board: Option<BoardId>) -> bool {
        self.board.is_none() || board == self.board
    }

    fn wants(&self, ready: &Ready, conditions: &Conditions) -> bool {
        (!self.not_ready || !ready.is_true()) && self.conditions.iter().all(|wanted| wanted.holds(ready, conditions))
    }
}
