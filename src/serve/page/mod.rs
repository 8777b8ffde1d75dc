//! The status page and the JSON API: what there is, read only.
//!
//! Both show the same, from the database, so that every replica can; what the one that works knows besides (what differs, when it is
//! tried again) is added where this is that one. Whoever looks waits for others who look, never the controller for them: there are a
//! few turns, a few connections to the database of their own, and a deadline for each.

mod access;
mod answer;
mod api;
mod desk;
mod html;
mod item;
mod query;
mod stream;

use std::fmt;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use tokio_util::sync::CancellationToken;

pub use self::access::Access;
use self::desk::Desk;
use super::BODY_LIMIT;
use crate::reconcile::Live;
use crate::store::ViewStore;

/// Where the API is.
const API: &str = "/api/v1";

/// The status page and the API. A cheap handle.
#[derive(Clone)]
pub struct PageRoutes(Router);

impl fmt::Debug for PageRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageRoutes").finish_non_exhaustive()
    }
}

impl PageRoutes {
    /// Builds them. `stop` ends those that would not end by themselves.
    pub fn new<S: ViewStore>(store: Arc<S>, live: Live, access: Access, stop: CancellationToken) -> Self {
        let desk = Arc::new(Desk::new(store, live, stop));
        let router = html::router()
            .merge(api::router())
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .layer(middleware::map_response(async |response| answer::finish(response)))
            .layer(middleware::from_fn_with_state(access, access::admit))
            .with_state(desk);
        Self(router)
    }

    pub(super) fn router(self) -> Router {
        self.0
    }
}
