//! The guardian of one lab directory: a small shell process that outlives this one by a moment.
//!
//! It holds the reading end of a pipe. When the writing end closes (by drop, exit, panic or SIGKILL of this process), it ends
//! every process started for the directory and removes the directory. Statics, which Rust never drops, are covered as well.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// The variable that marks each process belonging to a lab directory; its value is that directory.
pub(super) const TAG: &str = "OPENCLAW_LAB_DIR";

const SCRIPT: &str = include_str!("guardian.sh");

/// Keeps a lab directory and its processes alive; dropping it ends both, and waits until they are gone.
pub(super) struct Guard {
    guardian: Child,
    lifeline: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guardian of `directory`, whose processes will be asked to end with `signal` (a name without `SIG`).
    pub(super) fn over(directory: &Path, signal: &str) -> Result<Self> {
        let mut guardian = Command::new("bash")
            .args(["-c", SCRIPT, "openclaw-controller-lab-guardian"])
            .args([OsString::from(directory), OsString::from(signal)])
            // A lab started by a process that is itself part of a lab must not end its own guardian.
            .env_remove(TAG)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C on the terminal is for the owner to handle.
            .process_group(0)
            .spawn()
            .context("cannot start bash, which guards the lab's processes")?;
        let lifeline = guardian.stdin.take();
        Ok(Self { guardian, lifeline })
    }

    /// Leaves the directory in place when the processes are ended.
    pub(super) fn keep_directory(&mut self) -> Result<()> {
        match &mut self.lifeline {
            Some(pipe) => pipe.write_all(b"keep\n").context("the lab's guardian has died"),
            None => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // Bounded by the script itself (nine seconds and the removal).
        let _ = self.guardian.wait();
    }
}
