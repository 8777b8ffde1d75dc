//! The JSON API.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::answer::Problem;
use super::desk::{Desk, list};
use super::query::{self, Asked};
use super::{API, stream};
use crate::store::ViewStore;

/// What the API is, for programs.
const OPENAPI: &str = include_str!("openapi.json");

type Query = RawQuery;
type Answer = Result<Response, Refused>;

/// A problem, for programs.
struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.json()
    }
}

pub(super) fn router<S: ViewStore>() -> Router<Arc<Desk<S>>> {
    let api = Router::new()
        .route("/openapi.json", get(openapi))
        .route("/status", get(status::<S>))
        .route("/gateways", get(gateways::<S>))
        .route("/gateways/{id}", get(gateway::<S>))
        .route("/boards", get(boards::<S>))
        .route("/boards/{id}", get(board::<S>))
        .route("/agents", get(agents::<S>))
        .route("/agents/{id}", get(agent::<S>))
        .route("/events", get(events::<S>))
        .route("/events/stream", get(stream::follow::<S>))
        .route("/events/{id}", get(event::<S>))
        .method_not_allowed_fallback(only_reads)
        .fallback(no_such);
    Router::new().nest(API, api)
}

async fn only_reads(method: Method) -> Response {
    let text = format!("{method} is not allowed here: the API can only be read (GET).");
    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, text).json();
    let allow = header::HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

async fn no_such() -> Response {
    let text = format!(
        "There is no such thing in the API: {API}/openapi.json says what there is ({API}/gateways, {API}/boards, {API}/agents, \
         {API}/events, …)."
    );
    Problem::new(StatusCode::NOT_FOUND, text).json()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

fn json(value: impl Serialize) -> Response {
    Json(value).into_response()
}

async fn status<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, RawQuery(query): Query) -> Answer {
    Asked::read(query.as_deref(), query::NOTHING)?;
    let _turn = desk.turn().await?;
    Ok(json(desk.overview().await?))
}

async fn gateways<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, RawQuery(query): Query) -> Answer {
    let asked = Asked::read(query.as_deref(), query::GATEWAYS)?;
    let _turn = desk.turn().await?;
    let listed = desk.gateways(&asked.filter(), asked.window()).await?;
    Ok(json(list(listed, &format!("{API}/gateways"), &asked)))
}

async fn gateway<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, Path(id): Path<String>) -> Answer {
    let _turn = desk.turn().await?;
    Ok(json(desk.gateway(&id).await?.1))
}

async fn boards<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, RawQuery(query): Query) -> Answer {
    let asked = Asked::read(query.as_deref(), query::BOARDS)?;
    let _turn = desk.turn().await?;
    let listed = desk.boards(&asked.filter(), asked.window()).await?;
    Ok(json(list(listed, &format!("{API}/boards"), &asked)))
}

async fn board<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, Path(id): Path<String>) -> Answer {
    let _turn = desk.turn().await?;
    Ok(json(desk.board(&id).await?.1))
}

async fn agents<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, RawQuery(query): Query) -> Answer {
    let asked = Asked::read(query.as_deref(), query::AGENTS)?;
    let _turn = desk.turn().await?;
    let listed = desk.agents(&asked.filter(), asked.window()).await?;
    Ok(json(list(listed, &format!("{API}/agents"), &asked)))
}

async fn agent<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, Path(id): Path<String>) -> Answer {
    let _turn = desk.turn().await?;
    Ok(json(desk.agent(&id).await?.1))
}

async fn events<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, RawQuery(query): Query) -> Answer {
    let asked = Asked::read(query.as_deref(), query::EVENTS)?;
    let _turn = desk.turn().await?;
    let listed = desk.events(&asked.events(), asked.window()).await?;
    Ok(json(list(listed, &format!("{API}/events"), &asked)))
}

async fn event<S: ViewStore>(State(desk): State<Arc<Desk<S>>>, Path(id): Path<String>) -> Answer {
    let _turn = desk.turn().await?;
    Ok(json(desk.event(&id).await?))
}
