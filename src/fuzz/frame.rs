//! Frames, and the payload of `hello-ok`.

use serde_json::Value;

use super::assert_presentable;
use crate::gateway::heard::{self, Heard};

/// Reads a frame.
pub(super) fn run(input: &[u8]) {
    // A text message is UTF-8, or the WebSocket is closed before it gets here.
    let Ok(text) = std::str::from_utf8(input) else { return };
    match heard::frame(text) {
        Ok(Heard::Answer(payload)) => hello(&payload),
        Ok(Heard::Refusal(error)) => {
            assert_presentable(&error);
            assert!(
                error
                    .retry_after()
                    .is_none_or(|after| after.as_secs() < u64::from(u32::MAX))
            );
        }
        Ok(Heard::Event(..) | Heard::Unknown) => {}
        Err(error) => assert_presentable(&error),
    }
}

fn hello(payload: &Value) {
    match heard::hello(payload) {
        Ok(hello) => {
            assert!((3..=4).contains(&hello.protocol));
            assert!(hello.max_payload > 0 && hello.tick_interval.as_millis() >= 100);
            // It is doubled, and added to the time.
            assert!(std::time::Instant::now().checked_add(hello.tick_interval * 2).is_some());
            assert!(hello.server_version.chars().count() <= 601);
        }
        Err(error) => assert_presentable(&error),
    }
}
