//! `segment-dump`: what is in a segment, an index, a snapshot or the journal.

use anyhow::Result;
use clap::Parser;
use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};
use tools::{Options, dump};

/// Prints what is in log segments (Thalweg's and Kafka's), their indexes and snapshots, and in Thalweg's journal.
///
/// A log is printed one line a batch, as kafka-dump-log.sh does. Files may be in use: segment-dump only reads.
/// It exits with 1 if it found damage, and with 2 if it could not read something.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  segment-dump thalweg-data/orders-0
  segment-dump --records --from-offset 1200 --batches 5 thalweg-data/orders-0/00000000000000000000.log
  segment-dump --verify /var/lib/kafka/orders-0
  segment-dump --records thalweg-data/journal"
)]
struct Arguments {
    /// Files, partition directories, the journal's directory, or a data directory
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print the records of each batch, and what is in each journal frame
    #[arg(long)]
    records: bool,
    /// Check indexes against the log beside them
    #[arg(long)]
    verify: bool,
    /// Leave out batches that end below this offset
    #[arg(long, value_name = "OFFSET")]
    from_offset: Option<i64>,
    /// Print only batches of this producer
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    producer_id: Option<i64>,
    /// Print at most this many batches of each log
    #[arg(long, value_name = "COUNT")]
    batches: Option<u64>,
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<u64> {
    let options = Options {
        records: arguments.records,
        verify: arguments.verify,
        from_offset: arguments.from_offset,
        producer_id: arguments.producer_id,
        batches_max: arguments.batches,
    };
    let mut damages = 0;
    for path in &arguments.paths {
        damages += dump(path, &options, out)?;
    }
    out.flush()?;
    Ok(damages)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    match run(&arguments, &mut out) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(damages) => {
            eprintln!("segment-dump: {damages} damaged places");
            ExitCode::from(1)
        }
        // Whoever reads this has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segment-dump: {error:#}");
            ExitCode::from(2)
        }
    }
}
