//! `thalweg-bench`: load for any broker that speaks the Kafka protocol.
//!
//! It sends pre-encoded batches over raw sockets from one pinned thread, so that it costs less than the broker that it
//! measures; its own CPU time is in every report. Every run checks what it moved: a benchmark that lost data fails.

mod args;
mod batch;
mod catch_up;
mod clock;
mod cold;
mod compare;
mod connection;
mod consume;
mod control;
mod end_to_end;
mod load;
mod numbers;
mod plain_send;
mod process;
mod produce;
mod report;
mod wire;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    let args = args::Args::parse();
    match args.command {
        args::Command::Produce(produce) => produce::run(&produce),
        args::Command::Consume(consume) => consume::run(&consume),
        args::Command::EndToEnd(both) => end_to_end::run(&both),
        args::Command::CatchUp(catch_up) => catch_up::run(&catch_up),
        args::Command::PlainSend(plain) => plain_send::run(&plain),
        args::Command::Compare(compare) => compare::run(&compare),
    }
}
