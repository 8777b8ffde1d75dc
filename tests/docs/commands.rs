//! Every command of every page, typed in its order.

use serde_json::Value;

use crate::elsewhere::is_elsewhere;
use crate::page::{Page, pages};
use crate::shell::Shell;
use crate::stage::{PASSWORD, Stage};
use crate::step::{What, steps, without_assignments, without_remark};

/// Pages that say what to do about alerts: they look, and change nothing, so they share what they look at.
const RUNBOOKS: &str = "docs/runbooks/";

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_every_page_works() {
    let mut report = Report::default();
    for page in pages().iter().filter(|page| !page.path.starts_with(RUNBOOKS)) {
        if steps(page).is_empty() {
            continue;
        }
        let mut stage = Stage::of(page).await;
        report.try_out(page, &mut stage).await;
        report.noticed(&page.path, stage.stop_operator().await);
    }
    report.end(50);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_every_runbook_works() {
    let mut report = Report::default();
    let pages = pages();
    let mut runbooks = pages.iter().filter(|page| page.path.starts_with(RUNBOOKS)).peekable();
    let mut stage = Stage::of(runbooks.peek().unwrap()).await;
    for page in runbooks {
        report.try_out(page, &mut stage).await;
    }
    report.noticed(RUNBOOKS, stage.stop_operator().await);
    report.end(25);
}

/// What became of the commands.
#[derive(Default)]
struct Report {
    run: usize,
    problems: Vec<String>,
}

impl Report {
    fn noticed(&mut self, place: &str, result: Result<(), String>) {
        if let Err(problem) = result {
            self.problems.push(format!("{place}: {problem}"));
        }
    }

    fn end(self, least: usize) {
        println!("{} commands were run", self.run);
        assert!(self.problems.is_empty(), "{}", self.problems.join("\n\n"));
        assert!(self.run > least, "the pages have commands: {}", self.run);
    }

    async fn try_out(&mut self, page: &Page, stage: &mut Stage) {
        let mut shell = stage.shell();
        for step in steps(page) {
            let tried = match &step.what {
                What::Command { text, .. } if is_elsewhere(text) => continue,
                What::Command { text, prints } => {
                    let text = stage.as_typed_here(text).await;
                    println!("{}: {text}", step.place);
                    if runs_the_controller(&text) {
                        self.noticed(&step.place, stage.stop_operator().await);
                        self.noticed(&step.place, shell.stop_controller().await);
                        start(&mut shell, stage, &text).await
                    } else {
                        run(&mut shell, &text, prints).await
                    }
                }
                What::Sql(text) => {
                    let text = stage.as_typed_here(text).await;
                    println!("{}: (SQL)", step.place);
                    let psql = "psql -X -q -v ON_ERROR_STOP=1 \"$DATABASE_URL\"";
                    let ended = shell.run(psql, &text).await;
                    ended.complaint(psql).map_or(Ok(()), Err)
                }
            };
            self.run += 1;
            self.noticed(&format!("{} {:?}", step.place, step.what), tried);
        }
        self.noticed(&page.path, shell.stop_controller().await);
    }
}

/// Whether it is the controller itself, which goes on until it is told to stop.
fn runs_the_controller(command: &str) -> bool {
    let mut words = without_assignments(command);
    words.next() == Some("openclaw-controller") && words.next() == Some("run") && !command.contains("--help")
}

async fn start(shell: &mut Shell, stage: &Stage, command: &str) -> Result<(), String> {
    shell.start_controller(command).await;
    stage.controller_works(shell).await?;
    if let Some(token) = stage.agent_token() {
        shell.run(&format!("export AUTH_TOKEN='{token}'"), "").await;
    }
    Ok(())
}

async fn run(shell: &mut Shell, command: &str, prints: &[String]) -> Result<(), String> {
    if command.contains(" --watch") || command.contains("curl -sN ") {
        return shell.run_until_it_prints(command).await;
    }
    // Where a password is asked for, it is typed twice; several may be asked for.
    let input = if command.contains("\\password") {
        format!("{PASSWORD}\n").repeat(8)
    } else {
        String::new()
    };
    let ended = shell.run(command, &input).await;
    if let Some(complaint) = ended.complaint(command) {
        return Err(complaint);
    }
    // A number in the remark is what is printed.
    let remark = command[without_remark(command).len()..]
        .trim()
        .trim_start_matches('#')
        .trim();
    let is_number = !remark.is_empty() && remark.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && ended.printed.trim() != remark {
        return Err(format!(
            "the page says {remark}, and this was printed:\n{}",
            ended.printed
        ));
    }
    looks_alike(prints, &ended.printed)
}

/// Whether what was printed has the shape of what the page shows: the same columns, or the same keys.
fn looks_alike(shown: &[String], printed: &str) -> Result<(), String> {
    let first = shown.first().map_or("", String::as_str);
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let differs = if !first.is_empty() && first.chars().all(|char| char.is_ascii_uppercase() || char == ' ') {
        words(first) != words(printed.lines().next().unwrap_or_default())
    } else if first.starts_with('{') {
        let keys = |text: &str| -> Option<Vec<String>> {
            let value: Value = serde_json::from_str(text).ok()?;
            Some(value.as_object()?.keys().cloned().collect())
        };
        let shown = keys(&shown.join("\n"));
        shown.is_none() || shown != keys(printed)
    } else {
        false
    };
    if differs {
        Err(format!(
            "the page shows\n{}\nand this was printed:\n{printed}",
            shown.join("\n")
        ))
    } else {
        Ok(())
    }
}

#[test]
fn what_is_shown_is_compared_by_columns_and_keys() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (shown, printed, alike) in [
        ("NAME  READY\nWren  True\n", "NAME      READY\nIsolde    False\n", true),
        ("NAME  READY\n", "NAME  STATUS\n", false),
        ("{\"a\": 1,\n\"b\": 2}", "{\"a\": 3, \"b\": []}", true),
        ("{\"a\": 1}", "{\"b\": 1}", false),
        ("done\n", "whatever\n", true),
        ("", "whatever\n", true),
    ] {
        assert_eq!(looks_alike(&lines(shown), printed).is_ok(), alike, "{shown}");
    }
    for (command, runs) in [
        ("openclaw-controller run --base-url http://x", true),
        ("A=b openclaw-controller run", true),
        ("openclaw-controller run --help", false),
        ("openclaw-controller get agents", false),
        ("docker run openclaw-controller run", false),
    ] {
        assert_eq!(runs_the_controller(command), runs, "{command}");
    }
}
