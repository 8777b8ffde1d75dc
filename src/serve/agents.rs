//! Agents check in: `POST /api/v1/agent/heartbeat` with the agent's token in `X-Agent-Token`.
//!
//! Every replica serves it. A token is looked up by its SHA-256 through an index, so a wrong one costs one query at most and
//! never a key derivation; one that does not even look like a token costs nothing. All wrong tokens get the same answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::SecondsFormat;
use prometheus::{IntCounterVec, Registry};
use serde_json::json;

use super::connection::Peer;
use super::limits::Limits;
use crate::store::{CheckInStore, CheckedIn};
use crate::token;

/// Where agents check in.
pub const HEARTBEAT_PATH: &str = "/api/v1/agent/heartbeat";

/// The header that holds an agent's token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-agent-token");

/// The largest body of a check-in, in bytes. What it says is not used.
const BODY_LIMIT: usize = 64 * 1024;

/// How long the database may take: longer than a write waits for a row that another program holds.
const DATABASE_DEADLINE: Duration = Duration::from_secs(8);

/// When to come back if the database does not answer, in seconds.
const RETRY_AFTER: u64 = 5;

/// How a check-in ended: the label `outcome`.
#[derive(Clone, Copy)]
enum Outcome {
    Accepted,
    Rejected,
    Limited,
    Error,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Accepted, Self::Rejected, Self::Limited, Self::Error];

    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Limited => "limited",
            Self::Error => "error",
        }
    }
}

/// The pages for agents. A cheap handle.
#[derive(Clone)]
pub struct AgentRoutes(Router);

impl fmt::Debug for AgentRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentRoutes").finish_non_exhaustive()
    }
}

impl AgentRoutes {
    /// Builds them, and registers the metric `openclaw_controller_checkins_total{outcome}`, all at zero.
    ///
    /// # Errors
    /// When the metric is registered already.
    pub fn new<S: CheckInStore>(store: Arc<S>, registry: &Registry) -> prometheus::Result<Self> {
        let outcomes = IntCounterVec::new(
            prometheus::Opts::new(
                "openclaw_controller_checkins_total",
                "Check-ins of agents, by what became of them",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        for outcome in Outcome::ALL {
            outcomes.with_label_values(&[outcome.label()]);
        }
        let desk = Desk {
            store,
            limits: Arc::default(),
            outcomes,
        };
        let heartbeat = post(heartbeat::<S>).fallback(only_posts);
        Ok(Self(Router::new().route(HEARTBEAT_PATH, heartbeat).with_state(desk)))
    }

    pub(super) fn router(self) -> Router {
        self.0
    }
}

/// Where check-ins are answered.
struct Desk<S> {
    store: Arc<S>,
    limits: Arc<Limits>,
    outcomes: IntCounterVec,
}

impl<S> Clone for Desk<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            limits: Arc::clone(&self.limits),
            outcomes: self.outcomes.clone(),
        }
    }
}

async fn heartbeat<S: CheckInStore>(
    State(desk): State<Desk<S>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (outcome, response) = desk.answer(peer, request).await;
    desk.outcomes.with_label_values(&[outcome.label()]).inc();
    response
}

impl<S: CheckInStore> Desk<S> {
    async fn answer(&self, peer: Peer, request: Request) -> (Outcome, Response) {
        if let Err(wait) = self.limits.request(peer.0) {
            return limited(wait);
        }
        let (parts, body) = request.into_parts();
        let Some(digest) = digest(&parts.headers) else {
            return self.reject(peer);
        };
        if to_bytes(body, BODY_LIMIT).await.is_err() {
            let text = format!("A check-in needs no body, and may have one of {BODY_LIMIT} bytes at most.");
            return (Outcome::Rejected, answer(StatusCode::PAYLOAD_TOO_LARGE, &text));
        }
        match tokio::time::timeout(DATABASE_DEADLINE, self.store.check_in(&digest)).await {
            Ok(Ok(Some(seen))) => {
                tracing::debug!(agent = %seen.agent, "checked in");
                (Outcome::Accepted, accepted(&seen))
            }
            Ok(Ok(None)) => self.reject(peer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a check-in could not be recorded");
                unavailable()
            }
            Err(_) => {
                tracing::debug!("a check-in could not be recorded: the database did not answer in time");
                unavailable()
            }
        }
    }

    /// The one answer to every token that is nobody's, whatever is wrong with it.
    fn reject(&self, peer: Peer) -> (Outcome, Response) {
        if let Err(wait) = self.limits.failure(peer.0) {
            return limited(wait);
        }
        let mut response = answer(
            StatusCode::UNAUTHORIZED,
            "Not the token of any agent. Send the AUTH_TOKEN of your workspace's files in the header X-Agent-Token.",
        );
        let scheme = HeaderValue::from_static("AgentToken header=\"X-Agent-Token\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        (Outcome::Rejected, response)
    }
}

/// The digest of the one token that a request shows, if it could be an agent's.
fn digest(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(TOKEN_HEADER).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    // Its length is looked at first: nothing of a huge one is read.
    let token = value.to_str().ok().filter(|token| token::is_minted_form(token))?;
    Some(token::fingerprint(token))
}

fn accepted(seen: &CheckedIn) -> Response {
    let body = json!({
        "agent_id": seen.agent,
        "name": seen.name,
        "status": seen.status,
        "last_seen_at": seen.last_seen_at.to_rfc3339_opts(SecondsFormat::Micros, true),
    });
    Json(body).into_response()
}

fn limited(wait: Duration) -> (Outcome, Response) {
    let seconds = wait.as_secs().saturating_add(1);
    let response = answer(StatusCode::TOO_MANY_REQUESTS, "Too many requests from your address.");
    (Outcome::Limited, retry_after(response, seconds))
}

fn unavailable() -> (Outcome, Response) {
    let response = answer(StatusCode::SERVICE_UNAVAILABLE, "The check-in could not be recorded.");
    (Outcome::Error, retry_after(response, RETRY_AFTER))
}

fn retry_after(mut response: Response, seconds: u64) -> Response {
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn answer(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn only_posts(method: Method) -> Response<Body> {
    let text = format!("{method} is not allowed here: an agent checks in with POST.");
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, &text);
    let allow = HeaderValue::from_static("POST");
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
