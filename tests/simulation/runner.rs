//! Runs many schedules, on all cores, each on a runtime of its own.

use std::env;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use openclaw_controller::render::TemplateSet;

use crate::schedule::{self, Report};

/// How many schedules are run.
const SCHEDULES: u64 = 200;

/// How long one schedule may take in real time: ten times what the slowest takes on a busy machine. More means that it
/// goes round in circles without time passing.
const STUCK: Duration = Duration::from_mins(2);

/// Runs a future under a paused clock.
pub(crate) fn simulate<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // One at a time, so that they end in the order in which they began.
        .max_blocking_threads(1)
        .build()
        .unwrap()
        .block_on(future)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

fn attempt(seed: u64, templates: &TemplateSet) -> Result<Report, String> {
    let run = || simulate(schedule::run(seed, templates.clone()));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

#[test]
fn random_schedules_converge_and_then_rest() {
    let templates = TemplateSet::builtin();
    if let Some(seed) = number("OPENCLAW_SIMULATION_SEED") {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .with_writer(std::io::stderr)
            .init();
        if let Err(problem) = attempt(seed, &templates) {
            panic!("seed {seed}: {problem}");
        }
        return;
    }
    let first = number("OPENCLAW_SIMULATION_FIRST").unwrap_or(1);
    let count = number("OPENCLAW_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let began = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let next = Arc::new(AtomicU64::new(first));
    for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
        let (sender, next, templates) = (sender.clone(), Arc::clone(&next), templates.clone());
        thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count || sender.send((seed, None)).is_err() {
                    return;
                }
                let result = attempt(seed, &templates);
                if sender.send((seed, Some(result))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut running = std::collections::BTreeSet::new();
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    loop {
        match receiver.recv_timeout(STUCK) {
            Ok((seed, None)) => {
                running.insert(seed);
            }
            Ok((seed, Some(result))) => {
                running.remove(&seed);
                match result {
                    Ok(report) => reports.push(report),
                    Err(problem) => failures.push((seed, problem)),
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end within {STUCK:?} of one of the seeds {running:?}"),
        }
    }
    let slowest = reports.iter().map(|report| report.converged_after).max();
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    eprintln!(
        "{} schedules in {:.1} s: {} actions, {} crashes, {} writes on gateways; slowest to converge {:?}",
        reports.len() + failures.len(),
        began.elapsed().as_secs_f64(),
        sum(|report| report.actions),
        sum(|report| report.crashes),
        sum(|report| report.gateway_writes),
        slowest.unwrap_or_default(),
    );
    for (seed, problem) in failures.iter().skip(1).rev().take(20) {
        eprintln!(
            "seed {seed}: {}\n",
            problem.split("\n  what was done").next().unwrap_or_default()
        );
    }
    if let Some((seed, problem)) = failures.first() {
        panic!(
            "{} of {count} schedules failed; the first with OPENCLAW_SIMULATION_SEED={seed}: {problem}",
            failures.len()
        );
    }
}
