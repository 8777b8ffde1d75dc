//! What a request asks for: the query of its URL, read strictly, so that a misspelt filter does not look like one that found
//! everything.

use axum::http::StatusCode;
use url::form_urlencoded;
use uuid::Uuid;

use super::answer::Problem;
use crate::model::{AgentId, BoardId, GatewayId, ObjectRef};
use crate::store::{EventFilter, ViewFilter, Window};

/// How many are shown if nothing was said.
const LIMIT: u32 = 50;
/// How many are shown at most.
const MOST: u32 = 500;
/// How long a text to search for may be, in characters.
const SEARCH: usize = 200;

/// What can be asked for of each kind.
pub(super) const OVERVIEW: &[&str] = &["search", "ready"];
pub(super) const GATEWAYS: &[&str] = &["search", "ready", "limit", "offset"];
pub(super) const BOARDS: &[&str] = &["search", "ready", "gateway", "limit", "offset"];
pub(super) const AGENTS: &[&str] = &["search", "ready", "gateway", "board", "limit", "offset"];
pub(super) const EVENTS: &[&str] = &["search", "type", "gateway", "agent", "limit", "offset"];
pub(super) const NOTHING: &[&str] = &[];

/// A query as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) search: Option<String>,
    pub(super) ready: Option<bool>,
    pub(super) gateway: Option<Uuid>,
    pub(super) board: Option<Uuid>,
    pub(super) agent: Option<Uuid>,
    pub(super) warning: Option<bool>,
    limit: Option<u32>,
    offset: u64,
}

impl Asked {
    /// Reads a query that may have these parameters. Empty ones are none: forms send them.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(bad(&if known.is_empty() {
                    format!("There is no parameter {name:?}: this takes none.")
                } else {
                    format!("There is no parameter {name:?}. There are: {}.", known.join(", "))
                }));
            }
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            match name.as_ref() {
                "search" if value.chars().count() > SEARCH => {
                    return Err(bad(&format!("search may have {SEARCH} characters at most.")));
                }
                // Postgres has no NUL in any text.
                "search" => asked.search = Some(value.replace('\0', "\u{FFFD}")),
                "ready" => asked.ready = Some(one_of("ready", value, [("true", true), ("false", false)])?),
                "type" => asked.warning = Some(one_of("type", value, [("Warning", true), ("Normal", false)])?),
                "gateway" => asked.gateway = Some(id("gateway", value)?),
                "board" => asked.board = Some(id("board", value)?),
                "agent" => asked.agent = Some(id("agent", value)?),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    asked.limit = Some(limit.ok_or_else(|| bad(&format!("limit must be a number from 1 to {MOST}.")))?);
                }
                _ => {
                    let offset: Option<u32> = value.parse().ok();
                    let offset = offset.ok_or_else(|| bad("offset must be a number, 0 or more, and not huge."))?;
                    asked.offset = offset.into();
                }
            }
        }
        if asked.gateway.is_some() && asked.agent.is_some() {
            return Err(bad(
                "Events are those of a gateway or those of an agent: give one of the two.",
            ));
        }
        Ok(asked)
    }

    /// Which part of the list.
    pub(super) fn window(&self) -> Window {
        Window {
            offset: self.offset,
            limit: self.limit.unwrap_or(LIMIT),
        }
    }

    /// Which gateways, boards or agents.
    pub(super) fn filter(&self) -> ViewFilter {
        ViewFilter {
            id: None,
            gateway: self.gateway.map(GatewayId),
            board: self.board.map(BoardId),
            search: self.search.clone(),
            ready: self.ready,
        }
    }

    /// Which events.
    pub(super) fn events(&self) -> EventFilter {
        let gateway = self.gateway.map(|id| ObjectRef::Gateway(GatewayId(id)));
        EventFilter {
            id: None,
            object: gateway.or(self.agent.map(|id| ObjectRef::Agent(AgentId(id)))),
            warning: self.warning,
            search: self.search.clone(),
        }
    }

    /// The query that asks for the same from another place on; with a leading question mark, if there is anything to ask.
    pub(super) fn at(&self, offset: u64) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let texts = [
            ("search", self.search.clone()),
            ("ready", self.ready.map(|ready| ready.to_string())),
            (
                "type",
                self.warning
                    .map(|warning| if warning { "Warning" } else { "Normal" }.to_owned()),
            ),
            ("gateway", self.gateway.map(|id| id.to_string())),
            ("board", self.board.map(|id| id.to_string())),
            ("agent", self.agent.map(|id| id.to_string())),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("offset", (offset > 0).then(|| offset.to_string())),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        let query = query.finish();
        if query.is_empty() { query } else { format!("?{query}") }
    }
}

fn bad(text: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, text)
}

fn id(name: &str, value: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(value).map_err(|_| {
        bad(&format!(
            "{name} must be an id such as 3f0c8a52-9c1e-4d6b-8a70-5b1d2c3e4f50; names are found by search."
        ))
    })
}

fn one_of(name: &str, value: &str, choices: [(&str, bool); 2]) -> Result<bool, Problem> {
    let found = choices.iter().find(|(text, _)| text.eq_ignore_ascii_case(value));
    found
        .map(|(_, chosen)| *chosen)
        .ok_or_else(|| bad(&format!("{name} must be {} or {}.", choices[0].0, choices[1].0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly_and_written_as_it_was_read() {
        let id = "3f0c8a52-9c1e-4d6b-8a70-5b1d2c3e4f50";
        let query = format!("search=%3Cb%3E+x&ready=FALSE&board={id}&limit=10&offset=20&gateway=");
        let asked = Asked::read(Some(&query), AGENTS).unwrap();
        assert_eq!(asked.search.as_deref(), Some("<b> x"));
        assert_eq!((asked.ready, asked.gateway), (Some(false), None));
        assert_eq!(asked.window(), Window { offset: 20, limit: 10 });
        let again = asked.at(30);
        assert_eq!(
            again,
            format!("?search=%3Cb%3E+x&ready=false&board={id}&limit=10&offset=30")
        );
        assert_eq!(Asked::read(Some(&again[1..]), AGENTS).unwrap().at(30), again);
        assert_eq!(Asked::read(None, NOTHING).unwrap().at(0), "");
        for bad in [
            "serach=x",
            "ready=maybe",
            "board=x",
            "limit=0",
            "limit=501",
            "limit=-1",
            "offset=-1",
            "offset=99999999999",
        ] {
            assert!(Asked::read(Some(bad), AGENTS).is_err(), "{bad}");
        }
        let long = format!("search={}", "x".repeat(SEARCH + 1));
        assert!(Asked::read(Some(&long), AGENTS).is_err());
        assert!(Asked::read(Some(&format!("gateway={id}&agent={id}")), EVENTS).is_err());
    }
}
