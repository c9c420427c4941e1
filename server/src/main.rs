//! `thalweg`: a log broker for one machine that speaks the Kafka protocol.

use clap::Parser;
use server::{config::Cli, start};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thalweg: {error:#}");
            ExitCode::FAILURE
        }
    }
}
