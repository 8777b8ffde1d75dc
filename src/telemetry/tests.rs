use std::sync::{Arc, Mutex};

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tracing::{debug, info, info_span, trace};

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn logging(style: Style, filter: &str) -> (Log, impl Subscriber + Send + Sync) {
    let log = Log::default();
    let writer = log.clone();
    (log, subscriber(style, filter, move || writer.clone()).unwrap())
}

fn something_within_a_reconcile() {
    let reconcile = info_span!("reconcile", controller = "agent", key = ?7, reconcile_id = "r-1");
    let _reconcile = reconcile.enter();
    let rpc = info_span!("rpc", method = "agents.files.get");
    let _rpc = rpc.enter();
    info!(took_ms = 3, "file read");
}

#[test]
fn json_lines_carry_the_fields_of_every_span_around_them() {
    let (log, subscriber) = logging(Style::Json, "info");
    tracing::subscriber::with_default(subscriber, something_within_a_reconcile);
    let line: serde_json::Value = serde_json::from_str(log.text().trim()).unwrap();
    assert_eq!(line["message"], "file read");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["took_ms"], 3);
    assert_eq!(line["spans"][0]["controller"], "agent");
    assert_eq!(line["spans"][0]["key"], "7");
    assert_eq!(line["spans"][0]["reconcile_id"], "r-1");
    assert_eq!(line["spans"][1]["method"], "agents.files.get");
}

#[test]
fn text_lines_carry_the_fields_of_every_span_around_them_and_colour_only_if_wanted() {
    for colour in [false, true] {
        let (log, subscriber) = logging(Style::Text { colour }, "info");
        tracing::subscriber::with_default(subscriber, something_within_a_reconcile);
        let text = log.text();
        assert_eq!(text.contains('\u{1b}'), colour, "{text}");
        for part in ["agent", "r-1", "agents.files.get", "file read"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}

#[test]
fn the_filter_decides_what_is_logged() {
    let (log, subscriber) = logging(Style::Json, DEFAULT_FILTER);
    tracing::subscriber::with_default(subscriber, || {
        debug!("a detail");
        info!(target: "sqlx::query", "a statement");
        info!("told");
    });
    assert_eq!(log.text().lines().count(), 1, "{}", log.text());
}

#[test]
fn a_filter_that_cannot_be_read_is_an_error_that_names_it() {
    let error = subscriber(Style::Json, "info,sqlx=loud", io::sink)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("`info,sqlx=loud`"), "{error}");
}

#[test]
fn the_form_follows_the_terminal_unless_it_is_given() {
    let text = |colour| Style::Text { colour };
    for (format, terminal, no_color, expected) in [
        (LogFormat::Auto, true, false, text(true)),
        (LogFormat::Auto, true, true, text(false)),
        (LogFormat::Auto, false, false, Style::Json),
        (LogFormat::Text, false, false, text(false)),
        (LogFormat::Text, true, false, text(true)),
        (LogFormat::Json, true, false, Style::Json),
    ] {
        assert_eq!(
            Style::choose(format, terminal, no_color),
            expected,
            "{format:?} {terminal} {no_color}"
        );
    }
}

#[tokio::test]
async fn no_filter_makes_whole_frames_appear_in_the_log() {
    let (log, subscriber) = logging(Style::Json, "trace,tungstenite::protocol=trace");
    let _guard = subscriber.set_default();
    let (near, far) = tokio::io::duplex(1_024);
    let mut near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    let mut far = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    near.send(Message::text("AUTH_TOKEN=hunter2")).await.unwrap();
    let received = far.next().await.unwrap().unwrap();
    assert_eq!(received.to_text().unwrap(), "AUTH_TOKEN=hunter2");
    far.send(Message::Close(None)).await.unwrap();
    assert!(near.next().await.unwrap().unwrap().is_close());
    trace!("our own traces are still told");
    let text = log.text();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("our own traces are still told"), "{text}");
    assert!(
        text.contains("Received close frame"),
        "the library's other messages are told: {text}"
    );
}
