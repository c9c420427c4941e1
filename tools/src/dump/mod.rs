//! `segment-dump`: what is in segments, indexes, checkpoints and the journal, Thalweg's or Kafka's.
//!
//! ```text
//! args     what is asked for          inputs   what a path is, and what else lies beside it
//! read/    files in windows, a walk over a log that may be growing, where to begin it
//! journal/ what a log has in the journal only, laid over its segment
//! show/    batches, records and everything else, in Kafka's lines, aligned or as JSON      decode/  internal topics' records
//! verify/  what is wrong, where, and what to do                                            repair/  doing it
//! summary/ a log in one page
//! ```
//!
//! Everything but `repair` only reads, one bounded window at a time, and is safe on files that a broker is writing.

pub mod args;
mod decode;
mod inputs;
mod journal;
mod progress;
mod read;
mod repair;
mod select;
mod show;
mod summary;
mod verify;

pub use read::BytesAt;
pub use select::{Range, Select};
pub use show::{Form, Format, Look};

use anyhow::{Context, Result};
use journal::Journals;
use read::beside_a_broker;
use std::{io::Write, path::PathBuf};

/// What is done with the paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Print what is there.
    #[default]
    Print,
    /// One page about each log.
    Summary,
    /// Say what is wrong.
    Verify,
    /// Say what is wrong, and put it right where that is possible.
    Repair {
        /// Do it without asking.
        yes: bool,
    },
}

/// Whose records are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Decoder {
    /// What the partition's directory says.
    #[default]
    Auto,
    /// Nobody's: bytes are shown as they are.
    None,
    /// `__consumer_offsets`.
    Offsets,
    /// `__transaction_state`.
    Transactions,
}

/// All that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Files and directories.
    pub paths: Vec<PathBuf>,
    /// What to do with them.
    pub mode: Mode,
    /// Records as well: they are printed, summed up or checked, which needs decompression.
    pub records: bool,
    /// Which batches and records.
    pub select: Select,
    /// How it looks.
    pub look: Look,
    /// Whose records are decoded.
    pub decoder: Decoder,
    /// Where the journal is, if not in `journal` of the data directory.
    pub journal_dir: Option<PathBuf>,
    /// A progress bar may be drawn on the terminal.
    pub progress: bool,
}

/// What was found, from good to bad. The exit code of `segment-dump` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing is wrong.
    #[default]
    Clean,
    /// The end of a log is not whole, as a crash leaves it. Nothing valid follows.
    TornTail,
    /// Something is damaged.
    Corrupt,
}

impl Outcome {
    /// 0, 3 or 4. (2 says that something could not be read.)
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Clean => 0,
            Outcome::TornTail => 3,
            Outcome::Corrupt => 4,
        }
    }
}

/// Does what `request` asks for.
///
/// # Errors
/// A path that can't be read, or holds nothing that is known; the sink's.
pub fn run(request: &Request, out: &mut dyn Write) -> Result<Outcome> {
    let (mut worst, journals) = (Outcome::Clean, Journals::default());
    for path in &request.paths {
        // Before its name says what it is.
        std::fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
        beside_a_broker(inputs::is_live(path));
        let found = match request.mode {
            Mode::Print => show::print(path, request, &journals, out)?,
            Mode::Summary => summary::print(path, request, &journals, out)?,
            Mode::Verify => verify::print(path, request, &journals, out)?,
            Mode::Repair { yes } => repair::run(path, request, yes, &journals, out)?,
        };
        worst = worst.max(found);
    }
    out.flush()?;
    Ok(worst)
}
