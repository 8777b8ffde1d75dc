//! The JSON Schema of fleet files, for editors.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::model::Fleet;

/// Where the schema is published.
pub const SCHEMA_FILE: &str = "docs/fleet.schema.json";

/// The schema, as the text of its file.
pub fn schema() -> String {
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Fleet>();
    let mut schema = Value::from(schema);
    schema["title"] = "A fleet of openclaw-controller".into();
    for object in ["Organization", "Gateway", "Board", "Agent"] {
        // What else is left out is left alone, or has a default.
        if let Some(definition) = schema["$defs"][object].as_object_mut() {
            definition.remove("required");
            definition.insert(
                "anyOf".into(),
                json!([{ "required": ["id"] }, { "required": ["name"] }]),
            );
        }
    }
    format!("{schema:#}\n")
}
