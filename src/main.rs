//! The `openclaw-controller` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    openclaw_controller::cli::main()
}
