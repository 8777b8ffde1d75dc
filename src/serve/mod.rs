//! HTTP: the status page and the API, metrics, probes, and where agents check in.
//!
//! Three pages for machines and for whoever is on call: `/metrics`, `/healthz` (this process can answer) and `/readyz` (it can
//! do its work, check by check). All are plain text, small, and without secrets. One for agents: `/api/v1/agent/heartbeat`. All others
//! (`page`) show what there is, to people and to programs.

mod agents;
mod connection;
mod health;
mod limits;
mod page;
mod ready;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::agents::{AgentRoutes, HEARTBEAT_PATH};
use self::connection::{AGENT_CONNECTIONS, Bounded, CONNECTIONS, Peer};
pub use self::health::{Check, Health};
pub use self::page::{Access, PageRoutes};

/// How long a page may take. They are computed from memory: one that takes longer never comes.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How long open requests may go on when the server is stopped.
pub const DRAIN: Duration = Duration::from_secs(2);

/// The largest request body, in bytes. No page wants one; a check-in has a limit of its own.
const BODY_LIMIT: usize = 1_024;

const HELP: &str = "This is openclaw-controller. Pages:\n  /         what there is\n  /metrics  metrics in Prometheus' text format\n  /healthz  whether \
                    the process is alive\n  /readyz   whether it can do its work, check by check\n";

/// What the pages are made from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServeState {
    /// The metrics to expose; clones of a registry are the same registry.
    pub registry: Registry,
    /// The checks behind `/readyz`.
    pub health: Health,
    /// Where agents check in, if they do so on this listener.
    pub agents: Option<AgentRoutes>,
    /// The status page and the API, if they are served.
    pub page: Option<PageRoutes>,
}

/// Serves until `cancel` fires, then lets open requests end for two seconds at most.
///
/// # Errors
/// When the listener itself fails; a failing connection never ends it.
pub async fn serve(listener: TcpListener, state: ServeState, cancel: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    info!(%address, "serving the status page at /, /api/v1, /metrics, /healthz and /readyz");
    serve_router(Bounded::new(listener, CONNECTIONS), router(state), cancel).await
}

/// Serves nothing but the pages for agents, as [`serve`] does.
///
/// # Errors
/// When the listener itself fails; a failing connection never ends it.
pub async fn serve_agents(listener: TcpListener, agents: AgentRoutes, cancel: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    info!(%address, "serving {HEARTBEAT_PATH}");
    let router = agents
        .router()
        .fallback(async || (StatusCode::NOT_FOUND, format!("There is only {HEARTBEAT_PATH} here.\n")))
        .layer(middleware::from_fn(bounded));
    serve_router(Bounded::new(listener, AGENT_CONNECTIONS), router, cancel).await
}

async fn serve_router(listener: Bounded, router: Router, cancel: CancellationToken) -> io::Result<()> {
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(cancel.clone().cancelled_owned())
        .into_future();
    tokio::select! {
        result = server => result,
        () = async { cancel.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            warn!("a request was still open when the server stopped");
            Ok(())
        }
    }
}

fn router(state: ServeState) -> Router {
    let agents = state.agents.clone().map(AgentRoutes::router);
    let agents = agents.unwrap_or_else(|| Router::new().route(HEARTBEAT_PATH, any(elsewhere)));
    let page = state.page.clone().map(PageRoutes::router);
    let page = page.unwrap_or_else(|| Router::new().route("/", get(async || HELP)));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .fallback(async || (StatusCode::NOT_FOUND, format!("There is no such page.\n{HELP}")))
        .method_not_allowed_fallback(async |method: Method| {
            let text = format!("{method} is not allowed here: pages can only be read (GET).\n");
            (StatusCode::METHOD_NOT_ALLOWED, text)
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(state)
        .merge(page)
        .merge(agents)
        .layer(middleware::from_fn(bounded))
}

/// Whoever comes here to check in has the wrong address, whatever it takes to look at the page.
async fn elsewhere() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "Agents check in at another address here: that of --agent-listen.\n",
    )
}

/// Gives every request a deadline, and keeps answers out of caches: all of them are about now.
async fn bounded(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| {
        let text = format!("The page did not come within {} s.\n", REQUEST_DEADLINE.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    });
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn metrics(State(state): State<ServeState>) -> Response {
    match TextEncoder::new().encode_to_string(&state.registry.gather()) {
        Ok(text) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(error) => {
            warn!(%error, "cannot encode the metrics");
            let text = format!("The metrics cannot be encoded, which is a defect of this program: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

async fn readyz(State(state): State<ServeState>) -> (StatusCode, String) {
    let (ready, text) = state.health.report();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text)
}
