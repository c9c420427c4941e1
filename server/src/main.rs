//! `thalweg`: a log broker for one machine that speaks the Kafka protocol.

use clap::Parser;
use server::{
    config::{Cli, Command},
    moving, start,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let done = match cli.command.take() {
        None => start::run(cli),
        Some(Command::Export(args)) => moving::export::run(&args),
        Some(Command::Import(args)) => moving::import::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thalweg: {error:#}");
            ExitCode::FAILURE
        }
    }
}
