//! Reading what a gateway says of workspace files.

use std::fmt;

use serde_json::Value;

use super::error::GatewayError;
use crate::model::{FileContent, FileStat};

/// What the gateway said of a file that it took. The text may hold a secret: `Debug` does not show it.
#[derive(Clone, Default, PartialEq)]
pub struct SetOutcome {
    /// The hash of what it took, where the gateway gives one.
    pub hash: Option<String>,
    /// The size of what is there now in bytes, where it tells it.
    pub size: Option<u64>,
    /// When it was written in milliseconds, where the gateway tells it.
    pub updated_at_ms: Option<f64>,
    /// The text that it took, where it tells it. Together with the size this counts as having read it back, until somebody else may
    /// have written: known gateways repeat what they were sent, and look at size and time afterwards.
    pub text: Option<String>,
}

impl fmt::Debug for SetOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetOutcome")
            .field("hash", &self.hash)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The files that `agents.files.list` names.
pub(super) fn listed(payload: &Value) -> Result<Vec<FileStat>, GatewayError> {
    let files = payload
        .get("files")
        .or(Some(payload))
        .and_then(Value::as_array)
        .ok_or_else(|| GatewayError::protocol("the gateway's list of files is not an array"))?;
    files.iter().map(stat).collect()
}

fn stat(file: &Value) -> Result<FileStat, GatewayError> {
    let name = file
        .get("name")
        .and_then(Value::as_str)
        .ok_or_else(|| GatewayError::protocol("the gateway's list of files has one without a name"))?;
    Ok(FileStat {
        name: name.to_owned(),
        missing: file.get("missing").and_then(Value::as_bool).unwrap_or(false),
        size: file.get("size").and_then(Value::as_u64),
        updated_at_ms: file.get("updatedAtMs").and_then(Value::as_f64),
    })
}

/// The file that `agents.files.get` answers: a string, `{content}` or `{file: {content}}`.
pub(super) fn content(payload: &Value) -> Result<FileContent, GatewayError> {
    let file = payload.get("file").unwrap_or(payload);
    if let Some(text) = file.as_str() {
        return Ok(FileContent {
            missing: false,
            text: text.to_owned(),
            hash: None,
        });
    }
    let missing = file.get("missing").and_then(Value::as_bool).unwrap_or(false);
    let text = match file.get("content") {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) if missing => String::new(),
        _ => return Err(GatewayError::protocol("the gateway's answer holds no text of the file")),
    };
    Ok(FileContent {
        missing,
        text,
        hash: file.get("hash").and_then(Value::as_str).map(str::to_owned),
    })
}

/// What `agents.files.set` answered; everything in it is optional.
pub(super) fn written(payload: &Value) -> SetOutcome {
    let file = payload.get("file").unwrap_or(payload);
    SetOutcome {
        hash: file.get("hash").and_then(Value::as_str).map(str::to_owned),
        size: file.get("size").and_then(Value::as_u64),
        updated_at_ms: file.get("updatedAtMs").and_then(Value::as_f64),
        text: file.get("content").and_then(Value::as_str).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_files_text_is_found_in_every_form() {
        for payload in [
            json!("text"),
            json!({"content": "text"}),
            json!({"file": "text"}),
            json!({"file": {"content": "text", "missing": false}}),
        ] {
            let file = content(&payload).unwrap();
            assert_eq!((file.text.as_str(), file.missing), ("text", false), "{payload}");
        }
        let missing = content(&json!({"file": {"name": "A", "missing": true, "expectedAbsent": false}})).unwrap();
        assert_eq!((missing.text.as_str(), missing.missing), ("", true));
        let hashed = content(&json!({"file": {"content": "", "hash": "ab"}})).unwrap();
        assert_eq!(hashed.hash.as_deref(), Some("ab"));
    }

    #[test]
    fn a_file_without_text_that_is_not_missing_is_an_error_and_never_an_empty_file() {
        for payload in [
            json!(null),
            json!(7),
            json!({}),
            json!({"file": {"content": 5}}),
            json!({"content": null}),
        ] {
            let error = content(&payload).err().unwrap();
            assert_eq!(error.reason(), "ProtocolError", "{payload}");
        }
    }

    #[test]
    fn lists_are_read_with_times_in_fractions_and_names_unknown() {
        let files = listed(&json!({"files": [
            {"name": "AGENTS.md", "missing": false, "size": 5, "updatedAtMs": 1.5},
            {"name": "NEW.md", "missing": true}
        ]}))
        .unwrap();
        assert_eq!(
            (files[0].size, files[0].updated_at_ms, files[0].missing),
            (Some(5), Some(1.5), false)
        );
        assert_eq!(
            (files[1].name.as_str(), files[1].missing, files[1].size),
            ("NEW.md", true, None)
        );
        for payload in [json!(null), json!({"files": {}}), json!({"files": [{}]})] {
            assert_eq!(listed(&payload).unwrap_err().reason(), "ProtocolError", "{payload}");
        }
    }

    #[test]
    fn what_was_written_is_read_back_from_the_answer_and_not_shown() {
        let outcome = written(&json!({"ok": true, "file": {"hash": "h", "size": 6, "content": "s3cret"}}));
        assert_eq!(
            (outcome.hash.as_deref(), outcome.text.as_deref()),
            (Some("h"), Some("s3cret"))
        );
        assert!(!format!("{outcome:?}").contains("s3cret"));
        assert_eq!(written(&json!({"ok": true})), SetOutcome::default());
    }
}
