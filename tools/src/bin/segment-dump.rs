//! `segment-dump`: what is in a segment, an index, a snapshot or the journal, and whether it is sound.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::dump::args::main()
}
