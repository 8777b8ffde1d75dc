//! What people call gateways, boards and agents: an id, the beginning of one, a name, a slug.
//!
//! Every command that takes an id takes all of these. What is ambiguous is never guessed.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::bail;
use uuid::Uuid;

use super::out::plain;
use crate::model::{AgentId, BoardId, GatewayAgentId, GatewayId, slug};
use crate::store::{LookupStore, Named, StoreError};

/// More candidates than these are not listed one by one.
const LISTED: usize = 10;

/// Names that are less like a name than this are not taken to be meant by it.
const ALIKE: f64 = 0.75;

/// What is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gateway,
    Board,
    Agent,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Board => "board",
            Self::Agent => "agent",
        }
    }
}

/// An object, and all that it may be called.
#[derive(Clone, Debug)]
struct Entry {
    kind: Kind,
    id: Uuid,
    name: String,
    /// A board's slug.
    slug: Option<String>,
    /// Its id on its gateway.
    gateway_agent_id: Option<GatewayAgentId>,
    /// The name of what it belongs to: an agent's board or else its gateway, a board's gateway.
    place: Option<String>,
}

impl Entry {
    /// The name with that of what it belongs to.
    fn full_name(&self) -> Option<String> {
        Some(format!("{}/{}", self.place.as_ref()?, self.name))
    }

    /// For people: what it is called and where it belongs.
    fn shown(&self) -> String {
        let place = match (&self.place, self.kind) {
            (None, _) => String::new(),
            (Some(place), Kind::Agent) if self.is_main() => format!(", main agent of {}", plain(place)),
            (Some(place), _) => format!(", of {}", plain(place)),
        };
        format!("{} {} ({:?}{place})", self.kind.word(), self.id, plain(&self.name))
    }

    fn is_main(&self) -> bool {
        self.gateway_agent_id
            .as_ref()
            .is_some_and(|id| id.as_str().starts_with("mc-gateway-"))
    }
}

/// Everything that can be referred to, as of one instant.
#[derive(Clone, Debug)]
pub(super) struct References(Vec<Entry>);

impl References {
    /// Asks the database who there is.
    pub(super) async fn load(store: &impl LookupStore) -> Result<Self, StoreError> {
        Ok(Self::of(store.names().await?))
    }

    fn of(names: Vec<Named>) -> Self {
        let places: HashMap<Uuid, String> = names
            .iter()
            .filter_map(|named| match named {
                Named::Gateway { id, name } => Some((id.0, name.clone())),
                Named::Board { id, name, .. } => Some((id.0, name.clone())),
                Named::Agent { .. } => None,
            })
            .collect();
        let entries = names.into_iter().map(|named| match named {
            Named::Gateway { id, name } => Entry {
                kind: Kind::Gateway,
                id: id.0,
                name,
                slug: None,
                gateway_agent_id: None,
                place: None,
            },
            Named::Board {
                id,
                name,
                slug,
                gateway,
            } => Entry {
                kind: Kind::Board,
                id: id.0,
                name,
                slug: Some(slug),
                gateway_agent_id: None,
                place: gateway.and_then(|gateway| places.get(&gateway.0).cloned()),
            },
            Named::Agent {
                id,
                name,
                board,
                gateway,
                gateway_agent_id,
            } => Entry {
                kind: Kind::Agent,
                id: id.0,
                name,
                slug: None,
                gateway_agent_id: Some(gateway_agent_id),
                place: places.get(&board.map_or(gateway.0, |board| board.0)).cloned(),
            },
        });
        Self(entries.collect())
    }

    /// The gateway that is meant.
    pub(super) fn gateway(&self, reference: &str) -> anyhow::Result<GatewayId> {
        self.find(Kind::Gateway, reference).map(GatewayId)
    }

    /// The board that is meant.
    pub(super) fn board(&self, reference: &str) -> anyhow::Result<BoardId> {
        self.find(Kind::Board, reference).map(BoardId)
    }

    /// The agent that is meant.
    pub(super) fn agent(&self, reference: &str) -> anyhow::Result<AgentId> {
        self.find(Kind::Agent, reference).map(AgentId)
    }

    /// All that are meant, each once, in the order in which they were given.
    pub(super) fn each<Id: PartialEq>(
        references: &[String],
        find: impl Fn(&str) -> anyhow::Result<Id>,
    ) -> anyhow::Result<Vec<Id>> {
        let mut ids = Vec::new();
        for reference in references {
            let id = find(reference)?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn find(&self, kind: Kind, reference: &str) -> anyhow::Result<Uuid> {
        let reference = reference.trim();
        let word = kind.word();
        if reference.is_empty() {
            bail!(
                "a blank is no {word}; give an id, the beginning of one, or a name: `openclaw-controller get {word}s -o wide` \
                 lists them"
            );
        }
        for found in self.tiers(kind, reference) {
            match found.as_slice() {
                [] => {}
                [one] => return Ok(one.id),
                several => bail!("{}", ambiguous(kind, reference, several)),
            }
        }
        bail!("{}", self.unknown(kind, reference))
    }

    /// The objects that a reference may mean, by how much it says: what was written in full goes before what was shortened.
    fn tiers<'a>(&'a self, kind: Kind, reference: &'a str) -> [Vec<&'a Entry>; 4] {
        let of = |meant: &dyn Fn(&Entry) -> bool| -> Vec<&'a Entry> {
            self.0
                .iter()
                .filter(|entry| entry.kind == kind && meant(entry))
                .collect()
        };
        let id = Uuid::try_parse(reference).ok();
        let beginning = reference.to_ascii_lowercase();
        let plain_slug = slug(reference);
        [
            of(&|entry| {
                let there = entry.gateway_agent_id.as_ref();
                Some(entry.id) == id || there.is_some_and(|id| id.as_str() == reference)
            }),
            of(&|entry| {
                entry.name.trim() == reference
                    || entry.slug.as_deref() == Some(reference)
                    || entry.full_name().as_deref() == Some(reference)
            }),
            of(&|entry| {
                let text = entry.id.to_string();
                text.starts_with(&beginning) || entry.id.simple().to_string().starts_with(&beginning)
            }),
            of(&|entry| {
                let full = entry.full_name();
                !plain_slug.is_empty()
                    && (slug(&entry.name) == plain_slug
                        || full.is_some_and(|full| full.to_lowercase() == reference.to_lowercase()))
            }),
        ]
    }

    fn unknown(&self, kind: Kind, reference: &str) -> String {
        let word = kind.word();
        let mut text = format!("there is no {word} {:?}", plain(reference));
        // Somebody may have confused what has which id.
        let other = [Kind::Gateway, Kind::Board, Kind::Agent]
            .into_iter()
            .filter(|other| *other != kind)
            .find_map(|other| {
                match self.tiers(other, reference)[..2]
                    .iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .as_slice()
                {
                    [one] => Some(**one),
                    _ => None,
                }
            });
        if let Some(other) = other {
            let _ = write!(text, "; it is a {}", other.kind.word());
        } else {
            let mut alike: Vec<_> = self
                .0
                .iter()
                .filter(|entry| entry.kind == kind)
                .map(|entry| {
                    let alike = strsim::jaro_winkler(&entry.name.to_lowercase(), &reference.to_lowercase());
                    (alike, entry)
                })
                .filter(|(alike, _)| *alike >= ALIKE)
                .collect();
            alike.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.id.cmp(&other.id)));
            let closest: Vec<_> = alike
                .iter()
                .take(3)
                .map(|(_, entry)| format!("{:?} ({})", plain(&entry.name), entry.id))
                .collect();
            if !closest.is_empty() {
                let _ = write!(text, "; do you mean {}?", closest.join(" or "));
            }
        }
        let _ = write!(
            text,
            " `openclaw-controller get {word}s -o wide` lists them with their ids"
        );
        if text.contains('?') {
            text
        } else {
            text.replacen(" `", "; `", 1)
        }
    }
}

fn ambiguous(kind: Kind, reference: &str, several: &[&Entry]) -> String {
    let mut text = format!(
        "{:?} may be any of {} {}s; give the id, or as much of it as tells them apart",
        plain(reference),
        several.len(),
        kind.word()
    );
    if several.iter().any(|entry| entry.place.is_some()) {
        let what = match kind {
            Kind::Agent => "BOARD/NAME",
            Kind::Board | Kind::Gateway => "GATEWAY/NAME",
        };
        let _ = write!(text, ", or {what}");
    }
    text.push(':');
    for entry in several.iter().take(LISTED) {
        let _ = write!(text, "\n  {}", entry.shown());
    }
    if let Some(more @ 1..) = several.len().checked_sub(LISTED) {
        let _ = write!(
            text,
            "\n  and {more} more; `openclaw-controller get {}s -o wide` lists all",
            kind.word()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Uuid {
        text.parse().unwrap()
    }

    const RED: &str = "0a000000-0000-4000-8000-000000000001";
    const WEBSITE: &str = "0b000000-0000-4000-8000-000000000001";
    const NEWS: &str = "0b100000-0000-4000-8000-000000000002";
    const WREN: &str = "0c000000-0000-4000-8000-000000000001";
    const LEAD: &str = "0c100000-0000-4000-8000-000000000002";
    const OTHER: &str = "0c110000-0000-4000-8000-000000000003";

    fn references() -> References {
        let agent = |text: &str, name: &str, board: &str| Named::Agent {
            id: AgentId(id(text)),
            name: name.to_owned(),
            board: Some(BoardId(id(board))),
            gateway: GatewayId(id(RED)),
            gateway_agent_id: GatewayAgentId::observed(format!("mc-{text}")),
        };
        let board = |text: &str, name: &str, slug: &str| Named::Board {
            id: BoardId(id(text)),
            name: name.to_owned(),
            slug: slug.to_owned(),
            gateway: Some(GatewayId(id(RED))),
        };
        References::of(vec![
            Named::Gateway {
                id: GatewayId(id(RED)),
                name: "Red".to_owned(),
            },
            board(WEBSITE, "Web site", "site"),
            board(NEWS, "Newsletter", "news"),
            agent(WREN, "Wren", WEBSITE),
            agent(LEAD, "Lead Agent", WEBSITE),
            agent(OTHER, "Lead Agent", NEWS),
        ])
    }

    fn agent(reference: &str) -> Result<Uuid, String> {
        references()
            .agent(reference)
            .map(|id| id.0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_id_the_beginning_of_one_a_name_and_a_slug_all_mean_the_same() {
        for reference in [
            WREN,
            &WREN.to_uppercase(),
            &id(WREN).simple().to_string(),
            &format!("mc-{WREN}"),
            "0c0",
            "0C00000000",
            "Wren",
            " Wren ",
            "wren",
            "Web site/Wren",
            "web SITE/wren",
        ] {
            assert_eq!(agent(reference), Ok(id(WREN)), "{reference}");
        }
        for reference in [WEBSITE, "0b0", "Web site", "site", "web-site", "Red/Web site"] {
            assert_eq!(references().board(reference).unwrap().0, id(WEBSITE), "{reference}");
        }
        assert_eq!(references().gateway("red").unwrap().0, id(RED));
        assert_eq!(agent("Newsletter/Lead Agent"), Ok(id(OTHER)));
        assert_eq!(agent("0c10"), Ok(id(LEAD)));
    }

    #[test]
    fn what_is_ambiguous_lists_the_candidates_and_where_they_belong() {
        for reference in ["Lead Agent", "lead agent", "0c1"] {
            let error = agent(reference).unwrap_err();
            assert!(error.contains("any of 2 agents"), "{error}");
            assert!(
                error.contains(&format!("agent {LEAD} (\"Lead Agent\", of Web site)")),
                "{error}"
            );
            assert!(
                error.contains(&format!("agent {OTHER} (\"Lead Agent\", of Newsletter)")),
                "{error}"
            );
            assert!(error.contains("BOARD/NAME"), "{error}");
        }
    }

    #[test]
    fn what_was_written_in_full_goes_before_what_was_shortened() {
        let mut names = references();
        names.0[3].name = "0c1".to_owned();
        assert_eq!(names.agent("0c1").unwrap().0, id(WREN));
    }

    #[test]
    fn what_is_unknown_is_told_with_the_closest_names_and_where_to_look() {
        let error = agent("Wrenn").unwrap_err();
        assert_eq!(
            error,
            format!(
                "there is no agent \"Wrenn\"; do you mean \"Wren\" ({WREN})? `openclaw-controller get agents -o wide` lists them \
                 with their ids"
            )
        );
        let error = agent("Zzz").unwrap_err();
        assert_eq!(
            error,
            "there is no agent \"Zzz\"; `openclaw-controller get agents -o wide` lists them with their ids"
        );
        let error = agent("site").unwrap_err();
        assert!(error.contains("it is a board"), "{error}");
        assert!(agent(" ").unwrap_err().contains("a blank is no agent"));
    }
}
