//! Seeded changes of inputs, for toolchains without libFuzzer: of bytes, and of JSON as JSON.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// Makes inputs from others. The same seed makes the same ones.
#[derive(Debug)]
pub struct Mutator {
    rng: StdRng,
}

impl Mutator {
    /// One with this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Another input, made from one of the corpus and a second one.
    pub fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        if let Ok(mut value) = serde_json::from_slice::<Value>(input)
            && self.rng.random_bool(0.7)
        {
            let donor = serde_json::from_slice::<Value>(other).unwrap_or_default();
            for _ in 0..self.rng.random_range(1..=3) {
                self.change(&mut value, &donor);
            }
            return value.to_string().into_bytes();
        }
        let mut bytes = input.to_vec();
        for _ in 0..self.rng.random_range(1..=4) {
            self.change_bytes(&mut bytes, other);
        }
        bytes
    }

    /// Changes one place of a value, chosen by going down at random.
    fn change(&mut self, value: &mut Value, donor: &Value) {
        let descend = self.rng.random_bool(0.8);
        match value {
            Value::Object(map) if descend && !map.is_empty() => {
                let at = self.rng.random_range(0..map.len());
                if let Some(inner) = map.values_mut().nth(at) {
                    return self.change(inner, donor);
                }
            }
            Value::Array(items) if descend && !items.is_empty() => {
                let at = self.rng.random_range(0..items.len());
                return self.change(&mut items[at], donor);
            }
            Value::Object(map) if self.rng.random_bool(0.5) => return self.change_keys(map),
            Value::Array(items) if !items.is_empty() && self.rng.random_bool(0.5) => {
                let at = self.rng.random_range(0..items.len());
                let item = items[at].clone();
                return items.push(item);
            }
            _ => {}
        }
        *value = self.odd_value(donor);
    }

    fn change_keys(&mut self, map: &mut Map<String, Value>) {
        let Some(key) = map.keys().nth(self.rng.random_range(0..map.len().max(1))).cloned() else {
            map.insert("key".to_owned(), Value::Null);
            return;
        };
        let value = map.remove(&key).unwrap_or_default();
        if self.rng.random_bool(0.5) {
            let names = ["", "\u{0}", "id", "__proto__", "a.b", "é\n", "config", "content"];
            let name = names[self.rng.random_range(0..names.len())];
            map.insert(name.to_owned(), value);
        }
    }

    fn odd_value(&mut self, donor: &Value) -> Value {
        match self.rng.random_range(0..14) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(u64::MAX),
            4 => json!(1e308),
            5 => json!(0.1),
            6 => json!(""),
            7 => json!("\u{0}\u{1b}[31m\r\n\u{2028}\u{feff}"),
            8 => json!("x".repeat(self.rng.random_range(0..3000))),
            9 => json!([]),
            10 => json!({}),
            11 => json!("AUTH_TOKEN=__OPENCLAW_AGENT_TOKEN__"),
            12 => (0..60).fold(Value::Null, |inner, _| json!([inner])),
            _ => donor.clone(),
        }
    }

    fn change_bytes(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.rng.random_range(0..=bytes.len());
        match self.rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.rng.random_range(0..8),
            1 => bytes.insert(at, self.rng.random()),
            2 => bytes.truncate(at),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 if !other.is_empty() => {
                let from = self.rng.random_range(0..other.len());
                let to = (from + self.rng.random_range(0..40)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let words = [
                    "{",
                    "}",
                    "[",
                    "\"",
                    "\\u0000",
                    "\\ud800",
                    "1e999",
                    "null",
                    "\n",
                    "`",
                    "AUTH_TOKEN: ",
                ];
                let word = words[self.rng.random_range(0..words.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
}
