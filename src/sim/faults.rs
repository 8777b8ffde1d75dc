//! Fault injection: scripted, standing and seeded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut and the request is not carried out.
    DropBefore,
    /// The request is carried out, then the connection is cut: the answer is lost.
    DropAfter,
    /// The request is carried out, and the connection is cut in the middle of the answer's frame.
    CutFrame,
    /// The request is carried out, and the answer is no frame at all; the connection stays.
    Nonsense,
    /// The request is carried out, and the answer is a frame, with content that no gateway gives; the connection stays.
    OddPayload,
    /// The request is not carried out and answered with an error.
    Error {
        /// Its code, for example `UNAVAILABLE`.
        code: String,
        /// Its message.
        message: String,
        /// If it may be retried: after how many milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The request is not carried out and never answered; the connection stays.
    NeverAnswer,
    /// The request is carried out, but never answered; the connection stays.
    LoseAnswer,
    /// A frame of this many bytes comes instead of the answer.
    HugeFrame(usize),
    /// The request takes this much longer.
    Delay(Duration),
    /// The request is carried out and the gateway restarts before it has answered.
    Restart,
    /// The request is carried out; if it writes a file, somebody else puts this text there before the gateway looks at the file's
    /// size and time, so that it answers with the text that it was sent and the size and time of this one, as real ones do.
    Overwritten(String),
}

/// The faults of one gateway; a cheap handle to shared state.
///
/// A method is named as on the wire (`connect` is one too); `*` means any.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    scripted: Vec<Scripted>,
    standing: Vec<(String, Fault)>,
    latency: BTreeMap<String, Duration>,
    seeded: Option<Seeded>,
    refuse_connects: Option<u64>,
    granted: Option<Vec<String>>,
    tick: Option<Duration>,
    silent: bool,
}

#[derive(Debug)]
struct Scripted {
    method: String,
    /// How many matching requests still come before it.
    before: u64,
    fault: Fault,
}

#[derive(Debug)]
struct Seeded {
    state: u64,
    per_mille: u64,
}

/// What is to be done with one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) fault: Option<Fault>,
    /// Replaces the time that the method takes.
    pub(super) latency: Option<Duration>,
}

impl Faults {
    /// The `nth` request from now on with this method (1 is the next one) goes wrong, once.
    pub fn inject(&self, method: &str, nth: u64, fault: Fault) {
        self.lock().scripted.push(Scripted {
            method: method.to_owned(),
            before: nth.saturating_sub(1),
            fault,
        });
    }

    /// Every request with this method goes wrong, until [`Faults::clear`].
    pub fn always(&self, method: &str, fault: Fault) {
        self.lock().standing.push((method.to_owned(), fault));
    }

    /// Requests with this method take this long, instead of what they take on a real gateway.
    pub fn latency(&self, method: &str, latency: Duration) {
        self.lock().latency.insert(method.to_owned(), latency);
    }

    /// From now on `per_mille` of 1000 requests go wrong in one way or another. The same seed and the same requests give the
    /// same faults.
    pub fn seeded(&self, seed: u64, per_mille: u64) {
        self.lock().seeded = Some(Seeded { state: seed, per_mille });
    }

    /// Connections are refused until [`Faults::clear`].
    pub fn refuse_connects(&self) {
        self.lock().refuse_connects = Some(u64::MAX);
    }

    /// The next `count` connections are refused.
    pub fn refuse_next_connects(&self, count: u64) {
        self.lock().refuse_connects = Some(count);
    }

    /// Clients are granted these scopes at most, whatever they ask for.
    pub fn grant_only(&self, scopes: &[&str]) {
        self.lock().granted = Some(scopes.iter().map(ToString::to_string).collect());
    }

    /// The time between two ticks; takes effect with the next connection.
    pub fn tick_interval(&self, interval: Duration) {
        self.lock().tick = Some(interval);
    }

    /// No more ticks, as on a dead connection.
    pub fn stop_ticks(&self) {
        self.lock().silent = true;
    }

    /// Everything goes well again.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// Decides on one request.
    pub(super) fn decide(&self, method: &str) -> Verdict {
        let mut inner = self.lock();
        let latency = inner.latency.get(method).or_else(|| inner.latency.get("*")).copied();
        // Every script counts every request that it is about; the first that is due wins.
        let mut due = None;
        for (i, script) in inner.scripted.iter_mut().enumerate() {
            if !matches(&script.method, method) {
                continue;
            }
            if script.before > 0 {
                script.before -= 1;
            } else if due.is_none() {
                due = Some(i);
            }
        }
        let scripted = due.map(|i| inner.scripted.remove(i).fault);
        let standing = || {
            inner
                .standing
                .iter()
                .find(|(name, _)| matches(name, method))
                .map(|(_, fault)| fault.clone())
        };
        let fault = scripted
            .or_else(standing)
            .or_else(|| inner.seeded.as_mut().and_then(Seeded::fault));
        Verdict { fault, latency }
    }

    /// Whether one connection is refused.
    pub(super) fn refuses_connect(&self) -> bool {
        let mut inner = self.lock();
        match &mut inner.refuse_connects {
            None | Some(0) => false,
            Some(u64::MAX) => true,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// The scopes to grant of those asked for.
    pub(super) fn grant(&self, asked: Vec<String>) -> Vec<String> {
        match &self.lock().granted {
            None => asked,
            Some(limit) => asked.into_iter().filter(|scope| limit.contains(scope)).collect(),
        }
    }

    /// The time between two ticks: 30 s on every version measured.
    pub(super) fn tick(&self) -> Duration {
        self.lock().tick.unwrap_or(Duration::from_secs(30))
    }

    /// Whether ticks are held back.
    pub(super) fn is_silent(&self) -> bool {
        self.lock().silent
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(pattern: &str, method: &str) -> bool {
    pattern == "*" || pattern == method
}

impl Seeded {
    fn fault(&mut self) -> Option<Fault> {
        if self.next() % 1000 >= self.per_mille {
            return None;
        }
        Some(match self.next() % 9 {
            0 => Fault::DropBefore,
            1 | 2 => Fault::DropAfter,
            3 => Fault::CutFrame,
            4 => Fault::Nonsense,
            5 => Fault::Error {
                code: "UNAVAILABLE".to_owned(),
                message: "temporarily unavailable".to_owned(),
                retry_after_ms: Some(self.next() % 3000),
            },
            6 => Fault::LoseAnswer,
            7 => Fault::Delay(Duration::from_millis(self.next() % 20_000)),
            _ => Fault::Restart,
        })
    }

    /// SplitMix64: a seed gives the same numbers with every version of every library.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripted_fault_strikes_the_nth_matching_request_once() {
        let faults = Faults::default();
        faults.inject("config.patch", 2, Fault::DropAfter);
        let struck: Vec<bool> = ["config.patch", "config.get", "config.patch", "config.patch"]
            .iter()
            .map(|method| faults.decide(method).fault.is_some())
            .collect();
        assert_eq!(struck, [false, false, true, false]);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let run = |seed| {
            let faults = Faults::default();
            faults.seeded(seed, 300);
            (0..200).map(|_| faults.decide("x").fault).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let struck = run(7).iter().flatten().count();
        assert!((30..90).contains(&struck), "{struck} of 200 at 30 %");
    }
}
