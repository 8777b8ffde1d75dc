//! `protocol.schema.json` of the npm package `@openclaw/gateway-protocol`, and how single values are held against it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use openclaw_controller::lab;
use serde_json::Value;

/// The contract, with the validators that were needed so far.
pub(crate) struct Schema {
    document: Value,
    validators: Mutex<HashMap<String, Option<Arc<Validator>>>>,
}

impl Schema {
    /// The one of this test process; installed where it is missing.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Schema> = OnceLock::new();
        SHARED.get_or_init(|| {
            // A thread of its own: a test may be inside a runtime whose clock is paused.
            let path = std::thread::spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(lab::protocol_schema()).expect("the contract is there")
            });
            let text = std::fs::read_to_string(path.join().unwrap()).unwrap();
            Self {
                document: serde_json::from_str(&text).unwrap(),
                validators: Mutex::default(),
            }
        })
    }

    /// Whether the contract has a method of this name.
    pub(crate) fn has_method(&self, method: &str) -> bool {
        self.document["methods"].get(method).is_some()
    }

    /// What is wrong with a value, in words that name no value: tokens pass through here. `None` if the contract has no such
    /// definition.
    pub(crate) fn violations(&self, definition: &str, value: &Value) -> Option<Vec<String>> {
        let validator = self.validator(definition)?;
        let errors = validator.iter_errors(value);
        let words = errors.flat_map(|error| in_words(&error));
        Some(words.map(|words| format!("{definition}{words}")).collect())
    }

    /// Whether the contract has the property that a violation (`Definition/path: unexpected "property"`) says it has not.
    pub(crate) fn allows(&self, violation: &str) -> bool {
        let (place, property) = violation.split_once(": unexpected ").expect("a property too many");
        let mut parts = place.split('/');
        let mut schema = &self.document["definitions"][parts.next().unwrap()];
        for part in parts {
            schema = if part == "*" {
                &schema["items"]
            } else {
                &schema["properties"][part]
            };
        }
        assert!(schema.is_object(), "the contract has no {place}");
        schema["properties"].get(property.trim_matches('"')).is_some()
    }

    fn validator(&self, definition: &str) -> Option<Arc<Validator>> {
        let mut validators = self.validators.lock().unwrap();
        let made = validators.entry(definition.to_owned()).or_insert_with(|| {
            let mut schema = self.document["definitions"].get(definition)?.clone();
            // The draft that the whole document names; definitions refer to nothing outside themselves.
            schema["$schema"] = self.document["$schema"].clone();
            Some(Arc::new(jsonschema::validator_for(&schema).expect("a valid schema")))
        });
        made.clone()
    }
}

/// Where something is wrong and what, without the value: `/files/*: unexpected "hash"`.
fn in_words(error: &ValidationError<'_>) -> Vec<String> {
    let path = error.instance_path().as_str().split('/').map(|part| {
        let is_index = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_index { "*" } else { part }
    });
    let path = path.collect::<Vec<_>>().join("/");
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|key| format!("{path}: unexpected \"{key}\""))
            .collect(),
        ValidationErrorKind::Required { property } => vec![format!("{path}: missing {property}")],
        other => vec![format!("{path}: not what \"{}\" asks for", other.keyword())],
    }
}
