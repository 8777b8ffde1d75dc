//! Which rows the objects of a file are.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::model::{Agent, Field, Fleet, Marked};
use super::problem::Problem;
use super::rows::Rows;

/// An object's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there, at this index.
    Row(usize, Uuid),
    /// It is to be made, with this id.
    New(Uuid),
}

impl Found {
    pub(super) fn id(self) -> Uuid {
        match self {
            Self::Row(_, id) | Self::New(id) => id,
        }
    }

    pub(super) fn row(self) -> Option<usize> {
        match self {
            Self::Row(index, _) => Some(index),
            Self::New(_) => None,
        }
    }
}

/// The row of each object of a file, by the object's key.
#[derive(Debug, Default)]
pub(super) struct Finds {
    pub(super) organizations: HashMap<usize, Found>,
    pub(super) gateways: HashMap<usize, Found>,
    pub(super) boards: HashMap<usize, Found>,
    pub(super) agents: HashMap<usize, Found>,
}

/// A row as far as it is needed to find it.
struct Candidate<'a> {
    id: Uuid,
    parent: Option<Uuid>,
    name: Option<&'a str>,
    /// Its removal was requested.
    is_going: bool,
}

/// Finds rows of one kind.
struct Finder<'a> {
    kind: &'static str,
    by_id: HashMap<Uuid, usize>,
    by_name: HashMap<(Option<Uuid>, &'a str), Vec<usize>>,
    candidates: Vec<Candidate<'a>>,
    /// Rows that the file names by id, or that have been found.
    taken: HashSet<Uuid>,
}

impl<'a> Finder<'a> {
    fn new(kind: &'static str, candidates: Vec<Candidate<'a>>, named: impl Iterator<Item = Uuid>) -> Self {
        let mut by_name: HashMap<_, Vec<usize>> = HashMap::new();
        let mut by_id = HashMap::new();
        for (index, candidate) in candidates.iter().enumerate() {
            by_id.insert(candidate.id, index);
            if let Some(name) = candidate.name {
                by_name.entry((candidate.parent, name)).or_default().push(index);
            }
        }
        Self {
            kind,
            by_id,
            by_name,
            candidates,
            taken: named.collect(),
        }
    }

    /// The row with this id, or else the only one with this name below the parent. `None` if there is none.
    fn find(
        &mut self,
        id: Option<Uuid>,
        name: Option<&Marked<String>>,
        parent: Option<Uuid>,
        problems: &mut Vec<Problem>,
    ) -> Option<Found> {
        if let Some(id) = id {
            return Some(
                self.by_id
                    .get(&id)
                    .map_or(Found::New(id), |index| Found::Row(*index, id)),
            );
        }
        let name = name?;
        let free: Vec<usize> = self
            .by_name
            .get(&(parent, name.value.as_str()))
            .into_iter()
            .flatten()
            .copied()
            .filter(|index| !self.taken.contains(&self.candidates[*index].id))
            .collect();
        // One that stays goes before those that go.
        let staying: Vec<usize> = free
            .iter()
            .copied()
            .filter(|index| !self.candidates[*index].is_going)
            .collect();
        let these = if staying.is_empty() { free } else { staying };
        if these.len() > 1 {
            let ids: Vec<_> = these
                .iter()
                .map(|index| self.candidates[*index].id.to_string())
                .collect();
            problems.push(Problem::new(
                name.at,
                format!(
                    "in the database {} {}s are called {:?}: give the `id` of the one that is meant, {}",
                    these.len(),
                    self.kind,
                    name.value,
                    ids.join(" or ")
                ),
            ));
        }
        these.first().map(|index| self.take(*index))
    }

    fn take(&mut self, index: usize) -> Found {
        let id = self.candidates[index].id;
        self.taken.insert(id);
        Found::Row(index, id)
    }
}

/// Finds the row of everything in a file. `new_id` gives the id of a new object with that key.
pub(super) fn find(
    fleet: &Fleet,
    rows: &Rows,
    new_id: &mut dyn FnMut(usize) -> Uuid,
    problems: &mut Vec<Problem>,
) -> Finds {
    let mut finds = Finds::default();
    let id_of = |field: &Field<Uuid>| field.as_ref().map(|id| id.value);
    let mut make = |found: Option<Found>, key: usize| found.unwrap_or_else(|| Found::New(new_id(key)));

    let candidates = rows.organizations.iter().map(|row| Candidate {
        id: row.id,
        parent: None,
        name: row.name.as_deref(),
        is_going: false,
    });
    let named = fleet.organizations.iter().filter_map(|it| id_of(&it.id));
    let mut finder = Finder::new("organization", candidates.collect(), named);
    for it in &fleet.organizations {
        let found = finder.find(id_of(&it.id), it.name.as_ref(), None, problems);
        finds.organizations.insert(it.key, make(found, it.key));
    }

    let candidates = rows.gateways.iter().map(|row| Candidate {
        id: row.id,
        parent: row.organization_id,
        name: row.name.as_deref(),
        is_going: false,
    });
    let gateways = || fleet.organizations.iter().flat_map(|it| &it.gateways);
    let mut finder = Finder::new(
        "gateway",
        candidates.collect(),
        gateways().filter_map(|it| id_of(&it.id)),
    );
    for organization in &fleet.organizations {
        let parent = finds.organizations.get(&organization.key).map(|found| found.id());
        for it in &organization.gateways {
            let found = finder.find(id_of(&it.id), it.name.as_ref(), parent, problems);
            finds.gateways.insert(it.key, make(found, it.key));
        }
    }

    let candidates = rows.boards.iter().map(|row| Candidate {
        id: row.id,
        parent: row.organization_id,
        name: row.name.as_deref(),
        is_going: false,
    });
    let boards = || fleet.organizations.iter().flat_map(|it| &it.boards);
    let mut finder = Finder::new("board", candidates.collect(), boards().filter_map(|it| id_of(&it.id)));
    for organization in &fleet.organizations {
        let parent = finds.organizations.get(&organization.key).map(|found| found.id());
        for it in &organization.boards {
            let found = finder.find(id_of(&it.id), it.name.as_ref(), parent, problems);
            finds.boards.insert(it.key, make(found, it.key));
        }
    }

    // An agent's parent is its board, or its gateway if it has none.
    let candidates = rows.agents.iter().map(|row| Candidate {
        id: row.id,
        parent: row.board_id.or(Some(row.gateway_id)),
        name: row.name.as_deref(),
        is_going: row.delete_requested_at.is_some(),
    });
    let agents = gateways()
        .flat_map(|it| &it.agents)
        .chain(boards().flat_map(|it| &it.agents));
    let mut finder = Finder::new("agent", candidates.collect(), agents.filter_map(|it| id_of(&it.id)));
    let leads: HashMap<Uuid, Vec<usize>> = by_place(rows, |row| row.board_id.filter(|_| row.is_board_lead));
    let mains: HashMap<Uuid, Vec<usize>> = by_place(rows, |row| row.board_id.is_none().then_some(row.gateway_id));
    let places = gateways()
        .map(|it| (it.key, &it.agents, true))
        .chain(boards().map(|it| (it.key, &it.agents, false)));
    for (key, agents, is_gateway) in places {
        let places = if is_gateway { &finds.gateways } else { &finds.boards };
        let Some(parent) = places.get(&key).map(|found| found.id()) else {
            continue;
        };
        let mut open: Vec<&Agent> = Vec::new();
        for it in agents {
            match finder.find(id_of(&it.id), it.name.as_ref(), Some(parent), problems) {
                Some(found) => {
                    finds.agents.insert(it.key, found);
                }
                None => open.push(it),
            }
        }
        // A board has one lead and a gateway one main agent: by another name it is the same one.
        let alone = |it: &Agent| is_gateway || it.is_board_lead.as_ref().is_some_and(|lead| lead.value);
        let one = open.iter().filter(|it| alone(it)).count() == 1;
        let there = if is_gateway { &mains } else { &leads };
        for it in open {
            let free: Vec<usize> = there
                .get(&parent)
                .into_iter()
                .flatten()
                .copied()
                .filter(|index| !finder.taken.contains(&finder.candidates[*index].id))
                .collect();
            let found = match free[..] {
                [index] if one && alone(it) => finder.take(index),
                _ => Found::New(new_id(it.key)),
            };
            finds.agents.insert(it.key, found);
        }
    }
    finds
}

fn by_place(rows: &Rows, place: impl Fn(&super::rows::AgentRow) -> Option<Uuid>) -> HashMap<Uuid, Vec<usize>> {
    let mut places: HashMap<Uuid, Vec<usize>> = HashMap::new();
    for (index, row) in rows.agents.iter().enumerate() {
        if let Some(place) = place(row) {
            places.entry(place).or_default().push(index);
        }
    }
    places
}
