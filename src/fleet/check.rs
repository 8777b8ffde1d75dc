//! What values have to be like before they are written. What a row holds already is never complained about.

use url::Url;

use super::model::STORED_TOKEN;
use crate::model::{TokenSetting, VARIABLE_PREFIX};

/// What an exported file says in the place of a URL's query, which may hold a secret. It is taken for "as it is".
pub(super) const STORED_QUERY: &str = "in-the-database";

/// What is wrong with the URL of a gateway, if anything is. The URL is not repeated.
pub(super) fn url(text: &str) -> Option<String> {
    let url = match Url::parse(text.trim()) {
        Ok(url) => url,
        Err(error) => {
            return Some(format!(
                "this is no URL ({error}): a gateway's begins with ws:// or wss://"
            ));
        }
    };
    if !matches!(url.scheme(), "ws" | "wss") {
        return Some(format!(
            "the URL's scheme is `{}`: a gateway's is ws or wss",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("the URL holds a user name or password, which gateways do not take".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Some("the URL names no host".to_owned());
    }
    (url.port_or_known_default() == Some(0)).then(|| "the URL names no port".to_owned())
}

/// What is wrong with what the file says about a token, if anything is. It is not repeated: it may be the token.
pub(super) fn token(text: &str) -> Option<String> {
    if is_stored_token(text) || TokenSetting::of(text).is_plausible() {
        return None;
    }
    Some(format!(
        "a token is never in this file: put it where the controller runs, and write env:{VARIABLE_PREFIX}<NAME> (an environment \
         variable) or file:<path> (a file below --gateway-token-dir) here"
    ))
}

/// Whether this says that a token stays as it is in the database.
pub(super) fn is_stored_token(text: &str) -> bool {
    text.trim() == STORED_TOKEN
}

/// The URL without what may hold a secret, or `None` if it holds nothing such.
pub(super) fn without_secrets(text: &str) -> Option<String> {
    let (before, fragment) = text
        .split_once('#')
        .map_or((text, None), |(before, after)| (before, Some(after)));
    let (before, query) = before
        .split_once('?')
        .map_or((before, None), |(before, after)| (before, Some(after)));
    let credentials = before
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
    if query.is_none() && fragment.is_none() && !credentials {
        return None;
    }
    let before = match before.split_once("://") {
        Some((scheme, rest)) if credentials => {
            let (host, path) = rest
                .split_once('/')
                .map_or((rest, None), |(host, path)| (host, Some(path)));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            path.map_or_else(
                || format!("{scheme}://{host}"),
                |path| format!("{scheme}://{host}/{path}"),
            )
        }
        _ => before.to_owned(),
    };
    Some(format!("{before}?{STORED_QUERY}"))
}

/// The URL that the file means: where it says so, with the query of the one that is stored.
///
/// # Errors
/// When nothing is stored.
pub(super) fn meant_url(given: &str, stored: Option<&str>) -> Result<String, String> {
    if !given.ends_with(&format!("?{STORED_QUERY}")) {
        return Ok(given.to_owned());
    }
    let Some(stored) = stored else {
        return Err(
            "the query of this URL is not in the file, and there is no gateway yet that has one: write it out"
                .to_owned(),
        );
    };
    if without_secrets(stored).as_deref() == Some(given) {
        return Ok(stored.to_owned());
    }
    let query = stored.split_once('?').map(|(_, query)| query);
    match (given.strip_suffix(STORED_QUERY), query) {
        (Some(before), Some(query)) => Ok(format!("{before}{query}")),
        _ => Err(
            "the query of this URL is not in the file, and the one in the database has none: write it out".to_owned(),
        ),
    }
}
