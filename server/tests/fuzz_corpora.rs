//! Replays the corpus of the fuzz target `request` with the target's own assertions, on the stable compiler.
//!
//! `THALWEG_WRITE_SEEDS=1 cargo test --release -p server --test fuzz_corpora` writes the seeds anew.

#[path = "../fuzz/src/checks.rs"]
mod checks;

use server::{
    api::APIS,
    walk::{Field, Kind, schema},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/request")
}

#[test]
fn every_request_of_the_corpus_holds_what_the_target_asserts() {
    if std::env::var_os("THALWEG_WRITE_SEEDS").is_some() {
        write_seeds();
    }
    let mut inputs: Vec<PathBuf> = fs::read_dir(corpus()).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    inputs.sort();
    assert!(inputs.len() >= APIS.len(), "the corpus is gone");
    for input in inputs {
        println!("{}", input.display());
        checks::request(&fs::read(&input).expect("readable"));
    }
}

#[test]
fn a_request_of_every_api_and_version_gets_through() {
    for (api, version, request) in requests() {
        let parsed = server::api::parse(request.into(), ([127, 0, 0, 1], 1).into());
        let (walked, decoded) = parsed.unwrap_or_else(|error| panic!("{api} v{version}: {error}")).expect("a known version");
        assert_eq!(walked, decoded, "{api} v{version}");
    }
}

/// A request of every API in every version, with one element in every array.
fn requests() -> Vec<(String, i16, Vec<u8>)> {
    let mut requests = Vec::new();
    for api in APIS {
        let message = schema(api.key as i16).expect("every API has a schema");
        for version in api.min..=api.max {
            let flexible = version >= message.flexible;
            let mut bytes = [(api.key as i16).to_be_bytes(), version.to_be_bytes()].concat();
            bytes.extend([0, 0, 0, 7, 0, 4]);
            bytes.extend(b"seed");
            if flexible {
                bytes.push(0);
            }
            structure(message.fields, version, flexible, &mut bytes);
            requests.push((format!("{:?}", api.key), version, bytes));
        }
    }
    requests
}

fn structure(fields: &'static [Field], version: i16, flexible: bool, out: &mut Vec<u8>) {
    let string = |out: &mut Vec<u8>| if flexible { out.extend([2, b'x']) } else { out.extend([0, 1, b'x']) };
    for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
        if matches!(field.kind, Kind::Array(_) | Kind::Strings | Kind::Fixeds(_)) {
            out.extend(if flexible { &[2][..] } else { &[0, 0, 0, 1] });
        }
        match field.kind {
            Kind::Fixed(bytes) | Kind::Fixeds(bytes) => out.extend(vec![0; bytes]),
            Kind::String | Kind::Strings => string(out),
            Kind::Bytes => out.extend(if flexible { &[2, b'x'][..] } else { &[0, 0, 0, 1, b'x'] }),
            Kind::Array(fields) | Kind::Structure(fields) => structure(fields, version, flexible, out),
        }
    }
    if flexible {
        out.push(0);
    }
}

/// The lowest and the highest version of every API, and the first flexible one.
fn write_seeds() {
    fs::create_dir_all(corpus()).expect("created");
    for (api, version, request) in requests() {
        let line = APIS.iter().find(|line| format!("{:?}", line.key) == api).expect("known");
        let flexible = schema(line.key as i16).expect("known").flexible;
        if [line.min, line.max, flexible].contains(&version) {
            fs::write(corpus().join(format!("seed-{}-v{version}", api.to_lowercase())), request).expect("written");
        }
    }
}
