//! `compact`: retention and log compaction on demand, of a stopped broker's directory or by a running one.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::compact::args::main()
}
