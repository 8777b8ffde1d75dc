//! Frames, and the payload of hello-ok.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| openclaw_controller::fuzz::run("frame", input));
