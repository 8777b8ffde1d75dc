//! The frames on the wire: JSON text, one object each.

use serde_json::{Value, json};

use super::error::{ErrorClass, GatewayError};

/// Shorter frames are read without counting first: whatever they hold costs less than 100 MiB.
const COUNTED_FROM: usize = 1 << 20;

/// How many values the largest frame may hold. Read, the worst frame of 16 MiB would take 1.4 GiB, for small objects are 80 times
/// larger in memory than on the wire; an honest one of that size holds some 600,000 values.
const MAX_VALUES: usize = 1_000_000;

/// A frame from the gateway.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The answer to a request.
    Response {
        /// The request's id.
        id: String,
        /// The payload (null if there is none), or the `error` object.
        result: Result<Value, Value>,
    },
    /// Something that the gateway tells everybody.
    Event {
        /// Its name.
        name: String,
        /// Its payload (null if there is none).
        payload: Value,
    },
    /// A kind of frame that later versions may have; not for us.
    Unknown,
}

/// The text of a request.
pub(super) fn request(id: &str, method: &str, params: &Value) -> String {
    json!({"type": "req", "id": id, "method": method, "params": params}).to_string()
}

/// Reads a frame. The error never shows the frame itself, which may hold anything.
pub(super) fn parse(text: &str) -> Result<Incoming, GatewayError> {
    if text.len() >= COUNTED_FROM && values(text) > MAX_VALUES {
        let message = format!(
            "the gateway sent a frame of {} bytes that holds more than {MAX_VALUES} values",
            text.len()
        );
        return Err(GatewayError::new(ErrorClass::FrameTooLarge, message));
    }
    let mut frame: Value = serde_json::from_str(text).map_err(|error| {
        GatewayError::protocol(format!(
            "the gateway sent a frame of {} bytes that is not JSON ({error})",
            text.len()
        ))
    })?;
    let Some(kind) = frame.get("type").and_then(Value::as_str) else {
        return Err(GatewayError::protocol("the gateway sent a frame without a type"));
    };
    match kind {
        "res" => {
            let id = match frame.get("id") {
                Some(Value::String(id)) => id.clone(),
                _ => return Err(GatewayError::protocol("the gateway sent a response without an id")),
            };
            let result = match frame.get("ok") {
                Some(Value::Bool(true)) => Ok(take(&mut frame, "payload")),
                Some(Value::Bool(false)) => Err(take(&mut frame, "error")),
                _ => {
                    return Err(GatewayError::protocol(
                        "the gateway sent a response that is neither ok nor not ok",
                    ));
                }
            };
            Ok(Incoming::Response { id, result })
        }
        "event" => match frame.get("event") {
            Some(Value::String(name)) => Ok(Incoming::Event {
                name: name.clone(),
                payload: take(&mut frame, "payload"),
            }),
            _ => Err(GatewayError::protocol("the gateway sent an event without a name")),
        },
        _ => Ok(Incoming::Unknown),
    }
}

/// About how many values a JSON text holds: its brackets, colons and commas outside of strings.
fn values(text: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b':' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Moves a member out of an object; null where there is none.
fn take(frame: &mut Value, key: &str) -> Value {
    frame.get_mut(key).map(Value::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_and_events_are_taken_apart() {
        assert!(matches!(
            parse(r#"{"type":"res","id":"1","ok":true,"payload":{"a":1}}"#).unwrap(),
            Incoming::Response { id, result: Ok(payload) } if id == "1" && payload["a"] == 1
        ));
        assert!(matches!(
            parse(r#"{"type":"res","id":"2","ok":false,"error":{"code":"X"}}"#).unwrap(),
            Incoming::Response { result: Err(error), .. } if error["code"] == "X"
        ));
        assert!(matches!(
            parse(r#"{"type":"event","event":"tick"}"#).unwrap(),
            Incoming::Event { name, payload: Value::Null } if name == "tick"
        ));
        assert!(matches!(parse(r#"{"type":"later"}"#).unwrap(), Incoming::Unknown));
    }

    #[test]
    fn a_frame_of_too_many_values_is_refused_and_a_long_text_is_not() {
        let frame = |payload: &str| format!(r#"{{"type":"res","id":"1","ok":true,"payload":{payload}}}"#);
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert_eq!(parse(&frame(&many)).unwrap_err().class(), ErrorClass::FrameTooLarge);
        let text = format!("\"{}\"", r#"[{:,\"\\"#.repeat(MAX_VALUES));
        assert!(parse(&frame(&text)).is_ok());
        assert_eq!(values(r#"{"a,[":[1,"\"]{",{}]}"#), 6);
    }

    #[test]
    fn nonsense_is_an_error_that_does_not_repeat_it() {
        let deep = "[".repeat(10_000);
        for text in [
            "",
            "s3cret",
            "[]",
            "{}",
            r#"{"type":"res"}"#,
            r#"{"type":"res","id":7,"ok":true}"#,
            r#"{"type":"res","id":"1","ok":"s3cret"}"#,
            r#"{"type":"event"}"#,
            &deep,
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.reason(), "ProtocolError");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
