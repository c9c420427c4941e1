//! The page: text for people, one JSON object for programs.

use super::{
    chart::Sizes,
    counts::{Counts, OfRecords},
    distinct::Distinct,
};
use crate::dump::show::{Printer, Shown, size_text};
use anyhow::Result;
use engine::batch::Codec;
use serde_json::{Value as Json, json};

/// Keys and producers that are named.
const NAMED_MAX: usize = 10;

pub(super) fn print(counts: &Counts, records: bool, out: &mut Printer<'_>) -> Result<()> {
    if out.is_json() {
        return out.object(object(counts));
    }
    let mut rows: Vec<(&str, String)> = vec![
        ("segments", counts.segments().to_string()),
        ("batches", format!("{} ({} of control, {} empty)", counts.batches, counts.control_batches, counts.empty_batches)),
        ("records", counts.records.to_string()),
        ("bytes", format!("{} ({})", counts.bytes, size_text(counts.bytes))),
        ("offsets", range(counts.offsets)),
        ("gaps", format!("{}, {} offsets missing", counts.gaps.0, counts.gaps.1)),
        ("timestamps", range(counts.times)),
        ("leader epochs", range(counts.leader_epochs)),
        ("damaged", format!("{} places, {}", counts.damaged.0, size_text(counts.damaged.1))),
    ];
    match &counts.unknown {
        Some(why) => rows.push(("in the journal", format!("what is only there is not counted: {why}"))),
        None if counts.in_journal.0 > 0 => {
            let (batches, bytes) = counts.in_journal;
            rows.push(("in the journal", format!("{batches} of these batches, {}, and not in a segment yet", size_text(bytes))));
        }
        None => {}
    }
    for (name, codec) in codecs(counts) {
        let ratio = codec.ratio().map(|ratio| format!(", ratio {ratio:.2}")).unwrap_or_default();
        rows.push(("compression", format!("{name}: {} batches, {}{ratio}", codec.batches, size_text(codec.bytes))));
    }
    let producers = counts.top_producers.most(NAMED_MAX).into_iter().map(|top| format!("{} ({} batches)", id(&top.key), top.count));
    rows.push(("producers", format!("{}, with {} batches: {}", about(&counts.producers), counts.idempotent_batches, list(producers))));
    let open = counts.open.first_unstable().map(|offset| format!(", open from offset {offset}")).unwrap_or_default();
    rows.push(("transactions", format!("{} committed, {} aborted{open}", counts.committed, counts.aborted)));
    if let Some((clean, dirty)) = counts.cleaned {
        let ratio = dirty as f64 / (clean + dirty).max(1) as f64;
        rows.push((
            "dirty ratio",
            format!("{ratio:.3} by the cleaner's checkpoint: {} cleaned, {} not", size_text(clean), size_text(dirty)),
        ));
    }
    if let Some(of_records) = &counts.of_records {
        of_records_rows(of_records, &mut rows);
    }
    let mut last = "";
    for (name, text) in &rows {
        let shown = if *name == last { "" } else { name };
        last = name;
        out.heading(&format!("{shown:<15}{text}"))?;
    }
    chart("batch sizes", &counts.batch_sizes, out)?;
    match &counts.of_records {
        Some(of_records) => chart("record sizes", &of_records.sizes, out),
        None if !records => out.heading("keys, tombstones and record sizes: --records"),
        None => Ok(()),
    }
}

fn of_records_rows(records: &OfRecords, rows: &mut Vec<(&str, String)>) {
    rows.push(("values", format!("{} null, of these {} tombstones (with a key)", records.null_values, records.tombstones)));
    rows.push(("headers", format!("in {} records", records.with_headers)));
    rows.push(("keys", format!("{} records with a key, {} different", records.keyed, about(&records.keys))));
    if let Some(share) = records.superseded() {
        rows.push(("superseded", format!("about {:.1}% of the keyed records: a later one has the same key", share * 100.0)));
    }
    if records.unreadable > 0 {
        rows.push(("unreadable", format!("{} batches or records", records.unreadable)));
    }
    for top in records.top_keys.most(NAMED_MAX) {
        let least = if top.error > 0 { format!(" (at least {})", top.count - top.error) } else { String::new() };
        rows.push(("top keys", format!("{:>8}{least} {}", top.count, Shown(&top.key))));
    }
}

fn chart(name: &str, sizes: &Sizes, out: &mut Printer<'_>) -> Result<()> {
    if sizes.count() == 0 {
        return Ok(());
    }
    let percentiles = [50.0, 90.0, 99.0, 100.0].map(|percent| size_text(sizes.percentile(percent)));
    let [p50, p90, p99, max] = percentiles;
    out.heading(&format!("{name:<15}p50 {p50}, p90 {p90}, p99 {p99}, max {max}, mean {}", size_text(sizes.mean() as u64)))?;
    sizes.bars().iter().try_for_each(|bar| out.heading(bar))
}

fn range<T: std::fmt::Display>(range: Option<(T, T)>) -> String {
    range.map_or("none".to_owned(), |(from, to)| format!("{from} to {to}"))
}

fn about(distinct: &Distinct) -> String {
    if distinct.is_exact() { distinct.count().to_string() } else { format!("about {}", distinct.count()) }
}

fn id(key: &[u8]) -> i64 {
    key.try_into().map_or(-1, i64::from_be_bytes)
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn codecs(counts: &Counts) -> impl Iterator<Item = (&'static str, &super::counts::OfCodec)> {
    let named = counts.codecs.iter().enumerate().map(|(id, codec)| (Codec::of_id(id as i16).map_or("unknown", Codec::name), codec));
    named.filter(|(_, codec)| codec.batches > 0)
}

fn object(counts: &Counts) -> Json {
    let pair = |range: Option<(i64, i64)>| range.map_or(Json::Null, |(from, to)| json!({"from": from, "to": to}));
    let codecs: Vec<Json> = codecs(counts)
        .map(|(name, codec)| json!({"codec": name, "batches": codec.batches, "bytes": codec.bytes, "ratio": codec.ratio()}))
        .collect();
    let producers: Vec<Json> =
        counts.top_producers.most(NAMED_MAX).iter().map(|top| json!({"producerId": id(&top.key), "batches": top.count})).collect();
    let mut fields = json!({
        "type": "summary",
        "segments": counts.segments(),
        "batches": counts.batches,
        "controlBatches": counts.control_batches,
        "emptyBatches": counts.empty_batches,
        "records": counts.records,
        "bytes": counts.bytes,
        "offsets": pair(counts.offsets),
        "gaps": counts.gaps.0,
        "offsetsMissing": counts.gaps.1,
        "timestamps": pair(counts.times),
        "leaderEpochs": pair(counts.leader_epochs.map(|(from, to)| (i64::from(from), i64::from(to)))),
        "damagedPlaces": counts.damaged.0,
        "damagedBytes": counts.damaged.1,
        "inJournal": {"known": counts.unknown.is_none(), "batches": counts.in_journal.0, "bytes": counts.in_journal.1},
        "compression": codecs,
        "producers": {"count": counts.producers.count(), "exact": counts.producers.is_exact(), "batches": counts.idempotent_batches, "top": producers},
        "transactions": {"committed": counts.committed, "aborted": counts.aborted, "openFrom": counts.open.first_unstable()},
        "dirtyRatio": counts.cleaned.map(|(clean, dirty)| dirty as f64 / (clean + dirty).max(1) as f64),
        "batchSizes": sizes(&counts.batch_sizes),
    });
    if let Some(records) = &counts.of_records {
        let top: Vec<Json> = records
            .top_keys
            .most(NAMED_MAX)
            .iter()
            .map(|top| json!({"key": Shown(&top.key).to_string(), "countMax": top.count, "countMin": top.count - top.error}))
            .collect();
        fields["keyedRecords"] = json!(records.keyed);
        fields["nullValues"] = json!(records.null_values);
        fields["tombstones"] = json!(records.tombstones);
        fields["recordsWithHeaders"] = json!(records.with_headers);
        fields["keys"] = json!({"count": records.keys.count(), "exact": records.keys.is_exact(), "top": top});
        fields["superseded"] = json!(records.superseded());
        fields["unreadable"] = json!(records.unreadable);
        fields["recordSizes"] = sizes(&records.sizes);
    }
    fields
}

fn sizes(sizes: &Sizes) -> Json {
    let buckets: Vec<Json> = sizes.buckets().iter().map(|(from, count)| json!({"from": from, "count": count})).collect();
    let [p50, p90, p99, max] = [50.0, 90.0, 99.0, 100.0].map(|percent| sizes.percentile(percent));
    json!({"count": sizes.count(), "p50": p50, "p90": p90, "p99": p99, "max": max, "mean": sizes.mean(), "buckets": buckets})
}
