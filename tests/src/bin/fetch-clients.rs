//! Fetches and builds what the client tests need from registries, all at once, so that it comes while other tests run. Each test sees to it
//! by itself, too: it waits for what is on its way, and tries again what has failed here.

use std::process::ExitCode;
use std::thread;

use anyhow::anyhow;
use thalweg_tests::clients::Family;
use thalweg_tests::kafka::require_kafka;

fn main() -> ExitCode {
    // One Maven after the other: they share a repository.
    let java = || require_kafka().and_then(|()| Family::Java.command().map(drop));
    let fetched = thread::scope(|scope| {
        let mut fetching = vec![("Kafka and its Java client", scope.spawn(java))];
        for family in [Family::Python, Family::Kafkajs, Family::Franz] {
            fetching.push((family.name(), scope.spawn(move || family.command().map(drop))));
        }
        fetching.into_iter().map(|(what, thread)| (what, thread.join())).collect::<Vec<_>>()
    });
    let mut code = ExitCode::SUCCESS;
    for (what, outcome) in fetched {
        if let Err(error) = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked"))) {
            eprintln!("{what}: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
