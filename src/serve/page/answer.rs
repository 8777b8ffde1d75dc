//! Answers that are not what was asked for, and what all answers have in common.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use super::API;
use super::html::Templates;
use crate::store::StoreError;

/// Nothing but what this server itself serves, nothing inline, no frames, no forms to elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// How long to wait before trying again if the database does not answer, in seconds.
const RETRY_AFTER: u64 = 5;

/// Puts the headers on an answer that all of them have.
pub(super) fn finish(mut response: Response) -> Response {
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    let resource = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (opener, "same-origin"),
        (resource, "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why something is not shown, in a sentence that says what to do.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    text: String,
    retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            retry_after: None,
        }
    }

    /// Says when to come back, in seconds.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    fn retry_header(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// For programs.
    pub(super) fn json(&self) -> Response {
        self.retry_header((self.status, Json(json!({ "error": self.text }))).into_response())
    }

    /// For people; as plain text if even that page cannot be made.
    pub(super) fn page(&self, templates: &Templates) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let context = json!({ "title": title, "text": self.text, "here": "" });
        let response = match templates.render("problem.html", context) {
            Ok(html) => (self.status, Html(html)).into_response(),
            Err(_) => self.plain(),
        };
        self.retry_header(response)
    }

    /// For people whom nothing is to be shown of.
    fn plain(&self) -> Response {
        (self.status, format!("{}\n", self.text)).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::debug!(%error, "a page could not be shown");
        let status = if error.is_transient() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self::new(status, error.to_string()).retry_after(RETRY_AFTER)
    }
}

/// A request that is not let in: in the form of what it is about.
pub(super) fn refusal(uri: &Uri, problem: &Problem) -> Response {
    let response = if uri.path().starts_with(API) {
        problem.json()
    } else {
        problem.retry_header(problem.plain())
    };
    finish(response)
}
