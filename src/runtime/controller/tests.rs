use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use prometheus::Registry;
use tokio::{sync::watch, time::timeout};

use super::*;
use crate::runtime::{BackoffPolicy, Priority, QueueMetrics, RateLimit, RuntimeMetrics};

/// What the reconciler of these tests does with a key.
#[derive(Clone, Copy, Debug)]
enum Does {
    Succeeds,
    Requeues,
    Fails,
    Panics,
    Hangs,
    /// Waits to be cancelled, then needs this long to come to an end.
    StopsIn(Duration),
}

struct Scripted {
    /// By key; then what is left to do.
    script: Mutex<HashMap<u32, Vec<Does>>>,
    runs: watch::Sender<usize>,
    running: AtomicUsize,
    most_at_once: AtomicUsize,
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Reconciler for Scripted {
    type Key = u32;

    async fn reconcile(&self, key: &u32, cx: &Context) -> Result<Action, ReconcileError> {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        self.runs.send_modify(|runs| *runs += 1);
        let does = self.script.lock().unwrap().get_mut(key).and_then(Vec::pop);
        tokio::task::yield_now().await;
        match does.unwrap_or(Does::Succeeds) {
            Does::Succeeds => Ok(Action::Done),
            Does::Requeues => Ok(Action::RequeueAfter(Duration::from_secs(2))),
            Does::Fails => Err(ReconcileError::new("it did not work").retry_after(Duration::from_secs(7))),
            Does::Panics => panic!("a defect in {key}"),
            Does::Hangs => std::future::pending().await,
            Does::StopsIn(time) => {
                cx.cancel.cancelled().await;
                tokio::time::sleep(time).await;
                Err(ReconcileError::new("stopped halfway"))
            }
        }
    }
}

struct Fixture {
    scripted: Arc<Scripted>,
    queue: WorkQueue<u32>,
    registry: Registry,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    runs: watch::Receiver<usize>,
}

const STEADY: BackoffPolicy = BackoffPolicy {
    base: Duration::from_millis(750),
    cap: Duration::from_secs(30),
    factor: 2.0,
    jitter: 0.0,
};

impl Fixture {
    fn start(workers: usize, script: &[(u32, &[Does])]) -> Self {
        let registry = Registry::new();
        let metrics = RuntimeMetrics::register(&registry, &["agent", "gateway"], "openclaw-controller").unwrap();
        let queue = WorkQueue::new("agent", STEADY, RateLimit::default(), &metrics.queue, 1);
        let scripted = Arc::new(Scripted {
            script: Mutex::new(
                script
                    .iter()
                    .map(|(key, does)| (*key, does.iter().rev().copied().collect()))
                    .collect(),
            ),
            runs: watch::Sender::new(0),
            running: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        });
        let cancel = CancellationToken::new();
        let controller = Controller {
            name: "agent",
            reconciler: Arc::clone(&scripted),
            queue: queue.clone(),
            workers,
            deadline: Duration::from_mins(1),
            drain: Duration::from_secs(2),
            metrics: Arc::clone(&metrics.controller),
        };
        for (key, _) in script {
            queue.add(*key, Priority::Change);
        }
        Self {
            runs: scripted.runs.subscribe(),
            task: tokio::spawn(controller.run(cancel.clone())),
            scripted,
            queue,
            registry,
            cancel,
        }
    }

    /// Waits until this many reconciles have begun, and says how long that took.
    async fn begun(&mut self, runs: usize) -> Duration {
        let started = Instant::now();
        let reached = timeout(Duration::from_mins(10), self.runs.wait_for(|n| *n >= runs)).await;
        reached.expect("as many runs within ten minutes").unwrap();
        started.elapsed()
    }

    async fn stopped(&mut self) -> Duration {
        let started = Instant::now();
        let stopped = timeout(Duration::from_mins(10), &mut self.task).await;
        stopped.expect("a stop within ten minutes").unwrap();
        started.elapsed()
    }

    fn text(&self) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }

    fn has(&self, line: &str) {
        let text = self.text();
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_way_to_end_is_counted_and_leads_to_its_own_next_run() {
    use Does::{Fails, Hangs, Panics, Requeues};
    for (does, expected_ms, result, errors, panics) in [
        (Requeues, 2_000, "requeue_after", 0, 0),
        (Fails, 7_000, "error", 1, 0),
        (Panics, 750, "error", 1, 1),
        (Hangs, 60_750, "error", 1, 0),
    ] {
        let mut fixture = Fixture::start(2, &[(1, &[does])]);
        fixture.begun(1).await;
        let waited = u64::try_from(fixture.begun(2).await.as_millis()).unwrap();
        assert!(
            (expected_ms..expected_ms + 5).contains(&waited),
            "{does:?}: {waited} ms"
        );
        fixture.queue.shutdown();
        fixture.stopped().await;
        fixture.has(&format!(
            "controller_runtime_reconcile_total{{controller=\"agent\",result=\"{result}\"}} 1"
        ));
        fixture.has("controller_runtime_reconcile_total{controller=\"agent\",result=\"success\"} 1");
        fixture.has(&format!(
            "controller_runtime_reconcile_errors_total{{controller=\"agent\"}} {errors}"
        ));
        fixture.has(&format!(
            "controller_runtime_reconcile_panics_total{{controller=\"agent\"}} {panics}"
        ));
        fixture.has("controller_runtime_reconcile_time_seconds_count{controller=\"agent\"} 2");
        fixture.has("controller_runtime_active_workers{controller=\"agent\"} 0");
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_keys_are_reconciled_at_once_as_there_are_workers() {
    let script: Vec<(u32, &[Does])> = (0..20).map(|key| (key, [].as_slice())).collect();
    let mut fixture = Fixture::start(3, &script);
    fixture.begun(20).await;
    fixture.has("controller_runtime_max_concurrent_reconciles{controller=\"agent\"} 3");
    assert_eq!(fixture.scripted.most_at_once.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_reconcile_does_not_keep_others_from_running() {
    let mut fixture = Fixture::start(
        2,
        &[(1, &[Does::Hangs]), (2, &[]), (3, &[]), (4, &[Does::Panics]), (5, &[])],
    );
    assert!(fixture.begun(5).await < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn cancelling_gives_running_work_a_moment_to_end_and_then_drops_it() {
    for (needs_ms, stops_after_ms) in [(500, 500), (30_000, 2_000)] {
        let mut fixture = Fixture::start(2, &[(1, &[Does::StopsIn(Duration::from_millis(needs_ms))])]);
        fixture.begun(1).await;
        fixture.cancel.cancel();
        let stopped = u64::try_from(fixture.stopped().await.as_millis()).unwrap();
        assert!((stops_after_ms..stops_after_ms + 5).contains(&stopped), "{stopped} ms");
        assert_eq!(fixture.scripted.running.load(Ordering::SeqCst), 0);
        fixture.has("controller_runtime_reconcile_errors_total{controller=\"agent\"} 0");
        assert_eq!(fixture.queue.failures(&1), 0, "stopping is nobody's failure");
        let left = timeout(Duration::from_secs(1), fixture.queue.take())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*left.key(), 1, "the key stays in the queue");
    }
}

#[tokio::test(start_paused = true)]
async fn shutting_the_queue_down_lets_running_work_come_to_its_own_end() {
    let mut fixture = Fixture::start(1, &[(1, &[Does::Hangs]), (2, &[])]);
    fixture.begun(1).await;
    fixture.queue.shutdown();
    assert_eq!(
        fixture.stopped().await,
        Duration::from_mins(1),
        "bounded by the deadline"
    );
    assert_eq!(*fixture.runs.borrow(), 1, "nothing new was begun");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_controller_drops_what_it_runs() {
    let mut fixture = Fixture::start(1, &[(1, &[Does::Hangs])]);
    fixture.begun(1).await;
    fixture.task.abort();
    assert!((&mut fixture.task).await.unwrap_err().is_cancelled());
    let work = timeout(Duration::from_secs(5), fixture.queue.take()).await.unwrap();
    assert_eq!(*work.unwrap().key(), 1, "its key is not lost");
    assert_eq!(fixture.scripted.running.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn everything_is_exposed_at_zero_before_anything_happened() {
    let registry = Registry::new();
    RuntimeMetrics::register(&registry, &["agent", "gateway"], "openclaw-controller").unwrap();
    crate::runtime::FleetMetrics::register(&registry).unwrap();
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    for controller in ["agent", "gateway"] {
        let queue = format!("{{controller=\"{controller}\",name=\"{controller}\"}} 0");
        for line in [
            format!("workqueue_adds_total{queue}"),
            format!("workqueue_retries_total{queue}"),
            format!("workqueue_queue_duration_seconds_count{queue}"),
            format!("workqueue_work_duration_seconds_count{queue}"),
            format!("workqueue_unfinished_work_seconds{queue}"),
            format!("workqueue_longest_running_processor_seconds{queue}"),
            format!("workqueue_depth{{controller=\"{controller}\",name=\"{controller}\",priority=\"0\"}} 0"),
            format!("controller_runtime_reconcile_total{{controller=\"{controller}\",result=\"requeue\"}} 0"),
            format!("controller_runtime_max_concurrent_reconciles{{controller=\"{controller}\"}} 0"),
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
    }
    for line in [
        "leader_election_master_status{name=\"openclaw-controller\"} 0",
        "openclaw_controller_agents{condition=\"Ready\",status=\"False\"} 0",
        "openclaw_controller_gateways{condition=\"Reachable\",status=\"True\"} 0",
        "openclaw_controller_drift_detected_total{kind=\"file\"} 0",
        "openclaw_controller_drift_corrected_total{kind=\"heartbeat\"} 0",
        "openclaw_controller_gateway_restarts_caused_total 0",
        "openclaw_controller_convergence_seconds_count 0",
        "openclaw_controller_oldest_unconverged_age_seconds 0",
        "openclaw_controller_listener_up 0",
        "openclaw_controller_discoveries_total{source=\"resync\"} 0",
        "openclaw_controller_token_rotations_total{outcome=\"promoted\"} 0",
        "openclaw_controller_lease_held 0",
        "openclaw_controller_lease_lost_total 0",
        "workqueue_work_duration_seconds_bucket{controller=\"agent\",name=\"agent\",le=\"0.00000001\"} 0",
        "controller_runtime_reconcile_time_seconds_bucket{controller=\"agent\",le=\"60\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_panics_and_failures_ends_in_everything_done() {
    let script: Vec<(u32, &[Does])> = (0..40)
        .map(|key| {
            let does: &[Does] = match key % 4 {
                0 => &[Does::Panics, Does::Fails, Does::Panics],
                1 => &[Does::Fails, Does::Hangs],
                2 => &[Does::Requeues, Does::Panics],
                _ => &[],
            };
            (key, does)
        })
        .collect();
    let mut fixture = Fixture::start(4, &script);
    fixture.begun(10 * (4 + 3 + 3 + 1)).await;
    fixture.queue.shutdown();
    fixture.stopped().await;
    assert!(fixture.scripted.script.lock().unwrap().values().all(Vec::is_empty));
    fixture.has("controller_runtime_reconcile_panics_total{controller=\"agent\"} 30");
    assert!((0..40).all(|key| fixture.queue.failures(&key) == 0));
}

#[test]
fn metrics_of_one_name_cannot_be_registered_twice() {
    let registry = Registry::new();
    QueueMetrics::register(&registry, &["agent"]).unwrap();
    assert!(QueueMetrics::register(&registry, &["agent"]).is_err());
}
