//! The kept corpus of each target, as it is and with a few thousand seeded mutations of each file: the regression test
//! of everything that fuzzing ever found. The same inputs on every machine and in every run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::path::Path;

use carousel_fuzz::MOST_MEMORY;

/// Of each file.
const MUTATIONS: u64 = 2000;
/// Of the targets that write files or build tables for each input.
const FEWER_MUTATIONS: u64 = 200;

fn survives(name: &str, target: fn(&[u8]), mutations: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no files", folder.display());
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        target(&bytes);
        for number in 0..mutations {
            // Said only when the test fails: which input it was.
            println!("{} mutation {number}", path.display());
            target(&mutated(&bytes, number));
        }
    }
}

/// One to four changes, of a kind and at a place that the number decides.
fn mutated(bytes: &[u8], number: u64) -> Vec<u8> {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bytes.len() as u64);
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), random.below(256) as u8),
            2 => {
                let part =
                    bytes[at.min(bytes.len())..].iter().take(random.below(64)).copied().collect::<Vec<_>>();
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), part);
            }
            3 => bytes.iter_mut().skip(at).take(random.below(9)).for_each(|byte| *byte = 0xff),
            4 => bytes.iter_mut().skip(at).take(random.below(9)).for_each(|byte| *byte = 0),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        }
    }
    bytes
}

/// xorshift64*; Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

macro_rules! targets {
    ($($name:ident: $mutations:expr),* $(,)?) => {$(
        #[test]
        fn $name() {
            survives(stringify!($name), carousel_fuzz::$name, $mutations);
        }
    )*};
}

targets! {
    wire: MUTATIONS,
    peer: MUTATIONS,
    coordinator_says: MUTATIONS,
    token_file: MUTATIONS,
    checkpoint: FEWER_MUTATIONS,
    journal: MUTATIONS,
    committed: MUTATIONS,
    configuration: MUTATIONS,
    tokenizer: FEWER_MUTATIONS,
    text_source: MUTATIONS,
    prepared: MUTATIONS,
}

#[test]
fn memory_beyond_the_limit_is_refused_and_within_it_given() {
    carousel_fuzz::within_limits(|| {
        let (mut small, mut large) = (Vec::<u8>::new(), Vec::<u8>::new());
        assert!(small.try_reserve_exact(MOST_MEMORY / 2).is_ok());
        assert!(large.try_reserve_exact(MOST_MEMORY).is_err());
    });
}
