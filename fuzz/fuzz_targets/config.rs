//! Configs, and what is planned from them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| openclaw_controller::fuzz::run("config", input));
