//! Segments that a real Kafka wrote, and what its own DumpLogSegments says of them: `segment-dump` says the same.
//! `tests/src/bin/kafka-corpus.rs` writes the corpus.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use tools::dump::{Mode, Outcome, Request, run};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kafka-4.3.1")
}

fn output(request: &Request) -> (String, Outcome) {
    let mut out = Vec::new();
    let outcome = run(request, &mut out).expect("readable");
    (String::from_utf8(out).expect("text"), outcome)
}

fn same(expected: &str, base: &Path) {
    let files: Vec<&str> = expected.lines().filter_map(|line| line.strip_prefix("Dumping ")).collect();
    assert!(files.len() > 2);
    let paths = files.iter().map(|file| base.join(file)).collect();
    let (text, outcome) = output(&Request { paths, records: true, ..Request::default() });
    let text = text.replace(&format!("{}/", base.display()), "");
    for (at, (ours, kafkas)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, kafkas, "line {at} of {}", files[0]);
    }
    assert_eq!(text.lines().count(), expected.lines().count());
    assert_eq!(outcome, Outcome::Clean);
}

#[test]
fn each_field_of_the_corpus_is_what_kafka_prints() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(corpus()).expect("a corpus") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let expected = fs::read_to_string(&path).expect("readable");
            same(&expected, &corpus());
            let signs = [
                "compresscodec: none",
                "compresscodec: gzip",
                "compresscodec: snappy",
                "compresscodec: lz4",
                "compresscodec: zstd",
                "headerKeys: [number,empty,null]",
                "baseSequence: 0",
                "endTxnMarker: COMMIT",
                "endTxnMarker: ABORT",
                "count: 0 ",
                "deleteHorizonMs: OptionalLong[",
                "keySize: -1",
                "valueSize: -1",
                "LogAppendTime",
                "payload: <DELETE>",
                r#""subscription":{"topics""#,
                r#""transactionalId""#,
                "lastStableOffset",
                "currentTxnFirstOffset: OptionalLong[",
            ];
            seen.extend(signs.into_iter().filter(|sign| expected.contains(sign)));
        }
    }
    // The corpus has one of everything.
    assert_eq!(seen.len(), 19, "{seen:?}");
}

#[test]
fn the_engines_fixture_is_what_kafka_prints() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/kafka-4.3.1");
    same(&fs::read_to_string(fixtures.join("DumpLogSegments.txt")).expect("readable"), &fixtures);
}

#[test]
fn kafkas_files_verify_clean() {
    let request = Request { paths: vec![corpus()], mode: Mode::Verify, records: true, ..Request::default() };
    let (text, outcome) = output(&request);
    assert_eq!(outcome, Outcome::Clean, "{text}");
    assert!(text.starts_with("clean: 0 findings in 9 partitions"), "{text}");
}

#[test]
fn json_is_one_object_a_line_with_the_same_numbers() {
    let mut request = Request { paths: vec![corpus()], records: true, ..Request::default() };
    request.look.format = tools::dump::Format::Json;
    request.look.headers = true;
    let (text, _) = output(&request);
    let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let of = |kind: &str| objects.iter().filter(|object| object["type"] == kind).count();
    let lines = output(&Request { paths: vec![corpus()], records: true, ..Request::default() }).0;
    let prefixed = |prefix: &str| lines.lines().filter(|line| line.starts_with(prefix)).count();
    assert_eq!((of("batch"), of("record")), (prefixed("baseOffset: "), prefixed("| offset: ")));
    assert!(objects.iter().all(|object| object["file"].is_string()));
    for kind in ["indexEntry", "timeIndexEntry", "abortedTransaction", "producer", "leaderEpoch", "partitionMetadata", "checkpoint"] {
        assert!(of(kind) > 0, "{kind}");
    }
}
