//! What the programs say of themselves is readable in a terminal of 80 columns as in one of 100.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use thalweg_tests::paths::binary;
use thalweg_tests::process::output;

const PROGRAMS: [(&str, &str, &[&str]); 4] = [
    ("server", "thalweg", &["import", "export"]),
    ("bench", "thalweg-bench", &["produce", "consume", "end-to-end", "catch-up", "plain-send", "compare"]),
    ("tools", "segment-dump", &[]),
    ("tools", "compact", &[]),
];

#[test]
fn examples_in_the_help_are_never_wrapped() {
    thalweg_tests::run("help", |_| {
        for (package, name, commands) in PROGRAMS {
            let path = binary(package, name)?;
            for command in commands.iter().map(Some).chain([None]) {
                let help = |columns: usize| -> Result<String> {
                    let mut program = Command::new(&path);
                    program.args(command).arg("--help").env("COLUMNS", columns.to_string());
                    let help = output(program)?;
                    let long = help.lines().find(|line| line.chars().count() > columns);
                    ensure!(long.is_none(), "{name} {command:?} in {columns} columns: {long:?}");
                    Ok(help)
                };
                let (narrow, wide) = (help(80)?, help(100)?);
                let (narrow, wide) = (examples(&narrow)?, examples(&wide)?);
                ensure!(narrow == wide, "{name} {command:?}: in 80 columns {narrow:#?}, in 100 {wide:#?}");
            }
        }
        Ok(())
    });
}

/// The indented lines behind the options.
fn examples(help: &str) -> Result<Vec<&str>> {
    let (_, behind) = help.rsplit_once("  Print ").context("the last option prints help or the version")?;
    Ok(behind.lines().skip(1).filter(|line| line.starts_with("  ")).collect())
}
