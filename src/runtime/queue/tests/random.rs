use std::{collections::HashSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{advance, timeout};

use super::*;

/// One random schedule: everything anybody can do, in any order. Checks after each step that no key is out twice, and in the end
/// that everything that was asked for has run.
async fn random_schedule(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let queue = queue();
    let keys = rng.random_range(1..8_u32);
    let mut in_hand: Vec<Work<u32>> = Vec::new();
    // Asked for, and not handed out since.
    let mut owed: HashSet<u32> = HashSet::new();
    for step in 0..300 {
        let key = rng.random_range(0..keys);
        let outcome = |rng: &mut StdRng| match rng.random_range(0..4) {
            0 => Outcome::RequeueAfter(Duration::from_millis(rng.random_range(0..5_000))),
            1 => Outcome::Retry {
                at_least: rng.random_bool(0.3).then_some(Duration::from_secs(3)),
            },
            _ => Outcome::Done,
        };
        match rng.random_range(0..12) {
            0 | 1 => {
                queue.add(key, Priority::Change);
                owed.insert(key);
            }
            2 => {
                queue.add(key, Priority::Resync);
                owed.insert(key);
            }
            3 => {
                queue.add_fresh(key);
                owed.insert(key);
                assert_eq!(queue.failures(&key), 0, "seed {seed} step {step}");
            }
            4 => {
                queue.add_after(key, Duration::from_millis(rng.random_range(0..5_000)));
                owed.insert(key);
            }
            5 => advance(Duration::from_millis(rng.random_range(0..3_000))).await,
            6 => drop((!in_hand.is_empty()).then(|| in_hand.swap_remove(0))),
            7 | 8 if !in_hand.is_empty() => {
                let work = in_hand.swap_remove(rng.random_range(0..in_hand.len()));
                queue.done(work, outcome(&mut rng));
            }
            _ => {
                if let Some(work) = take_now(&queue) {
                    assert!(
                        in_hand.iter().all(|other| other.key() != work.key()),
                        "seed {seed} step {step}: key {} is out twice",
                        work.key()
                    );
                    owed.remove(work.key());
                    in_hand.push(work);
                }
            }
        }
    }
    // Faults stop. What is in hand ends well; what is owed must come, and then there must be silence.
    for work in in_hand.drain(..) {
        queue.done(work, Outcome::Done);
    }
    while let Ok(Some(work)) = timeout(Duration::from_mins(2), queue.take()).await {
        owed.remove(work.key());
        queue.done(work, Outcome::Done);
    }
    assert!(owed.is_empty(), "seed {seed}: lost {owed:?}");
    for key in 0..keys {
        assert_eq!(queue.failures(&key), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_random_schedule_runs_a_key_twice_at_once_or_loses_one() {
    for seed in 0..500 {
        random_schedule(seed).await;
    }
}
