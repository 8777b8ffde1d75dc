//! What a frame may cost in memory, whatever it holds.

use std::fs;

use openclaw_controller::gateway::{MAX_INCOMING, heard};

/// The peak of this process's memory in MiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

/// A text of the largest size that is taken, made of one piece again and again.
fn filled(begin: &str, piece: &str, end: &str) -> String {
    let times = (MAX_INCOMING - begin.len() - end.len()) / piece.len();
    format!("{begin}{}{end}", piece.repeat(times))
}

#[test]
fn the_largest_frame_of_the_worst_content_costs_a_bounded_amount_of_memory() {
    let begin = r#"{"type":"res","id":"1","ok":true,"payload":["#;
    let before = peak();
    for (piece, last) in [
        ("0,", "0"),
        ("[],", "[]"),
        (r#"{"a":0},"#, "{}"),
        (r#"{"a":{"a":{"a":0}}},"#, "{}"),
        (r#""","#, "0"),
        ("[[[[[[[[0]]]]]]]],", "0"),
    ] {
        let text = filled(begin, piece, &format!("{last}]}}"));
        // Whether it is taken or not.
        drop(heard::frame(&text));
        let cost = peak() - before;
        assert!(cost < 500, "{piece}: {cost} MiB");
    }
    // One long text is no more than itself, and is taken.
    let text = filled(r#"{"type":"res","id":"1","ok":true,"payload":""#, "x", r#""}"#);
    heard::frame(&text).unwrap();
    // Depth costs nothing: it is refused.
    for open in ["[", r#"{"a":"#] {
        let error = heard::frame(&open.repeat(100_000)).unwrap_err();
        assert_eq!(error.reason(), "ProtocolError");
        let error = heard::frame(&filled("", open, "")).unwrap_err();
        assert_eq!(error.reason(), "FrameTooLarge");
    }
}
