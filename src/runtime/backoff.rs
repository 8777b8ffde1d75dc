//! How long to wait after a failure.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Exponential backoff with jitter.
///
/// The default is the contract of the system: base 0.75 s, doubling, cap 30 s, jitter ±20 %. The jitter is applied to the capped
/// delay (24 s to 36 s once the cap is reached): clamping afterwards would let half of all waiting keys fire at the same moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffPolicy {
    /// The delay after the first failure, before jitter.
    pub base: Duration,
    /// The longest delay, before jitter.
    pub cap: Duration,
    /// What each further failure multiplies the delay by.
    pub factor: f64,
    /// The largest part of the delay that is added or taken away at random, from 0 to 1.
    pub jitter: f64,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(750),
            cap: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.2,
        }
    }
}

impl BackoffPolicy {
    /// The delay after this many failures in a row; none after none.
    pub fn delay(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        // Beyond 2^64 every sensible cap has long been reached; the bound keeps the exponent an i32.
        let exponent = i32::try_from((failures - 1).min(64)).unwrap_or(64);
        let cap = self.cap.as_secs_f64();
        let grown = (self.base.as_secs_f64() * self.factor.powi(exponent)).min(cap);
        let jitter = if self.jitter > 0.0 {
            rng.random_range(-self.jitter..=self.jitter)
        } else {
            0.0
        };
        // A policy of nonsense numbers (NaN, infinities) waits for the cap rather than not at all.
        Duration::try_from_secs_f64(grown * (1.0 + jitter)).unwrap_or(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn delays_double_from_the_base_to_the_cap() {
        let policy = BackoffPolicy {
            jitter: 0.0,
            ..BackoffPolicy::default()
        };
        let mut rng = StdRng::seed_from_u64(1);
        let delays: Vec<f64> = [0, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX]
            .map(|n| policy.delay(n, &mut rng).as_secs_f64())
            .to_vec();
        assert_eq!(delays, [0.0, 0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 30.0, 30.0, 30.0]);
    }

    #[test]
    fn jitter_spreads_a_delay_by_a_fifth_to_either_side_and_no_further() {
        let policy = BackoffPolicy::default();
        let mut rng = StdRng::seed_from_u64(2);
        for (failures, centre) in [(1, 0.75), (3, 3.0), (50, 30.0)] {
            let delays: Vec<f64> = (0..1_000)
                .map(|_| policy.delay(failures, &mut rng).as_secs_f64() / centre)
                .collect();
            let (low, high) = delays
                .iter()
                .fold((f64::MAX, f64::MIN), |(l, h), d| (l.min(*d), h.max(*d)));
            assert!((0.8 - 1e-9..0.82).contains(&low), "lowest {low} of {failures} failures");
            assert!(
                (1.18..1.2 + 1e-9).contains(&high),
                "highest {high} of {failures} failures"
            );
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let policy = BackoffPolicy::default();
        let run = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (1..20).map(|n| policy.delay(n, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
