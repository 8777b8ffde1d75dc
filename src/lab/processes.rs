//! Finding and ending the processes of a lab directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::guard::TAG;

const POLL: Duration = Duration::from_millis(50);

/// The processes started for `directory`, also those that have left their process group: a gateway may replace itself.
pub(super) fn tagged(directory: &Path) -> Vec<Pid> {
    let wanted = [TAG.as_bytes(), b"=", directory.as_os_str().as_bytes()].concat();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = pid(&entry.file_name())?;
            // Unreadable (another user's, or just ended) is not ours; a zombie's is empty.
            let environ = std::fs::read(entry.path().join("environ")).ok()?;
            environ
                .split(|byte| *byte == 0)
                .any(|pair| pair == wanted)
                .then_some(pid)
        })
        .collect()
}

fn pid(name: &OsStr) -> Option<Pid> {
    Pid::from_raw(name.to_str()?.parse().ok()?)
}

/// Sends `signal` to each of `pids`; one that has ended meanwhile is no error.
pub(super) fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill_process(*pid, signal);
    }
}

/// Sends `signal` to a child that has not been waited for; one that has ended is no error.
pub(super) fn signal_child(child: &Child, signal: Signal) {
    signal_all(&[Pid::from_child(child)], signal);
}

/// Waits until `child` has ended, at most for `limit`; tells whether it has.
pub(super) async fn ended(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL).await;
    }
}

/// Ends every process of `directory`: `first`, then SIGKILL for what is left after `grace`. Tells whether all are gone.
pub(super) async fn end_all(directory: &Path, first: Signal, grace: Duration) -> bool {
    signal_all(&tagged(directory), first);
    if gone(directory, grace).await {
        return true;
    }
    signal_all(&tagged(directory), Signal::KILL);
    gone(directory, Duration::from_secs(5)).await
}

async fn gone(directory: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !tagged(directory).is_empty() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL).await;
    }
    true
}
