//! Values as Python writes them, so that existing templates render to the same text as before.

use std::fmt::Write as _;

use chrono::{NaiveDateTime, Timelike as _};
use serde_json::{Number, Value};

/// A JSON value as `json.dumps` writes it: a blank behind `,` and `:`, everything beyond ASCII escaped.
pub(super) fn json(value: &Value) -> String {
    let mut text = String::new();
    write_json(&mut text, value);
    text
}

fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number(n)),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                write_json(out, item);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (i, (key, item)) in entries.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                write_string(out, key);
                out.push_str(": ");
                write_json(out, item);
            }
            out.push('}');
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a `String` cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// A JSON number as Python's `str` writes it: `1.0` stays `1.0`, and exponents have a sign and two digits.
pub(super) fn number(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    // The shortest digits that read back the same, which is what Python's `repr` uses too.
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific
        .split_once('e')
        .and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)))
    else {
        return scientific;
    };
    if (-4..16).contains(&exponent) {
        let plain = format!("{float}");
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
    }
}

/// Whether Python's `bool` of a JSON value is false.
pub(super) fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// A point in time as `isoformat` writes it: microseconds only if there are any.
pub(super) fn isoformat(time: NaiveDateTime) -> String {
    let micros = time.nanosecond() / 1_000;
    if micros == 0 {
        time.format("%Y-%m-%dT%H:%M:%S").to_string()
    } else {
        time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_by_json_dumps() {
        // Each right-hand side is what json.dumps(json.loads(left-hand side)) gives.
        for (text, expected) in [
            ("{}", "{}"),
            ("[]", "[]"),
            (
                r#"{"a":1,"b":[1,2,{"c":null}],"d":true}"#,
                r#"{"a": 1, "b": [1, 2, {"c": null}], "d": true}"#,
            ),
            (
                r#""é 😀 \" \\ / \n\r\t\b\f \u007f \u0001""#,
                r#""\u00e9 \ud83d\ude00 \" \\ / \n\r\t\b\f \u007f \u0001""#,
            ),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("0.5", "0.5"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.5e300", "1.5e+300"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("123456789.125", "123456789.125"),
            ("9007199254740993", "9007199254740993"),
            ("-7", "-7"),
        ] {
            assert_eq!(json(&serde_json::from_str(text).unwrap()), expected);
        }
    }

    #[test]
    fn times_are_written_as_by_isoformat() {
        for (text, expected) in [
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00"),
            ("2026-01-31T12:00:00.120", "2026-01-31T12:00:00.120000"),
            ("0999-01-31T02:03:04.000001", "0999-01-31T02:03:04.000001"),
        ] {
            assert_eq!(isoformat(text.parse().unwrap()), expected);
        }
    }

    #[test]
    fn empty_values_are_falsy() {
        for text in ["null", "false", "0", "0.0", "\"\"", "[]", "{}"] {
            assert!(is_falsy(&serde_json::from_str(text).unwrap()), "{text}");
        }
        for text in ["true", "1", "\"0\"", "[0]", "{\"a\":null}"] {
            assert!(!is_falsy(&serde_json::from_str(text).unwrap()), "{text}");
        }
    }
}
