//! The corpus of `fuzz/`, and what seeded changes make of it.

use std::fs;
use std::path::{Path, PathBuf};

use openclaw_controller::fuzz::mutate::Mutator;
use openclaw_controller::fuzz::{self, TARGETS};

/// How many inputs are made from each of the corpus. `make fuzz` looks much further.
const MADE: u64 = 400;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn every_input_of_the_corpus_keeps_the_promises() {
    for target in TARGETS {
        let corpus = corpus(target.name);
        assert!(corpus.len() >= 8, "the corpus of {} is small", target.name);
        for (_, input) in corpus {
            fuzz::run(target.name, &input);
        }
    }
}

#[test]
fn what_seeded_changes_make_of_the_corpus_keeps_the_promises() {
    for target in TARGETS {
        let corpus = corpus(target.name);
        for (at, (path, input)) in corpus.iter().enumerate() {
            for seed in 0..MADE {
                let mut mutator = Mutator::new(seed.wrapping_mul(1_000_003) ^ at as u64);
                let (_, other) = &corpus[usize::try_from(seed).unwrap() % corpus.len()];
                let made = mutator.mutate(input, other);
                let outcome = std::panic::catch_unwind(|| (target.run)(&made));
                assert!(
                    outcome.is_ok(),
                    "{} breaks a promise on {:?}, made from {} with the seed {seed}",
                    target.name,
                    String::from_utf8_lossy(&made),
                    path.display()
                );
            }
        }
    }
}
