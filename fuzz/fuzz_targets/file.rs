//! Files, and the tokens in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| openclaw_controller::fuzz::run("file", input));
