//! Who may look: whoever knows the token, if there is one; without one, whoever reaches the listener by an address, not by a name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::answer::{self, Problem};
use crate::serve::connection::Peer;
use crate::serve::limits::Limits;

/// What browsers are told to ask their user for.
const BASIC: &str = "Basic realm=\"openclaw-controller\", charset=\"UTF-8\"";
const BEARER: &str = "Bearer realm=\"openclaw-controller\"";

/// The largest `Authorization` header that is looked at, in bytes.
const LARGEST: usize = 4 * 1024;

/// Who may look at the page and use the API. A cheap handle.
#[derive(Clone)]
pub struct Access {
    /// The token's digest: comparing digests tells nothing of how much of a token was right, not even its length.
    token: Option<[u8; 32]>,
    /// Whether only those on this machine reach the listener.
    local: bool,
    limits: Arc<Limits>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Access");
        shown.field("token", &self.token.is_some()).field("local", &self.local);
        shown.finish_non_exhaustive()
    }
}

impl Access {
    /// Whoever has the token, if there is one. `listening`: the address of the listener.
    pub fn new(token: Option<&SecretString>, listening: IpAddr) -> Self {
        Self {
            token: token.map(|token| digest(token.expose_secret())),
            local: listening.is_loopback(),
            limits: Arc::default(),
        }
    }

    /// Why a request is not let in; `None` if it is.
    fn refuse(&self, peer: Peer, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
        let Some(expected) = &self.token else {
            // A web site can have a name of its own resolve to this machine, and its visitors' browsers read what they get from
            // there. They send that name.
            if self.local && !host(uri, headers).is_some_and(is_address) {
                return Some(misdirected(uri));
            }
            return None;
        };
        let given = shown(headers);
        if let Some(given) = &given
            && bool::from(digest(given).ct_eq(expected))
        {
            return None;
        }
        // A browser's first request shows nothing: that is no guess.
        if given.is_some()
            && let Err(wait) = self.limits.failure(peer.0)
        {
            return Some(limited(uri, wait));
        }
        Some(unauthorized(uri))
    }
}

/// The layer that lets requests in.
pub(super) async fn admit(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match access.refuse(peer, request.uri(), request.headers()) {
        None => next.run(request).await,
        Some(refusal) => refusal,
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The token that a request shows: as `Bearer`, or as the password of `Basic`, whatever the user's name.
fn shown(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?;
    if value.len() > LARGEST {
        return Some(String::new());
    }
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Some(String::new());
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// The host that a request is for, without the port.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let host = match uri.host() {
        Some(host) => host,
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']'),
        None => Some(host.split_at(host.find(':').unwrap_or(host.len()))),
    };
    let (name, port) = bare?;
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

/// Whether a host is this machine whoever says so: an address, or `localhost`, which no name server is asked about.
fn is_address(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

fn misdirected(uri: &Uri) -> Response {
    let text = "Without a token this is shown only under an address (http://127.0.0.1:8080/) or localhost, so that no web site can \
                read it through a name of its own. To use another name, give the controller --page-token-file.";
    answer::refusal(uri, &Problem::new(StatusCode::MISDIRECTED_REQUEST, text))
}

fn unauthorized(uri: &Uri) -> Response {
    let text = "A token is needed: send it as `Authorization: Bearer …`, or, in a browser, as the password with any user name. It is \
                what the controller was given by --page-token-file or OPENCLAW_CONTROLLER_PAGE_TOKEN.";
    let mut response = answer::refusal(uri, &Problem::new(StatusCode::UNAUTHORIZED, text));
    for scheme in [BASIC, BEARER] {
        let scheme = HeaderValue::from_static(scheme);
        response.headers_mut().append(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

fn limited(uri: &Uri, wait: Duration) -> Response {
    let problem = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "Too many wrong tokens from your address. The right one is still taken.",
    );
    answer::refusal(uri, &problem.retry_after(wait.as_secs().saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_token_is_taken_as_bearer_or_as_a_password() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (value, token) in [
            ("Bearer abc".to_owned(), Some("abc")),
            ("bearer  abc ".to_owned(), Some("abc")),
            (basic("admin:abc"), Some("abc")),
            (basic(":a:b"), Some("a:b")),
            (basic("abc"), None),
            ("Basic ???".to_owned(), None),
            ("Digest abc".to_owned(), Some("")),
            (format!("Bearer {}", "a".repeat(LARGEST)), Some("")),
        ] {
            let found = shown(&headers(header::AUTHORIZATION, &value));
            assert_eq!(found.as_deref(), token, "{value:.40}");
        }
    }

    #[test]
    fn only_addresses_and_localhost_are_this_machine_whoever_says_so() {
        let uri = Uri::from_static("/");
        for (value, taken) in [
            ("127.0.0.1:8080", true),
            ("localhost", true),
            ("localhost.:8080", true),
            ("app.localhost:1", true),
            ("[::1]:8080", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("127.0.0.1:8080.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let headers = headers(header::HOST, value);
            assert_eq!(host(&uri, &headers).is_some_and(is_address), taken, "{value}");
        }
    }
}
