//! Files: lists of them, their texts, and the tokens in those.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::assert_presentable;
use crate::gateway::heard;
use crate::model::TOKEN_SENTINEL;
use crate::plan::ObservedFile;
use crate::token::{extract, insert, redact};

/// Reads the input as what `agents.files.list`, `get` and `set` answered; what is no JSON is the text of a file.
pub(super) fn run(input: &[u8]) {
    match serde_json::from_slice::<Value>(input) {
        Ok(payload) => answers(&payload),
        Err(_) => text(&String::from_utf8_lossy(input)),
    }
}

fn answers(payload: &Value) {
    match heard::files_list(payload) {
        Ok(files) => assert!(files.len() <= payload.to_string().len()),
        Err(error) => assert_presentable(&error),
    }
    if let Some(found) = heard::file_set(payload).text {
        text(&found);
    }
    match heard::file(payload) {
        Ok(file) => text(&file.text),
        Err(error) => assert_presentable(&error),
    }
}

/// Whatever a file holds, its tokens can be taken out and put in, and none is left where none should be.
fn text(text: &str) {
    let found = extract(text);
    assert!(
        !redact(text, None).contains(TOKEN_SENTINEL),
        "a sentinel of somebody else's"
    );
    for token in found.tokens() {
        let plain = token.expose_secret();
        assert!(!plain.is_empty() && text.contains(plain));
        let redacted = redact(text, Some(plain));
        if !overlaps(plain) {
            assert!(!redacted.contains(plain), "a token is left");
            let again = extract(&redacted);
            assert!(again.tokens().iter().all(|other| other.expose_secret() != plain));
            if !text.contains("__OPENCLAW_AGENT_TOKEN") {
                assert_eq!(insert(&redacted, token), text, "what was taken out can be put in");
            }
        }
        let other = SecretString::from("u2Vx-0kq9_Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8KyM");
        let rotated = insert(&redacted, &other);
        assert!(!rotated.contains(TOKEN_SENTINEL), "a place for the token is left empty");
    }
    let _ = ObservedFile::digest(text);
    assert!(!format!("{found:?}").contains("AUTH_TOKEN"));
}

/// Whether a token and the sentinel in its place, or what stands beside that, can look like the token again. None of our own
/// making is such in any text that is not made to be.
fn overlaps(token: &str) -> bool {
    TOKEN_SENTINEL.contains(token)
        || (1..=token.len()).any(|length| {
            let (begin, end) = (token.get(..length), token.get(token.len() - length..));
            begin.is_some_and(|begin| TOKEN_SENTINEL.ends_with(begin))
                || end.is_some_and(|end| TOKEN_SENTINEL.starts_with(end))
        })
}
