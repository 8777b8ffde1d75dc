//! How often one address may check in, and how often it may be wrong.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Requests per second in the long run, all together: one host may run hundreds of agents, which check in every ten minutes.
const REQUESTS: u32 = 20;
/// Requests at once after a quiet time.
const REQUEST_BURST: u32 = 200;
/// Wrong tokens per minute.
const FAILURES: u32 = 10;

/// After so many checks, addresses that have been quiet are forgotten.
const SWEEP: usize = 1_000;
/// With more addresses than these remembered even so, all are forgotten: a few megabytes at most.
const ADDRESSES: usize = 65_536;

/// The limits of check-ins, by address.
///
/// An address that has been wrong too often is told so instead of that it is wrong; its right tokens are still taken, for one
/// host runs many agents, and one that is wrong must not silence the others.
pub(super) struct Limits {
    requests: ByAddress,
    failures: ByAddress,
}

impl Default for Limits {
    fn default() -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            requests: ByAddress::new(Quota::per_second(number(REQUESTS)).allow_burst(number(REQUEST_BURST))),
            failures: ByAddress::new(Quota::per_minute(number(FAILURES))),
        }
    }
}

impl Limits {
    /// Counts a request, or says how long to wait before the next.
    pub(super) fn request(&self, address: IpAddr) -> Result<(), Duration> {
        self.requests.count(address)
    }

    /// Counts a wrong token, or says how long to wait before the next.
    pub(super) fn failure(&self, address: IpAddr) -> Result<(), Duration> {
        self.failures.count(address)
    }
}

type Buckets = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>;

struct ByAddress {
    quota: Quota,
    buckets: RwLock<Buckets>,
    counted: AtomicUsize,
}

impl ByAddress {
    fn new(quota: Quota) -> Self {
        Self {
            quota,
            buckets: RwLock::new(RateLimiter::hashmap(quota)),
            counted: AtomicUsize::new(0),
        }
    }

    fn count(&self, address: IpAddr) -> Result<(), Duration> {
        if self.counted.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            self.sweep(ADDRESSES);
        }
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets
            .check_key(&client(address))
            .map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets whom it need not remember, and everybody if there are more than `most` others.
    fn sweep(&self, most: usize) {
        let many = {
            let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
            buckets.retain_recent();
            buckets.len() > most
        };
        if many {
            *self.buckets.write().unwrap_or_else(PoisonError::into_inner) = RateLimiter::hashmap(self.quota);
        }
    }
}

/// Who an address is: of IPv6 the first 64 bits, of which whoever has one has all the others.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_burst_and_others_have_theirs() {
        let limits = Limits::default();
        for _ in 0..REQUEST_BURST {
            assert_eq!(limits.request(address("192.0.2.1")), Ok(()));
        }
        // Time passes meanwhile: a few more may be let through.
        let wait = (0..REQUEST_BURST).find_map(|_| limits.request(address("192.0.2.1")).err());
        let wait = wait.expect("the bucket is empty");
        assert!(wait <= Duration::from_millis(50), "{wait:?}");
        assert_eq!(limits.request(address("192.0.2.2")), Ok(()));
        assert_eq!(limits.failure(address("192.0.2.1")), Ok(()), "counted apart");
    }

    #[test]
    fn ten_wrong_tokens_a_minute_are_enough() {
        let limits = Limits::default();
        for _ in 0..FAILURES {
            assert_eq!(limits.failure(address("2001:db8::1")), Ok(()));
        }
        let wait = limits.failure(address("2001:db8::2:3:4:5")).unwrap_err();
        assert!(wait <= Duration::from_secs(6), "{wait:?}");
        assert_eq!(limits.failure(address("2001:db8:0:1::1")), Ok(()), "another network");
    }

    #[test]
    fn an_address_is_the_same_in_both_notations() {
        assert_eq!(client(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(client(address("2001:db8:1:2:3:4:5:6")), address("2001:db8:1:2::"));
    }

    #[test]
    fn memory_is_bounded_however_many_addresses_there_are() {
        let limits = Limits::default();
        for n in 0..100_u32 {
            let _ = limits.failure(IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        }
        let kept = || limits.failures.buckets.read().unwrap().len();
        limits.failures.sweep(100);
        assert_eq!(kept(), 100, "they were here a moment ago");
        limits.failures.sweep(99);
        assert_eq!(kept(), 0);
    }
}
