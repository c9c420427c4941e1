//! The comparison on a terminal.

use super::result::{Comparison, Line, Spread};

/// Prints the table: figures and ratios with their spread.
pub fn print(comparison: &Comparison) {
    let Comparison { machine, settings, .. } = comparison;
    println!("{}: {}", comparison.workload, comparison.title);
    for line in facts(comparison) {
        println!("  {line}");
    }
    if settings.pairs == 1 {
        println!("  one pair only: a first sign, not a result");
    }
    for case in &comparison.cases {
        println!("\n{}\n  {}", case.title, case.command);
        for line in &case.summary {
            let values: Vec<String> =
                line.values.iter().map(|(subject, spread)| format!("{subject} {}", value(spread, line.unit))).collect();
            let limit = line.limit.map_or_else(String::new, |(name, limit)| format!("  [{name} {}]", number(limit, line.unit)));
            println!("  {:<38}{}{limit}", line.name, values.join("   "));
            for (subject, spread) in &line.ratios {
                println!("  {:<38}  {}", "", ratio(line, subject, spread));
            }
        }
        for warning in warnings(case) {
            println!("  ! {warning}");
        }
    }
    println!("\nload average before: {:.1} on {} CPUs", machine.load_average, machine.cpus);
}

/// What always has to be said beside a figure.
#[must_use]
pub fn facts(comparison: &Comparison) -> Vec<String> {
    let Comparison { machine, settings, .. } = comparison;
    let journal = match machine.metadata_journal {
        Some(true) => "with a metadata journal",
        Some(false) => "without a metadata journal",
        None => "metadata journal unknown",
    };
    let mut facts = vec![
        format!(
            "commit {}, {} UTC, {} pair(s){}",
            machine.commit,
            machine.date,
            settings.pairs,
            if settings.quick { ", quick" } else { "" }
        ),
        format!(
            "kernel {}, {} ({} CPUs, {:.0} GB), broker on CPU {:?}, load on CPU {}",
            machine.kernel,
            machine.cpu,
            machine.cpus,
            machine.memory_bytes as f64 / 1e9,
            machine.broker_cpus,
            machine.load_cpu
        ),
        format!("filesystem {}, {journal}", machine.filesystem),
    ];
    facts.extend(comparison.subjects.iter().map(|subject| format!("{}: {}; ack: {}", subject.key, subject.name, subject.ack)));
    if let Some(heap) = settings.kafka_heap_mib {
        facts.push(format!("Kafka's heap: {heap} MiB, G1"));
    }
    for (name, before) in &comparison.limits_before {
        let after = comparison.limits_after.get(name).and_then(serde_json::Value::as_f64);
        match (before.as_f64(), after) {
            (Some(before), Some(after)) => facts.push(format!("limit {name}: {before:.0} before, {after:.0} after")),
            _ => facts.push(format!("limit {name}: {before}")),
        }
    }
    facts
}

/// What a reader should know before believing a case: a load that costs more than the broker measures itself.
#[must_use]
pub fn warnings(case: &super::result::CaseResult) -> Vec<String> {
    let mut warnings = Vec::new();
    for run in &case.runs {
        let cost = |name: &str| run.report[name].as_f64();
        if let (Some(own), Some(broker)) = (cost("own_cpu_us_per_record"), cost("broker_cpu_us_per_record"))
            && own > broker
            && run.report["records"].as_f64() > Some(0.0)
        {
            warnings.push(format!(
                "pair {}, {}: the load cost more CPU a record ({own:.3} us) than the broker ({broker:.3} us)",
                run.pair, run.subject
            ));
        }
    }
    warnings
}

/// A figure with its spread, if it has one.
#[must_use]
pub fn value(spread: &Spread, unit: &str) -> String {
    let text = number(spread.median, unit);
    if spread.min == spread.max { text } else { format!("{text} ({} to {})", number(spread.min, unit), number(spread.max, unit)) }
}

/// A ratio in words: which way it goes, and who is better.
#[must_use]
pub fn ratio(line: &Line, subject: &str, spread: &Spread) -> String {
    let spread_text = if spread.min == spread.max { String::new() } else { format!(" ({} to {})", plain(spread.min), plain(spread.max)) };
    let better = if is_worse(line, spread) { format!("  {subject} is better") } else { String::new() };
    format!("thalweg / {subject}: {}{spread_text}{better}", plain(spread.median))
}

/// True if the other broker's figure is better.
#[must_use]
pub fn is_worse(line: &Line, spread: &Spread) -> bool {
    if line.more_is_better { spread.median < 1.0 } else { spread.median > 1.0 }
}

/// A number in its unit; bytes and microseconds in the unit that suits.
#[must_use]
pub fn number(figure: f64, unit: &str) -> String {
    match unit {
        "B" => format!("{} MB", plain(figure / 1e6)),
        "us" if figure >= 10_000_000.0 => format!("{} s", plain(figure / 1e6)),
        "us" if figure >= 10_000.0 => format!("{} ms", plain(figure / 1e3)),
        "" => plain(figure),
        _ => format!("{} {unit}", plain(figure)),
    }
}

/// Three digits that count, and no more.
#[must_use]
pub fn plain(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 0.1 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}
