mod random;

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use futures::FutureExt;
use prometheus::Registry;
use tokio::time::{Instant, advance, timeout};

use super::*;

/// No jitter: delays are exactly 0.75, 1.5, 3, 6, 12, 24, 30 s.
const STEADY: BackoffPolicy = BackoffPolicy {
    base: Duration::from_millis(750),
    cap: Duration::from_secs(30),
    factor: 2.0,
    jitter: 0.0,
};
const FAILED: Outcome = Outcome::Retry { at_least: None };

fn queue_with(registry: &Registry, limit: RateLimit) -> WorkQueue<u32> {
    let metrics = QueueMetrics::register(registry, &["agent"]).unwrap();
    WorkQueue::new("agent", STEADY, limit, &metrics, 1)
}

fn queue() -> WorkQueue<u32> {
    queue_with(&Registry::new(), RateLimit::default())
}

/// What can be taken without waiting.
fn take_now(queue: &WorkQueue<u32>) -> Option<Work<u32>> {
    queue.take().now_or_never().flatten()
}

/// Waits for the next key, and says after what time it came.
async fn take_after(queue: &WorkQueue<u32>) -> (Work<u32>, Duration) {
    let started = Instant::now();
    let work = timeout(Duration::from_hours(1), queue.take()).await;
    (work.expect("a key within the hour").expect("a key"), started.elapsed())
}

fn close_to(actual: Duration, expected_ms: u64) -> bool {
    // Tokio's timers tick in milliseconds and round up.
    let actual = u64::try_from(actual.as_millis()).unwrap();
    (expected_ms..=expected_ms + 2).contains(&actual)
}

#[tokio::test(start_paused = true)]
async fn a_key_added_many_times_runs_once() {
    let queue = queue();
    for _ in 0..5 {
        queue.add(1, Priority::Change);
        queue.add(1, Priority::Resync);
    }
    assert_eq!(queue.len(), 1);
    let work = take_now(&queue).unwrap();
    assert_eq!(*work.key(), 1);
    queue.done(work, Outcome::Done);
    assert!(take_now(&queue).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_being_worked_on_is_not_handed_out_again_but_runs_afterwards() {
    let queue = queue();
    queue.add(1, Priority::Change);
    let work = take_now(&queue).unwrap();
    queue.add(1, Priority::Change);
    queue.add(1, Priority::Resync);
    assert!(take_now(&queue).is_none(), "never twice at once");
    queue.done(work, Outcome::Done);
    let again = take_now(&queue).unwrap();
    queue.done(again, Outcome::Done);
    assert!(take_now(&queue).is_none(), "once more is enough");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_worker_is_woken_by_an_add() {
    let queue = queue();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { *queue.take().await.unwrap().key() }
    });
    tokio::task::yield_now().await;
    queue.add(7, Priority::Resync);
    assert_eq!(timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn many_waiting_workers_are_all_woken_by_as_many_keys() {
    let queue = queue();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.take().await.unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    for key in 0..4 {
        queue.add(key, Priority::Change);
        queue.add_after(key + 4, Duration::from_secs(1));
    }
    let taken = timeout(Duration::from_secs(2), futures::future::join_all(workers))
        .await
        .unwrap();
    let taken: Vec<Work<u32>> = taken.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        taken.iter().map(|work| *work.key()).collect::<HashSet<_>>(),
        (0..8).collect()
    );
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_exponentially_and_success_forgets_them() {
    let queue = queue();
    queue.add(1, Priority::Change);
    for (failures, delay_ms) in [
        (0, 0),
        (1, 750),
        (2, 1_500),
        (3, 3_000),
        (4, 6_000),
        (5, 12_000),
        (6, 24_000),
        (7, 30_000),
    ] {
        let (work, waited) = take_after(&queue).await;
        assert!(close_to(waited, delay_ms), "{waited:?} after {failures} failures");
        assert_eq!(work.failures(), failures);
        queue.done(work, FAILED);
    }
    assert_eq!(queue.failures(&1), 8);
    let (work, _) = take_after(&queue).await;
    queue.done(work, Outcome::Done);
    assert_eq!(queue.failures(&1), 0);
    queue.add(1, Priority::Change);
    queue.done(take_now(&queue).unwrap(), FAILED);
    assert!(close_to(take_after(&queue).await.1, 750));
}

#[tokio::test(start_paused = true)]
async fn a_failure_may_ask_for_a_longer_wait_than_the_backoff_but_not_for_a_shorter_one() {
    for (asked, waited_ms) in [(Duration::from_secs(20), 20_000), (Duration::from_millis(1), 750)] {
        let queue = queue();
        queue.add(1, Priority::Change);
        let at_least = Some(asked);
        queue.done(take_now(&queue).unwrap(), Outcome::Retry { at_least });
        assert!(close_to(take_after(&queue).await.1, waited_ms));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_during_backoff_neither_runs_early_nor_counts() {
    let registry = Registry::new();
    let queue = queue_with(&registry, RateLimit::default());
    queue.add(1, Priority::Change);
    queue.done(take_now(&queue).unwrap(), FAILED);
    let retry = queue.next_retry(&1).unwrap();
    for _ in 0..10 {
        queue.add(1, Priority::Change);
        queue.add_after(1, Duration::ZERO);
    }
    assert!(take_now(&queue).is_none());
    assert_eq!(queue.next_retry(&1), Some(retry));
    assert_eq!(queue.failures(&1), 1);
    assert!((counter(&registry, "workqueue_adds_total") - 1.0).abs() < 1e-9);
    let (work, waited) = take_after(&queue).await;
    assert!(close_to(waited, 750));
    assert_eq!(work.failures(), 1, "the hint did not forget the failure");
    queue.done(work, Outcome::Done);
    assert!(take_now(&queue).is_none(), "the retry was the answer to the hints");
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_runs_now_and_counts_its_failures_afresh() {
    let queue = queue();
    queue.add(1, Priority::Change);
    for _ in 0..4 {
        let (work, _) = take_after(&queue).await;
        queue.done(work, FAILED);
    }
    assert_eq!(queue.failures(&1), 4);
    queue.add_fresh(1);
    assert_eq!(queue.failures(&1), 0);
    assert_eq!(queue.next_retry(&1), None);
    let work = take_now(&queue).unwrap();
    queue.done(work, FAILED);
    assert_eq!(queue.failures(&1), 1);
    assert!(close_to(take_after(&queue).await.1, 750));
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_during_a_run_makes_that_runs_failure_not_count() {
    let queue = queue();
    queue.add(1, Priority::Resync);
    let work = take_now(&queue).unwrap();
    queue.add_fresh(1);
    queue.done(work, FAILED);
    let again = take_now(&queue).expect("it runs at once");
    assert_eq!(again.failures(), 0);
    queue.done(again, FAILED);
    assert!(take_now(&queue).is_none(), "the new generation's own failure counts");
}

#[tokio::test(start_paused = true)]
async fn a_change_during_a_run_that_fails_waits_for_the_backoff() {
    let queue = queue();
    queue.add(1, Priority::Change);
    let work = take_now(&queue).unwrap();
    queue.add(1, Priority::Change);
    queue.done(work, FAILED);
    let (work, waited) = take_after(&queue).await;
    assert!(close_to(waited, 750));
    queue.done(work, Outcome::Done);
    assert!(take_now(&queue).is_none());
}

#[tokio::test(start_paused = true)]
async fn of_several_times_the_earliest_wins() {
    let queue = queue();
    for seconds in [10, 3, 20] {
        queue.add_after(1, Duration::from_secs(seconds));
    }
    let (work, waited) = take_after(&queue).await;
    assert!(close_to(waited, 3_000));
    assert_eq!(work.failures(), 0, "a timer is not a failure");
    queue.add_after(1, Duration::from_secs(2));
    queue.done(work, Outcome::RequeueAfter(Duration::from_secs(5)));
    let (work, waited) = take_after(&queue).await;
    assert!(close_to(waited, 2_000));
    queue.done(work, Outcome::RequeueAfter(Duration::from_secs(5)));
    queue.add(1, Priority::Change);
    let work = take_now(&queue).expect("an add does not wait for a timer");
    queue.done(work, Outcome::Done);
    let later = timeout(Duration::from_mins(1), queue.take()).await;
    assert!(later.is_err(), "the run took the timer's place");
}

#[tokio::test(start_paused = true)]
async fn a_timer_asked_for_during_a_run_survives_it() {
    let queue = queue();
    queue.add(1, Priority::Change);
    let work = take_now(&queue).unwrap();
    queue.add_after(1, Duration::from_secs(4));
    queue.done(work, Outcome::Done);
    assert!(close_to(take_after(&queue).await.1, 4_000));
}

#[tokio::test(start_paused = true)]
async fn an_absurd_delay_is_cut_rather_than_a_crash() {
    let queue = queue();
    queue.add_after(1, Duration::MAX);
    queue.add(2, Priority::Change);
    let at_least = Some(Duration::MAX);
    queue.done(take_now(&queue).unwrap(), Outcome::Retry { at_least });
    assert!(take_now(&queue).is_none());
}

#[tokio::test(start_paused = true)]
async fn work_that_is_dropped_counts_as_a_failure_and_is_not_lost() {
    let queue = queue();
    queue.add(1, Priority::Change);
    drop(take_now(&queue).unwrap());
    assert_eq!(queue.failures(&1), 1);
    let (work, waited) = take_after(&queue).await;
    assert_eq!(*work.key(), 1);
    assert!(close_to(waited, 750));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_take_has_taken_nothing() {
    let queue = queue();
    assert!(queue.take().now_or_never().is_none());
    let first = queue.take();
    queue.add(1, Priority::Change);
    drop(first);
    assert_eq!(*take_now(&queue).unwrap().key(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_steady_stream_of_changes_delays_a_resync_by_a_bounded_time() {
    let queue = queue();
    queue.add(0, Priority::Resync);
    let started = Instant::now();
    for key in 1.. {
        queue.add(key, Priority::Change);
        queue.add(key + 1_000_000, Priority::Change);
        let work = take_now(&queue).unwrap();
        let resync = *work.key() == 0;
        queue.done(work, Outcome::Done);
        if resync {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(32), "the resync starves");
        advance(Duration::from_secs(1)).await;
    }
    assert!(started.elapsed() >= Duration::from_secs(30), "changes go first");
}

#[tokio::test(start_paused = true)]
async fn retries_of_all_keys_share_one_token_bucket_and_nothing_else_waits_for_it() {
    let queue = queue_with(
        &Registry::new(),
        RateLimit {
            per_second: NonZeroU32::new(10).unwrap(),
            burst: NonZeroU32::new(5).unwrap(),
        },
    );
    for key in 0..25 {
        queue.add(key, Priority::Change);
    }
    for _ in 0..25 {
        queue.done(take_now(&queue).unwrap(), FAILED);
    }
    advance(Duration::from_secs(1)).await;
    let burst: Vec<_> = std::iter::from_fn(|| take_now(&queue)).collect();
    assert_eq!(burst.len(), 5);
    queue.add(100, Priority::Resync);
    queue.add_fresh(24);
    assert_eq!(*take_now(&queue).unwrap().key(), 24, "a new generation is no retry");
    assert_eq!(*take_now(&queue).unwrap().key(), 100, "nor is a resync");
    let started = Instant::now();
    let mut rest = Vec::new();
    while rest.len() < 19 {
        rest.push(take_after(&queue).await.0);
    }
    assert!(
        close_to(started.elapsed(), 1_900),
        "{:?} for 19 at 10 per second",
        started.elapsed()
    );
    for work in burst.into_iter().chain(rest) {
        queue.done(work, Outcome::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn forgetting_a_key_ends_its_timers_but_not_what_was_asked_for_since() {
    let queue = queue();
    queue.add_after(1, Duration::from_secs(1));
    queue.forget(&1);
    queue.add(2, Priority::Change);
    queue.done(take_now(&queue).unwrap(), FAILED);
    queue.forget(&2);
    assert_eq!(queue.failures(&2), 0);
    assert!(timeout(Duration::from_mins(1), queue.take()).await.is_err());

    queue.add(3, Priority::Change);
    queue.forget(&3);
    let work = take_now(&queue).expect("an add stays");
    queue.add(3, Priority::Change);
    queue.forget(&3);
    queue.done(work, Outcome::Done);
    let work = take_now(&queue).expect("an add during a run stays");
    queue.done(work, FAILED);
    queue.add(3, Priority::Change);
    queue.forget(&3);
    assert!(take_now(&queue).is_some(), "an add that the backoff swallowed stays");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_every_take_and_lets_work_in_hand_be_finished() {
    let queue = queue();
    queue.add(1, Priority::Change);
    queue.add(2, Priority::Change);
    let work = take_now(&queue).unwrap();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move {
            let _first = queue.take().await;
            queue.take().await.is_none()
        }
    });
    tokio::task::yield_now().await;
    queue.shutdown();
    assert!(timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap());
    assert!(queue.take().await.is_none());
    queue.done(work, Outcome::Done);
}

fn counter(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    family.get_metric()[0].get_counter().get_value()
}

fn gauge(registry: &Registry, name: &str, priority: Option<&str>) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let metric = family
        .get_metric()
        .iter()
        .find(|metric| priority.is_none_or(|p| metric.get_label().iter().any(|label| label.value() == p)));
    metric.unwrap().get_gauge().get_value()
}

#[tokio::test(start_paused = true)]
async fn gauges_tell_what_the_queue_holds_when_they_are_collected() {
    let registry = Registry::new();
    let is = |name: &str, priority, expected: f64| {
        let value = gauge(&registry, name, priority);
        assert!(
            (value - expected).abs() < 1e-9,
            "{name} {priority:?} is {value}, not {expected}"
        );
    };
    let queue = queue_with(&registry, RateLimit::default());
    is("workqueue_depth", Some("0"), 0.0);
    queue.add(1, Priority::Change);
    queue.add(2, Priority::Change);
    queue.add(3, Priority::Resync);
    is("workqueue_depth", Some("0"), 2.0);
    is("workqueue_depth", Some("-100"), 1.0);
    let one = take_now(&queue).unwrap();
    advance(Duration::from_secs(2)).await;
    let two = take_now(&queue).unwrap();
    advance(Duration::from_secs(3)).await;
    is("workqueue_depth", Some("0"), 0.0);
    is("workqueue_unfinished_work_seconds", None, 8.0);
    is("workqueue_longest_running_processor_seconds", None, 5.0);
    queue.done(one, Outcome::Done);
    is("workqueue_unfinished_work_seconds", None, 3.0);
    queue.done(two, Outcome::RequeueAfter(Duration::from_secs(1)));
    is("workqueue_unfinished_work_seconds", None, 0.0);
    assert!((counter(&registry, "workqueue_retries_total") - 1.0).abs() < 1e-9);
    advance(Duration::from_secs(1)).await;
    is("workqueue_depth", Some("0"), 1.0);
    drop(queue);
    is("workqueue_depth", Some("0"), 0.0);
}
