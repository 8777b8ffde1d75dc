//! One shell, in which commands are typed one after the other as by a person, and each is told how it ended.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::step::{outside_quotes, without_assignments, without_remark};

/// Longer than any command takes, sharing two cores.
const EACH: Duration = Duration::from_mins(5);

/// A shell in a session of its own, so without a terminal; all that it has started ends with it.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    marks: Lines<BufReader<ChildStdout>>,
    /// What is typed, and what it prints.
    notes: TempDir,
    typed: usize,
    /// Where the controller that runs in the background logs.
    running: Option<PathBuf>,
}

/// How a command ended.
pub(crate) struct Ended {
    /// The exit code of each part of its pipeline.
    pub(crate) codes: Vec<i32>,
    pub(crate) printed: String,
}

impl Shell {
    pub(crate) fn start(directory: &Path, environment: &[(String, String)]) -> Self {
        let notes = TempDir::new().unwrap();
        let mut child = Command::new("setsid")
            .args(["bash", "--noprofile", "--norc"])
            .current_dir(directory)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, marks) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            marks: BufReader::new(marks).lines(),
            notes,
            typed: 0,
            running: None,
        }
    }

    /// Has a command done, with this as its standard input.
    pub(crate) async fn run(&mut self, command: &str, input: &str) -> Ended {
        self.typed += 1;
        let note = |kind: &str| self.notes.path().join(format!("{}.{kind}", self.typed));
        let (script, given, printed) = (note("sh"), note("in"), note("out"));
        // The codes are those of the whole pipeline; the second expansion sees what the first one saw.
        std::fs::write(&script, format!("{command}\n__codes=\"${{PIPESTATUS[*]}}\"\n")).unwrap();
        std::fs::write(&given, input).unwrap();
        let line = format!(
            "__codes=2; source {} <{} >{} 2>&1; echo \"$__codes\"\n",
            script.display(),
            given.display(),
            printed.display()
        );
        let exchange = async {
            self.input.write_all(line.as_bytes()).await.unwrap();
            self.marks.next_line().await.unwrap()
        };
        let mark = timeout(EACH, exchange).await;
        let printed = String::from_utf8_lossy(&std::fs::read(&printed).unwrap_or_default()).into_owned();
        let Ok(mark) = mark else {
            panic!("{command}: not done within {EACH:?}; it printed\n{printed}");
        };
        let mark = mark.unwrap_or_else(|| panic!("{command}: the shell has ended; it printed\n{printed}"));
        let codes = mark.split(' ').map(|code| code.parse().unwrap()).collect();
        Ended { codes, printed }
    }

    /// Starts what goes on until it is told to stop, and tells it so once it has printed something.
    pub(crate) async fn run_until_it_prints(&mut self, command: &str) -> Result<(), String> {
        let printed = self.notes.path().join(format!("{}.goes-on", self.typed));
        let read = || std::fs::read_to_string(&printed).unwrap_or_default();
        let started = self
            .run(
                &format!(
                    "{} >{} 2>&1 &\n__goes_on=$!",
                    without_remark(command),
                    printed.display()
                ),
                "",
            )
            .await;
        assert_eq!(started.codes, [0], "{command}: {}", started.printed);
        let end = Instant::now() + EACH;
        while read().is_empty() && self.run("kill -0 $__goes_on", "").await.codes == [0] {
            assert!(Instant::now() < end, "{command}: nothing was printed within {EACH:?}");
            sleep(Duration::from_millis(100)).await;
        }
        let stopped = self.run("kill -TERM $__goes_on; wait $__goes_on", "").await;
        let (codes, printed) = (stopped.codes, read());
        // Its own word for having been told, or the shell's.
        if printed.is_empty() || ![130, 143].contains(&codes[0]) {
            return Err(format!("exit code {codes:?}\n{printed}{}", stopped.printed));
        }
        Ok(())
    }

    /// Starts a controller in the background.
    pub(crate) async fn start_controller(&mut self, command: &str) {
        let log = self.notes.path().join(format!("controller-{}.log", self.typed));
        let command = without_remark(command);
        assert!(
            !command.contains(['|', ';', '&']),
            "{command}: only a command by itself can be started in the background"
        );
        let started = self
            .run(&format!("{command} >{} 2>&1 &\n__controller=$!", log.display()), "")
            .await;
        assert_eq!(started.codes, [0], "{command}: {}", started.printed);
        self.running = Some(log);
    }

    /// Asks the controller that runs in the background to stop, as a supervisor does, and says what was wrong with that.
    pub(crate) async fn stop_controller(&mut self) -> Result<(), String> {
        let Some(log) = self.running.take() else { return Ok(()) };
        let stopped = self.run("kill -TERM $__controller; wait $__controller", "").await;
        if stopped.codes == [0] {
            return Ok(());
        }
        let log = std::fs::read_to_string(log).unwrap_or_default();
        Err(format!(
            "the controller ended with {:?}: {}{log}",
            stopped.codes, stopped.printed
        ))
    }

    /// What the controller in the background has logged.
    pub(crate) fn log(&self) -> String {
        let log = self.running.as_ref().map(std::fs::read_to_string);
        log.and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Its session is its process group, and that of all it has started.
        let group = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Ended {
    /// What is wrong with how it ended, if anything is.
    pub(crate) fn complaint(&self, command: &str) -> Option<String> {
        let parts = outside_quotes(command, '|');
        let as_expected = if parts.len() == self.codes.len() {
            let last = parts.len() - 1;
            let mut parts = parts.iter().zip(&self.codes).enumerate();
            parts.all(|(number, (part, code))| expected(part.trim(), number == last).contains(code))
        } else {
            self.codes.iter().all(|code| *code == 0)
        };
        if as_expected && !self.printed.contains("panicked") {
            return None;
        }
        Some(format!("exit code {:?}\n{}", self.codes, self.printed))
    }
}

/// How a command may end.
fn expected(part: &str, last: bool) -> &'static [i32] {
    let mut words = without_assignments(part);
    match words.next().unwrap_or_default() {
        // Nothing of the kind is there, where nothing is wrong.
        "grep" => &[0, 1],
        // Differences are no failure.
        "openclaw-controller" if words.next() == Some("diff") => &[0, 1],
        // Its reader has gone.
        _ if !last => &[0, 141],
        _ => &[0],
    }
}

#[tokio::test]
async fn a_shell_keeps_what_was_typed_and_tells_how_it_ended() {
    let home = TempDir::new().unwrap();
    let path = ("PATH".to_owned(), std::env::var("PATH").unwrap());
    let mut shell = Shell::start(home.path(), &[path]);
    for (command, codes, printed) in [
        ("export A=1; umask 077", vec![0], ""),
        ("echo \"$A\"; umask", vec![0], "1\n0077\n"),
        ("cat | grep nothing", vec![0, 1], ""),
        ("cat", vec![0], "given\n"),
        ("false | true", vec![1, 0], ""),
        ("sh -c 'exit 3'", vec![3], ""),
        ("if", vec![2], ""),
        ("echo on", vec![0], "on\n"),
    ] {
        let ended = shell.run(command, "given\n").await;
        assert_eq!(ended.codes, codes, "{command}");
        if command != "if" {
            assert_eq!(ended.printed, printed, "{command}");
        }
        let well = ["export", "echo", "cat"].iter().any(|start| command.starts_with(start));
        assert_eq!(ended.complaint(command).is_none(), well, "{command}");
    }
}
