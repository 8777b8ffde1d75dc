//! The page itself: made here, complete without any script; a script only keeps it fresh.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use chrono::{DateTime, Utc};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::json;

use super::answer::Problem;
use super::desk::{Desk, list};
use super::query::{self, Asked};
use crate::model::{BoardId, ObjectRef};
use crate::store::{EventFilter, ViewFilter, ViewStore, Window};
use crate::view;

/// How many of each the first page and those of single objects show.
const FEW: Window = Window { offset: 0, limit: 25 };

const SCRIPT: &str = include_str!("static/page.js");
const STYLE: &str = include_str!("static/page.css");
const ICON: &str = include_str!("static/icon.svg");

/// The templates. Everything that is put into them is escaped.
pub(super) struct Templates(Environment<'static>);

impl Default for Templates {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_loader(|name| Ok(source(name).map(str::to_owned)));
        environment.add_filter("ago", ago);
        environment.add_filter("short", short);
        Self(environment)
    }
}

impl Templates {
    /// Fills a template in.
    pub(super) fn render(&self, name: &str, context: impl Serialize) -> Result<String, minijinja::Error> {
        self.0.get_template(name)?.render(Serde(context))
    }

    fn page(&self, name: &str, context: impl Serialize) -> Response {
        match self.render(name, context) {
            Ok(html) => Html(html).into_response(),
            Err(error) => {
                tracing::warn!(template = name, %error, "a page cannot be made, which is a defect of this program");
                let text = "The page cannot be made, which is a defect of this program; its log says more.";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, text).page(self)
            }
        }
    }
}

fn source(name: &str) -> Option<&'static str> {
    Some(match name {
        "layout.html" => include_str!("templates/layout.html"),
        "parts.html" => include_str!("templates/parts.html"),
        "overview.html" => include_str!("templates/overview.html"),
        "list.html" => include_str!("templates/list.html"),
        "gateway.html" => include_str!("templates/gateway.html"),
        "board.html" => include_str!("templates/board.html"),
        "agent.html" => include_str!("templates/agent.html"),
        "problem.html" => include_str!("templates/problem.html"),
        _ => return None,
    })
}

/// How long ago an instant was.
fn ago(at: &str) -> String {
    match DateTime::parse_from_rfc3339(at) {
        Ok(at) => format!("{} ago", view::ago(Utc::now().signed_duration_since(at))),
        Err(_) => at.to_owned(),
    }
}

/// An instant, to the second.
fn short(at: &str) -> String {
    match DateTime::parse_from_rfc3339(at) {
        Ok(at) => at.to_utc().format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => at.to_owned(),
    }
}

pub(super) fn router<S: ViewStore>() -> Router<Arc<Desk<S>>> {
    let file = |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/", get(overview::<S>))
        .route("/gateways", get(gateways::<S>))
        .route("/gateways/{id}", get(gateway::<S>))
        .route("/boards", get(boards::<S>))
        .route("/boards/{id}", get(board::<S>))
        .route("/agents", get(agents::<S>))
        .route("/agents/{id}", get(agent::<S>))
        .route("/events", get(events::<S>))
        .route("/static/page.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/static/page.css", file("text/css; charset=utf-8", STYLE))
        .route("/static/icon.svg", file("image/svg+xml", ICON))
        .method_not_allowed_fallback(only_reads)
}

async fn only_reads(method: Method) -> Response {
    let text = format!("{method} is not allowed here: pages can only be read (GET).\n");
    let mut response = (StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    let allow = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

type Desks<S> = State<Arc<Desk<S>>>;

/// Answers with what was made, or with a page that says why not.
macro_rules! page {
    ($desk:ident, $made:expr) => {{
        let made: Result<Response, Problem> = async { $made }.await;
        made.unwrap_or_else(|problem| problem.page(&$desk.templates))
    }};
}

async fn overview<S: ViewStore>(State(desk): Desks<S>, RawQuery(query): RawQuery) -> Response {
    page!(desk, {
        let asked = Asked::read(query.as_deref(), query::OVERVIEW)?;
        let _turn = desk.turn().await?;
        let filter = asked.filter();
        let events = EventFilter {
            search: asked.search.clone(),
            ..EventFilter::default()
        };
        let ((overview, gateways, boards), (agents, events)) = tokio::try_join!(
            async {
                Ok((
                    desk.overview().await?,
                    desk.gateways(&filter, FEW).await?,
                    desk.boards(&filter, FEW).await?,
                ))
            },
            async { Ok::<_, Problem>((desk.agents(&filter, FEW).await?, desk.events(&events, FEW).await?)) },
        )?;
        let narrowed = asked.at(0);
        let mut of_events = asked.clone();
        of_events.ready = None;
        Ok(desk.templates.page(
            "overview.html",
            json!({
                "title": "Overview",
                "here": "overview",
                "action": "/",
                "overview": overview,
                "search": asked.search,
                "not_ready": asked.ready == Some(false),
                "can_filter": true,
                "gateways": list(gateways, "/gateways", &asked),
                "boards": list(boards, "/boards", &asked),
                "agents": list(agents, "/agents", &asked),
                "events": list(events, "/events", &asked),
                "all_gateways": format!("/gateways{narrowed}"),
                "all_boards": format!("/boards{narrowed}"),
                "all_agents": format!("/agents{narrowed}"),
                "all_events": format!("/events{}", of_events.at(0)),
            }),
        ))
    })
}

/// The page of all objects of a kind.
fn listed<S: ViewStore>(desk: &Desk<S>, kind: &str, asked: &Asked, list: &impl Serialize) -> Response {
    let (title, unit) = match kind {
        "gateways" => ("Gateways", "gateway"),
        "boards" => ("Boards", "board"),
        "agents" => ("Agents", "agent"),
        _ => ("Events", "event"),
    };
    desk.templates.page(
        "list.html",
        json!({
            "title": title,
            "unit": unit,
            "here": kind,
            "kind": kind,
            "action": format!("/{kind}"),
            "list": list,
            "search": asked.search,
            "not_ready": asked.ready == Some(false),
            "can_filter": kind != "events",
            "hidden": { "gateway": asked.gateway, "board": asked.board, "agent": asked.agent },
            "warnings": asked.warning == Some(true),
        }),
    )
}

async fn gateways<S: ViewStore>(State(desk): Desks<S>, RawQuery(query): RawQuery) -> Response {
    page!(desk, {
        let asked = Asked::read(query.as_deref(), query::GATEWAYS)?;
        let _turn = desk.turn().await?;
        let found = desk.gateways(&asked.filter(), asked.window()).await?;
        Ok(listed(&desk, "gateways", &asked, &list(found, "/gateways", &asked)))
    })
}

async fn boards<S: ViewStore>(State(desk): Desks<S>, RawQuery(query): RawQuery) -> Response {
    page!(desk, {
        let asked = Asked::read(query.as_deref(), query::BOARDS)?;
        let _turn = desk.turn().await?;
        let found = desk.boards(&asked.filter(), asked.window()).await?;
        Ok(listed(&desk, "boards", &asked, &list(found, "/boards", &asked)))
    })
}

async fn agents<S: ViewStore>(State(desk): Desks<S>, RawQuery(query): RawQuery) -> Response {
    page!(desk, {
        let asked = Asked::read(query.as_deref(), query::AGENTS)?;
        let _turn = desk.turn().await?;
        let found = desk.agents(&asked.filter(), asked.window()).await?;
        Ok(listed(&desk, "agents", &asked, &list(found, "/agents", &asked)))
    })
}

async fn events<S: ViewStore>(State(desk): Desks<S>, RawQuery(query): RawQuery) -> Response {
    page!(desk, {
        let asked = Asked::read(query.as_deref(), query::EVENTS)?;
        let _turn = desk.turn().await?;
        let found = desk.events(&asked.events(), asked.window()).await?;
        Ok(listed(&desk, "events", &asked, &list(found, "/events", &asked)))
    })
}

async fn gateway<S: ViewStore>(State(desk): Desks<S>, Path(id): Path<String>) -> Response {
    page!(desk, {
        let _turn = desk.turn().await?;
        let (id, gateway) = desk.gateway(&id).await?;
        let filter = ViewFilter {
            gateway: Some(id),
            ..ViewFilter::default()
        };
        let events = EventFilter {
            object: Some(ObjectRef::Gateway(id)),
            ..EventFilter::default()
        };
        let (boards, agents) = (desk.boards(&filter, FEW), desk.agents(&filter, FEW));
        let (boards, agents, events) = tokio::try_join!(boards, agents, desk.events(&events, FEW))?;
        let asked = Asked::default();
        Ok(desk.templates.page(
            "gateway.html",
            json!({
                "title": format!("Gateway {}", gateway.name),
                "here": "gateways",
                "gateway": gateway,
                "boards": list(boards, "/boards", &asked),
                "agents": list(agents, "/agents", &asked),
                "events": list(events, "/events", &asked),
            }),
        ))
    })
}

async fn board<S: ViewStore>(State(desk): Desks<S>, Path(id): Path<String>) -> Response {
    page!(desk, {
        let _turn = desk.turn().await?;
        let (id, board) = desk.board(&id).await?;
        let filter = ViewFilter {
            board: Some(BoardId(id)),
            ..ViewFilter::default()
        };
        let agents = desk.agents(&filter, FEW).await?;
        Ok(desk.templates.page(
            "board.html",
            json!({
                "title": format!("Board {}", board.name),
                "here": "boards",
                "board": board,
                "agents": list(agents, "/agents", &Asked::default()),
            }),
        ))
    })
}

async fn agent<S: ViewStore>(State(desk): Desks<S>, Path(id): Path<String>) -> Response {
    page!(desk, {
        let _turn = desk.turn().await?;
        let (id, agent) = desk.agent(&id).await?;
        let events = EventFilter {
            object: Some(ObjectRef::Agent(id)),
            ..EventFilter::default()
        };
        let events = desk.events(&events, FEW).await?;
        Ok(desk.templates.page(
            "agent.html",
            json!({
                "title": format!("Agent {}", agent.name),
                "here": "agents",
                "agent": agent,
                "events": list(events, "/events", &Asked::default()),
            }),
        ))
    })
}
