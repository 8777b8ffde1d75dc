//! Frames held against the machine-readable contract of the protocol, as they are sent.
//!
//! [`Watch`] looks at every frame of a gateway, simulated ([`Watch::simulated`]) or behind a relay ([`relay`]): the shape of the
//! frame, that the method is in the contract, its parameters, its answer, and the payloads of events. What the contract does not
//! allow fails the test that the watch belongs to when it is dropped. Whatever differs rightly is listed in [`differences`].

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses its own part, and says by a panic what went wrong"
)]

pub(crate) mod differences;
pub(crate) mod relay;
mod schema;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openclaw_controller::sim::{SeenFrame, Sender, SimDialect, SimGateway};
use serde_json::{Value, json};

use differences::{DIFFERENCES, UNANNOUNCED, UNDESCRIBED};
use schema::Schema;

/// Looks at the frames of one gateway. Dropping it fails the test if any of them broke the contract.
#[derive(Clone)]
pub(crate) struct Watch {
    dialect: SimDialect,
    seen: Arc<Mutex<Seen>>,
    /// Whether this is the handle whose end counts.
    asserts: bool,
}

#[derive(Default)]
struct Seen {
    /// The methods of the requests that have not been answered, by connection and id.
    waiting: HashMap<(u64, String), String>,
    /// The events that each connection's `hello-ok` announced.
    announced: HashMap<u64, BTreeSet<String>>,
    /// What was sent and answered well.
    methods: BTreeSet<String>,
    /// What the contract has no words for.
    undescribed: BTreeSet<String>,
    /// What differed as it may.
    differed: BTreeSet<&'static str>,
    /// What differed as it may not.
    broken: BTreeSet<String>,
    frames: usize,
}

impl Watch {
    /// Looks at frames of a gateway of this kind, which somebody has to show.
    pub(crate) fn new(dialect: SimDialect) -> Self {
        Self {
            dialect,
            seen: Arc::default(),
            asserts: true,
        }
    }

    /// Looks at all frames of a simulated gateway from now on.
    pub(crate) fn simulated(gateway: &SimGateway) -> Self {
        let watch = Self::new(gateway.dialect());
        let looking = watch.silent();
        // Loaded here: inside the hook it would stop the gateway.
        Schema::shared();
        gateway.on_frame(move |frame| looking.look(frame));
        watch
    }

    /// The same watch for whoever shows it frames.
    pub(crate) fn silent(&self) -> Self {
        Self {
            dialect: self.dialect,
            seen: Arc::clone(&self.seen),
            asserts: false,
        }
    }

    /// Looks at one frame.
    pub(crate) fn look(&self, frame: &SeenFrame<'_>) {
        let mut seen = self.seen();
        seen.frames += 1;
        let mut violations = Vec::new();
        match serde_json::from_str::<Value>(frame.text) {
            Ok(value) if frame.sender == Sender::Client => {
                request(&mut seen, frame.connection, &value, &mut violations);
            }
            Ok(value) => answer_or_event(&mut seen, frame.connection, &value, &mut violations),
            Err(_) => violations.push("a frame is no JSON".to_owned()),
        }
        for violation in violations {
            let allowed = DIFFERENCES
                .iter()
                .find(|difference| difference.violation == violation && (difference.of)(self.dialect));
            match allowed {
                Some(difference) => drop(seen.differed.insert(difference.violation)),
                None => drop(seen.broken.insert(violation)),
            }
        }
    }

    /// The methods that were called and answered well.
    pub(crate) fn methods(&self) -> BTreeSet<String> {
        self.seen().methods.clone()
    }

    /// What breaks the contract so far.
    pub(crate) fn broken(&self) -> BTreeSet<String> {
        self.seen().broken.clone()
    }

    /// How many frames were looked at.
    pub(crate) fn frames(&self) -> usize {
        self.seen().frames
    }

    /// Asserts that what was seen, which must be all that the client can ask, needed every difference that is listed for such a
    /// gateway, and nothing more.
    pub(crate) fn assert_every_difference_is_needed(&self) {
        let seen = self.seen();
        for difference in DIFFERENCES.iter().filter(|difference| (difference.of)(self.dialect)) {
            let violation = difference.violation;
            assert!(
                !difference.always || seen.differed.contains(violation),
                "{:?} does not show any more: {violation}",
                self.dialect
            );
            assert!(
                !Schema::shared().allows(violation),
                "the contract allows by now: {violation}"
            );
        }
        let undescribed: BTreeSet<_> = UNDESCRIBED.iter().map(ToString::to_string).collect();
        assert_eq!(seen.undescribed, undescribed, "what the contract has no words for");
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.asserts || std::thread::panicking() {
            return;
        }
        let broken = self.broken();
        assert!(
            broken.is_empty(),
            "frames of {:?} break the contract: {broken:#?}",
            self.dialect
        );
    }
}

/// Holds a request against the contract.
fn request(seen: &mut Seen, connection: u64, frame: &Value, violations: &mut Vec<String>) {
    let schema = Schema::shared();
    violations.extend(schema.violations("RequestFrame", frame).expect("described"));
    let (Some(id), Some(method)) = (frame["id"].as_str(), frame["method"].as_str()) else {
        return;
    };
    seen.waiting.insert((connection, id.to_owned()), method.to_owned());
    if !schema.has_method(method) {
        violations.push(format!("{method} is no method of the contract"));
    }
    let params = frame.get("params").cloned().unwrap_or_else(|| json!({}));
    described(seen, &format!("{}Params", name(method)), &params, violations);
}

/// Holds an answer or an event against the contract.
fn answer_or_event(seen: &mut Seen, connection: u64, frame: &Value, violations: &mut Vec<String>) {
    let schema = Schema::shared();
    match frame["type"].as_str() {
        Some("res") => {
            violations.extend(schema.violations("ResponseFrame", frame).expect("described"));
            let id = frame["id"].as_str().unwrap_or_default();
            let Some(method) = seen.waiting.remove(&(connection, id.to_owned())) else {
                violations.push("an answer to nothing that was asked".to_owned());
                return;
            };
            if frame["ok"] == true {
                let definition = match method.as_str() {
                    "connect" => "HelloOk".to_owned(),
                    method => format!("{}Result", name(method)),
                };
                described(seen, &definition, &frame["payload"], violations);
                if let Some(events) = frame["payload"]["features"]["events"].as_array() {
                    let events = events.iter().filter_map(|event| event.as_str().map(str::to_owned));
                    seen.announced.insert(connection, events.collect());
                }
                seen.methods.insert(method);
            } else if frame["error"]["details"]["code"] == "MISSING_SCOPE" {
                let details = &frame["error"]["details"];
                described(seen, "MissingScopeErrorDetails", details, violations);
            }
        }
        Some("event") => {
            violations.extend(schema.violations("EventFrame", frame).expect("described"));
            let event = frame["event"].as_str().unwrap_or_default();
            let definition = format!("{}Event", name(event));
            let announced = seen.announced.get(&connection);
            match schema.violations(&definition, &frame["payload"]) {
                Some(found) => violations.extend(found),
                None if announced.is_some_and(|events| events.contains(event)) => {}
                None if UNANNOUNCED.contains(&event) => {}
                None => violations.push(format!("the event {event} is neither described nor announced")),
            }
        }
        _ => violations.push("a frame that is neither an answer nor an event".to_owned()),
    }
}

/// Holds a value against a definition, if there is one.
fn described(seen: &mut Seen, definition: &str, value: &Value, violations: &mut Vec<String>) {
    match Schema::shared().violations(definition, value) {
        Some(found) => violations.extend(found),
        None if UNDESCRIBED.contains(&definition) => drop(seen.undescribed.insert(definition.to_owned())),
        None => violations.push(format!(
            "{definition} is not described, and not in the list of what is not"
        )),
    }
}

/// The name that the contract's definitions of a method or an event begin with: `agents.files.list` is `AgentsFilesList`.
fn name(method: &str) -> String {
    method
        .split(['.', '-', '_'])
        .map(|part| {
            let mut chars = part.chars();
            let first = chars.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(chars).collect::<String>()
        })
        .collect()
}
