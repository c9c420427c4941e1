//! The corpora of a crate's fuzz targets, put to the targets' own assertions.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Inputs, with their names.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// A fuzz target.
pub struct Target {
    /// Its name, and its corpus's.
    pub name: &'static str,
    /// What it asks of an input.
    pub check: fn(&[u8]),
    /// What a corpus begins with.
    pub seeds: fn() -> Seeds,
}

/// An input whose first byte chooses what it is.
pub fn seed(name: impl Into<String>, way: u8, bytes: &[u8]) -> (String, Vec<u8>) {
    (name.into(), [&[way][..], bytes].concat())
}

/// Checks every input of the targets' corpora. With `THALWEG_WRITE_SEEDS` the seeds among them are written anew before.
pub fn replay(targets: &[Target]) {
    for target in targets {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        if std::env::var_os("THALWEG_WRITE_SEEDS").is_some() {
            write(&corpus, (target.seeds)());
        }
        let mut inputs: Vec<PathBuf> = fs::read_dir(&corpus).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 5, "the corpus of {} is gone", target.name);
        for input in inputs {
            println!("{}", input.display());
            (target.check)(&fs::read(&input).expect("readable"));
        }
    }
}

fn write(corpus: &Path, seeds: Seeds) {
    fs::create_dir_all(corpus).expect("created");
    for (name, bytes) in seeds {
        fs::write(corpus.join(format!("seed-{name}")), bytes).expect("written");
    }
}
