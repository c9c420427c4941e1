//! The command line of `segment-dump`.

use super::{Decoder, Form, Format, Look, Mode, Range, Request, Select, read::may_yield, run, select::Keys};
use crate::output::{is_broken_pipe, no_color};
use clap::{ArgAction, Parser};
use std::{
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Prints, sums up, verifies and repairs log segments, their indexes and checkpoints, Thalweg's and Kafka's, and Thalweg's
/// journal.
///
/// Without an option that says otherwise it prints, one line a batch, as kafka-dump-log.sh does. Files may be in use: all but
/// --repair only reads. It exits with 0 if nothing is wrong, 3 if the end of a log is torn, 4 if something is damaged, and 2
/// if something could not be read.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Ranges include both ends: 7, 7..9, 7.., ..9

Examples:
  segment-dump thalweg-data/orders-0
  segment-dump --records --offset 1200..1210 thalweg-data/orders-0
  segment-dump --records --key user-42 --values json thalweg-data/orders-0
  segment-dump --summary thalweg-data/orders-0
  segment-dump --verify thalweg-data
  segment-dump --json --records kafka-logs/__consumer_offsets-7 | jq .payload"
)]
pub struct Arguments {
    /// Files, partition directories, the journal's directory, or a data directory
    #[arg(required = true)]
    paths: Vec<PathBuf>,

    /// One page about each log: batches, sizes, compression, times, producers, transactions. With --records also keys, tombstones, record sizes
    #[arg(long, conflicts_with_all = ["verify", "repair"])]
    summary: bool,
    /// Say what is wrong, where, and what to do. With --records what is in the batches, too
    #[arg(long, conflicts_with = "repair")]
    verify: bool,
    /// Put right what --verify finds, as far as that is possible; what is removed is kept in files beside. The broker must be stopped
    #[arg(long)]
    repair: bool,
    /// With --repair: don't ask
    #[arg(long, requires = "repair")]
    yes: bool,

    /// The records of each batch as well, and what is in each journal frame
    #[arg(long)]
    records: bool,
    /// Only these offsets
    #[arg(long, value_name = "RANGE")]
    offset: Option<Range>,
    /// Only records with these timestamps, in ms since 1970
    #[arg(long, value_name = "RANGE")]
    timestamp: Option<Range>,
    /// Only records with these keys, in the order of their bytes; 0x00ff stands for bytes
    #[arg(long, value_name = "KEYS")]
    key: Option<Keys>,
    /// Only batches of these producers; -1 for those of none
    #[arg(long, value_name = "RANGE", allow_negative_numbers = true)]
    producer_id: Option<Range>,
    /// At most so many batches of each path
    #[arg(long, value_name = "COUNT")]
    batches: Option<u64>,

    /// How keys are shown
    #[arg(long, value_name = "FORM", default_value = "text")]
    keys: Form,
    /// How values are shown
    #[arg(long, value_name = "FORM", default_value = "text")]
    values: Form,
    /// Cut keys, values and headers to so many bytes
    #[arg(long, value_name = "BYTES")]
    cut: Option<usize>,
    /// The values of headers as well
    #[arg(long)]
    headers: bool,
    /// Decode the records of an internal topic; auto goes by the directory's name
    #[arg(long, default_value = "auto")]
    decoder: Decoder,

    /// The form of the output [default: aligned on a terminal, else kafka]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// One JSON object a line: --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Colours: without it on a terminal only; --no-color never
    #[arg(long, overrides_with = "no_color")]
    color: bool,
    /// No colours and no progress bar
    #[arg(long, action = ArgAction::SetTrue)]
    no_color: bool,
    /// Where the journal is, if neither in DATA_DIR/journal nor where the broker's settings say
    #[arg(long, value_name = "DIRECTORY")]
    journal_dir: Option<PathBuf>,
}

impl Arguments {
    /// What they ask for.
    #[must_use]
    pub fn request(self) -> Request {
        let is_terminal = io::stdout().is_terminal();
        let by_place = if is_terminal { Format::Aligned } else { Format::Kafka };
        let format = if self.json { Format::Json } else { self.format.unwrap_or(by_place) };
        let no_color = self.no_color || no_color();
        Request {
            paths: self.paths,
            mode: match (self.summary, self.verify, self.repair) {
                (true, ..) => Mode::Summary,
                (_, true, _) => Mode::Verify,
                (.., true) => Mode::Repair { yes: self.yes },
                _ => Mode::Print,
            },
            records: self.records,
            select: Select {
                offsets: self.offset,
                timestamps: self.timestamp,
                keys: self.key,
                producers: self.producer_id,
                batches_max: self.batches,
            },
            look: Look {
                format,
                colour: (is_terminal || self.color) && !no_color && format == Format::Aligned,
                keys: self.keys,
                values: self.values,
                bytes_max: self.cut,
                headers: self.headers,
            },
            decoder: self.decoder,
            journal_dir: self.journal_dir,
            progress: io::stderr().is_terminal() && !no_color,
        }
    }
}

/// The program: standard output gets what was asked for, standard error what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let request = Arguments::parse().request();
    may_yield();
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let result = run(&request, &mut out).and_then(|outcome| Ok(out.flush().map(|()| outcome)?));
    match result {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        // Whoever reads this has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segment-dump: {error:#}");
            ExitCode::from(2)
        }
    }
}
