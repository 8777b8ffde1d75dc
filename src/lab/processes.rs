//! Finding, watching and ending the processes of a lab directory.

use std::collections::BTreeMap;
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

/// Waits until the processes of `directory` have used less than a twentieth of a processor for a second, all of them the same
/// ones; `false` if there is none.
pub(super) async fn rest(directory: &Path) -> bool {
    const WATCHED: Duration = Duration::from_secs(1);
    let mut before = processor_times(&tagged(directory));
    loop {
        sleep(WATCHED).await;
        let now = processor_times(&tagged(directory));
        if now.is_empty() {
            return false;
        }
        let spent = now.values().sum::<Duration>().saturating_sub(before.values().sum());
        if now.keys().eq(before.keys()) && spent < WATCHED / 20 {
            return true;
        }
        before = now;
    }
}

/// How long each of these processes has been on a processor since it started, by its id; without those that have ended.
fn processor_times(pids: &[Pid]) -> BTreeMap<i32, Duration> {
    /// What `/proc` counts in: `USER_HZ`, which is 100 for every program on Linux (proc_pid_stat(5)).
    const TICK: Duration = Duration::from_millis(10);
    let ticks = |pid: &Pid| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        // The name is in brackets and may hold anything; after it, counted from the state as the first, user and system time
        // are the 12th and the 13th.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut time = || fields.next()?.parse::<u32>().ok();
        time()?.checked_add(time()?)
    };
    pids.iter()
        .filter_map(|pid| Some((pid.as_raw_nonzero().get(), TICK * ticks(pid)?)))
        .collect()
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
