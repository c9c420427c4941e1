//! `compare`
/// x
#[derive(Clone, Debug, clap::Args)]
pub struct Compare {}
/// x
pub fn run(_: &Compare) -> anyhow::Result<()> { Ok(()) }
