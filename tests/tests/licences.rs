//! Everything that is linked into a program of this workspace may be passed on under Apache-2.0.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use thalweg_tests::{paths, process::output};

/// Licences that ask for no more than notices.
const ACCEPTED: [&str; 12] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_an_accepted_licence() {
    thalweg_tests::run("licences", |_| {
        let refused: Vec<String> = packages()?.iter().filter_map(refusal).collect();
        ensure!(refused.is_empty(), "not among the accepted licences:\n  {}", refused.join("\n  "));
        Ok(())
    });
}

/// The packages that are built for this platform.
fn packages() -> Result<Vec<Value>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.current_dir(paths::workspace()).args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform]);
    let metadata: Value = serde_json::from_str(&output(cargo)?)?;
    let built: BTreeSet<&str> = metadata["resolve"]["nodes"].as_array().context("nodes")?.iter().filter_map(|n| n["id"].as_str()).collect();
    let all = metadata["packages"].as_array().context("packages")?;
    Ok(all.iter().filter(|p| p["id"].as_str().is_some_and(|id| built.contains(id))).cloned().collect())
}

/// Why a package's licence is not accepted: an expression of `AND` whose every part must offer an accepted one among its `OR`s.
fn refusal(package: &Value) -> Option<String> {
    let expression = package["license"].as_str().unwrap_or("none stated");
    let accepted = expression
        .replace(['(', ')'], "")
        .split(" AND ")
        .all(|part| part.replace('/', " OR ").split(" OR ").any(|licence| ACCEPTED.contains(&licence.trim())));
    (!accepted).then(|| format!("{} {}: {expression}", package["name"], package["version"]))
}
