//! The `openclaw-controller` binary.

fn main() {}
